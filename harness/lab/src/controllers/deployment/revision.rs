//! Which ReplicaSet is of which revision.
//!
//! Start from [`current`] and [`make`]. A revision's number is an annotation on its ReplicaSet; the
//! one of the current template always has the highest, so rolling back makes it count anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::rolling::Limits;
use super::{Family, rolling};
use crate::controllers::owner;
use crate::controllers::pods::template_hash;

/// The label that tells the pods of one template from those of another.
const HASH_LABEL: &str = "pod-template-hash";
/// The number of a revision.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// `spec.replicas` of the Deployment when the ReplicaSet was last scaled.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations that a ReplicaSet does not take over from its Deployment.
const OWN: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// Whether a ReplicaSet is of a template: they are equal but for the hash.
pub(super) fn is_of(set: &ReplicaSet, template: &Option<PodTemplateSpec>) -> bool {
    let found = set.spec.as_ref().and_then(|spec| spec.template.clone());
    plain(found.unwrap_or_default()) == plain(template.clone().unwrap_or_default())
}

fn plain(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().remove(HASH_LABEL);
    metadata.annotations.get_or_insert_default();
    metadata.creation_timestamp = None;
    template
}

/// Where among ReplicaSets, the oldest first, the one of a template is.
pub(super) fn current(template: &PodTemplateSpec, sets: &[Arc<ReplicaSet>]) -> Option<usize> {
    let wanted = plain(template.clone());
    sets.iter().position(|set| {
        let found = set.spec.as_ref().and_then(|spec| spec.template.clone());
        found.is_some_and(|found| plain(found) == wanted)
    })
}

fn number_at<K: kube::Resource>(object: &K, annotation: &str) -> Option<i64> {
    object.annotations().get(annotation)?.parse().ok()
}

/// An object's revision; 0 where it has none.
pub(super) fn number<K: kube::Resource>(object: &K) -> i64 {
    number_at(object, REVISION).unwrap_or(0)
}

/// The Deployment's size when a ReplicaSet was last scaled.
pub(super) fn noted_size(set: &ReplicaSet) -> Option<i32> {
    number_at(set, DESIRED).and_then(|number| number.try_into().ok())
}

/// The most pods the Deployment was allowed then.
pub(super) fn noted_max(set: &ReplicaSet) -> Option<i32> {
    number_at(set, MAX).and_then(|number| number.try_into().ok())
}

/// Notes the Deployment's size on a ReplicaSet; whether that changed it.
pub(super) fn note_size(set: &mut ReplicaSet, wanted: i32, limits: Limits) -> bool {
    let max = wanted + limits.surge;
    let annotations = set.annotations_mut();
    let mut changed = false;
    for (name, value) in [(DESIRED, wanted), (MAX, max)] {
        let value = value.to_string();
        changed |= annotations.insert(name.to_owned(), value.clone()) != Some(value);
    }
    changed
}

/// The ReplicaSet of the current template, as it is to be made.
pub(super) fn make(family: &Family) -> ReplicaSet {
    let deployment = &family.deployment;
    let spec = deployment.spec.clone().unwrap_or_default();
    let status = deployment.status.as_ref();
    let hash = template_hash(
        &spec.template,
        status.and_then(|status| status.collision_count),
    );
    let mut template = spec.template;
    let metadata = template.metadata.get_or_insert_default();
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    let matched = selector.match_labels.get_or_insert_default();
    matched.insert(HASH_LABEL.to_owned(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![owner::controller_ref(&**deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(rolling::first_size(family)),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    annotate(&mut set, family, false);
    note_size(&mut set, family.wanted(), rolling::limits(deployment));
    set
}

/// Gives the current ReplicaSet its number, and the Deployment's annotations.
pub(super) fn annotate(set: &mut ReplicaSet, family: &Family, exists: bool) {
    let inherited = family.deployment.annotations();
    let inherited: BTreeMap<String, String> = inherited
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let newest = family.old.iter().map(|old| number(&**old)).max();
    let next = newest.unwrap_or(0) + 1;
    let had = number(set);
    let annotations = set.annotations_mut();
    annotations.extend(inherited);
    if had < next {
        annotations.insert(REVISION.to_owned(), next.to_string());
        if exists && had > 0 {
            let history = annotations.entry(HISTORY.to_owned()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&had.to_string());
        }
    }
}

/// The old ReplicaSets that are beyond the history's limit, the lowest revisions first.
pub(super) fn surplus(family: &Family) -> Vec<Arc<ReplicaSet>> {
    let spec = family.deployment.spec.as_ref();
    let Some(limit) = spec.and_then(|spec| spec.revision_history_limit) else {
        return Vec::new();
    };
    let mut old: Vec<_> = family.old.clone();
    old.retain(|set| set.metadata.deletion_timestamp.is_none());
    old.sort_by_key(|set| number(&**set));
    let surplus = old.len().saturating_sub(limit.unsigned_abs() as usize);
    old.truncate(surplus);
    old.retain(|set| {
        let status = set.status.clone().unwrap_or_default();
        rolling::size(set) == 0
            && status.replicas == 0
            && status.observed_generation >= set.metadata.generation
    });
    old
}
