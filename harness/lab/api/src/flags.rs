//! What a cluster's owner tells `kube-apiserver` by flags; and the version that it is built as.

use std::net::Ipv4Addr;

/// The Kubernetes version whose API the lab follows, as `/version` reports it.
pub const KUBERNETES_VERSION: &str = "v1.34.0";
/// Every ClusterIP is inside this network.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The ClusterIP of `default/kubernetes`.
pub const API_CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The port that the API server listens on at the control plane's address.
pub const API_PORT: u16 = 6443;
/// Node ports are allocated from this range.
pub const NODE_PORT_RANGE: std::ops::RangeInclusive<u16> = 30000..=32767;
