//! What the kernel of one node is told about Services: the chains of kube-proxy's nftables mode.
//!
//! Start from [`rules`], which is pure. The shape, and the names that people know from real
//! clusters, are those of Kubernetes' `pkg/proxy/nftables`; a packet takes this way:
//!
//! ```text
//! services ─ service-ips ──────► service-… or local-… ─────► endpoint-… ─ dnat
//!     └───── service-nodeports ► external-… ──┘
//! no-endpoint-services, no-endpoint-nodeports: refused or dropped before it gets anywhere
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::NodeFacts;
use super::model::{Endpoint, Endpoints, ServicePort, service_ports};
use crate::net::nftables::{Elements, Ruleset, address_type, hashed, word};
use crate::topology::{IpFamily, load_balancer_cidr, pod_cidr, service_cidr};

/// The table's name, in each family.
pub const TABLE: &str = "kube-proxy";

/// The bit of a packet's mark that says it is to be masqueraded: kube-proxy's own.
const MASQUERADE: &str = "0x4000";
const BY_PORT: &str = "type inet_proto . inet_service : verdict ;";

const SERVICE_IPS: &str = "service-ips";
const SERVICE_NODEPORTS: &str = "service-nodeports";
const NO_ENDPOINT_SERVICES: &str = "no-endpoint-services";
const NO_ENDPOINT_NODEPORTS: &str = "no-endpoint-nodeports";
const FIREWALL_IPS: &str = "firewall-ips";
const CLUSTER_IPS: &str = "cluster-ips";

/// The table of a node in a family, for these Services and EndpointSlices.
#[must_use]
pub fn rules(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    node: &NodeFacts,
    family: IpFamily,
) -> Ruleset {
    let ports = service_ports(services, slices, family);
    let mut table = base(family);
    for port in &ports {
        add(&mut table, port, node);
    }
    table
}

/// What these ports add to the table of a family of a node.
pub(super) fn part(family: IpFamily, ports: &[ServicePort], node: &NodeFacts) -> Ruleset {
    let mut part = empty(family);
    for port in ports {
        add(&mut part, port, node);
    }
    part
}

/// The networks of Services' own addresses: what is for one of them and for no Service's port is refused.
pub(super) fn refused(family: IpFamily) -> [IpNet; 2] {
    [service_cidr(family), load_balancer_cidr(family)]
}

/// The sets and maps that the proxy fills, with nothing in them.
fn empty(family: IpFamily) -> Ruleset {
    let mut table = Ruleset::of(family, TABLE);
    let address = address_type(family);
    let by_address = format!("type {address} . inet_proto . inet_service : verdict ;");
    for (name, definition) in [
        (SERVICE_IPS, by_address.as_str()),
        (SERVICE_NODEPORTS, BY_PORT),
        (NO_ENDPOINT_SERVICES, &by_address),
        (NO_ENDPOINT_NODEPORTS, BY_PORT),
        (FIREWALL_IPS, &by_address),
    ] {
        table.maps.insert(name, Elements::new(definition));
    }
    let addresses = Elements::new(format!("type {address} ;"));
    table.sets.insert(CLUSTER_IPS, addresses);
    table
}

/// What is there without any Service.
pub(super) fn base(family: IpFamily) -> Ruleset {
    let mut table = empty(family);
    // Source ranges are judged by the destination as the client wrote it, so before translation.
    // The other checks want what is still for a Service after it: from there on the node's own
    // traffic, which no external policy holds back, is for an endpoint.
    for (name, hook, rules) in [
        (
            "filter-prerouting",
            "type filter hook prerouting priority -110",
            &["ct state new jump firewall-check"][..],
        ),
        (
            "filter-input",
            "type filter hook input priority -110",
            &["ct state new jump endpoints-check"],
        ),
        (
            "filter-forward",
            "type filter hook forward priority -110",
            &[
                "ct state new jump endpoints-check",
                "ct state new jump cluster-ips-check",
            ],
        ),
        (
            "filter-output",
            "type filter hook output priority -110",
            &["ct state new jump firewall-check"],
        ),
        (
            "filter-output-post-dnat",
            "type filter hook output priority -90",
            &[
                "ct state new jump endpoints-check",
                "ct state new jump cluster-ips-check",
            ],
        ),
        (
            "nat-prerouting",
            "type nat hook prerouting priority -100",
            &["jump services"],
        ),
        (
            "nat-output",
            "type nat hook output priority -100",
            &["jump services"],
        ),
        (
            "nat-postrouting",
            "type nat hook postrouting priority 100",
            &["jump masquerading"],
        ),
    ] {
        let chain = table.chain(name, None, rules.iter().map(|rule| (*rule).to_owned()));
        chain.hook = Some(hook);
    }
    // Node ports are served on every address of the node but its loopback: nftables mode has no
    // route from there to a pod (`--nodeport-addresses 0.0.0.0/0,::/0`).
    let ip = word(family);
    let loopback = match family {
        IpFamily::V4 => "127.0.0.0/8",
        IpFamily::V6 => "::1",
    };
    let to_node = format!("fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport");
    let to_service = format!("{ip} daddr . meta l4proto . th dport");
    for (name, rules) in [
        (
            "services",
            vec![
                format!("{to_service} vmap @{SERVICE_IPS}"),
                format!("{to_node} vmap @{SERVICE_NODEPORTS}"),
            ],
        ),
        (
            "endpoints-check",
            vec![
                format!("{to_service} vmap @{NO_ENDPOINT_SERVICES}"),
                format!("{to_node} vmap @{NO_ENDPOINT_NODEPORTS}"),
            ],
        ),
        (
            "firewall-check",
            vec![format!("{to_service} vmap @{FIREWALL_IPS}")],
        ),
        (
            "cluster-ips-check",
            vec![
                format!("{ip} daddr @{CLUSTER_IPS} reject comment \"no such port of the Service\""),
                format!(
                    "{ip} daddr {} drop comment \"no such ClusterIP\"",
                    service_cidr(family)
                ),
                // Not kube-proxy's, which leaves it to the cloud: sent on, it would come back until its hops are used
                // up, and its connection be remembered as one for nobody, though its Service is a moment away.
                format!(
                    "{ip} daddr {} drop comment \"no such port of a load balancer\"",
                    load_balancer_cidr(family)
                ),
            ],
        ),
        ("reject-chain", vec!["reject".to_owned()]),
        (
            "mark-for-masquerade",
            vec![format!("meta mark set meta mark or {MASQUERADE}")],
        ),
        (
            "masquerading",
            vec![
                format!("meta mark and {MASQUERADE} == 0 return"),
                format!("meta mark set meta mark xor {MASQUERADE}"),
                "masquerade fully-random".to_owned(),
            ],
        ),
    ] {
        table.chain(name, None, rules);
    }
    table
}

