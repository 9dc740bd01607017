//! Routes, as values.
//!
//! Start from [`to`]; [`super::link::Links::route`] puts one in place.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::{RouteMessageBuilder, RouteNextHopBuilder};

use crate::topology::IpFamily;

/// A route to a network, through a device, a gateway, or any of several.
#[derive(Debug, Clone)]
pub(super) struct Route {
    network: IpNet,
    device: Option<u32>,
    gateways: Vec<IpAddr>,
    source: Option<IpAddr>,
    scope: RouteScope,
    kind: RouteType,
    on_link: bool,
    table: Option<u32>,
}

/// A route to a network.
pub(super) fn to(network: IpNet) -> Route {
    Route {
        network,
        device: None,
        gateways: Vec::new(),
        source: None,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        on_link: false,
        table: None,
    }
}

/// A route to one address that is right behind a device.
pub(super) fn to_host(address: IpAddr, device: u32) -> Route {
    Route {
        scope: RouteScope::Link,
        ..to(address.into()).through(device)
    }
}

/// The default route of a family.
pub(super) fn to_everything(family: IpFamily) -> Route {
    let unspecified = match family {
        IpFamily::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    to(IpNet::new_assert(unspecified, 0))
}

impl Route {
    /// Through a device.
    pub(super) fn through(mut self, device: u32) -> Self {
        self.device = Some(device);
        self
    }

    /// By a gateway; told more than one, by any of them.
    pub(super) fn by(mut self, gateway: IpAddr) -> Self {
        self.gateways.push(gateway);
        self
    }

    /// From this address, where a packet has none yet.
    pub(super) fn from(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Its gateway is right behind the device, whatever its address.
    pub(super) fn on_link(mut self) -> Self {
        self.on_link = true;
        self
    }

    /// In a table of its own, which some rule leads to.
    pub(super) fn in_table(mut self, table: u32) -> Self {
        self.table = Some(table);
        self
    }

    /// What becomes of packets that take it.
    pub(super) fn kind(mut self, kind: RouteType) -> Self {
        self.kind = kind;
        self
    }

    /// As the kernel is told it.
    pub(super) fn message(&self) -> anyhow::Result<RouteMessage> {
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(self.network.network(), self.network.prefix_len())?
            .scope(self.scope)
            .kind(self.kind);
        match (&self.gateways[..], self.device) {
            ([], Some(device)) => message = message.output_interface(device),
            ([], None) => {}
            ([gateway], device) => {
                message = message.gateway(*gateway)?;
                if let Some(device) = device {
                    message = message.output_interface(device);
                }
            }
            (gateways, device) => {
                let hop = |gateway: &IpAddr| {
                    let family = match gateway {
                        IpAddr::V4(_) => AddressFamily::Inet,
                        IpAddr::V6(_) => AddressFamily::Inet6,
                    };
                    let hop = RouteNextHopBuilder::new(family).via(*gateway)?;
                    let hop = device.into_iter().fold(hop, RouteNextHopBuilder::interface);
                    anyhow::Ok(hop.build())
                };
                let hops = gateways.iter().map(hop);
                message = message.multipath(hops.collect::<Result<_, _>>()?);
            }
        }
        if let Some(source) = self.source {
            message = message.pref_source(source)?;
        }
        if let Some(table) = self.table {
            message = message.table_id(table);
        }
        if self.on_link {
            message = message.onlink();
        }
        Ok(message.build())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}", self.network)?;
        for gateway in &self.gateways {
            write!(f, " by {gateway}")?;
        }
        Ok(())
    }
}

/// Where a route of a device leads, and by which gateway; none where it is another's, or of the
/// kernel's own table of local addresses.
pub(super) fn way(route: &RouteMessage, device: u32) -> Option<(IpNet, Option<IpAddr>)> {
    let mut network = match route.header.address_family {
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let (mut gateway, mut ours) = (None, false);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ours = *index == device,
            RouteAttribute::Destination(address) => network = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Table(table) if *table != u32::from(libc::RT_TABLE_MAIN) => {
                return None;
            }
            _ => {}
        }
    }
    let network = IpNet::new(network, route.header.destination_prefix_length).ok()?;
    ours.then_some((network, gateway))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
