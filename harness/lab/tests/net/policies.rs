//! NetworkPolicies as rules, without an API server. Of each denial, the same path is shown to carry
//! before it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, UdpSocket};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod as PodObject};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use strata_lab::net::policy::{TABLE, rules};
use strata_lab::os::netns::NetNs;

use crate::fixture::{
    Net, Pod, SILENCE, all_silent, answers, at_once, connect, connects, is_silent, object,
};

pub(super) async fn cases(net: &Net, pods: &[Pod]) {
    net.services(&[], &[]).await;
    default_deny(net, pods).await;
    peers(net, pods).await;
    ports(net, pods).await;
    egress(net, pods).await;
    connections_go_on(net, pods).await;
    what_is_flushed_holds_nothing_back(net, pods).await;
}

/// Which namespace each pod is in: d is in one of its own.
fn namespace(pod: &Pod) -> &'static str {
    match pod.id {
        "d" => "far",
        _ => "near",
    }
}

/// Puts policies in place on every node; of each, the pod that it selects, and the rest of it.
async fn enforce(net: &Net, pods: &[Pod], policies: &[(&Pod, Value)]) {
    let policies: Vec<Arc<NetworkPolicy>> = policies
        .iter()
        .enumerate()
        .map(|(number, (pod, spec))| {
            let mut all = json!({ "podSelector": { "matchLabels": { "app": pod.id } } });
            json_patch::merge(&mut all, &net.alike(spec.clone()));
            let name = format!("policy-{number}");
            let metadata = json!({ "namespace": namespace(pod), "name": name });
            Arc::new(object(json!({ "metadata": metadata, "spec": all })))
        })
        .collect();
    let objects: Vec<Arc<PodObject>> = pods
        .iter()
        .map(|pod| {
            Arc::new(object(json!({
                "metadata": { "namespace": namespace(pod), "name": pod.id, "labels": { "app": pod.id } },
                "spec": {
                    "nodeName": net.nodes[pod.node].link.name,
                    "containers": [{ "name": "c", "ports": [{ "name": "who", "containerPort": 8080 }] }],
                },
                "status": { "phase": "Running", "podIP": pod.ip },
            })))
        })
        .collect();
    let namespaces = ["near", "far"].map(|name| -> Arc<Namespace> {
        Arc::new(object(
            json!({ "metadata": { "name": name, "labels": { "is": name } } }),
        ))
    });
    for node in &net.nodes {
        let table = rules(
            &policies,
            &objects,
            &namespaces,
            &node.link.name,
            net.family,
        );
        net.nft
            .apply(&node.link.netns, &table.replace())
            .await
            .unwrap();
    }
}

fn app(name: &str) -> Value {
    json!({ "podSelector": { "matchLabels": { "app": name } } })
}

#[track_caller]
fn passes(from: &NetNs, to: &Pod) {
    assert_eq!(answers(from, SocketAddr::new(to.ip, 8080)).0, to.id);
}

/// Whether a datagram is answered.
fn echoes(from: &NetNs, to: SocketAddr) -> bool {
    let any = match to.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = from.run(|| UdpSocket::bind((any, 0))).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket.send_to(b"who", to).unwrap();
    socket.recv(&mut [0; 100]).is_ok()
}

async fn default_deny(net: &Net, pods: &[Pod]) {
    let (b, c, d) = (&pods[1], &pods[2], &pods[3]);
    enforce(net, pods, &[]).await;
    for from in [b, c, d] {
        for to in [b, c, d] {
            passes(&from.netns, to);
        }
    }
    assert!(echoes(&b.netns, net.at(d.ip, 8080)));
    let deny = json!({ "policyTypes": ["Ingress"] });
    enforce(net, pods, &[(c, deny.clone()), (d, deny)]).await;
    // From the pod's own node and from another.
    let denied = [&b.netns, &net.nodes[0].link.netns];
    let denied = denied.map(|from| [(from, net.at(c.ip, 8080)), (from, net.at(d.ip, 8080))]);
    all_silent(denied.as_flattened());
    let echoed = at_once(&[c, d], |to| echoes(&b.netns, net.at(to.ip, 8080)));
    assert_eq!(echoed, [false, false]);
    for to in [c, d] {
        // As the kubelet's probes need it; and no pod can be kept from itself.
        passes(&net.nodes[to.node].link.netns, to);
        passes(&to.netns, to);
        // The other way, with the answers.
        passes(&to.netns, b);
        assert!(echoes(&to.netns, net.at(b.ip, 8080)));
    }
}

async fn peers(net: &Net, pods: &[Pod]) {
    let (a, b, c, d) = (&pods[0], &pods[1], &pods[2], &pods[3]);
    let near = json!({ "namespaceSelector": { "matchLabels": { "is": "near" } } });
    let from_b =
        json!({ "podSelector": { "matchLabels": { "app": "b" } }, "namespaceSelector": {} });
    let except = json!({ "ipBlock": { "cidr": "10.244.0.0/16", "except": [IpNet::from(b.ip)] } });
    for (to, peers, allowed, denied) in [
        (c, json!([app("b")]), vec![b], vec![a, d]),
        // Another namespace's pod of that name is not meant.
        (d, json!([app("b")]), vec![], vec![b]),
        (d, json!([from_b]), vec![b], vec![c]),
        (d, json!([near]), vec![a, b, c], vec![]),
        (c, json!([near]), vec![a, b], vec![d]),
        (d, json!([except]), vec![a, c], vec![b]),
        (d, json!([except, from_b]), vec![a, b, c], vec![]),
    ] {
        enforce(net, pods, &[]).await;
        for from in allowed.iter().chain(&denied) {
            passes(&from.netns, to);
        }
        let spec = json!({ "ingress": [{ "from": peers }] });
        enforce(net, pods, &[(to, spec)]).await;
        for from in allowed {
            passes(&from.netns, to);
        }
        let denied = denied.iter().map(|from| (&from.netns, net.at(to.ip, 8080)));
        all_silent(&denied.collect::<Vec<_>>());
    }
}

