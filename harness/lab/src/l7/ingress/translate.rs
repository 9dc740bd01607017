//! Ingress objects to Envoy's configuration.
//!
//! Start from [`translate`]. The order of routes is the order of the specification: an exact path
//! before any prefix, a longer prefix before a shorter one, an older Ingress before a younger; the
//! default backend comes last: that of an Ingress with rules on its own hosts, and that of one without
//! rules wherever there is no other. A host that a rule names answers by its own rules and its
//! default backend only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressTLS,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::host::Host;
use super::{CONTROLLER, SECRETS};
use crate::l7::cluster::{PortRef, Services, cluster_name};
use crate::l7::envoy::Snapshot;
use crate::l7::envoy::listener::{
    HttpConnectionManager, Routes, address, certificate, terminate_tls, tls_inspector,
};
use crate::l7::envoy::route::{
    Action, Forward, PathMatch, Route, VirtualHost, WeightedCluster, retry_unsent,
    route_configuration,
};

/// The ports that Envoy listens on in its pod; the Service maps 80 and 443 to them.
const HTTP_PORT: u16 = 8080;
const HTTPS_PORT: u16 = 8443;
/// The name of the certificate for hosts that have none.
const FALLBACK: &str = "fallback";
/// The annotation that makes an IngressClass the default one.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// How a class was named before `spec.ingressClassName`.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// `tls.crt`
    pub(crate) chain: String,
    /// `tls.key`
    pub(crate) key: String,
}

/// The objects that are translated.
#[derive(Debug, Clone, Default)]
pub(super) struct Input {
    pub(super) classes: Vec<Arc<IngressClass>>,
    pub(super) ingresses: Vec<Arc<Ingress>>,
    pub(super) services: Services,
    pub(super) certificates: BTreeMap<(String, String), Certificate>,
    pub(super) fallback: Certificate,
}

impl Input {
    /// The Ingresses of our classes, oldest first.
    pub(super) fn served(&self) -> Vec<&Ingress> {
        let ours: Vec<_> = self
            .classes
            .iter()
            .filter(|class| {
                class
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.controller.as_deref())
                    == Some(CONTROLLER)
            })
            .collect();
        let names: BTreeSet<_> = ours.iter().map(|class| class.name_any()).collect();
        let default = ours.iter().any(|class| {
            class
                .annotations()
                .get(DEFAULT_CLASS)
                .is_some_and(|value| value == "true")
        });
        let mut served: Vec<&Ingress> = self
            .ingresses
            .iter()
            .map(AsRef::as_ref)
            .filter(|ingress| {
                let field = ingress
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.ingress_class_name.as_ref());
                match field.or_else(|| ingress.annotations().get(CLASS_ANNOTATION)) {
                    Some(class) => names.contains(class),
                    None => default,
                }
            })
            .filter(|ingress| ingress.metadata.deletion_timestamp.is_none())
            .collect();
        served.sort_by_key(|ingress| {
            let created = ingress
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0);
            (created, ingress.namespace(), ingress.name_any())
        });
        served
    }
}

/// A path of a rule, with what decides its place among the others.
struct Path {
    path: PathMatch,
    rank: (Reverse<bool>, Reverse<usize>, usize),
    action: Action,
    name: String,
}

/// Clusters that routes have asked for.
struct Clusters<'a> {
    services: &'a Services,
    wanted: BTreeMap<String, Value>,
}

