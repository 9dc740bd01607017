//! The model: the objects, their history, and what the next answer has to be.
//!
//! Written from the API conventions and the documentation of the API concepts, with no code of the
//! server's. Start from [`Model::accept`] and [`Model::deletion`]. The model does not foresee what a
//! server fills in (uids, versions, defaults, addresses): it takes those over and holds the server to them.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::fields::{Managers, Who};
use crate::kinds::{Kind, label};
use crate::op::{At, Select, Version};

/// What differs between servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The minor version that the server answers as.
    pub(crate) minor: u32,
    /// Controllers are at work beside us, so what they act on is left out.
    pub(crate) controllers: bool,
}

/// An object as it was last served.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) value: Value,
    pub(crate) managers: Managers,
    /// A version that it had before.
    pub(crate) stale: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One step in an object's life, its contents without what the model does not foresee.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: At,
    pub(crate) change: Change,
    /// Where an answer told it.
    pub(crate) revision: Option<u64>,
    pub(crate) before: Option<Value>,
    pub(crate) now: Value,
}

pub(crate) struct Model {
    pub(crate) rules: Rules,
    pub(crate) namespace: String,
    pub(crate) objects: BTreeMap<At, Object>,
    pub(crate) history: Vec<Event>,
    /// How much of the history the server was told to forget.
    pub(crate) forgotten: usize,
    newest: u64,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    /// Who holds what, for a server-side apply.
    pub(crate) conflicts: Vec<(String, String)>,
}

impl Refusal {
    pub(crate) const fn new(code: u16, reason: &'static str) -> Self {
        Self {
            code,
            reason,
            conflicts: Vec::new(),
        }
    }

    pub(crate) const fn not_found() -> Self {
        Self::new(404, "NotFound")
    }

    pub(crate) const fn conflict() -> Self {
        Self::new(409, "Conflict")
    }

    pub(crate) const fn invalid() -> Self {
        Self::new(422, "Invalid")
    }
}

/// What a write comes to.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) object: Value,
    pub(crate) managed: Managed,
}

#[derive(Debug, Clone)]
pub(crate) enum Managed {
    /// By a write of this manager.
    By(Who),
    /// By a write that carries no status, which a server before 1.22 takes for one that removes it.
    Bare(Who),
    /// As an apply left it.
    As(Managers),
}

/// An object without what the model does not foresee.
pub(crate) fn plain(object: &Value) -> Value {
    fn without_nulls(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|_, value| !value.is_null());
                map.values_mut().for_each(without_nulls);
            }
            Value::Array(items) => items.iter_mut().for_each(without_nulls),
            _ => {}
        }
    }
    let mut object = object.clone();
    without_nulls(&mut object);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for name in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "managedFields",
            "selfLink",
        ] {
            metadata.remove(name);
        }
        if let Some(time) = metadata.get_mut("deletionTimestamp") {
            *time = true.into();
        }
    }
    object
}

pub(crate) fn revision(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array();
    list.into_iter()
        .flatten()
        .map(|one| one.as_str().unwrap_or_default().to_owned())
        .collect()
}

pub(crate) fn name(number: u8) -> String {
    format!("m{number}")
}

impl Select {
    pub(crate) fn query(self) -> String {
        match self {
            Self::All => String::new(),
            Self::Label(number) => format!("labelSelector=l%3D{}", label(number).unwrap()),
            Self::NotLabel(number) => format!("labelSelector=l%21%3D{}", label(number).unwrap()),
            Self::AnyLabel => "labelSelector=l+in+(x,y)".to_owned(),
            Self::NoLabel => "labelSelector=%21l".to_owned(),
            Self::Name(number) => format!("fieldSelector=metadata.name%3D{}", name(number)),
        }
    }

    pub(crate) fn takes(self, object: &Value) -> bool {
        let found = object["metadata"]["labels"]["l"].as_str();
        match self {
            Self::All => true,
            Self::Label(number) => found == label(number),
            Self::NotLabel(number) => found != label(number),
            Self::AnyLabel => found.is_some(),
            Self::NoLabel => found.is_none(),
            Self::Name(number) => object["metadata"]["name"] == name(number),
        }
    }

