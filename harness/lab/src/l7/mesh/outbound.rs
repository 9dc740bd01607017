//! What a sidecar does with the connections that its pod opens.
//!
//! Start from [`outbound`]. Redirected connections arrive at one listener, which hands them to the
//! listener of the port they were going to: there HTTP is routed by its host, and anything that is
//! not HTTP, or names no host of the mesh, goes where it was going (`ALLOW_ANY`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::registry::{
    Kind, Mesh, Workload, cluster_name, fqdn, host_covers, kind_of, ports, resolve_host,
};
use super::types::destination_rule::{SimpleLoadBalancer, TlsMode, TrafficPolicy};
use super::types::service_entry::{Resolution, WorkloadEntry};
use super::{CERTIFICATES, OUTBOUND_PORT, route};
use crate::l7::cluster::protocol;
use crate::l7::envoy::Snapshot;
use crate::l7::envoy::cluster::{Cluster, Endpoint, Protocol, original_destination};
use crate::l7::envoy::listener::{
    HttpConnectionManager, Routes, address, http_filter, http_inspector, original_dst, tcp_proxy,
    upstream_tls,
};
use crate::l7::envoy::route::{
    Action, Forward, Route, VirtualHost, WeightedCluster, route_configuration,
};
use crate::topology::CLUSTER_DOMAIN;

/// Where connections go that are not for a host of the mesh.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
/// Where connections go that must go nowhere.
const BLACK_HOLE: &str = "BlackHoleCluster";

/// The sidecar's outbound listeners, routes and clusters.
pub(super) fn outbound(mesh: &Mesh, client: &Workload) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.clusters.push(original_destination(
        PASSTHROUGH,
        Protocol::SameAsDownstream,
        None,
    ));
    snapshot.clusters.push(
        Cluster {
            name: BLACK_HOLE.to_owned(),
            ..Cluster::default()
        }
        .to_value(),
    );
    snapshot.listeners.push(entrance());
    let mut hosts: BTreeMap<u16, Vec<VirtualHost>> = BTreeMap::new();
    for (namespace, name, service) in mesh.services.iter() {
        if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            continue;
        }
        for port in ports(service) {
            let Ok(number) = u16::try_from(port.port) else {
                continue;
            };
            let host = fqdn(namespace, name);
            match kind_of(port) {
                None => continue,
                Some(Kind::Http) => {
                    hosts.entry(number).or_default().push(VirtualHost {
                        name: format!("{host}:{number}"),
                        domains: domains(namespace, name, service, client),
                        routes: routes(mesh, client, &host, number),
                    });
                }
                Some(Kind::Tcp) => {
                    snapshot
                        .listeners
                        .extend(tcp_listener(mesh, client, service, &host, number));
                }
            }
            snapshot
                .clusters
                .extend(clusters(mesh, client, (namespace, name), port));
        }
    }
    foreign_hosts(mesh, client, &mut hosts);
    service_entries(mesh, client, &mut hosts, &mut snapshot);
    for (port, hosts) in hosts {
        let name = port.to_string();
        let configuration = route_configuration(&name, &with_passthrough(hosts));
        snapshot.routes.push(configuration);
        snapshot.listeners.push(http_listener(port, name));
    }
    // A ServiceEntry may name a Service's host again; a second cluster of one name is refused.
    let mut names = BTreeSet::new();
    snapshot
        .clusters
        .retain(|cluster| names.insert(cluster["name"].to_string()));
    snapshot
}

/// The listener that every redirected connection arrives at.
fn entrance() -> Value {
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
        "default_filter_chain": { "name": "virtualOutbound-catchall-tcp", "filters": [tcp_proxy(PASSTHROUGH)] },
        "listener_filters": [original_dst()],
    })
}

