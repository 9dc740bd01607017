//! Server-side apply, and who manages what after any other write.
//!
//! Start from [`apply`] and [`record_update`]. The rules are those of the documentation of
//! server-side apply: a field that another manager holds with another value is a conflict unless
//! forced; a field that this manager applied before and leaves out now goes, unless others hold it.

use serde_json::{Map, Value, json};

use super::fields::{FieldSet, managed_part};
use super::meta::now;
use super::registry::Kind;
use super::schema::{Merge, Place, key_of};
use super::status::Status;
use super::write::{Options, Part};

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
    /// Where it stands among others.
    fn rank(&self) -> [&str; 5] {
        [
            &self.operation,
            &self.time,
            &self.name,
            &self.api_version,
            &self.subresource,
        ]
    }

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
    manager: &'a str,
    part: Part,
    api_version: String,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(kind: &Kind, part: Part, options: &'a Options) -> Self {
        Self {
            manager: &options.manager,
            part,
            api_version: kind.api_version(),
        }
    }
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
    let mut managers: Vec<&Manager> = managers
        .iter()
        .filter(|manager| !manager.fields.is_empty())
        .collect();
    // In one order, whoever wrote last: what changes nothing has to look like it.
    managers.sort_by(|one, other| one.rank().cmp(&other.rank()));
    let entries: Vec<Value> = managers
        .iter()
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

/// Gives a write without `managedFields` those of the object: clients that do not know them mean them
/// no harm. One empty entry asks for a new beginning.
pub(crate) fn keep_managers(old: &Value, new: &mut Value) {
    let sent = new
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let reset = sent.is_some_and(|list| matches!(list.as_slice(), [one] if *one == json!({})));
    let known = !reset && !managers_of(new).is_empty();
    if reset {
        copy_managers(&Value::Null, new);
    } else if !known {
        copy_managers(old, new);
    }
}

/// Has one object managed as another is, which may be by nobody.
pub(crate) fn copy_managers(from: &Value, to: &mut Value) {
    if let Some(metadata) = to.get_mut("metadata").and_then(Value::as_object_mut) {
        match from.pointer("/metadata/managedFields") {
            Some(fields) => metadata.insert("managedFields".to_owned(), fields.clone()),
            None => metadata.remove("managedFields"),
        };
    }
}

