//! The CNI's agent: the overlay between nodes, and masquerading on the way out of the cluster.
//!
//! Start from [`run`], the task of image `lab.strata.dev/vxlan-cni:v1`, one on each node; what it
//! keeps in place is [`Overlay::apply`], modelled on Flannel's `vxlan` backend: one device, and for
//! every other node a route to its pods, a permanent neighbour and a forwarding entry, so that
//! nothing is ever learned or flooded. A pod's own link is [`super::cni`]'s. Rule: whatever of this
//! is changed by others is put back within [`PERIOD`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _};
use rtnetlink::LinkVxlan;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use tokio::time::MissedTickBehavior;

use super::link::{ETH0, Links, hardware_address, sysctl, to};
use crate::builtin::BuiltinContext;
use crate::os::netns::NetNs;
use crate::os::nft::Nft;
use crate::topology::{POD_CIDR, POD_MTU};
use crate::world::World;

/// How long a change made by somebody else can last: Flannel's own period for its routes.
pub const PERIOD: Duration = Duration::from_secs(10);
/// The overlay's device.
pub const DEVICE: &str = "vxlan0";
/// Flannel's VXLAN network identifier.
const VNI: u32 = 1;
/// The Linux kernel's VXLAN port, which Flannel keeps, and not the assigned 4789.
const PORT: u16 = 8472;

/// A node, as the overlay sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its address on the underlay.
    pub ip: Ipv4Addr,
    /// Its pods' addresses; the first, the network's own, is that of its end of the overlay.
    pub pod_cidr: Ipv4Net,
}

impl Member {
    /// A node that has both an address and pods' addresses.
    fn of(node: &Node) -> Option<Self> {
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let internal = addresses.iter().find(|a| a.type_ == "InternalIP")?;
        Some(Self {
            ip: internal.address.parse().ok()?,
            pod_cidr: node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?,
        })
    }

    /// The hardware address of its end of the overlay. Flannel publishes a random one in an
    /// annotation; made from the address, as `kubenet` did it, everybody knows it at once.
    fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.ip.octets();
        [0x0a, 0x58, a, b, c, d]
    }

    /// The address of its end of the overlay.
    fn endpoint(&self) -> Ipv4Addr {
        self.pod_cidr.network()
    }
}

/// Runs until the container is stopped; what is in place stays.
///
/// # Errors
/// When the node's own namespace cannot be reached.
pub(super) async fn run(context: BuiltinContext) -> anyhow::Result<()> {
    let mut world = World::default();
    let nodes = world.watch::<Node>(Api::all(context.client.clone()));
    let cancel = context.cancel.clone();
    let work = async {
        world.ready().await;
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = String::new();
        let mut overlay: Option<Overlay> = None;
        loop {
            let mut own = None;
            let mut others = Vec::new();
            for node in nodes.state() {
                match Member::of(&node) {
                    Some(member) if node.name_any() == context.node => own = Some(member),
                    Some(member) => others.push(member),
                    None => {}
                }
            }
            if overlay.as_ref().map(|overlay| &overlay.own) != own.as_ref() {
                overlay = own
                    .map(|own| Overlay::new(context.netns.clone(), own))
                    .transpose()?;
            }
            let outcome = match &overlay {
                Some(overlay) => overlay
                    .apply(&context.nft, &others)
                    .await
                    .map(|()| format!("routes to {} other nodes are in place", others.len()))
                    .unwrap_or_else(|error| format!("error: {error:#}")),
                None => format!("node {} has no InternalIP or no podCIDR yet", context.node),
            };
            if outcome != said {
                (context.log)(&outcome);
                said = outcome;
            }
            tokio::select! {
                () = world.changed() => {}
                _ = period.tick() => {}
            }
        }
    };
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = work => ended,
    }
}

/// One node's end of the overlay.
pub struct Overlay {
    netns: NetNs,
    links: Links,
    own: Member,
}

