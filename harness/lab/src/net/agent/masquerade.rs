//! What leaves the pods' network takes the node's address, since nobody outside knows the way back.
//!
//! That includes traffic to other nodes, but not to the pod's own, which never leaves it. Flannel
//! (`--ip-masq`), kindnet and Calico (`natOutgoing`) draw the same line. Between pods nothing is ever
//! translated.

use ipnet::Ipv4Net;

use crate::net::cni::Cni;
use crate::topology::POD_CIDR;

/// A table of the plugin's own, by the name that it has where the plugin uses nftables.
const fn table(cni: Cni) -> &'static str {
    match cni {
        Cni::Vxlan => "vxlan-cni",
        Cni::Kindnet => "kindnet",
        Cni::Flannel => "flannel-ipv4",
        // Policies have the table that is called as the plugin.
        Cni::Calico => "calico-nat",
    }
}

/// The script that puts the table in place.
pub(super) fn rules(cni: Cni) -> anyhow::Result<String> {
    let pods: Ipv4Net = POD_CIDR.parse()?;
    let table = table(cni);
    Ok(format!(
        r#"add table ip {table} {{ comment "masquerading of pods' traffic out of the cluster" ; }}
add chain ip {table} postrouting {{ type nat hook postrouting priority 100 ; }}
flush chain ip {table} postrouting
add rule ip {table} postrouting ip saddr != {pods} return
add rule ip {table} postrouting ip daddr {pods} return
add rule ip {table} postrouting ip daddr 224.0.0.0/4 return
add rule ip {table} postrouting masquerade fully-random
"#
    ))
}
