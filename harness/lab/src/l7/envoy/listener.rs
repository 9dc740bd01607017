//! Listeners, and the HTTP connection manager and TLS contexts in their filter chains.

use serde_json::{Value, json};

use super::route::WeightedCluster;
use super::{aggregated_source, path_config_source, secret_file, typed};

/// `envoy.config.core.v3.Address`
pub(crate) fn address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

/// Where the connection manager's routes are.
#[derive(Debug, Clone)]
pub(crate) enum Routes {
    /// A `RouteConfiguration`, for routes that never change.
    Inline(Value),
    /// A name, for routes that come on their own: changed without draining connections.
    Named(String),
}

/// The HTTP connection manager's part of a listener.
#[derive(Debug, Clone)]
pub(crate) struct HttpConnectionManager<'a> {
    /// The prefix of its statistics.
    pub(crate) stat_prefix: &'a str,
    /// Its routes.
    pub(crate) routes: Routes,
    /// Whether the peer is the client (so that its address goes into X-Forwarded-For).
    pub(crate) edge: bool,
    /// The `server` response header: set to this, or left as the backend sent it.
    pub(crate) server_name: Option<&'a str>,
    /// What the `via` header of requests and responses says of the proxy (RFC 9110, 7.6.3).
    pub(crate) via: Option<&'a str>,
    /// What becomes of X-Forwarded-Client-Cert.
    pub(crate) client_cert: Option<Value>,
    /// Filters before the router.
    pub(crate) filters: Vec<Value>,
}

impl Default for HttpConnectionManager<'_> {
    fn default() -> Self {
        Self {
            stat_prefix: "http",
            routes: Routes::Inline(json!({})),
            edge: false,
            server_name: Some("envoy"),
            via: None,
            client_cert: None,
            filters: Vec::new(),
        }
    }
}

impl HttpConnectionManager<'_> {
    /// The network filter.
    pub(crate) fn filter(&self) -> Value {
        let mut filters = self.filters.clone();
        filters.push(http_filter(
            "envoy.filters.http.router",
            "router.v3.Router",
            json!({}),
        ));
        let mut manager = json!({
            "stat_prefix": self.stat_prefix,
            "use_remote_address": self.edge,
            "upgrade_configs": [{ "upgrade_type": "websocket" }],
            "normalize_path": true,
            "http_filters": filters,
            // A connection that is kept idle for an hour is not a fault.
            "common_http_protocol_options": { "idle_timeout": "3600s" },
            "stream_idle_timeout": "0s",
        });
        match self.server_name {
            Some(name) => manager["server_name"] = json!(name),
            None => manager["server_header_transformation"] = json!("PASS_THROUGH"),
        }
        if let Some(via) = self.via {
            manager["via"] = json!(via);
        }
        match &self.routes {
            Routes::Inline(configuration) => manager["route_config"] = configuration.clone(),
            Routes::Named(name) => {
                manager["rds"] = json!({
                    "route_config_name": name,
                    "config_source": aggregated_source(),
                });
            }
        }
        if let (Value::Object(manager), Some(Value::Object(client_cert))) =
            (&mut manager, &self.client_cert)
        {
            manager.extend(client_cert.clone());
        }
        let kind =
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": typed(kind, manager) })
    }
}

/// An HTTP filter; `message` is its type below `envoy.extensions.filters.http`.
pub(crate) fn http_filter(name: &str, message: &str, config: Value) -> Value {
    json!({ "name": name, "typed_config": typed(&format!("envoy.extensions.filters.http.{message}"), config) })
}

/// The network filter that copies bytes to a cluster.
pub(crate) fn tcp_proxy(cluster: &str) -> Value {
    let kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": typed(kind, json!({ "stat_prefix": cluster, "cluster": cluster })),
    })
}

/// The same to several clusters by weight. One that is not there closes its share of connections.
pub(crate) fn tcp_proxy_weighted(clusters: &[WeightedCluster]) -> Value {
    let [first, _, ..] = clusters else {
        return tcp_proxy(clusters.first().map_or("", |only| &only.name));
    };
    let kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let shares: Vec<_> = clusters
        .iter()
        .map(|cluster| json!({ "name": cluster.name, "weight": cluster.weight }))
        .collect();
    let config = json!({ "stat_prefix": first.name, "weighted_clusters": { "clusters": shares } });
    json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": typed(kind, config) })
}

/// A listener filter; `message` is its type below `envoy.extensions.filters.listener`.
pub(crate) fn listener_filter(name: &str, message: &str) -> Value {
    json!({
        "name": name,
        "typed_config": typed(&format!("envoy.extensions.filters.listener.{message}"), json!({})),
    })
}

/// Reads the server name and ALPN of a TLS hello.
pub(crate) fn tls_inspector() -> Value {
    listener_filter(
        "envoy.filters.listener.tls_inspector",
        "tls_inspector.v3.TlsInspector",
    )
}

/// Recognises HTTP by its first bytes.
pub(crate) fn http_inspector() -> Value {
    listener_filter(
        "envoy.filters.listener.http_inspector",
        "http_inspector.v3.HttpInspector",
    )
}

/// Restores where a redirected connection was going.
pub(crate) fn original_dst() -> Value {
    listener_filter(
        "envoy.filters.listener.original_dst",
        "original_dst.v3.OriginalDst",
    )
}

/// The transport socket of a listener.
pub(crate) fn downstream_tls(context: Value) -> Value {
    let kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": typed(kind, context) })
}

/// The transport socket of a cluster.
pub(crate) fn upstream_tls(context: Value) -> Value {
    let kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": typed(kind, context) })
}

/// TLS terminated with a certificate that has its file in a mounted Secret.
pub(crate) fn terminate_tls(directory: &str, secret: &str) -> Value {
    terminate_tls_with(directory, [secret])
}

/// The same with several certificates, of which Envoy shows the one that fits the client.
pub(crate) fn terminate_tls_with<'a>(
    directory: &str,
    secrets: impl IntoIterator<Item = &'a str>,
) -> Value {
    let secrets: Vec<Value> = secrets
        .into_iter()
        .map(|name| mounted_secret(directory, name))
        .collect();
    downstream_tls(json!({ "common_tls_context": {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": secrets,
    } }))
}

/// `envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig` of a file in a mounted Secret.
pub(crate) fn mounted_secret(directory: &str, name: &str) -> Value {
    json!({ "name": name, "sds_config": path_config_source(directory, &secret_file(name)) })
}

/// `envoy.extensions.transport_sockets.tls.v3.Secret` of a certificate and its key, both PEM.
pub(crate) fn certificate(name: &str, chain: &str, key: &str) -> Value {
    json!({ "name": name, "tls_certificate": {
        "certificate_chain": { "inline_string": chain },
        "private_key": { "inline_string": key },
    } })
}
