//! The data path without an API server: three nodes, pods, and Services as rules, all of it real
//! packets in namespaces of this program's own, as root or as anybody.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use strata_lab::net::cni::RoutedPods;
use strata_lab::net::netns::NetNs;
use strata_lab::net::nft::Nft;
use strata_lab::net::proxy::{NodeFacts, Ruleset, rules};
use strata_lab::net::underlay::{self, NodeLink};
use strata_lab::net::vxlan::{Member, Overlay};
use strata_lab::node::PodNetwork;
use strata_lab::node::sandbox::{Sandbox, SandboxConfig, SandboxNetwork};
use strata_lab::node::stage;
use strata_lab::topology::{CONTROL_PLANE, OUTSIDE_IP};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    stage::run(&arguments[0]);
    if arguments.iter().any(|argument| argument == "--list") {
        println!("network: test");
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--inside") {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(cases());
        println!("test network ... ok");
        return ExitCode::SUCCESS;
    }
    let status = std::process::Command::new("unshare")
        .args([
            "-U",
            "-r",
            "-m",
            "-n",
            "-p",
            "-f",
            "--mount-proc",
            "--kill-child",
        ])
        .arg(std::env::current_exe().unwrap())
        .arg("--inside")
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("not run: unshare: {error}");
            ExitCode::SUCCESS
        }
    }
}

/// How long a connection may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing must come where nothing may; longer than the first packet sent again.
const SILENCE: Duration = Duration::from_millis(1500);

struct Node {
    link: NodeLink,
    pods: RoutedPods,
    _sandbox: Sandbox,
}

impl Node {
    fn member(&self) -> Member {
        Member {
            ip: self.link.ip,
            pod_cidr: self.link.pod_cidr,
        }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            name: self.link.name.clone(),
            ips: vec![self.link.ip],
            zone: None,
        }
    }
}

struct Pod {
    netns: NetNs,
    ip: Ipv4Addr,
    node: usize,
    id: &'static str,
    _sandbox: Sandbox,
}

struct Net {
    outside: NetNs,
    nodes: Vec<Node>,
    nft: Nft,
}

async fn sandbox(hostname: &str) -> Sandbox {
    let config = SandboxConfig {
        hostname: hostname.to_owned(),
        netns: SandboxNetwork::New,
    };
    Sandbox::create(config).await.unwrap()
}

impl Net {
    async fn new() -> Self {
        let outside = NetNs::current().unwrap();
        let mut nodes = Vec::new();
        for (number, name) in [CONTROL_PLANE, "strata-worker", "strata-worker2"]
            .iter()
            .enumerate()
        {
            let sandbox = sandbox(name).await;
            let last = u8::try_from(number).unwrap();
            let link = NodeLink {
                name: (*name).to_owned(),
                ip: Ipv4Addr::new(172, 30, 0, 2 + last),
                netns: sandbox.netns(),
                pod_cidr: format!("10.244.{last}.0/24").parse().unwrap(),
            };
            let pods = RoutedPods::new(sandbox.netns(), link.pod_cidr);
            nodes.push(Node {
                link,
                pods,
                _sandbox: sandbox,
            });
        }
        let links: Vec<_> = nodes.iter().map(|node| node.link.clone()).collect();
        underlay::join(&outside, &links).await.unwrap();
        let net = Self {
            outside,
            nodes,
            nft: Nft::new("/usr/sbin/nft"),
        };
        net.overlay(&[0, 1, 2]).await;
        net
    }

    /// Tells each of these nodes of each other.
    async fn overlay(&self, members: &[usize]) {
        for &number in members {
            let node = &self.nodes[number];
            let others: Vec<_> = members
                .iter()
                .filter(|other| **other != number)
                .map(|other| self.nodes[*other].member())
                .collect();
            let overlay = Overlay::new(node.link.netns.clone(), node.member()).unwrap();
            overlay.apply(&self.nft, &others).await.unwrap();
        }
    }

    async fn pod(&self, node: usize, id: &'static str) -> Pod {
        let sandbox = sandbox(id).await;
        let netns = sandbox.netns();
        let ip = self.nodes[node].pods.attach(&netns, id).await.unwrap();
        serve(&netns, id);
        Pod {
            netns,
            ip,
            node,
            id,
            _sandbox: sandbox,
        }
    }

