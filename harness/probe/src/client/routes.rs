//! `routes`: the network namespace as the kernel tells it over rtnetlink(7).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType, RouteVia,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use strata_probe::{Interface, Network, Route};
use tokio::task::JoinSet;

use super::failure::chain;
use super::write;
use crate::Trouble;

/// Asks the kernel and writes what it says.
pub(crate) async fn run() -> Result<(), Trouble> {
    let trouble = |error: &(dyn std::error::Error + 'static)| {
        Trouble::Other(format!(
            "asking the kernel for its network: {}",
            chain(error)
        ))
    };
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| trouble(&error))?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    write(&network(&handle).await.map_err(|error| trouble(&error))?)
}

async fn network(handle: &Handle) -> Result<Network, rtnetlink::Error> {
    let mut interfaces: Vec<(u32, Interface)> = Vec::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        let mut interface = Interface {
            up: link.header.flags.contains(LinkFlags::Up),
            ..Interface::default()
        };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Mtu(mtu) => interface.mtu = Some(mtu),
                _ => {}
            }
        }
        interfaces.push((link.header.index, interface));
    }
    let mut addresses = handle.address().get().execute();
    while let Some(address) = addresses.try_next().await? {
        let index = address.header.index;
        if let Some((_, interface)) = interfaces.iter_mut().find(|(known, _)| *known == index)
            && let Some(ip) = own_address(&address.attributes)
        {
            let prefix = address.header.prefix_len;
            interface.addresses.push(format!("{ip}/{prefix}"));
        }
    }
    let names: HashMap<u32, String> = interfaces
        .iter()
        .map(|(index, interface)| (*index, interface.name.clone()))
        .collect();
    let mut routes = Vec::new();
    for query in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let mut answers = handle.route().get(query).execute();
        loop {
            match answers.try_next().await {
                Ok(Some(message)) => routes.extend(of_main_table(&message, &names)),
                Ok(None) => break,
                // A kernel without IPv6 has no such routes.
                Err(rtnetlink::Error::NetlinkError(error))
                    if error.raw_code() == -libc::EOPNOTSUPP
                        || error.raw_code() == -libc::EAFNOSUPPORT =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Network {
        interfaces: interfaces
            .into_iter()
            .map(|(_, interface)| interface)
            .collect(),
        routes,
    })
}

/// `IFA_LOCAL` if there is one: `IFA_ADDRESS` of a point-to-point link is the peer's.
fn own_address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// One route a next hop; nothing for other tables and for what is not of interest.
fn of_main_table(message: &RouteMessage, names: &HashMap<u32, String>) -> Vec<Route> {
    let table = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    if table.unwrap_or(message.header.table.into()) != main
        || message.header.kind != RouteType::Unicast
    {
        return Vec::new();
    }
    let v4 = message.header.address_family == AddressFamily::Inet;
    let mut destination: IpAddr = match v4 {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (mut interface, mut metric) = (None, 0);
    let mut hops: Vec<(Option<u32>, Option<IpAddr>)> = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip(to).unwrap_or(destination),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::MultiPath(next_hops) => {
                let hop =
                    |hop: &RouteNextHop| (Some(hop.interface_index), gateway(&hop.attributes));
                hops.extend(next_hops.iter().map(hop));
            }
            _ => {}
        }
    }
    if let IpAddr::V6(to) = destination
        && (to.is_multicast() || to.is_unicast_link_local())
    {
        return Vec::new();
    }
    if hops.is_empty() {
        hops.push((interface, gateway(&message.attributes)));
    }
    let name = |index| names.get(&index).cloned();
    hops.into_iter()
        .map(|(index, gateway)| Route {
            destination: format!("{destination}/{}", message.header.destination_prefix_length),
            gateway,
            interface: index.and_then(name).unwrap_or_default(),
            metric,
        })
        .collect()
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
