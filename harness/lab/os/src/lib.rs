//! What the rooms share of the machine: network namespaces, and the program that sets rules in them.
//!
//! Start from [`netns::NetNs`]. Rule: nothing here knows of Kubernetes.

pub mod dial;
pub mod netns;
pub mod nft;
