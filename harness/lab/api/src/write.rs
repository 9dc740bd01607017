//! Every way to write an object, in one path.
//!
//! Start from [`create`] and [`change`]. Both run in the store's lock from reading the old object to
//! storing the new one, so a write is atomic; what is wrong is refused before anything is stored.

use std::sync::Arc;

use serde_json::Value;

use super::apply::{self, Writer, record_update};
use super::check::{check_type, decode, validate};
use super::meta::{self, map_at};
use super::registry::{Admit, Kind};
use super::status::Status;
use super::store::{Key, State};
use super::{Shared, crd};

/// What is done about fields that a kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Strict,
    Warn,
    Ignore,
}

/// The options of a write.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
    pub(crate) validation: FieldValidation,
    pub(crate) force: bool,
    /// Who manages what is settled already, by server-side apply.
    pub(crate) applied: bool,
}

/// Which part of an object a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    Scale,
}

impl Part {
    /// As `metadata.managedFields` names it.
    pub(crate) const fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Scale => "scale",
        }
    }
}

/// What was written, and what the writer should be told.
pub(crate) struct Written {
    pub(crate) object: Arc<Value>,
    pub(crate) warnings: Vec<String>,
}

/// Where an object is.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl Target<'_> {
    pub(crate) fn key(&self) -> Key {
        (self.namespace.to_owned(), self.name.to_owned())
    }
}

/// Puts the body of a create into order: its names, type and metadata.
///
/// # Errors
/// When they contradict the path.
pub(crate) fn prepare(
    kind: &Kind,
    namespace: &str,
    body: &mut Value,
    options: &Options,
) -> Result<Vec<String>, Status> {
    check_type(kind, body)?;
    let metadata = map_at(body, "metadata");
    let found = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if kind.namespaced {
        if !found.is_empty() && found != namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata.insert("namespace".into(), namespace.into());
    } else {
        metadata.remove("namespace");
    }
    let given = metadata
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if given.is_empty()
        && let Some(prefix) = metadata
            .get("generateName")
            .and_then(Value::as_str)
            .filter(|prefix| !prefix.is_empty())
    {
        let prefix: String = prefix.chars().take(58).collect();
        metadata.insert("name".into(), format!("{prefix}{}", meta::suffix(5)).into());
    }
    for system in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    ] {
        metadata.remove(system);
    }
    metadata.insert("uid".into(), meta::uid().into());
    metadata.insert("creationTimestamp".into(), meta::now().into());
    if kind.generation {
        metadata.insert("generation".into(), 1.into());
    }
    let (decoded, warnings) = decode(kind, std::mem::take(body), options)?;
    *body = decoded;
    if kind.status && !keeps_status(kind) {
        body.as_object_mut().map(|body| body.remove("status"));
        // A definition may give an object a status until a controller does (`Waiting for controller`).
        if let super::schema::Schema::Custom(schema) = &kind.schema {
            crd::default(body, schema);
        }
    }
    if kind.status && matches!(kind.schema, super::schema::Schema::Builtin) {
        map_at(body, "status");
    }
    (kind.hooks.default)(body);
    // What is admitted or allocated from here on is nobody's.
    if !options.applied {
        let writer = Writer::new(kind, Part::Main, options);
        record_update(None, body, kind, &writer);
    }
    Ok(warnings)
}

/// Kubelets register their Node with its status.
fn keeps_status(kind: &Kind) -> bool {
    kind.subresources.contains(&"proxy") && kind.kind == "Node"
}

/// Stores a new object that was [`prepare`]d.
///
/// # Errors
/// When it is invalid, exists, or its namespace does not take it.
pub(crate) fn create(
    shared: &Shared,
    kind: &Kind,
    namespace: &str,
    mut body: Value,
    options: &Options,
) -> Result<Arc<Value>, Status> {
    let name = meta::name(&body).to_owned();
    validate(kind, &name, &body, None)?;
    let stored = shared.store.transact(|state| {
        if kind.namespaced {
            check_namespace(state, kind, namespace, &name)?;
        }
        if state.get(&kind.table, namespace, &name).is_some() {
            return Err(Status::already_exists(kind, &name));
        }
        (kind.hooks.admit)(&mut Admit {
            state,
            kind,
            namespace,
            name: &name,
            new: &mut body,
            old: None,
        })?;
        if options.dry_run {
            return Ok(Arc::new(body));
        }
        let key = (namespace.to_owned(), name.clone());
        Ok(state.put(&kind.table, key, stored_as(kind, body)))
    })?;
    if !options.dry_run {
        crd::follow(shared, kind, &stored, false);
    }
    Ok(seen_as(kind, &stored))
}

fn check_namespace(state: &State, kind: &Kind, namespace: &str, name: &str) -> Result<(), Status> {
    let namespaces = super::rows::namespace();
    let Some(found) = state.get(&namespaces.table, "", namespace) else {
        return Err(Status::not_found(namespaces, namespace));
    };
    if meta::is_deleting(found) {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        return Err(Status::forbidden(kind, name, &why));
    }
    Ok(())
}

