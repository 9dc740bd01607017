//! Health-check node ports: how a load balancer learns which nodes have an endpoint.
//!
//! Start from [`HealthChecks::sync`]. Each answers 200 while the node has a ready endpoint of its
//! Service and 503 otherwise, with the words of kube-proxy's `pkg/proxy/healthcheck`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::os::netns::{NetNs, any};

/// The health-check node ports of one node.
pub(super) struct HealthChecks {
    netns: NetNs,
    servers: BTreeMap<u16, Server>,
}

struct Server {
    service: (String, String),
    endpoints: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl HealthChecks {
    /// None yet.
    pub(super) fn new(netns: NetNs) -> Self {
        Self {
            netns,
            servers: BTreeMap::new(),
        }
    }

    /// Serves these ports and no other: by number, the Service's namespace and name, and how many
    /// endpoints it has here.
    pub(super) fn sync(&mut self, wanted: BTreeMap<u16, (String, String, usize)>) {
        self.servers.retain(|port, server| {
            let wanted = wanted.get(port);
            wanted.is_some_and(|(namespace, name, _)| {
                (namespace, name) == (&server.service.0, &server.service.1)
            })
        });
        for (port, (namespace, name, count)) in wanted {
            if let Some(server) = self.servers.get(&port) {
                server.endpoints.store(count, Ordering::Relaxed);
                continue;
            }
            match self.serve(port, (namespace, name), count) {
                Ok(server) => {
                    self.servers.insert(port, server);
                }
                // Tried again with the next change.
                Err(error) => tracing::warn!("health-check node port {port}: {error}"),
            }
        }
    }

    fn serve(&self, port: u16, service: (String, String), count: usize) -> std::io::Result<Server> {
        let listener = self.netns.tcp_listener(any(port))?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let endpoints = Arc::new(AtomicUsize::new(count));
        let (counted, named) = (endpoints.clone(), service.clone());
        let routes =
            Router::new().fallback(async move || answer(&named, counted.load(Ordering::Relaxed)));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::warn!("health-check node port {port}: {error}");
            }
        });
        Ok(Server {
            service,
            endpoints,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

fn answer((namespace, name): &(String, String), endpoints: usize) -> Response {
    let status = if endpoints == 0 {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let body = json!({
        "service": { "namespace": namespace, "name": name },
        "localEndpoints": endpoints,
        "serviceProxyHealthy": true,
    });
    let weight = [("X-Load-Balancing-Endpoint-Weight", endpoints.to_string())];
    (status, weight, axum::Json(body)).into_response()
}
