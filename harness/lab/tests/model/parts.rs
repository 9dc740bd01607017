//! From a step to its request, for the parts of an object that have a path of their own.

use serde_json::{Value, json};

use crate::op::{At, Content, Sub, Version};
use crate::patch;
use crate::plan::{JSON, MERGE, Plan, Request, apply};
use crate::world::{Managed, Model, Refusal, Written, name};

pub(crate) fn status(
    model: &Model,
    at: At,
    form: Sub,
    number: u8,
    version: Version,
    by: u8,
) -> Plan {
    let status = at.kind.status(number);
    let old = model.objects.get(&at).map(|old| &old.value);
    let served = |plan: Plan| Plan {
        outcome: if at.kind.has_status() {
            plan.outcome
        } else {
            Err(Refusal::not_found())
        },
        ..plan
    };
    if form == Sub::Apply {
        let (api_version, kind) = (at.kind.api_version(), at.kind.name());
        let metadata = json!({"name": name(at.name)});
        let config = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "status": status});
        return served(apply(model, at, config, by, number == 1, "status"));
    }
    let (sent, fits) = model.version(at, version);
    let change = json!({"status": status});
    let mut object = old
        .cloned()
        .unwrap_or_else(|| at.kind.object(&name(at.name), &Content::default()));
    patch::merge(&mut object, &change);
    let (method, media, mut body) = match form {
        Sub::Put => ("PUT", JSON, object.clone()),
        _ => ("PATCH", MERGE, change),
    };
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    if let Some(sent) = &sent {
        body["metadata"]["resourceVersion"] = sent.clone().into();
    }
    let outcome = if old.is_none() {
        Err(Refusal::not_found())
    } else if !fits {
        Err(Refusal::conflict())
    } else if form == Sub::Put && sent.is_none() && !at.kind.takes_any_version() {
        Err(Refusal::invalid())
    } else {
        Ok(Written {
            object,
            managed: Managed::By(model.who(by, false, "status")),
        })
    };
    let path = format!("{}/status?{}", model.path(at), model.manager(by, false));
    let request = Request {
        method,
        path,
        media,
        body,
    };
    served(Plan {
        at,
        request,
        outcome,
        code: 200,
        dry: false,
        scale: false,
    })
}

pub(crate) fn scale(
    model: &Model,
    at: At,
    merge: bool,
    number: u8,
    version: Version,
    by: u8,
) -> Plan {
    let (sent, fits) = model.version(at, version);
    let spec = json!({"replicas": number});
    let (method, media, mut body) = if merge {
        ("PATCH", MERGE, json!({"spec": spec}))
    } else {
        let metadata = json!({"name": name(at.name), "namespace": model.namespace});
        (
            "PUT",
            JSON,
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec}),
        )
    };
    if let Some(sent) = sent {
        body["metadata"]["resourceVersion"] = sent.into();
    }
    let outcome = match model.objects.get(&at) {
        _ if !at.kind.has_scale() => Err(Refusal::not_found()),
        None => Err(Refusal::not_found()),
        Some(_) if !fits => Err(Refusal::conflict()),
        Some(old) => {
            let mut object = old.value.clone();
            patch::merge(&mut object, &json!({"spec": spec}));
            let managed = if model.rules.minor < 22 {
                Managed::As(old.managers.clone())
            } else {
                Managed::By(model.who(by, false, "scale"))
            };
            Ok(Written { object, managed })
        }
    };
    let path = format!("{}/scale?{}", model.path(at), model.manager(by, false));
    let request = Request {
        method,
        path,
        media,
        body,
    };
    Plan {
        at,
        request,
        outcome,
        code: 200,
        dry: false,
        scale: true,
    }
}
