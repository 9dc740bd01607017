//! What every sidecar's configuration is made from: Services by their hosts, and Istio's objects.
//!
//! Start from [`Mesh`], the state of the mesh at one moment, and [`Workload`], the pod that a
//! configuration is for. Names follow Istio's: `outbound|80|v1|backend.default.svc.cluster.local`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::ResourceExt;

use super::probes::Asked;
use crate::istio::destination_rule::DestinationRule;
use crate::istio::request_authentication::RequestAuthentication;
use crate::istio::security::{AuthorizationPolicy, PeerAuthentication};
use crate::istio::service_entry::ServiceEntry;
use crate::istio::sidecar::Sidecar;
use crate::istio::virtual_service::VirtualService;
use crate::l7::cluster::{Services, same_objects};
use crate::l7::envoy::fingerprint;
use crate::l7::gateway::gamma::ServiceRoutes;
use crate::l7::locality::Locality;
use crate::topology::CLUSTER_DOMAIN;

/// The state of the mesh at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Mesh {
    /// Services, endpoints and pods.
    pub(super) services: Services,
    /// VirtualServices, oldest first.
    pub(super) virtual_services: Vec<Arc<VirtualService>>,
    /// DestinationRules, oldest first.
    pub(super) destination_rules: Vec<Arc<DestinationRule>>,
    /// ServiceEntries.
    pub(super) service_entries: Vec<Arc<ServiceEntry>>,
    /// Sidecars, oldest first.
    pub(super) sidecars: Vec<Arc<Sidecar>>,
    /// PeerAuthentications, oldest first.
    pub(super) peer_authentications: Vec<Arc<PeerAuthentication>>,
    /// AuthorizationPolicies.
    pub(super) authorization_policies: Vec<Arc<AuthorizationPolicy>>,
    /// RequestAuthentications.
    pub(super) request_authentications: Vec<Arc<RequestAuthentication>>,
    /// Routes of the Gateway API whose parents are Services.
    pub(super) service_routes: ServiceRoutes,
    /// Which hosts VirtualServices and DestinationRules are for, found out once.
    pub(super) hosts: OnceLock<(Hosts, Hosts)>,
}

/// The hosts that objects are for, by the objects' places among their like.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts {
    exact: HashMap<String, Vec<usize>>,
    /// Those that begin with `*`.
    patterns: Vec<(String, usize)>,
}

impl Hosts {
    fn of<'a, K: ResourceExt + 'a>(
        objects: impl Iterator<Item = &'a Arc<K>>,
        hosts: impl Fn(&'a K) -> &'a [String],
    ) -> Self {
        let mut found = Self::default();
        for (at, object) in objects.enumerate() {
            let namespace = object.namespace().unwrap_or_default();
            for host in hosts(object) {
                let host = resolve_host(host, &namespace);
                if host.starts_with('*') {
                    found.patterns.push((host.clone(), at));
                }
                found.exact.entry(host).or_default().push(at);
            }
        }
        found
    }

    /// Those that name a host exactly.
    fn naming(&self, host: &str) -> impl Iterator<Item = usize> {
        self.exact.get(host).into_iter().flatten().copied()
    }

    /// Those that cover it by a pattern.
    fn covering(&self, host: &str) -> impl Iterator<Item = usize> {
        let patterns = self.patterns.iter();
        let covering = patterns.filter(move |(pattern, _)| host_covers(pattern, host));
        covering.map(|(_, at)| *at)
    }
}

impl Mesh {
    /// Whether every sidecar is to be told the same by both.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.services.same(&other.services)
            && same_objects(&self.virtual_services, &other.virtual_services)
            && same_objects(&self.destination_rules, &other.destination_rules)
            && same_objects(&self.service_entries, &other.service_entries)
            && same_objects(&self.sidecars, &other.sidecars)
            && same_objects(&self.peer_authentications, &other.peer_authentications)
            && same_objects(&self.authorization_policies, &other.authorization_policies)
            && same_objects(
                &self.request_authentications,
                &other.request_authentications,
            )
            && self.service_routes.same(&other.service_routes)
    }
}

