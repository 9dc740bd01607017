//! How far a Deployment's rollout is.
//!
//! Start from [`of`], which follows Kubernetes' `progress.go`; `kubectl rollout status` and
//! `kubectl wait --for=condition=Available` read what it writes.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::{Family, rolling};
use crate::controllers::world::Next;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

fn sum<'a>(sets: impl Iterator<Item = &'a ReplicaSet>, of: fn(&ReplicaSet) -> Option<i32>) -> i32 {
    sets.filter_map(of).sum()
}

/// The counts of a status, without conditions.
pub(super) fn counted(family: &Family) -> DeploymentStatus {
    let sets = || family.all().map(|set| &**set);
    let replicas = |set: &ReplicaSet| set.status.as_ref().map(|status| status.replicas);
    let available = sum(sets(), |set| set.status.as_ref()?.available_replicas);
    let asked: i32 = sets().map(rolling::size).sum();
    let some = |number: i32| Some(number).filter(|number| *number > 0);
    let old = family.deployment.status.as_ref();
    DeploymentStatus {
        observed_generation: family.deployment.metadata.generation,
        replicas: some(sum(sets(), replicas)),
        updated_replicas: some(sum(family.new.iter().map(|set| &**set), replicas)),
        ready_replicas: some(sum(sets(), |set| set.status.as_ref()?.ready_replicas)),
        available_replicas: some(available),
        unavailable_replicas: some(asked - available),
        collision_count: old.and_then(|old| old.collision_count),
        conditions: None,
        terminating_replicas: None,
    }
}

/// Whether all pods that are asked for are of the current template and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(rolling::wanted(deployment)).filter(|wanted| *wanted > 0);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |number: Option<i32>| number.unwrap_or(0);
    let outdated =
        |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

struct Conditions(Vec<DeploymentCondition>);

impl Conditions {
    fn get(&self, name: &str) -> Option<&DeploymentCondition> {
        self.0.iter().find(|one| one.type_ == name)
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|one| one.type_ != name);
    }

    /// Sets a condition; one with the same status and reason stays as it is unless `again`.
    fn set(&mut self, name: &str, status: &str, reason: &str, message: String, again: bool) {
        let now = Some(Time(Timestamp::now()));
        let old = self.get(name).cloned();
        let same = old.as_ref().filter(|old| old.status == status);
        if !again && same.is_some_and(|old| old.reason.as_deref() == Some(reason)) {
            return;
        }
        let since = same.and_then(|old| old.last_transition_time.clone());
        self.remove(name);
        self.0.push(DeploymentCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: now.clone(),
            last_transition_time: since.or(now),
        });
    }
}

/// The status, and when a deadline makes it change by itself.
pub(super) fn of(family: &Family) -> (DeploymentStatus, Next) {
    let deployment = &family.deployment;
    let old = deployment.status.clone().unwrap_or_default();
    let mut new = counted(family);
    let mut conditions = Conditions(old.conditions.clone().unwrap_or_default());
    let least = rolling::wanted(deployment) - rolling::limits(deployment).unavailable;
    if new.available_replicas.unwrap_or(0) >= least {
        let message = "Deployment has minimum availability.".to_owned();
        conditions.set(
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            message,
            false,
        );
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        conditions.set(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            message,
            false,
        );
    }
    let next = progress(family, &old, &new, &mut conditions);
    let failures = family.all().filter_map(|set| {
        let list = set.status.as_ref()?.conditions.as_ref()?;
        list.iter().find(|one| one.type_ == FAILURE)
    });
    match failures.last() {
        Some(failure) => {
            let reason = failure.reason.as_deref().unwrap_or_default();
            let message = failure.message.clone().unwrap_or_default();
            conditions.set(FAILURE, "True", reason, message, false);
        }
        None => conditions.remove(FAILURE),
    }
    new.conditions = Some(conditions.0);
    (new, next)
}

fn progress(
    family: &Family,
    old: &DeploymentStatus,
    new: &DeploymentStatus,
    conditions: &mut Conditions,
) -> Next {
    let deployment = &family.deployment;
    let spec = deployment.spec.clone().unwrap_or_default();
    // Kubernetes takes the greatest number for "no deadline".
    let deadline = spec.progress_deadline_seconds;
    let Some(deadline) = deadline.filter(|seconds| *seconds != i32::MAX) else {
        conditions.remove(PROGRESSING);
        return Next::Change;
    };
    let reason = |conditions: &Conditions| {
        let condition = conditions.get(PROGRESSING);
        condition.and_then(|one| one.reason.clone())
    };
    if spec.paused == Some(true) {
        if reason(conditions).as_deref() != Some(TIMED_OUT) {
            let message = "Deployment is paused".to_owned();
            conditions.set(PROGRESSING, "Unknown", "DeploymentPaused", message, false);
        }
        return Next::Change;
    }
    if reason(conditions).as_deref() == Some("DeploymentPaused") {
        let message = "Deployment is resumed".to_owned();
        conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", message, false);
    }
    let name = match &family.new {
        Some(set) => format!("ReplicaSet {:?}", set.name_any()),
        None => format!("Deployment {:?}", deployment.name_any()),
    };
    let done =
        new.replicas == new.updated_replicas && reason(conditions).as_deref() == Some(COMPLETE);
    if done && family.new.is_some() {
        return Next::Change;
    }
    if is_complete(deployment, new) {
        let message = format!("{name} has successfully progressed.");
        conditions.set(PROGRESSING, "True", COMPLETE, message, false);
        return Next::Change;
    }
    if conditions.get(PROGRESSING).is_none()
        && let Some(set) = &family.new
    {
        let message = format!("Created new replica set {:?}", set.name_any());
        conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", message, false);
    } else if has_progressed(old, new)
        || matches!(
            reason(conditions).as_deref(),
            None | Some(COMPLETE | "DeploymentResumed")
        )
    {
        let message = format!("{name} is progressing.");
        conditions.set(PROGRESSING, "True", "ReplicaSetUpdated", message, true);
    }
    let Some(condition) = conditions.get(PROGRESSING) else {
        return Next::Change;
    };
    if condition.reason.as_deref() == Some(TIMED_OUT) {
        return Next::Change;
    }
    let since = condition.last_update_time.as_ref().map(|time| time.0);
    let waited = since.map(|since| Timestamp::now().duration_since(since));
    let waited = waited.and_then(|waited| Duration::try_from(waited).ok());
    let deadline = Duration::from_secs(deadline.unsigned_abs().into());
    let left = deadline.saturating_sub(waited.unwrap_or_default());
    if left.is_zero() {
        let message = format!("{name} has timed out progressing.");
        conditions.set(PROGRESSING, "False", TIMED_OUT, message, false);
        return Next::Change;
    }
    Next::After(left)
}
