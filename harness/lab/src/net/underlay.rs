//! The underlay: what joins the nodes, and the outside, to each other.
//!
//! Start from [`join`]: a bridge in the outside's namespace, and a veth pair from it to each node.
//! The outside routes load balancers' addresses to the nodes and nothing else: pods and ClusterIPs
//! are out of its reach, as they are outside a real cluster. [`balance`] is the part of a cloud's
//! load balancer that knows which nodes to send to.

use std::net::IpAddr;

use anyhow::Context as _;
use rtnetlink::{LinkBridge, LinkUnspec};

use super::balancer;
use super::link::{ETH0, Links, Peer, sysctl};
use super::route::{to, to_everything};
use crate::os::netns::NetNs;
use crate::topology::{self, IpFamilies, IpFamily, load_balancer_cidr, nth, underlay_cidr};

/// A node, as the underlay sees it.
#[derive(Debug, Clone)]
pub struct NodeLink {
    /// Its name.
    pub name: String,
    /// Its addresses on the underlay, one a family.
    pub ips: Vec<IpAddr>,
    /// Its network namespace.
    pub netns: NetNs,
}

impl NodeLink {
    pub(super) fn ip(&self, family: IpFamily) -> Option<IpAddr> {
        let mut ips = self.ips.iter().copied();
        ips.find(|ip| IpFamily::of(*ip) == family)
    }
}

/// The bridge's name in the outside's namespace.
pub(super) const BRIDGE: &str = "underlay";

/// What a node's kernel, and the outside's, must be told. A packet that comes back another way than
/// its answer goes is not an attack here: pods' traffic to nodes goes over the underlay and comes
/// back through the overlay. Redirects would teach the outside a way past the Service proxy.
const ROUTER: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
];

/// The same for IPv6. Link-local addresses are used at once: nobody else can have them (RFC 4862 §5.4).
const ROUTER_V6: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
];

/// Where there is only IPv4: every interface would have an IPv6 address nobody gave it.
const NO_IPV6: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Joins the outside and the nodes.
///
/// # Errors
/// When the kernel refuses an interface, an address or a route; the text names it.
pub async fn join(outside: &NetNs, nodes: &[NodeLink], families: IpFamilies) -> anyhow::Result<()> {
    prepare(outside, families)?;
    let links = Links::of(outside)?;
    links.up(links.index("lo").await?).await?;
    let bridge = LinkBridge::new(BRIDGE).mtu(topology::UNDERLAY_MTU).build();
    links.add(BRIDGE, bridge).await?;
    let bridge = links.index(BRIDGE).await?;
    for family in families.each() {
        let (address, length) = outside_of(*family);
        links.address(bridge, address, length).await?;
    }
    links.up(bridge).await?;
    let connected = nodes
        .iter()
        .map(|node| connect(&links, bridge, node, families));
    futures::future::try_join_all(connected).await?;
    // Until somebody says better: `balancer` does.
    for family in families.each() {
        let first = balancer::balanced(nodes, *family).first().copied();
        if let Some(node) = first.and_then(|place| nodes[place].ip(*family)) {
            let route = to(load_balancer_cidr(*family)).through(bridge).by(node);
            links.route(route).await?;
        }
    }
    Ok(())
}

/// The outside's address, and how long the underlay's prefix is.
fn outside_of(family: IpFamily) -> (IpAddr, u8) {
    let underlay = underlay_cidr(family);
    (nth(underlay, 1), underlay.prefix_len())
}

fn prepare(netns: &NetNs, families: IpFamilies) -> anyhow::Result<()> {
    sysctl(netns, ROUTER)?;
    if families.each().contains(&IpFamily::V6) {
        return sysctl(netns, ROUTER_V6);
    }
    // A kernel without IPv6 has nothing to be switched off.
    if let Err(error) = sysctl(netns, NO_IPV6) {
        tracing::debug!("IPv6 stays as it is: {error:#}");
    }
    Ok(())
}

async fn connect(
    links: &Links,
    bridge: u32,
    node: &NodeLink,
    families: IpFamilies,
) -> anyhow::Result<()> {
    let NodeLink { name, ips, netns } = node;
    let first = ips
        .first()
        .with_context(|| format!("node {name} has no address"))?;
    // The whole address, of IPv4, is just as long as an interface's name may be.
    let port = format!("to-{first}");
    let join = async {
        prepare(netns, families)?;
        let peer = Peer { netns, name: ETH0 };
        links.veth(&port, peer, topology::UNDERLAY_MTU).await?;
        let index = links.index(&port).await?;
        links
            .set(
                LinkUnspec::new_with_index(index)
                    .controller(bridge)
                    .up()
                    .build(),
            )
            .await?;
        let inside = Links::of(netns)?;
        inside.up(inside.index("lo").await?).await?;
        let eth0 = inside.index(ETH0).await?;
        for ip in ips {
            let (_, length) = outside_of(IpFamily::of(*ip));
            inside.address(eth0, *ip, length).await?;
        }
        inside.up(eth0).await?;
        for family in ips.iter().map(|ip| IpFamily::of(*ip)) {
            let (outside, _) = outside_of(family);
            inside.route(to_everything(family).by(outside)).await?;
        }
        anyhow::Ok(())
    };
    join.await
        .with_context(|| format!("cannot join node {name} to the underlay"))
}
