//! What Envoy is started with: where the rest of its configuration is, and how it says it is ready.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};
use serde_json::{Value, json};

use super::cluster::no_limits;
use super::listener::{self, HttpConnectionManager, Routes};
use super::route::{Action, PathMatch, Route, VirtualHost, route_configuration};
use super::{READY_PORT, XDS_CLUSTER, aggregated_source, pretty, typed};
use crate::topology::CLUSTER_DOMAIN;

/// The file, in the directory that its ConfigMap is mounted at.
const FILE: &str = "bootstrap.json";

/// How a proxy is started.
#[derive(Debug, Clone)]
pub(crate) struct Bootstrap<'a> {
    /// The group of proxies that are all told the same.
    pub(crate) group: &'a str,
    /// The Service of the control plane: its namespace, name and port.
    pub(crate) control_plane: (&'a str, &'a str, u16),
    /// The mark of its upstream sockets, where its own traffic must not be redirected to it again.
    pub(crate) mark: Option<u32>,
}

/// What goes into the proxy's ConfigMap.
pub(crate) fn bootstrap_files(options: &Bootstrap<'_>) -> BTreeMap<String, String> {
    BTreeMap::from([(FILE.to_owned(), pretty(&bootstrap(options)))])
}

/// The arguments of Envoy's container, where its ConfigMap is mounted at a directory.
pub(crate) fn arguments(directory: &str) -> Vec<String> {
    [
        "-c",
        &format!("{directory}/{FILE}"),
        "--service-node",
        "$(POD_NAME).$(POD_NAMESPACE)",
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "warning",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The variables that they name: which pod a proxy is of tells it from the others of its group.
pub(crate) fn environment() -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
    ]
}

/// `envoy.config.bootstrap.v3.Bootstrap`
fn bootstrap(options: &Bootstrap<'_>) -> Value {
    let mut bootstrap = json!({
        "node": { "cluster": options.group },
        // On loopback, so that `kubectl exec` and `port-forward` reach it and the network does not.
        "admin": { "address": listener::address("127.0.0.1", 15000) },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": {
                    "cluster_name": XDS_CLUSTER,
                    // How soon a control plane that is away is missed.
                    "retry_policy": {
                        "retry_back_off": { "base_interval": "0.05s", "max_interval": "0.5s" },
                    },
                } }],
            },
            "lds_config": aggregated_source(),
            "cds_config": aggregated_source(),
        },
        // Workers start, and so this listener answers, only after the first clusters and listeners
        // are in force: answering at all is being ready.
        "static_resources": {
            "clusters": [control_plane(options.control_plane)],
            "listeners": [ready_listener()],
        },
        // A sidecar has the clusters of all Services, and uses few: what it counts of one is there when it does.
        "deferred_stat_options": { "enable_deferred_creation_stats": true },
    });
    if let Some(mark) = options.mark {
        bootstrap["cluster_manager"] =
            json!({ "upstream_bind_config": { "socket_options": [socket_mark(mark)] } });
    }
    bootstrap
}

/// The cluster of the control plane. It is noticed when the other side is gone without a word.
fn control_plane((namespace, service, port): (&str, &str, u16)) -> Value {
    // The dot at the end spares the resolver its search list.
    let host = format!("{service}.{namespace}.svc.{CLUSTER_DOMAIN}.");
    let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = json!({
        "explicit_http_config": { "http2_protocol_options": {
            "connection_keepalive": { "interval": "3s", "timeout": "2s" },
        } },
    });
    json!({
        "name": XDS_CLUSTER,
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_ONLY",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": listener::address(&host, port) } }] }],
        },
        "circuit_breakers": no_limits(),
        "typed_extension_protocol_options": { kind: typed(kind, options) },
    })
}

/// `SO_MARK`, set before the socket connects.
pub(crate) fn socket_mark(mark: u32) -> Value {
    const SOL_SOCKET: i32 = libc::SOL_SOCKET;
    const SO_MARK: i32 = libc::SO_MARK;
    json!({
        "description": "SO_MARK",
        "level": SOL_SOCKET,
        "name": SO_MARK,
        "int_value": mark,
        "state": "STATE_PREBIND",
    })
}

fn ready_listener() -> Value {
    let ready = Route {
        path: PathMatch::Exact("/healthz/ready".to_owned()),
        action: Action::Answer {
            status: 200,
            body: "ready\n".to_owned(),
        },
        ..Route::default()
    };
    let host = VirtualHost {
        name: "ready".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![ready],
    };
    let manager = HttpConnectionManager {
        stat_prefix: "ready",
        routes: Routes::Inline(route_configuration("ready", &[host])),
        ..HttpConnectionManager::default()
    };
    json!({
        "name": "ready",
        "address": listener::address("0.0.0.0", READY_PORT),
        "filter_chains": [{ "filters": [manager.filter()] }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::envoy::validate::assert_valid;

    #[test]
    fn envoy_takes_it() {
        for mark in [None, Some(1337)] {
            assert_valid(&bootstrap(&Bootstrap {
                group: "namespace/envoy",
                control_plane: ("system", "controller", 8001),
                mark,
            }));
        }
    }
}
