//! Three nodes, pods on them that say who they are, and ways to ask.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use strata_lab::net::agent::{Member, Ways};
use strata_lab::net::cni::{Cni, HostPort, NodePods, PodNetwork};
use strata_lab::net::proxy::{NodeFacts, Ruleset, rules};
use strata_lab::net::underlay::{self, NodeLink};
use strata_lab::node::sandbox::{Sandbox, SandboxConfig, SandboxNetwork};
use strata_lab::os::netns::NetNs;
use strata_lab::os::nft::Nft;
use strata_lab::topology::CONTROL_PLANE;

/// How long a connection may take before it counts as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing must come where nothing may; longer than the first packet sent again.
pub(super) const SILENCE: Duration = Duration::from_millis(1500);

pub(super) struct Node {
    pub(super) link: NodeLink,
    pub(super) pods: NodePods,
    _sandbox: Sandbox,
}

impl Node {
    pub(super) fn member(&self) -> Member {
        Member {
            ip: self.link.ip,
            pod_cidr: self.link.pod_cidr,
        }
    }

    pub(super) fn facts(&self) -> NodeFacts {
        NodeFacts {
            name: self.link.name.clone(),
            ips: vec![self.link.ip],
            zone: None,
        }
    }
}

pub(super) struct Pod {
    pub(super) netns: NetNs,
    pub(super) ip: Ipv4Addr,
    pub(super) node: usize,
    pub(super) id: &'static str,
    _sandbox: Sandbox,
}

pub(super) struct Net {
    pub(super) cni: Cni,
    pub(super) outside: NetNs,
    pub(super) nodes: Vec<Node>,
    pub(super) nft: Nft,
    _sandbox: Sandbox,
}

pub(super) async fn sandbox(hostname: &str) -> Sandbox {
    let config = SandboxConfig {
        hostname: hostname.to_owned(),
        netns: SandboxNetwork::New,
    };
    Sandbox::create(config).await.unwrap()
}

impl Net {
    pub(super) async fn new(cni: Cni) -> Self {
        let own = sandbox("outside").await;
        let outside = own.netns();
        let nft = Nft::new("/usr/sbin/nft");
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
            let pods = NodePods::new(cni, sandbox.netns(), nft.clone(), link.pod_cidr);
            nodes.push(Node {
                link,
                pods,
                _sandbox: sandbox,
            });
        }
        let links: Vec<_> = nodes.iter().map(|node| node.link.clone()).collect();
        underlay::join(&outside, &links).await.unwrap();
        let net = Self {
            cni,
            outside,
            nodes,
            nft,
            _sandbox: own,
        };
        net.connect(&[0, 1, 2]).await;
        net
    }

    /// Tells each of these nodes of each other.
    pub(super) async fn connect(&self, members: &[usize]) {
        for &number in members {
            let node = &self.nodes[number];
            let others: Vec<_> = members
                .iter()
                .filter(|other| **other != number)
                .map(|other| self.nodes[*other].member())
                .collect();
            let ways = Ways::new(self.cni, node.link.netns.clone(), node.member()).unwrap();
            ways.apply(&self.nft, &others).await.unwrap();
        }
    }

    pub(super) async fn pod(&self, node: usize, id: &'static str) -> Pod {
        self.pod_at(node, id, &[]).await
    }

    /// A pod that these ports of its node lead to.
    pub(super) async fn pod_at(&self, node: usize, id: &'static str, ports: &[HostPort]) -> Pod {
        let sandbox = sandbox(id).await;
        let netns = sandbox.netns();
        let ip = self.nodes[node]
            .pods
            .attach(&netns, id, ports)
            .await
            .unwrap();
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
    pub(super) async fn services(
        &self,
        services: &[Service],
        slices: &[EndpointSlice],
    ) -> Vec<Ruleset> {
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

    pub(super) fn slice(&self, service: &str, protocol: &str, pods: &[&Pod]) -> EndpointSlice {
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

pub(super) fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(super) fn service(name: &str, ip: &str, spec: Value) -> Service {
    let mut merged = json!({
        "type": "ClusterIP",
        "clusterIP": ip,
        "ports": [{ "port": 80, "targetPort": 8080, "protocol": "TCP" }],
    });
    if let Some(spec) = spec.get("spec") {
        json_patch::merge(&mut merged, spec);
    }
    object(json!({
        "metadata": { "namespace": "default", "name": name },
        "spec": merged,
        "status": spec["status"],
    }))
}

/// Says on port 8080 who it is and whom it sees, over TCP and UDP; on 9000, how much it was sent.
pub(super) fn serve(netns: &NetNs, name: &'static str) {
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

pub(super) fn at(ip: impl Into<Ipv4Addr>, port: u16) -> SocketAddr {
    SocketAddrV4::new(ip.into(), port).into()
}

pub(super) fn connect(netns: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    netns.run(|| {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// Who answers, and whom it saw.
pub(super) fn ask(netns: &NetNs, to: SocketAddr) -> io::Result<(String, IpAddr)> {
    let mut text = String::new();
    connect(netns, to)?.read_to_string(&mut text)?;
    let (name, from) = text
        .split_once(' ')
        .unwrap_or_else(|| panic!("{text:?} from {to}"));
    Ok((name.to_owned(), from.parse().unwrap()))
}

#[track_caller]
pub(super) fn answers(netns: &NetNs, to: SocketAddr) -> (String, IpAddr) {
    ask(netns, to).unwrap_or_else(|error| panic!("{to}: {error}"))
}

#[track_caller]
pub(super) fn fails(netns: &NetNs, to: SocketAddr, kind: ErrorKind) {
    match ask(netns, to) {
        Ok(answer) => panic!("{to} answered: {answer:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{to}: {error}"),
    }
}

#[track_caller]
pub(super) fn is_silent(netns: &NetNs, to: SocketAddr) {
    let error = netns
        .run(|| TcpStream::connect_timeout(&to, SILENCE))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{to}: {error}");
}

/// Who answers, over so many connections that chance leaves nobody out: of three endpoints, one
/// would be missed once in 6.8 million times.
pub(super) fn everybody(netns: &NetNs, to: SocketAddr) -> BTreeSet<String> {
    (0..40).map(|_| answers(netns, to).0).collect()
}

pub(super) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

pub(super) fn public(name: &str, ip: &str, more: Value) -> Service {
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
