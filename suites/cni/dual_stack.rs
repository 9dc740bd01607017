//! Two address families: every pod and node has an address of each, and is reached by either.
//!
//! Start from [`SUITE`]. The gates and `traffic` use the first family throughout; here is the second.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use strata::{Check, Layer, Need, NoVerdict, Outcome, PodView, Scope, Suite, expect_eq};

use super::paths::{
    Path, across_nodes, all_pairs, judge, mebibyte, sees_its_client, several_mtus, tcp,
    tcp_to_node, udp, within_a_node,
};
use super::{cidrs, name};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Cni,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "cni::dual_stack_nodes",
        claim: "Every node has an internal address and a pod CIDR of IPv4 and of IPv6.",
        source: "sig-network: should have ipv4 and ipv6 internal node ip; sig-network: should have ipv4 and ipv6 node podCIDRs",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(nodes(scope)),
    },
    Check {
        id: "cni::dual_stack_pods",
        claim: "Every pod has one address of each family, inside its node's pod CIDRs, and both are on its interface.",
        source: "sig-network: should create pod, add ipv6 and ipv4 ip to pod ips; CNI specification 1.0.0, result of ADD",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(pods(scope)),
    },
    Check {
        id: "cni::dual_stack_host_network_pods",
        claim: "A pod in its node's network has both of the node's addresses.",
        source: "Kubernetes: Pod status.podIPs, status.hostIPs (KEP-2681)",
        needs: &[Need::DualStack, Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(host_network_pods(scope)),
    },
    Check {
        id: "cni::dual_stack_tcp_within_a_node",
        claim: "A pod reaches another pod of its node over TCP by its address of the second family.",
        source: "sig-network: should be able to reach pod on ipv4 and ipv6 ip",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(tcp_within_a_node(scope)),
    },
    Check {
        id: "cni::dual_stack_tcp_across_nodes",
        claim: "A pod reaches pods of every other node over TCP by their addresses of the second family.",
        source: "sig-network: should be able to reach pod on ipv4 and ipv6 ip; cilium: no-policies",
        needs: &[Need::DualStack, Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(tcp_across_nodes(scope)),
    },
    Check {
        id: "cni::dual_stack_udp_within_a_node",
        claim: "A pod exchanges datagrams with another pod of its node in the second family.",
        source: "sig-network: should function for intra-pod communication: udp; cilium: no-policies",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(udp_within_a_node(scope)),
    },
    Check {
        id: "cni::dual_stack_udp_across_nodes",
        claim: "A pod exchanges datagrams with pods of every other node in the second family.",
        source: "sig-network: should function for intra-pod communication: udp; cilium: no-policies",
        needs: &[Need::DualStack, Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(udp_across_nodes(scope)),
    },
    Check {
        id: "cni::dual_stack_pods_see_each_others_addresses",
        claim: "No address of the second family is translated between pods.",
        source: "sig-network: Should be able to send traffic between Pods without SNAT; Kubernetes: the network model",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(pods_see_each_others_addresses(scope)),
    },
    Check {
        id: "cni::dual_stack_pods_reach_nodes",
        claim: "Every pod reaches the second address of every node.",
        source: "cilium: no-policies; Kubernetes: the network model",
        needs: &[Need::DualStack, Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(pods_reach_nodes(scope)),
    },
    Check {
        id: "cni::dual_stack_a_mebibyte_arrives_whole",
        claim: "1 MiB over TCP arrives whole at a pod of another node in the second family, whose headers are longer.",
        source: "RFC 8201; sig-network: should be able to handle large requests: http (dual stack)",
        needs: &[Need::DualStack, Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(a_mebibyte_arrives_whole(scope)),
    },
    Check {
        id: "cni::dual_stack_fragments_are_reassembled",
        claim: "A datagram of several MTUs arrives whole at a pod of another node in the second family, in which nobody but its sender makes fragments.",
        source: "RFC 8200, section 4.5; sig-network: should be able to handle large requests: udp (dual stack)",
        needs: &[Need::DualStack, Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(fragments_are_reassembled(scope)),
    },
];

const BOTH: [&str; 2] = ["IPv4", "IPv6"];

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { BOTH[0] } else { BOTH[1] }
}

/// The families of addresses, in the order of their names, each as often as it is there.
fn families(ips: impl IntoIterator<Item = IpAddr>) -> Vec<&'static str> {
    let mut families: Vec<_> = ips.into_iter().map(family).collect();
    families.sort_unstable();
    families
}

fn internal_ips(node: &Node) -> Vec<IpAddr> {
    let status = node.status.iter();
    let addresses = status.flat_map(|status| status.addresses.iter().flatten());
    let internal = addresses.filter(|address| address.type_ == "InternalIP");
    internal
        .filter_map(|one| one.address.parse().ok())
        .collect()
}

/// A pod by its address of the family that is not its first.
pub(super) fn second_view(pod: &PodView) -> Result<PodView, NoVerdict> {
    let other = pod.ips.iter().find(|ip| ip.is_ipv4() != pod.ip.is_ipv4());
    let view = other.and_then(|other| pod.in_family(*other));
    view.ok_or_else(|| NoVerdict::new(format!("Pod {} has one family only", pod.name)))
}

/// The same paths by the addresses of the family that is not the pods' first.
fn second_family(scope: &Scope, paths: Vec<Path>) -> Result<Vec<Path>, NoVerdict> {
    let path = |path: Path| {
        let from = path.from.pod().map(second_view).transpose()?;
        Ok(Path {
            from: from.map_or(path.from, |from| scope.from_pod(&from)),
            to: second_view(&path.to)?,
        })
    };
    paths.into_iter().map(path).collect()
}

async fn nodes(scope: &Scope) -> Outcome {
    let nodes = scope.nodes().await?;
    let seen: BTreeMap<_, _> = nodes
        .iter()
        .map(|node| {
            let addresses = families(internal_ips(node));
            let cidrs = families(cidrs(node).iter().map(IpNet::addr));
            (name(node), (addresses, cidrs))
        })
        .collect();
    let both = (BOTH.to_vec(), BOTH.to_vec());
    let expected = seen
        .keys()
        .map(|node| (node.clone(), both.clone()))
        .collect();
    expect_eq(
        "the families of each node's internal addresses, and of its pod CIDRs",
        &expected,
        &seen,
        "the kubelet was started with one --node-ip, or kube-controller-manager with one --cluster-cidr",
    )
}

async fn pods(scope: &Scope) -> Outcome {
    let nodes = scope.nodes().await?;
    let cidrs: BTreeMap<_, _> = nodes.iter().map(|node| (name(node), cidrs(node))).collect();
    let mut seen = BTreeMap::new();
    for pod in scope.ready_pods("app in (echo, peer)").await? {
        let cidrs = cidrs.get(&pod.node).into_iter().flatten();
        let inside = pod
            .ips
            .iter()
            .all(|ip| cidrs.clone().any(|cidr| cidr.contains(ip)));
        let network = scope.from_pod(&pod).network().await?;
        let has = network.interfaces.iter().flat_map(|one| &one.addresses);
        let has: Vec<_> = has.filter_map(|one| one.parse::<IpNet>().ok()).collect();
        let carried = pod
            .ips
            .iter()
            .all(|ip| has.iter().any(|one| one.addr() == *ip));
        seen.insert(pod.name, (families(pod.ips), inside, carried));
    }
    let both = (BOTH.to_vec(), true, true);
    let expected = seen.keys().map(|pod| (pod.clone(), both.clone())).collect();
    expect_eq(
        "each pod's families, whether its addresses are in its node's pod CIDRs, and whether an interface carries them",
        &expected,
        &seen,
        "the CNI configuration of the node has one range only",
    )
}

async fn host_network_pods(scope: &Scope) -> Outcome {
    let nodes = scope.nodes().await?;
    let expected: BTreeMap<_, _> = nodes
        .iter()
        .map(|node| (name(node), internal_ips(node)))
        .collect();
    let pods = scope.ready_pods("app=host").await?;
    let seen = pods.into_iter().map(|pod| (pod.node, pod.ips)).collect();
    expect_eq(
        "the addresses of the pod with hostNetwork: true on each node",
        &expected,
        &seen,
        "the kubelet reports one of the node's addresses for such pods",
    )
}

async fn tcp_within_a_node(scope: &Scope) -> Outcome {
    let paths = second_family(scope, within_a_node(scope).await?)?;
    judge(scope, "TCP", &paths, tcp).await
}

async fn tcp_across_nodes(scope: &Scope) -> Outcome {
    let paths = second_family(scope, across_nodes(scope).await?)?;
    judge(scope, "TCP", &paths, tcp).await
}

async fn udp_within_a_node(scope: &Scope) -> Outcome {
    let paths = second_family(scope, within_a_node(scope).await?)?;
    judge(scope, "UDP", &paths, udp).await
}

async fn udp_across_nodes(scope: &Scope) -> Outcome {
    let paths = second_family(scope, across_nodes(scope).await?)?;
    judge(scope, "UDP", &paths, udp).await
}

async fn pods_see_each_others_addresses(scope: &Scope) -> Outcome {
    let mut paths = second_family(scope, within_a_node(scope).await?)?;
    paths.extend(second_family(scope, across_nodes(scope).await?)?);
    // Whoever is not reached sees nobody.
    judge(scope, "TCP", &paths, tcp).await?;
    sees_its_client(
        &paths,
        "the client of the second family that a pod sees, by path",
        "a masquerade rule covers traffic between pods: the CNI plugin's cluster CIDR of that family is not the one that pods have",
    )
    .await
}

async fn pods_reach_nodes(scope: &Scope) -> Outcome {
    let paths = second_family(scope, all_pairs(scope, "app=echo", "app=host").await?)?;
    judge(scope, "TCP", &paths, tcp_to_node).await
}

async fn fragments_are_reassembled(scope: &Scope) -> Outcome {
    let paths = second_family(scope, across_nodes(scope).await?)?;
    judge(scope, "UDP", &paths, several_mtus).await
}

async fn a_mebibyte_arrives_whole(scope: &Scope) -> Outcome {
    let paths = second_family(scope, across_nodes(scope).await?)?;
    judge(scope, "TCP", &paths, mebibyte).await
}
