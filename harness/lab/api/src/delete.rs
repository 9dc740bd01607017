//! Deletion, of one object or of a collection.
//!
//! Start from [`delete`]. What becomes of an object is decided at once, in the store's lock: it goes, or
//! it is marked and waits for its finalizers, and a pod for its kubelet.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::meta;
use super::protobuf;
use super::registry::Kind;
use super::router::{Answered, Call};
use super::status::Status;
use super::write::{self, Target};

/// The options of a deletion, from the query and the body (meta/v1 `DeleteOptions`).
struct Options {
    grace: Option<i64>,
    /// Absent where the client leaves it to the object's finalizers.
    propagation: Option<String>,
    /// As older clients say it.
    orphan: Option<bool>,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
}

fn options(call: &Call, body: &[u8]) -> Result<Options, Status> {
    let body: Value = if body.is_empty() {
        Value::Null
    } else if call.content_type() == protobuf::MEDIA_TYPE {
        protobuf::read(body).map_err(Status::bad_request)?
    } else {
        super::verbs::parse_yaml(body)?
    };
    let text = |pointer: &str| {
        body.pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let query = |name: &str| call.asked.query.get(name);
    let orphan = body
        .pointer("/orphanDependents")
        .and_then(Value::as_bool)
        .or_else(|| query("orphanDependents")?.parse().ok());
    let by_orphan = orphan.map(|orphan| if orphan { "Orphan" } else { "Background" }.to_owned());
    Ok(Options {
        grace: body
            .pointer("/gracePeriodSeconds")
            .and_then(Value::as_i64)
            .or_else(|| query("gracePeriodSeconds")?.parse().ok()),
        propagation: text("/propagationPolicy")
            .or_else(|| query("propagationPolicy").map(str::to_owned))
            .or(by_orphan),
        orphan,
        uid: text("/preconditions/uid"),
        revision: text("/preconditions/resourceVersion"),
        dry_run: body.pointer("/dryRun").is_some_and(|list| !list.is_null())
            || query("dryRun").is_some(),
    })
}

/// `DELETE` of an object.
pub(crate) fn delete(call: &Call, body: &[u8]) -> Result<Answered, Status> {
    let target = call.target()?;
    let options = options(call, body)?;
    let (object, gone) = delete_one(call, target, &options)?;
    if !gone {
        // Newer ways of saying it are answered 200 all the same, for clients that are used to it.
        let accepted = options.orphan == Some(false);
        return Ok(Answered {
            code: if accepted {
                StatusCode::ACCEPTED
            } else {
                StatusCode::OK
            },
            ..Answered::ok(object)
        });
    }
    if target.kind.returns_deleted {
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
    let options = options(call, body)?;
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

/// The object that is left, or that was, and whether it is gone.
fn delete_one(
    call: &Call,
    target: Target<'_>,
    options: &Options,
) -> Result<(Arc<Value>, bool), Status> {
    let kind = target.kind;
    let (object, gone) = call.shared.store.transact(|state| {
        let old = state
            .get(&kind.table, target.namespace, target.name)
            .cloned();
        let old = old.ok_or_else(|| Status::not_found(kind, target.name))?;
        check(target, &old, options)?;
        let Some(step) = step(kind, &old, options) else {
            return Ok((old, false));
        };
        if options.dry_run {
            return Ok((
                Arc::new(step.marked.unwrap_or_else(|| (*old).clone())),
                step.removed,
            ));
        }
        let mut object = old.clone();
        if let Some(marked) = step.marked.filter(|marked| *marked != *old) {
            object = state.put(&kind.table, target.key(), marked);
        }
        if step.removed {
            object = state.remove(&kind.table, &target.key()).unwrap_or(object);
        }
        Ok::<_, Status>((object, step.removed))
    })?;
    if !options.dry_run {
        super::crd::follow(&call.shared, kind, &object, gone);
    }
    Ok((object, gone))
}

/// The preconditions.
fn check(target: Target<'_>, old: &Value, options: &Options) -> Result<(), Status> {
    let current = |pointer| meta::text(old, pointer);
    let uid = current("/metadata/uid");
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(Status::precondition(target.kind, target.name, &why));
    }
    let revision = current("/metadata/resourceVersion");
    if let Some(wanted) = options.revision.as_deref().filter(|one| *one != revision) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        );
        return Err(Status::precondition(target.kind, target.name, &why));
    }
    Ok(())
}

/// What a deletion does.
struct Step {
    /// The object as it is stored, at least on the way.
    marked: Option<Value>,
    removed: bool,
}

/// None where a deletion that is under way goes on as it is.
fn step(kind: &Kind, old: &Value, options: &Options) -> Option<Step> {
    let mut new = old.clone();
    let given = grace_of(old);
    let graceful = match super::rows::grace(kind, old, options.grace) {
        None => false,
        Some(_) if meta::is_deleting(old) && given == 0 => false,
        Some(_) if meta::is_deleting(old) => {
            // A second deletion can only shorten the time.
            shorten(
                &mut new,
                given,
                options.grace.filter(|grace| *grace < given)?,
            );
            true
        }
        Some(grace) => {
            mark(&mut new, grace);
            true
        }
    };
    collect(&mut new, options.propagation.as_deref());
    let pending = !meta::finalizers(&new).is_empty() || write::waits(&new);
    if !graceful && pending {
        mark(&mut new, 0);
    }
    super::rows::terminating(kind, &mut new);
    Some(Step {
        marked: (graceful || pending).then_some(new),
        removed: !pending,
    })
}

/// The finalizers by which the garbage collector sees to an object's dependents.
const COLLECTORS: [&str; 2] = ["orphan", "foregroundDeletion"];

/// Sets the garbage collector's finalizer as the deletion asks; else one that is there decides.
fn collect(object: &mut Value, propagation: Option<&str>) {
    let known: Vec<String> = meta::finalizers(object)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let wanted = match propagation {
        Some("Foreground") => Some("foregroundDeletion"),
        Some("Orphan") => Some("orphan"),
        Some(_) => None,
        None => known
            .iter()
            .find_map(|known| COLLECTORS.into_iter().find(|one| one == known)),
    };
    let mut left: Vec<String> = known
        .iter()
        .filter(|one| !COLLECTORS.contains(&one.as_str()))
        .cloned()
        .collect();
    left.extend(wanted.map(str::to_owned));
    let same = left.len() == known.len() && left.iter().all(|one| known.contains(one));
    if same {
        return;
    }
    let metadata = meta::map_at(object, "metadata");
    if left.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(left));
    }
}

fn grace_of(object: &Value) -> i64 {
    object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0)
}

fn until(object: &mut Value, time: jiff::Timestamp, grace: i64) {
    object["metadata"]["deletionTimestamp"] =
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
}

/// Marks an object as being deleted, where it is not.
fn mark(object: &mut Value, grace: i64) {
    if meta::is_deleting(object) {
        object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        return;
    }
    let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
    until(object, time, grace);
    if let Some(generation) = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
    {
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

/// Counts the time that is given from the same moment as before.
fn shorten(object: &mut Value, given: i64, grace: i64) {
    let before = meta::text(object, "/metadata/deletionTimestamp")
        .parse::<jiff::Timestamp>()
        .unwrap_or_else(|_| jiff::Timestamp::now());
    until(
        object,
        before - jiff::SignedDuration::from_secs(given - grace),
        grace,
    );
}
