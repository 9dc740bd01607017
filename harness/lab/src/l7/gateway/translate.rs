//! Gateways and their routes to Envoy's configuration, and to what is to be said of them.
//!
//! Start from [`translate`], which is pure. A request belongs to the most specific listener of its
//! port and there to the routes of the most specific hostname; it never falls through to those of
//! a less specific one. What a status needs besides, such as addresses, is [`super::status`]'s.

use std::collections::{BTreeMap, BTreeSet};

use gateway_api::experimental::httproutes::HttpRouteParentRefs;
use gateway_api::gateways::Gateway;
use gateway_api::listenersets::ListenerSet;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::attach::{Hosts, attach};
use super::backend::{Backends, Policies};
use super::datagrams;
use super::filter::Place;
use super::frontend;
use super::holder::{Held, Holder, holders};
use super::host::Hostname;
use super::input::{Input, Problem};
use super::listener::{Listener, Protocol, listeners};
use super::passing;
use super::port::{Port, ports};
use super::route::Route as AnyRoute;
use super::rule::{Rank, Rules, rules};
use super::{SECRETS, VERSION_PORT};
use crate::l7::envoy::listener::{
    HttpConnectionManager, Routes, address, certificate, http_filter, terminate_tls_with,
    tls_inspector,
};
use crate::l7::envoy::route::{Action, PathMatch, Route, VirtualHost, route_configuration};
use crate::l7::envoy::{Snapshot, fingerprint};

/// The route configuration that says which configuration is in force.
const VERSION: &str = "version";

/// What becomes of one Gateway.
pub(super) struct Translated<'a> {
    pub(super) gateway: &'a Gateway,
    /// Why the Gateway as a whole is not accepted.
    pub(super) problem: Option<Problem>,
    /// A reference of the Gateway as a whole that leads nowhere.
    pub(super) unresolved: Option<Problem>,
    /// The ListenerSets that name it, and why it does not take them.
    pub(super) sets: Vec<(&'a ListenerSet, Option<Problem>)>,
    /// Its listeners, and how many routes are attached to each.
    pub(super) listeners: Vec<(Listener<'a>, i32)>,
    pub(super) ports: Vec<Port>,
    pub(super) snapshot: Snapshot,
    /// The policies of its backends.
    pub(super) policies: Policies,
    /// Names the configuration; Envoy tells it at [`VERSION_PORT`].
    pub(super) version: String,
}

/// What is to be said of one of a route's parents.
#[derive(Debug, Clone)]
pub(super) struct Parent<'a> {
    pub(super) reference: &'a HttpRouteParentRefs,
    pub(super) refused: Option<Problem>,
    pub(super) unresolved: Option<Problem>,
    /// Rules were dropped, and others kept.
    pub(super) partly: Option<Problem>,
}

/// What becomes of all Gateways and routes.
pub(super) struct Translation<'a> {
    pub(super) gateways: Vec<Translated<'a>>,
    /// Every route, with the parents that are ours.
    pub(super) routes: Vec<(&'a AnyRoute, Vec<Parent<'a>>)>,
}

/// A route's rules at a listener, for some hosts.
pub(super) struct Served {
    /// By its place in the Gateway.
    pub(super) listener: usize,
    pub(super) hosts: Vec<Hostname>,
    pub(super) rules: Rules,
}

/// Translates everything.
pub(super) fn translate(input: &Input) -> Translation<'_> {
    let mut routes: Vec<(&AnyRoute, Vec<Parent<'_>>)> = input
        .routes_by_age()
        .into_iter()
        .map(|route| (route, Vec::new()))
        .collect();
    let gateways = input
        .own_gateways()
        .into_iter()
        .map(|gateway| translate_gateway(input, gateway, &mut routes))
        .collect();
    // As the route names them, not as the Gateways happen to be visited.
    for (route, parents) in &mut routes {
        let place = |parent: &Parent<'_>| {
            let all = route.spec.parent_refs.iter().flatten();
            all.clone()
                .position(|reference| std::ptr::eq(reference, parent.reference))
        };
        parents.sort_by_key(place);
    }
    Translation { gateways, routes }
}

