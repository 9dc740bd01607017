//! As Calico's plugin: a veth pair whose far end answers for everybody.
//!
//! A pod's only neighbour is 169.254.1.1, which nobody has: the node's end answers ARP for it, as for
//! anything (`proxy_arp`), with a hardware address that is the same everywhere. So a pod's routes
//! and neighbours are the same on every node, and no address is used up for a gateway.

use std::net::Ipv4Addr;

use rtnetlink::LinkUnspec;

use super::Wiring;
use crate::net::link::{sysctl, to_everything, to_host};

/// The gateway that every pod has.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The hardware address of every node's end.
const MAC: [u8; 6] = [0xee; 6];

pub(super) async fn connect(wiring: &Wiring<'_>) -> anyhow::Result<()> {
    let Wiring {
        node,
        links,
        interface,
        address,
        ..
    } = *wiring;
    let veth = wiring.veth().await?;
    let end = LinkUnspec::new_with_index(veth).address(MAC.to_vec()).up();
    links.set(end.build()).await?;
    let proxy_arp = format!("net/ipv4/conf/{interface}/proxy_arp");
    sysctl(node, &[(&proxy_arp, "1")])?;
    links.no_proxy_delay(veth).await?;
    links.route(to_host(address, veth).build()).await?;
    let (inside, eth0) = wiring.inside(32).await?;
    inside.route(to_host(GATEWAY, eth0).build()).await?;
    inside.route(to_everything().gateway(GATEWAY).build()).await
}
