//! The underlay: what joins the nodes, and the outside, to each other.
//!
//! Start from [`join`]: a bridge in the outside's namespace, and a veth pair from it to each node.
//! The outside routes load balancers' addresses to the nodes and nothing else: pods and ClusterIPs
//! are out of its reach, as they are outside a real cluster. [`balance`] is the part of a cloud's
//! load balancer that knows which nodes to send to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use rtnetlink::{LinkBridge, LinkUnspec};
use tokio_util::sync::CancellationToken;

use super::link::{ETH0, Links, Peer, sysctl};
use super::proxy;
use super::route::{Route, to, to_everything};
use crate::os::netns::NetNs;
use crate::topology::{self, IpFamilies, IpFamily, load_balancer_cidr, nth, underlay_cidr};
use crate::world::World;

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
    fn ip(&self, family: IpFamily) -> Option<IpAddr> {
        let mut ips = self.ips.iter().copied();
        ips.find(|ip| IpFamily::of(*ip) == family)
    }
}

/// The bridge's name in the outside's namespace.
const BRIDGE: &str = "underlay";

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
    // Connections are spread over nodes, not only clients: by their ports too.
    for family in families.each() {
        let policy = match family {
            IpFamily::V4 => "net/ipv4/fib_multipath_hash_policy",
            IpFamily::V6 => "net/ipv6/fib_multipath_hash_policy",
        };
        sysctl(outside, &[(policy, "1")])?;
    }
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
    for family in families.each() {
        let hops = balanced(nodes, *family);
        if let Some(route) = to_nodes(load_balancer_cidr(*family), bridge, &hops) {
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

/// The nodes that a load balancer sends to: not the control plane, which kubeadm labels
/// `node.kubernetes.io/exclude-from-external-load-balancers`, unless it is all there is.
fn balanced(nodes: &[NodeLink], family: IpFamily) -> Vec<IpAddr> {
    let workers: Vec<_> = nodes
        .iter()
        .filter(|node| node.name != topology::CONTROL_PLANE)
        .filter_map(|node| node.ip(family))
        .collect();
    if workers.is_empty() {
        return nodes.iter().filter_map(|node| node.ip(family)).collect();
    }
    workers
}

/// A route to a network through any of the nodes; nothing when there is none.
fn to_nodes(network: IpNet, bridge: u32, nodes: &[IpAddr]) -> Option<Route> {
    let route = to(network).through(bridge);
    let route = nodes.iter().copied().fold(route, Route::by);
    (!nodes.is_empty()).then_some(route)
}

/// Sends each load balancer's address to the nodes that answer for it: with `externalTrafficPolicy:
/// Local` only those with an endpoint, as a load balancer learns from health checks; with
/// `sessionAffinity: ClientIP` one of them, since the outside is one client, and each node remembers
/// its clients by itself. Runs until cancelled.
///
/// # Errors
/// When the outside's routes cannot be reached.
pub async fn balance(
    outside: NetNs,
    nodes: Vec<NodeLink>,
    client: Client,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let links = Links::of(&outside)?;
    let bridge = links.index(BRIDGE).await?;
    let mut world = World::default();
    let services = world.watch::<Service>(Api::all(client.clone()));
    let slices = world.watch::<EndpointSlice>(Api::all(client));
    let work = async {
        world.ready().await;
        let mut before = BTreeMap::new();
        loop {
            let local = proxy::local_load_balancers(&services.state(), &slices.state());
            let sticky = proxy::sticky_load_balancers(&services.state());
            let mut now = BTreeMap::new();
            for &address in &sticky {
                now.insert(address, balanced(&nodes, IpFamily::of(address)));
            }
            for (address, names) in local {
                let family = IpFamily::of(address);
                let all = balanced(&nodes, family);
                let named = nodes.iter().filter(|node| names.contains(&node.name));
                let hops: BTreeSet<_> = named
                    .filter_map(|node| node.ip(family))
                    .filter(|ip| all.contains(ip))
                    .collect();
                // With no such node, the address goes where all go, and the proxies there say why.
                if !hops.is_empty() {
                    now.insert(address, hops.into_iter().collect::<Vec<_>>());
                }
            }
            for address in &sticky {
                if let Some(hops) = now.get_mut(address) {
                    hops.truncate(1);
                }
            }
            if let Err(error) = announce(&links, bridge, &before, &now).await {
                tracing::warn!("load balancer addresses: {error:#}");
            }
            before = now;
            world.changed().await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = work => ended,
    }
}

async fn announce(
    links: &Links,
    bridge: u32,
    before: &BTreeMap<IpAddr, Vec<IpAddr>>,
    now: &BTreeMap<IpAddr, Vec<IpAddr>>,
) -> anyhow::Result<()> {
    for (&address, hops) in now {
        if before.get(&address) != Some(hops)
            && let Some(route) = to_nodes(address.into(), bridge, hops)
        {
            links.route(route).await?;
        }
    }
    for &address in before.keys().filter(|address| !now.contains_key(address)) {
        links.delete_route(to(address.into()).message()?).await?;
    }
    Ok(())
}