/// The names of a port's chains.
struct Names {
    cluster: String,
    local: String,
    external: String,
    firewall: String,
}

impl Names {
    fn of(service: &ServicePort) -> Self {
        let base = hashed(&path(service));
        Self {
            cluster: format!("service-{base}"),
            local: format!("local-{base}"),
            external: format!("external-{base}"),
            firewall: format!("firewall-{base}"),
        }
    }
}

fn path(service: &ServicePort) -> String {
    let ServicePort {
        namespace,
        name,
        protocol,
        port_name,
        ..
    } = service;
    format!("{namespace}/{name}/{protocol}/{port_name}")
}

fn endpoint_name(service: &ServicePort, endpoint: &Endpoint) -> String {
    // No name in nftables has a colon.
    let ip = endpoint.ip.to_string().replace(':', ".");
    hashed(&format!("{}__{ip}/{}", path(service), endpoint.port))
}

/// What happens to packets for which a policy leaves no endpoint.
fn refusal(any: bool, usable: bool) -> Option<&'static str> {
    match (any, usable) {
        // Nobody has one: say so.
        (false, _) => Some("goto reject-chain"),
        // Another node has one, and the load balancer is to find it.
        (true, false) => Some("drop"),
        (true, true) => None,
    }
}

fn add(table: &mut Ruleset, service: &ServicePort, node: &NodeFacts) {
    let names = Names::of(service);
    let title = service.title();
    let ServicePort { protocol, port, .. } = service;
    let endpoints = Endpoints::choose(service, node);
    let policy = |local: bool| {
        if local {
            (&names.local, !endpoints.local.is_empty())
        } else {
            (&names.cluster, !endpoints.cluster.is_empty())
        }
    };
    let (internal, internal_usable) = policy(service.internal_local);
    let (external, external_usable) = policy(service.external_local);
    let inside = refusal(endpoints.any, internal_usable);
    let outside = refusal(endpoints.any, external_usable);

    let key = |ip: &dyn std::fmt::Display| format!("{ip} . {protocol} . {port}");
    let mut cluster_ips = |key: String| table.set(CLUSTER_IPS, key, &title);
    cluster_ips(service.cluster_ip.to_string());
    let own = key(&service.cluster_ip);
    match inside {
        None => table.map(SERVICE_IPS, own, format!("goto {internal}"), &title),
        Some(refusal) => table.map(NO_ENDPOINT_SERVICES, own, refusal, &title),
    }

    let restricted = !service.load_balancer_ips.is_empty()
        && !service.source_ranges.is_empty()
        && service
            .source_ranges
            .iter()
            .all(|range| range.prefix_len() > 0);
    let public = service
        .external_ips
        .iter()
        .chain(&service.load_balancer_ips);
    for ip in public {
        if endpoints.any {
            // Even with nothing here for the outside: pods and the node itself go on through it.
            let chain = format!("goto {}", names.external);
            table.map(SERVICE_IPS, key(ip), chain, &title);
        }
        if let Some(refusal) = outside {
            table.map(NO_ENDPOINT_SERVICES, key(ip), refusal, &title);
        }
    }
    if restricted {
        for ip in &service.load_balancer_ips {
            table.map(
                FIREWALL_IPS,
                key(ip),
                format!("goto {}", names.firewall),
                &title,
            );
        }
        table.chain(&names.firewall, Some(&title), [firewall(service, node)]);
    }
    if let Some(node_port) = service.node_port {
        let key = format!("{protocol} . {node_port}");
        if endpoints.any {
            let chain = format!("goto {}", names.external);
            table.map(SERVICE_NODEPORTS, key.clone(), chain, &title);
        }
        if let Some(refusal) = outside {
            table.map(NO_ENDPOINT_NODEPORTS, key, refusal, &title);
        }
    }

    for (chain, endpoints) in [
        (&names.cluster, &endpoints.cluster),
        (&names.local, &endpoints.local),
    ] {
        if !endpoints.is_empty() {
            table.chain(chain, Some(&title), balance(service, endpoints));
        }
    }
    if inside.is_none()
        && let Some(chain) = table.chains.get_mut(internal).map(Arc::make_mut)
    {
        // Who is not a pod may have come from anywhere, and the answer must come back this way.
        let ip = service.word();
        let who = format!(
            "{ip} daddr {} {protocol} dport {port} {ip} saddr != {} jump mark-for-masquerade",
            service.cluster_ip,
            pod_cidr(service.family())
        );
        chain.rules.insert(0, who);
    }
    if endpoints.any && service.external() {
        let rules = from_outside(service, &names, external_usable.then_some(external));
        table.chain(&names.external, Some(&title), rules);
    }
    for endpoint in endpoints.reachable() {
        let chain = format!("endpoint-{}", endpoint_name(service, endpoint));
        let rules = to_endpoint(service, endpoint);
        table.chain(&chain, Some(&title), rules);
        if let Some(timeout) = service.affinity {
            table
                .dynamic
                .insert(affinity_set(service, endpoint), timeout);
        }
    }
}

