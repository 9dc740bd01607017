//! Sets of fields, and who manages them (`metadata.managedFields`, `FieldsV1`).
//!
//! Start from [`FieldSet::of`]. A path element is written as in `FieldsV1`: `f:name`, `k:{"key":…}`,
//! `v:"value"`. Rule: a set is compared and stored only through its JSON form, which is the API's.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::registry::Kind;
use super::schema::{Merge, Place, key_of};
use super::write::Part;

/// A set of fields of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// The place itself is in the set.
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

/// The fields of metadata that the system keeps; nobody manages them.
pub(crate) const SYSTEM: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// An object without what nobody manages.
pub(crate) fn managed_part(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|name, _| !SYSTEM.contains(&name.as_str()));
            if metadata.is_empty() {
                map.remove("metadata");
            }
        }
    }
    object
}

impl FieldSet {
    /// The fields that an object sets.
    pub(crate) fn of(value: &Value, place: Place<'_>) -> Self {
        let mut set = Self::default();
        set.add(value, place);
        // An object that sets nothing is no field of itself.
        set.member = false;
        set
    }

    fn add(&mut self, value: &Value, place: Place<'_>) {
        match (value, place.merge(value)) {
            (Value::Object(map), Merge::Fields) => {
                for (name, child) in map {
                    self.children
                        .entry(format!("f:{name}"))
                        .or_default()
                        .add(child, place.field(name));
                }
                // An empty map is a field of its own.
                self.member |= map.is_empty();
            }
            (Value::Array(items), Merge::Keys(keys)) => {
                for item in items {
                    let child = self
                        .children
                        .entry(format!("k:{}", key_of(item, &keys)))
                        .or_default();
                    child.member = true;
                    child.add(item, place.item());
                }
                self.member |= items.is_empty();
            }
            (Value::Array(items), Merge::Set) => {
                for item in items {
                    self.children.entry(format!("v:{item}")).or_default().member = true;
                }
                self.member |= items.is_empty();
            }
            _ => self.member = true,
        }
    }

    /// As [`Self::add`], with the maps and lists themselves: what came or went with all that is in it.
    fn add_whole(&mut self, value: &Value, place: Place<'_>) {
        self.member = true;
        match (value, place.merge(value)) {
            (Value::Object(map), Merge::Fields) => {
                for (name, child) in map {
                    let inner = self.children.entry(format!("f:{name}")).or_default();
                    inner.add_whole(child, place.field(name));
                }
            }
            (Value::Array(items), Merge::Keys(keys)) => {
                for item in items {
                    let element = format!("k:{}", key_of(item, &keys));
                    let inner = self.children.entry(element).or_default();
                    inner.add_whole(item, place.item());
                }
            }
            (Value::Array(items), Merge::Set) => {
                for item in items {
                    self.children.entry(format!("v:{item}")).or_default().member = true;
                }
            }
            _ => {}
        }
    }

    /// The fields that nobody manages.
    pub(crate) fn system() -> Self {
        let member = || Self {
            member: true,
            children: BTreeMap::new(),
        };
        let mut metadata = member();
        metadata.children = SYSTEM
            .iter()
            .map(|name| (format!("f:{name}"), member()))
            .collect();
        Self {
            member: false,
            children: BTreeMap::from([("f:metadata".to_owned(), metadata)]),
        }
    }

    /// Those that a write to a part of an object means; the rest of what it carries is not taken over.
    pub(crate) fn of_part(&self, part: Part, kind: &Kind) -> Self {
        let mut set = self.minus(&Self::system());
        set.children.retain(|name, _| match part {
            Part::Status => {
                name == "f:status" || (kind.annotated_by_status && name == "f:metadata")
            }
            Part::Main | Part::Scale => name != "f:status" || !kind.status,
        });
        set
    }

    /// With every named field that something of the set is in.
    pub(crate) fn with_parents(&self) -> Self {
        let children = self.children.iter().map(|(name, child)| {
            let mut child = child.with_parents();
            child.member |= name.starts_with("f:") && !child.children.is_empty();
            (name.clone(), child)
        });
        Self {
            member: self.member,
            children: children.collect(),
        }
    }

    /// The fields that differ between two objects: those that the second sets, and those that it lost.
    pub(crate) fn changed(old: &Value, new: &Value, place: Place<'_>) -> (Self, Self) {
        let (mut set, mut lost) = (Self::default(), Self::default());
        difference(Some(old), Some(new), place, &mut set, &mut lost);
        (set, lost)
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Those of both.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.member |= other.member;
        for (name, child) in &other.children {
            let merged = union
                .children
                .get(name)
                .map_or_else(|| child.clone(), |mine| mine.union(child));
            union.children.insert(name.clone(), merged);
        }
        union
    }

