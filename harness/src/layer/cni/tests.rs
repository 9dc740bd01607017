//! Two pods that should reach each other, and everything in between.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use strata_probe::{Interface, Network, Route};

use super::judge::{Crossing, End, Seen, cause};
use crate::layer::labels::terms;
use crate::layer::tests::{Case, case, pod, pod_with, read, yaml};
use crate::layer::tried::Tried;
use crate::layer::workload;

fn network(ip: &str) -> Network {
    let interface = |name: &str, address: &str, mtu| Interface {
        name: name.into(),
        mtu: Some(mtu),
        up: true,
        addresses: vec![address.into()],
    };
    Network {
        interfaces: vec![
            interface("lo", "127.0.0.1/8", 65536),
            interface("eth0", &format!("{ip}/32"), 1450),
        ],
        routes: vec![
            Route {
                destination: "0.0.0.0/0".into(),
                gateway: Some("169.254.1.1".parse().unwrap()),
                interface: "eth0".into(),
                metric: 0,
            },
            Route {
                destination: "169.254.1.1/32".into(),
                gateway: None,
                interface: "eth0".into(),
                metric: 0,
            },
        ],
    }
}

fn end(name: &str, labels: &str, ip: &str, node: &str) -> End {
    End {
        pod: pod(name, labels, ip, node),
        network: Some(network(ip)),
    }
}

fn across(a: &str, b: &str, tried: Tried) -> Crossing {
    Crossing {
        from: a.into(),
        by_node: false,
        to: b.into(),
        tried,
    }
}

fn by_node(a: &str, b: &str, tried: Tried) -> Crossing {
    Crossing {
        by_node: true,
        ..across(a, b, tried)
    }
}

/// Two pods of two nodes that reach each other, and a peer beside each.
fn well() -> Seen {
    let pods: Vec<Pod> = Vec::new();
    Seen {
        from: Some(end("client", "app=client", "10.244.1.5", "worker")),
        to: end("web", "app=web", "10.244.2.5", "worker2"),
        tried: vec![(8080, Tried::Answers)],
        peers: vec![
            end("client-peer", "app=client", "10.244.1.6", "worker"),
            end("web-peer", "app=web", "10.244.2.6", "worker2"),
        ],
        namespaces: vec![("shop".into(), terms("team=shop"))],
        nodes: vec![node("worker", "True"), node("worker2", "True")],
        workload: workload::Seen {
            namespace: "shop".into(),
            pods,
            ..workload::Seen::default()
        },
        ..Seen::default()
    }
}

fn node(name: &str, ready: &str) -> Node {
    yaml(&format!(
        "{{metadata: {{name: {name}}}, status: {{conditions: [{{type: Ready, status: '{ready}', \
         message: Kubelet stopped posting node status}}]}}}}"
    ))
}

fn silent() -> Seen {
    Seen {
        tried: vec![(8080, Tried::TimesOut)],
        ..well()
    }
}

fn from(seen: &mut Seen) -> &mut Network {
    seen.from.as_mut().unwrap().network.as_mut().unwrap()
}

fn policy(spec: &str) -> NetworkPolicy {
    yaml(&format!(
        "{{metadata: {{name: deny, namespace: shop}}, spec: {spec}}}"
    ))
}

