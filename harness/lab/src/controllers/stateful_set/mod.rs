//! StatefulSets: pods with numbers, each with a name and a host name of its own that it keeps.
//!
//! Start from [`run`]. [`plan`] decides which pods to make and to delete, as a pure function;
//! [`revision`] keeps the templates, current and older, as ControllerRevisions. Volumes of
//! `volumeClaimTemplates` are absent: such a StatefulSet gets no pods, and an event that says why.

mod plan;
mod revision;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _};

use self::plan::{Plan, Slots, plan};
use self::revision::Revisions;
use super::informer::Informers;
use super::owner::{self, Owner, forgiving, is_ending};
use super::pods::{self, REVISION_LABEL};
use super::world::{Cache, Controller, Next, Steps, World, drive};
use crate::event::{Recorder, Type};

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// Why a StatefulSet with `volumeClaimTemplates` gets no pods.
const NO_VOLUMES: &str = "spec.volumeClaimTemplates need PersistentVolumes, which the lab does not have; \
     put an emptyDir volume of the same name into the template instead";

/// Runs the controller.
pub(super) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = StatefulSets {
        sets: world.watch(),
        pods: world.watch(),
        revisions: world.watch(),
        events: Recorder::new(client.clone(), "statefulset-controller"),
        client,
    };
    drive(world, controller).await;
}

struct StatefulSets {
    client: Client,
    sets: Cache<StatefulSet>,
    pods: Cache<Pod>,
    revisions: Cache<ControllerRevision>,
    events: Recorder,
}

impl Controller for StatefulSets {
    async fn reconcile(&mut self, namespace: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        let mut next = Next::Change;
        for set in self.sets.of(namespace) {
            next = next.or(self.reconcile_one(namespace, &set, &mut steps).await);
        }
        steps.end(next)
    }
}

