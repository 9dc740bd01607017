//! What a sidecar does with the connections that its pod opens.
//!
//! Start from [`outbound`]. Redirected connections arrive at one listener, which hands them to the
//! listener of the port they were going to: there HTTP is routed by its host, and anything that is
//! not HTTP, or names no host of the mesh, goes where it was going (`ALLOW_ANY`), or nowhere
//! (`REGISTRY_ONLY`): [`super::sidecar`] says which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::destination::{clusters, hash_policy, idle_timeout};
use super::entries::{foreign_hosts, service_entries};
use super::kept::{Host, Kept, OfService, Seen};
use super::registry::{Client, Kind, Mesh, cluster_name, fqdn, kind_of, ports, service_of};
use super::sidecar::{Egress, OutboundPolicy};
use super::{OUTBOUND_PORT, route};
use crate::l7::envoy::cluster::{Cluster, Protocol, original_destination};
use crate::l7::envoy::listener::{
    HttpConnectionManager, Routes, address, http_filter, http_inspector, original_dst, tcp_proxy,
};
use crate::l7::envoy::route::{
    Action, Forward, Route, VirtualHost, WeightedCluster, route_configuration_of,
};
use crate::xds::Parts;

/// Where connections go that are not for a host of the mesh.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
/// Where connections go that must go nowhere.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";

/// The sidecar's outbound listeners, routes and clusters; of each Service what was made of it before, if that
/// was `kept`.
pub(super) fn outbound(mesh: &Mesh, client: &Client, kept: &mut Kept) -> Parts {
    let egress = Egress::of(mesh, client);
    let policy = egress.policy();
    let passthrough = original_destination(PASSTHROUGH, Protocol::SameAsDownstream, None);
    let black_hole = Cluster {
        name: BLACK_HOLE.to_owned(),
        ..Cluster::default()
    };
    let mut parts = Parts {
        listeners: vec![Arc::new(entrance(policy))],
        routes: Vec::new(),
        clusters: vec![Arc::new(passthrough), Arc::new(black_hole.to_value())],
    };
    let aliases = aliases(mesh, client);
    let mut hosts: BTreeMap<u16, Vec<Host>> = BTreeMap::new();
    for (namespace, name, service) in mesh.services.iter() {
        if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            continue;
        }
        let host = fqdn(namespace, name);
        let seen = Seen {
            namespace,
            name,
            service,
            host: &host,
            aliases: aliases.get(&host).map_or(&[], Vec::as_slice),
            imported: egress.imports(namespace, &host),
        };
        let told = kept.service(mesh, client, seen, || of_service(mesh, client, seen));
        parts.listeners.extend(told.listeners.iter().cloned());
        parts.clusters.extend(told.clusters.iter().cloned());
        for (port, host) in &told.hosts {
            hosts.entry(*port).or_default().push(host.clone());
        }
    }
    foreign_hosts(mesh, client, egress, &mut hosts);
    service_entries(mesh, client, egress, &mut hosts, &mut parts.clusters);
    for (port, hosts) in hosts {
        let name = port.to_string();
        let hosts = with_others(hosts, policy);
        let configuration = route_configuration_of(&name, hosts);
        parts.routes.push(Arc::new(configuration));
        let listener = http_listener(port, name, policy);
        parts.listeners.push(Arc::new(listener));
    }
    // A ServiceEntry may name a Service's host again; a second cluster of one name is refused.
    let mut names = BTreeSet::new();
    parts
        .clusters
        .retain(|cluster| names.insert(cluster["name"].to_string()));
    parts
}

