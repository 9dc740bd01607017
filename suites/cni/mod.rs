//! The container network: every pod has an address of its own, and reaches every other pod by it.
//!
//! Start from [`SUITE`], the gates; `traffic` judges what else a pod network is good for, `life` what comes and goes, `policies` what
//! it keeps out, with the cases of `policy_ingress`, `policy_egress` and `policy_changes`, `dual_stack` what the second
//! address family is good for, `outside` the world beyond the cluster; `paths` and `policy` are how they ask. The fixture has two pods (`echo`, `peer`) and a pod
//! in the node's own network (`host`) on every node; paths are judged for all ordered pairs of nodes.

pub(crate) mod dual_stack;
pub(crate) mod life;
pub(crate) mod outside;
mod paths;
pub(crate) mod policies;
pub(crate) mod policy;
pub(crate) mod policy_changes;
pub(crate) mod policy_egress;
pub(crate) mod policy_ingress;
pub(crate) mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use strata::{
    Check, Eventually, Expect, Layer, Need, NoVerdict, Outcome, Scope, Subject, Suite, expect,
};

use self::paths::{across_nodes, reaches, tcp, udp, within_a_node};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Cni,
    gates: GATES,
    checks: &[],
};

const GATES: &[Check] = &[
    Check {
        id: "cni::nodes_are_ready",
        claim: "Every node is Ready.",
        source: "Kubernetes: Nodes, condition Ready; tutorial, \"CNI: The Network Foundation\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(nodes_are_ready(scope)),
    },
    Check {
        id: "cni::nodes_own_disjoint_pod_cidrs",
        claim: "Every node has a pod CIDR of its own, and no two overlap.",
        source: "Kubernetes: Node spec.podCIDRs",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(nodes_own_disjoint_pod_cidrs(scope)),
    },
    Check {
        id: "cni::plugin_is_healthy",
        claim: "The CNI plugin's own pods are ready on every node, in whichever namespace they live.",
        source: "tutorial, \"Verify CNI health\"; flannel lives in kube-flannel, not in kube-system",
        needs: &[Need::Plugin],
        manifest: None,
        run: |scope| Box::pin(plugin_is_healthy(scope)),
    },
    Check {
        id: "cni::kube_system_is_healthy",
        claim: "Every pod of kube-system is ready.",
        source: "tutorial, \"kubectl get pods -n kube-system\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(kube_system_is_healthy(scope)),
    },
    Check {
        id: "cni::pods_have_addresses_of_their_own",
        claim: "Every pod has an address of its own, inside its node's pod CIDR.",
        source: "Kubernetes: the network model, \"each pod gets its own IP address\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(pods_have_addresses_of_their_own(scope)),
    },
    Check {
        id: "cni::tcp_within_a_node",
        claim: "A pod reaches another pod of its node over TCP, on every node.",
        source: "cilium: no-policies; sig-network: should function for intra-pod communication: http",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(tcp_within_a_node(scope)),
    },
    Check {
        id: "cni::tcp_across_nodes",
        claim: "A pod reaches pods of every other node over TCP, in both directions.",
        source: "cilium: no-policies; sig-network: should function for intra-pod communication: http",
        needs: &[Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(tcp_across_nodes(scope)),
    },
    Check {
        id: "cni::udp_within_a_node",
        claim: "A pod reaches another pod of its node over UDP, on every node.",
        source: "sig-network: should function for intra-pod communication: udp",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(udp_within_a_node(scope)),
    },
    Check {
        id: "cni::udp_across_nodes",
        claim: "A pod reaches pods of every other node over UDP, in both directions.",
        source: "sig-network: should function for intra-pod communication: udp",
        needs: &[Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(udp_across_nodes(scope)),
    },
];

async fn nodes_are_ready(scope: &Scope) -> Outcome {
    let nodes = scope.nodes().await?;
    let expected: BTreeMap<_, _> = nodes
        .iter()
        .map(|node| (name(node), "True".to_owned()))
        .collect();
    expect(!expected.is_empty(), || Expect {
        what: "the nodes of the cluster".to_owned(),
        expected: "at least one".to_owned(),
        observed: "none".to_owned(),
        likely: "no kubelet has registered with the API server".to_owned(),
    })?;
    scope
        .eventually(Eventually {
            what: "the condition Ready of every node",
            expected,
            observe: async || {
                let nodes = scope.nodes().await?;
                Ok(nodes.iter().map(|node| (name(node), ready(node))).collect())
            },
            likely: "the CNI plugin has not configured the node; kubectl describe node tells what the kubelet waits for",
        })
        .await
}

async fn nodes_own_disjoint_pod_cidrs(scope: &Scope) -> Outcome {
    let mut taken: Vec<(String, IpNet)> = Vec::new();
    for node in scope.nodes().await? {
        let own = cidrs(&node);
        let clash = taken.iter().find(|(_, cidr)| {
            own.iter()
                .any(|own| own.contains(cidr) || cidr.contains(own))
        });
        expect(!own.is_empty() && clash.is_none(), || {
            Expect {
            what: format!("spec.podCIDRs of Node {}", name(&node)),
            expected: "at least one, that overlaps no other node's".to_owned(),
            observed: clash.map_or_else(
                || format!("{own:?}"),
                |(other, cidr)| format!("{own:?}, and Node {other} has {cidr}"),
            ),
            likely: "the controller manager runs without --allocate-node-cidrs, or --cluster-cidr is too small".to_owned(),
        }
        })?;
        taken.extend(own.into_iter().map(|cidr| (name(&node), cidr)));
    }
    expect(!taken.is_empty(), || Expect {
        what: "nodes with a pod CIDR".to_owned(),
        expected: "at least one".to_owned(),
        observed: "no nodes".to_owned(),
        likely: "no kubelet has registered with the API server".to_owned(),
    })
}

async fn plugin_is_healthy(scope: &Scope) -> Outcome {
    let Some(plugin) = scope.cluster().plugin().await? else {
        return Err(NoVerdict::new("the CNI plugin's DaemonSet is gone").into());
    };
    let (namespace, name) = (plugin.namespace, plugin.name.as_str());
    scope.record("cni", format!("{namespace}/{name}"));
    let nodes = i32::try_from(scope.nodes().await?.len()).unwrap_or(i32::MAX);
    let outcome = scope
        .eventually(Eventually {
            what: &format!("nodes on which DaemonSet {namespace}/{name} is wanted, and is ready"),
            expected: (nodes, nodes),
            observe: async || {
                let set: DaemonSet = scope.get_in(namespace, name).await?;
                let status = set.status.unwrap_or_default();
                Ok((status.desired_number_scheduled, status.number_ready))
            },
            likely: "a pod of the CNI plugin crashes or is not scheduled; its logs tell",
        })
        .await;
    let subject = Subject::Workload {
        namespace,
        selector: plugin.selector,
    };
    scope.explain(outcome, subject).await
}

async fn kube_system_is_healthy(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: "pods of kube-system: whether there are any, and those that are not ready",
            expected: (true, BTreeSet::new()),
            observe: async || {
                let pods: Vec<Pod> = scope.list_in("kube-system", "").await?;
                let waiting = pods.iter().filter_map(strata::pod::not_ready);
                Ok((!pods.is_empty(), waiting.collect()))
            },
            likely: "the pod named; kubectl -n kube-system describe pod tells why",
        })
        .await;
    let subject = Subject::Workload {
        namespace: "kube-system",
        selector: "",
    };
    scope.explain(outcome, subject).await
}

