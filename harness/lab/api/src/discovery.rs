//! What is served: groups, versions and resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::Shared;
use super::registry::Kind;
use super::router::json as respond;
use super::status::Status;
use crate::flags::KUBERNETES_VERSION;

/// `GET /version`.
pub(crate) async fn version() -> Response {
    let mut parts = KUBERNETES_VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    ok(json!({
        "major": major, "minor": minor, "gitVersion": KUBERNETES_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none: strata-lab", "compiler": "rustc", "platform": "linux/amd64",
    }))
}

/// `GET /api`.
pub(crate) async fn core() -> Response {
    ok(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))
}

/// `GET /api/v1`.
pub(crate) async fn core_resources(State(shared): State<Arc<Shared>>) -> Response {
    resource_list(&shared, "", "v1")
}

/// `GET /apis`.
pub(crate) async fn groups(State(shared): State<Arc<Shared>>) -> Response {
    let groups: Vec<Value> = versions(&shared)
        .iter()
        .map(|(group, versions)| group_of(group, versions))
        .collect();
    ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `GET /apis/GROUP`.
pub(crate) async fn group(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match versions(&shared).get(&name) {
        Some(versions) => {
            let mut group = group_of(&name, versions);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            ok(group)
        }
        None => Status::no_such_path().into_response(),
    }
}

/// `GET /apis/GROUP/VERSION`.
pub(crate) async fn resources(
    State(shared): State<Arc<Shared>>,
    Path((group, version)): Path<(String, String)>,
) -> Response {
    resource_list(&shared, &group, &version)
}

fn ok(object: Value) -> Response {
    respond(StatusCode::OK, object.to_string())
}

/// Versions by group, newest first: v1 before v1beta1 (KEP-537's order).
fn versions(shared: &Shared) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in shared
        .registry
        .all()
        .iter()
        .filter(|kind| !kind.group.is_empty())
    {
        let versions = groups.entry(kind.group.clone()).or_default();
        if !versions.contains(&kind.version) {
            versions.push(kind.version.clone());
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|version| {
            (
                version.contains("alpha"),
                version.contains("beta"),
                version.clone(),
            )
        });
    }
    groups
}

fn group_of(name: &str, versions: &[String]) -> Value {
    let entry =
        |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let all: Vec<Value> = versions.iter().map(entry).collect();
    json!({"name": name, "versions": all, "preferredVersion": versions.first().map(entry)})
}

fn resource_list(shared: &Shared, group: &str, version: &str) -> Response {
    let kinds = shared.registry.all();
    let resources: Vec<Value> = kinds
        .iter()
        .filter(|kind| kind.group == group && kind.version == version)
        .flat_map(|kind| resource(kind))
        .collect();
    if resources.is_empty() {
        return Status::no_such_path().into_response();
    }
    let name = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}),
    )
}

fn resource(kind: &Kind) -> Vec<Value> {
    let verbs: &[&str] = if super::rows::virtual_kind(kind).is_some() {
        &["create"]
    } else {
        &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ]
    };
    let mut entry = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind, "verbs": verbs,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    let mut list = vec![entry];
    let mut sub = |name: &str, what: Value, verbs: &[&str]| {
        let mut entry = json!({"name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced, "kind": kind.kind, "verbs": verbs});
        if let (Some(entry), Some(what)) = (entry.as_object_mut(), what.as_object()) {
            entry.extend(what.clone());
        }
        list.push(entry);
    };
    if kind.status {
        sub("status", json!({}), &["get", "patch", "update"]);
    }
    if kind.scale {
        sub(
            "scale",
            json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}),
            &["get", "patch", "update"],
        );
    }
    for name in kind.subresources {
        sub(name, json!({}), &["create", "get"]);
    }
    list
}
