//! The components that run on nodes, against an API server in this process.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Node, Pod as PodObject, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::RouteType;
use serde_json::{Value, json};
use strata_lab::api::pki::ClusterPki;
use strata_lab::api::webhook::Webhooks;
use strata_lab::api::{ApiConfig, ApiServer};
use strata_lab::builtin::{BuiltinContext, Builtins, Installed};
use strata_lab::net;
use strata_lab::net::balancer;
use strata_lab::node::images::Store;
use strata_lab::node::{HostPids, Nodes, NodesConfig};
use strata_lab::os::netns::NetNs;
use strata_lab::topology::{OUTSIDE_IP, service_cidr};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    FAMILIES, Net, PATIENCE, Pod, answers, ask, connect, everybody, names, object,
};

/// Before a test that waits for something is given up.
const GIVEN_UP: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The agents of every node, and what they say.
struct Agents {
    client: Client,
    said: mpsc::UnboundedReceiver<String>,
    _tasks: JoinSet<anyhow::Result<()>>,
    _directory: tempfile::TempDir,
}

impl Agents {
    fn start(net: &Net) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let builtins = net::builtins(Builtins::default());
        let nodes = Nodes::new(NodesConfig {
            builtins: builtins.clone(),
            images: Arc::new(Store::new(directory.path(), None).unwrap()),
            root: directory.path().to_owned(),
            webhooks: Webhooks::default(),
            nft: net.nft.clone(),
            host_pids: HostPids::default(),
        });
        let api = ApiServer::new(ApiConfig {
            kubelet: nodes,
            webhooks: Webhooks::default(),
            pki: Arc::new(ClusterPki::new(&[]).unwrap()),
            network: net.outside.clone(),
            service_cidrs: FAMILIES.each().iter().copied().map(service_cidr).collect(),
            watch_lag: Duration::ZERO,
        })
        .unwrap();
        let client = api.client("system:admin");
        let (says, said) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for node in &net.nodes {
            for name in ["vxlan-cni", "kube-proxy"] {
                let agent = builtins
                    .of_image(&format!("lab.strata.dev/{name}:v1"))
                    .unwrap();
                let says = says.clone();
                tasks.spawn(agent(BuiltinContext {
                    client: client.clone(),
                    pod: PodObject::default(),
                    container: Container::default(),
                    node: node.link.name.clone(),
                    netns: node.link.netns.clone(),
                    webhooks: Webhooks::default(),
                    nft: net.nft.clone(),
                    plugin: Installed::default(),
                    cancel: CancellationToken::new(),
                    log: Arc::new(move |line: &str| {
                        let _ = says.send(line.to_owned());
                    }),
                }));
            }
        }
        let links = net.nodes.iter().map(|node| node.link.clone()).collect();
        let (outside, cancel) = (net.outside.clone(), CancellationToken::new());
        let (nft, admin) = (net.nft.clone(), client.clone());
        tasks.spawn(balancer::balance(
            outside, nft, links, FAMILIES, admin, cancel,
        ));
        Self {
            client,
            said,
            _tasks: tasks,
            _directory: directory,
        }
    }

    /// Waits until something holds: looks whenever an agent has said that it did something, and now
    /// and then for what none of them says.
    async fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let waiting = async {
            while !holds() {
                let said = tokio::time::timeout(LOOK_AGAIN, self.said.recv()).await;
                if let Ok(Some(line)) = said {
                    assert!(!line.starts_with("error"), "{line}");
                }
            }
        };
        let waited = tokio::time::timeout(GIVEN_UP, waiting).await;
        assert!(
            waited.is_ok(),
            "waited for {GIVEN_UP:?}, and yet not: {what}"
        );
    }

    async fn node(&self, net: &Net, number: usize) {
        let link = &net.nodes[number].link;
        let pod_cidrs = &net.nodes[number].pod_cidrs;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = object(json!({
            "metadata": { "name": link.name },
            "spec": { "podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs },
        }));
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let addresses = link
            .ips
            .iter()
            .map(|ip| json!({ "type": "InternalIP", "address": ip }));
        let addresses: Vec<_> = addresses.collect();
        let status = json!({ "status": { "addresses": addresses } });
        let merge = Patch::Merge(status);
        nodes
            .patch_status(&link.name, &PatchParams::default(), &merge)
            .await
            .unwrap();
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn service(&self, service: &Service) {
        let created = self
            .services()
            .create(&PostParams::default(), service)
            .await;
        created.unwrap();
        if let Some(status) = &service.status {
            let merge = Patch::Merge(json!({ "status": status }));
            let name = service.metadata.name.as_deref().unwrap();
            let params = PatchParams::default();
            self.services()
                .patch_status(name, &params, &merge)
                .await
                .unwrap();
        }
    }

    async fn slice(&self, slice: &EndpointSlice) {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "default");
        let params = PatchParams::apply("test").force();
        let name = slice.metadata.name.as_deref().unwrap();
        let mut slice: Value = serde_json::to_value(slice).unwrap();
        slice["apiVersion"] = json!("discovery.k8s.io/v1");
        slice["kind"] = json!("EndpointSlice");
        slices
            .patch(name, &params, &Patch::Apply(slice))
            .await
            .unwrap();
    }
}

