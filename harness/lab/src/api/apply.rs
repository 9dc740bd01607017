//! Server-side apply, and who manages what after any other write.
//!
//! Start from [`apply`] and [`record_update`]. The rules are those of the documentation of
//! server-side apply: a field that another manager holds with another value is a conflict unless
//! forced; a field that this manager applied before and leaves out now goes, unless others hold it.

use serde_json::{Map, Value, json};

use super::fields::{FieldSet, managed_part};
use super::meta::now;
use super::schema::{Merge, Place, Schema, key_of};
use super::status::Status;

/// One entry of `metadata.managedFields`.
#[derive(Debug, Clone)]
struct Manager {
    name: String,
    operation: String,
    subresource: String,
    api_version: String,
    time: String,
    fields: FieldSet,
}

impl Manager {
    /// As conflicts name it.
    fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            shown = format!("{shown} with subresource {:?}", self.subresource);
        }
        if self.operation == "Update" {
            shown = format!("{shown} using {}", self.api_version);
        }
        shown
    }
}

/// Who writes, and how.
#[derive(Debug, Clone)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) api_version: &'a str,
}

fn managers_of(object: &Value) -> Vec<Manager> {
    let text = |entry: &Value, name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|entry| Manager {
            name: text(entry, "manager"),
            operation: text(entry, "operation"),
            subresource: text(entry, "subresource"),
            api_version: text(entry, "apiVersion"),
            time: text(entry, "time"),
            fields: entry
                .get("fieldsV1")
                .map(FieldSet::from_json)
                .unwrap_or_default(),
        })
        .collect()
}

