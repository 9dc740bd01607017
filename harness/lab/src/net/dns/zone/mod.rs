//! What the cluster's objects mean in DNS: a [`tree`] of names with their records.
//!
//! Start from [`Zone::update`]. What one Service means is a [`part`]. At a change the names are looked at of which a
//! Service that has changed says something or did. Rule: the zone is what it would be if it were made anew.

mod part;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use self::part::Part;
use self::tree::Tree;
use crate::net::kept::{Changed, Kept, Key};
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
    pub(super) serial: u32,
}

/// A record's data and how long it may be kept, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) ttl: u32,
    pub(super) data: RData,
}

/// The names that the server answers for.
pub(super) struct Zone {
    /// By name, in small letters and without the final dot.
    names: Tree,
    /// What each Service means.
    kept: Kept<Part>,
    /// By name, the Services that say something of it.
    speakers: HashMap<Arc<str>, BTreeSet<Key>>,
    namespaces: BTreeSet<String>,
    /// The networks whose addresses only the cluster can name.
    networks: Vec<IpNet>,
    /// The server's own addresses: a Service that has one of them as an endpoint is the zone's name
    /// server.
    own: Vec<IpAddr>,
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

/// The names that a namespace has.
fn of_namespace(namespace: &String) -> [String; 2] {
    [
        format!("{namespace}.{}", services_domain()),
        format!("{namespace}.pod.{CLUSTER_DOMAIN}"),
    ]
}

impl Zone {
    /// The zone of a server with these addresses, and of a cluster of which nothing is known yet.
    pub(super) fn served_at(own: Vec<IpAddr>) -> Self {
        let networks = [IpFamily::V4, IpFamily::V6]
            .into_iter()
            .flat_map(|family| [pod_cidr(family), service_cidr(family)]);
        let mut zone = Self {
            names: Tree::default(),
            kept: Kept::default(),
            speakers: HashMap::new(),
            namespaces: BTreeSet::new(),
            networks: networks.collect(),
            own,
            serial: 0,
        };
        zone.names.hold(&services_domain());
        zone.names.hold(&format!("pod.{CLUSTER_DOMAIN}"));
        for network in &zone.networks {
            // A label is of eight bits of IPv4, and of four of IPv6.
            let each = if network.addr().is_ipv4() { 8 } else { 4 };
            let rest = usize::from((network.max_prefix_len() - network.prefix_len()) / each);
            let address = reverse(network.network());
            let labels: Vec<&str> = address.split('.').skip(rest).collect();
            zone.names.hold(&labels.join("."));
        }
        let version = Entry {
            ttl: VERSION_TTL,
            data: RData::TXT(TXT::new(vec![VERSION.to_owned()])),
        };
        zone.names.set(
            &format!("dns-version.{CLUSTER_DOMAIN}").into(),
            vec![version],
        );
        zone
    }

    /// Makes it the zone of a cluster with these objects.
    pub(super) fn update(&mut self, objects: &Objects) {
        self.serial = objects.serial;
        let namespaces = objects.namespaces.iter().map(|one| one.name_any());
        let before = std::mem::replace(&mut self.namespaces, namespaces.collect());
        for name in before.difference(&self.namespaces).flat_map(of_namespace) {
            self.names.release(&name);
        }
        for name in self.namespaces.difference(&before).flat_map(of_namespace) {
            self.names.hold(&name);
        }
        let own = &self.own;
        let changed = self
            .kept
            .update(&objects.services, &objects.slices, |service, slices| {
                Part::of(service, slices, own)
            });
        for name in self.listen(&changed) {
            let said = self.said_of(&name);
            self.names.set(&name, said);
        }
        self.set_apex();
    }

    /// Learns who says something of which name; returns the names of which something else may be said than before.
    fn listen(&mut self, changed: &[Changed<Part>]) -> HashSet<Arc<str>> {
        let mut names = HashSet::new();
        for Changed { key, before } in changed {
            for name in before.iter().flat_map(Part::names) {
                names.insert(name.clone());
                if let Some(speakers) = self.speakers.get_mut(name) {
                    speakers.remove(key);
                }
            }
            for name in self.kept.get(key).into_iter().flat_map(Part::names) {
                names.insert(name.clone());
                let speakers = self.speakers.entry(name.clone()).or_default();
                speakers.insert(key.clone());
            }
        }
        for name in &names {
            if self.speakers.get(name).is_some_and(BTreeSet::is_empty) {
                self.speakers.remove(name);
            }
        }
        names
    }

    /// What Services say of a name. An address that is a Service's own is not called as an endpoint, too.
    fn said_of(&self, name: &Arc<str>) -> Vec<Entry> {
        let speakers = self.speakers.get(name).into_iter().flatten();
        let parts = speakers.filter_map(|key| self.kept.get(key));
        let is_own = parts.clone().any(|part| part.own.contains(name));
        let records = parts.clone().filter_map(|part| part.records.get(name));
        let hosts = parts.filter_map(|part| part.hosts.get(name));
        let hosts = hosts.filter(|_| !is_own);
        let mut said = Vec::new();
        for entry in records.chain(hosts).flatten() {
            if !said.contains(entry) {
                said.push(entry.clone());
            }
        }
        said
    }

    /// The records of a name; none where there is no such name.
    pub(super) fn get(&self, name: &str) -> Option<&[Entry]> {
        self.names.get(name)
    }

    /// The domain that a name belongs to, if the server answers for it.
    pub(super) fn domain_of(&self, name: &str) -> Option<&'static str> {
        if is_below(name, CLUSTER_DOMAIN) {
            return Some(CLUSTER_DOMAIN);
        }
        let domain = REVERSE.into_iter().find(|domain| is_below(name, domain))?;
        if self.names.get(name).is_some() {
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

    /// Says whose the zone is, and who serves it: the Services that lead here, or the server itself.
    fn set_apex(&mut self) {
        let default = format!("ns.dns.{CLUSTER_DOMAIN}");
        let servers = self.kept.all().filter_map(|part| part.server.as_ref());
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        for (server, of_server) in servers {
            names.push(server.as_str());
            addresses.extend(of_server.iter().copied());
        }
        if names.is_empty() {
            names.push(&default);
            addresses.extend(self.own.iter().copied());
        }
        let entry = |data| Entry { ttl: TTL, data };
        let servers = names.into_iter().map(|server| RData::NS(NS(name(server))));
        let authority = std::iter::once(self.authority(CLUSTER_DOMAIN));
        let apex = authority.chain(servers).map(entry).collect();
        let addresses = addresses
            .into_iter()
            .map(|address| entry(address_record(address)));
        let addresses = addresses.collect();
        self.names.set(&CLUSTER_DOMAIN.into(), apex);
        self.names.set(&default.into(), addresses);
    }
}
