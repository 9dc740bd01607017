//! The addresses and names that the lab's parts agree on.

use std::net::Ipv4Addr;

pub use crate::api::flags::{
    API_CLUSTER_IP, API_PORT, KUBERNETES_VERSION, NODE_PORT_RANGE, SERVICE_CIDR,
};

/// The cluster's DNS domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The control plane's node name; workers are `strata-worker`, `strata-worker2`, … as kind names them.
pub const CONTROL_PLANE: &str = "strata-control-plane";
/// Every pod's address is inside this network; each node owns a /24 of it.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// The ClusterIP of `kube-system/kube-dns`.
pub const DNS_CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The underlay that joins the nodes and the outside; the outside itself is `.1`, the control
/// plane `.2`, the workers follow.
pub const UNDERLAY_CIDR: &str = "172.30.0.0/24";
/// The outside's address on the underlay.
pub const OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// Addresses of `type: LoadBalancer` Services; the outside routes this network to the nodes.
pub const LOAD_BALANCER_CIDR: &str = "172.30.1.0/24";
/// The MTU of the underlay; a pod's is this less the 50 octets of VXLAN over IPv4 (RFC 7348 §5).
pub const UNDERLAY_MTU: u32 = 1500;
/// The MTU of a pod's interface.
pub const POD_MTU: u32 = UNDERLAY_MTU - 50;
/// The prefix of images whose containers are tasks of the lab itself (the components).
pub const BUILTIN_IMAGE_PREFIX: &str = "lab.strata.dev/";
/// The image of the host's own Envoy: its root file system is the binary at `/envoy` and, since
/// Envoy is linked dynamically, the host's loader and C library (`ldd` lists them).
pub const ENVOY_IMAGE: &str = "lab.strata.dev/envoy:v1";
/// On Nodes and Pods: the process id, as the host sees it, of a process in that network namespace.
pub const HOST_PID_ANNOTATION: &str = "lab.strata.dev/host-pid";