pub(super) async fn cases(net: &Net, pods: &[Pod]) {
    let mut agents = Agents::start(net);
    overlay(net, pods, &mut agents).await;
    services(net, pods, &mut agents).await;
    deleted_rules(net, pods, &mut agents).await;
    flows(net, pods, &mut agents).await;
    connections_keep_their_node(net, pods, &mut agents).await;
    load_balancer(net, pods, &mut agents).await;
}

async fn overlay(net: &Net, pods: &[Pod], agents: &mut Agents) {
    let (b, d) = (&pods[1], &pods[3]);
    agents.node(net, 0).await;
    agents.node(net, 1).await;
    let gone = || ask(&b.netns, net.at(d.ip, 8080)).is_err();
    agents
        .until("the node that is not there has no route", gone)
        .await;
    agents.node(net, 2).await;
    let reached = || ask(&b.netns, net.at(d.ip, 8080)).is_ok();
    agents.until("the node that came is reached", reached).await;
    let nodes: Api<Node> = Api::all(agents.client.clone());
    let name = &net.nodes[2].link.name;
    nodes
        .delete(name, &kube::api::DeleteParams::default())
        .await
        .unwrap();
    agents.until("the node that went has no route", gone).await;
    agents.node(net, 2).await;
    agents
        .until("the node that came back is reached", reached)
        .await;
}

async fn services(net: &Net, pods: &[Pod], agents: &mut Agents) {
    let (a, b, d) = (&pods[0], &pods[1], &pods[3]);
    let to = net.at([10, 96, 7, 1], 80);
    agents
        .service(&net.service("web", "10.96.7.1", json!({})))
        .await;
    let refused = || {
        let error = ask(&a.netns, to).map(drop).unwrap_err();
        error.kind() == ErrorKind::ConnectionRefused
    };
    agents.until("nobody behind web", refused).await;
    agents.slice(&net.slice("web", "TCP", &[b])).await;
    agents
        .until("b behind web", || ask(&a.netns, to).is_ok())
        .await;
    assert_eq!(everybody(&a.netns, to), names(&["b"]));
    agents.slice(&net.slice("web", "TCP", &[d])).await;
    let answers_d = || ask(&a.netns, to).is_ok_and(|(name, _)| name == "d");
    agents.until("d behind web", answers_d).await;
    agents.slice(&net.slice("web", "TCP", &[])).await;
    agents
        .until("nobody behind web any more", || ask(&a.netns, to).is_err())
        .await;
    agents.slice(&net.slice("web", "TCP", &[d])).await;
    agents.until("d behind web again", answers_d).await;
}