/// What a client is told of one Service.
fn of_service(mesh: &Mesh, client: &Client, seen: Seen<'_>) -> OfService {
    let Seen {
        namespace,
        name,
        service,
        host,
        ..
    } = seen;
    let mut told = OfService::default();
    for port in ports(service) {
        let Ok(number) = u16::try_from(port.port) else {
            continue;
        };
        match kind_of(port) {
            None => continue,
            // Its clusters stay: a rule for another host may lead there.
            Some(_) if !seen.imported => {}
            Some(Kind::Http) => {
                let mut domains = domains(namespace, name, service, client);
                domains.extend(seen.aliases.iter().cloned());
                let host = VirtualHost {
                    name: format!("{host}:{number}"),
                    domains,
                    routes: routes(mesh, client, host, number),
                };
                told.hosts.push((number, host.into()));
            }
            Some(Kind::Tcp) => {
                let listener = tcp_listener(mesh, client, service, host, number);
                told.listeners.extend(listener.map(Arc::new));
            }
        }
        let clusters = clusters(mesh, client, (namespace, name), port);
        told.clusters.extend(clusters.into_iter().map(Arc::new));
    }
    told
}

/// The listener that every redirected connection arrives at.
fn entrance(policy: OutboundPolicy) -> Value {
    json!({
        "name": "virtualOutbound",
        "address": address("0.0.0.0", OUTBOUND_PORT),
        "traffic_direction": "OUTBOUND",
        "use_original_dst": true,
        // A connection to this port itself was not redirected; passing it on would be a loop.
        "filter_chains": [{
            "name": "virtualOutbound-blackhole",
            "filter_chain_match": { "destination_port": OUTBOUND_PORT },
            "filters": [tcp_proxy(BLACK_HOLE)],
        }],
        "default_filter_chain": { "name": "virtualOutbound-catchall-tcp", "filters": [tcp_proxy(others(policy))] },
        "listener_filters": [original_dst()],
    })
}

/// The cluster of connections for nobody in the mesh.
const fn others(policy: OutboundPolicy) -> &'static str {
    match policy {
        OutboundPolicy::AllowAny => PASSTHROUGH,
        OutboundPolicy::RegistryOnly => BLACK_HOLE,
    }
}

/// The listener of an HTTP port: what does not look like HTTP is for nobody in the mesh.
fn http_listener(port: u16, routes: String, policy: OutboundPolicy) -> Value {
    let manager = HttpConnectionManager {
        stat_prefix: &format!("outbound_0.0.0.0_{port}"),
        routes: Routes::Named(routes),
        server_name: Some("istio-envoy"),
        filters: vec![
            http_filter("envoy.filters.http.cors", "cors.v3.Cors", json!({})),
            http_filter("envoy.filters.http.fault", "fault.v3.HTTPFault", json!({})),
        ],
        ..HttpConnectionManager::default()
    };
    json!({
        "name": format!("0.0.0.0_{port}"),
        "address": address("0.0.0.0", port),
        "traffic_direction": "OUTBOUND",
        "bind_to_port": false,
        "listener_filters": [http_inspector()],
        // As Istio's default: a client that is slow to speak must not lose its routes and its mutual TLS
        // to a guess. A server that speaks first needs a port whose protocol is declared.
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": true,
        "filter_chains": [{
            "filter_chain_match": { "application_protocols": ["http/1.0", "http/1.1", "h2c"] },
            "filters": [manager.filter()],
        }],
        "default_filter_chain": { "filters": [tcp_proxy(others(policy))] },
    })
}

/// The listener of a Service's port for bytes. A headless Service has no address to listen for.
fn tcp_listener(
    mesh: &Mesh,
    client: &Client,
    service: &Service,
    host: &str,
    port: u16,
) -> Option<Value> {
    let ip = cluster_ip(service)?;
    let targets = route::tcp_targets(mesh, client, host, port);
    let mut filter = tcp_proxy(&cluster_name(port, None, host));
    let config = filter.get_mut("typed_config")?.as_object_mut()?;
    if !targets.is_empty() {
        config.remove("cluster");
        config.insert(
            "weighted_clusters".to_owned(),
            json!({ "clusters": targets }),
        );
    }
    // Of bytes there is nothing else to hash.
    if hash_policy(mesh, client, host, None).is_some() {
        config.insert("hash_policy".to_owned(), json!([{ "source_ip": {} }]));
    }
    if let Some(idle) = idle_timeout(mesh, client, host) {
        config.insert("idle_timeout".to_owned(), json!(idle));
    }
    Some(json!({
        "name": format!("{ip}_{port}"),
        "address": address(ip, port),
        "traffic_direction": "OUTBOUND",
        "bind_to_port": false,
        "filter_chains": [{ "filters": [filter] }],
    }))
}

