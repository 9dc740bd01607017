//! Subresources that are objects, beside `status`: scale, binding, eviction, token, finalize.
//!
//! Start from [`write`].

use http::Method;
use serde_json::{Value, json};

use super::meta::{self, items, text};
use super::router::{Answered, Call};
use super::status::Status;
use super::token;
use super::write::{self, Part};

/// `GET` of a subresource that is an object.
pub(crate) fn read(call: &Call, name: &str) -> Result<Answered, Status> {
    if name == "scale" && call.asked.kind.scale {
        let target = call.target()?;
        let found = call.shared.store.transact(|state| {
            state
                .get(&target.kind.table, target.namespace, target.name)
                .cloned()
        });
        let found = found.ok_or_else(|| Status::not_found(target.kind, target.name))?;
        return Ok(Answered::ok(scale_of(&found)));
    }
    Err(Status::no_such_path())
}

/// A write to a subresource.
pub(crate) async fn write(
    call: &Call,
    method: &Method,
    name: &str,
    body: &[u8],
) -> Result<Answered, Status> {
    let kind = &call.asked.kind;
    let served = kind.subresources.contains(&name) || (name == "scale" && kind.scale);
    if !served {
        return Err(Status::no_such_path());
    }
    match (name, method) {
        ("scale", &Method::PUT | &Method::PATCH) => scale(call, method, body),
        ("binding", &Method::POST) => bind(call, &call.object(body)?),
        ("eviction", &Method::POST) => {
            super::delete::delete(call, b"")?;
            Ok(Answered::created(success(), Vec::new()))
        }
        ("token", &Method::POST) => Ok(Answered::created(
            token::issue(&call.shared, call.target()?, call.object(body)?)?,
            Vec::new(),
        )),
        ("finalize", &Method::PUT) => finalize(call, &call.object(body)?),
        _ => Err(Status::method_not_allowed()),
    }
}

fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
}

fn scale_of(object: &Value) -> Value {
    let selector = meta::label_pairs(object.pointer("/spec/selector/matchLabels"));
    let metadata = &object["metadata"];
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": object.pointer("/status/replicas").cloned().unwrap_or_else(|| 0.into()), "selector": selector},
    })
}

fn scale(call: &Call, method: &Method, body: &[u8]) -> Result<Answered, Status> {
    let options = call.asked.options(&call.headers)?;
    let change: Value = serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("the Scale is not valid JSON: {error}")))?;
    let written = write::change(&call.shared, call.target()?, Part::Scale, &options, |old| {
        let mut scale = scale_of(old);
        if method == Method::PUT {
            scale = change
        } else {
            super::verbs::merge(&mut scale, &change)
        }
        let revision = text(&scale, "/metadata/resourceVersion");
        let mut new = old.clone();
        if !revision.is_empty() {
            new["metadata"]["resourceVersion"] = revision.into();
        }
        new["spec"]["replicas"] = scale["spec"]["replicas"].clone();
        Ok(new)
    })?;
    Ok(Answered::ok(scale_of(&written.object)))
}

/// `POST` of a Binding: the scheduler's decision.
fn bind(call: &Call, binding: &Value) -> Result<Answered, Status> {
    let node = text(binding, "/target/name").to_owned();
    let target = call.target()?;
    let options = call.asked.options(&call.headers)?;
    write::change(&call.shared, target, Part::Main, &options, |old| {
        let bound = text(old, "/spec/nodeName");
        if !bound.is_empty() {
            let why = format!("pod {} is already assigned to node {bound:?}", target.name);
            return Err(Status::conflict(target.kind, target.name, &why));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = node.clone().into();
        Ok(new)
    })?;
    write::change(&call.shared, target, Part::Status, &options, |old| {
        let mut new = old.clone();
        let mut conditions: Vec<Value> = items(old, "/status/conditions")
            .filter(|one| one["type"] != "PodScheduled")
            .cloned()
            .collect();
        conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": meta::now()}));
        new["status"]["conditions"] = conditions.into();
        Ok(new)
    })?;
    Ok(Answered::created(success(), Vec::new()))
}

/// `PUT` of a namespace's finalizers.
fn finalize(call: &Call, body: &Value) -> Result<Answered, Status> {
    let options = call.asked.options(&call.headers)?;
    let written = write::change(&call.shared, call.target()?, Part::Main, &options, |old| {
        let mut new = old.clone();
        new["spec"]["finalizers"] = body
            .pointer("/spec/finalizers")
            .cloned()
            .unwrap_or_else(|| json!([]));
        Ok(new)
    })?;
    Ok(Answered::ok(written.object))
}
