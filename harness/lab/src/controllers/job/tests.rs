//! A Job at a moment, as a value; and Jobs on a cluster whose pods need no processes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::count::{FINALIZER, parse, write};
use super::plan::{Plan, plan};
use crate::controllers::tests::Cluster;
use crate::controllers::world::Next;

const START: &str = "2025-01-01T00:00:00Z";

/// A time, in seconds after the start.
fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = START.parse().unwrap();
    Timestamp::from_second(start.as_second() + seconds).unwrap()
}

fn job(spec: Value) -> Job {
    let mut job = json!({
        "metadata": {"name": "once", "uid": "u"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": []}}},
        "status": {"startTime": START},
    });
    json_patch::merge(&mut job["spec"], &spec);
    crate::testing::object(job)
}

/// `a=Failed@5`: pod `a` failed five seconds after the start. `-` before the phase: it is counted
/// and let go of; `~`: it is being deleted.
fn pods(text: &str) -> Vec<Arc<Pod>> {
    let one = |text: &str| {
        let (name, state) = text.split_once('=').unwrap();
        let (phase, time) = state.split_once('@').unwrap_or((state, "0"));
        let finished = at(time.parse().unwrap()).to_string();
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "finalizers": [FINALIZER]},
            "status": {"phase": phase.trim_start_matches(['-', '~']), "containerStatuses": [{
                "name": "c", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 1, "finishedAt": finished}},
            }]},
        });
        if phase.starts_with('-') {
            pod["metadata"]["finalizers"] = json!([]);
        }
        if phase.starts_with('~') {
            pod["metadata"]["deletionTimestamp"] = START.into();
        }
        crate::testing::shared(pod)
    };
    text.split_whitespace().map(one).collect()
}

/// The conditions that are true, and why.
fn told(plan: &Plan) -> Vec<String> {
    let conditions = plan.status.conditions.iter().flatten();
    conditions
        .filter(|one| one.status == "True")
        .map(|one| {
            let (reason, message) = (one.reason.as_deref(), one.message.as_deref());
            format!("{} {} {}", one.type_, reason.unwrap(), message.unwrap())
        })
        .collect()
}

#[test]
fn as_many_pods_run_as_are_still_needed() {
    let noted = json!({"succeeded": 2});
    let table = [
        (
            json!({"completions": 5, "parallelism": 2}),
            json!({}),
            "",
            2,
            0,
        ),
        (
            json!({"completions": 5, "parallelism": 2}),
            json!({}),
            "a=Running",
            1,
            0,
        ),
        (
            json!({"completions": 3, "parallelism": 2}),
            noted.clone(),
            "",
            1,
            0,
        ),
        (
            json!({"completions": 5, "parallelism": 1}),
            json!({}),
            "a=Running b=Running",
            0,
            1,
        ),
        (json!({"parallelism": 2}), noted, "a=Running", 0, 0),
        (
            json!({"parallelism": 1, "suspend": true}),
            json!({}),
            "a=Running",
            0,
            1,
        ),
        (
            json!({"parallelism": 1, "podReplacementPolicy": "Failed"}),
            json!({}),
            "a=~Running",
            0,
            0,
        ),
        (json!({"parallelism": 1}), json!({}), "a=~Running", 1, 0),
    ];
    for (spec, counts, owned, create, delete) in table {
        let mut one = job(spec.clone());
        let mut status = serde_json::to_value(&one.status).unwrap();
        json_patch::merge(&mut status, &counts);
        one.status = crate::testing::object(status);
        let plan = plan(&one, &pods(owned), at(1));
        let found = (plan.create.len(), plan.delete.len());
        assert_eq!(found, (create, delete), "{spec} {owned}");
    }
}

#[test]
fn a_failure_delays_the_next_pod_twice_as_long_each_time() {
    let one = job(json!({"completions": 1, "parallelism": 1, "backoffLimit": 20}));
    let table = [
        ("a=-Failed@5", 6, Some(9)),
        ("a=-Failed@5", 15, None),
        ("a=-Failed@5 b=-Failed@20", 25, Some(15)),
        ("a=-Failed@1 b=-Failed@2 c=-Failed@3", 3, Some(40)),
        ("a=-Failed@5 b=-Succeeded@6", 6, None),
        (
            "a=-Failed@1 b=-Failed@1 c=-Failed@1 d=-Failed@1 e=-Failed@1 f=-Failed@1 g=-Failed@1 h=-Failed@1",
            1,
            Some(600),
        ),
    ];
    for (owned, now, left) in table {
        let plan = plan(&one, &pods(owned), at(now));
        let expected = left.map_or(Next::Change, |left| Next::After(Duration::from_secs(left)));
        assert_eq!(plan.next, expected, "{owned}");
        assert_eq!(plan.create.len(), usize::from(left.is_none()), "{owned}");
    }
}

