//! What is particular to a bridge: frames that never leave it, and the rules that see them all the same.

use std::io::ErrorKind;

use serde_json::json;
use strata_lab::topology::IpFamily;

use crate::fixture::{Net, Pod, answers, ask, everybody, names};

const fn sees(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "/proc/sys/net/bridge/bridge-nf-call-iptables",
        IpFamily::V6 => "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
    }
}

pub(super) async fn cases(net: &Net, pods: &[Pod]) {
    services_of_one_node_need_br_netfilter(net, pods).await;
    pods_that_reach_themselves_need_hairpin(net, pods).await;
}

/// What a Service sends back to the pod that asked leaves the bridge by the port that it came in by.
async fn pods_that_reach_themselves_need_hairpin(net: &Net, pods: &[Pod]) {
    let b = &pods[1];
    let own = net.service("own", "10.96.7.1", json!({}));
    net.services(&[own], &[net.slice("own", "TCP", &[b])]).await;
    let to = net.at([10, 96, 7, 1], 80);
    // Seen as its node: it would answer itself directly.
    assert_eq!(
        answers(&b.netns, to),
        ("b".to_owned(), net.like([10, 244, 1, 1]))
    );
    let mut command = tokio::process::Command::new("bridge");
    command.arg("-d").arg("link");
    command.stdout(std::process::Stdio::piped());
    let Ok(bridge) = net.nodes[1].link.netns.spawn(&mut command) else {
        println!("not run: there is no bridge program to look with");
        return;
    };
    let said = bridge.wait_with_output().await.unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.contains("hairpin on") && !said.contains("hairpin off"),
        "{said}"
    );
}

/// Without `br_netfilter` the answer of an endpoint on the client's own node goes straight back over
/// the bridge, as the endpoint's own, and belongs to no connection of the client's.
async fn services_of_one_node_need_br_netfilter(net: &Net, pods: &[Pod]) {
    let (b, c, d) = (&pods[1], &pods[2], &pods[3]);
    let near = net.service("near", "10.96.7.1", json!({}));
    let far = net.service("far", "10.96.7.2", json!({}));
    let slices = [
        net.slice("near", "TCP", &[c]),
        net.slice("far", "TCP", &[d]),
    ];
    net.services(&[near, far], &slices).await;
    let (near, far) = (net.at([10, 96, 7, 1], 80), net.at([10, 96, 7, 2], 80));
    let write = |value: &str| {
        let node = &net.nodes[1].link.netns;
        node.run(|| std::fs::write(sees(net.family), value))
            .unwrap();
    };
    assert_eq!(everybody(&b.netns, near), names(&["c"]));
    write("0");
    let error = ask(&b.netns, near).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    // Pods themselves, and Services across nodes, do not need it.
    assert_eq!(answers(&b.netns, net.at(c.ip, 8080)).0, "c");
    assert_eq!(answers(&b.netns, far).0, "d");
    write("1");
    assert_eq!(everybody(&b.netns, near), names(&["c"]));
}
