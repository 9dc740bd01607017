//! Three nodes, pods on them that say who they are, and ways to ask.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
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
use strata_lab::topology::{
    CONTROL_PLANE, IpFamilies, IpFamily, node_cidr_mask_size, nth, pod_cidr, underlay_cidr,
};

/// How long a connection may take before it counts as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing must come where nothing may; longer than the first packet sent again.
pub(super) const SILENCE: Duration = Duration::from_millis(1500);

/// What every network here has, whichever of them is looked at.
pub(super) const FAMILIES: IpFamilies = IpFamilies::Dual;

pub(super) struct Node {
    pub(super) link: NodeLink,
    /// Its address of the family that is looked at.
    pub(super) ip: IpAddr,
    pub(super) pod_cidrs: Vec<IpNet>,
    pub(super) pods: NodePods,
    _sandbox: Sandbox,
}

impl Node {
    pub(super) fn members(&self) -> Vec<Member> {
        let both = self.link.ips.iter().zip(&self.pod_cidrs);
        let member = |(ip, pod_cidr): (&IpAddr, &IpNet)| Member {
            ip: *ip,
            pod_cidr: *pod_cidr,
        };
        both.map(member).collect()
    }

    pub(super) fn facts(&self) -> NodeFacts {
        NodeFacts {
            name: self.link.name.clone(),
            ips: self.link.ips.clone(),
            zone: None,
        }
    }
}

pub(super) struct Pod {
    pub(super) netns: NetNs,
    /// Its address of the family that is looked at.
    pub(super) ip: IpAddr,
    pub(super) node: usize,
    pub(super) id: &'static str,
    _sandbox: Sandbox,
}

pub(super) struct Net {
    pub(super) cni: Cni,
    /// The family that is looked at.
    pub(super) family: IpFamily,
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
    /// Where to go; an address of IPv4 is its [counterpart](Self::like).
    pub(super) fn at(&self, ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
        SocketAddr::new(self.like(ip), port)
    }

    /// The counterpart of an address in the family that is looked at: cases are written in IPv4.
    pub(super) fn like(&self, ip: impl Into<IpAddr>) -> IpAddr {
        let ip = ip.into();
        let IpAddr::V4(v4) = ip else { return ip };
        if self.family == IpFamily::V4 {
            return ip;
        }
        let [_, _, c, d] = v4.octets().map(u16::from);
        let v6 = match v4.octets() {
            [0, 0, 0, 0] => Ipv6Addr::UNSPECIFIED,
            [127, ..] => Ipv6Addr::LOCALHOST,
            [10, 244, ..] => Ipv6Addr::new(0xfd00, 0x10, 0x244, c, 0, 0, 0, d),
            [10, 96, ..] => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, c << 8 | d),
            [172, 30, ..] => Ipv6Addr::new(0xfd00, 0x172, 0x30, c, 0, 0, 0, d),
            [192, 0, 2, _] => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, d),
            _ => panic!("{ip} has no counterpart"),
        };
        IpAddr::V6(v6)
    }

    /// An object with the counterparts of all addresses and networks in it.
    pub(super) fn alike(&self, mut value: Value) -> Value {
        match &mut value {
            Value::String(text) => {
                if let Ok(ip) = text.parse::<IpAddr>() {
                    *text = self.like(ip).to_string();
                } else if let Ok(network) = text.parse::<IpNet>() {
                    *text = self.like_network(network).to_string();
                }
            }
            Value::Array(items) => {
                for item in items {
                    *item = self.alike(item.take());
                }
            }
            Value::Object(fields) => {
                for field in fields.values_mut() {
                    *field = self.alike(field.take());
                }
            }
            _ => {}
        }
        value
    }

    fn like_network(&self, network: IpNet) -> IpNet {
        if self.family == IpFamily::V4 || network.addr().is_ipv6() {
            return network;
        }
        if network == pod_cidr(IpFamily::V4) {
            return pod_cidr(self.family);
        }
        // What is behind the prefix is the last octets, which are the last of the counterpart, too.
        let length = 128 - (32 - network.prefix_len());
        IpNet::new(self.like(network.addr()), length).unwrap()
    }

    /// The family as nftables has it.
    pub(super) fn word(&self) -> &'static str {
        match self.family {
            IpFamily::V4 => "ip",
            IpFamily::V6 => "ip6",
        }
    }

    pub(super) fn service(&self, name: &str, ip: &str, spec: Value) -> Service {
        let mut merged = json!({
            "type": "ClusterIP",
            "clusterIP": ip,
            "ports": [{ "port": 80, "targetPort": 8080, "protocol": "TCP" }],
        });
        if let Some(spec) = spec.get("spec") {
            json_patch::merge(&mut merged, spec);
        }
        object(self.alike(json!({
            "metadata": { "namespace": "default", "name": name },
            "spec": merged,
            "status": spec["status"],
        })))
    }

    pub(super) fn public(&self, name: &str, ip: &str, more: Value) -> Service {
        let mut spec = json!({
            "spec": {
                "type": "LoadBalancer",
                "ports": [{ "port": 80, "nodePort": 30080, "protocol": "TCP" }],
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "172.30.1.7" }] } },
        });
        json_patch::merge(&mut spec, &more);
        self.service(name, ip, spec)
    }
}

