//! What is to be done about each object, given all objects. Pure.
//!
//! Start from [`Graph::decide`], which follows Kubernetes' `garbagecollector.go`.
//!
//! | owners | the object |
//! | --- | --- |
//! | at least one stays | stays, without its references to those that do not |
//! | one waits for it, and it has dependents | is deleted in the foreground |
//! | none is there | is deleted, as its own finalizers say, or in the background |

use std::collections::HashMap;
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

/// Objects, and who owns whom.
pub(super) struct Graph<'a> {
    items: &'a [Item],
    /// By uid; only owners, of which there are few among many objects.
    owners: HashMap<&'a str, Owner<'a>>,
}

/// Whom objects name as their owner.
#[derive(Default)]
struct Owner<'a> {
    /// None where it is not among the objects.
    item: Option<&'a Item>,
    /// What is owned, and how it says so: at least one.
    dependents: Vec<(&'a Item, &'a OwnerReference)>,
}

impl<'a> Graph<'a> {
    /// That of all objects.
    pub(super) fn of(items: &'a [Item]) -> Self {
        let mut owners: HashMap<&str, Owner> = HashMap::new();
        for item in items {
            for reference in item.object.owner_references() {
                let owner = owners.entry(reference.uid.as_str()).or_default();
                owner.dependents.push((item, reference));
            }
        }
        for item in items {
            if let Some(owner) = owners.get_mut(item.uid()) {
                owner.item = Some(item);
            }
        }
        Self { items, owners }
    }

    /// The owners that are not among the objects, once each, with one object that they own.
    pub(super) fn unknown_owners(&self) -> impl Iterator<Item = (&'a Item, &'a OwnerReference)> {
        let unknown = self.owners.values().filter(|owner| owner.item.is_none());
        unknown.filter_map(|owner| owner.dependents.first().copied())
    }

    /// What an object owns.
    fn owned_by(&self, item: &Item) -> &[(&'a Item, &'a OwnerReference)] {
        let owner = self.owners.get(item.uid());
        owner.map_or(&[], |owner| &owner.dependents)
    }

    /// Decides about every object; owners that are neither here nor `absent` count as there.
    pub(super) fn decide(&self, absent: impl Fn(&str) -> bool) -> Vec<(&'a Item, Step)> {
        let mut plan = Vec::new();
        for item in self.items {
            if item.is_ending() && item.has(ORPHAN) {
                let theirs = self.owned_by(item);
                if theirs.is_empty() {
                    plan.push((item, item.without(ORPHAN)));
                }
                for (one, _) in theirs {
                    let mut owners = one.object.owner_references().to_vec();
                    owners.retain(|owner| owner.uid != item.uid());
                    plan.push((*one, Step::Disown(owners)));
                }
                continue;
            }
            if item.is_waiting() {
                let mut theirs = self.owned_by(item).iter();
                let blocked = theirs.any(|(_, how)| how.block_owner_deletion == Some(true));
                if !blocked {
                    plan.push((item, item.without(FOREGROUND)));
                }
                continue;
            }
            if item.is_ending() {
                continue;
            }
            if let Some(step) = self.about(item, &absent) {
                plan.push((item, step));
            }
        }
        plan
    }

    fn about(&self, item: &Item, absent: &impl Fn(&str) -> bool) -> Option<Step> {
        let owners = item.object.owner_references();
        let mut solid = Vec::new();
        let mut waiting = false;
        for owner in owners {
            let known = self.owners.get(owner.uid.as_str());
            match known.and_then(|known| known.item) {
                Some(found) if found.is_waiting() => waiting = true,
                // It will be let go of; nothing is to be done before.
                Some(_) => solid.push(owner),
                None if absent(&owner.uid) => {}
                None => solid.push(owner),
            }
        }
        if owners.is_empty() || solid.len() == owners.len() {
            return None;
        }
        if !solid.is_empty() {
            return Some(Step::Disown(solid.into_iter().cloned().collect()));
        }
        let policy = if item.has(ORPHAN) {
            PropagationPolicy::Orphan
        } else if item.has(FOREGROUND) || (waiting && !self.owned_by(item).is_empty()) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        Some(Step::Delete(policy))
    }
}
