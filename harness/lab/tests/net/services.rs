//! Services as rules, without an API server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use strata_lab::net::proxy::{TABLE, rules};
use strata_lab::os::netns::NetNs;
use strata_lab::topology::OUTSIDE_IP;
use tokio::net::TcpSocket;

use crate::fixture::{
    Net, PATIENCE, Pod, answers, connect, everybody, fails, is_silent, names, object,
};

pub(super) async fn cases(net: &Net, pods: &[Pod]) {
    cluster_ips(net, pods).await;
    node_ports_and_load_balancers(net, pods).await;
    a_connection_may_begin_before_its_service(net, pods).await;
    nobody_behind_is_refused_at_once(net, pods).await;
    clients_stay_with_their_endpoint(net, pods).await;
    endpoints_reach_themselves(net, pods).await;
    local_policies(net, pods).await;
    source_ranges(net, pods).await;
    the_api_server(net, pods).await;
    datagrams(net, pods).await;
    changes_leave_the_rest_alone(net, pods).await;
    more_than_the_kernel_takes_at_once(net, pods).await;
}

async fn cluster_ips(net: &Net, pods: &[Pod]) {
    let web = net.service("web", "10.96.7.1", json!({}));
    let behind = [&pods[1], &pods[2], &pods[3]];
    net.services(&[web], &[net.slice("web", "TCP", &behind)])
        .await;
    let to = net.at([10, 96, 7, 1], 80);
    for node in &net.nodes {
        assert_eq!(everybody(&node.link.netns, to), names(&["b", "c", "d"]));
    }
    for pod in pods {
        assert_eq!(everybody(&pod.netns, to), names(&["b", "c", "d"]));
    }
    // Pods are seen as themselves.
    assert_eq!(answers(&pods[0].netns, to).1, pods[0].ip);
    fails(
        &pods[0].netns,
        net.at([10, 96, 7, 1], 81),
        ErrorKind::ConnectionRefused,
    );
    fails(
        &net.nodes[1].link.netns,
        net.at([10, 96, 7, 1], 81),
        ErrorKind::ConnectionRefused,
    );
    is_silent(&pods[0].netns, net.at([10, 96, 7, 99], 80));
}

async fn node_ports_and_load_balancers(net: &Net, pods: &[Pod]) {
    let web = net.public("web", "10.96.7.1", json!({}));
    net.services(&[web], &[net.slice("web", "TCP", &[&pods[1], &pods[3]])])
        .await;
    let everywhere: Vec<_> = net.nodes.iter().map(|node| &node.link.netns).collect();
    let inside = everywhere
        .into_iter()
        .chain(pods.iter().map(|pod| &pod.netns));
    let vantages: Vec<_> = [&net.outside].into_iter().chain(inside).collect();
    for from in vantages {
        for node in &net.nodes {
            assert_eq!(everybody(from, net.at(node.ip, 30080)), names(&["b", "d"]));
        }
        assert_eq!(
            everybody(from, net.at([172, 30, 1, 7], 80)),
            names(&["b", "d"])
        );
    }
    // Not on loopback.
    let loopback = net.at(Ipv4Addr::LOCALHOST, 30080);
    fails(
        &net.nodes[1].link.netns,
        loopback,
        ErrorKind::ConnectionRefused,
    );
}

/// Its first packet is lost, and not remembered by any node as one for nobody: the next one gets through.
async fn a_connection_may_begin_before_its_service(net: &Net, pods: &[Pod]) {
    net.services(&[], &[]).await;
    let to = net.at([172, 30, 1, 7], 80);
    let socket = net.outside.run(|| match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    });
    let mut connecting = std::pin::pin!(socket.unwrap().connect(to));
    assert!(futures::poll!(&mut connecting).is_pending());
    let web = net.public("web", "10.96.7.1", json!({}));
    net.services(&[web], &[net.slice("web", "TCP", &[&pods[1], &pods[3]])])
        .await;
    let connected = tokio::time::timeout(PATIENCE, connecting).await;
    connected.unwrap().unwrap();
}

