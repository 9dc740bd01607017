//! What leaves the pods' network takes the node's address, since nobody outside knows the way back.
//!
//! That includes traffic to other nodes, but not to the pod's own, which never leaves it. Flannel
//! (`--ip-masq`), kindnet and Calico (`natOutgoing`) draw the same line. Between pods nothing is ever
//! translated. Nor are the packets of the overlay itself, whose source ports are as many as the flows inside: where
//! the plugin is our own, they are not even remembered, as with Calico.

use super::vxlan::PORT;
use crate::net::cni::Cni;
use crate::net::nftables::word;
use crate::topology::{IpFamily, pod_cidr};

/// A table of the plugin's own, by the name that it has where the plugin uses nftables.
const fn table(cni: Cni, family: IpFamily) -> &'static str {
    match cni {
        Cni::Vxlan => "vxlan-cni",
        Cni::Kindnet => "kindnet",
        Cni::Flannel => match family {
            IpFamily::V4 => "flannel-ipv4",
            IpFamily::V6 => "flannel-ipv6",
        },
        // Policies have the table that is called as the plugin.
        Cni::Calico => "calico-nat",
    }
}

/// The script that puts the table in place.
pub(super) fn rules(cni: Cni, family: IpFamily) -> String {
    let (ip, pods, table) = (word(family), pod_cidr(family), table(cni, family));
    let multicast = match family {
        IpFamily::V4 => "224.0.0.0/4",
        IpFamily::V6 => "ff00::/8",
    };
    let overlay = match cni {
        Cni::Vxlan => untracked(ip, table),
        Cni::Kindnet | Cni::Flannel | Cni::Calico => String::new(),
    };
    format!(
        r#"add table {ip} {table} {{ comment "masquerading of pods' traffic out of the cluster" ; }}
add chain {ip} {table} postrouting {{ type nat hook postrouting priority 100 ; }}
flush chain {ip} {table} postrouting
add rule {ip} {table} postrouting {ip} saddr != {pods} return
add rule {ip} {table} postrouting {ip} daddr {pods} return
add rule {ip} {table} postrouting {ip} daddr {multicast} return
add rule {ip} {table} postrouting masquerade fully-random
{overlay}"#
    )
}

/// Keeps the overlay's packets out of connection tracking.
fn untracked(ip: &str, table: &str) -> String {
    let chain = |hook: &str| {
        format!(
            "add chain {ip} {table} raw-{hook} {{ type filter hook {hook} priority raw ; }}
flush chain {ip} {table} raw-{hook}
add rule {ip} {table} raw-{hook} udp dport {PORT} notrack
"
        )
    };
    [chain("prerouting"), chain("output")].concat()
}
