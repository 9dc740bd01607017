//! Ports of a node that lead to its pods (`hostPort`): the CNI's chained plugin `portmap`.
//!
//! Start from [`PortMap`]. The table and the chains are called as that plugin's are. A pod that reaches
//! itself so, and a process of the node that says `127.0.0.1`, get the node's address on the way, or
//! no answer would come back through the node. Rule: a node none of whose pods has such a port has no
//! such table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::PodSpec;

use crate::net::conntrack::{self, Front};
use crate::net::link::sysctl;
use crate::net::nftables;
use crate::os::netns::NetNs;
use crate::os::nft::Nft;
use crate::topology::IpFamily;

/// The table's name, in each family.
const TABLE: &str = "cni_hostport";

/// A port of the node that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Only at this address of the node's: `0.0.0.0` and `::` are all of a family. At each of them,
    /// where there is none.
    pub ip: Option<IpAddr>,
    /// The protocol, in small letters.
    pub protocol: String,
    /// The node's port.
    pub port: u16,
    /// The container's.
    pub container_port: u16,
}

impl HostPort {
    /// Those of a pod.
    #[must_use]
    pub fn of(spec: &PodSpec) -> Vec<Self> {
        let containers = spec.containers.iter();
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        ports
            .filter_map(|port| {
                let ip = port.host_ip.as_deref().and_then(|ip| ip.parse().ok());
                let number = |number: i32| u16::try_from(number).ok().filter(|port| *port > 0);
                Some(Self {
                    ip,
                    protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                    port: number(port.host_port?)?,
                    container_port: number(port.container_port)?,
                })
            })
            .collect()
    }

    /// Whether it can lead to an address of this one's family.
    fn is_for(&self, address: IpAddr) -> bool {
        self.ip
            .is_none_or(|ip| IpFamily::of(ip) == IpFamily::of(address))
    }
}

/// A pod's ports, and where they lead.
struct Mapped {
    addresses: Vec<IpAddr>,
    ports: Vec<HostPort>,
}

/// The ports of a node that lead to its pods.
pub(super) struct PortMap {
    node: NetNs,
    nft: Nft,
    /// By the pod's id.
    pods: tokio::sync::Mutex<BTreeMap<String, Mapped>>,
}

impl PortMap {
    /// None yet, of the node with this namespace.
    pub(super) fn new(node: NetNs, nft: Nft) -> Self {
        Self {
            node,
            nft,
            pods: tokio::sync::Mutex::default(),
        }
    }

    /// Leads a node's ports to a pod, which the node reaches through `interface`.
    pub(super) async fn add(
        &self,
        id: &str,
        addresses: &[IpAddr],
        interface: &str,
        ports: &[HostPort],
    ) -> anyhow::Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let local = format!("net/ipv4/conf/{interface}/route_localnet");
        sysctl(&self.node, &[(&local, "1")])?;
        let mut pods = self.pods.lock().await;
        let udp = ports.iter().filter(|port| port.protocol == "udp");
        let udp = udp.flat_map(|port| {
            let meant = addresses.iter().filter(|address| port.is_for(**address));
            meant.map(|address| {
                let front = Front {
                    family: IpFamily::of(*address),
                    address: port.ip.filter(|ip| !ip.is_unspecified()),
                    port: port.port,
                };
                (front, BTreeSet::from([(*address, port.container_port)]))
            })
        });
        let udp = udp.collect();
        let mapped = Mapped {
            addresses: addresses.to_vec(),
            ports: ports.to_vec(),
        };
        pods.insert(id.to_owned(), mapped);
        self.nft.apply(&self.node, &rules(&pods)).await?;
        // What a pod before this one answered goes on to nobody.
        Ok(conntrack::forget_stale(&self.node, udp)?)
    }

    /// Leads them to the pod no more.
    pub(super) async fn remove(&self, id: &str) -> anyhow::Result<()> {
        let mut pods = self.pods.lock().await;
        if pods.remove(id).is_none() {
            return Ok(());
        }
        self.nft.apply(&self.node, &rules(&pods)).await
    }
}

/// The script that makes the tables what they have to be.
fn rules(pods: &BTreeMap<String, Mapped>) -> String {
    let mut script = String::new();
    for family in [IpFamily::V4, IpFamily::V6] {
        let ip = nftables::word(family);
        // Writing to a string cannot fail.
        let _ = write!(
            script,
            "add table {ip} {TABLE}\ndelete table {ip} {TABLE}\n"
        );
        let of_family = pods.iter().flat_map(|(id, Mapped { addresses, ports })| {
            let addresses = addresses.iter().copied();
            let addresses = addresses.filter(move |address| IpFamily::of(*address) == family);
            addresses.map(move |address| (id.as_str(), address, ports.as_slice()))
        });
        let of_family: Vec<_> = of_family.collect();
        if !of_family.is_empty() {
            script.push_str(&table(family, &of_family));
        }
    }
    script
}

/// The table of a family, for these pods: their ids, addresses and ports.
fn table(family: IpFamily, pods: &[(&str, IpAddr, &[HostPort])]) -> String {
    let ip = nftables::word(family);
    // The loopback of IPv6 has no way to a pod: the kernel has no `route_localnet` for it.
    let loopback = match family {
        IpFamily::V4 => ", 127.0.0.0/8",
        IpFamily::V6 => "",
    };
    let (mut at_one, mut at_all, mut masquerading) = (String::new(), String::new(), String::new());
    for (id, address, ports) in pods {
        for port in ports.iter().filter(|port| port.is_for(*address)) {
            let HostPort {
                ip: own,
                protocol,
                port,
                container_port,
            } = port;
            let endpoint = SocketAddr::new(*address, *container_port);
            let to = format!("{protocol} dport {port} dnat to {endpoint} comment \"{id}\"");
            let _ = match own.filter(|own| !own.is_unspecified()) {
                Some(own) => writeln!(at_one, "    {ip} daddr {own} {to}"),
                None => writeln!(at_all, "    {to}"),
            };
        }
        let _ = writeln!(
            masquerading,
            "    {ip} saddr {{ {address}{loopback} }} {ip} daddr {address} masquerade comment \"{id}\""
        );
    }
    format!(
        r#"table {ip} {TABLE} {{
  comment "CNI portmap plugin"
  chain hostip_hostports {{
{at_one}  }}
  chain hostports {{
{at_all}  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    jump hostip_hostports
    fib daddr type local jump hostports
  }}
  chain output {{
    type nat hook output priority -100;
    jump hostip_hostports
    fib daddr type local jump hostports
  }}
  chain masquerading {{
    type nat hook postrouting priority srcnat;
{masquerading}  }}
}}
"#
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_ports_are_read_as_they_are_written() {
        let spec = serde_json::from_value(json!({ "containers": [
            { "name": "one", "ports": [
                { "containerPort": 80, "hostPort": 8080, "protocol": "TCP" },
                { "containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1" },
            ] },
            { "name": "two", "ports": [
                { "containerPort": 81, "protocol": "TCP" },
                { "containerPort": 82, "hostPort": 82, "hostIP": "0.0.0.0" },
            ] },
        ] }));
        let port = |ip: Option<[u8; 4]>, protocol: &str, port, container_port| HostPort {
            ip: ip.map(IpAddr::from),
            protocol: protocol.to_owned(),
            port,
            container_port,
        };
        assert_eq!(
            HostPort::of(&spec.unwrap()),
            [
                port(None, "tcp", 8080, 80),
                port(Some([127, 0, 0, 1]), "udp", 5353, 53),
                port(Some([0, 0, 0, 0]), "tcp", 82, 82),
            ]
        );
    }
}
