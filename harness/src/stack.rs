//! The layers of Kubernetes networking, and what each stands on.
//!
//! Start from [`Layer::ALL`]. Bringing one up is the room `layer`'s work. Rule: a layer stands on
//! layers before it only.

use std::fmt;

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
