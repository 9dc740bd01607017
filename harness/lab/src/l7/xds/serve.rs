//! The requests that Envoy's REST transport makes.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;

use super::{Subject, Xds};

/// `envoy.service.discovery.v3.DiscoveryRequest`, so far as it matters here.
#[derive(Deserialize)]
struct DiscoveryRequest {
    #[serde(default)]
    version_info: String,
    #[serde(default)]
    resource_names: Vec<String>,
    node: Node,
}

/// `envoy.config.core.v3.Node`, so far as it matters here.
#[derive(Deserialize)]
struct Node {
    id: String,
    cluster: String,
}

impl Xds {
    /// What answers them.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/v3/discovery:clusters", post(clusters))
            .route("/v3/discovery:listeners", post(listeners))
            .route("/v3/discovery:routes", post(routes))
            .with_state(self.clone())
    }

    async fn discover(&self, request: DiscoveryRequest, subject: Subject) -> Response {
        let proxy = self.proxy(request.node.id, request.node.cluster);
        match self.ask(proxy, subject, &request.version_info).await {
            Some(response) => {
                ([(header::CONTENT_TYPE, "application/json")], response).into_response()
            }
            None => StatusCode::NOT_MODIFIED.into_response(),
        }
    }
}

async fn clusters(State(xds): State<Xds>, Json(request): Json<DiscoveryRequest>) -> Response {
    xds.discover(request, Subject::Clusters).await
}

async fn listeners(State(xds): State<Xds>, Json(request): Json<DiscoveryRequest>) -> Response {
    xds.discover(request, Subject::Listeners).await
}

async fn routes(State(xds): State<Xds>, Json(mut request): Json<DiscoveryRequest>) -> Response {
    match (request.resource_names.pop(), request.resource_names.len()) {
        (Some(name), 0) => xds.discover(request, Subject::Routes(name)).await,
        _ => {
            let message =
                "resource_names: a subscription to routes names one route configuration\n";
            (StatusCode::BAD_REQUEST, message).into_response()
        }
    }
}
