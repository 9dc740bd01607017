//! As the `bridge` plugin by Flannel's configuration: a bridge on each node, the gateway on it, and
//! `hairpinMode`.
//!
//! Pods of one node are neighbours: frames between them never leave the bridge. Rules see them all the
//! same, by `br_netfilter`; without it, the answer of a Service's endpoint on the client's own node
//! goes straight back, translated by nobody, and the client refuses it.

use rtnetlink::{LinkBridge, LinkBridgePort, LinkUnspec};

use super::Wiring;
use super::addresses::gateway;
use crate::net::link::{sysctl, to_everything};

/// The bridge, as Flannel calls it.
pub(super) const BRIDGE: &str = "cni0";
/// The kernel parameter that has nftables see what a bridge passes on.
pub(super) const CALL_IPTABLES: &str = "net/bridge/bridge-nf-call-iptables";

pub(super) async fn connect(wiring: &Wiring<'_>) -> anyhow::Result<()> {
    let Wiring {
        links, pod_cidr, ..
    } = *wiring;
    let bridge = bridge(wiring).await?;
    let veth = wiring.veth().await?;
    let port = LinkUnspec::new_with_index(veth).controller(bridge).up();
    links.set(port.build()).await?;
    // A pod that reaches itself through a Service comes back by the port that it came from.
    let hairpin = LinkBridgePort::new(veth).hairpin(true);
    links.set_port(hairpin.build()).await?;
    let (inside, _) = wiring.inside(pod_cidr.prefix_len()).await?;
    let default = to_everything().gateway(gateway(pod_cidr));
    inside.route(default.build()).await
}

/// The bridge, made with the node's first pod.
async fn bridge(wiring: &Wiring<'_>) -> anyhow::Result<u32> {
    let Wiring {
        node,
        links,
        pod_cidr,
        shared,
        mtu,
        ..
    } = *wiring;
    let _alone = shared.lock().await;
    if let Some(found) = links.find(BRIDGE).await? {
        return Ok(found.header.index);
    }
    let gateway = gateway(pod_cidr);
    let [a, b, c, d] = gateway.octets();
    // One of its own; else it is the lowest of its ports', and changes as pods come and go.
    let mac = vec![0x0a, 0x58, a, b, c, d];
    let message = LinkBridge::new(BRIDGE).mtu(mtu).address(mac).build();
    links.add(BRIDGE, message).await?;
    let index = links.index(BRIDGE).await?;
    links.address(index, gateway, pod_cidr.prefix_len()).await?;
    // What a node is prepared with, not what the plugin does: who switches it off has it off.
    sysctl(node, &[(CALL_IPTABLES, "1")])?;
    links.up(index).await?;
    Ok(index)
}
