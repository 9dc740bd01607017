//! Who manages which field: the model of server-side apply.
//!
//! Written from the documentation of server-side apply and of structured-merge-diff: a set of fields
//! is a flat set of paths, each element as `FieldsV1` writes it. Start from [`Managers::update`] and
//! [`Managers::apply`].

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::kinds::Kind;
use crate::paths::{Changes, Path, Place, Set, is_empty};

/// Who: manager, operation, subresource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    pub(crate) name: String,
    pub(crate) apply: bool,
    pub(crate) subresource: &'static str,
}

/// A field that another holds: the manager's name, and the path as conflicts show it.
pub(crate) type Conflict = (String, String);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Managers(pub(crate) BTreeMap<Who, Set>);

/// The fields that an object sets.
fn fields_of(kind: Kind, value: &Value) -> Set {
    fn walk(place: &Place, value: &Value, set: &mut Set) {
        match value {
            Value::Object(map) if !place.is_atomic() => {
                for (name, child) in map {
                    let inner = place.field(name);
                    walk(&inner, child, set);
                    if is_empty(Some(child)) {
                        set.insert(inner.path);
                    }
                }
            }
            Value::Array(items) => match place.elements(items) {
                None => {
                    set.insert(place.path.clone());
                }
                Some(elements) => {
                    for (element, item) in elements.into_iter().zip(items) {
                        let inner = place.item(element);
                        walk(&inner, item, set);
                        set.insert(inner.path);
                    }
                }
            },
            Value::Null => {}
            _ => {
                set.insert(place.path.clone());
            }
        }
    }
    let mut set = Set::new();
    walk(&Place::root(kind), value, &mut set);
    set
}

/// What nobody manages.
fn is_managed(path: &Path) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    !matches!(
        path[..],
        ["f:apiVersion" | "f:kind" | "f:metadata"]
            | [
                "f:metadata",
                "f:name"
                    | "f:namespace"
                    | "f:uid"
                    | "f:selfLink"
                    | "f:generation"
                    | "f:resourceVersion"
                    | "f:creationTimestamp"
                    | "f:deletionTimestamp"
                    | "f:deletionGracePeriodSeconds"
                    | "f:managedFields"
            ]
    )
}

/// With every named field that something of the set is in.
fn with_parents(set: &Set) -> Set {
    let mut all = set.clone();
    for path in set {
        for length in 1..path.len() {
            if path[length - 1].starts_with("f:") {
                all.insert(path[..length].to_vec());
            }
        }
    }
    all
}

