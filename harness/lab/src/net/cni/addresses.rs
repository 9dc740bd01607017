//! Which addresses of a node's network are whose, as the `host-local` plugin keeps it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::bail;
use ipnet::Ipv4Net;

/// The address that a node keeps for itself: the first of its network.
pub(super) fn gateway(pod_cidr: Ipv4Net) -> Ipv4Addr {
    pod_cidr.hosts().next().unwrap_or(pod_cidr.network())
}

/// The addresses of a node's network, handed out in order and round again, so that the address of a
/// pod that is gone answers nobody for as long as possible.
pub(super) struct Addresses {
    network: Ipv4Net,
    last: Ipv4Addr,
    taken: BTreeMap<Ipv4Addr, String>,
}

impl Addresses {
    pub(super) fn new(network: Ipv4Net) -> Self {
        Self {
            network,
            last: gateway(network),
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, id: &str) -> anyhow::Result<Ipv4Addr> {
        self.release(id);
        // Without the network's own address, the gateway, and broadcast.
        let usable = || self.network.hosts().skip(1);
        let after = usable().filter(|address| *address > self.last);
        let before = usable().filter(|address| *address <= self.last);
        let free = after
            .chain(before)
            .find(|address| !self.taken.contains_key(address));
        let Some(address) = free else {
            bail!(
                "no address is free in {}: all {} are taken by pods of this node",
                self.network,
                self.taken.len()
            );
        };
        self.last = address;
        self.taken.insert(address, id.to_owned());
        Ok(address)
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
    fn every_address_is_usable_but_three() {
        let mut addresses = addresses("10.244.1.0/24");
        let all: Vec<_> = (0..253)
            .map(|pod| addresses.take(&pod.to_string()).unwrap().octets()[3])
            .collect();
        assert_eq!(all, (2..=254).collect::<Vec<_>>());
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