fn set_managers(object: &mut Value, managers: &[Manager]) {
    let entries: Vec<Value> = managers
        .iter()
        .filter(|manager| !manager.fields.is_empty())
        .map(|manager| {
            let mut entry = json!({
                "manager": manager.name, "operation": manager.operation, "apiVersion": manager.api_version,
                "time": manager.time, "fieldsType": "FieldsV1", "fieldsV1": manager.fields.to_json(),
            });
            if !manager.subresource.is_empty() {
                entry["subresource"] = Value::String(manager.subresource.clone());
            }
            entry
        })
        .collect();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

/// Notes that a writer changed an object other than by applying.
pub(crate) fn record_update(
    old: Option<&Value>,
    new: &mut Value,
    schema: &Schema,
    writer: &Writer<'_>,
) {
    let mut managers = old.map(managers_of).unwrap_or_default();
    let empty = json!({});
    let before = old.map_or_else(|| empty.clone(), managed_part);
    let after = managed_part(new);
    let (set, lost) = FieldSet::changed(&before, &after, schema.root());
    let gone = set.union(&lost);
    if gone.is_empty() {
        set_managers(new, &managers);
        return;
    }
    let mine = |manager: &Manager| {
        manager.name == writer.manager
            && manager.operation == "Update"
            && manager.subresource == writer.subresource
    };
    for manager in &mut managers {
        manager.fields = if mine(manager) {
            manager.fields.minus(&lost)
        } else {
            manager.fields.minus(&gone)
        };
    }
    match managers.iter_mut().find(|manager| mine(manager)) {
        Some(manager) => {
            manager.fields = manager.fields.union(&set);
            manager.time = now();
        }
        None => managers.push(Manager {
            name: writer.manager.to_owned(),
            operation: "Update".to_owned(),
            subresource: writer.subresource.to_owned(),
            api_version: writer.api_version.to_owned(),
            time: now(),
            fields: set,
        }),
    }
    set_managers(new, &managers);
}

/// The object after an apply.
///
/// # Errors
/// A conflict with other managers, unless forced.
pub(crate) fn apply(
    live: &Value,
    config: &Value,
    schema: &Schema,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Status> {
    let mut managers = managers_of(live);
    let wanted = managed_part(config);
    let applied = FieldSet::of(&wanted, schema.root());
    let mine = |manager: &Manager| {
        manager.name == writer.manager
            && manager.operation == "Apply"
            && manager.subresource == writer.subresource
    };
    let current = managed_part(live);
    let (changed, _) = FieldSet::changed(
        &current,
        &merged(&current, &wanted, schema.root()),
        schema.root(),
    );
    let contested = applied.intersection(&changed);
    let conflicts: Vec<(String, FieldSet)> = managers
        .iter()
        .filter(|manager| !mine(manager))
        .map(|manager| (manager.shown(), manager.fields.intersection(&contested)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    if !conflicts.is_empty() && !force {
        let causes: Vec<_> = conflicts
            .iter()
            .flat_map(|(name, fields)| fields.paths().into_iter().map(|path| (name.clone(), path)))
            .collect();
        if !causes.is_empty() {
            return Err(Status::apply_conflict(&causes));
        }
    }
    for manager in managers.iter_mut().filter(|manager| !mine(manager)) {
        manager.fields = manager.fields.minus(&contested);
    }
    let previous = managers
        .iter()
        .find(|manager| mine(manager))
        .map(|manager| manager.fields.clone())
        .unwrap_or_default();
    let others = managers
        .iter()
        .filter(|manager| !mine(manager))
        .fold(FieldSet::default(), |union, manager| {
            union.union(&manager.fields)
        });
    let abandoned = previous.minus(&applied).minus(&others);
    let mut object = merged(live, config, schema.root());
    remove(
        &mut object,
        &abandoned,
        &applied.union(&others),
        schema.root(),
    );
    let time = managers
        .iter()
        .find(|manager| mine(manager) && manager.fields == applied)
        .map(|manager| manager.time.clone());
    managers.retain(|manager| !mine(manager));
    managers.push(Manager {
        name: writer.manager.to_owned(),
        operation: "Apply".to_owned(),
        subresource: writer.subresource.to_owned(),
        api_version: writer.api_version.to_owned(),
        time: time.unwrap_or_else(now),
        fields: applied,
    });
    set_managers(&mut object, &managers);
    Ok(object)
}

/// `live` with everything that `config` sets.
fn merged(live: &Value, config: &Value, place: Place<'_>) -> Value {
    match (live, config, place.merge(config)) {
        (Value::Object(old), Value::Object(new), Merge::Fields) => {
            let mut map = old.clone();
            for (name, value) in new {
                let value = match old.get(name) {
                    Some(found) => merged(found, value, place.field(name)),
                    None => value.clone(),
                };
                map.insert(name.clone(), value);
            }
            Value::Object(map)
        }
        (Value::Array(old), Value::Array(new), Merge::Keys(keys)) => {
            let mut items = old.clone();
            for value in new {
                let key = key_of(value, &keys);
                match items.iter_mut().find(|item| key_of(item, &keys) == key) {
                    Some(found) => *found = merged(found, value, place.item()),
                    None => items.push(value.clone()),
                }
            }
            Value::Array(items)
        }
        (Value::Array(old), Value::Array(new), Merge::Set) => {
            let added = new.iter().filter(|item| !old.contains(item));
            Value::Array(old.iter().chain(added).cloned().collect())
        }
        _ => config.clone(),
    }
}

/// Takes a set of fields out of an object, but for what is kept.
fn remove(value: &mut Value, set: &FieldSet, kept: &FieldSet, place: Place<'_>) {
    let merge = place.merge(value);
    match (value, merge) {
        (Value::Object(map), Merge::Fields) => {
            for (element, child) in set.children() {
                let Some(name) = element.strip_prefix("f:") else {
                    continue;
                };
                let keep = kept.child(element);
                let whole =
                    keep.is_none() && (child.is_member() || child.children().next().is_none());
                if whole {
                    map.remove(name);
                } else if let Some(found) = map.get_mut(name) {
                    remove(
                        found,
                        child,
                        keep.unwrap_or(&FieldSet::default()),
                        place.field(name),
                    );
                    if keep.is_none() && is_hollow(found) {
                        map.remove(name);
                    }
                }
            }
        }
        (Value::Array(items), Merge::Keys(keys)) => {
            items.retain_mut(|item| {
                let element = format!("k:{}", key_of(item, &keys));
                let Some(child) = set.child(&element) else {
                    return true;
                };
                match kept.child(&element) {
                    None => false,
                    Some(keep) => {
                        remove(item, child, keep, place.item());
                        true
                    }
                }
            });
        }
        (Value::Array(items), Merge::Set) => {
            items.retain(|item| {
                let element = format!("v:{item}");
                set.child(&element).is_none() || kept.child(&element).is_some()
            });
        }
        _ => {}
    }
}

fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}
