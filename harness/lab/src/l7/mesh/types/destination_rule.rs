//! `DestinationRule` (networking.istio.io): what happens to traffic after it is routed.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration affecting load balancing, and the subsets of a service.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "DestinationRule",
    namespaced,
    shortname = "dr",
    category = "istio-io",
    printcolumn = r#"{"name":"Host","type":"string","jsonPath":".spec.host"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DestinationRuleSpec {
    /// The name of a service from the service registry.
    pub(crate) host: String,
    /// Policies for all of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traffic_policy: Option<TrafficPolicy>,
    /// Named sets of endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subsets: Option<Vec<Subset>>,
}

/// A named set of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subset {
    /// Its name.
    pub(crate) name: String,
    /// Labels of its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// Policies for it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traffic_policy: Option<TrafficPolicy>,
}

/// Policies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrafficPolicy {
    /// How endpoints are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) load_balancer: Option<LoadBalancer>,
    /// Limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connection_pool: Option<ConnectionPool>,
    /// When an endpoint is ejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outlier_detection: Option<OutlierDetection>,
    /// TLS to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<ClientTls>,
}

/// How endpoints are chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoadBalancer {
    /// One of the standard algorithms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) simple: Option<SimpleLoadBalancer>,
    /// What is alike goes to one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) consistent_hash: Option<ConsistentHash>,
    /// Near and far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) locality_lb_setting: Option<LocalityLbSetting>,
}

/// What follows from where endpoints are. Without it the near come first, of a service whose endpoints are
/// ejected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LocalityLbSetting {
    /// Whether anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) enabled: Option<bool>,
    /// Shares of places, by the client's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) distribute: Option<Vec<Distribute>>,
    /// The region that comes next, by the client's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failover: Option<Vec<Failover>>,
}

/// Shares of places: `REGION/ZONE/SUBZONE`, with `*` at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Distribute {
    /// Where clients are.
    #[serde(default)]
    pub(crate) from: String,
    /// The places, and how much of a hundred each gets.
    #[serde(default)]
    pub(crate) to: BTreeMap<String, u32>,
}

/// The region that comes next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Failover {
    /// The clients' region.
    #[serde(default)]
    pub(crate) from: String,
    /// The region.
    #[serde(default)]
    pub(crate) to: String,
}

/// What is hashed: one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConsistentHash {
    /// A header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http_header_name: Option<String>,
    /// A query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http_query_parameter_name: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) use_source_ip: Option<bool>,
    /// A cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http_cookie: Option<HttpCookie>,
}

/// A cookie; with a lifetime it is given to who has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HttpCookie {
    /// Its name.
    pub(crate) name: String,
    /// The path that it is given for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// How long it lives; `0s` as long as the client's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    pub(crate) ttl: Option<String>,
}

/// The standard algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub(crate) enum SimpleLoadBalancer {
    Unspecified,
    Random,
    RoundRobin,
    LeastConn,
    LeastRequest,
}

/// Limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ConnectionPool {
    /// For HTTP and bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tcp: Option<TcpSettings>,
    /// For HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<HttpSettings>,
}

/// Limits for HTTP and bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TcpSettings {
    /// Connections to the service at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub(crate) max_connections: Option<i32>,
    /// How long a connection may be idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    pub(crate) idle_timeout: Option<String>,
}

/// Limits for HTTP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpSettings {
    /// Requests that wait for a connection at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub(crate) http1_max_pending_requests: Option<i32>,
    /// Requests under way at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub(crate) http2_max_requests: Option<i32>,
    /// Whether the service is spoken to in the client's own version of HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) use_client_protocol: Option<bool>,
}

/// When an endpoint is ejected.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OutlierDetection {
    /// So many 5xx answers in a row.
    #[serde(
        default,
        rename = "consecutive5xxErrors",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) consecutive_5xx_errors: Option<u32>,
    /// So many gateway errors (502, 503, 504) in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) consecutive_gateway_errors: Option<u32>,
    /// How often ejection is considered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    pub(crate) interval: Option<String>,
    /// How long an endpoint stays ejected at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    pub(crate) base_ejection_time: Option<String>,
    /// The share of endpoints that may be ejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub(crate) max_ejection_percent: Option<i32>,
}

/// TLS to a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientTls {
    /// How.
    pub(crate) mode: TlsMode,
    /// The server name to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sni: Option<String>,
    /// The names of which the server's certificate must have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject_alt_names: Option<Vec<String>>,
    /// Whether the server is believed whatever its certificate says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) insecure_skip_verify: Option<bool>,
}

/// Whether connections to a service are secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum TlsMode {
    /// Plain.
    Disable,
    /// TLS in which the server alone says who it is.
    Simple,
    /// Mutual TLS with the mesh's certificates.
    IstioMutual,
}
