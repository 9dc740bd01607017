//! What one Service means in DNS.
//!
//! Start from [`Part::of`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::{CNAME, PTR, SRV};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt as _;

use super::{Entry, TTL, address_record, name, reverse, services_domain};
use crate::net::cluster_ips;

/// What one Service means in DNS.
#[derive(Debug, Default)]
pub(in crate::net::dns) struct Part {
    pub(super) records: Records,
    /// By the names of its endpoints' addresses, what they are called by it.
    pub(super) hosts: Records,
    /// The names of its own addresses.
    pub(super) own: BTreeSet<Arc<str>>,
    /// Its domain and addresses, if it is the zone's name server.
    pub(super) server: Option<(String, Vec<IpAddr>)>,
}

/// Records by their names.
pub(super) type Records = BTreeMap<Arc<str>, Vec<Entry>>;

impl Part {
    pub(super) fn of(service: &Service, slices: &[Arc<EndpointSlice>], own: &[IpAddr]) -> Self {
        let mut part = Self::default();
        let Some(spec) = &service.spec else {
            return part;
        };
        let namespace = service.namespace().unwrap_or_default();
        let domain = format!("{}.{namespace}.{}", service.name_any(), services_domain());
        let addresses = cluster_ips(spec);
        part.own = addresses.iter().map(|ip| reverse(*ip).into()).collect();
        part.add_service(&domain, spec, slices);
        for (address, endpoint) in slices.iter().flat_map(|slice| ready(slice)) {
            if own.contains(&address) {
                let addresses = addresses.clone();
                part.server = (!addresses.is_empty()).then(|| (domain.clone(), addresses));
            }
            let host = format!("{}.{domain}", hostname(address, endpoint));
            let entry = Entry {
                ttl: TTL,
                data: RData::PTR(PTR(name(&host))),
            };
            let of_address = part.hosts.entry(reverse(address).into());
            of_address.or_default().push(entry);
        }
        part
    }

    /// The names that it says something of.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let records = self.records.keys().chain(self.hosts.keys());
        records.chain(&self.own)
    }

    fn add(&mut self, text: &str, ttl: u32, data: RData) {
        let of_name = self.records.entry(text.into()).or_default();
        of_name.push(Entry { ttl, data });
    }

    fn add_service(&mut self, domain: &str, spec: &ServiceSpec, slices: &[Arc<EndpointSlice>]) {
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref().unwrap_or_default();
            // An address is no name: CoreDNS does not answer with it either.
            if target.parse::<std::net::IpAddr>().is_err() && !target.is_empty() {
                self.add(domain, TTL, RData::CNAME(CNAME(name(target))));
            }
            return;
        }
        let addresses = cluster_ips(spec);
        for address in &addresses {
            self.add(domain, TTL, address_record(*address));
            self.add(&reverse(*address), TTL, RData::PTR(PTR(name(domain))));
        }
        if !addresses.is_empty() {
            let ports: Vec<Port> = spec
                .ports
                .iter()
                .flatten()
                .map(|port| Port {
                    name: port.name.clone().unwrap_or_default(),
                    protocol: port.protocol.clone().unwrap_or_default(),
                    number: port.port,
                })
                .collect();
            self.add_ports(domain, &ports, &[domain.to_owned()]);
        }
        let headless = spec.cluster_ip.as_deref() == Some("None");
        let mut served: BTreeMap<Port, BTreeSet<String>> = BTreeMap::new();
        for slice in slices {
            for (address, endpoint) in ready(slice) {
                let host = format!("{}.{domain}", hostname(address, endpoint));
                self.add(&host, TTL, address_record(address));
                if !headless {
                    continue;
                }
                self.add(domain, TTL, address_record(address));
                for port in slice.ports.iter().flatten() {
                    let port = Port {
                        name: port.name.clone().unwrap_or_default(),
                        protocol: port.protocol.clone().unwrap_or_default(),
                        number: port.port.unwrap_or_default(),
                    };
                    served.entry(port).or_default().insert(host.clone());
                }
            }
        }
        if headless {
            // The weights of one name are of all its ports' targets together.
            let mut by_name: BTreeMap<String, Vec<(Port, String)>> = BTreeMap::new();
            for (port, hosts) in served {
                for host in hosts {
                    let one = (port.clone(), host);
                    by_name
                        .entry(domain.to_owned())
                        .or_default()
                        .push(one.clone());
                    if let Some(label) = one.0.label() {
                        let name = format!("{label}.{domain}");
                        by_name.entry(name).or_default().push(one);
                    }
                }
            }
            for (name, targets) in by_name {
                self.add_targets(&name, &targets);
            }
        }
    }

    fn add_ports(&mut self, domain: &str, ports: &[Port], hosts: &[String]) {
        let all: Vec<(Port, String)> = ports
            .iter()
            .flat_map(|port| hosts.iter().map(|host| (port.clone(), host.clone())))
            .collect();
        self.add_targets(domain, &all);
        for port in ports {
            if let Some(label) = port.label() {
                let targets: Vec<(Port, String)> = hosts
                    .iter()
                    .map(|host| (port.clone(), host.clone()))
                    .collect();
                self.add_targets(&format!("{label}.{domain}"), &targets);
            }
        }
    }

    fn add_targets(&mut self, owner: &str, targets: &[(Port, String)]) {
        let weight = u16::try_from(100 / targets.len().max(1))
            .unwrap_or(1)
            .max(1);
        for (port, host) in targets {
            let number = u16::try_from(port.number).unwrap_or_default();
            let data = RData::SRV(SRV::new(0, weight, number, name(host)));
            self.add(owner, TTL, data);
        }
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    protocol: String,
    number: i32,
}

impl Port {
    /// `_http._tcp`; none for a port without a name.
    fn label(&self) -> Option<String> {
        let protocol = self.protocol.to_lowercase();
        (!self.name.is_empty()).then(|| format!("_{}._{protocol}", self.name.to_lowercase()))
    }
}

/// The addresses that take connections. What is ending is not ready, and what is not ready is, where
/// the Service publishes it: the EndpointSlice says so.
fn ready(slice: &EndpointSlice) -> impl Iterator<Item = (IpAddr, &Endpoint)> {
    slice
        .endpoints
        .iter()
        .filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready) != Some(false)
        })
        .filter_map(|endpoint| Some((endpoint.addresses.first()?.parse().ok()?, endpoint)))
}

/// An endpoint's own label: its hostname, or its address with dashes.
fn hostname(address: IpAddr, endpoint: &Endpoint) -> String {
    let given = endpoint.hostname.clone().filter(|name| !name.is_empty());
    given.unwrap_or_else(|| address.to_string().replace(['.', ':'], "-"))
}
