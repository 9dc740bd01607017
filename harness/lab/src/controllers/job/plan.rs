//! What a Job's status is, and what to do next (Kubernetes' `syncJob` and `manageJob`).
//!
//! Start from [`plan`]. A Job that is to end says so first (`SuccessCriteriaMet`, `FailureTarget`),
//! and has ended (`Complete`, `Failed`) when all its pods have, and are counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::count::{Count, count, index_of, is_indexed, is_tracked};
use super::{Next, Type, pods};

/// How long the first failure delays the next pod; each in a row doubles it.
const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(600);

/// What to do with a Job.
pub(super) struct Plan {
    /// The status to write before anything else.
    pub(super) status: JobStatus,
    /// What to tell once the status is written.
    pub(super) events: Vec<(Type, &'static str, String)>,
    /// Pods to let go of.
    pub(super) release: Vec<Arc<Pod>>,
    /// Pods to delete, after that.
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods to make, each with its index where pods have one.
    pub(super) create: Vec<Option<u32>>,
    /// Whether the Job itself is to be deleted.
    pub(super) remove: bool,
    pub(super) next: Next,
}

fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut all = status.conditions.iter().flatten();
    all.find(|one| one.type_ == kind && one.status == "True")
}

/// Sets a condition; whether that changed it.
fn set(
    status: &mut JobStatus,
    kind: &str,
    state: &str,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter_mut().find(|one| one.type_ == kind);
    let fresh = JobCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match known {
        Some(known) if known.status == state => false,
        Some(known) => {
            *known = fresh;
            true
        }
        None if state == "False" => false,
        None => {
            conditions.push(fresh);
            true
        }
    }
}

/// The time from now until some seconds after a moment; none when they are over.
fn left(since: Timestamp, wait: Duration, now: Timestamp) -> Option<Duration> {
    let passed = now.duration_since(since);
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    let left = Duration::try_from(wait.saturating_sub(passed)).unwrap_or_default();
    Some(left).filter(|left| !left.is_zero())
}

fn seconds(count: impl TryInto<u64>) -> Duration {
    Duration::from_secs(count.try_into().unwrap_or(0))
}

/// What to do with a Job, its pods being as they are.
pub(super) fn plan(job: &Job, owned: &[Arc<Pod>], now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let mut plan = Plan {
        status: job.status.clone().unwrap_or_default(),
        events: Vec::new(),
        release: Vec::new(),
        delete: Vec::new(),
        create: Vec::new(),
        remove: false,
        next: Next::Change,
    };
    let ended = condition(&plan.status, "Complete").or(condition(&plan.status, "Failed"));
    if let Some(ended) = ended {
        plan.release.extend(tracked(owned));
        let at = ended.last_transition_time.as_ref().map(|time| time.0);
        if let (Some(ttl), Some(at)) = (spec.ttl_seconds_after_finished, at) {
            match left(at, seconds(ttl), now) {
                Some(left) => plan.next = Next::After(left),
                None => plan.remove = job.metadata.deletion_timestamp.is_none(),
            }
        }
        return plan;
    }
    if job.metadata.deletion_timestamp.is_some() {
        plan.release.extend(tracked(owned));
        return plan;
    }
    let suspended = spec.suspend == Some(true);
    if plan.status.start_time.is_none() {
        ignored(&spec, &mut plan);
        if !suspended {
            plan.status.start_time = Some(Time(now));
        }
    }
    let failing = condition(&plan.status, "FailureTarget").is_some();
    // With this policy a pod has failed only when it has ended.
    let patient = spec.pod_replacement_policy.as_deref() == Some("Failed");
    let count = count(job, owned, failing || !patient, &mut plan.status);
    let active: Vec<Arc<Pod>> = owned
        .iter()
        .filter(|pod| pods::is_active(pod))
        .cloned()
        .collect();
    let ending = owned
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some() && !pods::is_terminal(pod));
    let ending = ending.count();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    plan.status.active = Some(number(active.len())).filter(|count| *count > 0);
    plan.status.ready = Some(number(
        active.iter().filter(|pod| pods::is_ready(pod)).count(),
    ));
    plan.status.terminating = Some(number(ending));
    plan.release.clone_from(&count.release);
    if !failing
        && let Some((reason, message)) =
            failure(&spec, &plan.status, &count, owned, now, &mut plan.next)
    {
        set(
            &mut plan.status,
            "FailureTarget",
            "True",
            (reason, message),
            now,
        );
    }
    if condition(&plan.status, "FailureTarget").is_some() {
        plan.delete = active.clone();
    } else if condition(&plan.status, "SuccessCriteriaMet").is_none() {
        if suspended {
            suspend(&mut plan, &active, now);
        } else {
            resume(&mut plan, now);
            manage(job, &spec, &count, (&active, ending), owned, now, &mut plan);
            let enough = match spec.completions {
                Some(completions) => count.succeeded >= completions,
                None => count.succeeded > 0,
            };
            if enough && active.is_empty() {
                let why = (
                    "CompletionsReached",
                    "Reached expected number of succeeded pods",
                );
                set(&mut plan.status, "SuccessCriteriaMet", "True", why, now);
            }
        }
    }
    if active.is_empty() && ending == 0 && !count.pending {
        end(&mut plan, now);
    }
    plan
}

