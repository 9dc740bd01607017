//! The Service proxy: Services become nftables rules in each node, as kube-proxy's nftables mode
//! does it.
//!
//! Start from [`run`], the task of image `lab.strata.dev/kube-proxy:v1`; what it decides is in
//! [`rules`], which is pure. A change is applied at once, and only what changed: the rules are not
//! watched, and those that somebody deletes are missing until their Service changes, the proxy
//! starts again, or [`FULL_SYNC`] has passed, as on a real node.
//!
//! ```text
//! Services, EndpointSlices ──► model ──► rules ──► ruleset ──► nft
//!                                └─────► health, conntrack
//! ```

mod health;
mod model;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt as _};

use self::health::HealthChecks;
use self::model::{Endpoints, ServicePort, ports_of, service_ports};
pub use self::rules::{TABLE, rules};
use super::conntrack::{self, UdpService};
use super::kept::Kept;
pub use super::nftables::{LONGEST, Ruleset};
use super::nftables::{Rhythm, Say, Table};
use crate::builtin::BuiltinContext;
use crate::os::netns::NetNs;
use crate::world::World;

/// How often everything is said again, whatever has changed: kube-proxy's `FullSyncPeriod`.
pub const FULL_SYNC: Duration = Duration::from_secs(60 * 60);

/// What the rules of a node depend on beside Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name, as endpoints carry it.
    pub name: String,
    /// Its own addresses.
    pub ips: Vec<Ipv4Addr>,
    /// Its zone (`topology.kubernetes.io/zone`).
    pub zone: Option<String>,
}

impl NodeFacts {
    fn of(name: &str, node: Option<&Node>) -> Self {
        let addresses = node.and_then(|node| node.status.as_ref()?.addresses.as_ref());
        let zone = node.and_then(|node| node.labels().get("topology.kubernetes.io/zone"));
        Self {
            name: name.to_owned(),
            ips: addresses
                .into_iter()
                .flatten()
                .filter_map(|address| address.address.parse().ok())
                .collect(),
            zone: zone.cloned(),
        }
    }
}

struct Stores {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    nodes: Store<Node>,
}

/// Runs until the container is stopped; the rules stay.
pub(super) async fn run(context: BuiltinContext) -> anyhow::Result<()> {
    let cancel = context.cancel.clone();
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = serve(context) => ended,
    }
}

async fn serve(context: BuiltinContext) -> anyhow::Result<()> {
    let mut world = World::default();
    let client = &context.client;
    let stores = Stores {
        services: world.watch(Api::all(client.clone())),
        slices: world.watch(Api::all(client.clone())),
        nodes: world.watch(Api::all(client.clone())),
    };
    world.ready().await;
    let mut proxy = Proxy {
        netns: context.netns.clone(),
        table: Table::new(context.netns.clone(), context.nft.clone()),
        udp: BTreeSet::new(),
        health: HealthChecks::new(context.netns.clone()),
    };
    let mut rhythm = Rhythm::of(FULL_SYNC);
    let mut say = Say::All;
    let mut kept = Kept::default();
    let mut known = NodeFacts::default();
    loop {
        let node = stores
            .nodes
            .state()
            .into_iter()
            .find(|node| node.name_any() == context.node);
        let facts = NodeFacts::of(&context.node, node.as_deref());
        if facts != known {
            kept.clear();
            known = facts.clone();
        }
        let (services, slices) = (stores.services.state(), stores.slices.state());
        let parts = kept.of(&services, &slices, |service, slices| {
            Part::of(service, slices, &facts)
        });
        match proxy.sync(parts, &facts, say).await {
            Ok(Some(report)) => (context.log)(&report),
            Ok(None) => {}
            Err(error) => (context.log)(&format!("error: {error:#}")),
        }
        say = rhythm.next(&mut world).await;
    }
}

/// What one Service is, and means for a node.
struct Part {
    ports: Vec<ServicePort>,
    rules: Ruleset,
}

impl Part {
    fn of(service: &Service, slices: &[Arc<EndpointSlice>], node: &NodeFacts) -> Self {
        let ports = ports_of(service, slices);
        Self {
            rules: rules::part(&ports, node),
            ports,
        }
    }
}

