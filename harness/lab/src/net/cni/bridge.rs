//! As the `bridge` plugin by Flannel's configuration: a bridge on each node, the gateway on it, and
//! `hairpinMode`.
//!
//! Pods of one node are neighbours: frames between them never leave the bridge. Rules see them all the
//! same, by `br_netfilter`; without it, the answer of a Service's endpoint on the client's own node
//! goes straight back, translated by nobody, and the client refuses it.

use rtnetlink::{LinkBridge, LinkBridgePort, LinkUnspec};

use super::{Net, Wiring};
use crate::net::link::sysctl;
use crate::net::mac;
use crate::net::route::to_everything;
use crate::topology::IpFamily;

/// The bridge, as Flannel calls it.
pub(super) const BRIDGE: &str = "cni0";
/// The kernel parameter that has nftables see what a bridge passes on.
pub(super) const CALL_IPTABLES: &str = "net/bridge/bridge-nf-call-iptables";
/// The same for IPv6.
const CALL_IP6TABLES: &str = "net/bridge/bridge-nf-call-ip6tables";

pub(super) async fn connect(wiring: &Wiring<'_>) -> anyhow::Result<()> {
    let links = wiring.links;
    let bridge = bridge(wiring).await?;
    let veth = wiring.veth().await?;
    let port = LinkUnspec::new_with_index(veth).controller(bridge).up();
    links.set(port.build()).await?;
    // A pod that reaches itself through a Service comes back by the port that it came from.
    let hairpin = LinkBridgePort::new(veth).hairpin(true);
    links.set_port(hairpin.build()).await?;
    let as_neighbours = |net: &Net| net.pod_cidr.prefix_len();
    let (inside, _) = wiring.inside(as_neighbours).await?;
    for net in wiring.nets {
        inside
            .route(to_everything(net.family).by(net.gateway))
            .await?;
    }
    Ok(())
}

/// The bridge, made with the node's first pod.
async fn bridge(wiring: &Wiring<'_>) -> anyhow::Result<u32> {
    let Wiring {
        node,
        links,
        nets,
        shared,
        mtu,
        ..
    } = *wiring;
    let _alone = shared.lock().await;
    if let Some(found) = links.find(BRIDGE).await? {
        return Ok(found.header.index);
    }
    let mut message = LinkBridge::new(BRIDGE).mtu(mtu);
    if let Some(net) = nets.first() {
        // One of its own; else it is the lowest of its ports', and changes as pods come and go.
        message = message.address(mac(net.gateway).to_vec());
    }
    links.add(BRIDGE, message.build()).await?;
    let index = links.index(BRIDGE).await?;
    for net in nets {
        links
            .address(index, net.gateway, net.pod_cidr.prefix_len())
            .await?;
        // What a node is prepared with, not what the plugin does: who switches it off has it off.
        let sees = match net.family {
            IpFamily::V4 => CALL_IPTABLES,
            IpFamily::V6 => CALL_IP6TABLES,
        };
        sysctl(node, &[(sees, "1")])?;
    }
    links.up(index).await?;
    Ok(index)
}
