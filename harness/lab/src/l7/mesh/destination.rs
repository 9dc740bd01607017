//! Where a Service's port leads: its clusters, and what a DestinationRule says of them.
//!
//! Start from [`clusters`]. Where a subset and its rule both say something, the subset does. Mutual TLS
//! is for endpoints with a sidecar that takes it.

use k8s_openapi::api::core::v1::{Pod, ServicePort};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::registry::{Client, Kind, Mesh, cluster_name, fqdn, kind_of};
use super::{CERTIFICATES, inbound, inject, locality, route};
use crate::istio::destination_rule::{
    ClientTls, ConsistentHash, SimpleLoadBalancer, TlsMode, TrafficPolicy,
};
use crate::istio::security::MutualTlsMode;
use crate::l7::cluster::protocol;
use crate::l7::envoy::cluster::{Cluster, Endpoint, Protocol};
use crate::l7::envoy::listener::upstream_tls;
use crate::topology::CLUSTER_DOMAIN;

/// The clusters of a Service's port: the whole, and each subset.
pub(super) fn clusters(
    mesh: &Mesh,
    client: &Client,
    (namespace, name): (&str, &str),
    port: &ServicePort,
) -> Vec<Value> {
    let host = fqdn(namespace, name);
    let Ok(number) = u16::try_from(port.port) else {
        return Vec::new();
    };
    let rule = mesh.destination_rule(&host, client);
    let policy = rule.and_then(|rule| rule.spec.traffic_policy.as_ref());
    let (endpoints, pods) = endpoints_of(mesh, (namespace, name), port, |_| true);
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
    let called = Called {
        client,
        port,
        host: &host,
        accounts: &accounts,
    };
    let mut made = vec![finish(whole, &called, None, &[policy])];
    for subset in rule
        .iter()
        .flat_map(|rule| rule.spec.subsets.iter().flatten())
    {
        let (endpoints, _) = endpoints_of(mesh, (namespace, name), port, |pod| {
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
        made.push(finish(part, &called, Some(&subset.name), &policies));
    }
    made
}

/// The endpoints that are meant, and their pods. Whose sidecar takes no mutual TLS at the port in
/// question is called as one without.
fn endpoints_of<'a>(
    mesh: &'a Mesh,
    (namespace, name): (&str, &str),
    port: &ServicePort,
    keep: impl Fn(Option<&Pod>) -> bool,
) -> (Vec<Endpoint>, Vec<&'a Pod>) {
    let services = &mesh.services;
    let (mut endpoints, pods) = services.endpoints_where(namespace, name, port, keep);
    for pod in &pods {
        let Some(workload) = inject::injected_workload(pod) else {
            continue;
        };
        let plain = |port: u16| inbound::mode(mesh, &workload, port) == MutualTlsMode::Disable;
        if !inbound::ever(mesh, &workload, MutualTlsMode::Disable) {
            continue;
        }
        let own = |other: Option<&Pod>| other.is_some_and(|other| std::ptr::eq(other, *pod));
        let (own, _) = services.endpoints_where(namespace, name, port, own);
        let known = endpoints
            .iter_mut()
            .filter(|endpoint| own.contains(endpoint));
        for endpoint in known.filter(|endpoint| plain(endpoint.port)) {
            endpoint.mesh = false;
        }
    }
    (endpoints, pods)
}

/// How requests for a host are hashed, where its DestinationRule says so, in Envoy's form.
pub(super) fn hash_policy(
    mesh: &Mesh,
    client: &Client,
    host: &str,
    subset: Option<&str>,
) -> Option<Value> {
    let rule = mesh.destination_rule(host, client)?;
    let subsets = rule.spec.subsets.iter().flatten();
    let own = subsets
        .filter(|own| Some(own.name.as_str()) == subset)
        .filter_map(|own| own.traffic_policy.as_ref());
    let hash = own
        .chain(&rule.spec.traffic_policy)
        .find_map(|policy| policy.load_balancer.as_ref())?
        .consistent_hash
        .as_ref()?;
    hashed(hash)
}

/// How long connections for bytes may be idle, where a host's DestinationRule says so.
pub(super) fn idle_timeout(mesh: &Mesh, client: &Client, host: &str) -> Option<String> {
    let policy = mesh
        .destination_rule(host, client)?
        .spec
        .traffic_policy
        .as_ref()?;
    let tcp = policy.connection_pool.as_ref()?.tcp.as_ref()?;
    tcp.idle_timeout.as_deref().map(route::duration)
}

fn hashed(hash: &ConsistentHash) -> Option<Value> {
    if let Some(name) = &hash.http_header_name {
        return Some(json!({ "header": { "header_name": name } }));
    }
    if let Some(name) = &hash.http_query_parameter_name {
        return Some(json!({ "query_parameter": { "name": name } }));
    }
    if let Some(cookie) = &hash.http_cookie {
        let mut asked = json!({ "name": cookie.name });
        if let Some(path) = &cookie.path {
            asked["path"] = json!(path);
        }
        // Without one, Envoy gives no cookie, and who has none is sent anywhere.
        if let Some(ttl) = &cookie.ttl {
            asked["ttl"] = json!(route::duration(ttl));
        }
        return Some(json!({ "cookie": asked }));
    }
    (hash.use_source_ip == Some(true))
        .then(|| json!({ "connection_properties": { "source_ip": true } }))
}

/// What is called by whom.
struct Called<'a> {
    client: &'a Client,
    port: &'a ServicePort,
    host: &'a str,
    /// The identities behind the host.
    accounts: &'a [String],
}

