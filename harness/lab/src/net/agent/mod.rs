//! The CNI's agent: the ways between nodes, and masquerading on the way out of the cluster.
//!
//! Start from [`run`], the task of each CNI's image, one on each node; what it keeps in place is
//! [`Ways::apply`]: over an overlay ([`vxlan`]) or, where nodes share a segment, plain routes through
//! each other. A pod's own link is [`super::cni`]'s. Rule: whatever of this is changed by others is
//! put back within [`PERIOD`].

mod masquerade;
mod vxlan;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::RouteType;
use tokio::time::MissedTickBehavior;

use super::cni::Cni;
use super::link::{ETH0, Links, sysctl};
use super::policy;
use super::route::{Route, to, way};
use crate::builtin::BuiltinContext;
use crate::os::netns::NetNs;
use crate::os::nft::Nft;
use crate::topology::{IpFamily, pod_cidr};
use crate::world::World;

/// How long a change made by somebody else can last: Flannel's own period for its routes, and kindnet's.
pub const PERIOD: Duration = Duration::from_secs(10);

/// A node, as the others see it in one family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its address on the underlay.
    pub ip: IpAddr,
    /// Its pods' addresses; the first, the network's own, is that of its end of the overlay.
    pub pod_cidr: IpNet,
}

impl Member {
    /// A node in each family in which it has both an address and pods' addresses.
    fn all_of(node: &Node) -> Vec<Self> {
        let (status, spec) = (node.status.as_ref(), node.spec.as_ref());
        let addresses = status
            .into_iter()
            .flat_map(|of| of.addresses.iter().flatten());
        let internal = addresses.filter(|address| address.type_ == "InternalIP");
        let ips: Vec<IpAddr> = internal
            .filter_map(|one| one.address.parse().ok())
            .collect();
        let cidrs = spec.into_iter().flat_map(|spec| {
            let first = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.is_none());
            first.chain(spec.pod_cidrs.iter().flatten())
        });
        let cidrs = cidrs.filter_map(|cidr| cidr.parse::<IpNet>().ok());
        let member = |pod_cidr: IpNet| {
            let family = IpFamily::of(pod_cidr.addr());
            let ip = ips.iter().copied().find(|ip| IpFamily::of(*ip) == family)?;
            Some(Self { ip, pod_cidr })
        };
        cidrs.filter_map(member).collect()
    }

    /// Of which family it is.
    fn family(&self) -> IpFamily {
        IpFamily::of(self.ip)
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
    let mut say = |outcome: String| {
        if outcome != said {
            (context.log)(&outcome);
            said = outcome;
        }
    };
    let mut ways: Vec<Ways> = Vec::new();
    let mut before = None;
    // Whether all of it is put in place, changed or not.
    let mut again = true;
    loop {
        let (mut own, mut others) = (Vec::new(), BTreeSet::new());
        for node in nodes.state() {
            match node.name_any() == context.node {
                true => own = Member::all_of(&node),
                false => others.extend(Member::all_of(&node)),
            }
        }
        if !ways.iter().map(|ways| &ways.own).eq(&own) {
            let each = own.iter().cloned();
            let each = each.map(|own| Ways::new(cni, context.netns.clone(), own));
            ways = each.collect::<Result<_, _>>()?;
            again = true;
        }
        // Nodes change all the time in what is nothing to us.
        let now = Some((own, others));
        if ways.is_empty() {
            before = None;
            say(format!(
                "node {} has no InternalIP or no podCIDR yet",
                context.node
            ));
        } else if again || now != before {
            let others = now.iter().flat_map(|(_, others)| others);
            let others: Vec<_> = others.cloned().collect();
            let all = again || before.is_none();
            let outcome = put_in_place(context, &ways, &others, all).await;
            if outcome.is_ok() {
                context.plugin.set();
            }
            // What failed is tried again with the next change of anything.
            before = now.filter(|_| outcome.is_ok());
            say(outcome.unwrap_or_else(|error| format!("error: {error:#}")));
        }
        again = tokio::select! {
            () = world.changed() => false,
            _ = period.tick() => true,
        };
    }
}

/// Puts one node's ways in place in each family, and its masquerading too where `all` is wanted; says
/// what there is.
async fn put_in_place(
    context: &BuiltinContext,
    ways: &[Ways],
    others: &[Member],
    all: bool,
) -> anyhow::Result<String> {
    let mut there = Vec::new();
    for ways in ways {
        let family = ways.own.family();
        let of_family = others.iter().filter(|other| other.family() == family);
        let others: Vec<_> = of_family.cloned().collect();
        let done = async {
            ways.lead_to(&others).await?;
            match all {
                true => ways.masquerade(&context.nft).await,
                false => Ok(()),
            }
        };
        done.await.with_context(|| family.to_string())?;
        let count = others.len();
        there.push(format!(
            "{family} routes to {count} other nodes are in place"
        ));
    }
    Ok(there.join(", "))
}

/// One node's ways to the others, in one family.
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
        self.lead_to(others).await?;
        self.masquerade(nft).await
    }

    /// Puts the ways to the other nodes in place.
    async fn lead_to(&self, others: &[Member]) -> anyhow::Result<()> {
        let family = self.own.family();
        let forwarding = match family {
            IpFamily::V4 => "net/ipv4/ip_forward",
            IpFamily::V6 => "net/ipv6/conf/all/forwarding",
        };
        sysctl(&self.netns, &[(forwarding, "1")])?;
        if let Some(kind) = nobody(self.cni) {
            self.links.route(to(self.own.pod_cidr).kind(kind)).await?;
        }
        let others: BTreeSet<_> = others.iter().collect();
        match self.cni.overlay(family) {
            Some(device) => self.overlay(device, &others).await,
            None => self.host_routes(&others).await,
        }
    }

    /// Puts the masquerading in place.
    async fn masquerade(&self, nft: &Nft) -> anyhow::Result<()> {
        let rules = masquerade::rules(self.cni, self.own.family());
        let applied = nft.apply(&self.netns, &rules).await;
        applied.context("cannot set up masquerading")
    }

    /// Every other node as the gateway to its pods.
    async fn host_routes(&self, others: &BTreeSet<&Member>) -> anyhow::Result<()> {
        let eth0 = self.links.index(ETH0).await?;
        let wanted = others.iter().map(|other| (other.pod_cidr, other.ip));
        self.routes(eth0, &wanted.collect(), |network, node| {
            to(network).through(eth0).by(node)
        })
        .await
    }

    /// Makes the routes to pods' networks through a device these, each with its gateway.
    async fn routes(
        &self,
        device: u32,
        wanted: &BTreeSet<(IpNet, IpAddr)>,
        route: impl Fn(IpNet, IpAddr) -> Route,
    ) -> anyhow::Result<()> {
        let family = self.own.family();
        let pods = pod_cidr(family);
        let all = match family {
            IpFamily::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpFamily::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
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
