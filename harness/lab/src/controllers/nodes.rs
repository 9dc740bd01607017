//! Nodes: whether their kubelets are still heard of, and what follows for their pods.
//!
//! Start from [`run`]. A kubelet is heard of when its Lease or its Node's status moves; how long ago
//! is measured by our own clock, so a wrong time in an object or a stopped lab kills no node. What
//! is found becomes conditions and taints; pods that do not tolerate those are deleted, and pods of
//! nodes that are no more are removed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::fit::{is_tolerating, taints, tolerations};
use super::informer::Informers;
use super::owner;
use super::pods;
use super::world::{Cache, Controller, Next, Steps, World, drive};
use crate::event::{Recorder, Type};

/// How long a kubelet may be silent (`--node-monitor-grace-period`), and how long a node may be
/// missing before its pods are removed.
const GRACE: Duration = Duration::from_secs(40);
/// What the kubelet reports, and nobody knows once it is silent.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Runs the controller.
pub(super) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = Nodes {
        nodes: world.watch(),
        leases: world.watch_some(
            Api::namespaced(client.clone(), "kube-node-lease"),
            watcher::Config::default(),
        ),
        pods: world.watch(),
        events: Recorder::new(client.clone(), "node-controller"),
        heard: HashMap::new(),
        ready_before: HashSet::new(),
        missing: HashMap::new(),
        client,
    };
    drive(world, controller).await;
}

/// What moves while a kubelet lives.
type Pulse = (Option<Timestamp>, Option<Timestamp>);

struct Nodes {
    client: Client,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    events: Recorder,
    heard: HashMap<String, (Pulse, Instant)>,
    /// Nodes that were ready once: what is not yet has lost nothing.
    ready_before: HashSet<String>,
    /// Nodes that pods name but that are not there, and since when.
    missing: HashMap<String, Instant>,
}

impl Controller for Nodes {
    async fn reconcile(&mut self, _: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        let mut next = Next::Change;
        let nodes = self.nodes.all();
        let there = |name: &String| nodes.iter().any(|node| node.name_any() == *name);
        self.heard.retain(|name, _| there(name));
        self.ready_before.retain(there);
        let pods = self.pods.all();
        for node in &nodes {
            let left = GRACE.saturating_sub(self.silence(node));
            let mut node = node.clone();
            if left.is_zero() {
                if let Some(changed) = steps.take(self.lose(&node).await) {
                    node = changed;
                }
            } else {
                next = next.or(Next::After(left));
            }
            if condition(&node, "Ready").is_some_and(|ready| ready.status == "True") {
                self.ready_before.insert(node.name_any());
            }
            if let Some(changed) = steps.take(self.taint(&node).await) {
                node = changed;
            }
            for pod in pods.iter().filter(|pod| is_on(pod, &node.name_any())) {
                next = next.or(self.look_after(&node, pod, &mut steps).await);
            }
        }
        next = next.or(self.remove_stranded(&nodes, &pods, &mut steps).await);
        steps.end(next)
    }
}

fn is_on(pod: &Pod, node: &str) -> bool {
    pods::node_of(pod) == Some(node)
}

fn condition<'a>(node: &'a Node, name: &str) -> Option<&'a NodeCondition> {
    let status = node.status.as_ref()?;
    status
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_ == name)
}