/// Adds mutual TLS and policies; where two policies say something, the first does.
fn finish(
    mut cluster: Cluster,
    called: &Called<'_>,
    subset: Option<&str>,
    policies: &[Option<&TrafficPolicy>],
) -> Value {
    let (port, host) = (called.port, called.host);
    let policies = || policies.iter().flatten();
    let tls = policies().find_map(|policy| policy.tls.as_ref());
    cluster.tls = tls.and_then(|tls| originated(tls, cluster.protocol));
    let meshed = tls.is_none_or(|tls| tls.mode == TlsMode::IstioMutual);
    if meshed && cluster.endpoints.iter().any(|endpoint| endpoint.mesh) {
        let sni = format!(
            "outbound_.{}_.{}_.{host}",
            port.port,
            subset.unwrap_or_default()
        );
        let named = tls.and_then(|tls| tls.subject_alt_names.as_deref());
        let accounts = named.unwrap_or(called.accounts);
        cluster.mutual_tls = Some(mutual_tls(cluster.protocol, kind_of(port), &sni, accounts));
    }
    let balancer = policies().find_map(|policy| policy.load_balancer.as_ref());
    let hashed = balancer.is_some_and(|balancer| balancer.consistent_hash.is_some());
    cluster.lb_policy = Some(match balancer.and_then(|balancer| balancer.simple) {
        _ if hashed => "RING_HASH",
        Some(SimpleLoadBalancer::Random) => "RANDOM",
        Some(SimpleLoadBalancer::RoundRobin) => "ROUND_ROBIN",
        // Istio's own default.
        _ => "LEAST_REQUEST",
    });
    if let Some(pool) = policies().find_map(|policy| policy.connection_pool.as_ref()) {
        let tcp = pool.tcp.as_ref().and_then(|tcp| tcp.max_connections);
        let http = pool.http.as_ref();
        if http.and_then(|http| http.use_client_protocol) == Some(true) {
            cluster.protocol = Protocol::SameAsDownstream;
        }
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
    let ejects = cluster.outlier_detection.is_some();
    let setting = policies().find_map(|policy| {
        let balancer = policy.load_balancer.as_ref()?;
        balancer.locality_lb_setting.as_ref()
    });
    cluster.places = locality::spread(setting, ejects, called.client, &cluster.endpoints);
    cluster.to_value()
}

/// TLS to a server that is not of the mesh, where a rule asks for it.
pub(super) fn originated(tls: &ClientTls, protocol: Protocol) -> Option<Value> {
    if tls.mode != TlsMode::Simple {
        return None;
    }
    let alpn = match protocol {
        Protocol::Http2 => "h2",
        Protocol::Http1 | Protocol::SameAsDownstream => "http/1.1",
    };
    let mut common = json!({ "alpn_protocols": [alpn] });
    if tls.insecure_skip_verify != Some(true) {
        let names = tls.subject_alt_names.iter().flatten();
        let names: Vec<Value> = names
            .map(|name| json!({ "san_type": "DNS", "matcher": { "exact": name } }))
            .collect();
        // Whom a machine trusts by itself, which in a lab is nobody.
        common["validation_context"] =
            json!({ "system_root_certs": {}, "match_typed_subject_alt_names": names });
    }
    let mut context = json!({ "common_tls_context": common });
    if let Some(name) = &tls.sni {
        context["sni"] = json!(name);
    }
    Some(context)
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
