//! Jobs: pods that are to end, as often as is asked for.
//!
//! Start from [`run`]. [`plan`] decides, from a Job, its pods and the time, what its status is and
//! what to do. A pod that has ended carries a finalizer until the status has it ([`count`]), so none
//! is counted twice or lost, whoever deletes it.

mod count;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use self::count::{FINALIZER, INDEX, is_tracked};
use self::plan::{Plan, plan};
use super::informer::Informers;
use super::owner::{self, Owner, forgiving};
use super::pod_control::PodControl;
use super::pods;
use super::world::{Cache, Controller, Next, Steps, World, drive};
use crate::event::{Recorder, Type};

/// Runs the controller.
pub(super) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = Jobs {
        jobs: world.watch(),
        pods: world.watch(),
        events: Recorder::new(client.clone(), "job-controller"),
        client,
    };
    drive(world, controller).await;
}

struct Jobs {
    client: Client,
    jobs: Cache<Job>,
    pods: Cache<Pod>,
    events: Recorder,
}

impl Controller for Jobs {
    async fn reconcile(&mut self, namespace: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        let mut next = Next::Change;
        let jobs = self.jobs.of(namespace);
        for job in &jobs {
            let others = job
                .spec
                .as_ref()
                .and_then(|spec| spec.managed_by.as_deref());
            if others.is_none_or(|name| name == "kubernetes.io/job-controller") {
                next = next.or(self.reconcile_one(namespace, job, &mut steps).await);
            }
        }
        // Nobody else would let go of the pods of a Job that is gone.
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        for pod in self.pods.of(namespace) {
            if is_tracked(&pod) && !jobs.iter().any(|job| owner::controls(&**job, &*pod)) {
                self.release(&api, &pod, &mut steps).await;
            }
        }
        steps.end(next)
    }
}

impl Jobs {
    async fn reconcile_one(&self, namespace: &str, job: &Job, steps: &mut Steps) -> Next {
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let Some(owner) = selector.and_then(|selector| Owner::new(job, selector)) else {
            return Next::Change;
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let found = self.pods.of(namespace);
        let owned = owner.claim(&api, &self.pods, found, steps).await;
        let plan = plan(job, &owned, Timestamp::now());
        let jobs = Api::<Job>::namespaced(self.client.clone(), namespace);
        if plan.remove {
            steps.take(owner::delete(&jobs, &self.jobs, job).await);
            return Next::Change;
        }
        if job.status.as_ref() != Some(&plan.status) {
            let mut changed = job.clone();
            changed.status = Some(plan.status.clone());
            let written = owner::replace_status(&jobs, &self.jobs, &changed).await;
            if steps.take(written).is_none() {
                // What follows relies on the counts: it comes when they are written.
                return Next::Change;
            }
            for (kind, reason, message) in &plan.events {
                self.events.record(job, *kind, reason, message.clone());
            }
        }
        self.carry_out(&api, job, &plan, steps).await;
        plan.next
    }

    async fn carry_out(&self, api: &Api<Pod>, job: &Job, plan: &Plan, steps: &mut Steps) {
        for pod in &plan.release {
            self.release(api, pod, steps).await;
        }
        let control = PodControl {
            api,
            pods: &self.pods,
            events: &self.events,
        };
        for pod in &plan.delete {
            steps.take(control.delete(job, pod).await);
        }
        for index in &plan.create {
            if let Err(error) = control.create(job, &pod_for(job, *index)).await {
                steps.take(forgiving::<()>(error));
                break;
            }
        }
    }

    /// Lets go of a pod.
    async fn release(&self, api: &Api<Pod>, pod: &Arc<Pod>, steps: &mut Steps) {
        let mut rest = pod.finalizers().to_vec();
        rest.retain(|one| one != FINALIZER);
        let patch = Patch::Merge(json!({"metadata": {
            "finalizers": rest, "uid": pod.uid(), "resourceVersion": pod.resource_version(),
        }}));
        let patched = api
            .patch(&pod.name_any(), &PatchParams::default(), &patch)
            .await;
        // One that is being deleted may be gone with this, and only the watch knows.
        if let Some(pod) = steps.take(patched)
            && pod.metadata.deletion_timestamp.is_none()
        {
            self.pods.wrote(pod);
        }
    }
}

/// A pod of a Job, with its index where it has one.
fn pod_for(job: &Job, index: Option<u32>) -> Pod {
    let template = job.spec.clone().unwrap_or_default().template;
    let namespace = job.namespace().unwrap_or_default();
    let mut pod = pods::from_template(&template, owner::controller_ref(job), &namespace);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|one| one == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let name = format!("{}-{index}", job.name_any());
    pod.metadata.generate_name = Some(format!("{name}-"));
    pod.annotations_mut()
        .insert(INDEX.to_owned(), index.to_string());
    pod.labels_mut().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|one| one.name == "JOB_COMPLETION_INDEX") {
            continue;
        }
        env.push(EnvVar {
            name: "JOB_COMPLETION_INDEX".to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: format!("metadata.labels['{INDEX}']"),
                }),
                ..EnvVarSource::default()
            }),
        });
    }
    pod
}
