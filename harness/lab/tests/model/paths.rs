//! Paths of fields, and what changed between two objects, path by path.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::kinds::{Kind, List};

/// `f:spec`, `k:{"name":"one"}`, …
pub(crate) type Path = Vec<String>;
pub(crate) type Set = BTreeSet<Path>;

/// Where a walk is: the path in `FieldsV1`'s words, and in the kind's (`spec.ports.*`).
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) path: Path,
    pub(crate) plain: String,
}

impl Place {
    pub(crate) fn root(kind: Kind) -> Self {
        Self {
            kind,
            path: Vec::new(),
            plain: String::new(),
        }
    }

    pub(crate) fn field(&self, name: &str) -> Self {
        let mut place = self.clone();
        place.path.push(format!("f:{name}"));
        if !place.plain.is_empty() {
            place.plain.push('.');
        }
        place.plain.push_str(name);
        place
    }

    pub(crate) fn item(&self, element: String) -> Self {
        let mut place = self.clone();
        place.path.push(element);
        place.plain.push_str(".*");
        place
    }

    pub(crate) fn list(&self) -> List {
        self.kind.list(&self.plain)
    }

    pub(crate) fn is_atomic(&self) -> bool {
        self.kind.is_atomic(&self.plain)
    }

    /// The elements of a list by which its items are told apart; none if it is one value.
    pub(crate) fn elements(&self, items: &[Value]) -> Option<Vec<String>> {
        match self.list() {
            List::Atomic => None,
            List::Set => Some(items.iter().map(|item| format!("v:{item}")).collect()),
            List::Keyed(keys) => {
                let key = |item: &Value| {
                    let pairs = keys
                        .iter()
                        .map(|key| ((*key).to_owned(), item[*key].clone()));
                    format!("k:{}", Value::Object(pairs.collect::<Map<_, _>>()))
                };
                Some(items.iter().map(key).collect())
            }
        }
    }
}

pub(crate) fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// What changed from one object to another.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) added: Set,
    pub(crate) modified: Set,
    pub(crate) removed: Set,
}

impl Changes {
    pub(crate) fn between(kind: Kind, old: &Value, new: &Value) -> Self {
        let mut changes = Self::default();
        changes.walk(&Place::root(kind), Some(old), Some(new));
        changes
    }

    pub(crate) fn leaf(&mut self, place: &Place, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.added.insert(place.path.clone()),
            (_, None) => self.removed.insert(place.path.clone()),
            (Some(old), Some(new)) => old != new && self.modified.insert(place.path.clone()),
        };
    }

    pub(crate) fn walk(&mut self, place: &Place, old: Option<&Value>, new: Option<&Value>) {
        let sample = [new, old].into_iter().flatten().find(|one| !one.is_null());
        match sample {
            Some(Value::Object(_)) if !place.is_atomic() => {
                if is_empty(old) && is_empty(new) {
                    return self.leaf(place, old, new);
                }
                let maps = [old, new].map(|side| side.and_then(Value::as_object));
                let names: BTreeSet<&String> =
                    maps.iter().flatten().flat_map(|map| map.keys()).collect();
                for name in names {
                    let [before, after] = maps.map(|map| map.and_then(|map| map.get(name)));
                    self.walk(&place.field(name), before, after);
                }
            }
            Some(Value::Array(_)) if place.list() != List::Atomic => {
                if is_empty(old) && is_empty(new) {
                    return self.leaf(place, old, new);
                }
                let sides = [old, new].map(|side| {
                    let items = side
                        .and_then(Value::as_array)
                        .map_or(&[][..], Vec::as_slice);
                    let elements = place.elements(items).unwrap_or_default();
                    elements.into_iter().zip(items).collect::<BTreeMap<_, _>>()
                });
                let elements: BTreeSet<&String> = sides.iter().flat_map(BTreeMap::keys).collect();
                for element in elements {
                    let [before, after] =
                        [0, 1].map(|side: usize| sides[side].get(element).copied());
                    self.walk(&place.item(element.clone()), before, after);
                }
            }
            _ => return self.leaf(place, old, new),
        }
        // What came or went as a whole is a field of its own beside those in it.
        if old.is_none() {
            self.added.insert(place.path.clone());
        }
        if new.is_none() {
            self.removed.insert(place.path.clone());
        }
    }
}
