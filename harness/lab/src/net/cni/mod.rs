//! CNI plugins: which ones the lab has, and the node-local half of each: a pod's link and address.
//!
//! Start from [`Cni`], the choice, and [`NodePods`], which the kubelet calls for every sandbox; each
//! way of wiring a pod has a file. What is between nodes is the agent's, [`super::agent`]. Rule: a
//! route that is deleted inside a pod stays deleted; nobody but the kubelet, making a new sandbox,
//! ever puts one there.
//!
//! | | a pod's link | between nodes | policies |
//! | --- | --- | --- | --- |
//! | `vxlan` | [`ptp`] | VXLAN | ignored |
//! | `kindnet` | [`ptp`] | routes | ignored |
//! | `flannel` | [`bridge`] | VXLAN | ignored |
//! | `calico` | [`proxied`] | routes | [`super::policy`] |

mod addresses;
mod bridge;
mod port_map;
mod proxied;
mod ptp;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use self::addresses::{Addresses, gateway};
pub use self::port_map::HostPort;
use self::port_map::PortMap;
use super::link::{ETH0, Links, Peer, sysctl};
use super::route::to_host;
use crate::os::netns::NetNs;
use crate::os::nft::Nft;
use crate::topology::{IpFamilies, IpFamily, UNDERLAY_MTU};

/// A CNI plugin, by the name of the one whose data path it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// Veth pairs and an overlay: no plugin that people install, but the simplest that works on any
    /// network between nodes.
    #[default]
    Vxlan,
    /// Veth pairs, and routes between nodes that share a segment.
    Kindnet,
    /// A bridge on each node, and an overlay.
    Flannel,
    /// Routes throughout, and policies that are enforced.
    Calico,
}

impl Cni {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Vxlan, Self::Kindnet, Self::Flannel, Self::Calico];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Kindnet => "kindnet",
            Self::Flannel => "flannel",
            Self::Calico => "calico",
        }
    }

    /// The plugin of a name, or none: a cluster as `kubeadm init` leaves it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn choice(name: &str) -> Result<Option<Self>, String> {
        match name {
            "none" => Ok(None),
            name => name.parse().map(Some),
        }
    }

    /// The device of its overlay over a family, if it has one, as the real plugin calls it.
    pub(super) const fn overlay(self, family: IpFamily) -> Option<&'static str> {
        match (self, family) {
            (Self::Vxlan, IpFamily::V4) => Some("vxlan0"),
            (Self::Vxlan, IpFamily::V6) => Some("vxlan0-v6"),
            (Self::Flannel, IpFamily::V4) => Some("flannel.1"),
            (Self::Flannel, IpFamily::V6) => Some("flannel-v6.1"),
            (Self::Kindnet | Self::Calico, _) => None,
        }
    }

    /// The MTU of what goes between nodes over a family: an overlay takes its part, VXLAN 50 octets
    /// over IPv4 (RFC 7348 §5) and 20 more over IPv6.
    pub(super) const fn mtu(self, family: IpFamily) -> u32 {
        match (self.overlay(family), family) {
            (Some(_), IpFamily::V4) => UNDERLAY_MTU - 50,
            (Some(_), IpFamily::V6) => UNDERLAY_MTU - 70,
            (None, _) => UNDERLAY_MTU,
        }
    }

    /// The MTU of pods' interfaces, which all families share.
    #[must_use]
    pub fn pod_mtu(self, families: IpFamilies) -> u32 {
        let each = families.each().iter().map(|family| self.mtu(*family));
        each.min().unwrap_or(UNDERLAY_MTU)
    }

    /// Says why this kernel cannot do what the plugin needs.
    ///
    /// # Errors
    /// As `flanneld` does without `br_netfilter`: Services would lose the answers of pods of the
    /// client's own node, which a bridge sends past the rules.
    pub fn check(self) -> anyhow::Result<()> {
        if self == Self::Flannel {
            let there = std::fs::exists(format!("/proc/sys/{}", bridge::CALL_IPTABLES));
            anyhow::ensure!(
                there.unwrap_or_default(),
                "CNI flannel needs br_netfilter, which this kernel has not loaded; run modprobe \
                 br_netfilter as root, or choose another CNI: vxlan, kindnet or calico"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Cni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Cni {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|cni| cni.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{name} is not a CNI of the lab; choose one of {names}, or none")
        })
    }
}