    /// Puts Services in place on every node.
    async fn services(&self, services: &[Service], slices: &[EndpointSlice]) -> Vec<Ruleset> {
        let services: Vec<_> = services.iter().cloned().map(Arc::new).collect();
        let slices: Vec<_> = slices.iter().cloned().map(Arc::new).collect();
        let mut tables = Vec::new();
        for node in &self.nodes {
            let table = rules(&services, &slices, &node.facts());
            self.nft
                .apply(&node.link.netns, &table.replace())
                .await
                .unwrap();
            tables.push(table);
        }
        tables
    }

    fn slice(&self, service: &str, protocol: &str, pods: &[&Pod]) -> EndpointSlice {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|pod| {
                json!({
                    "addresses": [pod.ip],
                    "nodeName": self.nodes[pod.node].link.name,
                    "conditions": { "ready": true, "serving": true, "terminating": false },
                })
            })
            .collect();
        object(json!({
            "metadata": {
                "namespace": "default",
                "name": format!("{service}-abcde"),
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4",
            "ports": [{ "port": 8080, "protocol": protocol }],
            "endpoints": endpoints,
        }))
    }
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn service(name: &str, ip: &str, spec: Value) -> Service {
    let mut merged = json!({
        "type": "ClusterIP",
        "clusterIP": ip,
        "ports": [{ "port": 80, "targetPort": 8080, "protocol": "TCP" }],
    });
    json_patch::merge(&mut merged, &spec["spec"]);
    object(json!({
        "metadata": { "namespace": "default", "name": name },
        "spec": merged,
        "status": spec["status"],
    }))
}

/// Says on port 8080 who it is and whom it sees, over TCP and UDP; on 9000, how much it was sent.
fn serve(netns: &NetNs, name: &'static str) {
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = netns.run(|| TcpListener::bind(any(8080))).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let from = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{name} {from}");
        }
    });
    let counter = netns.run(|| TcpListener::bind(any(9000))).unwrap();
    std::thread::spawn(move || {
        for stream in counter.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            if stream.read_to_end(&mut bytes).is_ok() {
                let _ = write!(stream, "{}", bytes.len());
            }
        }
    });
    let socket = netns.run(|| UdpSocket::bind(any(8080))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {} {length}", from.ip()).as_bytes(), from);
        }
    });
}

fn at(ip: impl Into<Ipv4Addr>, port: u16) -> SocketAddr {
    SocketAddrV4::new(ip.into(), port).into()
}

