//! An overlay, modelled on Flannel's `vxlan` backend: one device, and for every other node a route to
//! its pods, a permanent neighbour and a forwarding entry, so that nothing is ever learned or flooded.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::{LinkUnspec, LinkVxlan};

use super::{Member, Ways};
use crate::net::link::{ETH0, hardware_address};
use crate::net::mac;
use crate::net::route::to;

/// Flannel's VXLAN network identifier.
const VNI: u32 = 1;
/// The Linux kernel's VXLAN port, which Flannel keeps, and not the assigned 4789.
pub(super) const PORT: u16 = 8472;

impl Member {
    /// The hardware address of its end of the overlay. Flannel publishes a random one in an
    /// annotation; one made from the address need not be told.
    fn mac(&self) -> [u8; 6] {
        mac(self.ip)
    }

    /// The address of its end of the overlay.
    fn endpoint(&self) -> IpAddr {
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
            to(network).through(device).on_link().by(endpoint)
        })
        .await
    }

    /// The device, made anew if it is not as it should be.
    async fn device(&self, name: &str) -> anyhow::Result<u32> {
        let mac = self.own.mac();
        let mtu = self.cni.mtu(self.own.family());
        if let Some(found) = self.links.find(name).await?
            && hardware_address(&found) != Some(&mac)
        {
            self.links.delete(name).await?;
        }
        if self.links.find(name).await?.is_none() {
            let message = LinkVxlan::new(name, VNI).dev(self.links.index(ETH0).await?);
            let message = match self.own.ip {
                IpAddr::V4(ip) => message.local(ip),
                IpAddr::V6(ip) => message.local6(ip),
            };
            let message = message
                .port(PORT)
                .learning(false)
                .address(mac.to_vec())
                .mtu(mtu)
                .build();
            self.links.add(name, message).await?;
        }
        let index = self.links.index(name).await?;
        self.links
            .set(LinkUnspec::new_with_index(index).mtu(mtu).up().build())
            .await?;
        let alone = self.own.pod_cidr.max_prefix_len();
        self.links
            .address(index, self.own.endpoint(), alone)
            .await?;
        Ok(index)
    }

    /// Whose hardware address each end of the overlay has.
    async fn neighbours(&self, device: u32, others: &BTreeSet<&Member>) -> anyhow::Result<()> {
        let wanted = others
            .iter()
            .map(|other| (other.mac(), other.endpoint()))
            .collect();
        let family = match self.own.ip {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let missing = self.entries(device, family, wanted).await?;
        for (mac, endpoint) in missing {
            let request = self.links.handle().neighbours();
            request
                .add(device, endpoint)
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
                .destination(ip)
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
        wanted: BTreeSet<([u8; 6], IpAddr)>,
    ) -> anyhow::Result<BTreeSet<([u8; 6], IpAddr)>> {
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

fn pair(entry: &NeighbourMessage) -> Option<([u8; 6], IpAddr)> {
    let (mut mac, mut address) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::V4(*ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::V6(*ip));
            }
            // A forwarding entry's destination, whose family the message does not tell.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
                let v6 = || <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from);
                address = v4.or_else(|_| v6()).ok();
            }
            _ => {}
        }
    }
    Some((mac?, address?))
}
