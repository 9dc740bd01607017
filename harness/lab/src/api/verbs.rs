//! Create, get, list, update, patch and delete.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::response::Response;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::admission;
use super::apply::{self, Writer};
use super::meta;
use super::patch::{self, Patch};
use super::protobuf;
use super::registry::Kind;
use super::router::{self, Answered, Call};
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

    fn content_type(&self) -> &str {
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

fn parse_yaml(body: &[u8]) -> Result<Value, Status> {
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
pub(crate) fn list(call: &Call) -> Result<Response, Status> {
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
    let items = items
        .iter()
        .map(|(_, object)| write::seen_as(&asked.kind, object));
    let mut list = json!({
        "apiVersion": asked.kind.api_version(), "kind": format!("{}List", asked.kind.kind),
        "metadata": metadata,
    });
    if call.wants_table() {
        list["items"] = items.map(|item| (*item).clone()).collect();
        return Ok(Answered::ok(list).respond(call));
    }
    // Written from where they are: a list may be of all that there is, which need not be there twice.
    let mut text = list.to_string();
    text.truncate(text.len() - 1);
    text.push_str(",\"items\":[");
    for (number, item) in items.enumerate() {
        let comma = if number == 0 { "" } else { "," };
        // A text takes whatever is written into it.
        let _ = write!(text, "{comma}{item}");
    }
    text.push_str("]}");
    Ok(router::json(StatusCode::OK, text))
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

/// The options of a deletion, from the query and the body (meta/v1 `DeleteOptions`).
struct Deletion {
    grace: Option<i64>,
    propagation: String,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
}

fn deletion(call: &Call, body: &[u8]) -> Result<Deletion, Status> {
    let body: Value = if body.is_empty() {
        Value::Null
    } else if call.content_type() == protobuf::MEDIA_TYPE {
        protobuf::read(body).map_err(Status::bad_request)?
    } else {
        parse_yaml(body)?
    };
    let text = |pointer: &str| {
        body.pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let query = |name: &str| call.asked.query.get(name);
    let orphan = body.pointer("/orphanDependents").and_then(Value::as_bool) == Some(true)
        || call.asked.query.is("orphanDependents");
    Ok(Deletion {
        grace: body
            .pointer("/gracePeriodSeconds")
            .and_then(Value::as_i64)
            .or_else(|| query("gracePeriodSeconds")?.parse().ok()),
        propagation: text("/propagationPolicy")
            .or_else(|| query("propagationPolicy").map(str::to_owned))
            .unwrap_or_else(|| if orphan { "Orphan" } else { "Background" }.to_owned()),
        uid: text("/preconditions/uid"),
        revision: text("/preconditions/resourceVersion"),
        dry_run: body.pointer("/dryRun").is_some_and(|list| !list.is_null())
            || query("dryRun").is_some(),
    })
}

/// `DELETE` of an object.
pub(crate) fn delete(call: &Call, body: &[u8]) -> Result<Answered, Status> {
    let target = call.target()?;
    let options = deletion(call, body)?;
    let (object, gone) = delete_one(call, target, &options)?;
    if !gone || target.kind.returns_deleted {
        return Ok(Answered::ok(object));
    }
    Ok(Answered::ok(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": target.name, "group": target.kind.group, "kind": target.kind.plural, "uid": object["metadata"]["uid"]},
    })))
}

/// `DELETE` of a collection.
pub(crate) fn delete_collection(call: &Call, body: &[u8]) -> Result<Answered, Status> {
    let asked = &call.asked;
    let options = deletion(call, body)?;
    let selection = asked.selection()?;
    let keys: Vec<_> = call.shared.store.transact(|state| {
        let namespace = asked
            .kind
            .namespaced
            .then_some(asked.namespace.as_deref())
            .flatten();
        let selected = state
            .range(&asked.kind.table, namespace, None)
            .filter(|(_, object)| selection.matches(object));
        selected.map(|(key, _)| key.clone()).collect()
    });
    let mut items = Vec::new();
    for (namespace, name) in keys {
        let target = Target {
            kind: &asked.kind,
            namespace: &namespace,
            name: &name,
        };
        match delete_one(call, target, &options) {
            Ok((object, _)) => items.push((*object).clone()),
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    Ok(Answered::ok(json!({
        "apiVersion": asked.kind.api_version(), "kind": format!("{}List", asked.kind.kind), "metadata": {}, "items": items,
    })))
}

fn delete_one(
    call: &Call,
    target: Target<'_>,
    options: &Deletion,
) -> Result<(Arc<Value>, bool), Status> {
    let kind = target.kind;
    let (object, gone) = call.shared.store.transact(|state| {
        let old = state.get(&kind.table, target.namespace, target.name).cloned();
        let old = old.ok_or_else(|| Status::not_found(kind, target.name))?;
        let current = |pointer| meta::text(&old, pointer);
        if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != current("/metadata/uid")) {
            let why = format!("the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated", current("/metadata/uid"));
            return Err(Status::conflict(kind, target.name, &why));
        }
        if let Some(revision) = options.revision.as_deref().filter(|one| *one != current("/metadata/resourceVersion")) {
            let why = format!("the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record ({}). The object might have been modified", current("/metadata/resourceVersion"));
            return Err(Status::conflict(kind, target.name, &why));
        }
        let mut new = (*old).clone();
        let grace = super::rows::grace(kind, &old, options.grace);
        mark(&mut new, grace);
        let mut finalizers: Vec<String> = meta::finalizers(&new).into_iter().map(str::to_owned).collect();
        let wanted = match options.propagation.as_str() {
            "Foreground" => Some("foregroundDeletion"),
            "Orphan" => Some("orphan"),
            _ => None,
        };
        if let Some(wanted) = wanted.filter(|wanted| !meta::is_deleting(&old) && !finalizers.iter().any(|one| one == wanted)) {
            finalizers.push(wanted.to_owned());
            new["metadata"]["finalizers"] = json!(finalizers);
        }
        super::rows::terminating(kind, &mut new);
        if options.dry_run {
            return Ok((Arc::new(new), false));
        }
        if finalizers.is_empty() && !write::waits(&new) {
            let removed = state.remove(&kind.table, &target.key()).unwrap_or(old);
            return Ok((removed, true));
        }
        if new == *old {
            return Ok((old, false));
        }
        Ok::<_, Status>((state.put(&kind.table, target.key(), new), false))
    })?;
    if !options.dry_run {
        super::crd::follow(&call.shared, kind, &object, gone);
    }
    Ok((object, gone))
}

/// Marks an object as being deleted; a second deletion can only shorten the grace period.
fn mark(object: &mut Value, grace: i64) {
    let before = object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    let grace = before.map_or(grace, |before| before.min(grace));
    if !meta::is_deleting(object) || before.is_some_and(|before| grace < before) {
        let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
        object["metadata"]["deletionTimestamp"] =
            until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        if let Some(generation) = object
            .pointer("/metadata/generation")
            .and_then(Value::as_i64)
        {
            object["metadata"]["generation"] = (generation + 1).into();
        }
    }
    object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
}

pub(crate) use patch::merge;
