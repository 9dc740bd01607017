//! Patches, as their documents define them: RFC 7386, RFC 6902, and strategic merge.

use serde_json::{Map, Value, json};

use crate::kinds::{Assignment, Kind, put};

/// The merge patch of some assignments.
pub(crate) fn as_merge(assignments: &[Assignment]) -> Value {
    let mut patch = json!({});
    for (pointer, value) in assignments {
        put(&mut patch, pointer, value.clone().unwrap_or(Value::Null));
    }
    patch
}

/// The JSON patch of some assignments; every other one replaces where it might add.
pub(crate) fn as_json(assignments: &[Assignment]) -> Value {
    let operations = assignments
        .iter()
        .enumerate()
        .map(|(at, (pointer, value))| match value {
            None => json!({"op": "remove", "path": pointer}),
            Some(value) if at % 2 == 0 => json!({"op": "add", "path": pointer, "value": value}),
            Some(value) => json!({"op": "replace", "path": pointer, "value": value}),
        });
    operations.collect()
}

/// RFC 7386, section 2.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Some(changes) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, change) in changes {
        if change.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], change);
        }
    }
}

/// RFC 6902, sections 4.1 to 4.3, on maps; none where it does not apply.
///
/// Before 1.21 the server's library replaced what is not there, too.
pub(crate) fn json_patch(target: &Value, patch: &Value, minor: u32) -> Option<Value> {
    let mut object = target.clone();
    for operation in patch.as_array()? {
        let (parent, name) = operation["path"].as_str()?.rsplit_once('/')?;
        let map: &mut Map<String, Value> = object.pointer_mut(parent)?.as_object_mut()?;
        let lenient = operation["op"] == "replace" && minor < 21;
        if operation["op"] != "add" && !lenient && !map.contains_key(name) {
            return None;
        }
        match operation.get("value") {
            Some(value) => map.insert(name.to_owned(), value.clone()),
            None => map.remove(name),
        };
    }
    Some(object)
}

/// A strategic merge patch without directives: a merge patch that adds to lists with a key or of a set.
pub(crate) fn strategic(kind: Kind, path: &str, target: &mut Value, patch: &Value) {
    let Some(changes) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, change) in changes {
        let inner = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        if change.is_null() {
            target.as_object_mut().unwrap().remove(name);
            continue;
        }
        let found = &mut target[name];
        match (
            found.as_array_mut(),
            change.as_array(),
            kind.patch_key(&inner),
        ) {
            (Some(items), Some(news), Some(key)) => {
                for new in news {
                    match items.iter_mut().find(|item| item[key] == new[key]) {
                        Some(item) => strategic(kind, &format!("{inner}.*"), item, new),
                        None => items.push(new.clone()),
                    }
                }
            }
            (Some(items), Some(news), None) if inner == "metadata.finalizers" => {
                let added: Vec<Value> = news
                    .iter()
                    .filter(|new| !items.contains(new))
                    .cloned()
                    .collect();
                items.extend(added);
            }
            _ => strategic(kind, &inner, found, change),
        }
    }
}
