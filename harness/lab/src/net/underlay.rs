//! The underlay: what joins the nodes, and the outside, to each other.
//!
//! Start from [`join`]: a bridge in the outside's namespace, and a veth pair from it to each node.
//! The outside routes load balancers' addresses to the nodes and nothing else: pods and ClusterIPs
//! are out of its reach, as they are outside a real cluster. [`balance`] is the part of a cloud's
//! load balancer that knows which nodes to send to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use rtnetlink::packet_route::route::{RouteMessage, RouteNextHop};
use rtnetlink::{LinkBridge, LinkUnspec, RouteNextHopBuilder};
use tokio_util::sync::CancellationToken;

use super::link::{ETH0, Links, Peer, sysctl, to, to_everything};
use super::proxy;
use crate::os::netns::NetNs;
use crate::topology;
use crate::world::World;

/// A node, as the underlay sees it.
#[derive(Debug, Clone)]
pub struct NodeLink {
    /// Its name.
    pub name: String,
    /// Its address on the underlay.
    pub ip: Ipv4Addr,
    /// Its network namespace.
    pub netns: NetNs,
    /// Its pods' addresses.
    pub pod_cidr: Ipv4Net,
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

/// The lab is IPv4 only; without this, every interface would have an IPv6 address nobody gave it.
const NO_IPV6: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Joins the outside and the nodes.
///
/// # Errors
/// When the kernel refuses an interface, an address or a route; the text names it.
pub async fn join(outside: &NetNs, nodes: &[NodeLink]) -> anyhow::Result<()> {
    prepare(outside)?;
    // Connections are spread over nodes, not only clients: by their ports too.
    sysctl(outside, &[("net/ipv4/fib_multipath_hash_policy", "1")])?;
    let underlay: Ipv4Net = topology::UNDERLAY_CIDR.parse()?;
    let links = Links::of(outside)?;
    links.up(links.index("lo").await?).await?;
    let bridge = LinkBridge::new(BRIDGE).mtu(topology::UNDERLAY_MTU).build();
    links.add(BRIDGE, bridge).await?;
    let bridge = links.index(BRIDGE).await?;
    links
        .address(bridge, topology::OUTSIDE_IP, underlay.prefix_len())
        .await?;
    links.up(bridge).await?;
    let connected = nodes.iter().map(|node| connect(&links, bridge, node));
    futures::future::try_join_all(connected).await?;
    if let Some(route) = to_nodes(
        topology::LOAD_BALANCER_CIDR.parse()?,
        bridge,
        &balanced(nodes),
    )? {
        links.route(route).await?;
    }
    Ok(())
}

fn prepare(netns: &NetNs) -> anyhow::Result<()> {
    sysctl(netns, ROUTER)?;
    // A kernel without IPv6 has nothing to be switched off.
    if let Err(error) = sysctl(netns, NO_IPV6) {
        tracing::debug!("IPv6 stays as it is: {error:#}");
    }
    Ok(())
}

async fn connect(links: &Links, bridge: u32, node: &NodeLink) -> anyhow::Result<()> {
    let NodeLink {
        name, ip, netns, ..
    } = node;
    let underlay: Ipv4Net = topology::UNDERLAY_CIDR.parse()?;
    // The whole address is just as long as an interface's name may be.
    let port = format!("to-{ip}");
    let join = async {
        prepare(netns)?;
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
        inside.address(eth0, *ip, underlay.prefix_len()).await?;
        inside.up(eth0).await?;
        let default = to_everything().gateway(topology::OUTSIDE_IP).build();
        inside.route(default).await
    };
    join.await
        .with_context(|| format!("cannot join node {name} to the underlay"))
}

/// The nodes that a load balancer sends to: not the control plane, which kubeadm labels
/// `node.kubernetes.io/exclude-from-external-load-balancers`, unless it is all there is.
fn balanced(nodes: &[NodeLink]) -> Vec<Ipv4Addr> {
    let workers: Vec<_> = nodes
        .iter()
        .filter(|node| node.name != topology::CONTROL_PLANE)
        .map(|node| node.ip)
        .collect();
    if workers.is_empty() {
        return nodes.iter().map(|node| node.ip).collect();
    }
    workers
}

/// A route to a network through any of the nodes; nothing when there is none.
fn to_nodes(
    network: Ipv4Net,
    bridge: u32,
    nodes: &[Ipv4Addr],
) -> anyhow::Result<Option<RouteMessage>> {
    let hop = |ip: &Ipv4Addr| -> anyhow::Result<RouteNextHop> {
        let hop = RouteNextHopBuilder::new_ipv4().interface(bridge);
        Ok(hop.via(IpAddr::V4(*ip))?.build())
    };
    let hops = nodes.iter().map(hop).collect::<Result<Vec<_>, _>>()?;
    Ok((!hops.is_empty()).then(|| to(network).multipath(hops).build()))
}

/// Sends each load balancer's address to the nodes that answer for it: with `externalTrafficPolicy:
/// Local` only those with an endpoint, as a load balancer learns from health checks. Runs until
/// cancelled.
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
    let all = balanced(&nodes);
    let mut world = World::default();
    let services = world.watch::<Service>(Api::all(client.clone()));
    let slices = world.watch::<EndpointSlice>(Api::all(client));
    let work = async {
        world.ready().await;
        let mut before = BTreeMap::new();
        loop {
            let local = proxy::local_load_balancers(&services.state(), &slices.state());
            let mut now = BTreeMap::new();
            for (address, names) in local {
                let hops: BTreeSet<_> = nodes
                    .iter()
                    .filter(|node| names.contains(&node.name) && all.contains(&node.ip))
                    .map(|node| node.ip)
                    .collect();
                // With no such node, the address goes where all go, and the proxies there say why.
                if !hops.is_empty() {
                    now.insert(address, hops.into_iter().collect::<Vec<_>>());
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
    before: &BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>,
    now: &BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>,
) -> anyhow::Result<()> {
    for (&address, hops) in now {
        if before.get(&address) != Some(hops)
            && let Some(route) = to_nodes(address.into(), bridge, hops)?
        {
            links.route(route).await?;
        }
    }
    for &address in before.keys().filter(|address| !now.contains_key(address)) {
        links.delete_route(to(address.into()).build()).await?;
    }
    Ok(())
}
