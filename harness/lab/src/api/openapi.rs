//! As much of OpenAPI v3 as clients need to know which parameters and kinds are served.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Shared;
use super::router::json as respond;
use super::schema::Schema;
use super::status::Status;

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// `GET /openapi/v3`.
pub(crate) async fn index(State(shared): State<Arc<Shared>>) -> Response {
    let paths: Map<String, Value> = shared
        .registry
        .all()
        .iter()
        .map(|kind| {
            let path = path_of(&kind.group, &kind.version);
            let url = format!("/openapi/v3/{path}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    respond(StatusCode::OK, json!({"paths": paths}).to_string())
}

/// `GET /openapi/v3/…`.
pub(crate) async fn document(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
) -> Response {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in shared
        .registry
        .all()
        .iter()
        .filter(|kind| path_of(&kind.group, &kind.version) == path)
    {
        let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let at = if kind.namespaced {
            format!("/{path}/namespaces/{{namespace}}/{}", kind.plural)
        } else {
            format!("/{path}/{}", kind.plural)
        };
        let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        let parameters = ["dryRun", "fieldManager", "fieldValidation", "force"].map(parameter);
        let operation = |action: &str| json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "parameters": parameters});
        paths.insert(at.clone(), json!({"post": operation("post")}));
        paths.insert(format!("{at}/{{name}}"), json!({"patch": operation("patch"), "put": operation("put"), "delete": operation("delete")}));
        let mut schema = match &kind.schema {
            Schema::Custom(schema) => (**schema).clone(),
            Schema::Builtin => json!({"type": "object"}),
        };
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        schemas.insert(
            format!("{}.{}.{}", kind.group, kind.version, kind.kind),
            schema,
        );
    }
    if paths.is_empty() {
        return Status::no_such_path().into_response();
    }
    let document = json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": crate::topology::KUBERNETES_VERSION},
        "paths": paths, "components": {"schemas": schemas},
    });
    respond(StatusCode::OK, document.to_string())
}