fn translate_gateway<'a>(
    input: &'a Input,
    gateway: &'a Gateway,
    routes: &mut [(&'a AnyRoute, Vec<Parent<'a>>)],
) -> Translated<'a> {
    let holders = holders(input, gateway);
    let listeners = listeners(input, gateway, &holders);
    let mut attached = vec![0; listeners.len()];
    let own = frontend::own_certificate(input, gateway);
    let shown = own.as_ref().and_then(|own| own.as_ref().ok());
    let mut backends = Backends::new(input, shown.map(|(name, _)| name.as_str()));
    let mut served = Vec::new();
    let mut of_kinds = Hosts::new(listeners.len());
    for (age, (route, parents)) in routes.iter_mut().enumerate() {
        let route = *route;
        // A route may name a Gateway more than once; it is attached to a listener only once.
        let mut taken = BTreeSet::new();
        for reference in route.spec.parent_refs.iter().flatten() {
            let named = |held: &&Held<'_>| held.by.is_named_by(reference, route);
            let Some(holder) = holders.iter().find(named).map(|held| held.by) else {
                continue;
            };
            let mut parent = Parent {
                reference,
                refused: None,
                unresolved: None,
                partly: None,
            };
            let anywhere = Place {
                port: 80,
                protocol: Protocol::Http,
                ends_tls: false,
            };
            // What is wrong with a route's rules is wrong at any listener.
            let judged = rules(route, age, anywhere, &mut Backends::new(input, None));
            parent.unresolved.clone_from(&judged.unresolved);
            parent.partly = partly(&judged);
            let meant = attach(input, holder, &listeners, route, reference);
            let accepted = meant.and_then(|meant| match judged.dropped.first() {
                Some(problem) if judged.dropped.len() == judged.total => Err(problem.clone()),
                _ => of_kinds.apart(route.kind, meant),
            });
            match accepted {
                Err(problem) => parent.refused = Some(problem),
                Ok(attachments) => {
                    for (index, hosts) in attachments {
                        if !taken.insert(index) {
                            continue;
                        }
                        attached[index] += 1;
                        let Some(protocol) = listeners[index].served() else {
                            continue;
                        };
                        let place = Place {
                            port: listeners[index].port,
                            protocol,
                            ends_tls: listeners[index].ends_tls(),
                        };
                        served.push(Served {
                            listener: index,
                            hosts,
                            rules: rules(route, age, place, &mut backends),
                        });
                    }
                }
            }
            parents.push(parent);
        }
    }
    let ports = ports(&listeners);
    let policies = backends.policies;
    let mut snapshot = Snapshot {
        clusters: backends.clusters.into_values().collect(),
        ..Snapshot::default()
    };
    for port in &ports {
        serve(gateway, &listeners, &served, port, &mut snapshot);
    }
    let certificates: BTreeMap<_, _> = listeners
        .iter()
        .filter(|listener| listener.served().is_some())
        .flat_map(|listener| &listener.certificates)
        .chain(shown.map(|(name, certificate)| (name, certificate)))
        .collect();
    snapshot.secrets = certificates
        .into_iter()
        .map(|(name, found)| certificate(name, &found.chain, &found.key))
        .collect();
    let version = add_version(&mut snapshot);
    Translated {
        gateway,
        problem: problem(gateway, &listeners),
        unresolved: own.and_then(Result::err),
        sets: of_others(holders),
        listeners: listeners.into_iter().zip(attached).collect(),
        ports,
        snapshot,
        policies,
        version,
    }
}

fn of_others<'a>(holders: Vec<Held<'a>>) -> Vec<(&'a ListenerSet, Option<Problem>)> {
    let set = |held: Held<'a>| match held.by {
        Holder::Set(set) => Some((set, held.refused)),
        Holder::Gateway(_) => None,
    };
    holders.into_iter().filter_map(set).collect()
}

