//! All controllers together, on an API server of this process and a kubelet that only pretends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::ApiServer;
use crate::watch::{Again, Watch};

/// Only what hangs takes this long.
const HANGS: Duration = Duration::from_secs(30);
/// On a pod: it never becomes ready.
const NEVER_READY: &str = "test/never-ready";

/// A cluster whose pods need no processes. Everything ends when it is dropped.
pub(super) struct Cluster {
    pub(super) client: Client,
    _tasks: JoinSet<()>,
}

impl Cluster {
    /// A cluster with some nodes and all controllers.
    pub(super) async fn with_nodes(nodes: &[&str]) -> Self {
        let server = ApiServer::alone().unwrap();
        let client = server.client("test");
        let mut tasks = JoinSet::new();
        tasks.spawn(pretend(server.client("system:node:any")));
        let of = server.clone();
        tasks.spawn(super::run(
            move |user| of.client(user),
            CancellationToken::new(),
        ));
        let cluster = Self {
            client,
            _tasks: tasks,
        };
        for name in nodes {
            cluster.add_node(name, json!({})).await;
        }
        cluster
    }

    pub(super) async fn add_node(&self, name: &str, spec: Value) {
        let node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        self.create::<Node>(Api::all(self.client.clone()), node)
            .await;
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::default_namespaced(self.client.clone())
    }

    pub(super) async fn create<K>(&self, api: Api<K>, object: Value) -> K
    where
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let object: K = crate::testing::object(object);
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    /// Makes a Deployment of pods `app=NAME`.
    pub(super) async fn deploy(&self, name: &str, spec: Value) -> Deployment {
        let mut deployment = json!({"metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [
                {"name": "c", "image": "i:1", "ports": [{"name": "http", "containerPort": 8080}]},
            ]}},
        }});
        for (field, value) in spec.as_object().unwrap() {
            deployment["spec"][field] = value.clone();
        }
        self.create(self.api::<Deployment>(), deployment).await
    }

    pub(super) async fn merge<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let patch = Patch::Merge(patch);
        let api = self.api::<K>();
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap()
    }

    /// The objects of a kind with a label, once they are as they should be.
    pub(super) async fn until<K>(
        &self,
        api: Api<K>,
        labels: &str,
        what: &str,
        holds: impl Fn(&[K]) -> bool,
    ) -> Vec<K>
    where
        K: Watch<DynamicType = ()>,
    {
        let list = ListParams::default().labels(labels);
        let config = watcher::Config::default().labels(labels);
        let wait = async {
            let mut changes = K::watch(api.clone(), config, Again::default());
            loop {
                let found = api.list(&list).await.unwrap().items;
                if holds(&found) {
                    return found;
                }
                changes.next().await;
            }
        };
        match tokio::time::timeout(HANGS, wait).await {
            Ok(found) => found,
            Err(_) => {
                let found = api.list(&list).await.unwrap().items;
                panic!("{what} never came true; there is {found:#?}")
            }
        }
    }

    pub(super) async fn rolled_out(&self, name: &str) -> Deployment {
        let labels = "";
        let done = |found: &[Deployment]| {
            found.iter().any(|deployment| {
                let status = deployment.status.clone().unwrap_or_default();
                let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
                deployment.name_any() == name
                    && status.observed_generation == deployment.metadata.generation
                    && status.updated_replicas == wanted
                    && status.available_replicas == wanted
                    && status.replicas == wanted
            })
        };
        let found = self.until(self.api(), labels, "the rollout", done).await;
        found
            .into_iter()
            .find(|deployment| deployment.name_any() == name)
            .unwrap()
    }
}

/// What a kubelet would tell of each pod, without running any.
async fn pretend(client: Client) {
    static ADDRESS: AtomicU32 = AtomicU32::new(1);
    let all = Api::<Pod>::all(client.clone());
    let mut events = Pod::watch(all, watcher::Config::default(), Again::default());
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else {
            continue;
        };
        let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap());
        let status = pod.status.clone().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api
                .delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
                .await;
        } else if pod.spec.as_ref().unwrap().node_name.is_some() && status.pod_ip.is_none() {
            let number = ADDRESS.fetch_add(1, Ordering::Relaxed);
            let ready = if pod.annotations().contains_key(NEVER_READY) {
                "False"
            } else {
                "True"
            };
            let patch = json!({"status": {
                "phase": "Running", "podIP": format!("10.244.{}.{}", number / 250, number % 250 + 1),
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2025-01-01T00:00:00Z"}],
            }});
            let _ = api
                .patch_status(
                    &pod.name_any(),
                    &PatchParams::default(),
                    &Patch::Strategic(patch),
                )
                .await;
        }
    }
}

