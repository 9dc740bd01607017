//! Clusters: the backends that routes name.

use serde_json::{Value, json};

use super::listener::{address, upstream_tls};
use super::typed;
use crate::l7::locality::Locality;

/// One address behind a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// The address.
    pub(crate) address: String,
    /// The port.
    pub(crate) port: u16,
    /// Whether a sidecar is there to take Istio's mutual TLS.
    pub(crate) mesh: bool,
    /// Where it is, as far as is known.
    pub(crate) locality: Locality,
}

/// Endpoints that are asked alike.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Asked only if there is none to be asked of a smaller one; from zero, without gaps.
    pub(crate) priority: u32,
    /// Its share, if places have shares.
    pub(crate) weight: Option<u32>,
    /// The endpoints.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// How a cluster speaks to its endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, or bytes.
    #[default]
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// Whatever the request came with.
    SameAsDownstream,
}

/// A cluster whose endpoints are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    /// Its name, which routes refer to.
    pub(crate) name: String,
    /// Its endpoints; with none, requests are answered 503.
    pub(crate) endpoints: Vec<Endpoint>,
    /// How it speaks.
    pub(crate) protocol: Protocol,
    /// TLS for the endpoints that have a sidecar.
    pub(crate) mutual_tls: Option<Value>,
    /// `envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext` for all endpoints.
    pub(crate) tls: Option<Value>,
    /// `circuit_breakers`, where limits are set.
    pub(crate) circuit_breakers: Option<Value>,
    /// `outlier_detection`, where it is asked for.
    pub(crate) outlier_detection: Option<Value>,
    /// `lb_policy`; round robin unless said.
    pub(crate) lb_policy: Option<&'static str>,
    /// Where the endpoints are asked in an order, or by shares; all are alike otherwise.
    pub(crate) places: Vec<Place>,
}

impl Cluster {
    /// `envoy.config.cluster.v3.Cluster`
    pub(crate) fn to_value(&self) -> Value {
        let mut cluster = json!({
            "name": self.name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "lb_policy": self.lb_policy.unwrap_or("ROUND_ROBIN"),
            "load_assignment": {
                "cluster_name": self.name,
                "endpoints": self.assigned(),
            },
            // Half of the endpoints being ejected must not send traffic to the ejected ones.
            "common_lb_config": { "healthy_panic_threshold": {} },
            // Envoy's defaults (1024 requests at once) would answer 503 where the backend would not.
            "circuit_breakers": self.circuit_breakers.clone().unwrap_or_else(no_limits),
        });
        if let Some(options) = protocol_options(self.protocol) {
            cluster["typed_extension_protocol_options"] = options;
        }
        if let Some(tls) = &self.mutual_tls {
            cluster["transport_socket_matches"] = json!([
                { "name": "tlsMode-istio", "match": { "tlsMode": "istio" }, "transport_socket": tls },
                { "name": "tlsMode-disabled", "match": {}, "transport_socket": raw_buffer() },
            ]);
        }
        if let Some(context) = &self.tls {
            cluster["transport_socket"] = upstream_tls(context.clone());
        }
        if let Some(outlier) = &self.outlier_detection {
            cluster["outlier_detection"] = outlier.clone();
        }
        if self.places.iter().any(|place| place.weight.is_some()) {
            cluster["common_lb_config"]["locality_weighted_lb_config"] = json!({});
        }
        cluster
    }

    /// `envoy.config.endpoint.v3.LocalityLbEndpoints`, of which Envoy has no two of one name.
    fn assigned(&self) -> Vec<Value> {
        let all = |endpoints: &[Endpoint]| endpoints.iter().map(lb_endpoint).collect::<Value>();
        if self.places.is_empty() {
            let known = (!self.endpoints.is_empty()).then_some(&self.endpoints);
            let known = known.into_iter();
            return known
                .map(|known| json!({ "lb_endpoints": all(known) }))
                .collect();
        }
        let place = |(index, place): (usize, &Place)| {
            let mut value = json!({
                "locality": { "region": index.to_string() },
                "priority": place.priority,
                "lb_endpoints": all(&place.endpoints),
            });
            if let Some(weight) = place.weight {
                value["load_balancing_weight"] = json!(weight);
            }
            value
        };
        self.places.iter().enumerate().map(place).collect()
    }
}

/// A cluster that connects to wherever the connection was going before it was redirected.
pub(crate) fn original_destination(name: &str, protocol: Protocol, source: Option<Value>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "circuit_breakers": no_limits(),
    });
    if let Some(options) = protocol_options(protocol) {
        cluster["typed_extension_protocol_options"] = options;
    }
    if let Some(source) = source {
        cluster["upstream_bind_config"] = source;
    }
    cluster
}

fn lb_endpoint(endpoint: &Endpoint) -> Value {
    let mut value = json!({ "endpoint": { "address": address(&endpoint.address, endpoint.port) } });
    if endpoint.mesh {
        value["metadata"] = json!({ "filter_metadata": { "envoy.transport_socket_match": { "tlsMode": "istio" } } });
    }
    value
}

pub(super) fn no_limits() -> Value {
    const MOST: u32 = u32::MAX;
    json!({ "thresholds": [{
        "max_connections": MOST, "max_pending_requests": MOST, "max_requests": MOST, "max_retries": MOST,
    }] })
}

fn raw_buffer() -> Value {
    json!({
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": typed("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", json!({})),
    })
}

fn protocol_options(protocol: Protocol) -> Option<Value> {
    let options = match protocol {
        Protocol::Http1 => return None,
        Protocol::Http2 => json!({ "explicit_http_config": { "http2_protocol_options": {} } }),
        Protocol::SameAsDownstream => json!({ "use_downstream_protocol_config": {
            "http_protocol_options": {}, "http2_protocol_options": {},
        } }),
    };
    let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    Some(Value::Object(
        [(kind.to_owned(), typed(kind, options))]
            .into_iter()
            .collect(),
    ))
}
