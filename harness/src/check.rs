//! What a check is: a row, a function and, if it changes something, a manifest of the same name.
//!
//! Start from [`Check`]. Running them is `runner`'s work, judging is `verdict`'s. Rule: a row can be
//! read without running anything.

use std::fmt;

use futures::future::LocalBoxFuture;

use crate::scope::Scope;
use crate::verdict::{Cause, Finding, NoVerdict};

/// A layer of Kubernetes networking, in the order of bring-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// The container network: pod to pod.
    Cni,
    /// Services and cluster DNS.
    Services,
    /// Ingress (networking.k8s.io/v1).
    Ingress,
    /// The service mesh (Istio's API).
    Mesh,
    /// Gateway API.
    Gateway,
}

impl Layer {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Cni,
        Self::Services,
        Self::Ingress,
        Self::Mesh,
        Self::Gateway,
    ];

    /// The layer's name in ids, folders and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cni => "cni",
            Self::Services => "services",
            Self::Ingress => "ingress",
            Self::Mesh => "mesh",
            Self::Gateway => "gateway",
        }
    }

    /// The layers it stands on: a failed gate of one of these blocks it.
    #[must_use]
    pub const fn stands_on(self) -> &'static [Self] {
        match self {
            Self::Cni => &[],
            Self::Services => &[Self::Cni],
            Self::Ingress | Self::Mesh | Self::Gateway => &[Self::Cni, Self::Services],
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a cluster must be able to do before a check means anything. Found out by looking at the
/// cluster; a check whose need is not met is skipped with that reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// At least so many schedulable nodes.
    Nodes(usize),
    /// An implementation of `type: LoadBalancer`.
    LoadBalancer,
    /// A vantage outside the cluster that reaches node addresses.
    Outside,
}

/// The checks of one layer.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// The layer they judge.
    pub layer: Layer,
    /// The few without which the rest of the layer, and all above it, mean nothing. A failed gate
    /// blocks. They are run again after every layer that is brought up later, so they change nothing.
    pub gates: &'static [Check],
    /// All others.
    pub checks: &'static [Check],
}

/// One trial: one behaviour, one name.
#[derive(Clone, Copy)]
pub struct Check {
    /// `layer::behaviour`, unique over all suites.
    pub id: &'static str,
    /// One present-tense sentence about the cluster.
    pub claim: &'static str,
    /// The specification section, or the test of another suite, that it answers to.
    pub source: &'static str,
    /// Decided before the body runs.
    pub needs: &'static [Need],
    /// A file below `manifests/`, applied in a namespace of the check's own before the body runs
    /// and deleted after it. Without one the check only looks at its layer's fixture.
    pub manifest: Option<&'static str>,
    /// The body. It runs on a thread of its own, so nothing in it needs to be `Send`.
    pub run: for<'a> fn(&'a Scope) -> LocalBoxFuture<'a, Outcome>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a body comes to. `?` on anything of the harness yields [`NotPassed::NoVerdict`]; only the
/// expectations in [`crate::verdict`] make [`NotPassed::Failed`].
pub type Outcome = Result<(), NotPassed>;

/// The two ways not to pass.
#[derive(Debug)]
pub enum NotPassed {
    /// The cluster broke the claim.
    Failed(Box<Finding>),
    /// We could not tell.
    NoVerdict(NoVerdict),
}

impl<E: Into<NoVerdict>> From<E> for NotPassed {
    fn from(error: E) -> Self {
        Self::NoVerdict(error.into())
    }
}

impl NotPassed {
    /// Names the cause of a finding; where there is no verdict, there is nothing to explain.
    #[must_use]
    pub fn caused_by(self, cause: Cause) -> Self {
        match self {
            Self::Failed(finding) => Self::Failed(Box::new(finding.caused_by(cause))),
            other @ Self::NoVerdict(_) => other,
        }
    }
}