#[tokio::test]
async fn a_deployment_comes_up_behind_its_service() {
    let cluster = Cluster::with_nodes(&["a", "b", "c"]).await;
    cluster.deploy("web", json!({"replicas": 3})).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    cluster.create(cluster.api::<Service>(), service).await;
    let deployment = cluster.rolled_out("web").await;
    assert_eq!(
        deployment.annotations()["deployment.kubernetes.io/revision"],
        "1"
    );
    let conditions = deployment.status.unwrap().conditions.unwrap();
    let told: Vec<_> = conditions
        .iter()
        .map(|one| {
            (
                one.type_.as_str(),
                one.status.as_str(),
                one.reason.as_deref().unwrap(),
            )
        })
        .collect();
    assert!(
        told.contains(&("Available", "True", "MinimumReplicasAvailable")),
        "{told:?}"
    );
    let pods = cluster
        .api::<Pod>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    let mut nodes: Vec<_> = pods
        .iter()
        .map(|pod| pod.spec.clone().unwrap().node_name.unwrap())
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["a", "b", "c"], "spread over the nodes");
    let ready = |slices: &[EndpointSlice]| {
        slices
            .iter()
            .map(|slice| slice.endpoints.len())
            .sum::<usize>()
            == 3
            && slices[0].endpoints.iter().all(|one| {
                one.conditions
                    .as_ref()
                    .and_then(|conditions| conditions.ready)
                    == Some(true)
            })
    };
    let slices = cluster
        .until(
            cluster.api::<EndpointSlice>(),
            "kubernetes.io/service-name=web",
            "three ready endpoints",
            ready,
        )
        .await;
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));
    let three = |found: &[Endpoints]| {
        found.iter().any(|one| {
            let subsets = one.subsets.as_deref().unwrap_or_default();
            one.name_any() == "web"
                && subsets.iter().any(|subset| {
                    subset
                        .addresses
                        .as_ref()
                        .is_some_and(|list| list.len() == 3)
                })
        })
    };
    cluster
        .until(cluster.api::<Endpoints>(), "", "legacy Endpoints", three)
        .await;
}

#[tokio::test]
async fn a_new_template_rolls_out_and_back() {
    let cluster = Cluster::with_nodes(&["a", "b"]).await;
    cluster.deploy("web", json!({"replicas": 4})).await;
    cluster.rolled_out("web").await;
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let revision = |deployment: &Deployment| {
        deployment.annotations()["deployment.kubernetes.io/revision"].clone()
    };
    cluster.merge::<Deployment>("web", image("i:2")).await;
    assert_eq!(revision(&cluster.rolled_out("web").await), "2");
    let gone = |pods: &[Pod]| {
        pods.len() == 4
            && pods
                .iter()
                .all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("i:2"))
    };
    cluster
        .until(cluster.api::<Pod>(), "app=web", "only new pods", gone)
        .await;
    cluster.merge::<Deployment>("web", image("i:3")).await;
    assert_eq!(revision(&cluster.rolled_out("web").await), "3");
    cluster.merge::<Deployment>("web", image("i:2")).await;
    assert_eq!(revision(&cluster.rolled_out("web").await), "4");
    let sets = cluster
        .api::<ReplicaSet>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    let mut revisions: Vec<_> = sets
        .iter()
        .map(|set| set.annotations()["deployment.kubernetes.io/revision"].clone())
        .collect();
    revisions.sort();
    assert_eq!(revisions, ["1", "3", "4"], "the second one counts anew");
    cluster
        .merge::<Deployment>("web", json!({"spec": {"replicas": 1}}))
        .await;
    cluster.rolled_out("web").await;
}

#[tokio::test]
async fn recreate_ends_the_old_pods_first() {
    let cluster = Cluster::with_nodes(&["a"]).await;
    cluster
        .deploy(
            "web",
            json!({"replicas": 2, "strategy": {"type": "Recreate"}}),
        )
        .await;
    cluster.rolled_out("web").await;
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    cluster.merge::<Deployment>("web", image).await;
    cluster.rolled_out("web").await;
}

