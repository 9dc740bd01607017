//! Hosts that are no Service's: of VirtualServices, and of ServiceEntries.
//!
//! Start from [`foreign_hosts`] and [`service_entries`]. Both add to what [`super::outbound`] has made of
//! Services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::destination::originated;
use super::kept::Host;
use super::locality;
use super::outbound::routes;
use super::registry::{Client, Mesh, cluster_name, fqdn, host_covers, resolve_host};
use super::sidecar::Egress;
use crate::istio::service_entry::{Resolution, WorkloadEntry};
use crate::l7::envoy::cluster::{Cluster, Endpoint, Protocol, original_destination};
use crate::l7::envoy::listener::upstream_tls;
use crate::l7::envoy::route::VirtualHost;
use crate::l7::locality::Locality;

/// Hosts that VirtualServices route though no Service has them: on port 80, as in Istio.
pub(super) fn foreign_hosts(
    mesh: &Mesh,
    client: &Client,
    egress: Egress<'_>,
    hosts: &mut BTreeMap<u16, Vec<Host>>,
) {
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
            let imported = egress.imports(&namespace, &host);
            if host == "*" || covers_known || !imported || !seen.insert(host.clone()) {
                continue;
            }
            if mesh
                .virtual_service(&host, client)
                .is_some_and(|found| found.spec.http.is_some())
            {
                hosts.entry(PORT).or_default().push(Host::from(VirtualHost {
                    name: format!("{host}:{PORT}"),
                    domains: vec![host.clone()],
                    routes: routes(mesh, client, &host, PORT),
                }));
            }
        }
    }
}

/// Hosts of ServiceEntries, for HTTP. Bytes go where they were going: the mesh allows any.
pub(super) fn service_entries(
    mesh: &Mesh,
    client: &Client,
    egress: Egress<'_>,
    hosts: &mut BTreeMap<u16, Vec<Host>>,
    clusters: &mut Vec<Arc<Value>>,
) {
    for entry in &mesh.service_entries {
        let resolution = entry.spec.resolution.unwrap_or(Resolution::None);
        let named = resolution == Resolution::Dns;
        for port in entry.spec.ports.iter().flatten() {
            let protocol = port
                .protocol
                .as_deref()
                .unwrap_or("HTTP")
                .to_ascii_uppercase();
            let Ok(number) = u16::try_from(port.number) else {
                continue;
            };
            let http = matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC");
            // A rule may lead to any port of an entry whose clients know where they go.
            if !http && resolution != Resolution::None {
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
                    locality: Locality::parse(endpoint.locality.as_deref().unwrap_or_default()),
                })
            };
            let namespace = entry.namespace().unwrap_or_default();
            for host in &entry.spec.hosts {
                let host = host.to_ascii_lowercase();
                if !egress.imports(&namespace, &host) {
                    continue;
                }
                let itself = [WorkloadEntry {
                    address: host.clone(),
                    ..WorkloadEntry::default()
                }];
                let own = entry.spec.endpoints.as_deref().unwrap_or_default();
                let known = if named && own.is_empty() {
                    &itself
                } else {
                    own
                };
                let mut cluster = Cluster {
                    name: cluster_name(number, None, &host),
                    endpoints: known.iter().filter_map(endpoint).collect(),
                    protocol: match protocol.as_str() {
                        "HTTP2" | "GRPC" => Protocol::Http2,
                        _ => Protocol::Http1,
                    },
                    ..Cluster::default()
                };
                let rule = mesh.destination_rule(&host, client);
                let policy = rule.and_then(|rule| rule.spec.traffic_policy.as_ref());
                let tls = policy.and_then(|policy| policy.tls.as_ref());
                cluster.tls = tls.and_then(|tls| originated(tls, cluster.protocol));
                let balancer = policy.and_then(|policy| policy.load_balancer.as_ref());
                let ejects = policy.is_some_and(|policy| policy.outlier_detection.is_some());
                let setting = balancer.and_then(|balancer| balancer.locality_lb_setting.as_ref());
                cluster.places = locality::spread(setting, ejects, client, &cluster.endpoints);
                let mut value = cluster.to_value();
                match resolution {
                    Resolution::Static => {}
                    Resolution::Dns => {
                        value["type"] = json!("STRICT_DNS");
                        value["dns_lookup_family"] = json!("V4_PREFERRED");
                    }
                    Resolution::None => value = where_it_went(&cluster, port.target_port),
                }
                clusters.push(Arc::new(value));
                if !http {
                    continue;
                }
                hosts
                    .entry(number)
                    .or_default()
                    .push(Host::from(VirtualHost {
                        name: format!("{host}:{number}/entry"),
                        domains: vec![host.clone()],
                        routes: routes(mesh, client, &host, number),
                    }));
            }
        }
    }
}

/// The cluster that goes on to where its client was going, though maybe to another port there.
fn where_it_went(cluster: &Cluster, port: Option<u32>) -> Value {
    let mut value = original_destination(&cluster.name, cluster.protocol, None);
    if let Some(context) = &cluster.tls {
        value["transport_socket"] = upstream_tls(context.clone());
    }
    if let Some(port) = port {
        value["original_dst_lb_config"] = json!({ "upstream_port_override": port });
    }
    value
}
