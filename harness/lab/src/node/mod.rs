//! Nodes and pods: sandboxes, containers, images, exec, logs, readiness.
//!
//! Start from [`Nodes`]: every node's kubelet, each run by [`Nodes::run`], all behind the one door
//! through which the API server reaches them. A kubelet knows nothing but the API server and its
//! own node; what a pod's network is made of is [`PodNetwork`]'s affair.
//!
//! ```text
//! Nodes ──► kubelet ──► pod ──► volumes, probes, log
//!                        ├────► console ──► log
//!                        └────► process ──► spawn ──► stage ──► rootfs
//! ```

mod console;
mod host_pid;
pub mod images;
mod kubelet;
mod log;
mod objects;
mod pod;
pub mod process;
pub mod rootfs;
pub mod sandbox;
mod spawn;
pub mod stage;
mod terminal;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::BoxStream;
use ipnet::IpNet;
use kube::Client;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::host_pid::HostPids;
pub use self::spawn::pidfd_open;

use self::images::Store;
use self::pod::instance::Instance;
use self::pod::{Instances, PodContext};
use self::process::Exit;
use self::sandbox::Sandbox;
use self::terminal::Terminal;
use crate::api::kubelet::{
    AttachRequest, ContainerRef, ExecRequest, Kubelet, KubeletError, LogOptions, PodRef,
    ProcessStreams,
};
use crate::api::webhook::Webhooks;
use crate::builtin::{Builtins, Installed};
use crate::net::cni::PodNetwork;
use crate::os::dial;
use crate::os::nft::Nft;

/// What all nodes share.
pub struct NodesConfig {
    /// The lab's own components.
    pub builtins: Builtins,
    /// The images.
    pub images: Arc<Store>,
    /// A directory on a tmpfs, for pods' volumes and containers' files.
    pub root: PathBuf,
    /// Where components register their webhooks.
    pub webhooks: Webhooks,
    /// The program that components set rules with.
    pub nft: Nft,
    /// Tells the ids that Nodes and Pods are annotated with.
    pub host_pids: HostPids,
}

/// What a node is made from.
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// Its addresses on the underlay, one a family, the cluster's first choice first.
    pub ips: Vec<IpAddr>,
    /// Its pods' addresses, in the same order.
    pub pod_cidrs: Vec<IpNet>,
    /// Its namespaces.
    pub sandbox: Sandbox,
    /// Its pods' network.
    pub network: Arc<dyn PodNetwork>,
    /// Whether that is there yet.
    pub plugin: Installed,
    /// Labels beside the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Whether it is the control plane, with its label and taint.
    pub control_plane: bool,
}

/// The pods that workers are at work on, by UID.
#[derive(Clone, Default)]
struct Pods(Arc<Mutex<HashMap<String, Arc<PodContext>>>>);

impl Pods {
    fn insert(&self, uid: String, pod: Arc<PodContext>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid, pod);
    }

    fn remove(&self, uid: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }

    fn get(&self, uid: &str) -> Option<Arc<PodContext>> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(uid).cloned()
    }

    fn find(&self, target: &ContainerRef) -> Result<Arc<PodContext>, KubeletError> {
        let ContainerRef { pod, container } = target;
        self.get(&pod.uid).ok_or_else(|| {
            let PodRef { namespace, name, .. } = pod;
            KubeletError::BadRequest(format!(
                "container \"{container}\" in pod \"{name}\" of namespace {namespace} is waiting to start: ContainerCreating"
            ))
        })
    }

    /// A container's last run, of which a process is asked something.
    fn running(&self, target: &ContainerRef) -> Result<Arc<Instance>, KubeletError> {
        let name = &target.container;
        let instances = self.find(target)?.instances(name);
        let Some(Instances { current, .. }) = instances else {
            return Err(KubeletError::BadRequest(format!(
                "container not found (\"{name}\")"
            )));
        };
        Ok(current)
    }
}

/// Every node's kubelet.
pub struct Nodes {
    builtins: Builtins,
    images: Arc<Store>,
    root: PathBuf,
    webhooks: Webhooks,
    nft: Nft,
    host_pids: HostPids,
    pods: Pods,
}

impl Nodes {
    /// No node yet.
    #[must_use]
    pub fn new(config: NodesConfig) -> Arc<Self> {
        let NodesConfig {
            builtins,
            images,
            root,
            webhooks,
            nft,
            host_pids,
        } = config;
        Arc::new(Self {
            builtins,
            images,
            root,
            webhooks,
            nft,
            host_pids,
            pods: Pods::default(),
        })
    }