#[tokio::test]
async fn a_daemon_set_runs_on_every_node_that_it_tolerates() {
    let cluster = Cluster::with_nodes(&["a", "b"]).await;
    let taint = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    cluster.add_node("tainted", taint).await;
    let set = |name: &str, tolerations: Value| {
        json!({"metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "tolerations": tolerations, "containers": [{"name": "c", "image": "i:1"}]}},
        }})
    };
    let api = cluster.api::<DaemonSet>();
    cluster.create(api.clone(), set("few", json!([]))).await;
    cluster
        .create(api.clone(), set("all", json!([{"operator": "Exists"}])))
        .await;
    let counts = |name: &'static str, count: i32| {
        move |sets: &[DaemonSet]| {
            sets.iter().any(|set| {
                let status = set.status.clone().unwrap_or_default();
                set.name_any() == name
                    && status.observed_generation == set.metadata.generation
                    && status.desired_number_scheduled == count
                    && status.number_available == Some(count)
                    && status.updated_number_scheduled == Some(count)
            })
        }
    };
    let (few, all) = (counts("few", 2), counts("all", 3));
    cluster.until(api.clone(), "", "two pods", few).await;
    cluster.until(api.clone(), "", "three pods", all).await;
    cluster.add_node("late", json!({})).await;
    cluster
        .until(api.clone(), "", "a pod on the new node", counts("few", 3))
        .await;
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    cluster.merge::<DaemonSet>("few", image).await;
    let (again, three) = (counts("few", 3), 3);
    cluster.until(api, "", "the update", again).await;
    let new = |pods: &[Pod]| {
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone();
        pods.len() == three && pods.iter().all(|pod| image(pod).as_deref() == Some("i:2"))
    };
    cluster
        .until(cluster.api::<Pod>(), "app=few", "only new pods", new)
        .await;
}

#[tokio::test]
async fn namespaces_begin_with_an_account_and_an_authority_and_end_empty() {
    let cluster = Cluster::with_nodes(&["a"]).await;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    cluster
        .create(namespaces.clone(), json!({"metadata": {"name": "n"}}))
        .await;
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client.clone(), "n");
    cluster
        .until(accounts.clone(), "", "an account", |found| found.len() == 1)
        .await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), "n");
    let found = cluster
        .until(maps, "", "an authority", |found| found.len() == 1)
        .await;
    assert!(found[0].data.as_ref().unwrap()["ca.crt"].starts_with("-----BEGIN CERTIFICATE-----"));
    let deployments = Api::<Deployment>::namespaced(cluster.client.clone(), "n");
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    cluster.create(deployments, deployment).await;
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), "n");
    cluster
        .until(pods.clone(), "", "a pod", |found| found.len() == 1)
        .await;
    let secrets = Api::<Secret>::namespaced(cluster.client.clone(), "n");
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    cluster.create(secrets.clone(), held).await;
    namespaces
        .delete("n", &DeleteParams::default())
        .await
        .unwrap();
    let held = |found: &[Namespace]| {
        found.iter().any(|one| {
            let status = one.status.clone().unwrap_or_default();
            status.conditions.is_some_and(|list| {
                list.iter().any(|one| {
                    one.type_ == "NamespaceFinalizersRemaining" && one.message.as_deref() == Some(
                        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
                    )
                })
            })
        })
    };
    cluster
        .until(namespaces.clone(), "", "the finalizer told", held)
        .await;
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    secrets
        .patch("held", &PatchParams::default(), &release)
        .await
        .unwrap();
    let gone = |found: &[Namespace]| !found.iter().any(|one| one.name_any() == "n");
    cluster.until(namespaces, "", "its end", gone).await;
    assert!(
        pods.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_is_told_why_and_bound_when_it_fits() {
    let cluster = Cluster::with_nodes(&["a", "b"]).await;
    let accounts = cluster.api::<ServiceAccount>();
    cluster
        .until(accounts, "", "an account", |found| !found.is_empty())
        .await;
    let taint = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    cluster.add_node("tainted", taint).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c", "image": "i:1"}]}});
    cluster.create(cluster.api::<Pod>(), pod).await;
    let why = "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    let told = |pods: &[Pod]| {
        pods.iter().any(|pod| {
            super::pods::condition(pod, "PodScheduled").is_some_and(|one| {
                one.status == "False"
                    && one.reason.as_deref() == Some("Unschedulable")
                    && one.message.as_deref() == Some(why)
            })
        })
    };
    cluster
        .until(cluster.api::<Pod>(), "", "the reason", told)
        .await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"disk": "ssd"}}}));
    nodes
        .patch("b", &PatchParams::default(), &label)
        .await
        .unwrap();
    let bound = |pods: &[Pod]| {
        pods.iter()
            .any(|pod| super::pods::node_of(pod) == Some("b"))
    };
    cluster
        .until(cluster.api::<Pod>(), "", "its node", bound)
        .await;
    let events = |events: &[Event]| {
        ["FailedScheduling", "Scheduled"].iter().all(|reason| {
            events
                .iter()
                .any(|one| one.reason.as_deref() == Some(reason))
        })
    };
    cluster
        .until(cluster.api::<Event>(), "", "both events", events)
        .await;
}
