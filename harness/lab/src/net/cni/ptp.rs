//! As the `ptp` plugin: a veth pair, the node as the pod's only neighbour, a host route back.
//!
//! There is no bridge: pods of one node reach each other through the node's routing too.

use super::{Net, Wiring};
use crate::net::route::{to, to_everything, to_host};

pub(super) async fn connect(wiring: &Wiring<'_>) -> anyhow::Result<()> {
    let veth = wiring.veth().await?;
    for net in wiring.nets {
        let alone = net.pod_cidr.max_prefix_len();
        wiring.links.address(veth, net.gateway, alone).await?;
    }
    wiring.links.up(veth).await?;
    wiring.routes_back(veth).await?;
    let alone = |net: &Net| net.pod_cidr.max_prefix_len();
    let (inside, eth0) = wiring.inside(alone).await?;
    for net in wiring.nets {
        // The node's own network and everything else, each through the gateway.
        let routes = [
            to_host(net.gateway, eth0),
            to(net.pod_cidr).by(net.gateway),
            to_everything(net.family).by(net.gateway),
        ];
        for route in routes {
            inside.route(route.from(net.address)).await?;
        }
    }
    Ok(())
}
