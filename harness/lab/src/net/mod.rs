//! The network: namespaces, the underlay, the CNI data path, the Service proxy and DNS.

pub mod netns;
pub mod nft;
