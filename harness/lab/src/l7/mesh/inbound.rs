//! What a sidecar does with the connections that its pod is sent.
//!
//! Start from [`inbound`]. One listener takes them all and looks at the first bytes: Istio's mutual
//! TLS, plain HTTP, or anything else. Whatever passes goes to the port it was sent to, from
//! 127.0.0.6, which the redirection lets through.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::destination::own_certificate;
use super::outbound::BLACK_HOLE;
use super::registry::{Kind, Mesh, Workload, kind_of, ports};
use super::{CERTIFICATES, INBOUND_PORT, INBOUND_SOURCE, authorization, probes, tokens};
use crate::istio::security::MutualTlsMode;
use crate::l7::envoy::Snapshot;
use crate::l7::envoy::cluster::{Protocol, original_destination};
use crate::l7::envoy::listener::{
    HttpConnectionManager, Routes, address, downstream_tls, http_filter, http_inspector,
    original_dst, tcp_proxy, tls_inspector,
};
use crate::l7::envoy::route::{
    Action, Forward, Route, VirtualHost, WeightedCluster, route_configuration,
};
use crate::topology::CLUSTER_DOMAIN;
use kube::ResourceExt;

/// The cluster that connects to where a connection was sent.
const PASSTHROUGH: &str = "InboundPassthroughCluster";
/// Istio's root namespace, whose policies hold everywhere.
pub(super) const ROOT_NAMESPACE: &str = "istio-system";
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// The sidecar's inbound listener and cluster.
pub(super) fn inbound(mesh: &Mesh, workload: &Workload) -> Snapshot {
    let source = json!({
        "source_address": { "address": INBOUND_SOURCE.to_string(), "port_value": 0 },
    });
    let mut clusters = vec![original_destination(
        PASSTHROUGH,
        Protocol::SameAsDownstream,
        Some(source),
    )];
    clusters.extend(probes::clusters(workload));
    Snapshot {
        listeners: vec![listener(mesh, workload), probes::listener(workload)],
        clusters,
        ..Snapshot::default()
    }
}

fn listener(mesh: &Mesh, workload: &Workload) -> Value {
    let policies = authorization::filters(mesh, workload).into_iter();
    let policies =
        policies.map(|rbac| http_filter("envoy.filters.http.rbac", "rbac.v3.RBAC", rbac));
    // Who asks is known before it is asked what they may.
    let filters = tokens::filter(mesh, workload).into_iter().chain(policies);
    let manager = http_manager(filters.collect());
    let network = authorization::network_filters(mesh, workload);
    let bytes = |mut filters: Vec<Value>| {
        filters.push(tcp_proxy(PASSTHROUGH));
        filters
    };
    let modes = modes(mesh, workload);
    let unseen = unseen(mesh, workload);
    let looking = |mut filter: Value| {
        let mut ports = unseen
            .iter()
            .map(|port| json!({ "destination_port_range": { "start": port, "end": port + 1 } }));
        match unseen.len() {
            0 => {}
            1 => filter["filter_disabled"] = ports.next().unwrap_or_default(),
            _ => {
                filter["filter_disabled"] =
                    json!({ "or_match": { "rules": ports.collect::<Vec<_>>() } })
            }
        }
        filter
    };
    // A connection to this port itself was not redirected; passing it on would be a loop.
    let mut chains = vec![json!({
        "name": "virtualInbound-blackhole",
        "filter_chain_match": { "destination_port": INBOUND_PORT },
        "filters": [tcp_proxy(BLACK_HOLE)],
    })];
    for (port, mode) in &modes {
        let on_port = |mut matching: Value| {
            if let Some(port) = port {
                matching["destination_port"] = json!(port);
            }
            matching
        };
        let name = |what: &str| match port {
            Some(port) => format!("virtualInbound-{what}-{port}"),
            None => format!("virtualInbound-{what}"),
        };
        if *mode != MutualTlsMode::Disable {
            chains.push(json!({
                "name": name("mtls-http"),
                "filter_chain_match": on_port(json!({ "transport_protocol": "tls", "application_protocols": MESH_HTTP })),
                "filters": [manager],
                "transport_socket": mutual_tls(),
            }));
            chains.push(json!({
                "name": name("mtls-tcp"),
                "filter_chain_match": on_port(json!({ "transport_protocol": "tls", "application_protocols": ["istio", "istio-peer-exchange"] })),
                "filters": bytes(network.clone()),
                "transport_socket": mutual_tls(),
            }));
        }
        if *mode != MutualTlsMode::Strict {
            chains.push(json!({
                "name": name("http"),
                "filter_chain_match": on_port(json!({ "transport_protocol": "raw_buffer", "application_protocols": HTTP })),
                "filters": [manager],
            }));
            chains.push(json!({
                "name": name("tcp"),
                "filter_chain_match": on_port(json!({ "transport_protocol": "raw_buffer" })),
                "filters": bytes(network.clone()),
            }));
            // TLS that is the application's own.
            chains.push(json!({
                "name": name("tls"),
                "filter_chain_match": on_port(json!({ "transport_protocol": "tls" })),
                "filters": bytes(network.clone()),
            }));
        }
    }
    json!({
        "name": "virtualInbound",
        "address": address("0.0.0.0", INBOUND_PORT),
        "traffic_direction": "INBOUND",
        "listener_filters": [original_dst(), looking(tls_inspector()), looking(http_inspector())],
        // As Istio's default: a client that is slow to speak must not lose its routes and its mutual TLS
        // to a guess. A server that speaks first needs a port whose protocol is declared.
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": true,
        "filter_chains": chains,
    })
}

