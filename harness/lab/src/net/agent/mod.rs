//! The CNI's agent: the ways between nodes, and masquerading on the way out of the cluster.
//!
//! Start from [`run`], the task of each CNI's image, one on each node; what it keeps in place is
//! [`Ways::apply`]: over an overlay ([`vxlan`]) or, where nodes share a segment, plain routes through
//! each other. A pod's own link is [`super::cni`]'s. Rule: whatever of this is changed by others is
//! put back within [`PERIOD`].

mod masquerade;
mod vxlan;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use tokio::time::MissedTickBehavior;

use super::cni::Cni;
use super::link::{ETH0, Links, sysctl, to};
use super::policy;
use crate::builtin::BuiltinContext;
use crate::os::netns::NetNs;
use crate::os::nft::Nft;
use crate::topology::POD_CIDR;
use crate::world::World;

/// How long a change made by somebody else can last: Flannel's own period for its routes, and kindnet's.
pub const PERIOD: Duration = Duration::from_secs(10);

/// A node, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its address on the underlay.
    pub ip: Ipv4Addr,
    /// Its pods' addresses; the first, the network's own, is that of its end of the overlay.
    pub pod_cidr: Ipv4Net,
}

impl Member {
    /// A node that has both an address and pods' addresses.
    fn of(node: &Node) -> Option<Self> {
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let internal = addresses.iter().find(|a| a.type_ == "InternalIP")?;
        Some(Self {
            ip: internal.address.parse().ok()?,
            pod_cidr: node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?,
        })
    }
}

/// Runs until the container is stopped; what is in place stays.
///
/// # Errors
/// When the node's own namespace cannot be reached.
pub(super) async fn run(context: BuiltinContext, cni: Cni) -> anyhow::Result<()> {
    let enforced = async {
        match cni {
            Cni::Calico => policy::enforce(&context).await,
            Cni::Vxlan | Cni::Kindnet | Cni::Flannel => std::future::pending().await,
        }
    };
    tokio::select! {
        () = context.cancel.cancelled() => Ok(()),
        ended = connect(&context, cni) => ended,
        ended = enforced => ended,
    }
}

/// Keeps the ways to the other nodes in place.
async fn connect(context: &BuiltinContext, cni: Cni) -> anyhow::Result<()> {
    let mut world = World::default();
    let nodes = world.watch::<Node>(Api::all(context.client.clone()));
    world.ready().await;
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = String::new();
    let mut ways: Option<Ways> = None;
    loop {
        let mut own = None;
        let mut others = Vec::new();
        for node in nodes.state() {
            match Member::of(&node) {
                Some(member) if node.name_any() == context.node => own = Some(member),
                Some(member) => others.push(member),
                None => {}
            }
        }
        if ways.as_ref().map(|ways| &ways.own) != own.as_ref() {
            ways = own
                .map(|own| Ways::new(cni, context.netns.clone(), own))
                .transpose()?;
        }
        let outcome = match &ways {
            Some(ways) => ways
                .apply(&context.nft, &others)
                .await
                .map(|()| format!("routes to {} other nodes are in place", others.len()))
                .unwrap_or_else(|error| format!("error: {error:#}")),
            None => format!("node {} has no InternalIP or no podCIDR yet", context.node),
        };
        if outcome != said {
            (context.log)(&outcome);
            said = outcome;
        }
        tokio::select! {
            () = world.changed() => {}
            _ = period.tick() => {}
        }
    }
}

/// One node's ways to the others.
pub struct Ways {
    cni: Cni,
    netns: NetNs,
    links: Links,
    own: Member,
}

impl Ways {
    /// The ways of a node with this namespace.
    ///
    /// # Errors
    /// When the namespace cannot be reached.
    pub fn new(cni: Cni, netns: NetNs, own: Member) -> anyhow::Result<Self> {
        let links = Links::of(&netns)?;
        Ok(Self {
            cni,
            netns,
            links,
            own,
        })
    }

    /// Puts the ways to the other nodes and the masquerading in place, and takes away what led to
    /// nodes that are no more.
    ///
    /// # Errors
    /// When the kernel or `nft` refuses something; the text names it.
    pub async fn apply(&self, nft: &Nft, others: &[Member]) -> anyhow::Result<()> {
        sysctl(&self.netns, &[("net/ipv4/ip_forward", "1")])?;
        if let Some(kind) = nobody(self.cni) {
            let nobody = to(self.own.pod_cidr).kind(kind).build();
            self.links.route(nobody).await?;
        }
        let others: BTreeSet<_> = others.iter().collect();
        match self.cni.overlay() {
            Some(device) => self.overlay(device, &others).await?,
            None => self.host_routes(&others).await?,
        }
        nft.apply(&self.netns, &masquerade::rules(self.cni)?)
            .await
            .context("cannot set up masquerading")
    }

    /// Every other node as the gateway to its pods.
    async fn host_routes(&self, others: &BTreeSet<&Member>) -> anyhow::Result<()> {
        let eth0 = self.links.index(ETH0).await?;
        let wanted = others.iter().map(|other| (other.pod_cidr, other.ip));
        self.routes(eth0, &wanted.collect(), |network, node| {
            to(network).output_interface(eth0).gateway(node).build()
        })
        .await
    }

    /// Makes the routes to pods' networks through a device these, each with its gateway.
    async fn routes(
        &self,
        device: u32,
        wanted: &BTreeSet<(Ipv4Net, Ipv4Addr)>,
        route: impl Fn(Ipv4Net, Ipv4Addr) -> RouteMessage,
    ) -> anyhow::Result<()> {
        let pods: Ipv4Net = POD_CIDR.parse()?;
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut found = std::pin::pin!(self.links.handle().route().get(all).execute());
        let mut there = BTreeSet::new();
        let mut stale = Vec::new();
        while let Some(route) = found.try_next().await? {
            match way(&route, device) {
                Some((network, Some(gateway))) if wanted.contains(&(network, gateway)) => {
                    there.insert((network, gateway));
                }
                Some((network, _)) if pods.contains(&network) => stale.push(route),
                _ => {}
            }
        }
        for route in stale {
            self.links.delete_route(route).await?;
        }
        for (network, gateway) in wanted.difference(&there) {
            self.links.route(route(*network, *gateway)).await?;
        }
        Ok(())
    }
}

/// What becomes of packets to an address of the node's that no pod has, where the plugin says so:
/// otherwise the bridge finds nobody, or they go the way of all that is not the cluster's.
const fn nobody(cni: Cni) -> Option<RouteType> {
    match cni {
        Cni::Vxlan => Some(RouteType::Unreachable),
        // What BIRD has of each of the node's blocks of addresses.
        Cni::Calico => Some(RouteType::BlackHole),
        Cni::Kindnet | Cni::Flannel => None,
    }
}

/// Where a route of a device leads, and through which gateway.
fn way(route: &RouteMessage, device: u32) -> Option<(Ipv4Net, Option<Ipv4Addr>)> {
    let mut network = Ipv4Addr::UNSPECIFIED;
    let (mut gateway, mut ours) = (None, false);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ours = *index == device,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => network = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            // The kernel's own table of local addresses.
            RouteAttribute::Table(table) if *table != u32::from(libc::RT_TABLE_MAIN) => {
                return None;
            }
            _ => {}
        }
    }
    let network = Ipv4Net::new(network, route.header.destination_prefix_length).ok()?;
    ours.then_some((network, gateway))
}