impl Clusters<'_> {
    /// What becomes of requests for a backend: a Service or port that does not exist leads to a
    /// cluster that does not, which Envoy answers with 503.
    fn action(&mut self, namespace: &str, backend: &IngressBackend) -> Action {
        let Some(service) = &backend.service else {
            // A resource backend names a kind that this controller does not know.
            return Action::Answer {
                status: 503,
                body: String::new(),
            };
        };
        let port = match service.port.as_ref().map(|port| (&port.name, port.number)) {
            Some((Some(name), _)) => PortRef::Name(name.clone()),
            Some((None, number)) => PortRef::Number(number.unwrap_or_default()),
            None => PortRef::Number(0),
        };
        let name = cluster_name(namespace, &service.name, &port);
        if let Some(cluster) = self.services.cluster(namespace, &service.name, &port) {
            self.wanted
                .entry(name.clone())
                .or_insert_with(|| cluster.to_value());
        }
        Action::Forward(Forward {
            clusters: vec![WeightedCluster {
                name,
                weight: 1,
                ..WeightedCluster::default()
            }],
            retry: Some(retry_unsent()),
            ..Forward::default()
        })
    }
}

/// What Envoy is to be told.
pub(super) fn translate(input: &Input) -> Snapshot {
    let mut clusters = Clusters {
        services: &input.services,
        wanted: BTreeMap::new(),
    };
    let mut hosts: BTreeMap<Host, Vec<Path>> = BTreeMap::new();
    let mut defaults: BTreeMap<Host, Action> = BTreeMap::new();
    let mut default: Option<Action> = None;
    for (age, ingress) in input.served().into_iter().enumerate() {
        let Some(spec) = &ingress.spec else { continue };
        let namespace = ingress.namespace().unwrap_or_default();
        let own = spec.default_backend.as_ref();
        let own = own.map(|backend| clusters.action(&namespace, backend));
        if spec.rules.as_ref().is_none_or(Vec::is_empty) {
            default = default.or_else(|| own.clone());
        }
        for rule in spec.rules.iter().flatten() {
            let host = Host::parse(rule.host.as_deref());
            if let Some(action) = &own {
                let first = defaults.entry(host.clone());
                first.or_insert_with(|| action.clone());
            }
            let paths = hosts.entry(host).or_default();
            let name = format!("{namespace}/{}", ingress.name_any());
            // "If no rule is specified, all traffic goes to the default backend."
            if let Some(http) = &rule.http {
                paths.extend(http.paths.iter().map(|path| {
                    path_of(path, age, &name, clusters.action(&namespace, &path.backend))
                }));
            }
        }
    }
    let mut snapshot = Snapshot {
        routes: vec![route_configuration(
            "ingress",
            &virtual_hosts(hosts, &defaults, default.as_ref()),
        )],
        clusters: clusters.wanted.into_values().collect(),
        ..Snapshot::default()
    };
    listeners(input, &mut snapshot);
    snapshot
}

fn path_of(path: &HTTPIngressPath, age: usize, name: &str, action: Action) -> Path {
    let value = path
        .path
        .clone()
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    let exact = path.path_type == "Exact";
    Path {
        rank: (Reverse(exact), Reverse(value.len()), age),
        // ImplementationSpecific is ours to define: it is Prefix.
        path: if exact {
            PathMatch::Exact(value)
        } else {
            PathMatch::Elements(value)
        },
        action,
        name: name.to_owned(),
    }
}

fn virtual_hosts(
    hosts: BTreeMap<Host, Vec<Path>>,
    defaults: &BTreeMap<Host, Action>,
    default: Option<&Action>,
) -> Vec<VirtualHost> {
    let fallback = |host: &Host| {
        let action = defaults.get(host).or(default)?;
        Some(Route {
            name: "default-backend".to_owned(),
            action: action.clone(),
            ..Route::default()
        })
    };
    let mut routes: BTreeMap<Host, Vec<Route>> = hosts
        .into_iter()
        .map(|(host, mut paths)| {
            paths.sort_by_key(|path| path.rank);
            let route = |path: Path| Route {
                name: path.name,
                path: path.path,
                action: path.action,
                headers: host.one_label(false).into_iter().collect(),
                ..Route::default()
            };
            let routes = paths.into_iter().map(route).collect();
            (host, routes)
        })
        .collect();
    let mut any = routes.remove(&Host::Any).unwrap_or_default();
    any.extend(fallback(&Host::Any));
    let mut virtual_hosts: Vec<VirtualHost> = routes
        .into_iter()
        .map(|(host, mut routes)| {
            if let Some(more_labels) = host.one_label(true) {
                // More labels than the wildcard covers: this host is nobody's, as any other is.
                routes.extend(any.iter().cloned().map(|mut route| {
                    route.headers.push(more_labels.clone());
                    route
                }));
            }
            routes.extend(fallback(&host).map(|mut route| {
                route.headers.extend(host.one_label(false));
                route
            }));
            VirtualHost {
                name: host.domain(),
                domains: vec![host.domain()],
                routes,
            }
        })
        .collect();
    if !any.is_empty() {
        virtual_hosts.push(VirtualHost {
            name: "any".to_owned(),
            domains: vec!["*".to_owned()],
            routes: any,
        });
    }
    virtual_hosts
}

