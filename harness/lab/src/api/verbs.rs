//! Create, get, list, update and patch.

use std::sync::Arc;

use http::header;
use serde_json::{Value, json};

use super::admission;
use super::apply::{self, Writer};
use super::meta;
use super::patch::{self, Patch};
use super::protobuf;
use super::registry::Kind;
use super::router::{Answered, Call};
use super::status::Status;
use super::write::{self, Part, Target};

impl Call {
    /// The object that the request names.
    pub(crate) fn target(&self) -> Result<Target<'_>, Status> {
        let name = self
            .asked
            .name
            .as_deref()
            .ok_or_else(Status::method_not_allowed)?;
        Ok(Target {
            kind: &self.asked.kind,
            namespace: self.asked.namespace(),
            name,
        })
    }

    fn part(&self) -> Part {
        if self.asked.subresource.as_deref() == Some("status") {
            Part::Status
        } else {
            Part::Main
        }
    }

    pub(crate) fn content_type(&self) -> &str {
        let found = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        found
            .unwrap_or("application/json")
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
    }

    /// The body as an object, from JSON or YAML.
    pub(crate) fn object(&self, body: &[u8]) -> Result<Value, Status> {
        match self.content_type() {
            "application/json" | "" => serde_json::from_slice(body).map_err(|error| {
                Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {}): {error}",
                    self.asked.kind.kind
                ))
            }),
            "application/yaml" | "application/apply-patch+yaml" => parse_yaml(body),
            protobuf::MEDIA_TYPE => protobuf::read(body).map_err(|why| {
                Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {}): {why}",
                    self.asked.kind.kind
                ))
            }),
            other => Err(Status::unsupported_media(other)),
        }
    }
}

pub(crate) fn parse_yaml(body: &[u8]) -> Result<Value, Status> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    serde_yaml::from_str(text)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))
}

/// `POST` of an object.
pub(crate) async fn create(call: &Call, body: &[u8]) -> Result<Answered, Status> {
    let kind = &call.asked.kind;
    if kind.namespaced && call.asked.namespace.is_none() {
        return Err(Status::method_not_allowed());
    }
    let mut object = call.object(body)?;
    if let Some(respond) = super::rows::virtual_kind(kind) {
        return Ok(Answered::created(
            respond(&call.shared, &call.user, object)?,
            Vec::new(),
        ));
    }
    let options = call.asked.options(&call.headers)?;
    let warnings = write::prepare(kind, call.asked.namespace(), &mut object, &options)?;
    let object = admission::mutate(call, object, &options).await?;
    let stored = write::create(&call.shared, kind, call.asked.namespace(), object, &options)?;
    Ok(Answered::created(stored, warnings))
}

/// `GET` of an object.
pub(crate) fn get(call: &Call) -> Result<Answered, Status> {
    let target = call.target()?;
    let found = call.shared.store.transact(|state| {
        state
            .get(&target.kind.table, target.namespace, target.name)
            .cloned()
    });
    let found = found.ok_or_else(|| Status::not_found(target.kind, target.name))?;
    Ok(Answered::ok(write::seen_as(target.kind, &found)))
}

/// `GET` of a collection.
pub(crate) fn list(call: &Call) -> Result<Answered, Status> {
    let asked = &call.asked;
    let selection = asked.selection()?;
    let limit = asked
        .query
        .number("limit")
        .filter(|limit| *limit > 0)
        .map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
    let after = asked.query.get("continue").map(read_continue).transpose()?;
    let (items, revision, more) = call.shared.store.transact(|state| {
        let mut items = Vec::new();
        let mut more = None;
        let namespace = asked
            .kind
            .namespaced
            .then_some(asked.namespace.as_deref())
            .flatten();
        for (key, object) in state.range(&asked.kind.table, namespace, after) {
            if !selection.matches(object) {
                continue;
            }
            if items.len() == limit {
                more = items
                    .last()
                    .map(|last: &(super::store::Key, Arc<Value>)| last.0.clone());
                break;
            }
            items.push((key.clone(), object.clone()));
        }
        (items, state.revision(), more)
    });
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let Some((namespace, name)) = more {
        use base64::Engine as _;
        let token = format!("{namespace}\n{name}");
        metadata["continue"] = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode(token)
            .into();
    }
    let items: Vec<Value> = items
        .iter()
        .map(|(_, object)| (*write::seen_as(&asked.kind, object)).clone())
        .collect();
    Ok(Answered::ok(json!({
        "apiVersion": asked.kind.api_version(), "kind": format!("{}List", asked.kind.kind),
        "metadata": metadata, "items": items,
    })))
}

