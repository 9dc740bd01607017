//! The network: namespaces, the underlay, the CNI data path, the Service proxy and DNS.

pub mod cni;
pub mod netns;
pub mod nft;
pub mod underlay;

use crate::node::builtin::Builtins;

/// Adds the network's components to the lab's.
#[must_use]
pub fn builtins(builtins: Builtins) -> Builtins {
    builtins
}