/// Sorts objects oldest first, as Istio resolves conflicts.
pub(super) fn oldest_first<K: ResourceExt>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    objects.sort_by_key(|object| {
        let created = object.creation_timestamp().map(|time| time.0);
        (created, object.namespace(), object.name_any())
    });
    objects
}

/// A kind of pod that sidecars are configured for alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Workload {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its ServiceAccount.
    pub(super) service_account: String,
    /// Its labels, without those that tell pods of one workload apart.
    pub(super) labels: BTreeMap<String, String>,
    /// What its sidecars ask of it for the kubelet.
    pub(super) probes: BTreeSet<Asked>,
    /// Where it is, as far as is known.
    pub(super) locality: Locality,
    /// The name of its ConfigMap.
    config_map: String,
}

/// Who opens connections: all that where they go depends on, beside the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Client {
    /// Its namespace.
    pub(super) namespace: String,
    /// Those of its labels that something in the mesh asks for.
    pub(super) labels: BTreeMap<String, String>,
    /// Where it is, as far as is known.
    pub(super) locality: Locality,
}

impl Workload {
    /// The workload of a pod with these labels.
    pub(super) fn new(
        namespace: &str,
        service_account: &str,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        // Labels that controllers give to single pods or revisions; none selects a workload.
        const OF_ONE_POD: [&str; 5] = [
            "pod-template-hash",
            "controller-revision-hash",
            "pod-template-generation",
            "statefulset.kubernetes.io/pod-name",
            "apps.kubernetes.io/pod-index",
        ];
        let ours = |key: &str| {
            key.starts_with("security.istio.io/") || key.starts_with("service.istio.io/")
        };
        let labels = labels
            .iter()
            .filter(|(key, _)| !OF_ONE_POD.contains(&key.as_str()) && !ours(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Self {
            config_map: String::new(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            probes: BTreeSet::new(),
            locality: Locality::of_pod(&labels).unwrap_or_default(),
            labels,
        }
        .named()
    }

    /// The same, of pods whose sidecars ask this of them.
    pub(super) fn probed(self, probes: BTreeSet<Asked>) -> Self {
        Self { probes, ..self }.named()
    }

    /// Named by all that tells it from others.
    fn named(self) -> Self {
        let told = serde_json::to_string(&self.labels).unwrap_or_default();
        let mut told = format!("{}\n{told}", self.service_account);
        if !self.probes.is_empty() {
            told.push_str(&format!("\n{:?}", self.probes));
        }
        let config_map = format!("istio-proxy-{}", fingerprint(&told));
        Self { config_map, ..self }
    }

    /// The same, of a pod that mounts this ConfigMap: the labels that it had when it was admitted chose
    /// it, whatever they are now.
    pub(super) fn mounting(self, config_map: &str) -> Self {
        let config_map = config_map.to_owned();
        Self { config_map, ..self }
    }

    /// The same, of pods on nodes that say where they are.
    pub(super) fn at(self, locality: Locality) -> Self {
        Self { locality, ..self }
    }

    /// Whether its labels are those that it was admitted with.
    pub(super) fn as_admitted(&self) -> bool {
        self.config_map == self.clone().named().config_map
    }

    /// What its sidecars are told as, before it is known where they run: so they call themselves.
    pub(super) fn admitted_group(&self) -> String {
        format!("{}/{}", self.namespace, self.config_map)
    }

    /// What its sidecars are told as: where nodes differ, those of each locality by themselves.
    pub(super) fn group(&self) -> String {
        let group = self.admitted_group();
        match Locality::of_pod(&self.labels).is_none() && self.locality.is_known() {
            true => format!("{group}@{}", self.locality),
            false => group,
        }
    }

    /// The name of its ConfigMap.
    pub(super) fn config_map(&self) -> String {
        self.config_map.clone()
    }
}

/// How a port's bytes are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As HTTP, where it is HTTP.
    Http,
    /// As bytes.
    Tcp,
}

/// By Istio's protocol selection: `appProtocol`, else the first part of the port's name; a port
/// that says nothing is looked at.
pub(super) fn kind_of(port: &ServicePort) -> Option<Kind> {
    if port.protocol.as_deref().unwrap_or("TCP") != "TCP" {
        return None;
    }
    let name = port.name.as_deref().unwrap_or_default();
    let prefix = name.split('-').next().unwrap_or_default();
    match port
        .app_protocol
        .as_deref()
        .unwrap_or(prefix)
        .to_ascii_lowercase()
        .as_str()
    {
        "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" | "postgres" => Some(Kind::Tcp),
        _ => Some(Kind::Http),
    }
}

/// A host as Istio reads it: a name without dots is a Service of the object's own namespace.
pub(super) fn resolve_host(host: &str, namespace: &str) -> String {
    if host.contains('.') || host.contains('*') {
        host.to_ascii_lowercase()
    } else {
        format!("{host}.{namespace}.svc.{CLUSTER_DOMAIN}")
    }
}

/// The full name of a Service.
pub(super) fn fqdn(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}")
}

/// The Service of a full name: its namespace and name.
pub(super) fn service_of(host: &str) -> Option<(&str, &str)> {
    let rest = host.strip_suffix(CLUSTER_DOMAIN)?.strip_suffix(".svc.")?;
    let (name, namespace) = rest.split_once('.')?;
    (!namespace.contains('.')).then_some((namespace, name))
}

/// The name of a cluster, as Istio writes it.
pub(super) fn cluster_name(port: u16, subset: Option<&str>, host: &str) -> String {
    format!("outbound|{port}|{}|{host}", subset.unwrap_or_default())
}

/// Whether a host, which may begin with `*`, covers another.
pub(super) fn host_covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => pattern == host,
    }
}

