//! OpenAPI, versions 3 and 2: the schemas of every kind, and the parameters of its paths.
//!
//! Start from [`document`] and [`swagger`]. Built-in types come from `k8s-openapi`, how their lists
//! merge from [`super::schema`], custom ones from their definitions.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Shared;
use super::registry::Kind;
use super::router::json as respond;
use super::schema::{Place, Schema};
use super::status::Status;

/// Where documents of version 3 keep their schemas, and of version 2.
const SCHEMAS: &str = "#/components/schemas/";
pub(crate) const DEFINITIONS: &str = "#/definitions/";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

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
    let mut kinds = shared.registry.all();
    kinds.retain(|kind| path_of(&kind.group, &kind.version) == path);
    if kinds.is_empty() {
        return Status::no_such_path().into_response();
    }
    let document = json!({
        "openapi": "3.0.0", "info": info(),
        "paths": paths(&kinds, |name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})),
        "components": {"schemas": schemas(&kinds, SCHEMAS)},
    });
    respond(StatusCode::OK, document.to_string())
}

/// `GET /openapi/v2`, in JSON or, for clients up to 1.26, in protobuf.
pub(crate) async fn swagger(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let kinds = shared.registry.all();
    let document = json!({
        "swagger": "2.0", "info": info(),
        "paths": paths(&kinds, |name| json!({"name": name, "in": "query", "type": "string", "uniqueItems": true})),
        "definitions": schemas(&kinds, DEFINITIONS),
    });
    let accept = headers.get(header::ACCEPT);
    if accept.is_some_and(|accept| accept.as_bytes().starts_with(super::swagger::MEDIA_TYPE)) {
        let body = super::swagger::encode(&document);
        // Named as a real API server does: Go's `mime` cannot read the media type itself.
        return ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response();
    }
    respond(StatusCode::OK, document.to_string())
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": crate::flags::KUBERNETES_VERSION})
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// As many of the paths as clients look at: which parameters a write takes.
fn paths(kinds: &[Arc<Kind>], parameter: fn(&str) -> Value) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let scope = if kind.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let path = path_of(&kind.group, &kind.version);
        let at = format!("/{path}{scope}/{}", kind.plural);
        let parameters = ["dryRun", "fieldManager", "fieldValidation", "force"].map(parameter);
        let operation = |action: &str| json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(kind), "parameters": parameters});
        paths.insert(
            format!("{at}/{{name}}"),
            json!({"patch": operation("patch"), "put": operation("put"), "delete": operation("delete")}),
        );
        paths.insert(at, json!({"post": operation("post")}));
    }
    paths
}

/// What generates schemas that are referred to by a prefix and their name.
pub(crate) fn generator(prefix: &str) -> SchemaGenerator {
    let path = prefix.trim_start_matches('#').trim_end_matches('/');
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = path.to_owned().into();
    });
    settings.into_generator()
}

/// The name in a reference to a schema.
pub(crate) fn referred(schema: &Value, prefix: &str) -> Option<String> {
    let reference = schema.get("$ref").and_then(Value::as_str)?;
    Some(reference.strip_prefix(prefix)?.to_owned())
}

/// The schemas of kinds and of all that they refer to.
fn schemas(kinds: &[Arc<Kind>], prefix: &str) -> Map<String, Value> {
    let mut generator = generator(prefix);
    // What every custom kind refers to.
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>();
    let mut roots = Vec::new();
    for kind in kinds {
        if let Some(describe) = kind.describe {
            let schema = describe(&mut generator);
            roots.extend(referred(schema.as_value(), prefix).map(|name| (name, kind)));
        }
    }
    let mut schemas = generator.take_definitions(false);
    for (name, kind) in roots {
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
        }
        mark(&mut schemas, &name, kind.schema.root(), prefix, 0);
    }
    for kind in kinds {
        if let Schema::Custom(schema) = &kind.schema {
            schemas.insert(name_of(kind), custom(kind, schema, prefix));
        }
    }
    for schema in schemas.values_mut() {
        tidy(schema, prefix == SCHEMAS);
    }
    schemas
}

/// `com.example.v1.Widget`, for `example.com/v1` `Widget`.
fn name_of(kind: &Kind) -> String {
    let mut parts: Vec<&str> = kind.group.split('.').rev().collect();
    parts.extend([kind.version.as_str(), kind.kind.as_str()]);
    parts.join(".")
}

fn custom(kind: &Kind, schema: &Value, prefix: &str) -> Value {
    let mut schema = schema.clone();
    super::meta::map_at(&mut schema, "properties");
    let version = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    let name = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    let metadata = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
    schema["properties"]["apiVersion"] = json!({"type": "string", "description": version});
    schema["properties"]["kind"] = json!({"type": "string", "description": name});
    schema["properties"]["metadata"] =
        json!({"$ref": format!("{prefix}{OBJECT_META}"), "description": metadata});
    schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
    schema
}

/// Says of every list below a built-in kind how it merges.
fn mark(
    schemas: &mut Map<String, Value>,
    name: &str,
    place: Place<'_>,
    prefix: &str,
    depth: usize,
) {
    /// Pods within templates are the deepest; only JSONSchemaProps would go on.
    const DEEPEST: usize = 16;
    let Some(properties) = schemas
        .get_mut(name)
        .and_then(|schema| schema.get_mut("properties"))
        .and_then(Value::as_object_mut)
        .filter(|_| depth < DEEPEST)
    else {
        return;
    };
    let mut below = Vec::new();
    for (field, schema) in properties {
        let child = place.field(field);
        if let Some(name) = referred(schema, prefix) {
            below.push((name, field.clone(), false));
        } else if let Some(items) = schema.get("items").cloned() {
            let item = referred(&items, prefix);
            if let Some((kind, keys)) = child.list_type(item.is_some()) {
                schema["x-kubernetes-list-type"] = kind.into();
                schema["x-kubernetes-patch-strategy"] = "merge".into();
                if let Some(key) = keys.first() {
                    schema["x-kubernetes-list-map-keys"] = json!(keys);
                    schema["x-kubernetes-patch-merge-key"] = (*key).into();
                }
            }
            below.extend(item.map(|name| (name, field.clone(), true)));
        }
    }
    for (name, field, list) in below {
        if !name.ends_with(".JSONSchemaProps") {
            let child = place.field(&field);
            let child = if list { child.item() } else { child };
            mark(schemas, &name, child, prefix, depth + 1);
        }
    }
}

/// What OpenAPI writes otherwise than JSON Schema does.
fn tidy(schema: &mut Value, third: bool) {
    match schema {
        Value::Object(map) => {
            // In version 3 nothing stands beside a `$ref`.
            if third
                && map.contains_key("description")
                && let Some(reference) = map.remove("$ref")
            {
                map.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
            if map.remove("x-kubernetes-int-or-string") == Some(Value::Bool(true)) {
                map.insert("format".to_owned(), "int-or-string".into());
                if third {
                    map.insert(
                        "oneOf".to_owned(),
                        json!([{"type": "integer"}, {"type": "string"}]),
                    );
                } else {
                    map.insert("type".to_owned(), "string".into());
                    map.remove("anyOf");
                }
            }
            for child in map.values_mut() {
                tidy(child, third);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| tidy(item, third)),
        _ => {}
    }
}