    /// Those not of the other.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let children = self
            .children
            .iter()
            .map(|(name, child)| match other.children.get(name) {
                Some(theirs) => (name.clone(), child.minus(theirs)),
                None => (name.clone(), child.clone()),
            })
            .filter(|(_, child)| !child.is_empty());
        Self {
            member: self.member && !other.member,
            children: children.collect(),
        }
    }

    /// Those of both at once.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let children = self
            .children
            .iter()
            .filter_map(|(name, child)| {
                Some((name.clone(), child.intersection(other.children.get(name)?)))
            })
            .filter(|(_, child)| !child.is_empty());
        Self {
            member: self.member && other.member,
            children: children.collect(),
        }
    }

    /// Whether anything at or below a path element is in the set.
    pub(crate) fn child(&self, element: &str) -> Option<&Self> {
        self.children.get(element)
    }

    pub(crate) const fn is_member(&self) -> bool {
        self.member
    }

    /// The paths of the set, as conflicts name them: `.spec.replicas`.
    pub(crate) fn paths(&self) -> Vec<String> {
        fn walk(set: &FieldSet, path: &str, paths: &mut Vec<String>) {
            if set.member && set.children.is_empty() {
                paths.push(path.to_owned());
            }
            for (name, child) in &set.children {
                let (kind, rest) = name.split_at(2);
                let step = match kind {
                    "f:" => format!(".{rest}"),
                    "k:" => {
                        let inner = rest.trim_start_matches('{').trim_end_matches('}');
                        let pairs: Vec<String> = inner
                            .split(',')
                            .map(|pair| pair.trim_start_matches('"').replacen("\":", "=", 1))
                            .collect();
                        format!("[{}]", pairs.join(","))
                    }
                    _ => format!("[={rest}]"),
                };
                walk(child, &format!("{path}{step}"), paths);
            }
        }
        let mut paths = Vec::new();
        walk(self, "", &mut paths);
        paths
    }

    /// As `FieldsV1`.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (name, child) in &self.children {
            let mut json = child.to_json();
            if child.member
                && !child.children.is_empty()
                && let Some(map) = json.as_object_mut()
            {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(name.clone(), json);
        }
        Value::Object(map)
    }

    /// From `FieldsV1`; what is not of its form is ignored.
    pub(crate) fn from_json(json: &Value) -> Self {
        let Some(map) = json.as_object() else {
            return Self::default();
        };
        let children: BTreeMap<_, _> = map
            .iter()
            .filter(|(name, _)| name.len() > 2 && name.as_str() != ".")
            .map(|(name, child)| {
                let mut set = Self::from_json(child);
                set.member |= set.children.is_empty() || child.get(".").is_some();
                (name.clone(), set)
            })
            .collect();
        Self {
            member: false,
            children,
        }
    }
}

/// The items of a list by their keys.
fn by_key<'a>(items: &'a [Value], keys: &[String]) -> BTreeMap<String, &'a Value> {
    items
        .iter()
        .map(|item| (key_of(item, keys), item))
        .collect()
}

fn difference(
    old: Option<&Value>,
    new: Option<&Value>,
    place: Place<'_>,
    set: &mut FieldSet,
    lost: &mut FieldSet,
) {
    if old == new {
        return;
    }
    let (Some(old_value), Some(new_value)) = (old, new) else {
        if let Some(value) = new {
            set.add_whole(value, place);
        }
        if let Some(value) = old {
            lost.add_whole(value, place);
        }
        return;
    };
    // Null, where there is or was a map or a list, is one with nothing in it.
    let (empty_map, empty_list) = (Value::Object(Map::new()), Value::Array(Vec::new()));
    let empty = |of: &Value| match of {
        Value::Object(_) => Some(&empty_map),
        Value::Array(_) => Some(&empty_list),
        _ => None,
    };
    let (old_value, new_value) = match (old_value, new_value) {
        (Value::Null, new) => (empty(new).unwrap_or(old_value), new),
        (old, Value::Null) => (old, empty(old).unwrap_or(new_value)),
        both => both,
    };
    let sample = if new_value.as_array().is_some_and(Vec::is_empty) {
        old_value
    } else {
        new_value
    };
    match (old_value, new_value, place.merge(sample)) {
        (Value::Object(before), Value::Object(after), Merge::Fields) => {
            for name in before
                .keys()
                .chain(after.keys().filter(|name| !before.contains_key(*name)))
            {
                let element = format!("f:{name}");
                step(
                    before.get(name),
                    after.get(name),
                    place.field(name),
                    &element,
                    set,
                    lost,
                );
            }
        }
        (Value::Array(before), Value::Array(after), Merge::Keys(keys))
            if before.is_empty() || place.merge(old_value) == Merge::Keys(keys.clone()) =>
        {
            let (before, after) = (by_key(before, &keys), by_key(after, &keys));
            for key in before
                .keys()
                .chain(after.keys().filter(|key| !before.contains_key(*key)))
            {
                let element = format!("k:{key}");
                step(
                    before.get(key).copied(),
                    after.get(key).copied(),
                    place.item(),
                    &element,
                    set,
                    lost,
                );
            }
        }
        (Value::Array(before), Value::Array(after), Merge::Set) => {
            for item in after.iter().filter(|item| !before.contains(item)) {
                set.children.entry(format!("v:{item}")).or_default().member = true;
            }
            for item in before.iter().filter(|item| !after.contains(item)) {
                lost.children.entry(format!("v:{item}")).or_default().member = true;
            }
        }
        _ => set.member = true,
    }
}

fn step(
    old: Option<&Value>,
    new: Option<&Value>,
    place: Place<'_>,
    element: &str,
    set: &mut FieldSet,
    lost: &mut FieldSet,
) {
    let (mut child_set, mut child_lost) = (FieldSet::default(), FieldSet::default());
    difference(old, new, place, &mut child_set, &mut child_lost);
    if !child_set.is_empty() {
        set.children.insert(element.to_owned(), child_set);
    }
    if !child_lost.is_empty() {
        lost.children.insert(element.to_owned(), child_lost);
    }
}
