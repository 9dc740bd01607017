//! The Service proxy: Services become nftables rules in each node, as kube-proxy's nftables mode
//! does it.
//!
//! Start from [`run`], the task of image `lab.strata.dev/kube-proxy:v1`; what it decides is in
//! [`rules`], which is pure. A change is applied soon, and only what changed: the rules are not
//! watched, and those that somebody deletes are missing until their Service changes, the proxy
//! starts again, or [`FULL_SYNC`] has passed, as on a real node.
//!
//! ```text
//! Services, EndpointSlices ──► model ──► rules ──► ruleset ──► nft
//!                                └─────► health, conntrack
//! ```

mod health;
pub(super) mod load_balancers;
mod model;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt as _};

use self::health::HealthChecks;
use self::model::{Endpoints, ServicePort, ports_of};
pub use self::rules::{TABLE, rules};
use super::conntrack::{Front, Memory, UdpServices};
use super::kept::Kept;
use super::nftables::{Done, Parts, Rhythm, Say, Table};
pub use super::nftables::{LONGEST, Ruleset};
use crate::builtin::BuiltinContext;
use crate::os::netns::NetNs;
use crate::topology::IpFamily;
use crate::world::World;

/// How often everything is said again, whatever has changed: kube-proxy's `FullSyncPeriod`.
pub const FULL_SYNC: Duration = Duration::from_secs(60 * 60);

/// What the rules of a node depend on beside Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name, as endpoints carry it.
    pub name: String,
    /// Its own addresses.
    pub ips: Vec<IpAddr>,
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

    /// The families of its addresses, in their order: what kube-proxy makes a proxier for each of.
    fn families(&self) -> Vec<IpFamily> {
        let mut families = Vec::new();
        for family in self.ips.iter().map(|ip| IpFamily::of(*ip)) {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
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
    let mut proxies: Vec<Proxy> = Vec::new();
    let mut health = HealthChecks::new(context.netns.clone());
    let mut rhythm = Rhythm::of(FULL_SYNC);
    let mut say = Say::All;
    let mut known = NodeFacts::default();
    loop {
        let node = stores
            .nodes
            .state()
            .into_iter()
            .find(|node| node.name_any() == context.node);
        let facts = NodeFacts::of(&context.node, node.as_deref());
        if facts != known {
            let families = facts.families();
            if !proxies
                .iter()
                .map(|proxy| proxy.family)
                .eq(families.iter().copied())
            {
                let proxy = |family| Proxy::new(&context, family);
                proxies = families.into_iter().map(proxy).collect();
            }
            for proxy in &mut proxies {
                proxy.kept.clear();
            }
            known = facts.clone();
        }
        let (services, slices) = (stores.services.state(), stores.slices.state());
        let mut local = LocalCounts::new();
        for proxy in &mut proxies {
            match proxy
                .sync(&services, &slices, &facts, say, &mut local)
                .await
            {
                Ok(Some(report)) => (context.log)(&format!("{}: {report}", proxy.family)),
                Ok(None) => {}
                Err(error) => (context.log)(&format!("error: {}: {error:#}", proxy.family)),
            }
        }
        health.sync(local);
        say = rhythm.next(&mut world).await;
    }
}

/// What one Service is in a family, and means for a node.
struct Part {
    ports: Vec<ServicePort>,
    rules: Arc<Ruleset>,
}

impl Part {
    fn of(
        service: &Service,
        slices: &[Arc<EndpointSlice>],
        node: &NodeFacts,
        family: IpFamily,
    ) -> Self {
        let ports = ports_of(service, slices, family);
        Self {
            rules: Arc::new(rules::part(family, &ports, node)),
            ports,
        }
    }
}

/// One node's proxy in one family.
struct Proxy {
    family: IpFamily,
    netns: NetNs,
    table: Table,
    /// What its rules are without any Service.
    base: Arc<Ruleset>,
    udp: Memory,
    kept: Kept<Part>,
}

impl Proxy {
    fn new(context: &BuiltinContext, family: IpFamily) -> Self {
        Self {
            family,
            netns: context.netns.clone(),
            table: Table::new(context.netns.clone(), context.nft.clone()),
            base: Arc::new(rules::base(family)),
            udp: Memory::of(rules::refused(family)),
            kept: Kept::default(),
        }
    }

    /// Makes the kernel's rules those of these Services; returns what was done, if anything was.
    /// Adds to the numbers of endpoints that the node has itself.
    async fn sync(
        &mut self,
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
        node: &NodeFacts,
        say: Say,
        local: &mut LocalCounts,
    ) -> anyhow::Result<Option<String>> {
        let family = self.family;
        self.kept.update(services, slices, |service, slices| {
            Part::of(service, slices, node, family)
        });
        let parts = self.kept.all();
        let ports = parts.clone().flat_map(|part| &part.ports);
        count_local(ports.clone(), node, local);
        let wanted = Parts {
            base: self.base.clone(),
            others: parts.map(|part| part.rules.clone()).collect(),
        };
        let Some(done) = self.table.sync(wanted, say).await? else {
            return Ok(None);
        };
        if done != Done::Changed {
            self.udp.distrust();
        }
        // After the rules, so that what is forgotten is not learned again from the old ones.
        let udp = udp_services(ports.clone(), node);
        self.udp.forget_stale(&self.netns, udp)?;
        let endpoints: usize = ports.clone().map(|port| port.endpoints.len()).sum();
        Ok(Some(format!(
            "{done}: {} Service ports, {endpoints} endpoints",
            ports.count()
        )))
    }
}

/// How many ready endpoints a node has for each Service with a health-check node port: by the port's
/// number, the Service's namespace and name.
type LocalCounts = BTreeMap<u16, (String, String, usize)>;

/// Counts them in one family. A Service of two has the same pods behind it in both.
fn count_local<'a>(
    ports: impl IntoIterator<Item = &'a ServicePort>,
    node: &NodeFacts,
    counts: &mut LocalCounts,
) {
    let mut addresses: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    for port in ports.into_iter().filter(|port| port.external_local) {
        let Some(number) = port.health_check_node_port else {
            continue;
        };
        let here = port.endpoints.iter().filter(|endpoint| {
            endpoint.ready && endpoint.node.as_deref() == Some(node.name.as_str())
        });
        let local = addresses.entry(number).or_default();
        local.extend(here.map(|endpoint| endpoint.ip));
        let (_, _, count) = counts
            .entry(number)
            .or_insert_with(|| (port.namespace.clone(), port.name.clone(), 0));
        *count = (*count).max(local.len());
    }
}

/// The UDP Services of a node. One without endpoints is among them: what it answered is over.
fn udp_services<'a>(ports: impl Iterator<Item = &'a ServicePort>, node: &NodeFacts) -> UdpServices {
    let mut found = UdpServices::new();
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
        for (address, number) in fronts.chain(port.node_port.map(|number| (None, number))) {
            let front = Front {
                family: IpFamily::of(port.cluster_ip),
                address,
                port: number,
            };
            // The first of two that want the same has it, as with the rules.
            found.entry(front).or_insert_with(|| endpoints.clone());
        }
    }
    found
}
