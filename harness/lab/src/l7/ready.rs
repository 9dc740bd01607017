//! A controller's readiness: `GET /ready` on port 8080 of its pod, once it has seen the cluster.

use axum::Router;
use axum::routing::get;

/// The port that readiness is asked at.
pub(crate) const PORT: u16 = 8080;

/// What answers there.
pub(crate) fn router() -> Router {
    Router::new().route("/ready", get(async || "ready\n"))
}
