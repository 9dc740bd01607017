//! As the `ptp` plugin: a veth pair, the node as the pod's only neighbour, a host route back.
//!
//! There is no bridge: pods of one node reach each other through the node's routing too.

use super::Wiring;
use super::addresses::gateway;
use crate::net::link::{to, to_everything, to_host};

pub(super) async fn connect(wiring: &Wiring<'_>) -> anyhow::Result<()> {
    let Wiring {
        links,
        pod_cidr,
        address,
        ..
    } = *wiring;
    let gateway = gateway(pod_cidr);
    let veth = wiring.veth().await?;
    links.address(veth, gateway, 32).await?;
    links.up(veth).await?;
    links.route(to_host(address, veth).build()).await?;
    let (inside, eth0) = wiring.inside(32).await?;
    // The node's own network and everything else, each through the gateway.
    let routes = [
        to_host(gateway, eth0),
        to(pod_cidr).gateway(gateway),
        to_everything().gateway(gateway),
    ];
    for route in routes {
        inside.route(route.pref_source(address).build()).await?;
    }
    Ok(())
}
