//! Why traffic does not pass from one pod to another.
//!
//! Start from [`cause`]. What a pod's own namespace shows (interface, address, route) comes before
//! policies, policies before what can only be told by trying.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use strata_probe::{Interface, Network, Route};

use super::{between, policy};
use crate::layer::labels::Labels;
use crate::layer::tried::Tried;
use crate::layer::workload;
use crate::verdict::cause::{Cause, CauseKind, Object};

/// What was seen of a path.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Seen {
    /// Where the traffic starts; nothing if that is outside the cluster.
    pub(in crate::layer) from: Option<End>,
    /// Where it should arrive.
    pub(in crate::layer) to: End,
    /// Attempts from one end at ports of the other.
    pub(in crate::layer) tried: Vec<(u16, Tried)>,
    /// Other pods that are ready, with their networks.
    pub(in crate::layer) peers: Vec<End>,
    /// Attempts between nodes, by pods other than the two ends.
    pub(in crate::layer) across: Vec<Crossing>,
    /// Attempts from pods other than the source at the destination.
    pub(in crate::layer) others_at_to: Vec<Tried>,
    /// The NetworkPolicies of both ends' namespaces.
    pub(in crate::layer) policies: Vec<NetworkPolicy>,
    /// The labels of namespaces.
    pub(in crate::layer) namespaces: Vec<(String, Labels)>,
    /// The nodes.
    pub(in crate::layer) nodes: Vec<Node>,
    /// DaemonSets' pods on the nodes' own network.
    pub(in crate::layer) agents: Vec<Pod>,
    /// For what is wrong with a pod itself.
    pub(in crate::layer) workload: workload::Seen,
}

/// A pod, and its network as seen from inside.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct End {
    /// The pod.
    pub(in crate::layer) pod: Pod,
    /// Its network, if it could be asked.
    pub(in crate::layer) network: Option<Network>,
}

/// An attempt from one node at a pod of another, or of the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::layer) struct Crossing {
    /// The client's node.
    pub(in crate::layer) from: String,
    /// Whether the client is in the node's own network: its packets bear the node's address, and no pod's.
    pub(in crate::layer) by_node: bool,
    /// The server's node.
    pub(in crate::layer) to: String,
    /// What came of it.
    pub(in crate::layer) tried: Tried,
}

impl End {
    pub(super) fn name(&self) -> String {
        self.pod.name_any()
    }

    pub(super) fn namespace(&self) -> String {
        self.pod.namespace().unwrap_or_default()
    }

    pub(super) fn node(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref()
    }

    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
    }

    pub(super) fn on_host_network(&self) -> bool {
        workload::on_host_network(&self.pod)
    }

    pub(super) fn said(&self) -> String {
        format!("pod {}/{}", self.namespace(), self.name())
    }

    /// The interface of the pod's traffic: the one with its address, else the first that is not
    /// the loopback.
    fn interface(&self) -> Option<&Interface> {
        let network = self.network.as_ref()?;
        let ip = self.ip().map(|ip| ip.to_string());
        let has = |interface: &&Interface| {
            let mut bare = interface.addresses.iter().map(|address| bare(address));
            ip.as_deref().is_some_and(|ip| bare.any(|has| has == ip))
        };
        let mut others = network.interfaces.iter().filter(|i| i.name != "lo");
        network
            .interfaces
            .iter()
            .find(has)
            .or_else(|| others.next())
    }

    fn see(&self, what: &str) -> String {
        format!(
            "kubectl -n {} exec {} -- {what}",
            self.namespace(),
            self.name()
        )
    }
}

fn bare(address: &str) -> &str {
    address
        .split_once('/')
        .map_or(address, |(address, _)| address)
}

/// The cause, if evidence names one.
pub(in crate::layer) fn cause(seen: &Seen) -> Option<Cause> {
    let ends = || seen.from.iter().chain([&seen.to]);
    let own = |end: &End| inside(seen, end);
    ends()
        .find_map(own)
        .or_else(|| ends().find_map(|end| broken(seen, end)))
        .or_else(|| policy::cause(seen))
        .or_else(|| refused(seen))
        .or_else(|| mtu(seen))
        .or_else(|| between::cause(seen))
        .or_else(|| between::alone(seen))
}

/// The pod itself is not ready.
fn broken(seen: &Seen, end: &End) -> Option<Cause> {
    (!workload::ready(&end.pod))
        .then(|| workload::not_ready(&seen.workload, &end.pod))
        .flatten()
}