    /// What an event is to a watch of this selection.
    pub(crate) fn sees(self, event: &Event) -> Option<(Change, &Value)> {
        let before = event.before.as_ref().filter(|before| self.takes(before));
        let now = event.change != Change::Deleted && self.takes(&event.now);
        match (before, now) {
            (None, false) => None,
            (None, true) => Some((Change::Added, &event.now)),
            (Some(_), true) => Some((Change::Modified, &event.now)),
            (Some(_), false) if event.change == Change::Deleted => {
                Some((Change::Deleted, &event.now))
            }
            (Some(before), false) => Some((Change::Deleted, before)),
        }
    }
}

impl Model {
    pub(crate) fn new(rules: Rules, namespace: String) -> Self {
        Self {
            rules,
            namespace,
            objects: BTreeMap::new(),
            history: Vec::new(),
            forgotten: 0,
            newest: 0,
        }
    }

    pub(crate) fn who(&self, by: u8, apply: bool, subresource: &'static str) -> Who {
        // Entries are told apart by subresource since 1.22.
        let subresource = if self.rules.minor < 22 {
            ""
        } else {
            subresource
        };
        Who {
            name: ["alice", "bob", "carol"][usize::from(by)].to_owned(),
            apply,
            subresource,
        }
    }

    /// The objects of a selection, in the order of lists.
    pub(crate) fn selected(
        &self,
        kind: Kind,
        select: Select,
    ) -> impl Iterator<Item = (At, &Object)> {
        self.objects
            .iter()
            .filter(move |(at, object)| at.kind == kind && select.takes(&object.value))
            .map(|(at, object)| (*at, object))
    }

    /// The version that a write carries, and whether it is the object's.
    pub(crate) fn version(&self, at: At, version: Version) -> (Option<String>, bool) {
        let object = self.objects.get(&at);
        match version {
            Version::None => (None, true),
            Version::Current => (
                object
                    .and_then(|object| revision(&object.value))
                    .map(|one| one.to_string()),
                true,
            ),
            Version::Stale => match object.map(|object| object.stale) {
                Some(Some(stale)) => (Some(stale.to_string()), false),
                Some(None) => (Some("1".to_owned()), false),
                None => (None, true),
            },
        }
    }

    /// Whether a change is one that an object being deleted may still have.
    pub(crate) fn may_become(&self, at: At, new: &Value) -> Result<(), Refusal> {
        let Some(old) = self.objects.get(&at).filter(|old| is_deleting(&old.value)) else {
            return Ok(());
        };
        let known = finalizers(&old.value);
        if finalizers(new).iter().all(|one| known.contains(one)) {
            Ok(())
        } else {
            Err(Refusal::invalid())
        }
    }

    pub(crate) fn has_generation(&self, kind: Kind) -> bool {
        // Pods count theirs since 1.33.
        kind.has_generation() && (kind != Kind::Pod || self.rules.minor >= 33)
    }

    /// What `generation` counts the changes of.
    pub(crate) fn asked_for(kind: Kind, object: &Value) -> Value {
        let object = plain(object);
        let mut asked = object.clone();
        if let Some(map) = asked.as_object_mut() {
            map.retain(|name, _| !matches!(name.as_str(), "metadata" | "status"));
        }
        // A Deployment's annotations are copied to its ReplicaSets.
        if kind == Kind::Deployment {
            asked["annotations"] = object["metadata"]["annotations"].clone();
        }
        asked
    }

    pub(crate) fn advance(&mut self, revision: u64) -> Result<()> {
        ensure!(
            revision > self.newest,
            "resourceVersion {revision} is not after {}",
            self.newest
        );
        self.newest = revision;
        Ok(())
    }

    pub(crate) fn record(
        &mut self,
        at: At,
        change: Change,
        revision: Option<u64>,
        before: Option<Value>,
        now: Value,
    ) {
        self.history.push(Event {
            at,
            change,
            revision,
            before,
            now,
        });
    }

    pub(crate) fn forget(&mut self, at: At, last: Value) {
        self.objects.remove(&at);
        self.record(at, Change::Deleted, None, Some(last.clone()), last);
    }
}