/// What joins a node's pods to the cluster's network.
#[async_trait::async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Gives the pod `id` an interface and an address of each family, the cluster's first choice
    /// first, and leads these ports of the node to it.
    async fn attach(
        &self,
        pod: &NetNs,
        id: &str,
        ports: &[HostPort],
    ) -> anyhow::Result<Vec<IpAddr>>;
    /// Takes back what [`Self::attach`] gave.
    async fn detach(&self, id: &str) -> anyhow::Result<()>;
}

/// A node's pods, wired as a plugin does it.
pub struct NodePods {
    cni: Cni,
    node: NetNs,
    pod_cidrs: Vec<IpNet>,
    links: OnceCell<Links>,
    /// Held while what all pods share is made.
    shared: tokio::sync::Mutex<()>,
    /// One a family.
    addresses: Mutex<Vec<Addresses>>,
    ports: PortMap,
}

/// One family's part of a pod's link.
#[derive(Debug, Clone, Copy)]
struct Net {
    family: IpFamily,
    /// The node's end, or its bridge.
    gateway: IpAddr,
    /// The addresses of the node's pods.
    pod_cidr: IpNet,
    /// The pod's.
    address: IpAddr,
}

/// A pod that is being wired.
struct Wiring<'a> {
    node: &'a NetNs,
    links: &'a Links,
    shared: &'a tokio::sync::Mutex<()>,
    pod: &'a NetNs,
    /// The name of the node's end.
    interface: &'a str,
    /// One a family.
    nets: &'a [Net],
    mtu: u32,
}

/// Of a pod with IPv6: its addresses are used at once.
const POD_V6: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];

impl Wiring<'_> {
    /// Makes both ends; the number of the node's.
    async fn veth(&self) -> anyhow::Result<u32> {
        // A sandbox that died keeps its end until the kernel gets to it.
        self.links.delete(self.interface).await?;
        let peer = Peer {
            netns: self.pod,
            name: ETH0,
        };
        let v6 = self.nets.iter().any(|net| net.family == IpFamily::V6);
        if v6 {
            sysctl(self.pod, POD_V6)?;
        }
        self.links.veth(self.interface, peer, self.mtu).await?;
        if !v6 {
            // A kernel without IPv6 has nothing to switch off.
            let _ = sysctl(self.pod, &[("net/ipv6/conf/eth0/disable_ipv6", "1")]);
        }
        self.links.index(self.interface).await
    }

    /// The pod's end, up and with its addresses; its number.
    async fn inside(&self, prefix: impl Fn(&Net) -> u8) -> anyhow::Result<(Links, u32)> {
        let inside = Links::of(self.pod)?;
        let eth0 = inside.index(ETH0).await?;
        for net in self.nets {
            inside.address(eth0, net.address, prefix(net)).await?;
        }
        inside.up(eth0).await?;
        Ok((inside, eth0))
    }

    /// The routes to the pod's addresses through the node's end.
    async fn routes_back(&self, veth: u32) -> anyhow::Result<()> {
        for net in self.nets {
            self.links.route(to_host(net.address, veth)).await?;
        }
        Ok(())
    }
}

impl NodePods {
    /// The pods of the node with this namespace, which get addresses of these networks, one a family.
    #[must_use]
    pub fn new(cni: Cni, node: NetNs, nft: Nft, pod_cidrs: Vec<IpNet>) -> Self {
        Self {
            cni,
            ports: PortMap::new(node.clone(), nft),
            node,
            addresses: Mutex::new(pod_cidrs.iter().copied().map(Addresses::new).collect()),
            pod_cidrs,
            links: OnceCell::new(),
            shared: tokio::sync::Mutex::default(),
        }
    }

