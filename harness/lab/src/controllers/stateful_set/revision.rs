//! The templates of a StatefulSet, each a ControllerRevision.
//!
//! Start from [`find`]. Their data is a patch, so that `kubectl rollout undo` can apply it.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::plan::revision_of;
use super::{Cache, owner, pods};

/// The revision that pods were at before an update, and the newest; the same if there is none.
pub(super) struct Revisions {
    pub(super) current: Arc<ControllerRevision>,
    pub(super) update: Arc<ControllerRevision>,
}

/// What to do for the newest template to have the highest revision.
pub(super) enum Step {
    /// It has.
    Keep(Arc<ControllerRevision>),
    /// It is an old one, which gets a new number.
    Raise(ControllerRevision),
    /// It is new.
    Create(ControllerRevision),
}

/// The template of a revision.
pub(super) fn template(revision: &ControllerRevision) -> PodTemplateSpec {
    let data = revision.data.as_ref();
    let template = data.and_then(|data| data.0.pointer("/spec/template"));
    template
        .and_then(|template| serde_json::from_value(template.clone()).ok())
        .unwrap_or_default()
}

fn data(template: &PodTemplateSpec) -> Value {
    // A template that came from JSON can be written as JSON.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// What to do, by the revisions that there are.
pub(super) fn step(set: &StatefulSet, known: &[Arc<ControllerRevision>]) -> Step {
    let spec = set.spec.clone().unwrap_or_default();
    let data = data(&spec.template);
    let last = known.iter().max_by_key(|one| one.revision);
    let next = last.map_or(0, |last| last.revision).saturating_add(1);
    let mut same: Vec<_> = known
        .iter()
        .filter(|one| one.data.as_ref().is_some_and(|found| found.0 == data))
        .collect();
    same.sort_by_key(|one| one.revision);
    match (same.last(), last) {
        (Some(same), Some(last)) if Arc::ptr_eq(same, last) => Step::Keep(last.clone()),
        (Some(same), _) => Step::Raise(ControllerRevision {
            revision: next,
            ..(***same).clone()
        }),
        (None, _) => {
            let hash = pods::template_hash(&spec.template, None);
            let metadata = spec.template.metadata.unwrap_or_default();
            let mut labels = metadata.labels.unwrap_or_default();
            labels.insert("controller.kubernetes.io/hash".to_owned(), hash.clone());
            Step::Create(ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(format!("{}-{hash}", set.name_any())),
                    namespace: set.namespace(),
                    labels: Some(labels),
                    annotations: set.metadata.annotations.clone(),
                    owner_references: Some(vec![owner::controller_ref(set)]),
                    ..ObjectMeta::default()
                },
                data: Some(RawExtension(data)),
                revision: next,
            })
        }
    }
}

/// The revisions of a StatefulSet; makes the newest if need be.
pub(super) async fn find(
    set: &StatefulSet,
    known: &[Arc<ControllerRevision>],
    api: &Api<ControllerRevision>,
    cache: &Cache<ControllerRevision>,
) -> kube::Result<Revisions> {
    let update = match step(set, known) {
        Step::Keep(one) => one,
        Step::Raise(one) => Arc::new(owner::replace(api, cache, &one).await?),
        Step::Create(one) => Arc::new(owner::create(api, cache, &one).await?),
    };
    let status = set.status.as_ref();
    let name = status.and_then(|status| status.current_revision.as_deref());
    let current = known
        .iter()
        .find(|one| one.metadata.name.as_deref() == name);
    let current = current.cloned().unwrap_or_else(|| update.clone());
    Ok(Revisions { current, update })
}

/// The oldest revisions that nothing is of, beyond the limit of the history.
pub(super) fn surplus(
    set: &StatefulSet,
    known: &[Arc<ControllerRevision>],
    live: &Revisions,
    owned: &[Arc<Pod>],
) -> Vec<Arc<ControllerRevision>> {
    let limit = set
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit);
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(usize::MAX);
    let mut old: Vec<_> = known
        .iter()
        .filter(|one| {
            let name = one.name_any();
            name != live.current.name_any()
                && name != live.update.name_any()
                && !owned.iter().any(|pod| revision_of(pod) == Some(&name))
        })
        .cloned()
        .collect();
    old.sort_by_key(|one| one.revision);
    old.truncate(old.len().saturating_sub(limit));
    old
}