/// One node's proxy.
struct Proxy {
    netns: NetNs,
    table: Table,
    udp: BTreeSet<UdpService>,
    health: HealthChecks,
}

impl Proxy {
    /// Makes the kernel's rules those of these Services; returns what was done, if anything was.
    async fn sync<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a Part> + Clone,
        node: &NodeFacts,
        say: Say,
    ) -> anyhow::Result<Option<String>> {
        let ports = parts.clone().flat_map(|part| &part.ports);
        self.health.sync(local_counts(ports.clone(), node));
        let wanted = rules::together(parts.map(|part| &part.rules));
        let Some(done) = self.table.sync(wanted, say).await? else {
            return Ok(None);
        };
        let udp = udp_services(ports.clone(), node);
        if udp != self.udp {
            // After the rules, so that what is forgotten is not learned again from the old ones.
            conntrack::forget_stale(&self.netns, &udp)?;
            self.udp = udp;
        }
        let endpoints: usize = ports.clone().map(|port| port.endpoints.len()).sum();
        Ok(Some(format!(
            "{done}: {} Service ports, {endpoints} endpoints",
            ports.count()
        )))
    }
}

/// How many ready endpoints a node has for each Service with a health-check node port.
fn local_counts<'a>(
    ports: impl IntoIterator<Item = &'a ServicePort>,
    node: &NodeFacts,
) -> BTreeMap<u16, (String, String, usize)> {
    let mut addresses: BTreeMap<u16, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for port in ports.into_iter().filter(|port| port.external_local) {
        let Some(number) = port.health_check_node_port else {
            continue;
        };
        names.insert(number, (port.namespace.clone(), port.name.clone()));
        let here = port.endpoints.iter().filter(|endpoint| {
            endpoint.ready && endpoint.node.as_deref() == Some(node.name.as_str())
        });
        let local = addresses.entry(number).or_default();
        local.extend(here.map(|endpoint| endpoint.ip));
    }
    names
        .into_iter()
        .map(|(number, (namespace, name))| {
            let count = addresses.get(&number).map_or(0, BTreeSet::len);
            (number, (namespace, name, count))
        })
        .collect()
}

/// For the address of each load balancer with `externalTrafficPolicy: Local`, the nodes that have
/// an endpoint of every port; what a load balancer finds out by asking the health-check node ports.
pub(super) fn local_load_balancers(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
) -> BTreeMap<Ipv4Addr, BTreeSet<String>> {
    let mut found: BTreeMap<Ipv4Addr, BTreeSet<String>> = BTreeMap::new();
    for port in service_ports(services, slices) {
        if !port.external_local {
            continue;
        }
        let nodes = port.endpoints.iter().filter(|endpoint| endpoint.ready);
        let nodes: BTreeSet<String> = nodes.filter_map(|endpoint| endpoint.node.clone()).collect();
        for ip in &port.load_balancer_ips {
            found.entry(*ip).or_default().extend(nodes.iter().cloned());
        }
    }
    found
}

/// The UDP Services of a node. One without endpoints is among them: what it answered is over.
fn udp_services<'a>(
    ports: impl Iterator<Item = &'a ServicePort>,
    node: &NodeFacts,
) -> BTreeSet<UdpService> {
    let mut found = BTreeSet::new();
    for port in ports.filter(|port| port.protocol == "udp") {
        let endpoints: BTreeSet<_> = Endpoints::choose(port, node)
            .reachable()
            .into_iter()
            .map(|endpoint| (endpoint.ip, endpoint.port))
            .collect();
        let addresses = [port.cluster_ip]
            .into_iter()
            .chain(port.external_ips.iter().copied())
            .chain(port.load_balancer_ips.iter().copied());
        let fronts = addresses.map(|ip| (Some(ip), port.port));
        for front in fronts.chain(port.node_port.map(|number| (None, number))) {
            found.insert(UdpService {
                front,
                endpoints: endpoints.clone(),
            });
        }
    }
    found
}