/// The listener of an HTTP port: what does not look like HTTP is passed through.
fn http_listener(port: u16, routes: String) -> Value {
    let manager = HttpConnectionManager {
        stat_prefix: &format!("outbound_0.0.0.0_{port}"),
        routes: Routes::Named(routes),
        server_name: Some("istio-envoy"),
        filters: vec![http_filter(
            "envoy.filters.http.fault",
            "fault.v3.HTTPFault",
            json!({}),
        )],
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
        "default_filter_chain": { "filters": [tcp_proxy(PASSTHROUGH)] },
    })
}

/// The listener of a Service's port for bytes. A headless Service has no address to listen for.
fn tcp_listener(
    mesh: &Mesh,
    client: &Workload,
    service: &Service,
    host: &str,
    port: u16,
) -> Option<Value> {
    let ip = cluster_ip(service)?;
    let targets = route::tcp_targets(mesh, client, host, port);
    let mut filter = tcp_proxy(&cluster_name(port, None, host));
    if !targets.is_empty() {
        let config = filter.get_mut("typed_config")?.as_object_mut()?;
        config.remove("cluster");
        config.insert(
            "weighted_clusters".to_owned(),
            json!({ "clusters": targets }),
        );
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
fn domains(namespace: &str, name: &str, service: &Service, client: &Workload) -> Vec<String> {
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

/// The routes of a host: its VirtualService's, or the Service itself.
fn routes(mesh: &Mesh, client: &Workload, host: &str, port: u16) -> Vec<Route> {
    match mesh.virtual_service(host, client) {
        Some(object) if object.spec.http.is_some() => route::routes(mesh, client, object, port),
        _ => vec![Route {
            name: "default".to_owned(),
            action: Action::Forward(Forward {
                clusters: vec![WeightedCluster {
                    name: cluster_name(port, None, host),
                    weight: 1,
                    ..WeightedCluster::default()
                }],
                retry: Some(route::default_retries()),
                ..Forward::default()
            }),
            ..Route::default()
        }],
    }
}

/// Hosts that VirtualServices route though no Service has them: on port 80, as in Istio.
fn foreign_hosts(mesh: &Mesh, client: &Workload, hosts: &mut BTreeMap<u16, Vec<VirtualHost>>) {
    const PORT: u16 = 80;
    let known: BTreeSet<String> = mesh
        .services
        .iter()
        .map(|(namespace, name, _)| fqdn(namespace, name))
        .collect();
    let mut seen = BTreeSet::new();
    for object in &mesh.virtual_services {
        let namespace = object.namespace().unwrap_or_default();
        for host in &object.spec.hosts {
            let host = resolve_host(host, &namespace);
            let covers_known = known.iter().any(|known| host_covers(&host, known));
            if host == "*" || covers_known || !seen.insert(host.clone()) {
                continue;
            }
            if mesh
                .virtual_service(&host, client)
                .is_some_and(|found| found.spec.http.is_some())
            {
                hosts.entry(PORT).or_default().push(VirtualHost {
                    name: format!("{host}:{PORT}"),
                    domains: vec![host.clone()],
                    routes: routes(mesh, client, &host, PORT),
                });
            }
        }
    }
}

/// Hosts of ServiceEntries, for HTTP. Bytes go where they were going: the mesh allows any.
fn service_entries(
    mesh: &Mesh,
    client: &Workload,
    hosts: &mut BTreeMap<u16, Vec<VirtualHost>>,
    snapshot: &mut Snapshot,
) {
    for entry in &mesh.service_entries {
        if entry.spec.resolution != Some(Resolution::Static) {
            continue;
        }
        for port in entry.spec.ports.iter().flatten() {
            let protocol = port
                .protocol
                .as_deref()
                .unwrap_or("HTTP")
                .to_ascii_uppercase();
            let Ok(number) = u16::try_from(port.number) else {
                continue;
            };
            if !matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC") {
                continue;
            }
            let endpoint = |endpoint: &WorkloadEntry| {
                let own = endpoint
                    .ports
                    .as_ref()
                    .and_then(|ports| ports.get(&port.name).copied());
                let target = own.or(port.target_port).unwrap_or(port.number);
                let target = u16::try_from(target).ok()?;
                Some(Endpoint {
                    address: endpoint.address.clone(),
                    port: target,
                    mesh: false,
                })
            };
            for host in &entry.spec.hosts {
                let host = host.to_ascii_lowercase();
                let cluster = Cluster {
                    name: cluster_name(number, None, &host),
                    endpoints: entry
                        .spec
                        .endpoints
                        .iter()
                        .flatten()
                        .filter_map(endpoint)
                        .collect(),
                    protocol: if protocol == "HTTP" {
                        Protocol::Http1
                    } else {
                        Protocol::Http2
                    },
                    ..Cluster::default()
                };
                snapshot.clusters.push(cluster.to_value());
                hosts.entry(number).or_default().push(VirtualHost {
                    name: format!("{host}:{number}/entry"),
                    domains: vec![host.clone()],
                    routes: routes(mesh, client, &host, number),
                });
            }
        }
    }
}

fn with_passthrough(mut hosts: Vec<VirtualHost>) -> Vec<VirtualHost> {
    // Two virtual hosts with one domain would void the whole configuration.
    let mut taken = BTreeSet::new();
    for host in &mut hosts {
        host.domains.retain(|domain| taken.insert(domain.clone()));
    }
    hosts.retain(|host| !host.domains.is_empty());
    hosts.push(VirtualHost {
        name: "allow_any".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: "allow_any".to_owned(),
            action: Action::Forward(Forward {
                clusters: vec![WeightedCluster {
                    name: PASSTHROUGH.to_owned(),
                    weight: 1,
                    ..WeightedCluster::default()
                }],
                ..Forward::default()
            }),
            ..Route::default()
        }],
    });
    hosts
}