impl Overlay {
    /// The end of a node with this namespace.
    ///
    /// # Errors
    /// When the namespace cannot be reached.
    pub fn new(netns: NetNs, own: Member) -> anyhow::Result<Self> {
        let links = Links::of(&netns)?;
        Ok(Self { netns, links, own })
    }

    /// Puts the device, the ways to the other nodes and the masquerading in place, and takes away
    /// what led to nodes that are no more.
    ///
    /// # Errors
    /// When the kernel or `nft` refuses something; the text names it.
    pub async fn apply(&self, nft: &Nft, others: &[Member]) -> anyhow::Result<()> {
        sysctl(&self.netns, &[("net/ipv4/ip_forward", "1")])?;
        let device = self.device().await?;
        // An address that no pod has is unreachable at once, rather than somewhere outside.
        let nobody = to(self.own.pod_cidr).kind(RouteType::Unreachable).build();
        self.links.route(nobody).await?;
        let others: BTreeSet<_> = others.iter().collect();
        self.neighbours(device, &others).await?;
        self.forwarding(device, &others).await?;
        self.routes(device, &others).await?;
        nft.apply(&self.netns, &masquerade()?)
            .await
            .context("cannot set up masquerading")
    }

    /// The device, made anew if it is not as it should be.
    async fn device(&self) -> anyhow::Result<u32> {
        let mac = self.own.mac();
        if let Some(found) = self.links.find(DEVICE).await?
            && hardware_address(&found) != Some(&mac)
        {
            self.links.delete(DEVICE).await?;
        }
        if self.links.find(DEVICE).await?.is_none() {
            let message = LinkVxlan::new(DEVICE, VNI)
                .dev(self.links.index(ETH0).await?)
                .local(self.own.ip)
                .port(PORT)
                .learning(false)
                .address(mac.to_vec())
                .mtu(POD_MTU)
                .build();
            self.links.add(DEVICE, message).await?;
        }
        let index = self.links.index(DEVICE).await?;
        self.links
            .set(LinkUnspec::new_with_index(index).mtu(POD_MTU).up().build())
            .await?;
        self.links.address(index, self.own.endpoint(), 32).await?;
        Ok(index)
    }

    async fn routes(&self, device: u32, others: &BTreeSet<&Member>) -> anyhow::Result<()> {
        let wanted: BTreeSet<_> = others
            .iter()
            .map(|other| (other.pod_cidr, Some(other.endpoint())))
            .collect();
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut found = std::pin::pin!(self.links.handle().route().get(all).execute());
        let mut there = BTreeSet::new();
        let mut stale = Vec::new();
        while let Some(route) = found.try_next().await? {
            let Some(seen) = way(&route, device) else {
                continue;
            };
            if wanted.contains(&seen) {
                there.insert(seen);
            } else {
                stale.push(route);
            }
        }
        for route in stale {
            self.links.delete_route(route).await?;
        }
        for (network, gateway) in wanted.difference(&there) {
            let route = to(*network).output_interface(device).onlink();
            let route = gateway.iter().fold(route, |route, via| route.gateway(*via));
            self.links.route(route.build()).await?;
        }
        Ok(())
    }

    /// Whose hardware address each end of the overlay has.
    async fn neighbours(&self, device: u32, others: &BTreeSet<&Member>) -> anyhow::Result<()> {
        let wanted = others
            .iter()
            .map(|other| (other.mac(), other.endpoint()))
            .collect();
        let missing = self.entries(device, AddressFamily::Inet, wanted).await?;
        for (mac, endpoint) in missing {
            let request = self.links.handle().neighbours();
            request
                .add(device, IpAddr::V4(endpoint))
                .link_layer_address(&mac)
                .replace()
                .execute()
                .await
                .with_context(|| format!("cannot add neighbour {endpoint}"))?;
        }
        Ok(())
    }

