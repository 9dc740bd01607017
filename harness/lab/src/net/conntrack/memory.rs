//! Which UDP flows can be stale. Pure.
//!
//! Start from [`Memory::suspects`]. For each question the kernel walks through all that it remembers, of every
//! namespace, which takes 10 ms and more; so it is asked only where there can be something to forget:
//!
//! | the front | its flows are looked at |
//! | --- | --- |
//! | not known, at an address that is refused without a Service | no: there can be none |
//! | not known, elsewhere | yes: they began before it |
//! | known, and its flows can lead to its endpoints alone | no |
//! | known, and has lost an endpoint | yes |
//!
//! Nothing begins either while a front has no endpoint, since it is refused then, too. Rule: all of this holds only
//! while the rules are as they were said; whoever had to say them all anew calls [`Memory::distrust`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Flow, Front, UDP, UdpServices};
use crate::topology::IpFamily;

impl Front {
    /// Whether what is sent there goes to this front.
    fn takes(&self, (address, port): (IpAddr, u16)) -> bool {
        let own = self.address.is_none_or(|own| own == address);
        own && self.port == port && self.family == IpFamily::of(address)
    }
}

/// Where the flows of a node may lead.
pub(in crate::net) struct Memory {
    /// Networks whose addresses are refused without a Service.
    refused: Vec<IpNet>,
    /// Where the flows to each front may lead; nothing is known at first.
    known: Option<UdpServices>,
}

impl Memory {
    /// Of a node whose rules refuse what is sent to these networks and is for no Service.
    pub(in crate::net) fn of(refused: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            refused: refused.into_iter().collect(),
            known: None,
        }
    }

    /// The rules may have been others than were said: any flow may be there, and lead anywhere.
    pub(in crate::net) fn distrust(&mut self) {
        self.known = None;
    }

    /// The flows that can be stale.
    pub(super) fn suspects(&self, now: &UdpServices) -> Suspects {
        let Some(known) = &self.known else {
            return Suspects {
                services: now.clone(),
                nobodys: self.refused.clone(),
            };
        };
        let settled = |front: &Front, endpoints: &BTreeSet<_>| match known.get(front) {
            Some(known) => known.is_subset(endpoints),
            None => self.refuses(front),
        };
        let suspected = now
            .iter()
            .filter(|(front, endpoints)| !settled(front, endpoints));
        Suspects::all(
            suspected
                .map(|(front, endpoints)| (*front, endpoints.clone()))
                .collect(),
        )
    }

    /// What was stale is forgotten.
    pub(super) fn learn(&mut self, now: UdpServices) {
        let mut known = self.known.take().unwrap_or_default();
        // The flows to a Service that is gone go on as they were, and another may come to have its address.
        known.retain(|front, endpoints| self.refuses(front) && !endpoints.is_empty());
        known.extend(now);
        self.known = Some(known);
    }

    fn refuses(&self, front: &Front) -> bool {
        let refused = |address| {
            self.refused
                .iter()
                .any(|network| network.contains(&address))
        };
        front.address.is_some_and(refused)
    }
}

/// Flows that can be stale.
#[derive(Debug)]
pub(super) struct Suspects {
    /// Those to these fronts, unless they lead to an endpoint.
    services: UdpServices,
    /// Those to other addresses of these networks, which should have been refused.
    nobodys: Vec<IpNet>,
}

impl Suspects {
    /// Any to these Services.
    pub(super) fn all(services: UdpServices) -> Self {
        Self {
            services,
            nobodys: Vec::new(),
        }
    }

    /// Of which families there can be any.
    pub(super) fn families(&self) -> BTreeSet<IpFamily> {
        let networks = self.nobodys.iter();
        let networks = networks.map(|network| IpFamily::of(network.addr()));
        let fronts = self.services.keys().map(|front| front.family);
        fronts.chain(networks).collect()
    }

    /// Whether this is one of them, and leads elsewhere than it should.
    pub(super) fn is_stale(&self, flow: &Flow) -> bool {
        let services = self.services.iter();
        let mut meant = services
            .filter(|(front, _)| front.takes(flow.to))
            .peekable();
        flow.protocol == UDP
            && match meant.peek() {
                Some(_) => meant.any(|(_, endpoints)| !endpoints.contains(&flow.answered_by)),
                None => {
                    let mut networks = self.nobodys.iter();
                    networks.any(|network| network.contains(&flow.to.0))
                }
            }
    }
}

#[cfg(test)]
mod tests;