/// Tells what of a Job the lab does not heed.
fn ignored(spec: &JobSpec, plan: &mut Plan) {
    let table = [
        ("podFailurePolicy", spec.pod_failure_policy.is_some()),
        ("successPolicy", spec.success_policy.is_some()),
        (
            "backoffLimitPerIndex",
            spec.backoff_limit_per_index.is_some(),
        ),
    ];
    for (field, _) in table.iter().filter(|(_, given)| *given) {
        let message = format!("the lab does not heed spec.{field}; the Job runs as without it");
        plan.events.push((Type::Warning, "FieldIgnored", message));
    }
}

/// Why a Job has failed, if it has; or when it will have taken too long.
fn failure(
    spec: &JobSpec,
    status: &JobStatus,
    count: &Count,
    owned: &[Arc<Pod>],
    now: Timestamp,
    next: &mut Next,
) -> Option<(&'static str, &'static str)> {
    let limit = spec.backoff_limit.unwrap_or(6);
    if count.failed > limit || restarted_too_often(spec, limit, owned) {
        return Some((
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        ));
    }
    let start = status.start_time.as_ref()?.0;
    let deadline = spec.active_deadline_seconds?;
    if spec.suspend == Some(true) {
        return None;
    }
    match left(start, seconds(deadline), now) {
        Some(left) => {
            *next = next.or(Next::After(left));
            None
        }
        None => Some((
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        )),
    }
}

/// Where containers are restarted in their pods, their restarts count instead of failed pods.
fn restarted_too_often(spec: &JobSpec, limit: i32, owned: &[Arc<Pod>]) -> bool {
    let template = spec.template.spec.as_ref();
    if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let statuses = owned
        .iter()
        .filter(|pod| !pods::is_terminal(pod))
        .filter_map(|pod| pod.status.as_ref())
        .flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        });
    let restarts: i32 = statuses.map(|one| one.restart_count).sum();
    restarts > 0 && restarts >= limit
}

fn suspend(plan: &mut Plan, active: &[Arc<Pod>], now: Timestamp) {
    withdraw(plan, active);
    let why = ("JobSuspended", "Job suspended");
    if set(&mut plan.status, "Suspended", "True", why, now) {
        plan.events
            .push((Type::Normal, "Suspended", why.1.to_owned()));
    }
}

fn resume(plan: &mut Plan, now: Timestamp) {
    let why = ("JobResumed", "Job resumed");
    if set(&mut plan.status, "Suspended", "False", why, now) {
        plan.status.start_time = Some(Time(now));
        plan.events
            .push((Type::Normal, "Resumed", why.1.to_owned()));
    }
}

/// Those that are not yet counted.
fn tracked(pods: &[Arc<Pod>]) -> impl Iterator<Item = Arc<Pod>> {
    pods.iter().filter(|pod| is_tracked(pod)).cloned()
}

