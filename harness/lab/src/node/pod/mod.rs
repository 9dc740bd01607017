//! A pod on its node: what its worker does with it, from its binding to its deletion.
//!
//! Start from [`work`]. The worker makes the pod's sandbox, network and volumes, runs its
//! containers, and reports what it sees; when the pod is to go it ends them, reports that, and
//! deletes the object. Rule: a worker owns all that it started, and dropping it ends all of that.

mod container;
pub(super) mod env;
mod files;
mod health;
pub(super) mod instance;
mod probe;
mod security;
mod status;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::container::{Restart, Runner, Stop};
use self::instance::Instance;
use self::status::PodState;
use super::kubelet::{NO_PLUGIN, NodeContext};
use super::log::Log;
use super::process::Exit;
use super::rootfs::Bind;
use super::sandbox::{Sandbox, SandboxConfig, SandboxNetwork};
use super::volumes::{VolumeContext, Volumes};
use crate::event::{Type, reference};
use crate::net::cni::HostPort;
use crate::os::netns::NetNs;
use crate::topology::HOST_PID_ANNOTATION;

/// How soon a sandbox that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A pod that a worker is at work on.
pub(super) struct PodContext {
    pub(super) node: Arc<NodeContext>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) directory: PathBuf,
    /// The object, as it changes.
    pub(super) pod: watch::Receiver<Arc<Pod>>,
    /// When the pod has to be gone, once it has to.
    pub(super) stop: Stop,
    state: watch::Sender<PodState>,
    instances: Mutex<HashMap<String, Instances>>,
    /// As long as there is one.
    netns: Mutex<Option<NetNs>>,
}

/// A container's runs, as far as anybody can still ask for them.
#[derive(Clone)]
pub(super) struct Instances {
    pub(super) current: Arc<Instance>,
    pub(super) previous: Option<Arc<Log>>,
}

/// What all containers of a pod have in common.
struct Setup {
    sandbox: u32,
    netns: NetNs,
    /// The first, which probes go to.
    address: IpAddr,
    hostname: String,
    files: Vec<Bind>,
    volumes: Volumes,
    // Dropped last: the containers have joined it.
    _own: Option<Sandbox>,
}