fn connect(netns: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    netns.run(|| {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// Who answers, and whom it saw.
fn ask(netns: &NetNs, to: SocketAddr) -> io::Result<(String, IpAddr)> {
    let mut text = String::new();
    connect(netns, to)?.read_to_string(&mut text)?;
    let (name, from) = text
        .split_once(' ')
        .unwrap_or_else(|| panic!("{text:?} from {to}"));
    Ok((name.to_owned(), from.parse().unwrap()))
}

#[track_caller]
fn answers(netns: &NetNs, to: SocketAddr) -> (String, IpAddr) {
    ask(netns, to).unwrap_or_else(|error| panic!("{to}: {error}"))
}

#[track_caller]
fn fails(netns: &NetNs, to: SocketAddr, kind: ErrorKind) {
    match ask(netns, to) {
        Ok(answer) => panic!("{to} answered: {answer:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{to}: {error}"),
    }
}

#[track_caller]
fn is_silent(netns: &NetNs, to: SocketAddr) {
    let error = netns
        .run(|| TcpStream::connect_timeout(&to, SILENCE))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{to}: {error}");
}

async fn cases() {
    let net = Net::new().await;
    let pods = [
        net.pod(0, "a").await,
        net.pod(1, "b").await,
        net.pod(1, "c").await,
        net.pod(2, "d").await,
    ];
    pods_reach_each_other_untranslated(&pods);
    full_sized_datagrams_pass_and_no_larger(&pods);
    bulk_arrives_whole(&pods);
    nodes_and_pods_reach_each_other(&net, &pods);
    outside_sees_nodes_only(&net, &pods);
    addresses_of_the_gone_answer_nobody(&net, &pods).await;
    the_overlay_follows_the_nodes(&net, &pods).await;
    cluster_ips(&net, &pods).await;
    node_ports_and_load_balancers(&net, &pods).await;
    nobody_behind_is_refused_at_once(&net, &pods).await;
    clients_stay_with_their_endpoint(&net, &pods).await;
    endpoints_reach_themselves(&net, &pods).await;
    local_policies(&net, &pods).await;
    source_ranges(&net, &pods).await;
    the_api_server(&net, &pods).await;
    datagrams(&net, &pods).await;
    changes_leave_the_rest_alone(&net, &pods).await;
}

fn pods_reach_each_other_untranslated(pods: &[Pod]) {
    for from in pods {
        for to in pods {
            let (name, seen) = answers(&from.netns, at(to.ip, 8080));
            assert_eq!((name.as_str(), seen), (to.id, IpAddr::V4(from.ip)));
        }
    }
}

fn full_sized_datagrams_pass_and_no_larger(pods: &[Pod]) {
    for to in [&pods[2], &pods[3]] {
        let socket = pods[1]
            .netns
            .run(|| UdpSocket::bind(at(pods[1].ip, 0)))
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let always: libc::c_int = libc::IP_PMTUDISC_DO;
        // SAFETY: the option is an int, and lives through the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                (&raw const always).cast(),
                libc::socklen_t::try_from(size_of_val(&always)).unwrap(),
            )
        };
        assert_eq!(set, 0);
        // 1450 less the headers of IPv4 and UDP.
        socket.send_to(&[1; 1422], at(to.ip, 8080)).unwrap();
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert_eq!(said, format!("{} {} 1422", to.id, pods[1].ip));
        let error = socket.send_to(&[1; 1423], at(to.ip, 8080)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }
}

fn bulk_arrives_whole(pods: &[Pod]) {
    for to in [&pods[2], &pods[3]] {
        let mut stream = connect(&pods[1].netns, at(to.ip, 9000)).unwrap();
        stream.write_all(&vec![7; 1 << 20]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "1048576");
    }
}

fn nodes_and_pods_reach_each_other(net: &Net, pods: &[Pod]) {
    for node in &net.nodes {
        serve(&node.link.netns, "node");
    }
    for (number, node) in net.nodes.iter().enumerate() {
        for pod in pods {
            let (name, _) = answers(&node.link.netns, at(pod.ip, 8080));
            assert_eq!(name, pod.id);
            let (_, seen) = answers(&pod.netns, at(node.link.ip, 8080));
            // To its own node a pod comes as itself, to another as its node.
            let own = net.nodes[pod.node].link.ip;
            let expected = if pod.node == number { pod.ip } else { own };
            assert_eq!(seen, IpAddr::V4(expected));
        }
    }
}

fn outside_sees_nodes_only(net: &Net, pods: &[Pod]) {
    serve(&net.outside, "outside");
    for pod in pods {
        let (_, seen) = answers(&pod.netns, at(OUTSIDE_IP, 8080));
        assert_eq!(seen, IpAddr::V4(net.nodes[pod.node].link.ip));
        fails(
            &net.outside,
            at(pod.ip, 8080),
            ErrorKind::NetworkUnreachable,
        );
    }
    fails(
        &net.outside,
        at([10, 96, 0, 1], 443),
        ErrorKind::NetworkUnreachable,
    );
    // What nobody has is unreachable from inside, too, and at once.
    fails(
        &pods[0].netns,
        at([192, 0, 2, 1], 80),
        ErrorKind::NetworkUnreachable,
    );
}

async fn addresses_of_the_gone_answer_nobody(net: &Net, pods: &[Pod]) {
    let gone = net.pod(1, "gone").await;
    assert_eq!(answers(&pods[3].netns, at(gone.ip, 8080)).0, "gone");
    net.nodes[1].pods.detach("gone").await.unwrap();
    net.nodes[1].pods.detach("gone").await.unwrap();
    let next = net.pod(1, "next").await;
    assert_ne!(next.ip, gone.ip);
    for from in [&pods[1], &pods[3]] {
        fails(&from.netns, at(gone.ip, 8080), ErrorKind::HostUnreachable);
        assert_eq!(answers(&from.netns, at(next.ip, 8080)).0, "next");
    }
    net.nodes[1].pods.detach("next").await.unwrap();
}

async fn the_overlay_follows_the_nodes(net: &Net, pods: &[Pod]) {
    net.overlay(&[0, 1]).await;
    assert!(ask(&pods[1].netns, at(pods[3].ip, 8080)).is_err());
    assert_eq!(answers(&pods[1].netns, at(pods[0].ip, 8080)).0, "a");
    net.overlay(&[0, 1, 2]).await;
    pods_reach_each_other_untranslated(pods);
    // What somebody breaks on a node is put back: the route, then the device itself.
    for broken in [
        &["route", "del", "10.244.2.0/24"][..],
        &["link", "del", "vxlan0"],
    ] {
        let mut command = tokio::process::Command::new("ip");
        command.args(broken);
        net.nodes[1].link.netns.enter(&mut command);
        let Ok(status) = command.status().await else {
            println!("not run: there is no ip program to break things with");
            return;
        };
        assert!(status.success());
        assert!(
            ask(&pods[1].netns, at(pods[3].ip, 8080)).is_err(),
            "{broken:?}"
        );
        net.overlay(&[0, 1, 2]).await;
        pods_reach_each_other_untranslated(pods);
    }
}

/// Who answers, over so many connections that chance leaves nobody out: of three endpoints, one
/// would be missed once in 6.8 million times.
fn everybody(netns: &NetNs, to: SocketAddr) -> BTreeSet<String> {
    (0..40).map(|_| answers(netns, to).0).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

async fn cluster_ips(net: &Net, pods: &[Pod]) {
    let web = service("web", "10.96.7.1", json!({}));
    let behind = [&pods[1], &pods[2], &pods[3]];
    net.services(&[web], &[net.slice("web", "TCP", &behind)])
        .await;
    let to = at([10, 96, 7, 1], 80);
    for node in &net.nodes {
        assert_eq!(everybody(&node.link.netns, to), names(&["b", "c", "d"]));
    }
    for pod in pods {
        assert_eq!(everybody(&pod.netns, to), names(&["b", "c", "d"]));
    }
    // Pods are seen as themselves.
    assert_eq!(answers(&pods[0].netns, to).1, IpAddr::V4(pods[0].ip));
    fails(
        &pods[0].netns,
        at([10, 96, 7, 1], 81),
        ErrorKind::ConnectionRefused,
    );
    fails(
        &net.nodes[1].link.netns,
        at([10, 96, 7, 1], 81),
        ErrorKind::ConnectionRefused,
    );
    is_silent(&pods[0].netns, at([10, 96, 7, 99], 80));
}

fn public(name: &str, ip: &str, more: Value) -> Service {
    let mut spec = json!({
        "spec": {
            "type": "LoadBalancer",
            "ports": [{ "port": 80, "nodePort": 30080, "protocol": "TCP" }],
        },
        "status": { "loadBalancer": { "ingress": [{ "ip": "172.30.1.7" }] } },
    });
    json_patch::merge(&mut spec, &more);
    service(name, ip, spec)
}

async fn node_ports_and_load_balancers(net: &Net, pods: &[Pod]) {
    let web = public("web", "10.96.7.1", json!({}));
    net.services(&[web], &[net.slice("web", "TCP", &[&pods[1], &pods[3]])])
        .await;
    let everywhere: Vec<_> = net.nodes.iter().map(|node| &node.link.netns).collect();
    let inside = everywhere
        .into_iter()
        .chain(pods.iter().map(|pod| &pod.netns));
    let vantages: Vec<_> = [&net.outside].into_iter().chain(inside).collect();
    for from in vantages {
        for node in &net.nodes {
            assert_eq!(everybody(from, at(node.link.ip, 30080)), names(&["b", "d"]));
        }
        assert_eq!(everybody(from, at([172, 30, 1, 7], 80)), names(&["b", "d"]));
    }
    // Not on loopback.
    let loopback = at(Ipv4Addr::LOCALHOST, 30080);
    fails(
        &net.nodes[1].link.netns,
        loopback,
        ErrorKind::ConnectionRefused,
    );
}

async fn nobody_behind_is_refused_at_once(net: &Net, pods: &[Pod]) {
    net.services(&[public("web", "10.96.7.1", json!({}))], &[])
        .await;
    for from in [&pods[0].netns, &net.nodes[1].link.netns] {
        fails(from, at([10, 96, 7, 1], 80), ErrorKind::ConnectionRefused);
    }
    for from in [&pods[0].netns, &net.nodes[1].link.netns, &net.outside] {
        fails(from, at([172, 30, 1, 7], 80), ErrorKind::ConnectionRefused);
        fails(
            from,
            at(net.nodes[2].link.ip, 30080),
            ErrorKind::ConnectionRefused,
        );
    }
}

async fn clients_stay_with_their_endpoint(net: &Net, pods: &[Pod]) {
    let sticky = json!({ "spec": {
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 3600 } },
    } });
    let web = service("web", "10.96.7.1", sticky);
    let slice = net.slice("web", "TCP", &[&pods[1], &pods[2], &pods[3]]);
    let tables = net
        .services(std::slice::from_ref(&web), &[slice.clone()])
        .await;
    let to = at([10, 96, 7, 1], 80);
    let client = &pods[0];
    let chosen = everybody(&client.netns, to);
    assert_eq!(chosen.len(), 1);
    // Another Service's coming and going changes nothing of it, nor does saying all again.
    let other = service("other", "10.96.7.2", json!({}));
    let services = [Arc::new(web), Arc::new(other)];
    let slices = [
        Arc::new(slice),
        Arc::new(net.slice("other", "TCP", &[&pods[1]])),
    ];
    let node = &net.nodes[client.node];
    let both = rules(&services, &slices, &node.facts());
    let netns = &node.link.netns;
    let change = both.change(&tables[client.node]).unwrap();
    net.nft.apply(netns, &change).await.unwrap();
    assert_eq!(everybody(&client.netns, to), chosen);
    assert_eq!(answers(&client.netns, at([10, 96, 7, 2], 80)).0, "b");
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
    let loose = [Arc::new(service("web", "10.96.7.1", json!({})))];
    let loose = rules(&loose, &slices, &node.facts());
    let change = loose.change(&tables[client.node]).unwrap();
    net.nft.apply(netns, &change).await.unwrap();
    assert_eq!(everybody(&client.netns, to), names(&["b", "c", "d"]));
}

async fn endpoints_reach_themselves(net: &Net, pods: &[Pod]) {
    let web = service("web", "10.96.7.1", json!({}));
    net.services(&[web], &[net.slice("web", "TCP", &[&pods[3]])])
        .await;
    let (name, _) = answers(&pods[3].netns, at([10, 96, 7, 1], 80));
    assert_eq!(name, "d");
}

async fn local_policies(net: &Net, pods: &[Pod]) {
    let local = json!({ "spec": { "externalTrafficPolicy": "Local" } });
    let slice = net.slice("web", "TCP", &[&pods[1]]);
    net.services(&[public("web", "10.96.7.1", local)], &[slice.clone()])
        .await;
    let (name, seen) = answers(&net.outside, at(net.nodes[1].link.ip, 30080));
    assert_eq!((name.as_str(), seen), ("b", IpAddr::V4(OUTSIDE_IP)));
    is_silent(&net.outside, at(net.nodes[2].link.ip, 30080));
    // Pods and nodes are subject to no such policy.
    let address = at([172, 30, 1, 7], 80);
    for from in [&pods[3].netns, &net.nodes[2].link.netns] {
        assert_eq!(answers(from, address).0, "b");
    }
    let local = json!({ "spec": { "internalTrafficPolicy": "Local" } });
    net.services(&[service("web", "10.96.7.1", local)], &[slice])
        .await;
    let to = at([10, 96, 7, 1], 80);
    assert_eq!(answers(&pods[2].netns, to).0, "b");
    is_silent(&pods[3].netns, to);
}

async fn source_ranges(net: &Net, pods: &[Pod]) {
    let slice = net.slice("web", "TCP", &[&pods[1]]);
    let address = at([172, 30, 1, 7], 80);
    let only = |range: &str| {
        public(
            "web",
            "10.96.7.1",
            json!({ "spec": { "loadBalancerSourceRanges": [range, "192.0.2.0/24"] } }),
        )
    };
    net.services(&[only("172.30.0.1/32")], &[slice.clone()])
        .await;
    assert_eq!(answers(&net.outside, address).0, "b");
    is_silent(&pods[3].netns, address);
    net.services(&[only("10.244.0.0/16")], &[slice]).await;
    assert_eq!(answers(&pods[3].netns, address).0, "b");
    is_silent(&net.outside, address);
    // Node ports are not load balancers.
    assert_eq!(
        answers(&net.outside, at(net.nodes[0].link.ip, 30080)).0,
        "b"
    );
}

/// `default/kubernetes`, whose endpoint is a node: from pods of every node, from nodes, and from
/// the very node it is on.
async fn the_api_server(net: &Net, pods: &[Pod]) {
    let api = service("kubernetes", "10.96.0.1", json!({}));
    let slice: EndpointSlice = object(json!({
        "metadata": {
            "namespace": "default",
            "name": "kubernetes",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": "IPv4",
        "ports": [{ "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [net.nodes[0].link.ip] }],
    }));
    net.services(&[api], &[slice]).await;
    let nodes = net.nodes.iter().map(|node| &node.link.netns);
    for from in nodes.chain(pods.iter().map(|pod| &pod.netns)) {
        assert_eq!(answers(from, at([10, 96, 0, 1], 80)).0, "node");
    }
}

async fn datagrams(net: &Net, pods: &[Pod]) {
    let udp = json!({ "spec": {
        "type": "NodePort",
        "ports": [{ "port": 53, "nodePort": 30053, "protocol": "UDP" }],
    } });
    let dns = service("dns", "10.96.0.10", udp);
    net.services(&[dns], &[net.slice("dns", "UDP", &[&pods[1], &pods[3]])])
        .await;
    let ask = |netns: &NetNs, to: SocketAddr| {
        let socket = netns
            .run(|| UdpSocket::bind(at(Ipv4Addr::UNSPECIFIED, 0)))
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
        (&pods[0].netns, at([10, 96, 0, 10], 53)),
        (&net.nodes[2].link.netns, at([10, 96, 0, 10], 53)),
        (&net.outside, at(net.nodes[0].link.ip, 30053)),
    ] {
        let who: BTreeSet<_> = (0..40).map(|_| ask(from, to).unwrap()).collect();
        assert_eq!(who, names(&["b", "d"]));
    }
    let dns = service(
        "dns",
        "10.96.0.10",
        json!({ "spec": {
        "ports": [{ "port": 53, "protocol": "UDP" }],
    } }),
    );
    net.services(&[dns], &[]).await;
    let error = ask(&pods[0].netns, at([10, 96, 0, 10], 53)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

async fn changes_leave_the_rest_alone(net: &Net, pods: &[Pod]) {
    let node = &net.nodes[0];
    let netns = &node.link.netns;
    let web = Arc::new(service("web", "10.96.7.1", json!({})));
    let other = Arc::new(service("other", "10.96.7.2", json!({})));
    let web_slice = Arc::new(net.slice("web", "TCP", &[&pods[1]]));
    let other_slice = |pod| Arc::new(net.slice("other", "TCP", &[pod]));
    let services = [web.clone(), other.clone()];
    let before = rules(
        &services,
        &[web_slice.clone(), other_slice(&pods[1])],
        &node.facts(),
    );
    net.nft.apply(netns, &before.replace()).await.unwrap();

    // The chain of one Service is found by its name, and emptied.
    let table = net
        .nft
        .run(netns, &["list", "table", "ip", "kube-proxy"], "")
        .await
        .unwrap();
    let chain = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("chain ")?.split(' ').next())
        .find(|chain| chain.starts_with("service-") && chain.contains("default/web/tcp"))
        .unwrap();
    let flush = ["flush", "chain", "ip", "kube-proxy", chain];
    net.nft.run(netns, &flush, "").await.unwrap();
    let to = at([10, 96, 7, 1], 80);
    fails(&pods[0].netns, to, ErrorKind::ConnectionRefused);

    // An established connection outlives all of it.
    let mut kept = connect(&pods[0].netns, at([10, 96, 7, 2], 80)).unwrap();
    let after = rules(
        &services,
        &[web_slice, other_slice(&pods[3])],
        &node.facts(),
    );
    net.nft
        .apply(netns, &after.change(&before).unwrap())
        .await
        .unwrap();
    let mut said = String::new();
    kept.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("b "), "{said}");
    assert_eq!(answers(&pods[0].netns, at([10, 96, 7, 2], 80)).0, "d");
    fails(&pods[0].netns, to, ErrorKind::ConnectionRefused);

    net.nft.apply(netns, &after.rewrite(&before)).await.unwrap();
    assert_eq!(answers(&pods[0].netns, to).0, "b");

    // Said again by one who knows nothing of it, the kernel's table is the same.
    let list = async || {
        let table = net
            .nft
            .run(netns, &["-s", "list", "table", "ip", "kube-proxy"], "")
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