fn read_continue(token: &str) -> Result<super::store::Key, Status> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.as_deref()
        .and_then(|text| text.split_once('\n'))
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .ok_or_else(|| Status::bad_request("continue key is not valid"))
}

/// `PUT` of an object; a missing one is made where the kind allows it.
pub(crate) async fn update(call: &Call, body: &[u8]) -> Result<Answered, Status> {
    let target = call.target()?;
    let options = call.asked.options(&call.headers)?;
    let object = call.object(body)?;
    let written = write::change(&call.shared, target, call.part(), &options, |_| Ok(object))?;
    Ok(Answered {
        warnings: written.warnings,
        ..Answered::ok(written.object)
    })
}

/// `PATCH` of an object, in all five forms.
pub(crate) async fn patch(call: &Call, body: &[u8]) -> Result<Answered, Status> {
    let target = call.target()?;
    let mut options = call.asked.options(&call.headers)?;
    if call.content_type() == "application/apply-patch+yaml" {
        return server_side_apply(call, target, body, &mut options).await;
    }
    let patch = Patch::parse(call.content_type(), body, target.kind)?;
    let written = write::change(&call.shared, target, call.part(), &options, |old| {
        patch.apply(old, &target.kind.schema)
    })?;
    Ok(Answered {
        warnings: written.warnings,
        ..Answered::ok(written.object)
    })
}

async fn server_side_apply(
    call: &Call,
    target: Target<'_>,
    body: &[u8],
    options: &mut write::Options,
) -> Result<Answered, Status> {
    if call.asked.query.get("fieldManager").is_none() {
        return Err(Status::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let mut config = parse_yaml(body)?;
    if config
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
    {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let metadata = meta::map_at(&mut config, "metadata");
    metadata.entry("name").or_insert_with(|| target.name.into());
    if target.kind.namespaced {
        metadata
            .entry("namespace")
            .or_insert_with(|| target.namespace.into());
    }
    let kind = target.kind;
    let api_version = kind.api_version();
    let subresource = if call.part() == Part::Status {
        "status"
    } else {
        ""
    };
    let writer = Writer {
        manager: &options.manager.clone(),
        subresource,
        api_version: &api_version,
    };
    let exists = call.shared.store.transact(|state| {
        state
            .get(&kind.table, target.namespace, target.name)
            .is_some()
    });
    if !exists {
        if call.part() == Part::Status {
            return Err(Status::not_found(kind, target.name));
        }
        match create_by_apply(call, target, &config, &writer, options).await {
            // Another was quicker: then it is there, and this is a change of it.
            Err(status) if status.reason == "AlreadyExists" => {}
            other => return other,
        }
    }
    let force = options.force;
    let written = write::change(&call.shared, target, call.part(), options, |old| {
        let mut new = apply::apply(old, &config, &kind.schema, &writer, force)?;
        new["metadata"]["resourceVersion"] = config["metadata"]
            .get("resourceVersion")
            .cloned()
            .unwrap_or_else(|| old["metadata"]["resourceVersion"].clone());
        Ok(new)
    })?;
    Ok(Answered {
        warnings: written.warnings,
        ..Answered::ok(written.object)
    })
}

async fn create_by_apply(
    call: &Call,
    target: Target<'_>,
    config: &Value,
    writer: &Writer<'_>,
    options: &write::Options,
) -> Result<Answered, Status> {
    let kind: &Kind = target.kind;
    let mut object = config.clone();
    let warnings = write::prepare(kind, target.namespace, &mut object, options)?;
    let mut object = admission::mutate(call, object, options).await?;
    // Who applies manages what was applied; defaults belong to nobody.
    let bare = json!({"metadata": {"name": target.name}});
    let managed = apply::apply(&bare, config, &kind.schema, writer, true)?;
    object["metadata"]["managedFields"] = managed["metadata"]["managedFields"].clone();
    let stored = write::create(&call.shared, kind, target.namespace, object, options)?;
    Ok(Answered::created(stored, warnings))
}

pub(crate) use patch::merge;
