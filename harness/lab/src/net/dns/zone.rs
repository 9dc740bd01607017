//! What the cluster's objects mean in DNS: a tree of names with their records.
//!
//! Start from [`Zone::of`]. Every name above one with records is in the tree too, without any, so
//! that "no such name" and "no such record" are told apart by looking the name up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt as _;

use crate::net::cluster_ips;
use crate::net::kept::Kept;
use crate::topology::{CLUSTER_DOMAIN, IpFamily, pod_cidr, service_cidr};

/// How long an answer may be kept, in seconds (CoreDNS' `kubernetes` plugin's own).
pub(super) const TTL: u32 = 5;
/// The same, of the version of the specification.
const VERSION_TTL: u32 = 28_800;
/// The specification that is followed.
const VERSION: &str = "1.1.0";
/// Addresses' names, of IPv4 and of IPv6 (RFC 1035 §3.5, RFC 3596 §2.5).
const REVERSE: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];

/// What a zone is made from.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) services: Vec<Arc<Service>>,
    pub(super) slices: Vec<Arc<EndpointSlice>>,
    pub(super) namespaces: Vec<Arc<Namespace>>,
    /// The server's own addresses: a Service that has one of them as an endpoint is the zone's name
    /// server.
    pub(super) own: Vec<IpAddr>,
    pub(super) serial: u32,
}

/// A record's data and how long it may be kept, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) ttl: u32,
    pub(super) data: RData,
}

/// The names that the server answers for.
#[derive(Debug, Default)]
pub(super) struct Zone {
    /// By name, in small letters and without the final dot.
    names: HashMap<Arc<str>, Vec<Entry>>,
    namespaces: BTreeSet<String>,
    /// The networks whose addresses only the cluster can name.
    networks: Vec<IpNet>,
    serial: u32,
}

/// A name that is known to be one.
fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap_or_else(|_| Name::root());
    name.set_fqdn(true);
    name
}

/// The domain of Services.
fn services_domain() -> String {
    format!("svc.{CLUSTER_DOMAIN}")
}

/// The name of an address.
fn reverse(address: IpAddr) -> String {
    let name = Name::from(address).to_ascii();
    name.trim_end_matches('.').to_owned()
}