fn cluster_ip(service: &Service) -> Option<&str> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!ip.is_empty() && ip != "None").then_some(ip)
}

/// The names by which a client may call a Service.
fn domains(namespace: &str, name: &str, service: &Service, client: &Client) -> Vec<String> {
    let mut domains = vec![
        fqdn(namespace, name),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
    ];
    if client.namespace == namespace {
        domains.push(name.to_owned());
    }
    domains.extend(cluster_ip(service).map(str::to_owned));
    domains
}

/// The other names of Services, by Services of type ExternalName.
fn aliases(mesh: &Mesh, client: &Client) -> BTreeMap<String, Vec<String>> {
    let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (namespace, name, service) in mesh.services.iter() {
        let host = fqdn(namespace, name);
        let target = mesh.resolved(host.clone());
        if target != host {
            let names = domains(namespace, name, service, client);
            aliases.entry(target).or_default().extend(names);
        }
    }
    aliases
}

/// The routes of a host: its VirtualService's, or those of the Gateway API, or the Service itself.
pub(super) fn routes(mesh: &Mesh, client: &Client, host: &str, port: u16) -> Vec<Route> {
    let parented = || {
        let routes = &mesh.service_routes;
        let naming =
            |namespace: &str, name: &str, port| cluster_name(port, None, &fqdn(namespace, name));
        routes.of(service_of(host)?, port, &client.namespace, naming)
    };
    match mesh.virtual_service(host, client) {
        Some(object) if object.spec.http.is_some() => route::routes(mesh, client, object, port),
        _ => parented().unwrap_or_else(|| {
            vec![Route {
                name: "default".to_owned(),
                action: Action::Forward(Forward {
                    clusters: vec![WeightedCluster {
                        name: cluster_name(port, None, host),
                        weight: 1,
                        ..WeightedCluster::default()
                    }],
                    retry: Some(route::default_retries()),
                    hash: hash_policy(mesh, client, host, None).into_iter().collect(),
                    ..Forward::default()
                }),
                ..Route::default()
            }]
        }),
    }
}

/// The virtual hosts, and the one of every other host: passed through, or refused as Istio refuses it.
fn with_others(hosts: Vec<Host>, policy: OutboundPolicy) -> Vec<Value> {
    // Two virtual hosts with one domain would void the whole configuration.
    let mut taken = BTreeSet::new();
    let unique = |host: Host| {
        let mut own = host.domains;
        let all = own.len();
        own.retain(|domain| taken.insert(domain.clone()));
        let mut value = Arc::unwrap_or_clone(host.value);
        if own.len() < all {
            value["domains"] = json!(own);
        }
        (!own.is_empty()).then_some(value)
    };
    let mut values: Vec<Value> = hosts.into_iter().filter_map(unique).collect();
    let (name, action) = match policy {
        OutboundPolicy::AllowAny => (
            "allow_any",
            Action::Forward(Forward {
                clusters: vec![WeightedCluster {
                    name: PASSTHROUGH.to_owned(),
                    weight: 1,
                    ..WeightedCluster::default()
                }],
                ..Forward::default()
            }),
        ),
        OutboundPolicy::RegistryOnly => (
            "block_all",
            Action::Answer {
                status: 502,
                body: String::new(),
            },
        ),
    };
    let others = VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: name.to_owned(),
            action,
            ..Route::default()
        }],
    };
    values.push(others.to_value());
    values
}
