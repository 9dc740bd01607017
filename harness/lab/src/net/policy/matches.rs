//! What a rule of a policy says of packets: its peers and its ports, each as pieces of nftables'.
//!
//! Rule: one piece is one way to satisfy it, and no piece at all is none; a rule of a policy becomes
//! one rule for every pair of a peer's piece and a port's.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::model::{Cluster, Endpoint, selects};
use crate::net::nftables;
use crate::topology::IpFamily;

/// Which way connections go, from the pods that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Ingress,
    Egress,
}

impl Way {
    /// The address of the other end.
    pub(super) const fn other(self, family: IpFamily) -> &'static str {
        match (self, family) {
            (Self::Ingress, IpFamily::V4) => "ip saddr",
            (Self::Egress, IpFamily::V4) => "ip daddr",
            (Self::Ingress, IpFamily::V6) => "ip6 saddr",
            (Self::Egress, IpFamily::V6) => "ip6 daddr",
        }
    }
}

/// The piece that every packet satisfies.
const ANYTHING: &str = "";

/// Who may be at the other end. Without a peer, that is anybody (NetworkPolicyIngressRule,
/// NetworkPolicyEgressRule: "if this field is empty or missing, this rule matches all").
pub(super) fn peers(
    way: Way,
    peers: Option<&[NetworkPolicyPeer]>,
    own: &str,
    cluster: &Cluster,
) -> Vec<String> {
    let peers = peers.unwrap_or_default();
    if peers.is_empty() {
        return vec![ANYTHING.to_owned()];
    }
    let mut pieces = Vec::new();
    let addresses: BTreeSet<_> = cluster
        .endpoints
        .iter()
        .filter(|endpoint| peers.iter().any(|peer| is(peer, own, endpoint, cluster)))
        .map(|endpoint| endpoint.ip)
        .collect();
    if !addresses.is_empty() {
        let other = way.other(cluster.family);
        pieces.push(format!("{other} {}", one_of(addresses)));
    }
    pieces.extend(
        peers
            .iter()
            .filter_map(|peer| block(way, peer.ip_block.as_ref()?, cluster.family)),
    );
    pieces
}

/// Whether a pod is a peer: of the policy's own namespace, unless the peer selects others.
fn is(peer: &NetworkPolicyPeer, own: &str, endpoint: &Endpoint, cluster: &Cluster) -> bool {
    let of_namespace = match &peer.namespace_selector {
        Some(selector) => cluster.in_namespace(selector, endpoint),
        None => endpoint.namespace == own,
    };
    let of_pod = match &peer.pod_selector {
        Some(selector) => selects(selector, &endpoint.labels),
        None => peer.namespace_selector.is_some(),
    };
    peer.ip_block.is_none() && of_namespace && of_pod
}

/// The addresses of a block but for its exceptions; nothing of a block of another family.
fn block(way: Way, block: &IPBlock, family: IpFamily) -> Option<String> {
    let cidr: IpNet = block.cidr.parse().ok()?;
    if IpFamily::of(cidr.addr()) != family {
        return None;
    }
    let except = block.except.iter().flatten();
    let except: Vec<IpNet> = except.filter_map(|cidr| cidr.parse().ok()).collect();
    let other = way.other(family);
    let mut piece = match cidr.prefix_len() {
        0 => ANYTHING.to_owned(),
        _ => format!("{other} {}", cidr.trunc()),
    };
    if !except.is_empty() {
        let except = one_of(IpNet::aggregate(&except));
        piece = join([&piece, &format!("{other} != {except}")]);
    }
    Some(piece)
}

/// Which ports may be asked for. Without a port, all are, of every protocol.
pub(super) fn ports(ports: Option<&[NetworkPolicyPort]>, cluster: &Cluster) -> Vec<String> {
    let ports = ports.unwrap_or_default();
    if ports.is_empty() {
        return vec![ANYTHING.to_owned()];
    }
    let mut ranges: BTreeMap<String, Vec<(i32, i32)>> = BTreeMap::new();
    let mut pieces = Vec::new();
    for port in ports {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let word = protocol.to_lowercase();
        match &port.port {
            None => pieces.push(format!("meta l4proto {word}")),
            Some(IntOrString::Int(first)) => {
                let last = port.end_port.unwrap_or(*first);
                ranges.entry(word).or_default().push((*first, last));
            }
            Some(IntOrString::String(name)) => pieces.extend(named(cluster, name, protocol, &word)),
        }
    }
    pieces.extend(ranges.into_iter().map(|(protocol, ranges)| {
        let ranges = merged(ranges).into_iter().map(|range| match range {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        });
        format!("{protocol} dport {}", one_of(ranges))
    }));
    pieces
}

/// A port by its name, which is another number in another pod: the server's, whichever way.
fn named(cluster: &Cluster, name: &str, protocol: &str, word: &str) -> Option<String> {
    let pairs: BTreeSet<_> = cluster
        .endpoints
        .iter()
        .flat_map(|endpoint| {
            let numbers = endpoint.numbers(name, protocol);
            numbers.map(|number| format!("{} . {number}", endpoint.ip))
        })
        .collect();
    let ip = nftables::word(cluster.family);
    (!pairs.is_empty()).then(|| format!("{ip} daddr . {word} dport {}", one_of(pairs)))
}

/// Ranges that neither overlap nor touch, as a set of nftables' must have them.
fn merged(mut ranges: Vec<(i32, i32)>) -> Vec<(i32, i32)> {
    ranges.sort_unstable();
    let mut merged: Vec<(i32, i32)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Pieces after one another, without those that say nothing.
pub(super) fn join<'a>(pieces: impl IntoIterator<Item = &'a String>) -> String {
    let said = pieces.into_iter().filter(|piece| !piece.is_empty());
    said.map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn one_of(elements: impl IntoIterator<Item = impl ToString>) -> String {
    let elements = elements.into_iter().map(|element| element.to_string());
    format!("{{ {} }}", elements.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_where_they_meet() {
        for (ranges, expected) in [
            (vec![(80, 80)], vec![(80, 80)]),
            (vec![(90, 95), (80, 89)], vec![(80, 95)]),
            (vec![(80, 100), (85, 90)], vec![(80, 100)]),
            (vec![(1, 2), (4, 5)], vec![(1, 2), (4, 5)]),
        ] {
            assert_eq!(merged(ranges), expected);
        }
    }
}