/// What somebody deletes on purpose stays deleted while other Services come and go.
async fn deleted_rules(net: &Net, pods: &[Pod], agents: &mut Agents) {
    let (a, netns) = (&pods[0], &net.nodes[0].link.netns);
    let (web, other) = (net.at([10, 96, 7, 1], 80), net.at([10, 96, 7, 2], 80));
    let table = net
        .nft
        .run(netns, &["list", "table", net.word(), "kube-proxy"], "")
        .await
        .unwrap();
    let chains = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("chain "));
    let chain = chains
        .filter_map(|line| line.split(' ').next())
        .find(|chain| chain.starts_with("endpoint-") && chain.contains("default/web/tcp"))
        .unwrap();
    net.nft
        .run(
            netns,
            &["flush", "chain", net.word(), "kube-proxy", chain],
            "",
        )
        .await
        .unwrap();
    assert_eq!(
        ask(&a.netns, web).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    agents
        .service(&net.service("other", "10.96.7.2", json!({})))
        .await;
    agents.slice(&net.slice("other", "TCP", &[&pods[1]])).await;
    agents
        .until("b behind other", || ask(&a.netns, other).is_ok())
        .await;
    assert_eq!(
        ask(&a.netns, web).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    // Its own change writes it again.
    agents.slice(&net.slice("web", "TCP", &[&pods[1]])).await;
    agents
        .until("b behind web", || ask(&a.netns, web).is_ok())
        .await;
}

/// A client that keeps its socket follows its Service to another endpoint.
async fn flows(net: &Net, pods: &[Pod], agents: &mut Agents) {
    let (a, b, d) = (&pods[0], &pods[1], &pods[3]);
    let udp = json!({ "spec": { "ports": [{ "port": 53, "protocol": "UDP" }] } });
    agents.service(&net.service("dns", "10.96.0.77", udp)).await;
    agents.slice(&net.slice("dns", "UDP", &[b])).await;
    let socket = a
        .netns
        .run(|| UdpSocket::bind(net.at(Ipv4Addr::UNSPECIFIED, 0)))
        .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(net.at([10, 96, 0, 77], 53)).unwrap();
    let who = || {
        let mut buffer = [0; 100];
        socket.send(b"who").ok()?;
        let length = socket.recv(&mut buffer).ok()?;
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        Some(said.split(' ').next().unwrap().to_owned())
    };
    agents
        .until("b behind dns", || who().as_deref() == Some("b"))
        .await;
    agents.slice(&net.slice("dns", "UDP", &[d])).await;
    agents
        .until("the same socket is answered by d", || {
            who().as_deref() == Some("d")
        })
        .await;
}

/// With `externalTrafficPolicy: Local`, nodes say whether they have an endpoint, and the load
/// balancer sends to those that have.
async fn load_balancer(net: &Net, pods: &[Pod], agents: &mut Agents) {
    let local = json!({ "spec": {
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31999,
    } });
    let (params, local) = (PatchParams::default(), Patch::Merge(local));
    let patched = agents.services().patch("front", &params, &local).await;
    patched.unwrap();
    agents.slice(&net.slice("front", "TCP", &[&pods[1]])).await;
    let health = |netns: &NetNs, ip: IpAddr| {
        let mut stream = connect(netns, net.at(ip, 31999)).ok()?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        Some(said.split(' ').nth(1)?.to_owned())
    };
    for (number, status) in [(0, "503"), (1, "200"), (2, "503")] {
        let ip = net.nodes[number].ip;
        let what = format!("node {number} says {status}");
        let says = || health(&net.outside, ip).as_deref() == Some(status);
        agents.until(&what, says).await;
    }
    let address = net.at([172, 30, 1, 7], 80);
    let only = |pod: &'static str| {
        let outside = &net.outside;
        let answered = move |_: i32| ask(outside, address).is_ok_and(|(name, _)| name == pod);
        move || (0..20).all(answered)
    };
    agents.until("every connection reaches b", only("b")).await;
    assert_eq!(answers(&net.outside, address).1, net.like(OUTSIDE_IP));
    // When the endpoint moves, so does the load balancer's traffic.
    agents.slice(&net.slice("front", "TCP", &[&pods[3]])).await;
    agents.until("every connection reaches d", only("d")).await;
}

/// A connection that goes to any node goes on by the one that it began with, also when the outside looks its route up
/// anew, as the kernel does after a retransmission or when any route changes.
async fn connections_keep_their_node(net: &Net, pods: &[Pod], agents: &mut Agents) {
    let front = net.public("front", "10.96.7.3", json!({}));
    agents.service(&front).await;
    let mut slice = net.slice("front", "TCP", &[&pods[1]]);
    slice.ports.as_mut().unwrap()[0].port = Some(9000);
    agents.slice(&slice).await;
    let address = net.at([172, 30, 1, 7], 80);
    let counted = |mut stream: TcpStream| {
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    let counts = || {
        let stream = connect(&net.outside, address);
        stream
            .and_then(counted)
            .is_ok_and(|text| text.starts_with('0'))
    };
    agents.until("what counts is behind front", counts).await;
    // Of 16 that are drawn anew, all would stay by chance once in 65,536 times.
    let open = (0..16).map(|_| connect(&net.outside, address).unwrap());
    let mut open: Vec<_> = open.collect();
    for stream in &mut open {
        stream.write_all(b"before").unwrap();
    }
    let routes = net.outside.netlink().unwrap().route();
    let unrelated = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::new(198, 51, 100, 0), 24)
        .kind(RouteType::BlackHole);
    routes.add(unrelated.build()).execute().await.unwrap();
    for mut stream in open {
        stream.write_all(b" and after").unwrap();
        assert_eq!(counted(stream).unwrap().trim(), "16");
    }
}
