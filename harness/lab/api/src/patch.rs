//! JSON, merge and strategic merge patches.
//!
//! Start from [`Patch::parse`]. Server-side apply is [`super::apply`]'s.

use serde_json::{Map, Value};

use super::registry::Kind;
use super::schema::{Merge, Place, Schema, key_of};
use super::status::Status;

/// A patch, read but not yet applied.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own: lists merge by their keys.
    Strategic(Value),
}

impl Patch {
    /// Reads a patch by its content type.
    pub(crate) fn parse(content_type: &str, body: &[u8], kind: &Kind) -> Result<Self, Status> {
        let wrong = |error: serde_json::Error| {
            let why = if error.is_eof() {
                "unexpected end of JSON input".to_owned()
            } else {
                error.to_string()
            };
            Status::bad_request(format!("error decoding patch: {why}"))
        };
        match content_type {
            "application/json-patch+json" => {
                let patch: Value = serde_json::from_slice(body).map_err(wrong)?;
                if !patch.is_array() {
                    return Err(Status::bad_request(format!(
                        "json: cannot unmarshal {} into Go value of type jsonpatch.Patch",
                        super::meta::go_kind(&patch)
                    )));
                }
                Ok(Self::Json(serde_json::from_value(patch).map_err(wrong)?))
            }
            "application/merge-patch+json" => {
                Ok(Self::Merge(serde_json::from_slice(body).map_err(wrong)?))
            }
            "application/strategic-merge-patch+json" if matches!(kind.schema, Schema::Builtin) => {
                Ok(Self::Strategic(
                    serde_json::from_slice(body).map_err(wrong)?,
                ))
            }
            other => Err(Status::unsupported_media(other)),
        }
    }

    /// The object after the patch.
    pub(crate) fn apply(&self, old: &Value, schema: &Schema) -> Result<Value, Status> {
        let mut new = old.clone();
        match self {
            Self::Json(patch) => {
                for operation in &patch.0 {
                    if !is_absence(operation, &new) {
                        json_patch::patch(&mut new, std::slice::from_ref(operation))
                            .map_err(|_| Status::patch_rejected())?;
                    }
                }
            }
            Self::Merge(patch) => merge(&mut new, patch),
            Self::Strategic(patch) => strategic(&mut new, patch, schema.root()),
        }
        Ok(new)
    }
}

/// A test for null of what is not there: in Go's library it holds, and clients count on it.
fn is_absence(operation: &json_patch::PatchOperation, object: &Value) -> bool {
    match operation {
        json_patch::PatchOperation::Test(test) => {
            test.value.is_null() && object.pointer(test.path.as_str()).is_none()
        }
        _ => false,
    }
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    json_patch::merge(target, patch);
}

/// The directives of a strategic merge patch.
const DIRECTIVE: &str = "$patch";

fn strategic(target: &mut Value, patch: &Value, place: Place<'_>) {
    let Some(changes) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    match changes.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            let rest: Map<_, _> = changes
                .iter()
                .filter(|(name, _)| *name != DIRECTIVE)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            *target = Value::Object(rest);
            return;
        }
        Some("delete") => {
            *target = Value::Null;
            return;
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else {
        return;
    };
    if let Some(kept) = changes.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|name, _| kept.iter().any(|kept| kept == name));
    }
    for (name, change) in changes {
        if let Some(field) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(list), Some(gone)) = (
                map.get_mut(field).and_then(Value::as_array_mut),
                change.as_array(),
            ) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        if change.is_null() {
            map.remove(name);
            continue;
        }
        let child = place.field(name);
        match change {
            Value::Array(items) => {
                let found = map
                    .entry(name.clone())
                    .or_insert_with(|| Value::Array(Vec::new()));
                merge_list(found, items, child);
                if let Some(order) = changes
                    .get(&format!("$setElementOrder/{name}"))
                    .and_then(Value::as_array)
                {
                    sort(found, order, child);
                }
            }
            Value::Object(_) => {
                let found = map.entry(name.clone()).or_insert(Value::Null);
                strategic(found, change, child);
                if found.is_null() {
                    map.remove(name);
                }
            }
            scalar => {
                map.insert(name.clone(), scalar.clone());
            }
        }
    }
}

fn merge_list(target: &mut Value, patch: &[Value], place: Place<'_>) {
    let plain: Vec<Value> = patch
        .iter()
        .filter(|item| item.get(DIRECTIVE).is_none())
        .cloned()
        .collect();
    let replaced = patch.iter().any(|item| {
        item.get(DIRECTIVE)
            .is_some_and(|directive| directive == "replace")
    });
    // Keys are found from the whole items of both sides; directives name only the key.
    let sample = Value::Array(
        target
            .as_array()
            .into_iter()
            .flatten()
            .chain(&plain)
            .cloned()
            .collect(),
    );
    let merge = place.merge(&sample);
    let Some(items) = target.as_array_mut().filter(|_| !replaced) else {
        *target = Value::Array(plain);
        return;
    };
    match merge {
        // The patch merge key is the first of the keys: strategic merge knows only one.
        Merge::Keys(keys) => {
            let keys = &keys[..1];
            for change in patch {
                let key = key_of(change, keys);
                let at = items.iter().position(|item| key_of(item, keys) == key);
                match (at, change.get(DIRECTIVE).and_then(Value::as_str)) {
                    (Some(at), Some("delete")) => {
                        items.remove(at);
                    }
                    (None, Some("delete")) => {}
                    (Some(at), _) => strategic(&mut items[at], change, place.item()),
                    (None, _) => items.push(change.clone()),
                }
            }
        }
        Merge::Set => {
            for item in plain {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
        }
        _ => *items = plain,
    }
}

/// Puts items into the order that the patch names; others keep theirs, behind.
fn sort(target: &mut Value, order: &[Value], place: Place<'_>) {
    let merge = place.merge(target);
    let Some(items) = target.as_array_mut() else {
        return;
    };
    match merge {
        Merge::Keys(keys) => {
            let keys = &keys[..1];
            let order: Vec<String> = order.iter().map(|item| key_of(item, keys)).collect();
            items.sort_by_key(|item| {
                order
                    .iter()
                    .position(|one| *one == key_of(item, keys))
                    .unwrap_or(usize::MAX)
            });
        }
        _ => items.sort_by_key(|item| {
            order
                .iter()
                .position(|one| one == item)
                .unwrap_or(usize::MAX)
        }),
    }
}