/// An address' record.
pub(super) fn address_record(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// Whether a name is at or below a domain; both in small letters.
pub(super) fn is_below(name: &str, domain: &str) -> bool {
    name == domain
        || name
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// The name above another, up to the domains that the server answers for.
fn above(name: &str) -> Option<&str> {
    let (_, parent) = name.split_once('.')?;
    (name != CLUSTER_DOMAIN && !REVERSE.contains(&name)).then_some(parent)
}

impl Zone {
    /// The zone of a cluster; what its Services mean is kept for the next.
    pub(super) fn of(objects: &Objects, kept: &mut Kept<Part>) -> Self {
        let mut zone = Self {
            serial: objects.serial,
            networks: [IpFamily::V4, IpFamily::V6]
                .into_iter()
                .flat_map(|family| [pod_cidr(family), service_cidr(family)])
                .collect(),
            ..Self::default()
        };
        zone.touch(CLUSTER_DOMAIN);
        zone.touch(&services_domain());
        zone.touch(&format!("pod.{CLUSTER_DOMAIN}"));
        for network in zone.networks.clone() {
            // A label is of eight bits of IPv4, and of four of IPv6.
            let each = if network.addr().is_ipv4() { 8 } else { 4 };
            let rest = usize::from((network.max_prefix_len() - network.prefix_len()) / each);
            let address = reverse(network.network());
            let labels: Vec<&str> = address.split('.').skip(rest).collect();
            zone.touch(&labels.join("."));
        }
        for namespace in &objects.namespaces {
            let namespace = namespace.name_any();
            zone.touch(&format!("{namespace}.{}", services_domain()));
            zone.touch(&format!("{namespace}.pod.{CLUSTER_DOMAIN}"));
            zone.namespaces.insert(namespace);
        }
        let parts = kept.of(&objects.services, &objects.slices, |service, slices| {
            Part::of(service, slices, &objects.own)
        });
        for part in parts.clone() {
            for (name, entry) in &part.records {
                zone.add_entry(name, entry.clone());
            }
        }
        // The names of endpoints' addresses, but for those that are a Service's own.
        let taken: HashSet<_> = parts.clone().flat_map(|part| &part.addresses).collect();
        let hosts = parts.clone().flat_map(|part| &part.hosts);
        for (address, name, entry) in hosts {
            if !taken.contains(address) {
                zone.add_entry(name, entry.clone());
            }
        }
        let servers: Vec<_> = parts.filter_map(|part| part.server.clone()).collect();
        zone.add_apex(&servers, &objects.own);
        zone.add(
            &format!("dns-version.{CLUSTER_DOMAIN}"),
            VERSION_TTL,
            RData::TXT(TXT::new(vec![VERSION.to_owned()])),
        );
        zone
    }

    /// The records of a name; none where there is no such name.
    pub(super) fn get(&self, name: &str) -> Option<&[Entry]> {
        self.names.get(name).map(Vec::as_slice)
    }

    /// The domain that a name belongs to, if the server answers for it.
    pub(super) fn domain_of(&self, name: &str) -> Option<&'static str> {
        if is_below(name, CLUSTER_DOMAIN) {
            return Some(CLUSTER_DOMAIN);
        }
        let domain = REVERSE.into_iter().find(|domain| is_below(name, domain))?;
        if self.names.contains_key(name) {
            return Some(domain);
        }
        // Other addresses are for an upstream server to name.
        let address = self::name(name).parse_arpa_name().ok()?;
        let whole = address.prefix_len() == address.max_prefix_len();
        let within = self
            .networks
            .iter()
            .any(|one| one.contains(&address.addr()));
        (whole && within).then_some(domain)
    }

    /// Whether there is a namespace.
    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// A domain's start of authority.
    pub(super) fn authority(&self, domain: &str) -> RData {
        let server = name(&format!("ns.dns.{domain}"));
        let master = name(&format!("hostmaster.{domain}"));
        RData::SOA(SOA::new(
            server,
            master,
            self.serial,
            7200,
            1800,
            86_400,
            TTL,
        ))
    }

    /// Adds a name, and those above it up to the domain.
    fn touch(&mut self, text: &str) {
        let mut rest = text;
        while !self.names.contains_key(rest) {
            self.names.insert(rest.into(), Vec::new());
            match above(rest) {
                Some(parent) => rest = parent,
                None => break,
            }
        }
    }

    fn add(&mut self, text: &str, ttl: u32, data: RData) {
        self.add_entry(&text.into(), Entry { ttl, data });
    }

    fn add_entry(&mut self, name: &Arc<str>, entry: Entry) {
        if let Some(entries) = self.names.get_mut(name) {
            if !entries.contains(&entry) {
                entries.push(entry);
            }
            return;
        }
        if let Some(parent) = above(name) {
            self.touch(parent);
        }
        self.names.insert(name.clone(), vec![entry]);
    }

    fn add_apex(&mut self, servers: &[(String, Vec<IpAddr>)], own: &[IpAddr]) {
        let authority = self.authority(CLUSTER_DOMAIN);
        self.add(CLUSTER_DOMAIN, TTL, authority);
        let default = format!("ns.dns.{CLUSTER_DOMAIN}");
        for (server, addresses) in servers {
            self.add(CLUSTER_DOMAIN, TTL, RData::NS(NS(name(server))));
            for address in addresses {
                self.add(&default, TTL, address_record(*address));
            }
        }
        if servers.is_empty() {
            self.add(CLUSTER_DOMAIN, TTL, RData::NS(NS(name(&default))));
            for address in own {
                self.add(&default, TTL, address_record(*address));
            }
        }
    }
}

/// What one Service means in DNS.
#[derive(Debug, Default)]
pub(super) struct Part {
    records: Vec<(Arc<str>, Entry)>,
    /// Its endpoints' addresses, and what they are called by it.
    hosts: Vec<(IpAddr, Arc<str>, Entry)>,
    /// Its own addresses.
    addresses: Vec<IpAddr>,
    /// Its domain and addresses, if it is the zone's name server.
    server: Option<(String, Vec<IpAddr>)>,
}

impl Part {
    fn of(service: &Service, slices: &[Arc<EndpointSlice>], own: &[IpAddr]) -> Self {
        let mut part = Self::default();
        let Some(spec) = &service.spec else {
            return part;
        };
        let namespace = service.namespace().unwrap_or_default();
        let domain = format!("{}.{namespace}.{}", service.name_any(), services_domain());
        part.addresses = cluster_ips(spec);
        part.add_service(&domain, spec, slices);
        for (address, endpoint) in slices.iter().flat_map(|slice| ready(slice)) {
            if own.contains(&address) {
                let addresses = part.addresses.clone();
                part.server = (!addresses.is_empty()).then(|| (domain.clone(), addresses));
            }
            let host = format!("{}.{domain}", hostname(address, endpoint));
            let entry = Entry {
                ttl: TTL,
                data: RData::PTR(PTR(name(&host))),
            };
            part.hosts.push((address, reverse(address).into(), entry));
        }
        part
    }

    fn add(&mut self, text: &str, ttl: u32, data: RData) {
        self.records.push((text.into(), Entry { ttl, data }));
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
