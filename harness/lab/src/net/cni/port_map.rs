//! Ports of a node that lead to its pods (`hostPort`): the CNI's chained plugin `portmap`.
//!
//! Start from [`PortMap`]. The table and the chains are called as that plugin's are. A pod that reaches
//! itself so, and a process of the node that says `127.0.0.1`, get the node's address on the way, or
//! no answer would come back through the node. Rule: a node none of whose pods has such a port has no
//! such table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::PodSpec;

use crate::net::conntrack::{self, UdpService};
use crate::net::link::sysctl;
use crate::os::netns::NetNs;
use crate::os::nft::Nft;

/// The table's name, in family `ip`.
const TABLE: &str = "cni_hostport";

/// A port of the node that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Only at this address of the node's; at each of them, where there is none.
    pub ip: Option<Ipv4Addr>,
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
                    ip: ip.filter(|ip| *ip != Ipv4Addr::UNSPECIFIED),
                    protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                    port: number(port.host_port?)?,
                    container_port: number(port.container_port)?,
                })
            })
            .collect()
    }
}

/// A pod's ports, and where they lead.
struct Mapped {
    address: Ipv4Addr,
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
        address: Ipv4Addr,
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
        let udp = udp.map(|port| UdpService {
            front: (port.ip, port.port),
            endpoints: BTreeSet::from([(address, port.container_port)]),
        });
        let (udp, ports) = (udp.collect(), ports.to_vec());
        pods.insert(id.to_owned(), Mapped { address, ports });
        self.nft.apply(&self.node, &rules(&pods)).await?;
        // What a pod before this one answered goes on to nobody.
        Ok(conntrack::forget_stale(&self.node, &udp)?)
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

/// The script that makes the table what it has to be.
fn rules(pods: &BTreeMap<String, Mapped>) -> String {
    let mut script = format!("add table ip {TABLE}\ndelete table ip {TABLE}\n");
    if pods.is_empty() {
        return script;
    }
    let (mut at_one, mut at_all, mut masquerading) = (String::new(), String::new(), String::new());
    for (id, Mapped { address, ports }) in pods {
        for HostPort {
            ip,
            protocol,
            port,
            container_port,
        } in ports
        {
            let to = format!(
                "{protocol} dport {port} dnat to {address}:{container_port} comment \"{id}\""
            );
            // Writing to a string cannot fail.
            let _ = match ip {
                Some(ip) => writeln!(at_one, "    ip daddr {ip} {to}"),
                None => writeln!(at_all, "    {to}"),
            };
        }
        let _ = writeln!(
            masquerading,
            "    ip saddr {{ {address}, 127.0.0.0/8 }} ip daddr {address} masquerade comment \"{id}\""
        );
    }
    let _ = write!(
        script,
        r#"table ip {TABLE} {{
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
    );
    script
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
            ip: ip.map(Ipv4Addr::from),
            protocol: protocol.to_owned(),
            port,
            container_port,
        };
        assert_eq!(
            HostPort::of(&spec.unwrap()),
            [
                port(None, "tcp", 8080, 80),
                port(Some([127, 0, 0, 1]), "udp", 5353, 53),
                port(None, "tcp", 82, 82),
            ]
        );
    }
}
