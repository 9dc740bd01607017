//! The ports of a Gateway: those that clients know, and those where its Envoy listens.
//!
//! Start from [`ports`].

use std::collections::{BTreeMap, BTreeSet};

use super::VERSION_PORT;
use super::listener::{Listener, Protocol};
use crate::l7::envoy::READY_PORT;

/// Ports of Envoy's own, in its pod.
const RESERVED: [u16; 3] = [15000, READY_PORT, VERSION_PORT];

/// A port of a Gateway: clients know it by one number, Envoy by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    /// Its name in the Service.
    pub(super) name: String,
    /// The listeners' port.
    pub(super) port: u16,
    /// The port in Envoy's pod, which needs no privilege.
    pub(super) target: u16,
    /// Whether it is one of datagrams.
    pub(super) datagrams: bool,
}

impl Port {
    /// Whether a listener is served at it.
    pub(super) fn has(&self, listener: &Listener<'_>) -> bool {
        listener.port == self.port
            && listener.is_of_datagrams() == self.datagrams
            && listener.served().is_some()
    }
}

/// The ports of the listeners that are served: their own where that needs no privilege.
pub(super) fn ports(listeners: &[Listener<'_>]) -> Vec<Port> {
    let served = listeners
        .iter()
        .filter_map(|listener| Some((listener.port, listener.served()?)));
    let (datagrams, streams): (Vec<_>, Vec<_>) =
        served.partition(|(_, protocol)| *protocol == Protocol::Udp);
    let mut ports = of_transport(streams.into_iter().collect());
    ports.extend(of_transport(datagrams.into_iter().collect()));
    ports
}

fn of_transport(asked: BTreeMap<u16, Protocol>) -> Vec<Port> {
    let free = |port: &u16| *port >= 1024 && !RESERVED.contains(port);
    let mut taken: BTreeSet<u16> = asked.keys().copied().filter(free).collect();
    asked
        .iter()
        .map(|(&port, protocol)| {
            let mut target = port;
            if !free(&port) {
                // 80 becomes 8080, 443 becomes 8443.
                target = port.checked_add(8000).unwrap_or(8000);
                while !free(&target) || taken.contains(&target) {
                    target = target.checked_add(1).unwrap_or(1024);
                }
                taken.insert(target);
            }
            Port {
                name: format!("{}-{port}", protocol.name()),
                port,
                target,
                datagrams: *protocol == Protocol::Udp,
            }
        })
        .collect()
}