fn partly(rules: &Rules) -> Option<Problem> {
    let first = rules.dropped.first()?;
    if rules.dropped.len() == rules.total {
        return None;
    }
    let all: Vec<_> = rules
        .dropped
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    // The specification's words: the message begins with what was done about it.
    let message = format!("Dropped Rule: {}", all.join("; "));
    Some(Problem::new(first.reason, message))
}

/// Why a Gateway as a whole is not accepted.
fn problem(gateway: &Gateway, listeners: &[Listener<'_>]) -> Option<Problem> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    if let Some(parameters) = infrastructure.and_then(|all| all.parameters_ref.as_ref()) {
        let message = format!(
            "infrastructure.parametersRef: {}/{} {}: this controller takes no parameters",
            parameters.group, parameters.kind, parameters.name
        );
        return Some(Problem::new("InvalidParameters", message));
    }
    let unsupported = gateway
        .spec
        .addresses
        .iter()
        .flatten()
        .filter_map(|address| address.r#type.as_deref())
        .find(|kind| *kind != "IPAddress");
    if let Some(kind) = unsupported {
        let message = format!("addresses: type {kind}: only IPAddress is served");
        return Some(Problem::new("UnsupportedAddress", message));
    }
    if !listeners.iter().any(Listener::accepted) {
        let message = "no listener can be served; see their conditions";
        return Some(Problem::new("ListenersNotValid", message));
    }
    None
}

/// Adds the listener of a port, and its routes.
fn serve(
    gateway: &Gateway,
    listeners: &[Listener<'_>],
    served: &[Served],
    port: &Port,
    snapshot: &mut Snapshot,
) {
    let here: Vec<usize> = (0..listeners.len())
        .filter(|index| port.has(&listeners[*index]))
        .collect();
    if port.datagrams {
        datagrams::serve(port, &here, served, snapshot);
        return;
    }
    if here.iter().any(|index| {
        matches!(
            listeners[*index].protocol,
            Some(Protocol::Tls | Protocol::Tcp)
        )
    }) {
        let listener = passing::listener(port, listeners, &here, served);
        snapshot.listeners.push(listener);
        return;
    }
    let manager = |routes: &str| {
        HttpConnectionManager {
            stat_prefix: &port.name,
            routes: Routes::Named(routes.to_owned()),
            edge: true,
            via: Some(&via(gateway)),
            filters: vec![http_filter(
                "envoy.filters.http.cors",
                "cors.v3.Cors",
                json!({}),
            )],
            ..HttpConnectionManager::default()
        }
        .filter()
    };
    let mut listener = json!({
        "name": port.name,
        "address": address("0.0.0.0", port.target),
    });
    let mut configure = |name: &str, only: Option<usize>| {
        let hosts = virtual_hosts(listeners, &here, served, only);
        snapshot.routes.push(route_configuration(name, &hosts));
    };
    if here
        .iter()
        .all(|index| listeners[*index].protocol == Some(Protocol::Http))
    {
        configure(&port.name, None);
        listener["filter_chains"] = json!([{ "filters": [manager(&port.name)] }]);
        snapshot.listeners.push(listener);
        return;
    }
    let mut chains = Vec::new();
    for index in here.iter().copied() {
        let found = &listeners[index];
        let name = format!("{}/{}", port.name, found.name());
        configure(&name, Some(index));
        let names = found.certificates.keys().map(String::as_str);
        let mut chain = json!({
            "name": found.name(),
            "filters": [manager(&name)],
            "transport_socket": terminate_tls_with(SECRETS, names),
        });
        if let Some(clients) = &found.clients {
            clients.ask(&mut chain["transport_socket"]);
        }
        if found.hostname == Hostname::Any {
            listener["default_filter_chain"] = chain;
        } else {
            chain["filter_chain_match"] = json!({ "server_names": [found.hostname.domain()] });
            chains.push(chain);
        }
    }
    listener["listener_filters"] = json!([tls_inspector()]);
    if !chains.is_empty() {
        listener["filter_chains"] = json!(chains);
    }
    snapshot.listeners.push(listener);
}

/// Who served a request, in the words of RFC 9110: a pseudonym, which has no slash.
pub(super) fn via(gateway: &Gateway) -> String {
    format!(
        "1.1 {}.{}",
        gateway.name_any(),
        gateway.namespace().unwrap_or_default()
    )
}

/// The virtual hosts of a port's listeners, or of only one of them: a client that came to it by its
/// server name and asks for a host of another listener's is misdirected (RFC 9110, 15.5.20).
fn virtual_hosts(
    listeners: &[Listener<'_>],
    here: &[usize],
    served: &[Served],
    only: Option<usize>,
) -> Vec<VirtualHost> {
    let of = |index: usize| served.iter().filter(move |entry| entry.listener == index);
    let domains: BTreeSet<&Hostname> = here
        .iter()
        .flat_map(|index| {
            let hosts = of(*index).flat_map(|entry| &entry.hosts);
            hosts.chain([&listeners[*index].hostname])
        })
        .collect();
    domains
        .into_iter()
        .filter_map(|domain| {
            let owner = owner(domain, listeners, here)?;
            let routes = if only.is_some_and(|only| only != owner) {
                vec![misdirected()]
            } else {
                routes(domain, || of(owner))
            };
            Some(VirtualHost {
                name: domain.domain(),
                domains: vec![domain.domain()],
                routes,
            })
        })
        .collect()
}

/// Which of a port's listeners a host belongs to: the most specific one.
pub(super) fn owner(host: &Hostname, listeners: &[Listener<'_>], here: &[usize]) -> Option<usize> {
    let covering = here.iter().copied();
    covering
        .filter(|index| listeners[*index].hostname.covers(host))
        .max_by_key(|index| listeners[*index].hostname.specificity())
}

/// The routes for a host: of those whose hostname covers it most specifically, in their order.
fn routes<'s, I: Iterator<Item = &'s Served>>(
    domain: &Hostname,
    served: impl Fn() -> I,
) -> Vec<Route> {
    let best = served()
        .flat_map(|entry| &entry.hosts)
        .filter(|host| host.covers(domain))
        .max_by_key(|host| host.specificity());
    let Some(best) = best else { return Vec::new() };
    let mut ranked: Vec<&(Rank, Route)> = served()
        .filter(|entry| entry.hosts.contains(best))
        .flat_map(|entry| &entry.rules.routes)
        .collect();
    ranked.sort_by(|(one, _), (other, _)| one.cmp(other));
    ranked.into_iter().map(|(_, route)| route.clone()).collect()
}

fn misdirected() -> Route {
    Route {
        name: "misdirected".to_owned(),
        action: Action::Answer {
            status: 421,
            body: String::new(),
        },
        ..Route::default()
    }
}

/// Adds a listener that says which configuration is in force, and returns its name.
fn add_version(snapshot: &mut Snapshot) -> String {
    let everything: [&[Value]; 4] = [
        &snapshot.listeners,
        &snapshot.routes,
        &snapshot.clusters,
        &snapshot.secrets,
    ];
    let version = fingerprint(&json!(everything).to_string());
    let host = VirtualHost {
        name: VERSION.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            path: PathMatch::Exact("/version".to_owned()),
            action: Action::Answer {
                status: 200,
                body: version.clone(),
            },
            ..Route::default()
        }],
    };
    snapshot.routes.push(route_configuration(VERSION, &[host]));
    let manager = HttpConnectionManager {
        stat_prefix: VERSION,
        routes: Routes::Named(VERSION.to_owned()),
        ..HttpConnectionManager::default()
    };
    snapshot.listeners.push(json!({
        "name": VERSION,
        "address": address("0.0.0.0", VERSION_PORT),
        "filter_chains": [{ "filters": [manager.filter()] }],
    }));
    version
}
