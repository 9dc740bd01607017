//! What is to be done about each object, given all objects. Pure.
//!
//! Start from [`decide`], which follows Kubernetes' `garbagecollector.go`.
//!
//! | owners | the object |
//! | --- | --- |
//! | at least one stays | stays, without its references to those that do not |
//! | one waits for it, and it has dependents | is deleted in the foreground |
//! | none is there | is deleted, as its own finalizers say, or in the background |

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use kube::api::PropagationPolicy;

use super::Meta;

/// An owner with it waits until what it owns is gone.
const FOREGROUND: &str = "foregroundDeletion";
/// An owner with it lets go of what it owns.
const ORPHAN: &str = "orphan";

/// An object, by its metadata.
pub(super) struct Item {
    /// Group and plural.
    pub(super) kind: (String, String),
    pub(super) object: Arc<Meta>,
}

/// What is to be done about an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Delete(PropagationPolicy),
    /// It keeps these owners only.
    Disown(Vec<OwnerReference>),
    /// It keeps these finalizers only.
    Finish(Vec<String>),
}

impl Item {
    pub(super) const fn new(kind: (String, String), object: Arc<Meta>) -> Self {
        Self { kind, object }
    }

    fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    fn has(&self, finalizer: &str) -> bool {
        self.object.finalizers().iter().any(|one| one == finalizer)
    }

    fn is_ending(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// It is being deleted and waits for its dependents.
    fn is_waiting(&self) -> bool {
        self.is_ending() && self.has(FOREGROUND)
    }

    fn without(&self, finalizer: &str) -> Step {
        let mut left = self.object.finalizers().to_vec();
        left.retain(|one| one != finalizer);
        Step::Finish(left)
    }
}

/// The owners that are not among the objects, once each, with one object that they own.
pub(super) fn unknown_owners(items: &[Item]) -> Vec<(&Item, OwnerReference)> {
    let known: HashSet<&str> = items.iter().map(Item::uid).collect();
    let mut seen = HashSet::new();
    let mut unknown = Vec::new();
    for item in items {
        for owner in item.object.owner_references() {
            if !known.contains(owner.uid.as_str()) && seen.insert(&owner.uid) {
                unknown.push((item, owner.clone()));
            }
        }
    }
    unknown
}

/// Decides about every object; owners that are neither here nor `absent` count as there.
pub(super) fn decide(items: &[Item], absent: impl Fn(&str) -> bool) -> Vec<(&Item, Step)> {
    let by_uid: HashMap<&str, &Item> = items.iter().map(|item| (item.uid(), item)).collect();
    let mut dependents: HashMap<&str, Vec<&Item>> = HashMap::new();
    for item in items {
        for owner in item.object.owner_references() {
            dependents.entry(owner.uid.as_str()).or_default().push(item);
        }
    }
    let owned = |item: &Item| dependents.get(item.uid()).map(Vec::as_slice);
    let mut plan = Vec::new();
    for item in items {
        let theirs = owned(item).unwrap_or_default();
        if item.is_ending() && item.has(ORPHAN) {
            if theirs.is_empty() {
                plan.push((item, item.without(ORPHAN)));
            }
            for one in theirs {
                let mut owners = one.object.owner_references().to_vec();
                owners.retain(|owner| owner.uid != item.uid());
                plan.push((*one, Step::Disown(owners)));
            }
            continue;
        }
        if item.is_waiting() {
            let blocked = theirs.iter().any(|one| {
                let mut owners = one.object.owner_references().iter();
                owners.any(|owner| {
                    owner.uid == item.uid() && owner.block_owner_deletion == Some(true)
                })
            });
            if !blocked {
                plan.push((item, item.without(FOREGROUND)));
            }
            continue;
        }
        if item.is_ending() {
            continue;
        }
        if let Some(step) = about(item, &by_uid, &absent, !theirs.is_empty()) {
            plan.push((item, step));
        }
    }
    plan
}

fn about(
    item: &Item,
    by_uid: &HashMap<&str, &Item>,
    absent: &impl Fn(&str) -> bool,
    has_dependents: bool,
) -> Option<Step> {
    let owners = item.object.owner_references();
    let mut solid = Vec::new();
    let mut waiting = false;
    for owner in owners {
        match by_uid.get(owner.uid.as_str()) {
            Some(found) if found.is_waiting() => waiting = true,
            // It will be let go of; nothing is to be done before.
            Some(_) => solid.push(owner.clone()),
            None if absent(&owner.uid) => {}
            None => solid.push(owner.clone()),
        }
    }
    if owners.is_empty() || solid.len() == owners.len() {
        return None;
    }
    if !solid.is_empty() {
        return Some(Step::Disown(solid));
    }
    let policy = if item.has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if item.has(FOREGROUND) || (waiting && has_dependents) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Some(Step::Delete(policy))
}
