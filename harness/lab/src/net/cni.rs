//! The node-local half of the CNI: a pod's link and address.
//!
//! Start from [`RoutedPods`], which the kubelet calls for every sandbox, as it would call the `ptp`
//! plugin with `host-local` addresses: a veth pair, the node as the pod's only neighbour, a host
//! route back. There is no bridge: pods of one node reach each other through the node's routing
//! too. What is between nodes is [`super::vxlan`]'s. Rule: a route that is deleted inside a pod stays
//! deleted; nobody but the kubelet, making a new sandbox, ever puts one there.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use ipnet::Ipv4Net;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use super::link::{ETH0, Links, Peer, sysctl, to, to_everything, to_host};
use crate::os::netns::NetNs;
use crate::topology::POD_MTU;

/// What joins a node's pods to the cluster's network.
#[async_trait::async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Gives the pod `id` an interface and an address.
    async fn attach(&self, pod: &NetNs, id: &str) -> anyhow::Result<Ipv4Addr>;
    /// Takes back what [`Self::attach`] gave.
    async fn detach(&self, id: &str) -> anyhow::Result<()>;
}

/// A node's pods, each on a link of its own to the node.
pub struct RoutedPods {
    node: NetNs,
    pod_cidr: Ipv4Net,
    links: OnceCell<Links>,
    addresses: Mutex<Addresses>,
}

impl RoutedPods {
    /// The pods of the node with this namespace, which get addresses of this network.
    #[must_use]
    pub fn new(node: NetNs, pod_cidr: Ipv4Net) -> Self {
        Self {
            node,
            pod_cidr,
            links: OnceCell::new(),
            addresses: Mutex::new(Addresses::new(pod_cidr)),
        }
    }

    fn addresses(&self) -> std::sync::MutexGuard<'_, Addresses> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn links(&self) -> anyhow::Result<&Links> {
        self.links
            .get_or_try_init(async || Links::of(&self.node))
            .await
    }

    async fn connect(&self, pod: &NetNs, id: &str, address: Ipv4Addr) -> anyhow::Result<()> {
        let links = self.links().await?;
        let name = interface(id);
        // A sandbox that died keeps its end until the kernel gets to it.
        links.delete(&name).await?;
        let peer = Peer {
            netns: pod,
            name: ETH0,
        };
        links.veth(&name, peer, POD_MTU).await?;
        let gateway = gateway(self.pod_cidr);
        let veth = links.index(&name).await?;
        links.address(veth, gateway, 32).await?;
        links.up(veth).await?;
        links.route(to_host(address, veth).build()).await?;

        // The lab's pods are IPv4 only; a kernel without IPv6 has nothing to switch off.
        let _ = sysctl(pod, &[("net/ipv6/conf/eth0/disable_ipv6", "1")]);
        let inside = Links::of(pod)?;
        let eth0 = inside.index(ETH0).await?;
        inside.address(eth0, address, 32).await?;
        inside.up(eth0).await?;
        // As `ptp` leaves it: the node's own network and everything else, each through the gateway.
        let routes = [
            to_host(gateway, eth0),
            to(self.pod_cidr).gateway(gateway),
            to_everything().gateway(gateway),
        ];
        for route in routes {
            inside.route(route.pref_source(address).build()).await?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl PodNetwork for RoutedPods {
    async fn attach(&self, pod: &NetNs, id: &str) -> anyhow::Result<Ipv4Addr> {
        let address = self.addresses().take(id)?;
        let connected = self.connect(pod, id, address).await;
        if connected.is_err() {
            self.addresses().release(id);
        }
        connected.with_context(|| format!("cannot attach pod {id} to the network"))?;
        Ok(address)
    }

    async fn detach(&self, id: &str) -> anyhow::Result<()> {
        // Its host route goes with it.
        let deleted = self.links().await?.delete(&interface(id)).await;
        deleted.with_context(|| format!("cannot detach pod {id} from the network"))?;
        self.addresses().release(id);
        Ok(())
    }
}

/// The node's address on every link to a pod: the first of its network.
fn gateway(pod_cidr: Ipv4Net) -> Ipv4Addr {
    pod_cidr.hosts().next().unwrap_or(pod_cidr.network())
}

/// The name of the node's end of a pod's link.
fn interface(id: &str) -> String {
    let hash = Sha256::digest(id.as_bytes());
    let short: String = hash
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("veth{short}")
}

/// Which addresses of a node's network are whose, as the `host-local` plugin hands them out: in
/// order and round again, so that the address of a pod that is gone answers nobody for as long as
/// possible.
struct Addresses {
    network: Ipv4Net,
    last: Ipv4Addr,
    taken: BTreeMap<Ipv4Addr, String>,
}

impl Addresses {
    fn new(network: Ipv4Net) -> Self {
        Self {
            network,
            last: gateway(network),
            taken: BTreeMap::new(),
        }
    }

    fn take(&mut self, id: &str) -> anyhow::Result<Ipv4Addr> {
        self.release(id);
        // Without the network's own address, the gateway, and broadcast.
        let usable = || self.network.hosts().skip(1);
        let after = usable().filter(|address| *address > self.last);
        let before = usable().filter(|address| *address <= self.last);
        let free = after
            .chain(before)
            .find(|address| !self.taken.contains_key(address));
        let Some(address) = free else {
            bail!(
                "no address is free in {}: all {} are taken by pods of this node",
                self.network,
                self.taken.len()
            );
        };
        self.last = address;
        self.taken.insert(address, id.to_owned());
        Ok(address)
    }

    fn release(&mut self, id: &str) {
        self.taken.retain(|_, owner| owner != id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn addresses(network: &str) -> Addresses {
        Addresses::new(network.parse().unwrap())
    }

    #[test]
    fn addresses_are_handed_out_in_order_and_not_reused_at_once() {
        let mut addresses = addresses("10.244.1.0/24");
        let mut take = |id: &str| addresses.take(id).unwrap().to_string();
        assert_eq!(take("a"), "10.244.1.2");
        assert_eq!(take("b"), "10.244.1.3");
        // The same pod, in a new sandbox.
        assert_eq!(take("a"), "10.244.1.4");
        addresses.release("b");
        assert_eq!(addresses.take("c").unwrap().to_string(), "10.244.1.5");
    }

    #[test]
    fn every_address_is_usable_but_three() {
        let mut addresses = addresses("10.244.1.0/24");
        let all: Vec<_> = (0..253)
            .map(|pod| addresses.take(&pod.to_string()).unwrap().octets()[3])
            .collect();
        assert_eq!(all, (2..=254).collect::<Vec<_>>());
        assert_eq!(
            addresses.take("one more").unwrap_err().to_string(),
            "no address is free in 10.244.1.0/24: all 253 are taken by pods of this node"
        );
        addresses.release("7");
        assert_eq!(
            addresses.take("one more").unwrap().to_string(),
            "10.244.1.9"
        );
    }

    #[test]
    fn interface_names_fit() {
        assert_eq!(interface("some very long id of a pod").len(), 12);
        assert_ne!(interface("a"), interface("b"));
    }
}
