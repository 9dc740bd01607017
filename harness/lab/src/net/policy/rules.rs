//! What the kernel of one node is told about policies.
//!
//! Start from [`rules`], which is pure. The chains, whose names people know from real nodes, are those
//! of Felix, and a packet takes this way:
//!
//! ```text
//! forward, input ─ from-workloads ► cali-fw-POD ─┬─► cali-po-POLICY ─ accept
//!                                                └─ drop
//! forward ──────── to-workloads ──► cali-tw-POD ─┬─► cali-pi-POLICY ─ accept
//!                                                └─ drop
//! ```
//!
//! Only pods that a policy isolates are in the maps. Both ends' policies have their say where both
//! are on the node, so each has a base chain of its own, and what one accepts goes on to the other.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use kube::ResourceExt as _;

use super::matches::{Way, join, peers, ports};
use super::model::{Cluster, Endpoint, selects};
use crate::net::nftables::{Elements, Ruleset, address_type, hashed};
use crate::topology::IpFamily;

/// The table's name, in each family.
pub const TABLE: &str = "calico";

/// Neighbour discovery, in what Felix lets through of it.
const NEIGHBOURS: &str = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept";

/// How long the name of a chain may be in older kernels, less its prefix.
const LONGEST_NAME: usize = 100;

impl Way {
    const fn map(self) -> &'static str {
        match self {
            Self::Ingress => "to-workloads",
            Self::Egress => "from-workloads",
        }
    }

    fn of_pod(self, endpoint: &Endpoint) -> String {
        let prefix = match self {
            Self::Ingress => "cali-tw",
            Self::Egress => "cali-fw",
        };
        named(prefix, &endpoint.namespace, &endpoint.name)
    }

    fn of_policy(self, namespace: &str, name: &str) -> String {
        let prefix = match self {
            Self::Ingress => "cali-pi",
            Self::Egress => "cali-po",
        };
        named(prefix, namespace, name)
    }
}

fn named(prefix: &str, namespace: &str, name: &str) -> String {
    let mut hashed = hashed(&format!("{namespace}/{name}"));
    hashed.truncate(LONGEST_NAME);
    format!("{prefix}-{hashed}")
}

/// The table of a node in a family, for these policies, pods and namespaces.
#[must_use]
pub fn rules(
    policies: &[Arc<NetworkPolicy>],
    pods: &[Arc<Pod>],
    namespaces: &[Arc<Namespace>],
    node: &str,
    family: IpFamily,
) -> Ruleset {
    let cluster = Cluster::of(pods, namespaces, family);
    let mut policies: Vec<_> = policies.iter().collect();
    policies.sort_by_key(|policy| (policy.namespace(), policy.name_any()));
    let mut table = base(family);
    for way in [Way::Egress, Way::Ingress] {
        let of_way: Vec<_> = policies
            .iter()
            .filter_map(|policy| Some((policy, policy.spec.as_ref()?)))
            .filter(|(_, spec)| isolates(spec, way))
            .collect();
        for endpoint in cluster.endpoints.iter().filter(|pod| pod.node == node) {
            let mut jumps = Vec::new();
            for (policy, spec) in &of_way {
                let namespace = policy.namespace().unwrap_or_default();
                let selector = spec.pod_selector.clone().unwrap_or_default();
                if namespace != endpoint.namespace || !selects(&selector, &endpoint.labels) {
                    continue;
                }
                let chain = way.of_policy(&namespace, &policy.name_any());
                if !table.chains.contains_key(&chain) {
                    let title = format!("NetworkPolicy {namespace}/{}", policy.name_any());
                    let allowed = allowed(spec, way, &namespace, &cluster);
                    table.chain(&chain, Some(&title), allowed);
                }
                jumps.push(format!("jump {chain}"));
            }
            if !jumps.is_empty() {
                isolate(&mut table, way, endpoint, jumps);
            }
        }
    }
    table
}

/// What is there without any policy. The answers of what was allowed are: a policy that comes later
/// ends no connection.
fn base(family: IpFamily) -> Ruleset {
    let mut table = Ruleset::of(family, TABLE);
    let source = Way::Ingress.other(family);
    let destination = Way::Egress.other(family);
    for (name, hook, way, end) in [
        (
            "cali-from-workloads",
            "type filter hook forward priority -5",
            Way::Egress,
            source,
        ),
        (
            "cali-to-workloads",
            "type filter hook forward priority 0",
            Way::Ingress,
            destination,
        ),
        (
            "cali-workloads-to-host",
            "type filter hook input priority 0",
            Way::Egress,
            source,
        ),
    ] {
        let map = Elements::new(format!("type {} : verdict ;", address_type(family)));
        table.maps.insert(way.map(), map);
        let mut rules = vec!["ct state established,related accept".to_owned()];
        if family == IpFamily::V6 {
            // Without neighbours there is nothing to be allowed (RFC 4890 §4.4).
            rules.push(NEIGHBOURS.to_owned());
        }
        rules.push(format!("{end} vmap @{}", way.map()));
        table.chain(name, None, rules).hook = Some(hook);
    }
    table
}

/// Drops what none of a pod's policies allows.
fn isolate(table: &mut Ruleset, way: Way, endpoint: &Endpoint, jumps: Vec<String>) {
    let title = format!("Pod {}/{}", endpoint.namespace, endpoint.name);
    let other = way.other(IpFamily::of(endpoint.ip));
    // It comes back to itself by way of a Service, and no pod can be kept from itself.
    let mut rules = vec![format!("{other} {} accept", endpoint.ip)];
    rules.extend(jumps);
    rules.push("drop".to_owned());
    let chain = way.of_pod(endpoint);
    table.chain(&chain, Some(&title), rules);
    let verdict = format!("goto {chain}");
    table.map(way.map(), endpoint.ip.to_string(), verdict, &title);
}

/// Whether a policy is of this way. The API server fills `policyTypes` in by this very rule
/// (NetworkPolicySpec, `policyTypes`).
fn isolates(spec: &NetworkPolicySpec, way: Way) -> bool {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    match way {
        Way::Ingress => types.is_empty() || types.iter().any(|of| of == "Ingress"),
        Way::Egress if types.is_empty() => spec.egress.iter().flatten().next().is_some(),
        Way::Egress => types.iter().any(|of| of == "Egress"),
    }
}

/// The rules of a policy's chain: one for each way to satisfy one of its own.
fn allowed(spec: &NetworkPolicySpec, way: Way, namespace: &str, cluster: &Cluster) -> Vec<String> {
    let pairs: Vec<_> = match way {
        Way::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules
                .map(|rule| (rule.from.as_deref(), rule.ports.as_deref()))
                .collect()
        }
        Way::Egress => {
            let rules = spec.egress.iter().flatten();
            rules
                .map(|rule| (rule.to.as_deref(), rule.ports.as_deref()))
                .collect()
        }
    };
    let accept = "accept".to_owned();
    let mut rules = Vec::new();
    for (from, to) in pairs {
        let to = ports(to, cluster);
        for peer in peers(way, from, namespace, cluster) {
            rules.extend(to.iter().map(|port| join([&peer, port, &accept])));
        }
    }
    rules
}