async fn pods_have_addresses_of_their_own(scope: &Scope) -> Outcome {
    let nodes = scope.nodes().await?;
    let cidrs: BTreeMap<_, _> = nodes.iter().map(|node| (name(node), cidrs(node))).collect();
    let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
    for pod in scope.ready_pods("app in (echo, peer)").await? {
        let inside = cidrs.get(&pod.node).into_iter().flatten();
        let inside = inside.into_iter().any(|cidr| cidr.contains(&pod.ip));
        let other = owners.insert(pod.ip, pod.name.clone());
        expect(inside && other.is_none(), || {
            Expect {
            what: format!("the address of Pod {} on {}", pod.name, pod.node),
            expected: format!("one of {:?}, and no other pod's", cidrs.get(&pod.node)),
            observed: other.map_or_else(
                || pod.ip.to_string(),
                |other| format!("{}, as Pod {other}", pod.ip),
            ),
            likely: "the CNI plugin's IPAM gives addresses of a range other than the node's podCIDR, or has lost track of what it gave".to_owned(),
        }
        })?;
    }
    Ok(())
}

async fn tcp_within_a_node(scope: &Scope) -> Outcome {
    reaches(scope, "TCP", &within_a_node(scope).await?, tcp).await
}

async fn tcp_across_nodes(scope: &Scope) -> Outcome {
    reaches(scope, "TCP", &across_nodes(scope).await?, tcp).await
}

async fn udp_within_a_node(scope: &Scope) -> Outcome {
    reaches(scope, "UDP", &within_a_node(scope).await?, udp).await
}

async fn udp_across_nodes(scope: &Scope) -> Outcome {
    reaches(scope, "UDP", &across_nodes(scope).await?, udp).await
}

fn name(node: &Node) -> String {
    node.metadata.name.clone().unwrap_or_default()
}

fn ready(node: &Node) -> String {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == "Ready")
        .map(|condition| condition.status.clone())
        .next()
        .unwrap_or_else(|| "absent".to_owned())
}

fn cidrs(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.clone().unwrap_or_default();
    let all = spec
        .pod_cidrs
        .unwrap_or_default()
        .into_iter()
        .chain(spec.pod_cidr);
    let parsed: BTreeSet<IpNet> = all.filter_map(|cidr| cidr.parse().ok()).collect();
    parsed.into_iter().collect()
}