impl Mesh {
    /// The VirtualService for a host in sidecars: the one that names it exactly before one that
    /// covers it, the older before the younger.
    pub(super) fn virtual_service(&self, host: &str, client: &Client) -> Option<&VirtualService> {
        let visible = |object: &&VirtualService| {
            let namespace = object.namespace().unwrap_or_default();
            let exported = object.spec.export_to.as_ref().is_none_or(|to| {
                to.iter().any(|to| {
                    to == "*"
                        || (to == "." && namespace == client.namespace)
                        || *to == client.namespace
                })
            });
            let sidecars = object.spec.gateways.as_ref().is_none_or(|gateways| {
                gateways.is_empty() || gateways.iter().any(|name| name == "mesh")
            });
            exported && sidecars
        };
        let (hosts, _) = self.hosts();
        let object = |at: usize| self.virtual_services.get(at).map(AsRef::as_ref);
        let mut naming = hosts.naming(host).filter_map(object);
        let exact = naming.find(visible);
        exact.or_else(|| hosts.covering(host).filter_map(object).find(visible))
    }

    fn hosts(&self) -> &(Hosts, Hosts) {
        self.hosts.get_or_init(|| {
            fn of_rule(rule: &DestinationRule) -> &[String] {
                std::slice::from_ref(&rule.spec.host)
            }
            (
                Hosts::of(self.virtual_services.iter(), |it| &it.spec.hosts),
                Hosts::of(self.destination_rules.iter(), of_rule),
            )
        })
    }

    /// The host itself, or the Service that it is another name of: one of type ExternalName may name one.
    pub(super) fn resolved(&self, host: String) -> String {
        let find = |host: &str| {
            let (namespace, name) = service_of(host)?;
            self.services.find(namespace, name)
        };
        let spec = find(&host).and_then(|service| service.spec.as_ref());
        let target = spec.and_then(|spec| spec.external_name.as_deref());
        match target.map(|name| name.trim_end_matches('.')) {
            Some(target) if find(target).is_some() => target.to_owned(),
            _ => host,
        }
    }