impl StatefulSets {
    async fn reconcile_one(&self, namespace: &str, set: &StatefulSet, steps: &mut Steps) -> Next {
        let Some(spec) = &set.spec else {
            return Next::Change;
        };
        let Some(owner) = Owner::new(set, &spec.selector) else {
            return Next::Change;
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let mut found = self.pods.of(namespace);
        found.retain(|pod| plan::ordinal(set, pod).is_some());
        let mut owned = owner.claim(&api, &self.pods, found, steps).await;
        let history = Api::<ControllerRevision>::namespaced(self.client.clone(), namespace);
        let known = self.revisions.of(namespace);
        let known = owner.claim(&history, &self.revisions, known, steps).await;
        let revisions = match revision::find(set, &known, &history, &self.revisions).await {
            Ok(revisions) => revisions,
            Err(error) => {
                steps.take(forgiving::<()>(error));
                return Next::Change;
            }
        };
        let volumes = spec.volume_claim_templates.iter().flatten().count() > 0;
        if volumes && is_news(set) {
            let message = format!(
                "create Pod {} in StatefulSet {} failed error: {NO_VOLUMES}",
                plan::name(set, 0),
                set.name_any()
            );
            self.events
                .record(set, Type::Warning, "FailedCreate", message);
        }
        if !owner.deleting && !volumes {
            let slots = Slots::new(set, &owned);
            let plan = plan(set, &revisions.update.name_any(), &slots);
            self.carry_out(&api, set, &revisions, plan, &mut owned, steps)
                .await;
        }
        let status = status(set, &revisions, &owned);
        if set.status.as_ref() != Some(&status) {
            let sets = Api::<StatefulSet>::namespaced(self.client.clone(), namespace);
            let mut changed = set.clone();
            changed.status = Some(status);
            steps.take(owner::replace_status(&sets, &self.sets, &changed).await);
        }
        for old in revision::surplus(set, &known, &revisions, &owned) {
            steps.take(owner::delete(&history, &self.revisions, &*old).await);
        }
        pods::next_available(&owned, spec.min_ready_seconds.unwrap_or(0))
    }

    async fn carry_out(
        &self,
        api: &Api<Pod>,
        set: &StatefulSet,
        revisions: &Revisions,
        plan: Plan,
        owned: &mut Vec<Arc<Pod>>,
        steps: &mut Steps,
    ) {
        for pod in plan.delete {
            let deleted = owner::delete(api, &self.pods, &*pod).await;
            self.tell(set, "delete", &pod.name_any(), deleted.as_ref().err());
            if steps.take(deleted).is_some() {
                let left = self
                    .pods
                    .get(&pod.namespace().unwrap_or_default(), &pod.name_any());
                owned.retain(|one| one.uid() != pod.uid());
                owned.extend(left);
            }
        }
        for index in plan.create {
            let made = owner::create(api, &self.pods, &pod_for(set, revisions, index)).await;
            match made {
                Ok(pod) => {
                    self.tell(set, "create", &pod.name_any(), None);
                    owned.push(Arc::new(pod));
                }
                Err(error) => {
                    self.tell(set, "create", &plan::name(set, index), Some(&error));
                    steps.take(forgiving::<()>(error));
                    break;
                }
            }
        }
    }

    /// Records what was done to a pod, in Kubernetes' words.
    fn tell(&self, set: &StatefulSet, verb: &str, pod: &str, error: Option<&kube::Error>) {
        let what = format!("{verb} Pod {pod} in StatefulSet {}", set.name_any());
        let (kind, reason, message) = match (verb, error) {
            // One of the name is there still, or of another: it will be tried again once it is gone.
            (_, Some(kube::Error::Api(status))) if status.code == 409 => return,
            (_, Some(error)) if is_ending(error) => return,
            ("create", None) => (
                Type::Normal,
                "SuccessfulCreate",
                format!("{what} successful"),
            ),
            (_, None) => (
                Type::Normal,
                "SuccessfulDelete",
                format!("{what} successful"),
            ),
            ("create", Some(error)) => (
                Type::Warning,
                "FailedCreate",
                format!("{what} failed error: {error}"),
            ),
            (_, Some(error)) => (
                Type::Warning,
                "FailedDelete",
                format!("{what} failed error: {error}"),
            ),
        };
        self.events.record(set, kind, reason, message);
    }
}

/// Whether this generation of it is seen for the first time.
fn is_news(set: &StatefulSet) -> bool {
    let seen = set
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    seen != set.metadata.generation
}

/// The pod in a place.
fn pod_for(set: &StatefulSet, revisions: &Revisions, index: usize) -> Pod {
    let spec = set.spec.clone().unwrap_or_default();
    let (revision, template) = if plan::keeps_current(set, index) {
        (&revisions.current, revision::template(&revisions.current))
    } else {
        (&revisions.update, spec.template)
    };
    let namespace = set.namespace().unwrap_or_default();
    let mut pod = pods::from_template(&template, owner::controller_ref(set), &namespace);
    let name = plan::name(set, index);
    pod.metadata.name = Some(name.clone());
    let number = plan::first(set).saturating_add(index as u64);
    let labels = pod.labels_mut();
    labels.insert(REVISION_LABEL.to_owned(), revision.name_any());
    labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
    labels.insert(POD_INDEX_LABEL.to_owned(), number.to_string());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name);
    pod_spec.subdomain = spec.service_name.filter(|name| !name.is_empty());
    pod
}

fn status(set: &StatefulSet, revisions: &Revisions, owned: &[Arc<Pod>]) -> StatefulSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let seconds = spec.min_ready_seconds.unwrap_or(0);
    let count = |test: &dyn Fn(&Pod) -> bool| {
        let number = owned.iter().filter(|pod| test(pod)).count();
        i32::try_from(number).unwrap_or(i32::MAX)
    };
    let (current, update) = (revisions.current.name_any(), revisions.update.name_any());
    let of = |name: &str| {
        count(&|pod| {
            pod.metadata.deletion_timestamp.is_none() && plan::revision_of(pod) == Some(name)
        })
    };
    let wanted = spec.replicas.unwrap_or(1);
    let (replicas, ready) = (count(&|_| true), count(&pods::is_ready));
    let (on_current, updated) = (of(&current), of(&update));
    // An update that has reached every pod makes its revision the current one.
    let done = plan::rolls(set) && [replicas, ready, updated] == [wanted; 3];
    let (current, on_current) = if done {
        (update.clone(), updated)
    } else {
        (current, on_current)
    };
    let some = |number: i32| Some(number).filter(|number| *number > 0);
    StatefulSetStatus {
        replicas,
        ready_replicas: some(ready),
        available_replicas: Some(count(&|pod| pods::is_available(pod, seconds))),
        current_replicas: some(on_current),
        updated_replicas: some(updated),
        current_revision: Some(current),
        update_revision: Some(update),
        observed_generation: set.metadata.generation,
        collision_count: Some(0),
        conditions: None,
    }
}