pub(in crate::layer) fn cases() -> Vec<Case> {
    let well = |name, change: fn(&mut Seen)| case(name, well(), change, cause);
    let silent = |name, change: fn(&mut Seen)| case(name, silent(), change, cause);
    vec![
        well("all is well", |_| {}),
        silent("nothing but silence", |_| {}),
        silent("the source's default route is gone", |seen| {
            from(seen)
                .routes
                .retain(|route| route.destination != "0.0.0.0/0");
        }),
        silent("the destination's routes are gone", |seen| {
            seen.to.network.as_mut().unwrap().routes.clear();
        }),
        silent("no route, and no peer to compare with", |seen| {
            from(seen).routes.clear();
            seen.peers.clear();
        }),
        silent("another gateway than the peers'", |seen| {
            from(seen).routes[0].gateway = Some("10.244.1.254".parse().unwrap());
        }),
        silent("the interface is down", |seen| {
            from(seen).interfaces[1].up = false
        }),
        silent("the address is gone", |seen| {
            from(seen).interfaces[1].addresses.clear();
        }),
        silent("another address than the status names", |seen| {
            from(seen).interfaces[1].addresses = vec!["10.244.9.9/32".into()];
        }),
        silent(
            "a pod on the host's network has the host's routes",
            |seen| {
                from(seen).routes.clear();
                let pod = &mut seen.from.as_mut().unwrap().pod;
                pod.spec.as_mut().unwrap().host_network = Some(true);
            },
        ),
        silent("the destination crashes", |seen| {
            seen.to.network = None;
            seen.to.pod = pod_with(
                "web",
                "app=web",
                "{phase: Running, conditions: [{type: Ready, status: 'False'}], containerStatuses: \
                 [{name: server, image: i, imageID: '', ready: false, restartCount: 3, state: \
                 {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 1}}}]}",
            );
        }),
        well("the MTU differs, and small packets pass", |seen| {
            from(seen).interfaces[1].mtu = Some(1500);
        }),
        silent("the MTU differs, and nothing passes", |seen| {
            from(seen).interfaces[1].mtu = Some(1500);
        }),
        well("nothing listens", |seen| {
            seen.tried = vec![(9090, Tried::Refused)]
        }),
        silent("a policy denies all ingress", |seen| {
            seen.policies
                .push(policy("{podSelector: {}, policyTypes: [Ingress]}"));
        }),
        silent("a policy denies all egress", |seen| {
            seen.policies.push(policy(
                "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}",
            ));
        }),
        silent("a policy allows the pod", |seen| {
            seen.policies.push(policy(
                "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}",
            ));
        }),
        silent("policies add up", |seen| {
            seen.policies
                .push(policy("{podSelector: {}, policyTypes: [Ingress]}"));
            seen.policies.push(policy(
                "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: shop}}}], \
                 ports: [{port: http}]}]}",
            ));
        }),
        silent("a policy allows another port", |seen| {
            seen.policies.push(policy(
                "{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}",
            ));
        }),
        silent("a policy allows the block but for the pod", |seen| {
            seen.policies.push(policy(
                "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, \
                 except: [10.244.1.0/24]}}]}]}",
            ));
        }),
        well("a policy is not to blame for what answers", |seen| {
            seen.policies
                .push(policy("{podSelector: {}, policyTypes: [Ingress]}"));
        }),
        silent("a node is not ready", |seen| {
            seen.nodes[1] = node("worker2", "Unknown")
        }),
        silent("a node's agent is not ready", |seen| {
            seen.agents
                .push(pod_with("vxlan-cni-x", "app=vxlan-cni", "{phase: Pending}"));
        }),
        silent("the nodes are apart", |seen| {
            seen.across = vec![
                across("worker", "worker2", Tried::TimesOut),
                across("worker2", "worker", Tried::TimesOut),
                across("worker", "worker", Tried::Answers),
                across("worker2", "worker2", Tried::Answers),
            ];
        }),
        silent("one node is apart from the others", |seen| {
            seen.across = vec![
                across("worker", "worker2", Tried::TimesOut),
                across("worker2", "worker", Tried::TimesOut),
                across("control-plane", "worker", Tried::TimesOut),
                across("control-plane", "worker2", Tried::Answers),
            ];
        }),
        silent("nodes reach pods that pods do not reach", |seen| {
            seen.across = vec![
                across("worker", "worker2", Tried::TimesOut),
                across("worker2", "worker", Tried::TimesOut),
                across("worker", "worker", Tried::Answers),
                by_node("worker", "worker2", Tried::Answers),
                by_node("worker2", "worker", Tried::Answers),
            ];
        }),
        silent("nodes do not reach the pods either", |seen| {
            seen.across = vec![
                across("worker", "worker2", Tried::TimesOut),
                by_node("worker", "worker2", Tried::TimesOut),
                by_node("worker2", "worker", Tried::Answers),
            ];
        }),
        silent("one way connects", |seen| {
            seen.across = vec![
                across("worker", "worker2", Tried::TimesOut),
                across("worker2", "worker", Tried::Answers),
            ];
        }),
        silent("nobody reaches the destination alone", |seen| {
            seen.across = vec![across("worker", "worker2", Tried::Answers)];
            seen.others_at_to = vec![Tried::TimesOut, Tried::TimesOut];
        }),
        silent("from outside, nothing is known of the source", |seen| {
            seen.from = None
        }),
    ]
}

#[test]
fn causes_read_as_they_should() {
    insta::assert_snapshot!("cni", read(&cases()));
}
