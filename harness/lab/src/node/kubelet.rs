//! One node's kubelet: registers the Node, renews its Lease, and gives each of its pods a worker.
//!
//! Start from [`run`]. What becomes of a pod is its worker's work, in `pod`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::images::{Store, archive_architecture};
use super::objects::Objects;
use super::pod::{self, PodContext};
use super::sandbox::Sandbox;
use super::{HostPids, NodeConfig, Pods};
use crate::api::webhook::Webhooks;
use crate::builtin::{Builtins, Installed};
use crate::event::Recorder;
use crate::net::cni::PodNetwork;
use crate::os::nft::Nft;
use crate::topology::{HOST_PID_ANNOTATION, KUBERNETES_VERSION};
use crate::watch::{Again, Watch as _};

/// How often a Lease is renewed; it is lost after four times that.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Why a node without its CNI plugin is not ready, in the words of a kubelet with containerd.
pub(super) const NO_PLUGIN: &str = "container runtime network not ready: NetworkReady=false \
    reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";
/// How long a pod that was deleted outright has to end.
const FORCED: Duration = Duration::from_secs(2);

/// What a node's workers share.
pub(super) struct NodeContext {
    pub(super) name: String,
    /// One a family.
    pub(super) ips: Vec<IpAddr>,
    pub(super) client: Client,
    /// The client of any user, for tasks of the lab that run as their pod's account.
    pub(super) client_of: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    pub(super) sandbox: Sandbox,
    pub(super) network: Arc<dyn PodNetwork>,
    pub(super) plugin: Installed,
    pub(super) objects: Arc<Objects>,
    pub(super) events: Recorder,
    pub(super) images: Arc<Store>,
    pub(super) builtins: Builtins,
    pub(super) webhooks: Webhooks,
    pub(super) nft: Nft,
    pub(super) host_pids: HostPids,
    pub(super) root: PathBuf,
}

/// Runs the node until cancelled.
pub(super) async fn run(
    node: Arc<NodeContext>,
    config: NodeFacts,
    pods: Pods,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let register = async {
        register(&node, &config).await?;
        anyhow::Ok(())
    };
    register
        .await
        .with_context(|| format!("cannot register node {}", node.name))?;
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        () = heartbeat(&node) => Ok(()),
        () = becomes_ready(&node) => Ok(()),
        () = serve(&node, &pods) => Ok(()),
    }
}

/// What of [`NodeConfig`] only its registration needs.
pub(super) struct NodeFacts {
    pub(super) pod_cidrs: Vec<IpNet>,
    pub(super) labels: Vec<(String, String)>,
    pub(super) control_plane: bool,
}

async fn register(node: &NodeContext, facts: &NodeFacts) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(node.client.clone());
    let architecture = archive_architecture();
    let mut labels = json!({
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture,
    });
    let mut taints = json!([]);
    if facts.control_plane {
        labels["node-role.kubernetes.io/control-plane"] = json!("");
        labels["node.kubernetes.io/exclude-from-external-load-balancers"] = json!("");
        taints = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
    }
    for (key, value) in &facts.labels {
        labels[key] = json!(value);
    }
    let mut annotations = json!({});
    if let Some(pid) = node.host_pids.of(node.sandbox.pid()) {
        annotations[HOST_PID_ANNOTATION] = json!(pid.to_string());
    }
    let object = serde_json::from_value::<Node>(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels, "annotations": annotations},
        "spec": {"podCIDR": facts.pod_cidrs.first(), "podCIDRs": facts.pod_cidrs, "taints": taints},
    }))?;
    match nodes.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            let patch = Patch::Merge(&object);
            nodes
                .patch(&node.name, &PatchParams::default(), &patch)
                .await?;
        }
        Err(error) => return Err(error.into()),
    }
    let status = json!({"status": status(node)});
    nodes
        .patch_status(&node.name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    let leases = Api::<Lease>::namespaced(node.client.clone(), "kube-node-lease");
    let now = MicroTime(Timestamp::now());
    let lease = serde_json::from_value::<Lease>(json!({
        "metadata": {"name": node.name},
        "spec": {"holderIdentity": node.name, "leaseDurationSeconds": 40, "renewTime": now},
    }))?;
    match leases.create(&PostParams::default(), &lease).await {
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        created => created.map(drop).map_err(Into::into),
    }
}

