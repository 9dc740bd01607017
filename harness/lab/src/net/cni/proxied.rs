//! As Calico's plugin: a veth pair whose far end answers for everybody.
//!
//! A pod's only neighbour is 169.254.1.1, which nobody has: the node's end answers ARP for it, as for
//! anything (`proxy_arp`), with a hardware address that is the same everywhere. So a pod's routes
//! and neighbours are the same on every node, and no address is used up for a gateway. With IPv6 it is
//! the link-local address that goes with that hardware address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::LinkUnspec;

use super::{Net, Wiring};
use crate::net::link::sysctl;
use crate::net::route::{to_everything, to_host};
use crate::topology::IpFamily;

/// The gateway that every pod has.
const fn gateway(family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
        // RFC 4291 appendix A, of [`MAC`].
        IpFamily::V6 => {
            let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
            IpAddr::V6(address)
        }
    }
}
/// The hardware address of every node's end.
const MAC: [u8; 6] = [0xee; 6];

pub(super) async fn connect(wiring: &Wiring<'_>) -> anyhow::Result<()> {
    let Wiring {
        node,
        links,
        interface,
        nets,
        ..
    } = *wiring;
    let veth = wiring.veth().await?;
    let end = LinkUnspec::new_with_index(veth).address(MAC.to_vec()).up();
    links.set(end.build()).await?;
    let proxy_arp = format!("net/ipv4/conf/{interface}/proxy_arp");
    sysctl(node, &[(&proxy_arp, "1")])?;
    links.no_proxy_delay(veth).await?;
    wiring.routes_back(veth).await?;
    let alone = |net: &Net| net.pod_cidr.max_prefix_len();
    let (inside, eth0) = wiring.inside(alone).await?;
    for net in nets {
        let gateway = gateway(net.family);
        if net.family == IpFamily::V4 {
            inside.route(to_host(gateway, eth0)).await?;
        }
        inside
            .route(to_everything(net.family).by(gateway).through(eth0))
            .await?;
    }
    Ok(())
}