impl PodContext {
    /// The state of a pod that its node has just heard of.
    pub(super) fn new(node: Arc<NodeContext>, pod: watch::Receiver<Arc<Pod>>, stop: Stop) -> Self {
        let object = pod.borrow().clone();
        let uid = object.uid().unwrap_or_default();
        let spec = object.spec.clone().unwrap_or_default();
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            directory: node.root.join("pods").join(&uid),
            uid,
            state: watch::Sender::new(PodState::new(&spec)),
            instances: Mutex::default(),
            netns: Mutex::default(),
            node,
            pod,
            stop,
        }
    }

    /// A container's runs, if it was ever started.
    pub(super) fn instances(&self, container: &str) -> Option<Instances> {
        self.locked().get(container).cloned()
    }

    /// The network namespace that its containers are in; none before and after.
    pub(super) fn netns(&self) -> Option<NetNs> {
        self.netns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_netns(&self, netns: Option<NetNs>) {
        *self.netns.lock().unwrap_or_else(PoisonError::into_inner) = netns;
    }

    /// Why a container that was never started was not.
    pub(super) fn waits_for(&self, container: &str) -> String {
        let state = self.state.borrow();
        let mut all = state.init.iter().chain(&state.containers);
        let status = all.find(|status| status.name == container);
        let waiting =
            status.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
        waiting.unwrap_or_else(|| "ContainerCreating".to_owned())
    }

    fn running(&self, container: &str, instance: Arc<Instance>) {
        let mut instances = self.locked();
        let previous = instances
            .remove(container)
            .map(|before| before.current.log.clone());
        instances.insert(
            container.to_owned(),
            Instances {
                current: instance,
                previous,
            },
        );
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Instances>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, field: Option<String>, kind: Type, reason: &'static str, message: String) {
        let pod = self.pod.borrow().clone();
        let about = ObjectReference {
            field_path: field,
            ..reference(&*pod)
        };
        self.node.events.record_about(about, kind, reason, message);
    }

    /// The object with the addresses that it will be reported to have.
    fn with_address(&self) -> Pod {
        let mut pod = Pod::clone(&self.pod.borrow());
        let status = pod.status.get_or_insert_default();
        let addresses = self.state.borrow().addresses.clone();
        let first = |addresses: &[IpAddr]| addresses.first().map(ToString::to_string);
        status.pod_ips = status::pod_ips(&addresses);
        status.pod_ip = first(&addresses);
        status.host_ips = Some(status::host_ips(&self.node.ips));
        status.host_ip = first(&self.node.ips);
        pod
    }

    fn grace(&self) -> Duration {
        let spec = self.pod.borrow().spec.clone().unwrap_or_default();
        let seconds = spec.termination_grace_period_seconds.unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.node.client.clone(), &self.namespace)
    }

    /// Writes the status, if it is not what was written before.
    async fn write_status(&self, written: &mut Option<serde_json::Value>) {
        let pod = self.pod.borrow().clone();
        let status = status::report(&pod, &self.state.borrow().clone(), &self.node.ips);
        let Ok(value) = serde_json::to_value(&status) else {
            return;
        };
        if same(written.as_ref(), &value) {
            return;
        }
        let patch = json!({"metadata": {"uid": self.uid}, "status": value});
        let patched = self
            .api()
            .patch_status(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            Ok(_) => *written = Some(value),
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => {}
            Err(error) => {
                tracing::warn!(%error, pod = self.name, "the pod's status was not written");
            }
        }
    }

    /// Keeps the status written until dropped.
    async fn report(&self, written: &mut Option<serde_json::Value>) {
        let mut state = self.state.subscribe();
        let mut pod = self.pod.clone();
        loop {
            state.borrow_and_update();
            pod.borrow_and_update();
            self.write_status(written).await;
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                changed = pod.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Says, for tools outside the lab, which process is in the pod's network namespace.
    async fn annotate(&self, pid: u32) {
        let Some(pid) = self.node.host_pids.of(pid) else {
            return;
        };
        let patch = json!({"metadata": {"uid": self.uid, "annotations": {HOST_PID_ANNOTATION: pid.to_string()}}});
        let patched = self
            .api()
            .patch_metadata(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        if let Err(error) = patched {
            tracing::debug!(%error, pod = self.name, "the pod was not annotated");
        }
    }
}

/// Whether two statuses differ in nothing but when conditions changed.
fn same(one: Option<&serde_json::Value>, other: &serde_json::Value) -> bool {
    let plain = |status: &serde_json::Value| {
        let mut status = status.clone();
        let conditions = status
            .get_mut("conditions")
            .and_then(|all| all.as_array_mut());
        for condition in conditions.into_iter().flatten() {
            if let Some(condition) = condition.as_object_mut() {
                condition.remove("lastTransitionTime");
            }
        }
        status
    };
    one.is_some_and(|one| plain(one) == plain(other))
}

/// Does all that the node has to do for a pod, until the object is gone.
pub(super) async fn work(pod: Arc<PodContext>) {
    let object = pod.pod.borrow().clone();
    let phase = object
        .status
        .as_ref()
        .and_then(|status| status.phase.clone());
    let mut stop = pod.stop.clone();
    // What is over is not begun again.
    if !matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
        let mut written = None;
        tokio::select! {
            () = pod.report(&mut written) => {}
            () = live(&pod) => {}
        }
        pod.write_status(&mut written).await;
    }
    let _ = stop.wait_for(Option::is_some).await;
    let _ = std::fs::remove_dir_all(&pod.directory);
    let delete = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(pod.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match pod.api().delete(&pod.name, &delete).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => {}
        Err(error) => tracing::warn!(%error, pod = pod.name, "the pod was not deleted"),
    }
}

/// Runs the pod until its containers are over for good.
async fn live(pod: &Arc<PodContext>) {
    let mut stop = pod.stop.clone();
    let setup = tokio::select! {
        biased;
        _ = stop.wait_for(Option::is_some) => None,
        setup = set_up(pod) => setup,
    };
    if let Some(setup) = setup {
        run_containers(pod, &Arc::new(setup)).await;
    }
    pod.set_netns(None);
    if let Err(error) = pod.node.network.detach(&pod.uid).await {
        tracing::debug!(%error, pod = pod.name, "detaching the pod");
    }
    pod.state.send_modify(|state| {
        state.ended = true;
        state.sandbox = false;
        let all = state.init.iter_mut().chain(&mut state.containers);
        for status in all {
            status.ready &= status
                .state
                .as_ref()
                .is_some_and(|state| state.terminated.is_some());
        }
    });
}

/// Makes what the containers need; tries again until it is there. None if the pod can never run.
async fn set_up(pod: &Arc<PodContext>) -> Option<Setup> {
    let object = pod.pod.borrow().clone();
    let complaints = pod.clone();
    let context = VolumeContext {
        client: pod.node.client.clone(),
        objects: pod.node.objects.clone(),
        pod: pod.pod.clone(),
        complain: Arc::new(move |volume, reason| {
            let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {reason}");
            complaints.event(None, Type::Warning, "FailedMount", message);
        }),
    };
    let volumes = match Volumes::start(&context, &pod.directory.join("volumes")) {
        Ok(volumes) => volumes,
        Err(reason) => {
            pod.event(None, Type::Warning, "FailedMount", reason.clone());
            pod.state
                .send_modify(|state| state.failed = Some(("FailedMount".to_owned(), reason)));
            return None;
        }
    };
    let sandbox = async {
        if !on_host(&object) && !pod.node.plugin.is() {
            let message = format!("network is not ready: {NO_PLUGIN}");
            pod.event(None, Type::Warning, "NetworkNotReady", message);
            pod.node.plugin.wait().await;
        }
        loop {
            match make_sandbox(pod, &object).await {
                Ok(made) => return made,
                Err(error) => {
                    let message = format!("Failed to create pod sandbox: {error:#}");
                    pod.event(None, Type::Warning, "FailedCreatePodSandBox", message);
                    // Whatever was half done of its network is undone first.
                    let _ = pod.node.network.detach(&pod.uid).await;
                    sleep(RETRY).await;
                }
            }
        }
    };
    let ((own, sandbox, netns, addresses), ()) = tokio::join!(sandbox, volumes.ready());
    let files = match files::write(&pod.directory.join("etc"), &object, &addresses) {
        Ok(files) => files,
        Err(error) => {
            let reason = format!("cannot write the pod's files: {error}");
            pod.state
                .send_modify(|state| state.failed = Some(("FailedMount".to_owned(), reason)));
            return None;
        }
    };
    Some(Setup {
        sandbox,
        netns,
        address: *addresses.first()?,
        hostname: files::hostname(&object),
        files,
        volumes,
        _own: own,
    })
}

/// Whether a pod is in its node's network.
fn on_host(object: &Pod) -> bool {
    let spec = object.spec.as_ref();
    spec.and_then(|spec| spec.host_network).unwrap_or_default()
}

async fn make_sandbox(
    pod: &PodContext,
    object: &Pod,
) -> anyhow::Result<(Option<Sandbox>, u32, NetNs, Vec<IpAddr>)> {
    let node = &pod.node;
    let made = if on_host(object) {
        (
            None,
            node.sandbox.pid(),
            node.sandbox.netns(),
            node.ips.clone(),
        )
    } else {
        let config = SandboxConfig {
            hostname: files::hostname(object),
            netns: SandboxNetwork::New,
        };
        let sandbox = Sandbox::create(config).await?;
        let netns = sandbox.netns();
        let ports = object.spec.as_ref().map(HostPort::of).unwrap_or_default();
        let attached = node.network.attach(&netns, &pod.uid, &ports).await;
        let addresses = attached.context("plugin failed to set up the pod's network")?;
        anyhow::ensure!(!addresses.is_empty(), "plugin gave the pod no address");
        let pid = sandbox.pid();
        (Some(sandbox), pid, netns, addresses)
    };
    pod.set_netns(Some(made.2.clone()));
    pod.annotate(made.1).await;
    pod.state.send_modify(|state| {
        state.sandbox = true;
        state.addresses = made.3.clone();
    });
    Ok(made)
}

async fn run_containers(pod: &Arc<PodContext>, setup: &Arc<Setup>) {
    let spec = pod.pod.borrow().spec.clone().unwrap_or_default();
    let policy = match spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    };
    let runner =
        |container: &Container, init: bool, index: usize, restart: Restart, stop: &Stop| Runner {
            pod: pod.clone(),
            setup: setup.clone(),
            container: container.clone(),
            init,
            index,
            restart,
            stop: stop.clone(),
        };
    // Sidecars end after the containers that they are beside.
    let (end_sidecars, sidecars_end) = watch::channel(None);
    let mut sidecars = JoinSet::new();
    let mut initialized = true;
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        if status::is_sidecar(container) {
            let run = runner(container, true, index, Restart::Always, &sidecars_end).run();
            sidecars.spawn(run);
            let mut state = pod.state.subscribe();
            let up = state.wait_for(|state| {
                state
                    .init
                    .get(index)
                    .is_some_and(|status| status.started == Some(true))
            });
            let mut stop = pod.stop.clone();
            tokio::select! {
                _ = up => {}
                _ = stop.wait_for(Option::is_some) => initialized = false,
            }
        } else {
            let restart = if policy == Restart::Never {
                Restart::Never
            } else {
                Restart::OnFailure
            };
            let exit = runner(container, true, index, restart, &pod.stop)
                .run()
                .await;
            initialized = exit.is_some_and(|exit| exit.code == 0);
        }
        if !initialized {
            break;
        }
    }
    if initialized && pod.stop.borrow().is_none() {
        pod.state.send_modify(|state| {
            for status in &mut state.containers {
                status.state = Some(status::waiting("ContainerCreating", None));
            }
        });
        let mut containers = JoinSet::new();
        for (index, container) in spec.containers.iter().enumerate() {
            containers.spawn(runner(container, false, index, policy, &pod.stop).run());
        }
        let _: Vec<Option<Exit>> = containers.join_all().await;
    }
    let deadline = (*pod.stop.borrow()).unwrap_or_else(|| Instant::now() + pod.grace());
    end_sidecars.send_replace(Some(deadline));
    let _: Vec<Option<Exit>> = sidecars.join_all().await;
}