async fn ports(net: &Net, pods: &[Pod]) {
    let (a, b, c, d) = (&pods[0], &pods[1], &pods[2], &pods[3]);
    for (ports, tcp, udp, other) in [
        (json!([{ "port": 8080 }]), true, false, false),
        (json!([{ "port": "who" }]), true, false, false),
        (
            json!([{ "port": 8080, "protocol": "UDP" }]),
            false,
            true,
            false,
        ),
        (json!([{ "protocol": "UDP" }]), false, true, false),
        (
            json!([{ "port": 8081, "endPort": 9000 }]),
            false,
            false,
            true,
        ),
        (
            json!([{ "port": 8080, "endPort": 8999 }]),
            true,
            false,
            false,
        ),
        (json!([{ "protocol": "TCP" }]), true, false, true),
        (json!([]), true, true, true),
    ] {
        let rule = json!([{ "ports": ports }]);
        let ingress = json!({ "ingress": rule });
        let egress = json!({ "policyTypes": ["Egress"], "egress": rule });
        enforce(net, pods, &[(d, ingress), (c, egress)]).await;
        // One is held to it as who is asked, the other as who asks.
        let ways = [(b, d), (c, a)].map(|(from, to)| {
            let (who, count) = (net.at(to.ip, 8080), net.at(to.ip, 9000));
            [(from, who, "TCP"), (from, who, "UDP"), (from, count, "TCP")]
        });
        let seen = at_once(
            ways.as_flattened(),
            |(from, to, protocol)| match *protocol {
                "UDP" => echoes(&from.netns, *to),
                _ => connects(&from.netns, *to),
            },
        );
        assert_eq!(seen, [tcp, udp, other, tcp, udp, other], "{rule}");
    }
}

async fn egress(net: &Net, pods: &[Pod]) {
    let (b, c, d) = (&pods[1], &pods[2], &pods[3]);
    let web = net.service("web", "10.96.7.1", json!({}));
    net.services(&[web], &[net.slice("web", "TCP", &[d])]).await;
    let web = net.at([10, 96, 7, 1], 80);
    enforce(net, pods, &[]).await;
    assert_eq!(answers(&b.netns, web).0, "d");
    passes(&b.netns, c);
    let node = net.at(net.nodes[1].ip, 8080);
    answers(&b.netns, node);
    // What a Service leads to is what counts, not its address.
    let to_d = json!({ "policyTypes": ["Egress"], "egress": [{ "to": [{ "namespaceSelector": {
        "matchLabels": { "is": "far" },
    } }] }] });
    enforce(net, pods, &[(b, to_d)]).await;
    assert_eq!(answers(&b.netns, web).0, "d");
    passes(&b.netns, d);
    // As on a node of Calico's, the pod's own node is no exception on the way out.
    all_silent(&[(&b.netns, net.at(c.ip, 8080)), (&b.netns, node)]);
    passes(&c.netns, b);
    passes(&net.nodes[1].link.netns, b);
    // Both ends have their say, on one node as well.
    let to_c = json!({ "policyTypes": ["Egress"], "egress": [{ "to": [app("c")] }] });
    let from_b = json!({ "ingress": [{ "from": [app("b")] }] });
    let deny = json!({ "policyTypes": ["Ingress"] });
    enforce(net, pods, &[(b, to_c.clone()), (c, from_b)]).await;
    passes(&b.netns, c);
    enforce(net, pods, &[(b, to_c), (c, deny)]).await;
    is_silent(&b.netns, net.at(c.ip, 8080));
    net.services(&[], &[]).await;
}

/// A policy that comes ends no connection, but lets no new one be made.
async fn connections_go_on(net: &Net, pods: &[Pod]) {
    let (b, d) = (&pods[1], &pods[3]);
    enforce(net, pods, &[]).await;
    let mut open = connect(&b.netns, net.at(d.ip, 9000)).unwrap();
    open.write_all(&[7; 1000]).unwrap();
    enforce(net, pods, &[(d, json!({ "policyTypes": ["Ingress"] }))]).await;
    is_silent(&b.netns, net.at(d.ip, 9000));
    open.write_all(&[7; 1000]).unwrap();
    open.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    open.read_to_string(&mut said).unwrap();
    assert_eq!(said, "2000");
}

/// The tests themselves tell a node with rules from one without.
async fn what_is_flushed_holds_nothing_back(net: &Net, pods: &[Pod]) {
    let (b, d) = (&pods[1], &pods[3]);
    let node = &net.nodes[d.node].link.netns;
    is_silent(&b.netns, net.at(d.ip, 8080));
    let flush = ["flush", "table", net.word(), TABLE];
    net.nft.run(node, &flush, "").await.unwrap();
    passes(&b.netns, d);
    enforce(net, pods, &[]).await;
}