/// What a pod's own network shows.
fn inside(seen: &Seen, end: &End) -> Option<Cause> {
    let network = end.network.as_ref().filter(|_| !end.on_host_network())?;
    let said = end.said();
    let remedy = "its interfaces, addresses and routes are its CNI's to make";
    let node = end.node().unwrap_or("its node");
    let change =
        format!("delete {said}, so that the CNI on {node} sets its network up anew; {remedy}");
    let see = end.see("/strata-probe routes");
    let interface = end.interface()?;
    if !interface.up {
        return Some(Cause {
            kind: CauseKind::InterfaceDown,
            wrong: format!("interface {} of {said} is down", interface.name),
            change,
            see,
        });
    }
    let ip = end.ip()?;
    let has = network.interfaces.iter().flat_map(|i| &i.addresses);
    if !has.clone().any(|address| bare(address) == ip.to_string()) {
        let has: Vec<_> = has
            .filter(|address| !bare(address).starts_with("127."))
            .cloned()
            .collect();
        let has = if has.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has {}", has.join(", "))
        };
        return Some(Cause {
            kind: CauseKind::AddressMissing,
            wrong: format!("{said} lacks its own address {ip}: {has}"),
            change,
            see,
        });
    }
    let towards = if std::ptr::eq(end, &seen.to) {
        seen.from.as_ref()?.ip()?
    } else {
        seen.to.ip()?
    };
    if towards == ip {
        return None;
    }
    let taken = route(network, towards);
    let peers = peers(seen, end);
    let usual: BTreeSet<_> = peers
        .iter()
        .filter_map(|peer| route(peer.network.as_ref()?, towards))
        .filter(|route| route.gateway.is_some())
        .map(written)
        .collect();
    let usual = (usual.len() == 1).then(|| usual.first().cloned()).flatten();
    match (taken, usual) {
        (None, usual) => {
            let of_family = |route: &&Route| {
                let to = route.destination.parse::<IpNet>();
                to.is_ok_and(|to| to.addr().is_ipv4() == towards.is_ipv4())
            };
            let what = if !network.routes.iter().filter(of_family).any(default) {
                let word = if towards.is_ipv4() { "" } else { " of IPv6" };
                format!("no default route{word}")
            } else {
                format!("no route to {towards}")
            };
            let peers = usual
                .map(|usual| format!("; its peers on {node} have {usual}"))
                .unwrap_or_default();
            Some(Cause {
                kind: CauseKind::RouteMissing,
                wrong: format!("{said} has {what}{peers}"),
                change,
                see,
            })
        }
        (Some(taken), Some(usual)) if written(taken) != usual => Some(Cause {
            kind: CauseKind::RouteDiffers,
            wrong: format!(
                "{said} reaches {towards} by {}; its peers on {node} have {usual}",
                written(taken)
            ),
            change,
            see,
        }),
        _ => None,
    }
}

/// Pods of the same node, other than the end itself.
fn peers<'a>(seen: &'a Seen, end: &End) -> Vec<&'a End> {
    let same =
        |peer: &&End| peer.node() == end.node() && peer.ip() != end.ip() && !peer.on_host_network();
    let ends = seen.from.iter().chain([&seen.to]);
    seen.peers.iter().chain(ends).filter(same).collect()
}

fn default(route: &Route) -> bool {
    matches!(route.destination.as_str(), "0.0.0.0/0" | "::/0")
}

/// The route that the kernel would take: the longest prefix, then the lowest metric.
fn route(network: &Network, to: IpAddr) -> Option<&Route> {
    network
        .routes
        .iter()
        .filter_map(|route| Some((route.destination.parse::<IpNet>().ok()?, route)))
        .filter(|(destination, _)| destination.contains(&to))
        .max_by_key(|(destination, route)| {
            (destination.prefix_len(), std::cmp::Reverse(route.metric))
        })
        .map(|(_, route)| route)
}

/// A route as `ip route` writes it.
fn written(route: &Route) -> String {
    let destination = if default(route) {
        "default"
    } else {
        &route.destination
    };
    let via = route
        .gateway
        .map(|gateway| format!(" via {gateway}"))
        .unwrap_or_default();
    format!("{destination}{via} dev {}", route.interface)
}

/// The port is refused: packets arrive, nobody listens.
fn refused(seen: &Seen) -> Option<Cause> {
    let (port, _) = seen
        .tried
        .iter()
        .find(|(_, tried)| *tried == Tried::Refused)?;
    let declared: Vec<_> = workload_ports(&seen.to.pod)
        .iter()
        .map(ToString::to_string)
        .collect();
    let declared = if declared.is_empty() {
        String::new()
    } else {
        format!("; its containers declare {}", declared.join(", "))
    };
    let said = seen.to.said();
    Some(Cause {
        kind: CauseKind::NothingListens,
        wrong: format!(
            "nothing listens on port {port} of {said}: connections are refused{declared}"
        ),
        change: format!(
            "the port that is asked for, or the one that the container of {said} serves"
        ),
        see: Object::new("Pod", &seen.to.namespace(), &seen.to.name()).see(),
    })
}

fn workload_ports(pod: &Pod) -> Vec<i32> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| port.container_port)
        .collect()
}

/// The MTU differs from what every peer has, while small packets pass.
fn mtu(seen: &Seen) -> Option<Cause> {
    let passes = seen.tried.iter().any(|(_, tried)| *tried == Tried::Answers);
    if !passes {
        return None;
    }
    seen.from.iter().chain([&seen.to]).find_map(|end| {
        let interface = end.interface().filter(|_| !end.on_host_network())?;
        let mtu = interface.mtu?;
        let all: BTreeSet<_> = seen
            .peers
            .iter()
            .filter(|peer| !peer.on_host_network() && peer.ip() != end.ip())
            .filter_map(|peer| peer.interface()?.mtu)
            .collect();
        let usual = (all.len() == 1).then(|| all.first().copied()).flatten()?;
        (usual != mtu).then(|| Cause {
            kind: CauseKind::MtuDiffers,
            wrong: format!(
                "interface {} of {} has MTU {mtu}; its peers have {usual}",
                interface.name,
                end.said()
            ),
            change: format!(
                "the MTU in the CNI's configuration on {}, then delete {}",
                end.node().unwrap_or("its node"),
                end.said()
            ),
            see: end.see("/strata-probe routes"),
        })
    })
}