/// Changes an object by a function of what it was.
///
/// # Errors
/// When there is none, the function refuses, or what it makes is invalid.
pub(crate) fn change(
    shared: &Shared,
    target: Target<'_>,
    part: Part,
    options: &Options,
    edit: impl FnOnce(&Value) -> Result<Value, Status>,
) -> Result<Written, Status> {
    let kind = target.kind;
    let mut warnings = Vec::new();
    let (object, gone) = shared.store.transact(|state| {
        let old = state
            .get(&kind.table, target.namespace, target.name)
            .cloned();
        let old = old.ok_or_else(|| Status::not_found(kind, target.name))?;
        let seen = seen_as(kind, &old);
        let new = edit(&seen)?;
        let (new, found) = finish(state, target, part, options, &seen, new)?;
        warnings = found;
        let new = stored_as(kind, new);
        if options.dry_run || same(&old, &new) {
            return Ok((if options.dry_run { Arc::new(new) } else { old }, false));
        }
        let done = meta::is_deleting(&new) && meta::finalizers(&new).is_empty() && !waits(&new);
        if done {
            // The last finalizer's going is no step of its own: watches hear of the end alone.
            state.remove(&kind.table, &target.key());
            return Ok((Arc::new(new), true));
        }
        Ok::<_, Status>((state.put(&kind.table, target.key(), new), false))
    })?;
    if !options.dry_run {
        crd::follow(shared, kind, &object, gone);
    }
    Ok(Written {
        object: seen_as(kind, &object),
        warnings,
    })
}

/// Whether a deleted object still waits for something other than finalizers: a pod for its kubelet,
/// a namespace for its content.
pub(crate) fn waits(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .is_some_and(|grace| grace > 0)
        || (object["kind"] == "Namespace"
            && meta::items(object, "/spec/finalizers").next().is_some())
}

/// An object in the version that was asked for: versions of a kind differ by name only.
pub(crate) fn seen_as(kind: &Kind, object: &Arc<Value>) -> Arc<Value> {
    let version = kind.api_version();
    if object["apiVersion"] == version {
        return object.clone();
    }
    let mut object = (**object).clone();
    if let Some(convert) = kind.convert {
        (convert.from_stored)(&mut object);
    }
    object["apiVersion"] = version.into();
    Arc::new(object)
}

/// An object as it is stored.
fn stored_as(kind: &Kind, mut object: Value) -> Value {
    if let Some(convert) = kind.convert {
        (convert.to_stored)(&mut object);
        object["apiVersion"] = convert.version.into();
    }
    object
}

/// Equal but for the bookkeeping.
fn same(old: &Value, new: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = object.clone();
        if let Some(entries) = object
            .pointer_mut("/metadata/managedFields")
            .and_then(Value::as_array_mut)
        {
            for entry in entries {
                entry.as_object_mut().map(|entry| entry.remove("time"));
            }
        }
        object
    };
    plain(old) == plain(new)
}

fn finish(
    state: &State,
    target: Target<'_>,
    part: Part,
    options: &Options,
    old: &Value,
    mut new: Value,
) -> Result<(Value, Vec<String>), Status> {
    let kind = target.kind;
    check_type(kind, &mut new)?;
    check_identity(target, old, &new)?;
    let (mut new, warnings) = decode(kind, new, options)?;
    // An apply says who manages what; nobody is an answer too.
    if !options.applied {
        apply::keep_managers(old, &mut new);
    }
    match part {
        Part::Status => {
            let sent = std::mem::replace(&mut new, old.clone());
            let annotations = sent["metadata"].get("annotations").cloned();
            let status = sent.get("status").cloned();
            if let Some(status) = status {
                new["status"] = status;
            }
            if kind.annotated_by_status
                && let Some(annotations) = annotations
            {
                new["metadata"]["annotations"] = annotations;
            }
            if options.applied {
                apply::copy_managers(&sent, &mut new);
            }
        }
        Part::Main | Part::Scale => {
            for field in [
                "uid",
                "creationTimestamp",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "generation",
                "name",
                "namespace",
                "generateName",
            ] {
                let metadata = map_at(&mut new, "metadata");
                match old["metadata"].get(field) {
                    Some(value) => metadata.insert(field.to_owned(), value.clone()),
                    None => metadata.remove(field),
                };
            }
            if kind.status {
                match old.get("status") {
                    Some(status) => new["status"] = status.clone(),
                    None => {
                        new.as_object_mut().map(|new| new.remove("status"));
                    }
                }
            }
        }
    }
    (kind.hooks.default)(&mut new);
    if !options.applied {
        let writer = Writer::new(kind, part, options);
        record_update(Some(old), &mut new, kind, &writer);
    }
    if part != Part::Status {
        validate(kind, target.name, &new, Some(old))?;
        (kind.hooks.admit)(&mut Admit {
            state,
            kind,
            namespace: target.namespace,
            name: target.name,
            new: &mut new,
            old: Some(old),
        })?;
        if kind.generation && asked_for(kind, old) != asked_for(kind, &new) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            new["metadata"]["generation"] = generation.into();
        }
    }
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    Ok((new, warnings))
}

/// The part of an object whose changes `generation` counts.
fn asked_for(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    let annotations = object["metadata"]["annotations"].take();
    if let Some(map) = object.as_object_mut() {
        map.remove("metadata");
        map.remove("status");
        map.remove("apiVersion");
        if kind.counts_annotations && !annotations.is_null() {
            map.insert("annotations".to_owned(), annotations);
        }
    }
    object
}

fn check_identity(target: Target<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    let name = meta::name(new);
    if name != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    let namespace = meta::namespace(new);
    if target.kind.namespaced && !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let revision = meta::text(new, "/metadata/resourceVersion");
    if !revision.is_empty() && revision != meta::text(old, "/metadata/resourceVersion") {
        return Err(Status::modified(target.kind, target.name));
    }
    let uid = meta::text(new, "/metadata/uid");
    let current = meta::text(old, "/metadata/uid");
    if !uid.is_empty() && uid != current {
        return Err(Status::other_uid(
            target.kind,
            target.namespace,
            target.name,
            uid,
            current,
        ));
    }
    Ok(())
}