/// The clusters of a Service's port: the whole, and each subset.
fn clusters(
    mesh: &Mesh,
    client: &Workload,
    (namespace, name): (&str, &str),
    port: &ServicePort,
) -> Vec<Value> {
    let host = fqdn(namespace, name);
    let Ok(number) = u16::try_from(port.port) else {
        return Vec::new();
    };
    let rule = mesh.destination_rule(&host, client);
    let policy = rule.and_then(|rule| rule.spec.traffic_policy.as_ref());
    let (endpoints, pods) = mesh
        .services
        .endpoints_where(namespace, name, port, |_| true);
    let mut accounts: Vec<String> = pods
        .iter()
        .map(|pod| {
            let account = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.service_account_name.as_deref());
            let namespace = pod.namespace().unwrap_or_default();
            format!(
                "spiffe://{CLUSTER_DOMAIN}/ns/{namespace}/sa/{}",
                account.unwrap_or("default")
            )
        })
        .collect();
    accounts.sort();
    accounts.dedup();
    let whole = Cluster {
        name: cluster_name(number, None, &host),
        endpoints,
        protocol: protocol(port),
        ..Cluster::default()
    };
    let mut made = vec![finish(whole, port, &host, None, &accounts, &[policy])];
    for subset in rule
        .iter()
        .flat_map(|rule| rule.spec.subsets.iter().flatten())
    {
        let (endpoints, _) = mesh.services.endpoints_where(namespace, name, port, |pod| {
            pod.is_some_and(|pod| {
                subset
                    .labels
                    .iter()
                    .flatten()
                    .all(|(key, value)| pod.labels().get(key) == Some(value))
            })
        });
        let part = Cluster {
            name: cluster_name(number, Some(&subset.name), &host),
            endpoints,
            protocol: protocol(port),
            ..Cluster::default()
        };
        let policies = [subset.traffic_policy.as_ref(), policy];
        made.push(finish(
            part,
            port,
            &host,
            Some(&subset.name),
            &accounts,
            &policies,
        ));
    }
    made
}

