//! A controller's readiness: `GET /ready` on port 8080 of its pod, once it has seen the cluster.

use axum::Router;
use axum::routing::get;
use tokio_util::task::AbortOnDropHandle;

use crate::net::netns::{NetNs, any};

/// The port that readiness is asked at.
const PORT: u16 = 8080;

/// Answers until dropped.
///
/// # Errors
/// When the port is taken in the pod.
pub(crate) fn serve(netns: &NetNs) -> anyhow::Result<AbortOnDropHandle<()>> {
    let listener = netns
        .tcp_listener(any(PORT))
        .map_err(|error| anyhow::anyhow!("cannot listen on port {PORT} of the pod: {error}"))?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = Router::new().route("/ready", get(async || "ready\n"));
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::debug!(%error, "a controller's readiness endpoint ended");
        }
    })))
}