/// A value without the fields of a set; a map or list that this empties becomes null.
fn without(place: &Place, value: &Value, set: &Set) -> Value {
    match value {
        Value::Object(map) if !map.is_empty() && !place.is_atomic() => {
            let kept = map.iter().filter_map(|(name, child)| {
                let inner = place.field(name);
                let kept = !set.contains(&inner.path);
                kept.then(|| (name.clone(), without(&inner, child, set)))
            });
            let kept: Map<String, Value> = kept.collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let Some(elements) = place.elements(items) else {
                return value.clone();
            };
            let kept = elements
                .into_iter()
                .zip(items)
                .filter_map(|(element, item)| {
                    let inner = place.item(element);
                    (!set.contains(&inner.path)).then(|| without(&inner, item, set))
                });
            let kept: Vec<Value> = kept.collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
        _ => value.clone(),
    }
}

/// `live` with everything that `config` sets.
fn merged(place: &Place, live: &Value, config: &Value) -> Value {
    match (live, config) {
        (Value::Object(old), Value::Object(new)) if !place.is_atomic() => {
            let mut map = old.clone();
            for (name, value) in new {
                let value = match old.get(name) {
                    Some(found) => merged(&place.field(name), found, value),
                    None => value.clone(),
                };
                map.insert(name.clone(), value);
            }
            Value::Object(map)
        }
        (Value::Array(old), Value::Array(new)) => {
            let (Some(olds), Some(news)) = (place.elements(old), place.elements(new)) else {
                return config.clone();
            };
            let mut items = old.clone();
            for (element, value) in news.into_iter().zip(new) {
                match olds.iter().position(|one| *one == element) {
                    Some(at) => items[at] = merged(&place.item(element), &items[at], value),
                    None => items.push(value.clone()),
                }
            }
            Value::Array(items)
        }
        _ => config.clone(),
    }
}

/// As conflicts name a path: `.spec.ports[port=80,protocol="TCP"].name`.
fn shown(path: &Path) -> String {
    let mut text = String::new();
    for element in path {
        let (kind, rest) = element.split_at(2);
        match kind {
            "f:" => text.push_str(&format!(".{rest}")),
            "k:" => {
                let key: Map<String, Value> = serde_json::from_str(rest).unwrap();
                let pairs: Vec<String> = key
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                text.push_str(&format!("[{}]", pairs.join(",")));
            }
            _ => text.push_str(&format!("[={rest}]")),
        }
    }
    text
}

impl Managers {
    /// From `metadata.managedFields`.
    pub(crate) fn of(object: &Value) -> Self {
        fn read(json: &Value, path: &Path, set: &mut Set) {
            for (name, child) in json.as_object().into_iter().flatten() {
                if name == "." {
                    set.insert(path.clone());
                    continue;
                }
                let mut inner = path.clone();
                inner.push(match name.split_once(':') {
                    // Keys are JSON: their spelling is not a difference.
                    Some(("k", key)) => {
                        format!("k:{}", serde_json::from_str::<Value>(key).unwrap())
                    }
                    _ => name.clone(),
                });
                if child.as_object().is_some_and(Map::is_empty) {
                    set.insert(inner);
                } else {
                    read(child, &inner, set);
                }
            }
        }
        let entries = object["metadata"]["managedFields"].as_array();
        let mut managers = BTreeMap::<Who, Set>::new();
        for entry in entries.into_iter().flatten() {
            let who = Who {
                name: entry["manager"].as_str().unwrap().to_owned(),
                apply: entry["operation"] == "Apply",
                subresource: match entry["subresource"].as_str() {
                    None => "",
                    Some("status") => "status",
                    Some("scale") => "scale",
                    Some(_) => "other",
                },
            };
            read(
                &entry["fieldsV1"],
                &Vec::new(),
                managers.entry(who).or_default(),
            );
        }
        Self(managers)
    }

    /// Of an object that an apply makes.
    pub(crate) fn of_config(kind: Kind, config: &Value, who: &Who) -> Self {
        let fields = fields_of(kind, config).into_iter().filter(is_managed);
        let mut managers = Self(BTreeMap::from([(who.clone(), fields.collect())]));
        managers.0.retain(|_, set: &mut Set| !set.is_empty());
        managers
    }

    /// Takes from the others what changed, and gives conflicts where they held it.
    fn take(&mut self, who: &Who, changes: &Changes) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (other, set) in self.0.iter_mut().filter(|(other, _)| *other != who) {
            let contested =
                |path: &Path| changes.added.contains(path) || changes.modified.contains(path);
            conflicts.extend(
                set.iter()
                    .filter(|path| contested(path))
                    .map(|path| (other.name.clone(), shown(path))),
            );
            set.retain(|path| !contested(path) && !changes.removed.contains(path));
        }
        conflicts
    }

    /// As a server before 1.22 reads them: who manages a map or a list and nothing in it, is taken to
    /// have managed it when it was one value, and so manages everything in it.
    fn read_by(&self, kind: Kind, live: &Value, minor: u32) -> Self {
        let mut read = self.clone();
        if minor >= 22 {
            return read;
        }
        let all = fields_of(kind, live);
        for set in read.0.values_mut() {
            let bare = |path: &&Path| {
                !set.iter()
                    .any(|one| one.len() > path.len() && one.starts_with(path))
            };
            let bare: Vec<Path> = set.iter().filter(bare).cloned().collect();
            set.extend(
                all.iter()
                    .filter(|path| bare.iter().any(|one| path.starts_with(one)))
                    .cloned(),
            );
        }
        read
    }

    /// After a write other than an apply; `old` is none for a new object.
    pub(crate) fn update(
        &self,
        kind: Kind,
        old: Option<&Value>,
        new: &Value,
        who: &Who,
        minor: u32,
    ) -> Self {
        // Where nobody manages anything, nobody begins to by an update.
        if old.is_some() && self.0.is_empty() {
            return Self::default();
        }
        let blank = kind.blank();
        let old = old.unwrap_or(&blank);
        let mut after = self.read_by(kind, old, minor);
        let changes = Changes::between(kind, old, new);
        after.take(who, &changes);
        let mine = after.0.entry(who.clone()).or_default();
        mine.retain(|path| !changes.removed.contains(path));
        mine.extend(
            changes
                .added
                .into_iter()
                .chain(changes.modified)
                .filter(is_managed),
        );
        after.0.retain(|_, set| !set.is_empty());
        after
    }

    /// After an apply: the object, the managers, and the conflicts that only force overcomes.
    pub(crate) fn apply(
        &self,
        kind: Kind,
        live: &Value,
        config: &Value,
        who: &Who,
        minor: u32,
    ) -> (Value, Self, Vec<Conflict>) {
        let root = Place::root(kind);
        let mut after = self.read_by(kind, live, minor);
        if after.0.is_empty() {
            // Whoever wrote what is there, counts as one.
            let before = Who {
                name: "before-first-apply".to_owned(),
                apply: false,
                subresource: "",
            };
            after = after.update(kind, None, live, &before, minor);
            // A status is not the write's to set, and since 1.22 not to manage.
            for set in after.0.values_mut().filter(|_| minor >= 22) {
                set.retain(|path| path[0] != "f:status");
            }
            after.0.retain(|_, set| !set.is_empty());
        }
        let merged = merged(&root, live, config);
        let last = after.0.insert(who.clone(), fields_of(kind, config));
        let new = match last.filter(|last| !last.is_empty()) {
            None => merged,
            Some(last) => {
                // Structures go with the last field that was applied in them since 1.21.
                let whole = |set: &Set| {
                    if minor < 21 {
                        set.clone()
                    } else {
                        with_parents(set)
                    }
                };
                let fields = |value: &Value| whole(&fields_of(kind, value));
                let (last, all) = (whole(&last), fields(&merged));
                let pruned = without(&root, &merged, &last);
                // Back comes what anyone manages, and what is not this manager's to remove.
                let mut kept = fields(&pruned);
                kept.extend(after.0.values().flat_map(whole));
                let lost: Set = all.difference(&kept).cloned().collect();
                let pruned = without(&root, &merged, &lost);
                let kept = fields(&pruned);
                let lost = all.difference(&kept).filter(|path| last.contains(*path));
                without(&root, &merged, &lost.cloned().collect())
            }
        };
        let conflicts = after.take(who, &Changes::between(kind, live, &new));
        if let Some(mine) = after.0.get_mut(who) {
            mine.retain(is_managed);
        }
        after.0.retain(|_, set| !set.is_empty());
        (new, after, conflicts)
    }
}