fn listeners(input: &Input, snapshot: &mut Snapshot) {
    let manager = |stat_prefix| {
        HttpConnectionManager {
            stat_prefix,
            routes: Routes::Named("ingress".to_owned()),
            edge: true,
            ..HttpConnectionManager::default()
        }
        .filter()
    };
    snapshot.listeners.push(json!({
        "name": "http",
        "address": address("0.0.0.0", HTTP_PORT),
        "filter_chains": [{ "filters": [manager("http")] }],
    }));
    let (chosen, mut used) = server_names(input);
    let chains: Vec<Value> = chosen
        .into_iter()
        .map(|(server_name, secret)| {
            json!({
                "name": server_name,
                "filter_chain_match": { "server_names": [server_name] },
                "filters": [manager("https")],
                "transport_socket": terminate_tls(SECRETS, &secret),
            })
        })
        .collect();
    used.insert(FALLBACK.to_owned(), &input.fallback);
    snapshot.secrets = used
        .into_iter()
        .map(|(name, found)| certificate(&name, &found.chain, &found.key))
        .collect();
    let mut https = json!({
        "name": "https",
        "address": address("0.0.0.0", HTTPS_PORT),
        "listener_filters": [tls_inspector()],
        "default_filter_chain": {
            "filters": [manager("https")],
            "transport_socket": terminate_tls(SECRETS, FALLBACK),
        },
    });
    if !chains.is_empty() {
        https["filter_chains"] = json!(chains);
    }
    snapshot.listeners.push(https);
}

/// Which certificate each server name gets: that of the oldest Ingress that names it. A `tls` entry
/// without hosts is for all hosts of its Ingress.
fn server_names(input: &Input) -> (BTreeMap<String, String>, BTreeMap<String, &Certificate>) {
    let mut chosen = BTreeMap::new();
    let mut used = BTreeMap::new();
    for ingress in input.served() {
        let namespace = ingress.namespace().unwrap_or_default();
        let Some(spec) = &ingress.spec else { continue };
        for entry in spec.tls.iter().flatten() {
            let Some(name) = &entry.secret_name else {
                continue;
            };
            let Some(found) = input.certificates.get(&(namespace.clone(), name.clone())) else {
                continue;
            };
            let secret = format!("{namespace}/{name}");
            for host in tls_hosts(entry, ingress) {
                chosen
                    .entry(host.domain())
                    .or_insert_with(|| secret.clone());
            }
            used.insert(secret, found);
        }
    }
    (chosen, used)
}

fn tls_hosts(entry: &IngressTLS, ingress: &Ingress) -> Vec<Host> {
    let named: Vec<_> = entry
        .hosts
        .iter()
        .flatten()
        .map(|host| Host::parse(Some(host)))
        .collect();
    let rules = ingress
        .spec
        .iter()
        .flat_map(|spec| spec.rules.iter().flatten());
    let hosts = if named.is_empty() {
        rules
            .map(|rule| Host::parse(rule.host.as_deref()))
            .collect()
    } else {
        named
    };
    hosts
        .into_iter()
        .filter(|host| *host != Host::Any)
        .collect()
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