#[test]
fn each_ended_pod_is_noted_then_let_go_of_then_counted() {
    let mut one = job(json!({"completions": 3, "parallelism": 1}));
    let noted = plan(&one, &pods("a=Succeeded b=Failed"), at(60));
    let uncounted = noted.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(uncounted.succeeded, Some(vec!["a".to_owned()]));
    assert_eq!(uncounted.failed, Some(vec!["b".to_owned()]));
    assert_eq!((noted.status.succeeded, noted.release.len()), (None, 2));
    one.status = Some(noted.status);
    let again = plan(&one, &pods("a=Succeeded b=-Failed"), at(60)).status;
    assert_eq!((again.succeeded, again.failed), (None, Some(1)));
    // Pods that are gone are counted all the same, once.
    one.status = Some(again);
    let counted = plan(&one, &[], at(60)).status;
    assert_eq!((counted.succeeded, counted.failed), (Some(1), Some(1)));
    one.status = Some(counted.clone());
    assert_eq!(plan(&one, &[], at(60)).status, counted);
}

#[test]
fn a_job_fails_when_it_failed_too_often_or_took_too_long() {
    let limit = "BackoffLimitExceeded Job has reached the specified backoff limit";
    let deadline = "DeadlineExceeded Job was active longer than specified deadline";
    let table = [
        (
            json!({"backoffLimit": 0}),
            "a=Failed b=Running",
            1,
            Some(limit),
        ),
        (json!({"backoffLimit": 1}), "a=Failed b=Running", 1, None),
        (
            json!({"activeDeadlineSeconds": 30}),
            "b=Running",
            30,
            Some(deadline),
        ),
        (json!({"activeDeadlineSeconds": 30}), "b=Running", 29, None),
    ];
    for (spec, owned, now, expected) in table {
        let mut one = job(spec.clone());
        let first = plan(&one, &pods(owned), at(now));
        let target = expected.map(|why| format!("FailureTarget {why}"));
        assert_eq!(told(&first), Vec::from_iter(target.clone()), "{spec}");
        let Some(target) = target else {
            assert!(first.delete.is_empty(), "{spec}");
            continue;
        };
        assert_eq!(first.delete.len(), 1, "{spec}");
        // It has failed when its pods have ended, and all are counted.
        one.status = Some(first.status);
        let ending = plan(&one, &pods("b=~Running"), at(now));
        assert_eq!(told(&ending), std::slice::from_ref(&target), "{spec}");
        one.status = Some(ending.status);
        let last = plan(&one, &[], at(now));
        let failed = format!("Failed {}", expected.unwrap());
        assert_eq!(told(&last), [target, failed], "{spec}");
        assert_eq!(last.events.len(), 1, "{spec}");
    }
}

#[test]
fn restarts_in_a_pod_count_where_it_is_restarted() {
    let on_failure =
        json!({"template": {"spec": {"restartPolicy": "OnFailure"}}, "backoffLimit": 3});
    for (restarts, fails) in [(2, false), (3, true)] {
        let mut pod = (*pods("a=Running")[0]).clone();
        let status = pod.status.as_mut().unwrap();
        status.container_statuses.as_mut().unwrap()[0].restart_count = restarts;
        let plan = plan(&job(on_failure.clone()), &[Arc::new(pod)], at(1));
        assert_eq!(!told(&plan).is_empty(), fails, "{restarts}");
    }
}

#[test]
fn a_finished_job_goes_after_its_time() {
    let mut one = job(json!({"ttlSecondsAfterFinished": 60}));
    let ended = json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": START}]});
    one.status = Some(crate::testing::object(ended));
    let before = plan(&one, &[], at(50));
    assert_eq!(before.next, Next::After(Duration::from_secs(10)));
    assert!(!before.remove);
    assert!(plan(&one, &[], at(60)).remove);
}