fn status(node: &NodeContext) -> serde_json::Value {
    let now = Timestamp::now();
    let condition = |name: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": name, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = read("/proc/meminfo");
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let memory = memory
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or("1048576");
    let resources = json!({
        "cpu": cpus.to_string(), "memory": format!("{memory}Ki"), "pods": "110",
        "ephemeral-storage": format!("{memory}Ki"), "hugepages-2Mi": "0",
    });
    let os = read("/etc/os-release");
    let os = os
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux");
    let images = node.images.list();
    let images = images
        .iter()
        .map(|(name, image)| json!({"names": [name], "sizeBytes": image.size}));
    let addresses = node.ips.iter().map(|ip| ("InternalIP", ip.to_string()));
    let addresses = addresses.chain([("Hostname", node.name.clone())]);
    let addresses = addresses.map(|(kind, address)| json!({"type": kind, "address": address}));
    json!({
        "addresses": addresses.collect::<Vec<_>>(),
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            match node.plugin.is() {
                true => condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
                false => condition("Ready", "False", "KubeletNotReady", NO_PLUGIN),
            },
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "images": images.collect::<Vec<_>>(),
        "nodeInfo": {
            "architecture": archive_architecture(),
            "bootID": read("/proc/sys/kernel/random/boot_id").trim(),
            "containerRuntimeVersion": concat!("strata-lab://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": read("/proc/sys/kernel/osrelease").trim(),
            "kubeProxyVersion": "",
            "kubeletVersion": KUBERNETES_VERSION,
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": os.trim_matches('"'),
            "systemUUID": "",
        },
    })
}

/// Says that the node is ready once its plugin is there.
async fn becomes_ready(node: &NodeContext) {
    node.plugin.wait().await;
    report(node).await;
    std::future::pending().await
}

/// Writes the node's status as it is.
async fn report(node: &NodeContext) {
    let nodes = Api::<Node>::all(node.client.clone());
    let status = Patch::Merge(json!({"status": status(node)}));
    let reported = nodes
        .patch_status(&node.name, &PatchParams::default(), &status)
        .await;
    if let Err(error) = reported {
        tracing::warn!(%error, node = node.name, "the node's status was not reported");
    }
}

async fn heartbeat(node: &NodeContext) {
    let leases = Api::<Lease>::namespaced(node.client.clone(), "kube-node-lease");
    let nodes = Api::<Node>::all(node.client.clone());
    let mut beats = interval(HEARTBEAT);
    loop {
        beats.tick().await;
        let renewed = json!({"spec": {"renewTime": MicroTime(Timestamp::now())}});
        let renewal = leases
            .patch(&node.name, &PatchParams::default(), &Patch::Merge(renewed))
            .await;
        if let Err(error) = renewal {
            tracing::warn!(%error, node = node.name, "the node's lease was not renewed");
        }
        // Who was not heard of for long is taken for lost, until it says that it is not.
        let known = nodes.get(&node.name).await;
        if known.is_ok_and(|known| is_lost(&known)) {
            report(node).await;
        }
    }
}

fn is_lost(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one.type_ == "Ready" && one.status == "Unknown")
}

struct Worker {
    pod: watch::Sender<Arc<Pod>>,
    stop: watch::Sender<Option<Instant>>,
}

impl Worker {
    /// Sets the moment when the pod has to be gone, or brings it nearer.
    fn stop_within(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.stop.send_if_modified(|stop| {
            let nearer = stop.is_none_or(|stop| deadline < stop);
            if nearer {
                *stop = Some(deadline);
            }
            nearer
        });
    }
}

/// Gives every pod that is bound to the node a worker.
async fn serve(node: &Arc<NodeContext>, pods: &Pods) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name));
    let mut events = Pod::watch(Api::all(node.client.clone()), config, Again::default());
    let mut workers: HashMap<String, Worker> = HashMap::new();
    let mut tasks = JoinSet::<String>::new();
    let mut listed = Vec::new();
    loop {
        let event = tokio::select! {
            Some(done) = tasks.join_next() => {
                if let Ok(uid) = done {
                    workers.remove(&uid);
                    pods.remove(&uid);
                }
                continue;
            }
            event = events.next() => event,
        };
        let mut seen = |pod: Pod, workers: &mut HashMap<String, Worker>| {
            let Some(uid) = pod.uid() else { return };
            let grace = pod.metadata.deletion_timestamp.as_ref().map(|_| {
                let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
                Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
            });
            let pod = Arc::new(pod);
            let worker = workers.entry(uid.clone()).or_insert_with(|| {
                let (object, pod) = watch::channel(pod.clone());
                let (stop, stopped) = watch::channel(None);
                let context = Arc::new(PodContext::new(node.clone(), pod, stopped));
                pods.insert(uid.clone(), context.clone());
                tasks.spawn(async move {
                    pod::work(context).await;
                    uid
                });
                Worker { pod: object, stop }
            });
            worker.pod.send_replace(pod);
            if let Some(grace) = grace {
                worker.stop_within(grace);
            }
        };
        match event {
            Some(Ok(Event::Apply(pod))) => seen(pod, &mut workers),
            Some(Ok(Event::Delete(pod))) => {
                if let Some(worker) = pod.uid().and_then(|uid| workers.get(&uid)) {
                    worker.stop_within(FORCED);
                }
            }
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(pod))) => {
                listed.extend(pod.uid());
                seen(pod, &mut workers);
            }
            Some(Ok(Event::InitDone)) => {
                for (uid, worker) in &workers {
                    if !listed.contains(uid) {
                        worker.stop_within(FORCED);
                    }
                }
            }
            Some(Err(error)) => tracing::warn!(%error, node = node.name, "watching pods"),
            None => return,
        }
    }
}

/// Splits what a node is made from into what its workers share and what its registration needs.
pub(super) fn split(
    config: NodeConfig,
    client_of: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    nodes: &super::Nodes,
) -> (Arc<NodeContext>, NodeFacts) {
    let client = client_of(&format!("system:node:{}", config.name));
    let events = Recorder::on_node(client.clone(), "kubelet", config.name.clone());
    let facts = NodeFacts {
        pod_cidrs: config.pod_cidrs,
        labels: config.labels.into_iter().collect(),
        control_plane: config.control_plane,
    };
    let context = NodeContext {
        name: config.name,
        ips: config.ips,
        objects: Arc::new(Objects::new(client.clone())),
        client,
        client_of,
        sandbox: config.sandbox,
        network: config.network,
        plugin: config.plugin,
        events,
        images: nodes.images.clone(),
        builtins: nodes.builtins.clone(),
        webhooks: nodes.webhooks.clone(),
        nft: nodes.nft.clone(),
        host_pids: nodes.host_pids.clone(),
        root: nodes.root.clone(),
    };
    (Arc::new(context), facts)
}
