//! The network: namespaces, the underlay, the CNI data path, the Service proxy and DNS.
//!
//! Start from [`builtins`], the components that run on the nodes, and [`underlay::join`], which
//! gives them something to run on. Which CNI is [`cni::Cni`]'s to say: a pod's own link is the
//! kubelet's doing, through [`cni::NodePods`]; what is between nodes is the [`agent`]'s, and so are
//! policies; Services are the [`proxy`]'s. Rule: each of them owns what carries its name, and touches
//! nothing else.
//!
//! ```text
//! pod ─ veth ─ node ─ vxlan0 ─┐
//!               │             ├─ eth0 ─ underlay ─ outside
//!               └─ nftables ──┘
//! ```

pub mod agent;
pub mod balancer;
pub mod cni;
mod conntrack;
pub mod dns;
mod kept;
mod link;
mod nftables;
pub mod policy;
pub mod proxy;
mod route;
pub mod underlay;

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;

use self::cni::Cni;
use crate::builtin::Builtins;

/// A hardware address made from an address, as `kubenet` did it: everybody knows it at once.
fn mac(address: IpAddr) -> [u8; 6] {
    let octets: [u8; 4] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    let [a, b, c, d] = octets;
    [0x0a, 0x58, a, b, c, d]
}

/// The ClusterIPs of a Service, one a family; none of a headless one.
fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let first = spec
        .cluster_ip
        .iter()
        .filter(|_| spec.cluster_ips.is_none());
    let all = first.chain(spec.cluster_ips.iter().flatten());
    all.filter_map(|ip| ip.parse().ok()).collect()
}

/// Adds the network's components to the lab's.
#[must_use]
pub fn builtins(builtins: Builtins) -> Builtins {
    builtins
        .with("coredns", |context| Box::pin(dns::run(context)))
        .with("kube-proxy", |context| Box::pin(proxy::run(context)))
        .with("vxlan-cni", |context| {
            Box::pin(agent::run(context, Cni::Vxlan))
        })
        .with("kindnetd", |context| {
            Box::pin(agent::run(context, Cni::Kindnet))
        })
        .with("flannel", |context| {
            Box::pin(agent::run(context, Cni::Flannel))
        })
        .with("calico-node", |context| {
            Box::pin(agent::run(context, Cni::Calico))
        })
}