    /// The DestinationRule for a host: the client's namespace's own before the Service's, before
    /// any other.
    pub(super) fn destination_rule(
        &self,
        host: &str,
        client: &Client,
    ) -> Option<&Arc<DestinationRule>> {
        let home = service_of(host).map(|(namespace, _)| namespace);
        let rank = |object: &DestinationRule| {
            let namespace = object.namespace().unwrap_or_default();
            if namespace == client.namespace {
                0
            } else if Some(namespace.as_str()) == home {
                1
            } else {
                2
            }
        };
        let (_, hosts) = self.hosts();
        let mut found: Vec<usize> = hosts.naming(host).chain(hosts.covering(host)).collect();
        found.sort_unstable();
        let found = found.into_iter();
        let rules = found.filter_map(|at| self.destination_rules.get(at));
        rules.min_by_key(|rule| rank(rule))
    }

    /// The port of a Service that a destination means: the one it names, else the Service's only
    /// one, else the one that the client asked for.
    pub(super) fn destination_port(&self, host: &str, named: Option<u32>, asked: u16) -> u16 {
        if let Some(port) = named {
            return u16::try_from(port).unwrap_or_default();
        }
        let service =
            service_of(host).and_then(|(namespace, name)| self.services.find(namespace, name));
        match service.map(ports).unwrap_or_default().as_slice() {
            [only] => u16::try_from(only.port).unwrap_or(asked),
            _ => asked,
        }
    }
}

/// A Service's ports.
pub(super) fn ports(service: &Service) -> Vec<&ServicePort> {
    service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_hosts_belong_to_the_namespace_of_their_object() {
        for (host, expected) in [
            ("backend", "backend.default.svc.cluster.local"),
            ("backend.other", "backend.other"),
            (
                "Backend.other.svc.cluster.local",
                "backend.other.svc.cluster.local",
            ),
            ("*.example.com", "*.example.com"),
        ] {
            assert_eq!(resolve_host(host, "default"), expected);
        }
    }

    #[test]
    fn services_are_found_by_their_full_name() {
        assert_eq!(service_of("a.b.svc.cluster.local"), Some(("b", "a")));
        for host in [
            "a.b",
            "a.b.c.svc.cluster.local",
            "example.com",
            "svc.cluster.local",
        ] {
            assert_eq!(service_of(host), None, "{host}");
        }
    }

    #[test]
    fn protocols_are_selected_as_istio_selects_them() {
        let port = |name: &str, protocol: &str, app: Option<&str>| ServicePort {
            name: Some(name.to_owned()),
            protocol: Some(protocol.to_owned()),
            app_protocol: app.map(str::to_owned),
            ..ServicePort::default()
        };
        for (name, protocol, app, expected) in [
            ("", "TCP", None, Some(Kind::Http)),
            ("http", "TCP", None, Some(Kind::Http)),
            ("http-web", "TCP", None, Some(Kind::Http)),
            ("web", "TCP", None, Some(Kind::Http)),
            ("tcp-echo", "TCP", None, Some(Kind::Tcp)),
            ("https", "TCP", None, Some(Kind::Tcp)),
            ("http", "TCP", Some("tcp"), Some(Kind::Tcp)),
            ("dns", "UDP", None, None),
        ] {
            assert_eq!(
                kind_of(&port(name, protocol, app)),
                expected,
                "{name} {protocol} {app:?}"
            );
        }
    }

    #[test]
    fn pods_of_one_deployment_are_one_workload() {
        let labels = |hash: &str| {
            BTreeMap::from([
                ("app".to_owned(), "web".to_owned()),
                ("pod-template-hash".to_owned(), hash.to_owned()),
            ])
        };
        let of = |hash| Workload::new("default", "default", &labels(hash)).config_map();
        assert_eq!(of("1"), of("2"));
        assert_ne!(
            of("1"),
            Workload::new("default", "other", &labels("1")).config_map()
        );
    }
}