impl Net {
    pub(super) async fn new(cni: Cni, family: IpFamily) -> Self {
        let own = sandbox("outside").await;
        let outside = own.netns();
        let nft = Nft::new("/usr/sbin/nft");
        let mut nodes = Vec::new();
        for (number, name) in [CONTROL_PLANE, "strata-worker", "strata-worker2"]
            .iter()
            .enumerate()
        {
            let sandbox = sandbox(name).await;
            let offset = u32::try_from(number).unwrap() + 2;
            let ip = |family: &IpFamily| nth(underlay_cidr(*family), offset);
            let part = |family: &IpFamily| {
                let length = node_cidr_mask_size(*family);
                pod_cidr(*family)
                    .subnets(length)
                    .unwrap()
                    .nth(number)
                    .unwrap()
            };
            let link = NodeLink {
                name: (*name).to_owned(),
                ips: FAMILIES.each().iter().map(ip).collect(),
                netns: sandbox.netns(),
            };
            let pod_cidrs: Vec<_> = FAMILIES.each().iter().map(part).collect();
            let pods = NodePods::new(cni, sandbox.netns(), nft.clone(), pod_cidrs.clone());
            nodes.push(Node {
                ip: ip(&family),
                link,
                pod_cidrs,
                pods,
                _sandbox: sandbox,
            });
        }
        let links: Vec<_> = nodes.iter().map(|node| node.link.clone()).collect();
        underlay::join(&outside, &links, FAMILIES).await.unwrap();
        let net = Self {
            cni,
            family,
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
            for own in node.members() {
                let others = members.iter().filter(|other| **other != number);
                let others = others.flat_map(|other| self.nodes[*other].members());
                let of_family = others.filter(|other| other.ip.is_ipv4() == own.ip.is_ipv4());
                let others: Vec<_> = of_family.collect();
                let ways = Ways::new(self.cni, node.link.netns.clone(), own).unwrap();
                ways.apply(&self.nft, &others).await.unwrap();
            }
        }
    }

    pub(super) async fn pod(&self, node: usize, id: &'static str) -> Pod {
        self.pod_at(node, id, &[]).await
    }

    /// A pod that these ports of its node lead to.
    pub(super) async fn pod_at(&self, node: usize, id: &'static str, ports: &[HostPort]) -> Pod {
        let sandbox = sandbox(id).await;
        let netns = sandbox.netns();
        let attached = self.nodes[node].pods.attach(&netns, id, ports).await;
        let mut ips = attached.unwrap().into_iter();
        let ip = ips.find(|ip| IpFamily::of(*ip) == self.family).unwrap();
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
            let table = rules(&services, &slices, &node.facts(), self.family);
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
            "addressType": self.family.name(),
            "ports": [{ "port": 8080, "protocol": protocol }],
            "endpoints": endpoints,
        }))
    }
}

pub(super) fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Says on port 8080 who it is and whom it sees, over TCP and UDP; on 9000, how much it was sent.
pub(super) fn serve(netns: &NetNs, name: &'static str) {
    let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = netns.run(|| TcpListener::bind(any(8080))).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let from = stream.peer_addr().unwrap().ip().to_canonical();
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
            let _ = socket.send_to(
                format!("{name} {} {length}", from.ip().to_canonical()).as_bytes(),
                from,
            );
        }
    });
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

/// Why there is no connection, where there must be none.
#[track_caller]
pub(super) fn refusal(netns: &NetNs, to: SocketAddr) -> io::Error {
    try_connecting(netns, to).unwrap_err()
}

/// Whether there is a connection, where there may be none.
pub(super) fn connects(netns: &NetNs, to: SocketAddr) -> bool {
    try_connecting(netns, to).is_ok()
}

fn try_connecting(netns: &NetNs, to: SocketAddr) -> io::Result<()> {
    netns.run(|| TcpStream::connect_timeout(&to, SILENCE).map(drop))
}

#[track_caller]
pub(super) fn is_silent(netns: &NetNs, to: SocketAddr) {
    all_silent(&[(netns, to)]);
}

/// That none of these is answered; all are asked at once, since it takes a while.
#[track_caller]
pub(super) fn all_silent(ways: &[(&NetNs, SocketAddr)]) {
    let tried = at_once(ways, |(netns, to)| try_connecting(netns, *to));
    for ((_, to), tried) in ways.iter().zip(tried) {
        match tried {
            Ok(()) => panic!("{to} is connected to"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut, "{to}: {error}"),
        }
    }
}

/// What comes of each, all of them at once.
pub(super) fn at_once<T: Sync, R: Send>(all: &[T], ask: impl Fn(&T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = all.iter().map(|one| scope.spawn(|| ask(one))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// Who answers, over so many connections that chance leaves nobody out: of three endpoints, one
/// would be missed once in 6.8 million times.
pub(super) fn everybody(netns: &NetNs, to: SocketAddr) -> BTreeSet<String> {
    (0..40).map(|_| answers(netns, to).0).collect()
}

pub(super) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
