//! The underlay: what joins the nodes and the outside.

use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;

use super::netns::NetNs;
use crate::topology::OUTSIDE_IP;

/// A node's place on the underlay.
pub struct NodeLink {
    /// The node's name.
    pub name: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its network namespace.
    pub netns: NetNs,
    /// Its pods' addresses.
    pub pod_cidr: Ipv4Net,
}

/// Joins the outside and the nodes.
///
/// # Errors
/// When the kernel refuses an address.
pub async fn join(outside: &NetNs, nodes: &[NodeLink]) -> anyhow::Result<()> {
    let own = nodes.iter().map(|node| (&node.netns, node.ip));
    for (netns, ip) in std::iter::once((outside, OUTSIDE_IP)).chain(own) {
        let handle = netns.netlink()?;
        let mut links = handle.link().get().match_name("lo".to_owned()).execute();
        if let Some(link) = links.try_next().await? {
            let address = handle.address().add(link.header.index, IpAddr::V4(ip), 32);
            address.execute().await?;
        }
    }
    Ok(())
}