    /// Behind which node each hardware address is.
    async fn forwarding(&self, device: u32, others: &BTreeSet<&Member>) -> anyhow::Result<()> {
        let wanted = others.iter().map(|other| (other.mac(), other.ip)).collect();
        let missing = self.entries(device, AddressFamily::Bridge, wanted).await?;
        for (mac, ip) in missing {
            let request = self.links.handle().neighbours();
            request
                .add_bridge(device, &mac)
                .destination(IpAddr::V4(ip))
                .flags(NeighbourFlags::Own)
                .replace()
                .execute()
                .await
                .with_context(|| format!("cannot add a forwarding entry for node {ip}"))?;
        }
        Ok(())
    }

    /// Takes away the entries of a table that are not wanted; returns those that are not there.
    async fn entries(
        &self,
        device: u32,
        family: AddressFamily,
        wanted: BTreeSet<([u8; 6], Ipv4Addr)>,
    ) -> anyhow::Result<BTreeSet<([u8; 6], Ipv4Addr)>> {
        let table = self.links.handle().neighbours();
        let request = table.get().set_address_family(family);
        let mut found = std::pin::pin!(request.execute());
        let mut missing = wanted.clone();
        let mut stale = Vec::new();
        while let Some(entry) = found.try_next().await? {
            if entry.header.ifindex != device {
                continue;
            }
            match pair(&entry) {
                Some(seen) if wanted.contains(&seen) => {
                    missing.remove(&seen);
                }
                _ => stale.push(entry),
            }
        }
        for mut entry in stale {
            // What the kernel says about an entry is not what names it.
            entry.attributes.retain(|attribute| {
                matches!(
                    attribute,
                    NeighbourAttribute::Destination(_) | NeighbourAttribute::LinkLayerAddress(_)
                )
            });
            // Somebody else may have taken it away meanwhile; it is looked at again.
            if let Err(error) = table.del(entry).execute().await {
                tracing::debug!(%error, "a stale entry of the overlay was not deleted");
            }
        }
        Ok(missing)
    }
}

/// Where a route of the overlay's device leads, and through which end.
fn way(route: &RouteMessage, device: u32) -> Option<(Ipv4Net, Option<Ipv4Addr>)> {
    let mut network = Ipv4Addr::UNSPECIFIED;
    let (mut gateway, mut ours) = (None, false);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ours = *index == device,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => network = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            // The kernel's own table of local addresses.
            RouteAttribute::Table(table) if *table != u32::from(libc::RT_TABLE_MAIN) => {
                return None;
            }
            _ => {}
        }
    }
    let network = Ipv4Net::new(network, route.header.destination_prefix_length).ok()?;
    ours.then_some((network, gateway))
}

fn pair(entry: &NeighbourMessage) -> Option<([u8; 6], Ipv4Addr)> {
    let (mut mac, mut address) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(*ip),
            // A forwarding entry's destination, whose family the message does not tell.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                address = <[u8; 4]>::try_from(bytes.as_slice())
                    .ok()
                    .map(Ipv4Addr::from);
            }
            _ => {}
        }
    }
    Some((mac?, address?))
}

/// What leaves the pods' network takes the node's address, since nobody outside knows the way back;
/// that includes traffic to other nodes, but not to the pod's own, which never leaves it. Flannel
/// (`--ip-masq`) and kindnet draw the same line. Between pods nothing is ever translated.
fn masquerade() -> anyhow::Result<String> {
    let pods: Ipv4Net = POD_CIDR.parse()?;
    Ok(format!(
        r#"add table ip vxlan-cni {{ comment "masquerading of pods' traffic out of the cluster" ; }}
add chain ip vxlan-cni postrouting {{ type nat hook postrouting priority 100 ; }}
flush chain ip vxlan-cni postrouting
add rule ip vxlan-cni postrouting ip saddr != {pods} return
add rule ip vxlan-cni postrouting ip daddr {pods} return
add rule ip vxlan-cni postrouting ip daddr 224.0.0.0/4 return
add rule ip vxlan-cni postrouting masquerade fully-random
"#
    ))
}
