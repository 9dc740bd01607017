//! Deployments: roll a template out over ReplicaSets.
//!
//! Start from [`run`]. [`revision`] finds or makes the ReplicaSet of the current template, [`rolling`]
//! decides by pure functions how large each ReplicaSet is to be, [`status`] tells how far it is.
//! Pods are the ReplicaSet controller's work.

mod revision;
mod rolling;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};

use self::rolling::{Plan, Rollout};
use super::informer::Informers;
use super::owner::{self, Owner};
use super::pods;
use super::world::{Cache, Controller, Next, Steps, World, drive};
use crate::event::{Recorder, Type};

/// Runs the controller.
pub(super) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = Deployments {
        deployments: world.watch(),
        sets: world.watch(),
        pods: world.watch(),
        events: Recorder::new(client.clone(), "deployment-controller"),
        client,
    };
    drive(world, controller).await;
}

struct Deployments {
    client: Client,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    /// Only for Recreate, which waits until the old ones are gone.
    pods: Cache<Pod>,
    events: Recorder,
}

/// A Deployment, and its ReplicaSets as they are now.
struct Family {
    deployment: Arc<Deployment>,
    /// The ReplicaSet of the current template.
    new: Option<Arc<ReplicaSet>>,
    /// The others, the oldest first.
    old: Vec<Arc<ReplicaSet>>,
}

impl Family {
    fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    fn wanted(&self) -> i32 {
        rolling::wanted(&self.deployment)
    }
}

impl Controller for Deployments {
    async fn reconcile(&mut self, namespace: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        let mut next = Next::Change;
        for deployment in self.deployments.of(namespace) {
            let result = self.reconcile_one(namespace, deployment, &mut steps).await;
            next = next.or(steps.take(result).unwrap_or(Next::Change));
        }
        steps.end(next)
    }
}

