//! Services and endpoints as the proxy sees them: one item for each port of each Service.
//!
//! Start from [`ports_of`]. What a Service's fields mean is decided here, what follows for a
//! node in [`Endpoints`], how the kernel is told in [`super::rules`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort as Port, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use kube::ResourceExt as _;

use super::NodeFacts;
use crate::net::cluster_ips;
use crate::net::kept::Kept;
use crate::topology::IpFamily;

/// The labels of Services that no proxy serves, or another: kube-proxy does not even watch them.
const NOT_OURS: [&str; 2] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
];
/// `spec.sessionAffinityConfig.clientIP.timeoutSeconds` where nothing is said: three hours.
const AFFINITY_TIMEOUT: i32 = 10_800;

/// One port of one Service, in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServicePort {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The port's name; empty where there is only one.
    pub(super) port_name: String,
    /// `tcp`, `udp` or `sctp`.
    pub(super) protocol: &'static str,
    pub(super) cluster_ip: IpAddr,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
    pub(super) external_ips: Vec<IpAddr>,
    pub(super) load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; nobody named is everybody.
    pub(super) source_ranges: Vec<IpNet>,
    /// How many seconds a client stays with its endpoint, if it does.
    pub(super) affinity: Option<u32>,
    pub(super) internal_local: bool,
    pub(super) external_local: bool,
    pub(super) health_check_node_port: Option<u16>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// One address and port behind a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    pub(super) ready: bool,
    /// Serving, though terminating: a last resort.
    pub(super) draining: bool,
    pub(super) node: Option<String>,
    /// The zones and nodes that should prefer it (`hints`); empty where nothing is said.
    zones: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

impl ServicePort {
    /// `namespace/name`, and the port's name if it has one: what comments carry.
    pub(super) fn title(&self) -> String {
        let Self {
            namespace,
            name,
            port_name,
            ..
        } = self;
        if port_name.is_empty() {
            format!("{namespace}/{name}")
        } else {
            format!("{namespace}/{name}:{port_name}")
        }
    }

    /// Whether anything but its ClusterIP leads to it.
    pub(super) fn external(&self) -> bool {
        self.node_port.is_some()
            || !self.external_ips.is_empty()
            || !self.load_balancer_ips.is_empty()
    }
}

/// The endpoints that a node uses for a port, by what its traffic policies ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Endpoints<'a> {
    /// For policy `Cluster`.
    pub(super) cluster: Vec<&'a Endpoint>,
    /// For policy `Local`.
    pub(super) local: Vec<&'a Endpoint>,
    /// Whether any node could use any endpoint.
    pub(super) any: bool,
}

impl<'a> Endpoints<'a> {
    /// Chooses among a port's endpoints. Terminating ones that still serve are used only where there
    /// is no ready one (KEP-1669), cluster-wide or on the node, as the policy looks.
    ///
    /// | ready | draining | used |
    /// | --- | --- | --- |
    /// | some | any | the ready ones |
    /// | none | some | the draining ones |
    /// | none | none | none |
    pub(super) fn choose(service: &'a ServicePort, node: &NodeFacts) -> Self {
        let all = || service.endpoints.iter();
        let here = |endpoint: &&Endpoint| endpoint.node.as_deref() == Some(node.name.as_str());
        let ready: Vec<_> = all().filter(|endpoint| endpoint.ready).collect();
        let first_not_empty = |ready: Vec<&'a Endpoint>, draining: Vec<&'a Endpoint>| {
            if ready.is_empty() { draining } else { ready }
        };
        let cluster = first_not_empty(
            preferred(ready.clone(), node),
            all().filter(|endpoint| endpoint.draining).collect(),
        );
        let local = first_not_empty(
            ready.into_iter().filter(here).collect(),
            all()
                .filter(|endpoint| endpoint.draining)
                .filter(here)
                .collect(),
        );
        let any = !cluster.is_empty();
        let uses_local = service.internal_local || (service.external_local && service.external());
        // With both policies local, nothing else can be reached from this node.
        let uses_cluster = !service.internal_local || service.external();
        Self {
            cluster: if uses_cluster { cluster } else { Vec::new() },
            local: if uses_local { local } else { Vec::new() },
            any,
        }
    }

    /// All of them, each once.
    pub(super) fn reachable(&self) -> BTreeSet<&'a Endpoint> {
        self.cluster.iter().chain(&self.local).copied().collect()
    }
}

/// The endpoints that the hints give to this node; all of them where a hint is missing, or none
/// of them is for this node (KEP-2433, KEP-4444).
fn preferred<'a>(ready: Vec<&'a Endpoint>, node: &NodeFacts) -> Vec<&'a Endpoint> {
    let narrow = |hints: fn(&Endpoint) -> &BTreeSet<String>, own: &str| {
        let hinted = ready.iter().all(|endpoint| !hints(endpoint).is_empty());
        let chosen: Vec<_> = ready
            .iter()
            .filter(|endpoint| hints(endpoint).contains(own))
            .copied()
            .collect();
        (hinted && !chosen.is_empty()).then_some(chosen)
    };
    let by_node = narrow(|endpoint| &endpoint.nodes, &node.name);
    let by_zone = || narrow(|endpoint| &endpoint.zones, node.zone.as_deref()?);
    by_node.or_else(by_zone).unwrap_or(ready)
}

/// Every port of every Service that a proxy serves in a family, with its endpoints, in order of
/// their names.
pub(super) fn service_ports(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    family: IpFamily,
) -> Vec<ServicePort> {
    let mut kept = Kept::default();
    kept.update(services, slices, |service, slices| {
        ports_of(service, slices, family)
    });
    kept.all().flatten().cloned().collect()
}

