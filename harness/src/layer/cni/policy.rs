//! Whether NetworkPolicies let traffic pass, by networking.k8s.io/v1.
//!
//! A pod that no policy selects for a direction takes everything; one that is selected takes what
//! the rules of all policies that select it add up to. A policy is a cause only where the attempts
//! failed as well: a CNI may ignore policies.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::judge::{End, Seen};
use crate::layer::labels::{Labels, selects};
use crate::layer::tried::Tried;
use crate::verdict::cause::{Cause, CauseKind, Object};

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Ingress,
    Egress,
}

/// The policies that forbid the path, if they do and nothing answered.
pub(super) fn cause(seen: &Seen) -> Option<Cause> {
    let (port, _) = *seen
        .tried
        .iter()
        .find(|(_, tried)| *tried != Tried::Answers)?;
    if seen
        .tried
        .iter()
        .any(|(tried, outcome)| *tried == port && *outcome == Tried::Answers)
    {
        return None;
    }
    let from = seen.from.as_ref();
    forbids(seen, Way::Ingress, &seen.to, from, port)
        .or_else(|| forbids(seen, Way::Egress, from?, Some(&seen.to), port))
}

fn forbids(seen: &Seen, way: Way, end: &End, other: Option<&End>, port: u16) -> Option<Cause> {
    let namespace = end.namespace();
    let isolating: Vec<_> = seen
        .policies
        .iter()
        .filter(|policy| policy.namespace().as_deref() == Some(namespace.as_str()))
        .filter(|policy| isolates(policy, way, end.pod.labels()))
        .collect();
    let first = *isolating.first()?;
    if isolating
        .iter()
        .any(|policy| allows(seen, policy, way, other, &seen.to.pod, port))
    {
        return None;
    }
    let name = first.name_any();
    let object = Object::new("NetworkPolicy", &namespace, &name);
    let more = match isolating.len() - 1 {
        0 => String::new(),
        more => format!(" (with {more} more)"),
    };
    let (verb, field, preposition) = match way {
        Way::Ingress => ("takes nothing", "ingress", "from"),
        Way::Egress => ("sends nothing", "egress", "to"),
    };
    let other = other.map_or_else(
        || "outside the cluster".to_owned(),
        |other| format!("pod {}/{}", other.namespace(), other.pod.name_any()),
    );
    Some(Cause {
        kind: CauseKind::NetworkPolicy,
        wrong: format!(
            "{object}{more} selects pod {namespace}/{}, which {verb} {preposition} {other} on port {port}",
            end.pod.name_any()
        ),
        change: format!("add a rule for {other} and port {port} to spec.{field} of {object}"),
        see: object.describe(),
    })
}

fn isolates(policy: &NetworkPolicy, way: Way, labels: &Labels) -> bool {
    let Some(spec) = &policy.spec else {
        return false;
    };
    let types: Vec<_> = spec
        .policy_types
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let of_way = match way {
        Way::Ingress => types.is_empty() || types.contains(&"Ingress"),
        Way::Egress => types.contains(&"Egress") || (types.is_empty() && spec.egress.is_some()),
    };
    of_way && selects(&spec.pod_selector.clone().unwrap_or_default(), labels)
}

fn allows(
    seen: &Seen,
    policy: &NetworkPolicy,
    way: Way,
    other: Option<&End>,
    server: &Pod,
    port: u16,
) -> bool {
    let Some(spec) = &policy.spec else {
        return true;
    };
    let own = policy.namespace().unwrap_or_default();
    let peer = |peers: &Option<Vec<NetworkPolicyPeer>>| {
        let peers = peers.as_deref().unwrap_or_default();
        peers.is_empty() || peers.iter().any(|peer| is(seen, peer, &own, other))
    };
    let ports = |ports: &Option<Vec<NetworkPolicyPort>>| {
        let ports = ports.as_deref().unwrap_or_default();
        ports.is_empty() || ports.iter().any(|rule| covers(rule, server, port))
    };
    match way {
        Way::Ingress => {
            let mut rules = spec.ingress.iter().flatten();
            rules.any(|rule| peer(&rule.from) && ports(&rule.ports))
        }
        Way::Egress => {
            let mut rules = spec.egress.iter().flatten();
            rules.any(|rule| peer(&rule.to) && ports(&rule.ports))
        }
    }
}

/// Whether a peer of a rule is the other end.
fn is(seen: &Seen, peer: &NetworkPolicyPeer, own: &str, other: Option<&End>) -> bool {
    let ip = other.and_then(End::ip);
    if let Some(block) = &peer.ip_block {
        let except = block.except.iter().flatten();
        // An address that is not known may be in the block: then the policy is not to blame.
        return ip.is_none_or(|ip| {
            inside(&block.cidr, ip) && !except.into_iter().any(|cidr| inside(cidr, ip))
        });
    }
    let Some(other) = other else { return false };
    let namespace = other.namespace();
    let namespace_is = match &peer.namespace_selector {
        None => namespace == own,
        Some(selector) => seen
            .namespaces
            .iter()
            .any(|(name, labels)| *name == namespace && selects(selector, labels)),
    };
    let pod_is = peer
        .pod_selector
        .as_ref()
        .is_none_or(|selector| selects(selector, other.pod.labels()));
    namespace_is && pod_is
}

fn inside(cidr: &str, ip: IpAddr) -> bool {
    cidr.parse::<IpNet>().is_ok_and(|net| net.contains(&ip))
}

/// Whether a rule's port is the one asked for, over TCP.
fn covers(rule: &NetworkPolicyPort, server: &Pod, port: u16) -> bool {
    if rule.protocol.as_deref().unwrap_or("TCP") != "TCP" {
        return false;
    }
    match (&rule.port, rule.end_port) {
        (None, _) => true,
        (Some(IntOrString::Int(first)), last) => {
            (*first..=last.unwrap_or(*first)).contains(&i32::from(port))
        }
        (Some(IntOrString::String(name)), _) => server
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .flat_map(|container| container.ports.iter().flatten())
            .any(|has| has.name.as_ref() == Some(name) && has.container_port == i32::from(port)),
    }
}