impl Nodes {
    /// How long a node's kubelet has not been heard of.
    fn silence(&mut self, node: &Node) -> Duration {
        let name = node.name_any();
        let lease = self.leases.get("kube-node-lease", &name);
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        let reported = condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone());
        let pulse = (renewed.map(|time| time.0), reported.map(|time| time.0));
        match self.heard.get(&name) {
            Some((known, since)) if *known == pulse => since.elapsed(),
            _ => {
                self.heard.insert(name, (pulse, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Writes that nothing is known of a node any more.
    async fn lose(&self, node: &Arc<Node>) -> kube::Result<Arc<Node>> {
        let known = condition(node, "Ready");
        if known.is_some_and(|ready| ready.status == "Unknown") {
            return Ok(node.clone());
        }
        let mut changed = (**node).clone();
        let status = changed.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        let now = Time(Timestamp::now());
        for name in REPORTED {
            let before = conditions.iter().find(|one| one.type_ == *name).cloned();
            conditions.retain(|one| one.type_ != *name);
            conditions.push(NodeCondition {
                type_: (*name).to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusUnknown".to_owned()),
                message: Some("Kubelet stopped posting node status.".to_owned()),
                last_heartbeat_time: before.and_then(|before| before.last_heartbeat_time),
                last_transition_time: Some(now.clone()),
            });
        }
        let api = Api::<Node>::all(self.client.clone());
        let written = owner::replace_status(&api, &self.nodes, &changed).await?;
        let message = format!("Node {} status is now: NodeNotReady", node.name_any());
        self.events
            .record(&**node, Type::Normal, "NodeNotReady", message);
        Ok(Arc::new(written))
    }

    /// Keeps the taints that follow from a node's conditions.
    async fn taint(&self, node: &Arc<Node>) -> kube::Result<Arc<Node>> {
        let wanted = wanted_taints(node);
        let Some(list) = joined(taints(node), &wanted, Timestamp::now()) else {
            return Ok(node.clone());
        };
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": node.resource_version()},
            "spec": {"taints": list},
        }));
        let api = Api::<Node>::all(self.client.clone());
        let written = api
            .patch(&node.name_any(), &PatchParams::default(), &patch)
            .await?;
        self.nodes.wrote(written.clone());
        Ok(Arc::new(written))
    }

    /// What a node's state means for a pod on it.
    async fn look_after(&self, node: &Node, pod: &Arc<Pod>, steps: &mut Steps) -> Next {
        let namespace = pod.namespace().unwrap_or_default();
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let lost = condition(node, "Ready").is_some_and(|ready| ready.status != "True")
            && self.ready_before.contains(&node.name_any());
        if lost && pods::is_ready(pod) {
            // Nobody may send it anything, as far as anyone knows.
            let patch = Patch::Strategic(json!({"status": {"conditions": [{
                "type": "Ready", "status": "False", "lastTransitionTime": Timestamp::now(),
            }]}}));
            let name = pod.name_any();
            let written = api
                .patch_status(&name, &PatchParams::default(), &patch)
                .await;
            if let Some(written) = steps.take(written) {
                self.pods.wrote(written);
            }
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return Next::Change;
        }
        let Some(spec) = &pod.spec else {
            return Next::Change;
        };
        match stay(tolerations(spec), taints(node), Timestamp::now()) {
            Stay::ForEver => Next::Change,
            Stay::For(left) => Next::After(left),
            Stay::No => {
                let message = format!("Marking for deletion Pod {namespace}/{}", pod.name_any());
                self.events
                    .record(&**pod, Type::Normal, "TaintManagerEviction", message);
                steps.take(owner::delete(&api, &self.pods, &**pod).await);
                Next::Change
            }
        }
    }

    /// Removes the pods of nodes that have been missing for long.
    async fn remove_stranded(
        &mut self,
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        steps: &mut Steps,
    ) -> Next {
        let stranded: Vec<(&str, &Arc<Pod>)> = pods
            .iter()
            .filter_map(|pod| Some((pods::node_of(pod)?, pod)))
            .filter(|(name, _)| !nodes.iter().any(|node| node.name_any() == *name))
            .collect();
        self.missing
            .retain(|name, _| stranded.iter().any(|(missing, _)| missing == name));
        let mut next = Next::Change;
        for (name, pod) in stranded {
            let since = *self
                .missing
                .entry(name.to_owned())
                .or_insert_with(Instant::now);
            let left = GRACE.saturating_sub(since.elapsed());
            if !left.is_zero() {
                next = next.or(Next::After(left));
                continue;
            }
            let namespace = pod.namespace().unwrap_or_default();
            let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
            let now = DeleteParams::default().grace_period(0);
            if steps
                .take(api.delete(&pod.name_any(), &now).await)
                .is_some()
            {
                self.pods.forgot(&**pod);
            }
        }
        next
    }
}

/// Key and effect of the taints that a node's state asks for.
fn wanted_taints(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let ready = condition(node, "Ready").map(|ready| ready.status.as_str());
    let key = match ready {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        // It is only just registering, or well.
        _ => None,
    };
    if let Some(key) = key {
        wanted.extend([(key, "NoSchedule"), (key, "NoExecute")]);
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

/// The taints with those that are wanted and without those of ours that are not; none where that
/// changes nothing.
fn joined(had: &[Taint], wanted: &[(&str, &str)], now: Timestamp) -> Option<Vec<Taint>> {
    let is =
        |taint: &Taint, (key, effect): &(&str, &str)| taint.key == *key && taint.effect == *effect;
    let ours = |taint: &Taint| [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&&*taint.key);
    let mut list: Vec<Taint> = had
        .iter()
        .filter(|taint| !ours(taint) || wanted.iter().any(|one| is(taint, one)))
        .cloned()
        .collect();
    for one in wanted {
        if !list.iter().any(|taint| is(taint, one)) {
            list.push(Taint {
                key: one.0.to_owned(),
                effect: one.1.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (list != had).then_some(list)
}

/// How long a pod may stay on its node.
#[derive(Debug, PartialEq, Eq)]
enum Stay {
    ForEver,
    For(Duration),
    No,
}

/// How long tolerations let a pod stay in spite of a node's NoExecute taints.
fn stay(tolerations: &[Toleration], taints: &[Taint], now: Timestamp) -> Stay {
    let mut shortest: Option<Duration> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let matching = tolerations.iter().filter(|one| is_tolerating(one, taint));
        let seconds: Vec<Option<i64>> = matching.map(|one| one.toleration_seconds).collect();
        if seconds.is_empty() {
            return Stay::No;
        }
        let Some(seconds) = seconds.into_iter().flatten().min() else {
            continue;
        };
        let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let left = allowed.saturating_sub(passed);
        shortest = Some(shortest.map_or(left, |shortest| shortest.min(left)));
    }
    match shortest {
        None => Stay::ForEver,
        Some(Duration::ZERO) => Stay::No,
        Some(left) => Stay::For(left),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
    use k8s_openapi::jiff::Timestamp;
    use kube::Api;
    use kube::api::{Patch, PatchParams};
    use serde_json::json;

    use super::{Stay, joined, stay};
    use crate::controllers::fit::taints;
    use crate::controllers::pods::is_ready;
    use crate::controllers::tests::Cluster;
    use crate::testing::object;

    #[test]
    fn tolerations_say_how_long_a_pod_may_stay() {
        let now: Timestamp = "2025-01-01T00:01:40Z".parse().unwrap();
        let taint = json!({"key": "k", "effect": "NoExecute", "timeAdded": "2025-01-01T00:00:00Z"});
        let harmless = json!({"key": "k", "effect": "NoSchedule"});
        let for_seconds =
            |seconds: i64| json!({"key": "k", "operator": "Exists", "tolerationSeconds": seconds});
        let table = [
            (json!([]), json!([]), Stay::ForEver),
            (json!([]), json!([harmless]), Stay::ForEver),
            (json!([]), json!([taint]), Stay::No),
            (
                json!([{"key": "k", "operator": "Exists"}]),
                json!([taint]),
                Stay::ForEver,
            ),
            (
                json!([for_seconds(300)]),
                json!([taint]),
                Stay::For(Duration::from_secs(200)),
            ),
            (
                json!([for_seconds(300), for_seconds(150)]),
                json!([taint]),
                Stay::For(Duration::from_secs(50)),
            ),
            (json!([for_seconds(60)]), json!([taint]), Stay::No),
        ];
        for (tolerations, taints, expected) in table {
            let (tolerates, tainted): (Vec<Toleration>, Vec<Taint>) =
                (object(tolerations.clone()), object(taints.clone()));
            assert_eq!(
                stay(&tolerates, &tainted, now),
                expected,
                "{tolerations} {taints}"
            );
        }
    }

    #[test]
    fn taints_of_others_stay() {
        let had: Vec<Taint> = object(json!([
            {"key": "mine", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
        ]));
        let now = Timestamp::UNIX_EPOCH;
        let keys = |wanted: &[(&str, &str)]| {
            joined(&had, wanted, now).map(|list| {
                list.iter()
                    .map(|one| format!("{}:{}", one.key, one.effect))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(keys(&[]), Some(vec!["mine:NoSchedule".to_owned()]));
        assert_eq!(
            keys(&[("node.kubernetes.io/not-ready", "NoSchedule")]),
            None
        );
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_is_tainted_and_its_pods_serve_nobody() {
        let cluster = Cluster::with_nodes(&["a"]).await;
        cluster.deploy("web", json!({"replicas": 1})).await;
        cluster.rolled_out("web").await;
        let nodes = Api::<Node>::all(cluster.client.clone());
        let report = |status: &str| {
            Patch::Strategic(
                json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}),
            )
        };
        let parameters = PatchParams::default();
        nodes
            .patch_status("a", &parameters, &report("False"))
            .await
            .unwrap();
        let tainted = |nodes: &[Node]| taints(&nodes[0]).len() == 2;
        cluster
            .until(nodes.clone(), "", "two taints", tainted)
            .await;
        let unready = |pods: &[Pod]| pods.iter().all(|pod| !is_ready(pod));
        cluster
            .until(cluster.api::<Pod>(), "app=web", "no ready pod", unready)
            .await;
        nodes
            .patch_status("a", &parameters, &report("True"))
            .await
            .unwrap();
        let free = |nodes: &[Node]| taints(&nodes[0]).is_empty();
        cluster.until(nodes, "", "no taint", free).await;
    }
}