/// The ports of which nothing has to be found out: they are for bytes, and never for mutual TLS. Their
/// servers may speak first.
fn unseen(mesh: &Mesh, workload: &Workload) -> BTreeSet<u16> {
    let selects = |service: &Service| {
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| {
            let mut labels = selector.iter();
            !selector.is_empty()
                && labels.all(|(key, value)| workload.labels.get(key) == Some(value))
        })
    };
    let services = mesh
        .services
        .iter()
        .filter(|(namespace, _, service)| *namespace == workload.namespace && selects(service));
    let ports = services.flat_map(|(_, _, service)| ports(service));
    let declared = ports.filter(|port| kind_of(port) == Some(Kind::Tcp));
    let numbers = declared.filter_map(|port| match port.target_port {
        Some(IntOrString::Int(number)) => u16::try_from(number).ok(),
        Some(IntOrString::String(_)) => None,
        None => u16::try_from(port.port).ok(),
    });
    numbers
        .filter(|number| mode(mesh, workload, *number) == MutualTlsMode::Disable)
        .collect()
}

fn http_manager(filters: Vec<Value>) -> Value {
    let route = Route {
        name: "default".to_owned(),
        action: Action::Forward(Forward {
            clusters: vec![WeightedCluster {
                name: PASSTHROUGH.to_owned(),
                weight: 1,
                ..WeightedCluster::default()
            }],
            ..Forward::default()
        }),
        ..Route::default()
    };
    let host = VirtualHost {
        name: "inbound|http".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
    };
    HttpConnectionManager {
        stat_prefix: "inbound",
        routes: Routes::Inline(route_configuration("inbound", &[host])),
        server_name: None,
        // The identity that the backend may trust: appended where the peer has proven one, removed
        // where it has not.
        client_cert: Some(json!({
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": { "subject": true, "dns": true, "uri": true },
        })),
        filters,
        ..HttpConnectionManager::default()
    }
    .filter()
}

/// TLS that both sides prove an identity of the mesh in.
fn mutual_tls() -> Value {
    downstream_tls(json!({
        "require_client_certificate": true,
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [own_certificate()],
            "validation_context": {
                "trusted_ca": { "filename": format!("{CERTIFICATES}/root-cert.pem") },
                "match_typed_subject_alt_names": [
                    { "san_type": "URI", "matcher": { "prefix": format!("spiffe://{CLUSTER_DOMAIN}/") } },
                ],
            },
        },
    }))
}

/// Mutual TLS at a port of a workload.
pub(super) fn mode(mesh: &Mesh, workload: &Workload, port: u16) -> MutualTlsMode {
    let mut modes = modes(mesh, workload).into_iter();
    let found = modes.find(|(of, _)| of.is_none_or(|of| of == port));
    found.map_or(MutualTlsMode::Permissive, |(_, mode)| mode)
}

/// Whether a workload has a mode at any of its ports.
pub(super) fn ever(mesh: &Mesh, workload: &Workload, mode: MutualTlsMode) -> bool {
    let mut modes = modes(mesh, workload).into_iter();
    modes.any(|(_, found)| found == mode)
}

/// Mutual TLS by port, and for every other port: the workload's own policy before its namespace's,
/// before the root namespace's; PERMISSIVE where none says.
fn modes(mesh: &Mesh, workload: &Workload) -> Vec<(Option<u16>, MutualTlsMode)> {
    let applies = |namespace: &str, with_selector: bool| {
        mesh.peer_authentications
            .iter()
            .find(|policy| {
                policy.namespace().as_deref() == Some(namespace)
                    && match &policy.spec.selector {
                        Some(selector) => with_selector && selector.matches(&workload.labels),
                        None => !with_selector,
                    }
            })
            .map(|policy| &policy.spec)
    };
    let own = applies(&workload.namespace, true);
    let chain = [
        own,
        applies(&workload.namespace, false),
        applies(ROOT_NAMESPACE, false),
    ];
    let general = chain
        .iter()
        .flatten()
        .filter_map(|spec| spec.mtls.as_ref().map(|mtls| mtls.mode))
        .find(|mode| *mode != MutualTlsMode::Unset)
        .unwrap_or(MutualTlsMode::Permissive);
    let mut modes: Vec<(Option<u16>, MutualTlsMode)> = own
        .iter()
        .flat_map(|spec| spec.port_level_mtls.iter().flatten())
        .filter_map(|(port, mtls)| {
            let mode = if mtls.mode == MutualTlsMode::Unset {
                general
            } else {
                mtls.mode
            };
            Some((Some(port.parse().ok()?), mode))
        })
        .collect();
    modes.push((None, general));
    modes
}