    /// Runs one node's kubelet until cancelled; `client_of` gives a client for a user's name.
    ///
    /// # Errors
    /// When the Node cannot be registered.
    pub async fn run(
        &self,
        client_of: impl Fn(&str) -> Client + Send + Sync + 'static,
        config: NodeConfig,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let (context, facts) = kubelet::split(config, Arc::new(client_of), self);
        kubelet::run(context, facts, self.pods.clone(), cancel).await
    }
}

#[async_trait::async_trait]
impl Kubelet for Nodes {
    async fn exec(
        &self,
        target: &ContainerRef,
        request: ExecRequest,
    ) -> Result<ProcessStreams, KubeletError> {
        let name = &target.container;
        let process = self.pods.running(target)?.running_process().ok_or_else(|| {
            KubeletError::BadRequest(format!(
                "container \"{name}\" is a component of the lab and not a process: it has a log, but nothing can be executed in it"
            ))
        })?;
        let ExecRequest {
            command,
            stdin,
            tty,
        } = request;
        let exec = process.exec(&command, stdin, tty).await.map_err(|error| {
            KubeletError::Internal(format!(
                "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to start container process: {error}"
            ))
        })?;
        let mut child = exec.child;
        let Some(master) = exec.streams.terminal else {
            let missing =
                || KubeletError::Internal("the process has no standard output".to_owned());
            return Ok(ProcessStreams {
                stdin: exec.streams.stdin.map(|pipe| Box::new(pipe) as _),
                stdout: Box::new(exec.streams.stdout.ok_or_else(missing)?),
                stderr: exec.streams.stderr.map(|pipe| Box::new(pipe) as _),
                resize: None,
                exit: Box::pin(async move { Ok(Exit::from(child.wait().await?).code) }),
            });
        };
        let internal = |error: std::io::Error| KubeletError::Internal(error.to_string());
        let terminal = Terminal::new(master).map_err(internal)?;
        let (resize, mut sizes) = mpsc::channel(4);
        let resized = terminal.clone();
        let exit = async move {
            loop {
                tokio::select! {
                    ended = child.wait() => return Ok(Exit::from(ended?).code),
                    Some((columns, rows)) = sizes.recv() => resized.resize(columns, rows),
                }
            }
        };
        Ok(ProcessStreams {
            stdin: stdin.then(|| Box::new(terminal.clone()) as _),
            stdout: Box::new(terminal),
            stderr: None,
            resize: Some(resize),
            exit: Box::pin(exit),
        })
    }

    async fn attach(
        &self,
        target: &ContainerRef,
        request: AttachRequest,
    ) -> Result<ProcessStreams, KubeletError> {
        let name = &target.container;
        let instance = self.pods.running(target)?;
        let console = instance.console.as_ref().ok_or_else(|| {
            KubeletError::BadRequest(format!(
                "container \"{name}\" is a component of the lab and not a process: it has a log, but nothing to attach to"
            ))
        })?;
        console.attach(request.stdin).ok_or_else(|| {
            KubeletError::Internal(format!(
                "prepare attach: container \"{name}\" is in CONTAINER_EXITED state"
            ))
        })
    }

    async fn connect(&self, target: &PodRef, port: u16) -> Result<TcpStream, KubeletError> {
        let PodRef {
            namespace,
            name,
            uid,
        } = target;
        let pod = self.pods.get(uid).and_then(|pod| pod.netns());
        let netns = pod.ok_or_else(|| {
            KubeletError::NotFound(format!("pod {namespace}/{name} has no network here"))
        })?;
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let [v4, v6] = loopback.map(|ip: IpAddr| SocketAddr::new(ip, port));
        let v4 = match dial::tcp(&netns, v4).await {
            Ok(stream) => return Ok(stream),
            Err(why) => why.replacen("tcp", "tcp4", 1),
        };
        dial::tcp(&netns, v6).await.map_err(|why| {
            let v6 = why.replacen("tcp", "tcp6", 1);
            KubeletError::Internal(format!(
                "failed to connect to localhost:{port} inside namespace \"{uid}\", IPv4: {v4} IPv6 {v6}"
            ))
        })
    }

    async fn logs(
        &self,
        target: &ContainerRef,
        options: LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, KubeletError> {
        let ContainerRef { pod, container } = target;
        let name = &pod.name;
        let pod = self.pods.find(target)?;
        let Some(instances) = pod.instances(container) else {
            let reason = pod.waits_for(container);
            return Err(KubeletError::BadRequest(format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {reason}"
            )));
        };
        if !options.previous {
            return Ok(instances.current.log.read(&options));
        }
        let previous = instances.previous.ok_or_else(|| {
            KubeletError::BadRequest(format!(
                "previous terminated container \"{container}\" in pod \"{name}\" not found"
            ))
        })?;
        Ok(previous.read(&options))
    }
}
