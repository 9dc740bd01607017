//! A controller's readiness: `GET /ready` on port 8080 of its pod, once it has seen the cluster.

use axum::Router;
use axum::routing::get;
use tokio_util::task::AbortOnDropHandle;

use super::serve::serve as serve_http;
use crate::net::netns::NetNs;

/// The port that readiness is asked at.
const PORT: u16 = 8080;

/// Answers until dropped.
///
/// # Errors
/// When the port is taken in the pod.
pub(crate) fn serve(netns: &NetNs) -> anyhow::Result<AbortOnDropHandle<()>> {
    serve_http(
        netns,
        PORT,
        Router::new().route("/ready", get(async || "ready\n")),
    )
}