async fn nobody_behind_is_refused_at_once(net: &Net, pods: &[Pod]) {
    net.services(&[net.public("web", "10.96.7.1", json!({}))], &[])
        .await;
    for from in [&pods[0].netns, &net.nodes[1].link.netns] {
        fails(
            from,
            net.at([10, 96, 7, 1], 80),
            ErrorKind::ConnectionRefused,
        );
    }
    for from in [&pods[0].netns, &net.nodes[1].link.netns, &net.outside] {
        fails(
            from,
            net.at([172, 30, 1, 7], 80),
            ErrorKind::ConnectionRefused,
        );
        fails(
            from,
            net.at(net.nodes[2].ip, 30080),
            ErrorKind::ConnectionRefused,
        );
    }
}

async fn clients_stay_with_their_endpoint(net: &Net, pods: &[Pod]) {
    let sticky = json!({ "spec": {
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 3600 } },
    } });
    let web = net.service("web", "10.96.7.1", sticky);
    let slice = net.slice("web", "TCP", &[&pods[1], &pods[2], &pods[3]]);
    let tables = net
        .services(std::slice::from_ref(&web), std::slice::from_ref(&slice))
        .await;
    let to = net.at([10, 96, 7, 1], 80);
    let client = &pods[0];
    let chosen = everybody(&client.netns, to);
    assert_eq!(chosen.len(), 1);
    // Another Service's coming and going changes nothing of it, nor does saying all again.
    let other = net.service("other", "10.96.7.2", json!({}));
    let services = [Arc::new(web), Arc::new(other)];
    let slices = [
        Arc::new(slice),
        Arc::new(net.slice("other", "TCP", &[&pods[1]])),
    ];
    let node = &net.nodes[client.node];
    let both = rules(&services, &slices, &node.facts(), net.family);
    let netns = &node.link.netns;
    let change = both.change(&tables[client.node]).unwrap();
    net.nft.apply(netns, &change).await.unwrap();
    assert_eq!(everybody(&client.netns, to), chosen);
    assert_eq!(answers(&client.netns, net.at([10, 96, 7, 2], 80)).0, "b");
    net.nft
        .apply(netns, &both.rewrite(&tables[client.node]))
        .await
        .unwrap();
    assert_eq!(everybody(&client.netns, to), chosen);
    net.nft
        .apply(netns, &tables[client.node].rewrite(&both))
        .await
        .unwrap();
    assert_eq!(everybody(&client.netns, to), chosen);
    // Without affinity the sets go, and everybody answers.
    let loose = [Arc::new(net.service("web", "10.96.7.1", json!({})))];
    let loose = rules(&loose, &slices, &node.facts(), net.family);
    let change = loose.change(&tables[client.node]).unwrap();
    net.nft.apply(netns, &change).await.unwrap();
    assert_eq!(everybody(&client.netns, to), names(&["b", "c", "d"]));
}

async fn endpoints_reach_themselves(net: &Net, pods: &[Pod]) {
    let web = net.service("web", "10.96.7.1", json!({}));
    net.services(&[web], &[net.slice("web", "TCP", &[&pods[3]])])
        .await;
    let (name, _) = answers(&pods[3].netns, net.at([10, 96, 7, 1], 80));
    assert_eq!(name, "d");
}

async fn local_policies(net: &Net, pods: &[Pod]) {
    let local = json!({ "spec": { "externalTrafficPolicy": "Local" } });
    let slice = net.slice("web", "TCP", &[&pods[1]]);
    net.services(
        &[net.public("web", "10.96.7.1", local)],
        std::slice::from_ref(&slice),
    )
    .await;
    let (name, seen) = answers(&net.outside, net.at(net.nodes[1].ip, 30080));
    assert_eq!((name.as_str(), seen), ("b", net.like(OUTSIDE_IP)));
    is_silent(&net.outside, net.at(net.nodes[2].ip, 30080));
    // Pods and nodes are subject to no such policy.
    let address = net.at([172, 30, 1, 7], 80);
    for from in [&pods[3].netns, &net.nodes[2].link.netns] {
        assert_eq!(answers(from, address).0, "b");
    }
    let local = json!({ "spec": { "internalTrafficPolicy": "Local" } });
    net.services(&[net.service("web", "10.96.7.1", local)], &[slice])
        .await;
    let to = net.at([10, 96, 7, 1], 80);
    assert_eq!(answers(&pods[2].netns, to).0, "b");
    is_silent(&pods[3].netns, to);
}

