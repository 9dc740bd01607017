//! What a pod network is good for: addresses that are kept, sizes that fit, everybody reached by everybody.
//!
//! Start from [`SUITE`]. The gates have seen every path converge, so what is asked here is asked once.

use std::collections::BTreeMap;

use ipnet::IpNet;
use strata::wire::{TcpSpec, UdpSpec};
use strata::{Check, Layer, Need, NoVerdict, Outcome, Scope, Suite, Vantage, expect_eq};

use super::paths::{
    ECHO_TCP, ECHO_UDP, HOST_TCP, HOST_UDP, Path, across_nodes, all_pairs, at, judge, mebibyte,
    sees_its_client, several_mtus, tcp, tcp_to_node, udp, within_a_node,
};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Cni,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "cni::pods_see_each_others_addresses",
        claim: "No address is translated between pods: the server sees the client's own pod IP.",
        source: "sig-network: Should be able to send traffic between Pods without SNAT; Kubernetes: the network model",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(pods_see_each_others_addresses(scope)),
    },
    Check {
        id: "cni::a_pod_reaches_itself",
        claim: "A pod reaches itself by its own pod IP.",
        source: "Kubernetes: the network model, \"pods can communicate with all other pods\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(a_pod_reaches_itself(scope)),
    },
    Check {
        id: "cni::pods_reach_nodes",
        claim: "Every pod reaches the address of every node.",
        source: "cilium: no-policies; Kubernetes: the network model",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(pods_reach_nodes(scope)),
    },
    Check {
        id: "cni::nodes_reach_pods",
        claim: "Every node reaches the pods of every node.",
        source: "sig-network: should function for node-pod communication: http",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(nodes_reach_pods(scope)),
    },
    Check {
        id: "cni::host_network_pods_have_their_nodes_address",
        claim: "A pod in its node's network has the node's address, and reaches its like on every node.",
        source: "Kubernetes: Pod spec.hostNetwork",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(host_network_pods_have_their_nodes_address(scope)),
    },
    Check {
        id: "cni::pods_of_a_node_share_no_ports",
        claim: "Two pods of one node listen on the same port, and each answers for itself.",
        source: "Kubernetes: the network model, \"pods can be treated much like VMs\"",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(pods_of_a_node_share_no_ports(scope)),
    },
    Check {
        id: "cni::interfaces_carry_the_reported_address",
        claim: "The address that the API reports for a pod is the one on its interface.",
        source: "CNI specification 1.0.0, result of ADD; Kubernetes: Pod status.podIPs",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(interfaces_carry_the_reported_address(scope)),
    },
    Check {
        id: "cni::mtu_is_exact",
        claim: "A datagram as large as the pod's MTU crosses between nodes unfragmented, and one byte more is refused.",
        source: "RFC 1191; cilium: pod-to-pod-no-frag",
        needs: &[Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(mtu_is_exact(scope)),
    },
    Check {
        id: "cni::fragments_are_reassembled",
        claim: "A datagram of several MTUs arrives whole at a pod of another node.",
        source: "RFC 791, section 3.2; sig-network: should be able to handle large requests: udp",
        needs: &[Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(fragments_are_reassembled(scope)),
    },
    Check {
        id: "cni::a_mebibyte_arrives_whole",
        claim: "1 MiB over TCP arrives whole at a pod of another node: no packet size is a black hole.",
        source: "RFC 2923, section 2.1; sig-network: should be able to handle large requests: http",
        needs: &[Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(a_mebibyte_arrives_whole(scope)),
    },
    Check {
        id: "cni::two_hundred_connections_at_once",
        claim: "Two hundred connections between two nodes are open at once.",
        source: "Kubernetes: the network model, \"pods can communicate with all other pods\"",
        needs: &[Need::Nodes(2)],
        manifest: None,
        run: |scope| Box::pin(two_hundred_connections_at_once(scope)),
    },
    Check {
        id: "cni::pods_send_datagrams_to_nodes",
        claim: "Datagrams of every pod reach the address of every node.",
        source: "cilium: no-policies; Kubernetes: the network model",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(pods_send_datagrams_to_nodes(scope)),
    },
    Check {
        id: "cni::nodes_send_datagrams_to_pods",
        claim: "Datagrams of every node reach the pods of every node.",
        source: "sig-network: should function for node-pod communication: udp",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(nodes_send_datagrams_to_pods(scope)),
    },
];

async fn pods_see_each_others_addresses(scope: &Scope) -> Outcome {
    let mut pairs = within_a_node(scope).await?;
    pairs.extend(across_nodes(scope).await?);
    sees_its_client(
        &pairs,
        "the client that a pod sees, by path",
        "a masquerade rule covers traffic between pods: the CNI plugin's cluster CIDR is not the one that pods have",
    )
    .await
}

async fn a_pod_reaches_itself(scope: &Scope) -> Outcome {
    let echoes = scope.ready_pods("app=echo").await?;
    let pairs: Vec<_> = echoes
        .iter()
        .map(|pod| Path::new(scope, pod, pod))
        .collect();
    judge(scope, "TCP", &pairs, tcp).await
}

async fn pods_reach_nodes(scope: &Scope) -> Outcome {
    let pairs = all_pairs(scope, "app=echo", "app=host").await?;
    judge(scope, "TCP", &pairs, tcp_to_node).await
}

async fn nodes_reach_pods(scope: &Scope) -> Outcome {
    let pairs = all_pairs(scope, "app=host", "app=echo").await?;
    judge(scope, "TCP", &pairs, tcp).await
}

async fn host_network_pods_have_their_nodes_address(scope: &Scope) -> Outcome {
    let pairs = all_pairs(scope, "app=host", "app=host").await?;
    let own: BTreeMap<_, _> = pairs
        .iter()
        .map(|path| (&path.to.name, path.to.ip))
        .collect();
    let nodes = pairs
        .iter()
        .map(|path| (&path.to.name, path.to.host_ip))
        .collect();
    expect_eq(
        "the addresses of the pods with hostNetwork: true, and of their nodes",
        &nodes,
        &own,
        "the kubelet reports another of the node's addresses for pods than for the node",
    )?;
    judge(scope, "TCP", &pairs, async |path: &Path| {
        let spec = TcpSpec::new(at(path.to.ip, HOST_TCP));
        Ok(said::tcp(&path.from.tcp(&spec).await?))
    })
    .await
}

async fn pods_of_a_node_share_no_ports(scope: &Scope) -> Outcome {
    let mut pairs = all_pairs(scope, "app=host", "app=echo").await?;
    pairs.extend(all_pairs(scope, "app=host", "app=peer").await?);
    pairs.retain(|path| path.within_a_node());
    judge(scope, "HTTP", &pairs, async |path: &Path| {
        let reply = path
            .from
            .get(format!("http://{}/", at(path.to.ip, 8080)))
            .await?;
        Ok(said::who(reply.error.as_ref(), reply.answer.as_ref()))
    })
    .await
}

async fn interfaces_carry_the_reported_address(scope: &Scope) -> Outcome {
    for pod in scope.ready_pods("app in (echo, peer)").await? {
        let network = scope.from_pod(&pod).network().await?;
        let addresses: Vec<_> = network
            .interfaces
            .iter()
            .filter(|interface| interface.up)
            .flat_map(|interface| &interface.addresses)
            .filter_map(|address| address.parse::<IpNet>().ok())
            .filter(|address| !address.addr().is_loopback())
            .filter(|address| address.addr().is_ipv4() == pod.ip.is_ipv4())
            .map(|address| address.addr())
            .collect();
        expect_eq(
            format!("the addresses of Pod {}, loopback apart", pod.name),
            &vec![pod.ip],
            &addresses,
            "the kubelet reports an address that the CNI plugin gave to another interface or pod",
        )?;
    }
    Ok(())
}

async fn mtu_is_exact(scope: &Scope) -> Outcome {
    for path in across_nodes(scope).await? {
        let mtu = mtu(&path.from).await?;
        scope.record("mtu", mtu);
        // An IPv4 header without options and a UDP header: 20 and 8 bytes.
        let payload = mtu.saturating_sub(28);
        let (mut seen, mut carries) = (BTreeMap::new(), mtu);
        for bytes in [payload, payload + 1] {
            let spec = UdpSpec {
                bytes,
                df: true,
                ..UdpSpec::new(at(path.to.ip, ECHO_UDP))
            };
            let replies = path.from.udp(&spec).await?;
            let told = replies.iter().filter_map(|reply| reply.path_mtu);
            carries = told.fold(carries, u32::min);
            seen.insert(bytes, said::udp(&replies));
        }
        let expected = BTreeMap::from([
            (payload, path.to.name.clone()),
            (payload + 1, "message too long".to_owned()),
        ]);
        expect_eq(
            format!(
                "datagrams from {} by payload, fragments forbidden; the MTU is {mtu}",
                path.name()
            ),
            &expected,
            &seen,
            smaller(mtu, carries),
        )?;
    }
    Ok(())
}

/// Why datagrams of a pod's MTU do not arrive; `carries` is the least that routers on the way have told of.
fn smaller(mtu: u32, carries: u32) -> String {
    if carries < mtu {
        return format!(
            "a router on the way carries {carries} bytes: set the CNI plugin's mtu to {carries}, and not {mtu}"
        );
    }
    "the pod's MTU is larger than the underlay's less the tunnel's header (VXLAN over IPv4: 50 bytes)".to_owned()
}

async fn fragments_are_reassembled(scope: &Scope) -> Outcome {
    judge(scope, "UDP", &across_nodes(scope).await?, several_mtus).await
}

async fn a_mebibyte_arrives_whole(scope: &Scope) -> Outcome {
    judge(scope, "TCP", &across_nodes(scope).await?, mebibyte).await
}

async fn two_hundred_connections_at_once(scope: &Scope) -> Outcome {
    let pairs = across_nodes(scope).await?;
    let path = pairs
        .first()
        .ok_or_else(|| NoVerdict::new("there is one node only"))?;
    // Held for a moment, so that the first is still open when the last one is opened.
    let spec = TcpSpec {
        count: 200,
        concurrency: 200,
        hold_ms: 300,
        bytes: 64,
        ..TcpSpec::new(at(path.to.ip, ECHO_TCP))
    };
    let replies = path.from.tcp(&spec).await?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for reply in &replies {
        *seen
            .entry(said::who(reply.error.as_ref(), reply.answer.as_ref()))
            .or_default() += 1;
    }
    let outcome = expect_eq(
        format!("200 connections {}, by who answered", path.name()),
        &BTreeMap::from([(path.to.name.clone(), 200)]),
        &seen,
        "the connection tracking table of a node is full, or the server's backlog is",
    );
    scope.explain(outcome, path.subject()).await
}

async fn pods_send_datagrams_to_nodes(scope: &Scope) -> Outcome {
    let pairs = all_pairs(scope, "app=echo", "app=host").await?;
    judge(scope, "UDP", &pairs, async |path: &Path| {
        let spec = UdpSpec::new(at(path.to.host_ip, HOST_UDP));
        Ok(said::udp(&path.from.udp(&spec).await?))
    })
    .await
}

async fn nodes_send_datagrams_to_pods(scope: &Scope) -> Outcome {
    let pairs = all_pairs(scope, "app=host", "app=echo").await?;
    judge(scope, "UDP", &pairs, udp).await
}

/// The MTU of the interface that has the pod's address.
async fn mtu(vantage: &Vantage) -> Result<u32, NoVerdict> {
    let own = vantage.pod().map(|pod| pod.ip);
    let network = vantage.network().await?;
    let has_own =
        |address: &String| address.parse::<IpNet>().ok().map(|address| address.addr()) == own;
    let interface = network
        .interfaces
        .iter()
        .find(|interface| interface.addresses.iter().any(has_own));
    interface
        .and_then(|interface| interface.mtu)
        .ok_or_else(|| {
            NoVerdict::new(format!(
                "no interface of Pod {} has its address",
                vantage.name()
            ))
        })
}
