//! What a check is: a row, a function and, if it changes something, a manifest of the same name.
//!
//! Start from [`Check`]. Running them is `runner`'s work, judging is `verdict`'s. Rule: a row can be
//! read without running anything.

use std::fmt;

use futures::future::LocalBoxFuture;

use crate::provider::Need;
use crate::scope::Scope;
use crate::stack::Layer;
use crate::verdict::Outcome;

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

impl Check {
    /// The works that [`Self::source`] names: `tutorial`, `sig-network`, `RFC 9110`, …
    pub fn works(&self) -> impl Iterator<Item = &'static str> {
        let named = self.source.split(';');
        named.filter_map(|one| one.split([',', ':']).next().map(str::trim))
    }

    /// The layer that it needs beside those that its own stands on.
    pub(crate) fn beside(&self) -> Option<Layer> {
        let of_a_mesh =
            |need: &Need| matches!(need, Need::GatewayFeature(name) if name.starts_with("Mesh"));
        self.needs.iter().any(of_a_mesh).then_some(Layer::Mesh)
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
