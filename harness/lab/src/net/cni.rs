//! The node's half of the CNI.

use std::net::Ipv4Addr;

use anyhow::bail;
use ipnet::Ipv4Net;

use super::netns::NetNs;
use crate::node::PodNetwork;

/// Pods joined to their node by routed veth pairs.
pub struct RoutedPods;

impl RoutedPods {
    /// The pods of one node.
    #[must_use]
    pub fn new(node: NetNs, pod_cidr: Ipv4Net) -> Self {
        let _ = (node, pod_cidr);
        Self
    }
}

#[async_trait::async_trait]
impl PodNetwork for RoutedPods {
    async fn attach(&self, _: &NetNs, _: &str) -> anyhow::Result<Ipv4Addr> {
        bail!("there is no pod network")
    }

    async fn detach(&self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
}