/// Adds mutual TLS and policies; where two policies say something, the first does.
fn finish(
    mut cluster: Cluster,
    port: &ServicePort,
    host: &str,
    subset: Option<&str>,
    accounts: &[String],
    policies: &[Option<&TrafficPolicy>],
) -> Value {
    let policies = || policies.iter().flatten();
    let plain = policies()
        .find_map(|policy| policy.tls.as_ref())
        .is_some_and(|tls| tls.mode == TlsMode::Disable);
    if !plain && cluster.endpoints.iter().any(|endpoint| endpoint.mesh) {
        let sni = format!(
            "outbound_.{}_.{}_.{host}",
            port.port,
            subset.unwrap_or_default()
        );
        cluster.mutual_tls = Some(mutual_tls(cluster.protocol, kind_of(port), &sni, accounts));
    }
    let balancer = policies().find_map(|policy| policy.load_balancer.as_ref()?.simple);
    cluster.lb_policy = Some(match balancer {
        Some(SimpleLoadBalancer::Random) => "RANDOM",
        Some(SimpleLoadBalancer::RoundRobin) => "ROUND_ROBIN",
        // Istio's own default.
        _ => "LEAST_REQUEST",
    });
    if let Some(pool) = policies().find_map(|policy| policy.connection_pool.as_ref()) {
        let tcp = pool.tcp.as_ref().and_then(|tcp| tcp.max_connections);
        let http = pool.http.as_ref();
        let limit = |value: Option<i32>| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .unwrap_or(u32::MAX)
        };
        cluster.circuit_breakers = Some(json!({ "thresholds": [{
            "max_connections": limit(tcp),
            "max_pending_requests": limit(http.and_then(|http| http.http1_max_pending_requests)),
            "max_requests": limit(http.and_then(|http| http.http2_max_requests)),
            "max_retries": u32::MAX,
        }] }));
    }
    if let Some(outlier) = policies().find_map(|policy| policy.outlier_detection.as_ref()) {
        let gateway = outlier.consecutive_gateway_errors;
        let mut value = json!({
            "interval": outlier.interval.as_deref().map_or_else(|| "10s".to_owned(), route::duration),
            "base_ejection_time": outlier.base_ejection_time.as_deref().map_or_else(|| "30s".to_owned(), route::duration),
            "max_ejection_percent": outlier.max_ejection_percent.unwrap_or(10),
            "enforcing_success_rate": 0,
            "enforcing_consecutive_5xx": if outlier.consecutive_5xx_errors == Some(0) { 0 } else { 100 },
            "consecutive_5xx": outlier.consecutive_5xx_errors.filter(|errors| *errors > 0).unwrap_or(5),
        });
        if let Some(errors) = gateway.filter(|errors| *errors > 0) {
            value["consecutive_gateway_failure"] = json!(errors);
            value["enforcing_consecutive_gateway_failure"] = json!(100);
        }
        cluster.outlier_detection = Some(value);
    }
    cluster.to_value()
}

/// TLS with the client's certificate, to a server that must be one of these identities.
fn mutual_tls(protocol: Protocol, kind: Option<Kind>, sni: &str, accounts: &[String]) -> Value {
    // The server's sidecar tells by these whether what is inside is HTTP.
    let alpn = match (kind, protocol) {
        (Some(Kind::Http), Protocol::Http2) => "istio-h2",
        (Some(Kind::Http), _) => "istio-http/1.1",
        _ => "istio",
    };
    let identities: Vec<Value> = accounts
        .iter()
        .map(|account| json!({ "san_type": "URI", "matcher": { "exact": account } }))
        .collect();
    upstream_tls(json!({
        "sni": sni,
        "common_tls_context": {
            "alpn_protocols": [alpn],
            "tls_certificates": [own_certificate()],
            "validation_context": {
                "trusted_ca": { "filename": format!("{CERTIFICATES}/root-cert.pem") },
                "match_typed_subject_alt_names": identities,
            },
        },
    }))
}

/// The certificate that says who the workload is.
pub(super) fn own_certificate() -> Value {
    json!({
        "certificate_chain": { "filename": format!("{CERTIFICATES}/cert-chain.pem") },
        "private_key": { "filename": format!("{CERTIFICATES}/key.pem") },
    })
}