impl Deployments {
    async fn reconcile_one(
        &self,
        namespace: &str,
        deployment: Arc<Deployment>,
        steps: &mut Steps,
    ) -> kube::Result<Next> {
        let Some(spec) = deployment.spec.clone() else {
            return Ok(Next::Change);
        };
        let Some(owner) = Owner::new(&*deployment, &spec.selector) else {
            return Ok(Next::Change);
        };
        let sets = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace);
        let found = self.sets.of(namespace);
        let mut sets = owner.claim(&sets, &self.sets, found, steps).await;
        sets.sort_by(|one, two| pods::by_age(&**one, &**two));
        let new = revision::current(&spec.template, &sets);
        let mut family = Family {
            old: sets,
            new: None,
            deployment,
        };
        if let Some(at) = new {
            family.new = Some(family.old.remove(at));
        }
        if owner.deleting {
            return self.report(&family).await;
        }
        let paused = spec.paused == Some(true);
        if family.new.is_some() {
            self.keep_revision(&mut family).await?;
        }
        if paused || rolling::is_scaling(&family) {
            let plan = rolling::scale(&family);
            self.carry_out(&mut family, plan).await?;
            return self.report(&family).await;
        }
        let rollout = rolling::strategy(&family.deployment);
        if matches!(rollout, Rollout::Recreate) {
            let plan = rolling::to_nothing(&family.old);
            if self.carry_out(&mut family, plan).await? || self.old_pods_run(namespace, &family) {
                return self.report(&family).await;
            }
        }
        if family.new.is_none() {
            self.make(namespace, &mut family).await?;
        }
        let up = rolling::grow_new(&family);
        if !self.carry_out(&mut family, up).await? && matches!(rollout, Rollout::Rolling { .. }) {
            let down = rolling::shrink_old(&family);
            self.carry_out(&mut family, down).await?;
        }
        if status::is_complete(&family.deployment, &status::counted(&family)) {
            self.clean_up(namespace, &family, steps).await;
        }
        self.report(&family).await
    }

    /// Whether pods of the old template still run, or are still ending.
    fn old_pods_run(&self, namespace: &str, family: &Family) -> bool {
        let pods = self.pods.of(namespace);
        let running = pods.iter().filter(|pod| !pods::is_terminal(pod));
        let mut old = running.filter(|pod| {
            family
                .old
                .iter()
                .any(|set| owner::controls(&**set, &***pod))
        });
        old.next().is_some()
    }

    /// Scales as planned; whether there was anything to scale.
    async fn carry_out(&self, family: &mut Family, plan: Plan) -> kube::Result<bool> {
        let mut scaled = false;
        for (set, size) in plan {
            let before = rolling::size(&set);
            let mut changed = (*set).clone();
            let limits = rolling::limits(&family.deployment);
            let noted = revision::note_size(&mut changed, family.wanted(), limits);
            if before == size && !noted {
                continue;
            }
            if let Some(spec) = &mut changed.spec {
                spec.replicas = Some(size);
            }
            let namespace = set.namespace().unwrap_or_default();
            let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &namespace);
            let changed = Arc::new(owner::replace(&api, &self.sets, &changed).await?);
            if before != size {
                self.tell(&family.deployment, &set.name_any(), before, size);
                scaled = true;
            }
            let all = family.old.iter_mut().chain(&mut family.new);
            for known in all.filter(|known| known.metadata.uid == changed.metadata.uid) {
                *known = changed.clone();
            }
        }
        Ok(scaled)
    }

    fn tell(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let way = if to > from { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {set} from {from} to {to}");
        self.events
            .record(deployment, Type::Normal, "ScalingReplicaSet", message);
    }

    /// Makes the ReplicaSet of the current template.
    async fn make(&self, namespace: &str, family: &mut Family) -> kube::Result<()> {
        let set = revision::make(family);
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace);
        match owner::create(&api, &self.sets, &set).await {
            Ok(made) => {
                let size = rolling::size(&made);
                if size > 0 {
                    self.tell(&family.deployment, &made.name_any(), 0, size);
                }
                family.new = Some(Arc::new(made));
                self.keep_revision(family).await
            }
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                // Another template has the same hash, or is not in our cache yet: try the next
                // hash, as Kubernetes does.
                let name = set.name_any();
                let taken = api.get(&name).await?;
                if owner::controls(&*family.deployment, &taken)
                    && revision::is_of(&taken, &set.spec.unwrap_or_default().template)
                {
                    self.sets.wrote(taken);
                    return Ok(());
                }
                let mut changed = (*family.deployment).clone();
                let status = changed.status.get_or_insert_default();
                status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                self.write_status(family, changed).await
            }
            Err(error) if owner::is_ending(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Numbers the current ReplicaSet and the Deployment, and hands annotations down.
    async fn keep_revision(&self, family: &mut Family) -> kube::Result<()> {
        let Some(new) = family.new.clone() else {
            return Ok(());
        };
        let namespace = new.namespace().unwrap_or_default();
        let mut changed = (*new).clone();
        revision::annotate(&mut changed, family, true);
        if let (Some(set), Some(deployment)) = (&mut changed.spec, &family.deployment.spec) {
            set.min_ready_seconds = deployment.min_ready_seconds;
        }
        if changed != *new {
            let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &namespace);
            let changed = owner::replace(&api, &self.sets, &changed).await?;
            family.new = Some(Arc::new(changed));
        }
        let number = family
            .new
            .as_ref()
            .map_or(0, |set| revision::number(&**set));
        if number > 0 && revision::number(&*family.deployment) != number {
            let patch = serde_json::json!({"metadata": {
                "annotations": {revision::REVISION: number.to_string()},
                "resourceVersion": family.deployment.resource_version(),
            }});
            let api = Api::<Deployment>::namespaced(self.client.clone(), &namespace);
            let name = family.deployment.name_any();
            let patch = Patch::Merge(patch);
            // By its status: other ways of annotating a Deployment are a new generation of it.
            let patched = api
                .patch_status(&name, &PatchParams::default(), &patch)
                .await?;
            self.deployments.wrote(patched.clone());
            family.deployment = Arc::new(patched);
        }
        Ok(())
    }

    /// Deletes old ReplicaSets beyond `revisionHistoryLimit`.
    async fn clean_up(&self, namespace: &str, family: &Family, steps: &mut Steps) {
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace);
        for set in revision::surplus(family) {
            steps.take(owner::delete(&api, &self.sets, &*set).await);
        }
    }

    /// Writes the status, where it changed.
    async fn report(&self, family: &Family) -> kube::Result<Next> {
        let (status, next) = status::of(family);
        let mut changed = (*family.deployment).clone();
        if changed.status.as_ref() != Some(&status) {
            changed.status = Some(status);
            self.write_status(family, changed).await?;
        }
        Ok(next)
    }

    async fn write_status(&self, family: &Family, changed: Deployment) -> kube::Result<()> {
        let namespace = family.deployment.namespace().unwrap_or_default();
        let api = Api::<Deployment>::namespaced(self.client.clone(), &namespace);
        owner::replace_status(&api, &self.deployments, &changed).await?;
        Ok(())
    }
}
