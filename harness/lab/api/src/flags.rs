//! What a cluster's owner tells `kube-apiserver` by flags; and the version that it is built as.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::family::IpFamily;

/// The Kubernetes version whose API the lab follows, as `/version` reports it.
pub const KUBERNETES_VERSION: &str = "v1.34.0";
/// The ClusterIP of `default/kubernetes`.
pub const API_CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The port that the API server listens on at the control plane's address.
pub const API_PORT: u16 = 6443;
/// Node ports are allocated from this range.
pub const NODE_PORT_RANGE: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Every ClusterIP of a family is inside this network (`--service-cluster-ip-range`).
#[must_use]
pub const fn service_cidr(family: IpFamily) -> IpNet {
    match family {
        IpFamily::V4 => IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 16),
        IpFamily::V6 => {
            let network = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0);
            IpNet::new_assert(IpAddr::V6(network), 112)
        }
    }
}
