//! Hosts that are no Service's: of VirtualServices, and of ServiceEntries.
//!
//! Start from [`foreign_hosts`] and [`service_entries`]. Both add to what [`super::outbound`] has made of
//! Services.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde_json::json;

use super::destination::originated;
use super::outbound::routes;
use super::registry::{Mesh, Workload, cluster_name, fqdn, host_covers, resolve_host};
use super::sidecar::Egress;
use super::types::service_entry::{Resolution, WorkloadEntry};
use crate::l7::envoy::Snapshot;
use crate::l7::envoy::cluster::{Cluster, Endpoint, Protocol};
use crate::l7::envoy::route::VirtualHost;

/// Hosts that VirtualServices route though no Service has them: on port 80, as in Istio.
pub(super) fn foreign_hosts(
    mesh: &Mesh,
    client: &Workload,
    egress: Egress<'_>,
    hosts: &mut BTreeMap<u16, Vec<VirtualHost>>,
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
pub(super) fn service_entries(
    mesh: &Mesh,
    client: &Workload,
    egress: Egress<'_>,
    hosts: &mut BTreeMap<u16, Vec<VirtualHost>>,
    snapshot: &mut Snapshot,
) {
    for entry in &mesh.service_entries {
        let named = entry.spec.resolution == Some(Resolution::Dns);
        if !named && entry.spec.resolution != Some(Resolution::Static) {
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
                    protocol: if protocol == "HTTP" {
                        Protocol::Http1
                    } else {
                        Protocol::Http2
                    },
                    ..Cluster::default()
                };
                let rule = mesh.destination_rule(&host, client);
                let policy = rule.and_then(|rule| rule.spec.traffic_policy.as_ref());
                let tls = policy.and_then(|policy| policy.tls.as_ref());
                cluster.tls = tls.and_then(|tls| originated(tls, cluster.protocol));
                let mut cluster = cluster.to_value();
                if named {
                    cluster["type"] = json!("STRICT_DNS");
                    cluster["dns_lookup_family"] = json!("V4_PREFERRED");
                }
                snapshot.clusters.push(cluster);
                hosts.entry(number).or_default().push(VirtualHost {
                    name: format!("{host}:{number}/entry"),
                    domains: vec![host.clone()],
                    routes: routes(mesh, client, &host, number),
                });
            }
        }
    }
}
