//! Which addresses of a node's network are whose, as the `host-local` plugin keeps it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::bail;
use ipnet::IpNet;

use crate::topology::nth;

/// The address that a node keeps for itself: the first of its network.
pub(super) fn gateway(pod_cidr: IpNet) -> IpAddr {
    nth(pod_cidr, GATEWAY)
}

/// How far the gateway is from the network's own address.
const GATEWAY: u32 = 1;
/// Of how many bits of a larger network use is made: no node has more pods than that.
const MOST_BITS: u8 = 16;

/// The addresses of a node's network, handed out in order and round again, so that the address of a
/// pod that is gone answers nobody for as long as possible.
pub(super) struct Addresses {
    network: IpNet,
    /// How far from the network's own the one handed out last is.
    last: u32,
    taken: BTreeMap<u32, String>,
}

impl Addresses {
    pub(super) fn new(network: IpNet) -> Self {
        Self {
            network,
            last: GATEWAY,
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, id: &str) -> anyhow::Result<IpAddr> {
        self.release(id);
        // Without the network's own address, the gateway, and broadcast, which IPv6 has not.
        let bits = (self.network.max_prefix_len() - self.network.prefix_len()).min(MOST_BITS);
        let end = (1_u32 << bits).saturating_sub(1);
        let after = self.last + 1..end;
        let before = GATEWAY + 1..end.min(self.last + 1);
        let mut offsets = after.chain(before);
        let Some(offset) = offsets.find(|offset| !self.taken.contains_key(offset)) else {
            bail!(
                "no address is free in {}: all {} are taken by pods of this node",
                self.network,
                self.taken.len()
            );
        };
        self.last = offset;
        self.taken.insert(offset, id.to_owned());
        Ok(nth(self.network, offset))
    }

    pub(super) fn release(&mut self, id: &str) {
        self.taken.retain(|_, owner| owner != id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn addresses(network: &str) -> Addresses {
        Addresses::new(network.parse().unwrap())
    }

    #[test]
    fn addresses_are_handed_out_in_order_and_not_reused_at_once() {
        let mut addresses = addresses("10.244.1.0/24");
        let mut take = |id: &str| addresses.take(id).unwrap().to_string();
        assert_eq!(take("a"), "10.244.1.2");
        assert_eq!(take("b"), "10.244.1.3");
        // The same pod, in a new sandbox.
        assert_eq!(take("a"), "10.244.1.4");
        addresses.release("b");
        assert_eq!(addresses.take("c").unwrap().to_string(), "10.244.1.5");
    }

    #[test]
    fn a_network_of_ipv6_is_used_from_its_beginning() {
        let mut addresses = addresses("fd00:10:244:1::/64");
        assert_eq!(gateway(addresses.network).to_string(), "fd00:10:244:1::1");
        let taken = ["a", "b"].map(|id| addresses.take(id).unwrap().to_string());
        assert_eq!(taken, ["fd00:10:244:1::2", "fd00:10:244:1::3"]);
    }

    #[test]
    fn every_address_is_usable_but_three() {
        let mut addresses = addresses("10.244.1.0/24");
        let all: Vec<_> = (0..253)
            .map(|pod| addresses.take(&pod.to_string()).unwrap().to_string())
            .collect();
        let expected = (2..=254).map(|last| format!("10.244.1.{last}"));
        assert_eq!(all, expected.collect::<Vec<_>>());
        assert_eq!(
            addresses.take("one more").unwrap_err().to_string(),
            "no address is free in 10.244.1.0/24: all 253 are taken by pods of this node"
        );
        addresses.release("7");
        assert_eq!(
            addresses.take("one more").unwrap().to_string(),
            "10.244.1.9"
        );
    }
}