/// Deletes pods that are not to count as failed: they are let go of before.
fn withdraw(plan: &mut Plan, pods: &[Arc<Pod>]) {
    plan.release.extend(tracked(pods));
    plan.delete.extend(pods.iter().cloned());
}

/// Makes pods, or deletes those that are too many.
fn manage(
    job: &Job,
    spec: &JobSpec,
    count: &Count,
    (active, ending): (&[Arc<Pod>], usize),
    owned: &[Arc<Pod>],
    now: Timestamp,
    plan: &mut Plan,
) {
    let size = |count: i32| usize::try_from(count).unwrap_or(0);
    let parallelism = size(spec.parallelism.unwrap_or(1));
    let wanted = match spec.completions {
        Some(completions) => parallelism.min(size(completions.saturating_sub(count.succeeded))),
        // Once one has succeeded, the others may end, and no more are made.
        None if count.succeeded > 0 => active.len(),
        None => parallelism,
    };
    if active.len() > wanted {
        let mut surplus = active.to_vec();
        pods::by_deletion_order(&mut surplus);
        surplus.truncate(active.len() - wanted);
        withdraw(plan, &surplus);
        return;
    }
    let patient = spec.pod_replacement_policy.as_deref() == Some("Failed");
    let missing = (wanted - active.len()).saturating_sub(if patient { ending } else { 0 });
    if missing == 0 {
        return;
    }
    if let Some(left) = back_off(owned, now) {
        plan.next = plan.next.or(Next::After(left));
        return;
    }
    if is_indexed(job) {
        let taken: BTreeSet<u32> = active.iter().filter_map(|pod| index_of(pod)).collect();
        let all = 0..u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
        let free = all.filter(|index| !taken.contains(index) && !count.indexes.contains(index));
        plan.create.extend(free.take(missing).map(Some));
    } else {
        plan.create.resize(missing, None);
    }
}

/// How long the pods that failed since one succeeded delay the next.
fn back_off(owned: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let times = |phase: &str| {
        let pods = owned.iter().filter(|pod| pods::phase(pod) == phase);
        let times = pods.map(|pod| ended_at(pod).unwrap_or(now));
        times.collect::<Vec<_>>()
    };
    let success = times("Succeeded").into_iter().max();
    let mut failures = times("Failed");
    failures.retain(|at| success.is_none_or(|success| *at > success));
    let last = *failures.iter().max()?;
    let doubled = u32::try_from(failures.len() - 1)
        .unwrap_or(u32::MAX)
        .min(16);
    let pause = FIRST_BACK_OFF.saturating_mul(1 << doubled);
    left(last, pause.min(LONGEST_BACK_OFF), now)
}

/// When a pod ended, as its containers say.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let ended = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|one| {
            let ended = one.state.as_ref()?.terminated.as_ref()?;
            ended.finished_at.as_ref().map(|time| time.0)
        });
    let ready = pods::condition(pod, "Ready").filter(|one| one.status == "False");
    let ready = ready.and_then(|one| one.last_transition_time.as_ref());
    let made = pod.metadata.creation_timestamp.as_ref();
    ended.max().or(ready.or(made).map(|time| time.0))
}

/// Ends a Job that was to end, now that nothing of it runs.
fn end(plan: &mut Plan, now: Timestamp) {
    let why = |one: &JobCondition| {
        (
            one.reason.clone().unwrap_or_default(),
            one.message.clone().unwrap_or_default(),
        )
    };
    if let Some((reason, message)) = condition(&plan.status, "FailureTarget").map(why) {
        set(&mut plan.status, "Failed", "True", (&reason, &message), now);
        let reason = match reason.as_str() {
            "DeadlineExceeded" => "DeadlineExceeded",
            _ => "BackoffLimitExceeded",
        };
        plan.events.push((Type::Warning, reason, message));
    } else if let Some((reason, message)) = condition(&plan.status, "SuccessCriteriaMet").map(why) {
        set(
            &mut plan.status,
            "Complete",
            "True",
            (&reason, &message),
            now,
        );
        plan.status.completion_time = Some(Time(now));
        plan.events
            .push((Type::Normal, "Completed", "Job completed".to_owned()));
    }
}