    fn take(&self, id: &str) -> anyhow::Result<Vec<IpAddr>> {
        let mut all = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.iter_mut().map(|of_family| of_family.take(id)).collect()
    }

    fn release(&self, id: &str) {
        let mut all = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for of_family in all.iter_mut() {
            of_family.release(id);
        }
    }

    async fn links(&self) -> anyhow::Result<&Links> {
        self.links
            .get_or_try_init(async || Links::of(&self.node))
            .await
    }

    async fn connect(&self, pod: &NetNs, id: &str, addresses: &[IpAddr]) -> anyhow::Result<()> {
        let nets = self.pod_cidrs.iter().zip(addresses);
        let nets = nets.map(|(pod_cidr, address)| Net {
            family: IpFamily::of(*address),
            gateway: gateway(*pod_cidr),
            pod_cidr: *pod_cidr,
            address: *address,
        });
        let nets: Vec<_> = nets.collect();
        let mtu = nets.iter().map(|net| self.cni.mtu(net.family)).min();
        let wiring = Wiring {
            node: &self.node,
            links: self.links().await?,
            shared: &self.shared,
            pod,
            interface: &interface(self.cni, id),
            nets: &nets,
            mtu: mtu.unwrap_or(UNDERLAY_MTU),
        };
        match self.cni {
            Cni::Vxlan | Cni::Kindnet => ptp::connect(&wiring).await,
            Cni::Flannel => bridge::connect(&wiring).await,
            Cni::Calico => proxied::connect(&wiring).await,
        }
    }

    /// The device through which the node reaches a pod.
    fn towards(&self, id: &str) -> String {
        match self.cni {
            Cni::Flannel => bridge::BRIDGE.to_owned(),
            Cni::Vxlan | Cni::Kindnet | Cni::Calico => interface(self.cni, id),
        }
    }
}

/// The name of the node's end of a pod's link, as the plugin begins it.
fn interface(cni: Cni, id: &str) -> String {
    let prefix = match cni {
        Cni::Vxlan | Cni::Kindnet | Cni::Flannel => "veth",
        Cni::Calico => "cali",
    };
    let hash = Sha256::digest(id.as_bytes());
    let short: String = hash
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{prefix}{short}")
}

#[async_trait::async_trait]
impl PodNetwork for NodePods {
    async fn attach(
        &self,
        pod: &NetNs,
        id: &str,
        ports: &[HostPort],
    ) -> anyhow::Result<Vec<IpAddr>> {
        let addresses = self.take(id)?;
        let connected = async {
            self.connect(pod, id, &addresses).await?;
            let device = self.towards(id);
            let mapped = self.ports.add(id, &addresses, &device, ports).await;
            mapped.context("cannot lead its hostPorts to it")
        };
        let connected = connected.await;
        if connected.is_err() {
            self.release(id);
        }
        connected.with_context(|| format!("cannot attach pod {id} to the network"))?;
        Ok(addresses)
    }

    async fn detach(&self, id: &str) -> anyhow::Result<()> {
        let unmapped = self.ports.remove(id).await;
        unmapped.with_context(|| format!("cannot take pod {id}'s hostPorts from the node"))?;
        // Its host route goes with it.
        let deleted = self.links().await?.delete(&interface(self.cni, id)).await;
        deleted.with_context(|| format!("cannot detach pod {id} from the network"))?;
        self.release(id);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_the_lab_or_refused_with_the_choices() {
        for cni in Cni::ALL {
            assert_eq!(cni.name().parse(), Ok(cni));
        }
        assert_eq!(
            "cilium".parse::<Cni>().unwrap_err(),
            "cilium is not a CNI of the lab; choose one of vxlan, kindnet, flannel, calico, or none"
        );
        assert_eq!(Cni::choice("none"), Ok(None));
        assert_eq!(Cni::choice("calico"), Ok(Some(Cni::Calico)));
    }

    #[test]
    fn interface_names_fit() {
        for cni in Cni::ALL {
            assert_eq!(interface(cni, "some very long id of a pod").len(), 12);
            assert_ne!(interface(cni, "a"), interface(cni, "b"));
        }
    }
}
