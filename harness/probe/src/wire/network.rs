//! A network namespace as seen from inside: the one line that `routes` writes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Interfaces and main routing table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// In the kernel's order.
    pub interfaces: Vec<Interface>,
    /// IPv4, then IPv6; of IPv6 only what is not link-local or multicast.
    pub routes: Vec<Route>,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// IFF_UP.
    pub up: bool,
    /// `10.244.1.5/32`.
    pub addresses: Vec<String>,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// `0.0.0.0/0` for the default route.
    pub destination: String,
    /// Absent if the destination is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Its interface.
    pub interface: String,
    /// Its metric.
    pub metric: u32,
}
