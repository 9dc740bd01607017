//! What Envoy is started with: where the rest of its configuration is, and how it says it is ready.

use serde_json::{Value, json};

use super::listener::{self, HttpConnectionManager, Routes};
use super::route::{Action, PathMatch, Route, VirtualHost, route_configuration};
use super::{READY_PORT, path_config_source};

/// How a proxy is started.
#[derive(Debug, Clone)]
pub(crate) struct Bootstrap<'a> {
    /// The proxy's name in its own logs and statistics.
    pub(crate) id: &'a str,
    /// What it is a part of.
    pub(crate) cluster: &'a str,
    /// The directory that its ConfigMap is mounted at.
    pub(crate) directory: &'a str,
    /// The mark of its upstream sockets, where its own traffic must not be redirected to it again.
    pub(crate) mark: Option<u32>,
}

/// `envoy.config.bootstrap.v3.Bootstrap`
pub(crate) fn bootstrap(options: &Bootstrap<'_>) -> Value {
    let mut bootstrap = json!({
        "node": { "id": options.id, "cluster": options.cluster },
        // On loopback, so that `kubectl exec` and `port-forward` reach it and the network does not.
        "admin": { "address": listener::address("127.0.0.1", 15000) },
        "dynamic_resources": {
            "lds_config": path_config_source(options.directory, "lds.json"),
            "cds_config": path_config_source(options.directory, "cds.json"),
        },
        // Workers start, and so this listener answers, only after the first clusters and listeners
        // are in force: answering at all is being ready.
        "static_resources": { "listeners": [ready_listener()] },
    });
    if let Some(mark) = options.mark {
        bootstrap["cluster_manager"] =
            json!({ "upstream_bind_config": { "socket_options": [socket_mark(mark)] } });
    }
    bootstrap
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
