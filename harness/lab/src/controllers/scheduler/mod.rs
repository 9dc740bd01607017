//! The scheduler: binds each pod to a node that fits it best.
//!
//! Start from [`run`]; [`place`] decides, as a pure function. It looks at everything again whenever
//! anything changes, so a pod that fits nowhere is bound as soon as it fits somewhere.

mod place;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use self::place::{Placed, place};
use super::informer::Informers;
use super::pods;
use super::world::{Cache, Next, Steps, World};
use crate::event::{Recorder, Type};

/// The scheduler that pods name when they name none.
const NAME: &str = "default-scheduler";

/// Runs the scheduler.
pub(super) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let scheduler = Scheduler {
        pods: world.watch(),
        nodes: world.watch(),
        services: world.watch(),
        events: Recorder::new(client.clone(), NAME),
        client,
    };
    world.ready().await;
    loop {
        world.changed().await;
        let result = scheduler.pass().await;
        world.settled("", result);
    }
}

struct Scheduler {
    client: Client,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    services: Cache<Service>,
    events: Recorder,
}

fn is_waiting(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let scheduler = spec.and_then(|spec| spec.scheduler_name.as_deref());
    let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
    pods::node_of(pod).is_none()
        && pods::is_active(pod)
        && scheduler.is_none_or(|scheduler| scheduler == NAME)
        && gates.is_none_or(Vec::is_empty)
}

impl Scheduler {
    async fn pass(&self) -> kube::Result<Next> {
        let mut steps = Steps::default();
        let mut waiting = self.pods.all();
        waiting.retain(|pod| is_waiting(pod));
        waiting.sort_by(|one, two| {
            let priority = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.priority);
            let order = priority(two).cmp(&priority(one));
            order.then_with(|| pods::by_age(&**one, &**two))
        });
        for pod in waiting {
            steps.take(self.schedule(&pod).await);
        }
        steps.end(Next::Change)
    }

    async fn schedule(&self, pod: &Arc<Pod>) -> kube::Result<()> {
        let namespace = pod.namespace().unwrap_or_default();
        let services = self.services.of(&namespace);
        match place(pod, &self.nodes.all(), &self.pods.all(), &services) {
            Placed::On(node) => self.bind(pod, &namespace, node).await,
            Placed::Nowhere(why) => self.refuse(pod, &namespace, why).await,
        }
    }

    async fn bind(&self, pod: &Pod, namespace: &str, node: String) -> kube::Result<()> {
        let name = pod.name_any();
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let parameters = PostParams::default();
        api.create_subresource::<_, Value>("binding", &name, &parameters, &binding)
            .await?;
        let mut bound = pod.clone();
        if let Some(spec) = &mut bound.spec {
            spec.node_name = Some(node.clone());
        }
        self.pods.assume(bound);
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        self.events.record(pod, Type::Normal, "Scheduled", message);
        Ok(())
    }

    async fn refuse(&self, pod: &Pod, namespace: &str, why: String) -> kube::Result<()> {
        let known = pods::condition(pod, "PodScheduled");
        if known.is_some_and(|one| one.status == "False" && one.message.as_deref() == Some(&*why)) {
            return Ok(());
        }
        let since = known.filter(|one| one.status == "False");
        let since = since.and_then(|one| one.last_transition_time.as_ref());
        let since = since.map_or_else(Timestamp::now, |time| time.0);
        let patch = json!({"status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "lastProbeTime": null, "lastTransitionTime": since,
        }]}});
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let patch = Patch::Strategic(patch);
        let patched = api
            .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
            .await?;
        self.pods.wrote(patched);
        self.events
            .record(pod, Type::Warning, "FailedScheduling", why);
        Ok(())
    }
}