#[test]
fn completed_indexes_are_written_as_ranges() {
    for text in ["", "0", "0,1", "0-2,5", "1,3-5,7"] {
        assert_eq!(write(&parse(text, 10)), text);
    }
    assert_eq!(parse("0-4000000000,x,7", 3), BTreeSet::from([0, 1, 2]));
    assert_eq!(parse("0-4000000000", 0), BTreeSet::new());
}

impl Cluster {
    async fn job(&self, spec: Value) {
        let mut object = json!({"metadata": {"name": "once"}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
        json_patch::merge(&mut object["spec"], &spec);
        self.create(self.api::<Job>(), object).await;
    }

    /// Waits for pods that run, and ends them.
    async fn end_pods(&self, count: usize, phase: &str) {
        let running = |pods: &[Pod]| {
            pods.iter()
                .filter(|pod| super::pods::phase(pod) == "Running")
                .count()
                == count
        };
        for pod in self.until(self.api(), "", "running pods", running).await {
            if super::pods::phase(&pod) == "Running" {
                let patch = Patch::Strategic(json!({"status": {"phase": phase}}));
                let pods = self.api::<Pod>();
                let parameters = PatchParams::default();
                pods.patch_status(&pod.name_any(), &parameters, &patch)
                    .await
                    .unwrap();
            }
        }
    }

    async fn ended(&self, condition: &str) -> Job {
        let holds = |jobs: &[Job]| {
            let status = jobs[0].status.clone().unwrap_or_default();
            status
                .conditions
                .iter()
                .flatten()
                .any(|one| one.type_ == condition)
        };
        self.until(self.api(), "", condition, holds).await.remove(0)
    }
}

#[tokio::test]
async fn a_job_is_complete_when_each_index_has_succeeded() {
    let cluster = Cluster::with_nodes(&["a"]).await;
    cluster
        .job(json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed"}))
        .await;
    cluster.end_pods(2, "Succeeded").await;
    cluster.end_pods(1, "Succeeded").await;
    let status = cluster.ended("Complete").await.status.unwrap();
    assert_eq!(status.succeeded, Some(3));
    assert_eq!(status.completed_indexes.as_deref(), Some("0-2"));
    assert!(status.active.is_none() && status.completion_time.is_some());
    let pods = cluster
        .api::<Pod>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    let mut indexes = BTreeSet::new();
    for pod in &pods {
        let index = &pod.labels()["batch.kubernetes.io/job-completion-index"];
        indexes.insert(index.clone());
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.hostname, Some(format!("once-{index}")));
        let env = spec.containers[0].env.as_ref().unwrap();
        assert!(env.iter().any(|one| one.name == "JOB_COMPLETION_INDEX"));
        for label in ["batch.kubernetes.io/job-name", "job-name"] {
            assert_eq!(pod.labels()[label], "once");
        }
        assert!(
            pod.labels()
                .contains_key("batch.kubernetes.io/controller-uid")
        );
    }
    assert_eq!(indexes.len(), 3);
    let events = |events: &[Event]| {
        [
            ("SuccessfulCreate", "Created pod: once-"),
            ("Completed", "Job completed"),
        ]
        .iter()
        .all(|(reason, message)| {
            events.iter().any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().unwrap().starts_with(message)
            })
        })
    };
    cluster.until(cluster.api(), "", "the events", events).await;
}

#[tokio::test]
async fn a_failed_job_ends_its_pods_and_a_deleted_one_lets_go_of_them() {
    let cluster = Cluster::with_nodes(&["a"]).await;
    cluster
        .job(json!({"completions": 2, "parallelism": 1, "backoffLimit": 0}))
        .await;
    cluster.end_pods(1, "Failed").await;
    let status = cluster.ended("Failed").await.status.unwrap();
    assert_eq!((status.failed, status.succeeded), (Some(1), None));
    let jobs = cluster.api::<Job>();
    let background = DeleteParams::background();
    jobs.delete("once", &background).await.unwrap();
    let none = |pods: &[Pod]| pods.is_empty();
    cluster.until(cluster.api(), "", "their end", none).await;
    // Nor does one that goes with its pods running hold them.
    cluster.job(json!({})).await;
    let one = |pods: &[Pod]| pods.len() == 1;
    cluster.until(cluster.api(), "", "a pod", one).await;
    jobs.delete("once", &background).await.unwrap();
    cluster.until(cluster.api(), "", "its end", none).await;
}