impl ServicePort {
    fn family(&self) -> IpFamily {
        IpFamily::of(self.cluster_ip)
    }

    fn word(&self) -> &'static str {
        word(self.family())
    }
}

fn affinity_set(service: &ServicePort, endpoint: &Endpoint) -> String {
    format!("affinity-{}", endpoint_name(service, endpoint))
}

/// Drops what comes from nobody that the Service names.
fn firewall(service: &ServicePort, node: &NodeFacts) -> String {
    let mut sources: Vec<_> = service
        .source_ranges
        .iter()
        .map(ToString::to_string)
        .collect();
    let node_allowed = |range: &ipnet::IpNet| node.ips.iter().any(|ip| range.contains(ip));
    if service.source_ranges.iter().any(node_allowed) {
        // A request of the node itself may carry the load balancer's address as its source.
        let own = service.load_balancer_ips.iter();
        let own = own.filter(|ip| {
            !service
                .source_ranges
                .iter()
                .any(|range| range.contains(*ip))
        });
        sources.extend(own.map(ToString::to_string));
    }
    let ip = service.word();
    format!("{ip} saddr != {{ {} }} drop", sources.join(", "))
}

/// The way of what came for a node port, a load balancer's address or an external one.
fn from_outside(service: &ServicePort, names: &Names, usable: Option<&String>) -> Vec<String> {
    let mut rules = Vec::new();
    if service.external_local {
        // As if it had gone out to the load balancer and come back, which asks no policy.
        rules.push(format!(
            "{} saddr {} goto {} comment \"pods are subject to no policy\"",
            service.word(),
            pod_cidr(service.family()),
            names.cluster
        ));
        rules.push("fib saddr type local jump mark-for-masquerade".to_owned());
        rules.push(format!(
            "fib saddr type local goto {} comment \"nor is the node\"",
            names.cluster
        ));
    } else {
        // The endpoint may be on another node, whose answer must come back this way.
        rules.push("jump mark-for-masquerade".to_owned());
    }
    rules.extend(usable.map(|chain| format!("goto {chain}")));
    rules
}

/// Chooses one of the endpoints: a client's own, if it has one, or any with the same chance.
fn balance(service: &ServicePort, endpoints: &[&Endpoint]) -> Vec<String> {
    let chain = |endpoint: &Endpoint| format!("endpoint-{}", endpoint_name(service, endpoint));
    let mut rules = Vec::new();
    if service.affinity.is_some() {
        rules.extend(endpoints.iter().map(|endpoint| {
            let set = affinity_set(service, endpoint);
            format!("{} saddr @{set} goto {}", service.word(), chain(endpoint))
        }));
    }
    let arms: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| format!("{number} : goto {}", chain(endpoint)))
        .collect();
    rules.push(format!(
        "numgen random mod {} vmap {{ {} }}",
        arms.len(),
        arms.join(", ")
    ));
    rules
}

fn to_endpoint(service: &ServicePort, endpoint: &Endpoint) -> Vec<String> {
    let Endpoint { ip, port, .. } = endpoint;
    let word = service.word();
    // An endpoint that reaches itself would answer itself directly.
    let mut rules = vec![format!("{word} saddr {ip} jump mark-for-masquerade")];
    if service.affinity.is_some() {
        let set = affinity_set(service, endpoint);
        rules.push(format!("update @{set} {{ {word} saddr }}"));
    }
    rules.push(format!(
        "meta l4proto {} dnat to {}",
        service.protocol,
        SocketAddr::new(*ip, *port)
    ));
    rules
}
