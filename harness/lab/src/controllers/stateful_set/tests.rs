//! One step at a time as a table, and the whole on a cluster whose pods need no processes.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use super::plan::{Slots, keeps_current, ordinal, plan};
use super::revision::{Step, step};
use crate::controllers::tests::Cluster;
use crate::testing::{object, shared};

fn set(spec: Value) -> StatefulSet {
    let mut set = json!({"metadata": {"name": "web", "uid": "u"}, "spec": {
        "replicas": 3, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }});
    for (field, value) in spec.as_object().unwrap() {
        set["spec"][field] = value.clone();
    }
    object(set)
}

/// `web-0=new` is a pod that serves, of revision `new`; `-` before the revision: it does not serve;
/// `~`: it is being deleted; `!`: it has failed.
fn pod(text: &str) -> Arc<Pod> {
    let (name, state) = text.split_once('=').unwrap();
    let revision = state.trim_start_matches(['-', '~', '!']);
    let mut pod = json!({
        "metadata": {"name": name, "uid": name, "labels": {"controller-revision-hash": revision}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    match &state[..1] {
        "-" => pod["status"]["conditions"][0]["status"] = "False".into(),
        "~" => pod["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z".into(),
        "!" => pod["status"] = json!({"phase": "Failed"}),
        _ => {}
    }
    shared(pod)
}

#[test]
fn each_step_makes_or_deletes_what_is_next() {
    let parallel = json!({"podManagementPolicy": "Parallel"});
    let partition =
        json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
    let on_delete = json!({"updateStrategy": {"type": "OnDelete"}});
    let none = json!({});
    type Case<'a> = (&'a str, &'a Value, &'a str, &'a [usize], &'a [&'a str]);
    let table: &[Case<'_>] = &[
        ("the first", &none, "", &[0], &[]),
        (
            "waits for the first to serve",
            &none,
            "web-0=-new",
            &[],
            &[],
        ),
        ("the next", &none, "web-0=new", &[1], &[]),
        (
            "a gap is filled before what follows",
            &none,
            "web-0=new web-2=new",
            &[1],
            &[],
        ),
        ("all at once", &parallel, "web-1=-new", &[0, 2], &[]),
        (
            "one that failed is replaced",
            &none,
            "web-0=!new",
            &[],
            &["web-0"],
        ),
        ("and waited for", &none, "web-0=~new", &[], &[]),
        (
            "nothing to do",
            &none,
            "web-0=new web-1=new web-2=new",
            &[],
            &[],
        ),
        (
            "the highest goes first",
            &none,
            "web-0=new web-1=new web-2=new web-3=new web-4=new",
            &[],
            &["web-4"],
        ),
        (
            "and is waited for",
            &none,
            "web-0=new web-1=new web-2=new web-3=new web-4=~new",
            &[],
            &[],
        ),
        (
            "nothing goes while one does not serve",
            &none,
            "web-0=-new web-1=new web-2=new web-3=new",
            &[],
            &[],
        ),
        (
            "but the lowest that does not serve may",
            &none,
            "web-0=new web-1=new web-2=new web-3=-new",
            &[],
            &["web-3"],
        ),
        (
            "surplus at once",
            &parallel,
            "web-0=new web-1=-new web-2=new web-3=-new web-4=new",
            &[],
            &["web-4", "web-3"],
        ),
        (
            "an update begins with the highest",
            &none,
            "web-0=old web-1=old web-2=old",
            &[],
            &["web-2"],
        ),
        (
            "goes on when that serves",
            &none,
            "web-0=old web-1=old web-2=new",
            &[],
            &["web-1"],
        ),
        (
            "and not before",
            &parallel,
            "web-0=old web-1=old web-2=-new",
            &[],
            &[],
        ),
        (
            "down to the partition",
            &partition,
            "web-0=old web-1=old web-2=new",
            &[],
            &[],
        ),
        (
            "or not at all",
            &on_delete,
            "web-0=old web-1=old web-2=old",
            &[],
            &[],
        ),
        (
            "scaling down goes before updating",
            &none,
            "web-0=old web-1=old web-2=old web-3=old",
            &[],
            &["web-3"],
        ),
    ];
    for (what, spec, pods, create, delete) in table {
        let set = set((*spec).clone());
        let owned: Vec<_> = pods.split_whitespace().map(pod).collect();
        let plan = plan(&set, "new", &Slots::new(&set, &owned));
        let deleted: Vec<_> = plan.delete.iter().map(|pod| pod.name_any()).collect();
        assert_eq!(plan.create, *create, "{what}");
        assert_eq!(deleted, *delete, "{what}");
    }
}

#[test]
fn only_names_that_it_gives_are_its_pods() {
    let set = set(json!({"ordinals": {"start": 5}}));
    for (name, expected) in [
        ("web-7", Some(7)),
        ("web-07", None),
        ("web", None),
        ("web-a-7", None),
        ("web-+7", None),
    ] {
        assert_eq!(
            ordinal(&set, &pod(&format!("{name}=new"))),
            expected,
            "{name}"
        );
    }
    let first = plan(&set, "new", &Slots::new(&set, &[]));
    assert_eq!(first.create, [0]);
    assert_eq!(super::plan::name(&set, 0), "web-5");
    assert!(!keeps_current(&set, 0));
}

#[test]
fn an_old_template_gets_a_new_number_instead_of_a_new_revision() {
    let of = |image: &str| {
        set(json!({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}))
    };
    let made = |step: Step| match step {
        Step::Keep(one) => ("keep", (*one).clone()),
        Step::Raise(one) => ("raise", one),
        Step::Create(one) => ("create", one),
    };
    let (what, one) = made(step(&of("i:1"), &[]));
    assert_eq!((what, one.revision), ("create", 1));
    let known = [Arc::new(one)];
    let (what, two) = made(step(&of("i:2"), &known));
    assert_eq!((what, two.revision), ("create", 2));
    let known = [known[0].clone(), Arc::new(two)];
    assert_eq!(made(step(&of("i:2"), &known)).0, "keep");
    let (what, again) = made(step(&of("i:1"), &known));
    assert_eq!(
        (what, again.revision, again.name_any()),
        ("raise", 3, known[0].name_any())
    );
}

impl Cluster {
    async fn stateful_set(&self, spec: Value) {
        let set = serde_json::to_value(set(spec)).unwrap();
        let mut set = set;
        set["metadata"] = json!({"name": "web"});
        self.create(self.api::<StatefulSet>(), set).await;
    }

    async fn settled(&self, replicas: i32) -> StatefulSet {
        let holds = |sets: &[StatefulSet]| {
            sets.iter().any(|set| {
                let status = set.status.clone().unwrap_or_default();
                status.observed_generation == set.metadata.generation
                    && status.replicas == replicas
                    && [
                        status.ready_replicas,
                        status.updated_replicas,
                        status.current_replicas,
                    ]
                    .iter()
                    .all(|count| count.unwrap_or(0) == replicas)
                    && status.current_revision == status.update_revision
            })
        };
        let mut found = self.until(self.api(), "", "its pods", holds).await;
        found.remove(0)
    }
}

#[tokio::test]
async fn pods_have_numbers_names_and_host_names_that_they_keep() {
    let cluster = Cluster::with_nodes(&["a", "b"]).await;
    cluster.stateful_set(json!({})).await;
    let set = cluster.settled(3).await;
    let pods = cluster.api::<Pod>();
    let found = pods.list(&ListParams::default()).await.unwrap().items;
    for (number, pod) in found.iter().enumerate() {
        let name = format!("web-{number}");
        assert_eq!(pod.name_any(), name);
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.hostname.as_deref(), Some(name.as_str()));
        assert_eq!(spec.subdomain.as_deref(), Some("web"));
        let labels = pod.labels();
        assert_eq!(labels["statefulset.kubernetes.io/pod-name"], name);
        assert_eq!(labels["apps.kubernetes.io/pod-index"], number.to_string());
        let revision = set.status.as_ref().unwrap().update_revision.as_ref();
        assert_eq!(labels.get("controller-revision-hash"), revision);
    }
    let told = |events: &[Event]| {
        events.iter().any(|event| {
            event.message.as_deref() == Some("create Pod web-2 in StatefulSet web successful")
                && event.reason.as_deref() == Some("SuccessfulCreate")
        })
    };
    cluster.until(cluster.api(), "", "the event", told).await;
    let uid = found[1].uid();
    pods.delete("web-1", &DeleteParams::default())
        .await
        .unwrap();
    let back = |pods: &[Pod]| {
        pods.iter()
            .any(|pod| pod.name_any() == "web-1" && pod.uid() != uid)
    };
    cluster.until(pods, "", "its return", back).await;
    cluster
        .merge::<StatefulSet>("web", json!({"spec": {"replicas": 1}}))
        .await;
    cluster.settled(1).await;
    let pods = cluster.api::<Pod>();
    let left = pods.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(
        left.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(),
        ["web-0"]
    );
}

#[tokio::test]
async fn an_update_is_a_revision_and_stops_at_the_partition() {
    let cluster = Cluster::with_nodes(&["a"]).await;
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    cluster
        .stateful_set(json!({"updateStrategy": strategy}))
        .await;
    let before = cluster.settled(3).await.status.unwrap();
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    cluster.merge::<StatefulSet>("web", image).await;
    let partly = |sets: &[StatefulSet]| {
        let status = sets[0].status.clone().unwrap_or_default();
        status.updated_replicas == Some(1)
            && status.current_replicas == Some(2)
            && status.ready_replicas == Some(3)
            && status.current_revision == before.current_revision
    };
    cluster
        .until(cluster.api(), "", "the third pod", partly)
        .await;
    // A pod below the partition comes back as it was.
    let pods = cluster.api::<Pod>();
    let uid = pods.get("web-0").await.unwrap().uid();
    pods.delete("web-0", &DeleteParams::default())
        .await
        .unwrap();
    let back = |pods: &[Pod]| {
        pods.iter().any(|pod| {
            pod.name_any() == "web-0"
                && pod.uid() != uid
                && pod.labels().get("controller-revision-hash") == before.current_revision.as_ref()
                && pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("i:1")
        })
    };
    cluster.until(pods, "", "its old self", back).await;
    let all = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    cluster.merge::<StatefulSet>("web", all).await;
    let after = cluster.settled(3).await.status.unwrap();
    assert_ne!(after.current_revision, before.current_revision);
    let revisions = cluster.api::<ControllerRevision>();
    let revisions = revisions.list(&ListParams::default()).await.unwrap().items;
    let mut numbers: Vec<_> = revisions.iter().map(|one| one.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn volumes_of_its_own_are_said_to_be_absent() {
    let cluster = Cluster::with_nodes(&["a"]).await;
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    cluster
        .stateful_set(json!({"volumeClaimTemplates": [claim]}))
        .await;
    let told = |events: &[Event]| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some("FailedCreate")
                && event
                    .message
                    .as_deref()
                    .unwrap()
                    .contains("PersistentVolumes, which the lab does not have")
        })
    };
    cluster.until(cluster.api(), "", "the event", told).await;
    let pods = cluster
        .api::<Pod>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert!(pods.items.is_empty());
}