/// Notes that a writer changed an object other than by applying.
pub(crate) fn record_update(
    old: Option<&Value>,
    new: &mut Value,
    kind: &Kind,
    writer: &Writer<'_>,
) {
    let mut managers = managers_of(new);
    // Where nobody manages anything, nobody begins to by an update.
    if old.is_some() && managers.is_empty() {
        return;
    }
    let before = old.map_or_else(|| kind.schema.blank(new), managed_part);
    let after = managed_part(new);
    let (set, lost) = FieldSet::changed(&before, &after, kind.schema.root());
    let (set, lost) = (
        set.of_part(writer.part, kind),
        lost.of_part(writer.part, kind),
    );
    let mine = |manager: &Manager| {
        manager.name == writer.manager
            && manager.operation == "Update"
            && manager.subresource == writer.part.subresource()
    };
    let gone = set.union(&lost);
    for manager in &mut managers {
        let theirs = if mine(manager) { &lost } else { &gone };
        manager.fields = manager.fields.minus(theirs);
    }
    match managers.iter_mut().find(|manager| mine(manager)) {
        Some(_) if set.is_empty() => {}
        Some(manager) => {
            manager.fields = manager.fields.union(&set);
            manager.time = now();
        }
        None => managers.push(Manager {
            name: writer.manager.to_owned(),
            operation: "Update".to_owned(),
            subresource: writer.part.subresource().to_owned(),
            api_version: writer.api_version.clone(),
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
    kind: &Kind,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Status> {
    let mut managers = managers_of(live);
    let root = kind.schema.root();
    let wanted = managed_part(config);
    let applied = FieldSet::of(&wanted, root).of_part(writer.part, kind);
    let mine = |manager: &Manager| {
        manager.name == writer.manager
            && manager.operation == "Apply"
            && manager.subresource == writer.part.subresource()
    };
    let current = managed_part(live);
    if managers.is_empty() && live.pointer("/metadata/uid").is_some() {
        managers.extend(before_first_apply(&current, kind));
    }
    let mut object = merged(live, config, root);
    let before = managers.iter().find(|manager| mine(manager)).cloned();
    if let Some(before) = &before {
        // Names and types count here: metadata that an apply empties of all else still is there.
        let whole = FieldSet::of(config, root).with_parents();
        let others = managers.iter().filter(|manager| !mine(manager));
        let owned = others.fold(whole, |union, manager| {
            union.union(&manager.fields.with_parents())
        });
        object = pruned(&object, &before.fields.with_parents(), &owned, root);
    }
    let (object, pruning) = (managed_part(&object), before.is_some());
    let (changed, lost) = FieldSet::changed(&current, &object, root);
    let (changed, lost) = (
        changed.of_part(writer.part, kind),
        lost.of_part(writer.part, kind),
    );
    let contested = |manager: &Manager| manager.fields.intersection(&changed);
    let conflicts: Vec<(String, FieldSet)> = managers
        .iter()
        .filter(|manager| !mine(manager))
        .map(|manager| (manager.shown(), contested(manager)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    if !conflicts.is_empty() && !force {
        let causes: Vec<_> = conflicts
            .iter()
            .flat_map(|(name, fields)| fields.paths().into_iter().map(|path| (name.clone(), path)))
            .collect();
        return Err(Status::apply_conflict(&causes));
    }
    for manager in managers.iter_mut().filter(|manager| !mine(manager)) {
        manager.fields = manager.fields.minus(&changed).minus(&lost);
    }
    let time = before
        .filter(|before| before.fields == applied)
        .map(|before| before.time);
    managers.retain(|manager| !mine(manager));
    managers.push(Manager {
        name: writer.manager.to_owned(),
        operation: "Apply".to_owned(),
        subresource: writer.part.subresource().to_owned(),
        api_version: writer.api_version.clone(),
        time: time.unwrap_or_else(now),
        fields: applied,
    });
    let mut object = with_system(live, config, object);
    if pruning {
        without_nulls(&mut object);
    }
    set_managers(&mut object, &managers);
    Ok(object)
}

/// Whoever wrote an object that nobody manages counts as one.
fn before_first_apply(live: &Value, kind: &Kind) -> Option<Manager> {
    let (fields, _) = FieldSet::changed(&kind.schema.blank(live), live, kind.schema.root());
    let manager = Manager {
        name: "before-first-apply".to_owned(),
        operation: "Update".to_owned(),
        subresource: String::new(),
        api_version: kind.api_version(),
        time: now(),
        fields: fields.of_part(Part::Main, kind),
    };
    (!manager.fields.is_empty()).then_some(manager)
}

/// What nobody manages, of the object that is there, beside what is managed.
fn with_system(live: &Value, config: &Value, mut managed: Value) -> Value {
    for field in ["apiVersion", "kind"] {
        if let Some(value) = config.get(field).or_else(|| live.get(field)) {
            managed[field] = value.clone();
        }
    }
    let metadata = super::meta::map_at(&mut managed, "metadata");
    for from in [live, config] {
        for (name, value) in from["metadata"].as_object().into_iter().flatten() {
            if super::fields::SYSTEM.contains(&name.as_str()) {
                metadata.insert(name.clone(), value.clone());
            }
        }
    }
    managed
}

/// An object without what a manager applied last and leaves out now, unless others hold it: the
/// three steps of structured-merge-diff, which decide what becomes of maps that end up empty.
fn pruned(merged: &Value, last: &FieldSet, owned: &FieldSet, root: Place<'_>) -> Value {
    let fields = |value: &Value| FieldSet::of(value, root).with_parents();
    let all = fields(merged);
    let bare = without(merged, last, root);
    let lost = all.minus(&fields(&bare).union(owned));
    let bare = without(merged, &lost, root);
    let lost = all.minus(&fields(&bare)).intersection(last);
    without(merged, &lost, root)
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

/// A value without a set of fields. What this empties is null, and not gone: whoever manages the map or
/// the list itself still does.
fn without(value: &Value, set: &FieldSet, place: Place<'_>) -> Value {
    if set.is_empty() {
        return value.clone();
    }
    let left = |element: &str, child: &Value, place: Place<'_>| match set.child(element) {
        Some(inner) if inner.is_member() => None,
        Some(inner) => Some(without(child, inner, place)),
        None => Some(child.clone()),
    };
    let list = |kept: Vec<Value>| {
        if kept.is_empty() {
            Value::Null
        } else {
            Value::Array(kept)
        }
    };
    match (value, place.merge(value)) {
        (Value::Object(map), Merge::Fields) if !map.is_empty() => {
            let kept: Map<String, Value> = map
                .iter()
                .filter_map(|(name, child)| {
                    let child = left(&format!("f:{name}"), child, place.field(name))?;
                    Some((name.clone(), child))
                })
                .collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        (Value::Array(items), Merge::Keys(keys)) if !items.is_empty() => {
            let kept = items
                .iter()
                .filter_map(|item| left(&format!("k:{}", key_of(item, &keys)), item, place.item()));
            list(kept.collect())
        }
        (Value::Array(items), Merge::Set) if !items.is_empty() => {
            let kept = items
                .iter()
                .filter_map(|item| left(&format!("v:{item}"), item, place.item()));
            list(kept.collect())
        }
        _ => value.clone(),
    }
}

/// Takes out the nulls that pruning left.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
