//! An overlay, modelled on Flannel's `vxlan` backend: one device, and for every other node a route to
//! its pods, a permanent neighbour and a forwarding entry, so that nothing is ever learned or flooded.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::{LinkUnspec, LinkVxlan};

use super::{Member, Ways};
use crate::net::link::{ETH0, hardware_address, to};
use crate::topology::POD_MTU;

/// Flannel's VXLAN network identifier.
const VNI: u32 = 1;
/// The Linux kernel's VXLAN port, which Flannel keeps, and not the assigned 4789.
const PORT: u16 = 8472;

impl Member {
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

impl Ways {
    /// Puts the device and what leads through it in place.
    pub(super) async fn overlay(
        &self,
        name: &str,
        others: &BTreeSet<&Member>,
    ) -> anyhow::Result<()> {
        let device = self.device(name).await?;
        self.neighbours(device, others).await?;
        self.forwarding(device, others).await?;
        let wanted = others
            .iter()
            .map(|other| (other.pod_cidr, other.endpoint()));
        self.routes(device, &wanted.collect(), |network, endpoint| {
            let route = to(network).output_interface(device).onlink();
            route.gateway(endpoint).build()
        })
        .await
    }

    /// The device, made anew if it is not as it should be.
    async fn device(&self, name: &str) -> anyhow::Result<u32> {
        let mac = self.own.mac();
        if let Some(found) = self.links.find(name).await?
            && hardware_address(&found) != Some(&mac)
        {
            self.links.delete(name).await?;
        }
        if self.links.find(name).await?.is_none() {
            let message = LinkVxlan::new(name, VNI)
                .dev(self.links.index(ETH0).await?)
                .local(self.own.ip)
                .port(PORT)
                .learning(false)
                .address(mac.to_vec())
                .mtu(POD_MTU)
                .build();
            self.links.add(name, message).await?;
        }
        let index = self.links.index(name).await?;
        self.links
            .set(LinkUnspec::new_with_index(index).mtu(POD_MTU).up().build())
            .await?;
        self.links.address(index, self.own.endpoint(), 32).await?;
        Ok(index)
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
