//! The addresses and names that the lab's parts agree on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::api::IpFamily;
pub use crate::api::flags::{
    API_CLUSTER_IP, API_PORT, KUBERNETES_VERSION, NODE_PORT_RANGE, service_cidr,
};

/// The cluster's DNS domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The control plane's node name; workers are `strata-worker`, `strata-worker2`, … as kind names them.
pub const CONTROL_PLANE: &str = "strata-control-plane";
/// The ClusterIP of `kube-system/kube-dns`.
pub const DNS_CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The outside's address on the underlay.
pub const OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// The MTU of the underlay.
pub const UNDERLAY_MTU: u32 = 1500;
/// The prefix of images whose containers are tasks of the lab itself (the components).
pub const BUILTIN_IMAGE_PREFIX: &str = "lab.strata.dev/";
/// The image of the host's own Envoy: its root file system is the binary at `/envoy` and, since
/// Envoy is linked dynamically, the host's loader and C library (`ldd` lists them).
pub const ENVOY_IMAGE: &str = "lab.strata.dev/envoy:v1";
/// On Nodes and Pods: the process id, as the host sees it, of a process in that network namespace.
pub const HOST_PID_ANNOTATION: &str = "lab.strata.dev/host-pid";

/// Where a node says that it is, by its number: the nodes take turns in three zones of one region.
#[must_use]
pub fn locality(number: usize) -> BTreeMap<String, String> {
    let zone = ["lab-a", "lab-b", "lab-c"][number % 3];
    let labels = [
        ("topology.kubernetes.io/region", "lab"),
        ("topology.kubernetes.io/zone", zone),
    ];
    let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
    labels.into()
}

/// The address families that a cluster has, by the names that kind has for them
/// (`networking.ipFamily`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamilies {
    /// IPv4 only.
    #[default]
    Ipv4,
    /// Both, IPv4 first: pods and nodes have an address of each, Services as they ask for.
    Dual,
}

impl IpFamilies {
    /// All choices.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Dual];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Dual => "dual",
        }
    }

    /// The families, the first that of whatever asks for none.
    #[must_use]
    pub const fn each(self) -> &'static [IpFamily] {
        match self {
            Self::Ipv4 => &[IpFamily::V4],
            Self::Dual => &[IpFamily::V4, IpFamily::V6],
        }
    }

    /// Says why this kernel cannot have them.
    ///
    /// # Errors
    /// When IPv6 is asked for and the kernel has none.
    pub fn check(self) -> anyhow::Result<()> {
        let there = std::fs::exists("/proc/sys/net/ipv6").unwrap_or_default();
        anyhow::ensure!(
            self == Self::Ipv4 || there,
            "two address families need IPv6, which this kernel has not (no /proc/sys/net/ipv6); \
             choose ipv4 alone"
        );
        Ok(())
    }
}

impl fmt::Display for IpFamilies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for IpFamilies {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(" or ");
            format!("{name} is none of the lab's IP families; choose {names}")
        })
    }
}

/// Every pod's address of a family is inside this network; each node owns a part of it.
#[must_use]
pub const fn pod_cidr(family: IpFamily) -> IpNet {
    match family {
        IpFamily::V4 => IpNet::new_assert(v4([10, 244, 0, 0]), 16),
        IpFamily::V6 => IpNet::new_assert(v6([0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0]), 56),
    }
}

/// How long the prefix of a node's part of [`pod_cidr`] is (`--node-cidr-mask-size`).
#[must_use]
pub const fn node_cidr_mask_size(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 24,
        IpFamily::V6 => 64,
    }
}

/// The underlay that joins the nodes and the outside; the outside itself is its first address, the
/// control plane the second, the workers follow.
#[must_use]
pub const fn underlay_cidr(family: IpFamily) -> IpNet {
    match family {
        IpFamily::V4 => IpNet::new_assert(v4([172, 30, 0, 0]), 24),
        IpFamily::V6 => IpNet::new_assert(v6([0xfd00, 0x172, 0x30, 0, 0, 0, 0, 0]), 64),
    }
}

/// Addresses of `type: LoadBalancer` Services; the outside routes this network to the nodes.
#[must_use]
pub const fn load_balancer_cidr(family: IpFamily) -> IpNet {
    match family {
        IpFamily::V4 => IpNet::new_assert(v4([172, 30, 1, 0]), 24),
        IpFamily::V6 => IpNet::new_assert(v6([0xfd00, 0x172, 0x30, 1, 0, 0, 0, 0]), 112),
    }
}

/// The address of a network that is this far from its own.
#[must_use]
pub fn nth(network: IpNet, offset: u32) -> IpAddr {
    match network.network() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + offset).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(offset)).into()),
    }
}

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn families_are_chosen_by_kinds_names() {
        for one in IpFamilies::ALL {
            assert_eq!(one.name().parse(), Ok(one));
        }
        assert_eq!(
            "ipv6".parse::<IpFamilies>().unwrap_err(),
            "ipv6 is none of the lab's IP families; choose ipv4 or dual"
        );
    }

    #[test]
    fn addresses_are_counted_from_their_networks() {
        let outside = nth(underlay_cidr(IpFamily::V4), 1);
        assert_eq!(outside, IpAddr::V4(OUTSIDE_IP));
        let second = nth(underlay_cidr(IpFamily::V6), 2);
        assert_eq!(second.to_string(), "fd00:172:30::2");
    }
}