/// The ports of one Service in a family, in order.
pub(super) fn ports_of(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    family: IpFamily,
) -> Vec<ServicePort> {
    let mut ports = unordered_ports_of(service, slices, family);
    ports.sort_by_key(|port| (port.port, port.protocol));
    ports
}

fn unordered_ports_of(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    family: IpFamily,
) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let type_ = spec.type_.as_deref().unwrap_or("ClusterIP");
    let ours = |service: &Service| {
        let labels = service.labels();
        NOT_OURS.iter().all(|label| !labels.contains_key(*label))
    };
    if type_ == "ExternalName" || !ours(service) {
        return Vec::new();
    }
    // Headless Services have "None", those not yet allocated nothing.
    let mut cluster_ips = cluster_ips(spec).into_iter();
    let Some(cluster_ip) = cluster_ips.find(|ip| IpFamily::of(*ip) == family) else {
        return Vec::new();
    };
    let base = ServicePort {
        namespace: service.namespace().unwrap_or_default(),
        name: service.name_any(),
        port_name: String::new(),
        protocol: "tcp",
        cluster_ip,
        port: 0,
        node_port: None,
        external_ips: addresses(
            spec.external_ips.iter().flatten().map(String::as_str),
            family,
        ),
        load_balancer_ips: load_balancer_ips(service, family),
        source_ranges: source_ranges(spec, family),
        affinity: affinity(spec),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        health_check_node_port: number(spec.health_check_node_port),
        endpoints: Vec::new(),
    };
    let port = |port: &Port| {
        Some(ServicePort {
            port_name: port.name.clone().unwrap_or_default(),
            protocol: protocol(port.protocol.as_deref())?,
            port: number(Some(port.port))?,
            node_port: number(port.node_port),
            endpoints: endpoints(slices, port, family),
            ..base.clone()
        })
    };
    spec.ports.iter().flatten().filter_map(port).collect()
}

fn number(port: Option<i32>) -> Option<u16> {
    u16::try_from(port?).ok().filter(|port| *port != 0)
}

fn protocol(name: Option<&str>) -> Option<&'static str> {
    match name.unwrap_or("TCP") {
        "TCP" => Some("tcp"),
        "UDP" => Some("udp"),
        "SCTP" => Some("sctp"),
        _ => None,
    }
}

/// Those of a family.
fn addresses<'a>(texts: impl Iterator<Item = &'a str>, family: IpFamily) -> Vec<IpAddr> {
    let all = texts.filter_map(|text| text.parse().ok());
    let found: BTreeSet<IpAddr> = all.filter(|ip| IpFamily::of(*ip) == family).collect();
    found.into_iter().collect()
}

/// Whether a Service is one of type `LoadBalancer`.
pub(super) fn is_load_balancer(service: &Service) -> bool {
    let type_ = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    type_ == Some("LoadBalancer")
}

/// The addresses at which a load balancer hands packets over as they came (`ipMode: VIP`).
fn load_balancer_ips(service: &Service, family: IpFamily) -> Vec<IpAddr> {
    if !is_load_balancer(service) {
        return Vec::new();
    }
    let status = service.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let passed = ingress
        .into_iter()
        .flatten()
        .filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
    addresses(passed.filter_map(|entry| entry.ip.as_deref()), family)
}

fn source_ranges(spec: &ServiceSpec, family: IpFamily) -> Vec<IpNet> {
    let texts = spec.load_balancer_source_ranges.iter().flatten();
    let ranges: Vec<IpNet> = texts.filter_map(|text| text.trim().parse().ok()).collect();
    let of_family = ranges
        .into_iter()
        .filter(|range| IpFamily::of(range.addr()) == family);
    IpNet::aggregate(&of_family.collect())
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    u32::try_from(seconds.unwrap_or(AFFINITY_TIMEOUT)).ok()
}

/// A Service publishes endpoints by its port's name; which port they listen on may differ between
/// them. The same one in two slices, as while it moves between them, counts once: ready if either
/// says so.
fn endpoints(slices: &[Arc<EndpointSlice>], port: &Port, family: IpFamily) -> Vec<Endpoint> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let protocol_of = |name: Option<&str>| protocol(name);
    let mut found: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in slices
        .iter()
        .filter(|slice| slice.address_type == family.name())
    {
        let numbers: Vec<u16> = slice
            .ports
            .iter()
            .flatten()
            .filter(|candidate| {
                candidate.name.as_deref().unwrap_or_default() == wanted
                    && protocol_of(candidate.protocol.as_deref())
                        == protocol_of(port.protocol.as_deref())
            })
            .filter_map(|candidate| number(candidate.port))
            .collect();
        for endpoint in &slice.endpoints {
            // All addresses of an endpoint are the same endpoint; clients may use any, and use the
            // first.
            let address = endpoint.addresses.first();
            let Some(ip) = address.and_then(|address| address.parse().ok()) else {
                continue;
            };
            for &port in &numbers {
                let one = one(endpoint, ip, port);
                let known = found.entry((ip, port)).or_insert_with(|| one.clone());
                if !known.ready {
                    *known = one;
                }
            }
        }
    }
    found.into_values().collect()
}

fn one(endpoint: &SliceEndpoint, ip: IpAddr, port: u16) -> Endpoint {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // Absent means ready, and serving as it is ready (discovery.k8s.io/v1).
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    let hints = endpoint.hints.clone().unwrap_or_default();
    Endpoint {
        ip,
        port,
        ready,
        draining: !ready && serving && conditions.terminating == Some(true),
        node: endpoint.node_name.clone(),
        zones: hints
            .for_zones
            .into_iter()
            .flatten()
            .map(|zone| zone.name)
            .collect(),
        nodes: hints
            .for_nodes
            .into_iter()
            .flatten()
            .map(|node| node.name)
            .collect(),
    }
}
