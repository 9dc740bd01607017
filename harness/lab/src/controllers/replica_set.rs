//! ReplicaSets: as many pods of a template as are asked for.
//!
//! Start from [`run`]. Deployments are another controller's work; this one only counts.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt as _};

use super::informer::Informers;
use super::owner::{self, Owner, forgiving};
use super::pod_control::PodControl;
use super::pods;
use super::world::{Cache, Controller, Next, Steps, World, drive};
use crate::event::Recorder;

/// Runs the controller.
pub(super) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = ReplicaSets {
        sets: world.watch(),
        pods: world.watch(),
        events: Recorder::new(client.clone(), "replicaset-controller"),
        client,
    };
    drive(world, controller).await;
}

struct ReplicaSets {
    client: Client,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    events: Recorder,
}

impl Controller for ReplicaSets {
    async fn reconcile(&mut self, namespace: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        let mut next = Next::Change;
        for set in self.sets.of(namespace) {
            next = next.or(self.reconcile_one(namespace, &set, &mut steps).await);
        }
        steps.end(next)
    }
}

impl ReplicaSets {
    async fn reconcile_one(&self, namespace: &str, set: &ReplicaSet, steps: &mut Steps) -> Next {
        let Some(spec) = &set.spec else {
            return Next::Change;
        };
        let Some(owner) = Owner::new(set, &spec.selector) else {
            return Next::Change;
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let mut found = self.pods.of(namespace);
        found.retain(|pod| pods::is_active(pod));
        let mut active = owner.claim(&api, &self.pods, found, steps).await;
        let control = PodControl {
            api: &api,
            pods: &self.pods,
            events: &self.events,
        };
        let mut failure = None;
        if !owner.deleting {
            let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
            let pod = pod_for(set, namespace);
            for _ in active.len()..wanted {
                match control.create(set, &pod).await {
                    Ok(pod) => active.push(Arc::new(pod)),
                    Err(error) => {
                        failure = Some(("FailedCreate", error.to_string()));
                        steps.take(forgiving::<()>(error));
                        break;
                    }
                }
            }
            if active.len() > wanted {
                pods::by_deletion_order(&mut active);
                let surplus: Vec<Arc<Pod>> = active.drain(..active.len() - wanted).collect();
                for pod in surplus {
                    if let Err(error) = control.delete(set, &pod).await {
                        failure = Some(("FailedDelete", error.to_string()));
                        active.push(pod);
                        steps.take::<()>(Err(error));
                    }
                }
            }
        }
        let status = status(set, &active, failure);
        if set.status.as_ref() != Some(&status) {
            let sets = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace);
            let mut changed = set.clone();
            changed.status = Some(status);
            steps.take(owner::replace_status(&sets, &self.sets, &changed).await);
        }
        pods::next_available(&active, spec.min_ready_seconds.unwrap_or(0))
    }
}

fn pod_for(set: &ReplicaSet, namespace: &str) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let template = template.cloned().unwrap_or_default();
    pods::from_template(&template, owner::controller_ref(set), namespace)
}

fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    failure: Option<(&str, String)>,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let template = spec.template.and_then(|template| template.metadata);
    let labels = template
        .and_then(|metadata| metadata.labels)
        .unwrap_or_default();
    let seconds = spec.min_ready_seconds.unwrap_or(0);
    let count = |test: &dyn Fn(&Pod) -> bool| {
        let number = active.iter().filter(|pod| test(pod)).count();
        i32::try_from(number).unwrap_or(i32::MAX)
    };
    let some = |number: i32| Some(number).filter(|number| *number > 0);
    let labelled = |pod: &Pod| {
        let found = pod.labels();
        labels
            .iter()
            .all(|(key, value)| found.get(key) == Some(value))
    };
    let old = set.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.unwrap_or_default();
    match failure {
        None => conditions.retain(|one| one.type_ != "ReplicaFailure"),
        Some((reason, message)) => {
            let known = conditions
                .iter()
                .any(|one| one.type_ == "ReplicaFailure" && one.reason.as_deref() == Some(reason));
            if !known {
                conditions.retain(|one| one.type_ != "ReplicaFailure");
                conditions.push(ReplicaSetCondition {
                    type_: "ReplicaFailure".to_owned(),
                    status: "True".to_owned(),
                    reason: Some(reason.to_owned()),
                    message: Some(message),
                    last_transition_time: Some(Time(Timestamp::now())),
                });
            }
        }
    }
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&labelled)),
        ready_replicas: some(count(&pods::is_ready)),
        available_replicas: some(count(&|pod| pods::is_available(pod, seconds))),
        observed_generation: set.metadata.generation,
        conditions: Some(conditions).filter(|list| !list.is_empty()),
        terminating_replicas: None,
    }
}