async fn source_ranges(net: &Net, pods: &[Pod]) {
    let slice = net.slice("web", "TCP", &[&pods[1]]);
    let address = net.at([172, 30, 1, 7], 80);
    let only = |range: &str| {
        net.public(
            "web",
            "10.96.7.1",
            json!({ "spec": { "loadBalancerSourceRanges": [range, "192.0.2.0/24"] } }),
        )
    };
    net.services(&[only("172.30.0.1/32")], std::slice::from_ref(&slice))
        .await;
    assert_eq!(answers(&net.outside, address).0, "b");
    is_silent(&pods[3].netns, address);
    net.services(&[only("10.244.0.0/16")], &[slice]).await;
    assert_eq!(answers(&pods[3].netns, address).0, "b");
    is_silent(&net.outside, address);
    // Node ports are not load balancers.
    assert_eq!(answers(&net.outside, net.at(net.nodes[0].ip, 30080)).0, "b");
}

/// `default/kubernetes`, whose endpoint is a node: from pods of every node, from nodes, and from
/// the very node it is on.
async fn the_api_server(net: &Net, pods: &[Pod]) {
    let api = net.service("kubernetes", "10.96.0.1", json!({}));
    let slice: EndpointSlice = object(json!({
        "metadata": {
            "namespace": "default",
            "name": "kubernetes",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": net.family.name(),
        "ports": [{ "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [net.nodes[0].ip] }],
    }));
    net.services(&[api], &[slice]).await;
    let nodes = net.nodes.iter().map(|node| &node.link.netns);
    for from in nodes.chain(pods.iter().map(|pod| &pod.netns)) {
        assert_eq!(answers(from, net.at([10, 96, 0, 1], 80)).0, "node");
    }
}

async fn datagrams(net: &Net, pods: &[Pod]) {
    let udp = json!({ "spec": {
        "type": "NodePort",
        "ports": [{ "port": 53, "nodePort": 30053, "protocol": "UDP" }],
    } });
    let dns = net.service("dns", "10.96.0.10", udp);
    net.services(&[dns], &[net.slice("dns", "UDP", &[&pods[1], &pods[3]])])
        .await;
    let ask = |netns: &NetNs, by: u16, to: SocketAddr| {
        let socket = netns
            .run(|| UdpSocket::bind(net.at(Ipv4Addr::UNSPECIFIED, by)))
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).unwrap();
        socket.send(b"who").unwrap();
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer)?;
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        Ok::<_, io::Error>(said.split(' ').next().unwrap().to_owned())
    };
    for (from, to) in [
        (&pods[0].netns, net.at([10, 96, 0, 10], 53)),
        (&net.nodes[2].link.netns, net.at([10, 96, 0, 10], 53)),
        (&net.outside, net.at(net.nodes[0].ip, 30053)),
    ] {
        let who: BTreeSet<_> = (0..40).map(|_| ask(from, 0, to).unwrap()).collect();
        assert_eq!(who, names(&["b", "d"]));
    }
    let dns = net.service(
        "dns",
        "10.96.0.10",
        json!({ "spec": {
        "ports": [{ "port": 53, "protocol": "UDP" }],
    } }),
    );
    net.services(&[dns], &[]).await;
    // By a port that is given to nobody who asks for any: a flow that has an endpoint keeps it.
    let error = ask(&pods[0].netns, 10_053, net.at([10, 96, 0, 10], 53)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

async fn changes_leave_the_rest_alone(net: &Net, pods: &[Pod]) {
    let node = &net.nodes[0];
    let netns = &node.link.netns;
    let web = Arc::new(net.service("web", "10.96.7.1", json!({})));
    let other = Arc::new(net.service("other", "10.96.7.2", json!({})));
    let web_slice = Arc::new(net.slice("web", "TCP", &[&pods[1]]));
    let other_slice = |pod| Arc::new(net.slice("other", "TCP", &[pod]));
    let services = [web.clone(), other.clone()];
    let before = rules(
        &services,
        &[web_slice.clone(), other_slice(&pods[1])],
        &node.facts(),
        net.family,
    );
    net.nft.apply(netns, &before.replace()).await.unwrap();

    // The chain of one Service is found by its name, and emptied.
    let table = net
        .nft
        .run(netns, &["list", "table", net.word(), "kube-proxy"], "")
        .await
        .unwrap();
    let chain = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("chain ")?.split(' ').next())
        .find(|chain| chain.starts_with("service-") && chain.contains("default/web/tcp"))
        .unwrap();
    let flush = ["flush", "chain", net.word(), "kube-proxy", chain];
    net.nft.run(netns, &flush, "").await.unwrap();
    let to = net.at([10, 96, 7, 1], 80);
    fails(&pods[0].netns, to, ErrorKind::ConnectionRefused);

    // An established connection outlives all of it.
    let mut kept = connect(&pods[0].netns, net.at([10, 96, 7, 2], 80)).unwrap();
    let after = rules(
        &services,
        &[web_slice, other_slice(&pods[3])],
        &node.facts(),
        net.family,
    );
    net.nft
        .apply(netns, &after.change(&before).unwrap())
        .await
        .unwrap();
    let mut said = String::new();
    kept.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("b "), "{said}");
    assert_eq!(answers(&pods[0].netns, net.at([10, 96, 7, 2], 80)).0, "d");
    fails(&pods[0].netns, to, ErrorKind::ConnectionRefused);

    net.nft.apply(netns, &after.rewrite(&before)).await.unwrap();
    assert_eq!(answers(&pods[0].netns, to).0, "b");

    // Said again by one who knows nothing of it, the kernel's table is the same.
    let list = async || {
        let table = net
            .nft
            .run(
                netns,
                &["-s", "list", "table", net.word(), "kube-proxy"],
                "",
            )
            .await;
        let mut lines = BTreeMap::<String, usize>::new();
        for line in table.unwrap().lines() {
            *lines.entry(line.trim().to_owned()).or_default() += 1;
        }
        lines
    };
    let (one, rest) = (list().await, after.replace());
    net.nft.apply(netns, &rest).await.unwrap();
    assert_eq!(one, list().await);
}

async fn more_than_the_kernel_takes_at_once(net: &Net, pods: &[Pod]) {
    let node = &net.nodes[pods[0].node];
    let netns = &node.link.netns;
    let facts = node.facts();
    // Every Service has the same endpoints, and a number of its own; what else it has depends on the round.
    let table = |many: u8, spec: serde_json::Value| {
        let all = (0..many).flat_map(|high| (1..=200).map(move |low| (high, low)));
        let (services, slices): (Vec<_>, Vec<_>) = all
            .map(|(high, low)| {
                let name = format!("many-{high}-{low}");
                let service =
                    net.service(&name, &format!("10.96.{}.{low}", 20 + high), spec.clone());
                let slice = net.slice(&name, "TCP", &[&pods[1], &pods[2]]);
                (Arc::new(service), Arc::new(slice))
            })
            .unzip();
        rules(&services, &slices, &facts, net.family)
    };
    let apply = async |steps: Vec<String>| {
        assert!(steps.len() > 1);
        for step in steps {
            net.nft.apply(netns, &step).await.unwrap();
        }
    };
    let (first, last) = (net.at([10, 96, 20, 1], 80), net.at([10, 96, 21, 200], 80));
    let both = names(&["b", "c"]);

    let plain = table(2, json!({}));
    apply(plain.steps(None, true)).await;
    assert_eq!(everybody(&pods[0].netns, first), both);
    assert_eq!(everybody(&pods[0].netns, last), both);

    let sticky = |seconds: u32| {
        let config = json!({ "clientIP": { "timeoutSeconds": seconds } });
        json!({ "spec": { "sessionAffinity": "ClientIP", "sessionAffinityConfig": config } })
    };
    let before = table(2, sticky(3600));
    apply(before.steps(Some(&plain), false)).await;
    assert_eq!(everybody(&pods[0].netns, last).len(), 1);
    let shorter = table(2, sticky(1800));
    apply(shorter.steps(Some(&before), false)).await;
    let chosen = everybody(&pods[0].netns, last);
    assert_eq!(chosen.len(), 1);
    // All of it again, over what somebody has taken out: clients stay with their endpoints.
    let flush = ["flush", "chain", net.word(), TABLE, "services"];
    net.nft.run(netns, &flush, "").await.unwrap();
    apply(shorter.steps(Some(&shorter), true)).await;
    assert_eq!(everybody(&pods[0].netns, last), chosen);

    let fewer = table(1, json!({}));
    apply(fewer.steps(Some(&shorter), false)).await;
    assert_eq!(everybody(&pods[0].netns, first), both);
    is_silent(&pods[0].netns, last);
    let left = net
        .nft
        .run(netns, &["list", "table", net.word(), TABLE], "")
        .await
        .unwrap();
    assert!(!left.contains("many-1-") && !left.contains("affinity-"));
}
