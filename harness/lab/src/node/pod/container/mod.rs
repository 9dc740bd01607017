//! The life of one container of a pod: prepared, started, probed, restarted, ended.
//!
//! Start from [`Runner::run`]. It returns when the container will not be started again. What is
//! seen of it goes into the pod's state, and from there into its status. Rule: a restart waits as
//! long as a kubelet makes it wait, and nothing waits longer than the pod is wanted.

mod attend;
mod prepare;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::instance::Instance;
use super::status::{PodState, waiting};
use super::{PodContext, Setup};
use crate::builtin::{Builtin, BuiltinContext};
use crate::event::Type;
use crate::node::console::Input;
use crate::node::images::Image;
use crate::node::log::Log;
use crate::node::process::Exit;
use crate::node::rootfs::ContainerFile;

/// A back-off begins with this, doubles, and stays at the most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// A container that ran so long starts afresh.
const RESET: Duration = Duration::from_secs(600);

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// The moment after which nothing of it may be left, once there is one.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

/// Runs one container.
pub(super) struct Runner {
    pub(super) pod: Arc<PodContext>,
    pub(super) setup: Arc<Setup>,
    pub(super) container: Container,
    /// Whether it is one of `initContainers`.
    pub(super) init: bool,
    pub(super) index: usize,
    pub(super) restart: Restart,
    pub(super) stop: Stop,
}

enum Launch {
    Process {
        file: Box<ContainerFile>,
        message: PathBuf,
    },
    Task(Builtin),
}

/// Waits until the container is to stop.
async fn stopped(stop: &Stop) -> Instant {
    match stop.clone().wait_for(Option::is_some).await.as_deref() {
        Ok(Some(deadline)) => *deadline,
        _ => Instant::now(),
    }
}

impl Runner {
    /// Runs the container until it is over; says how it ended, if it ever ran.
    pub(super) async fn run(self) -> Option<Exit> {
        let mut last = None;
        let mut restarts = 0;
        let mut back_off = Duration::ZERO;
        loop {
            let (launch, image) = tokio::select! {
                biased;
                _ = stopped(&self.stop) => return last,
                prepared = self.prepare(restarts) => prepared,
            };
            let began = Instant::now();
            let exit = match self.start(launch, &image).await {
                Ok(instance) => self.attend(&instance).await,
                Err(exit) => exit,
            };
            last = Some(exit);
            if self.stop.borrow().is_some() || !self.again(exit) {
                return last;
            }
            if began.elapsed() > RESET {
                back_off = Duration::ZERO;
            }
            if !back_off.is_zero() {
                self.waits(
                    "CrashLoopBackOff",
                    &format!(
                        "back-off {} restarting failed container={} pod={}_{}({})",
                        go_duration(back_off),
                        self.container.name,
                        self.pod.name,
                        self.pod.namespace,
                        self.pod.uid
                    ),
                );
                self.event(
                    Type::Warning,
                    "BackOff",
                    format!(
                        "Back-off restarting failed container {} in pod {}_{}({})",
                        self.container.name, self.pod.name, self.pod.namespace, self.pod.uid
                    ),
                );
                tokio::select! {
                    _ = stopped(&self.stop) => return last,
                    () = sleep(back_off) => {}
                }
            }
            back_off = (back_off * 2).clamp(BACK_OFF.0, BACK_OFF.1);
            restarts += 1;
        }
    }

    fn again(&self, exit: Exit) -> bool {
        match self.restart {
            Restart::Always => true,
            Restart::OnFailure => exit.code != 0,
            Restart::Never => false,
        }
    }

    /// Changes the container's status.
    fn update(&self, change: impl FnOnce(&mut ContainerStatus)) {
        self.pod.state.send_if_modified(|state: &mut PodState| {
            let list = if self.init {
                &mut state.init
            } else {
                &mut state.containers
            };
            let Some(status) = list.get_mut(self.index) else {
                return false;
            };
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    fn waits(&self, reason: &str, message: &str) {
        self.update(|status| {
            retire_state(status);
            status.state = Some(waiting(reason, Some(message.to_owned())));
            status.ready = false;
            status.started = Some(false);
        });
    }

    fn event(&self, kind: Type, reason: &'static str, message: String) {
        let list = if self.init {
            "initContainers"
        } else {
            "containers"
        };
        let field = format!("spec.{list}{{{}}}", self.container.name);
        self.pod.event(Some(field), kind, reason, message);
    }

    /// Starts the container; one that cannot be started has ended at once.
    async fn start(&self, launch: Launch, image: &Image) -> Result<Arc<Instance>, Exit> {
        let name = &self.container.name;
        let id = format!(
            "{:032x}{:032x}",
            rand::random::<u128>(),
            rand::random::<u128>()
        );
        let log = Arc::new(Log::default());
        self.event(
            Type::Normal,
            "Created",
            format!("Created container: {name}"),
        );
        let instance = match launch {
            Launch::Process { file, message } => {
                let input = Input {
                    open: self.container.stdin.unwrap_or_default(),
                    once: self.container.stdin_once.unwrap_or_default(),
                };
                Instance::process(id.clone(), log.clone(), &file, input, message).await.map_err(|error| {
                    format!("failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: {error}")
                })
            }
            Launch::Task(builtin) => {
                let context = self.builtin_context(&log);
                let started = Instance::task(id.clone(), log.clone(), builtin, context);
                started.map_err(|error| format!("failed to start a thread for it: {error}"))
            }
        };
        let image_name = self.container.image.clone().unwrap_or_default();
        let identify = |status: &mut ContainerStatus| {
            status.container_id = Some(format!("containerd://{id}"));
            status.image_id.clone_from(&image.id);
            status.image = crate::node::images::normalised(&image_name);
            retire_state(status);
            if status
                .last_state
                .as_ref()
                .is_some_and(|last| last.terminated.is_some())
            {
                status.restart_count += 1;
            }
        };
        match instance {
            Ok(instance) => {
                let instance = Arc::new(instance);
                self.pod.running(name, instance.clone());
                self.update(|status| {
                    identify(status);
                    status.state = Some(ContainerState {
                        running: Some(ContainerStateRunning {
                            started_at: Some(Time(instance.started)),
                        }),
                        ..ContainerState::default()
                    });
                    let free = self.container.startup_probe.is_none();
                    status.started = Some(free && self.container.lifecycle.is_none());
                    status.ready = self.ready_at_once();
                });
                self.event(Type::Normal, "Started", format!("Started container {name}"));
                Ok(instance)
            }
            Err(reason) => {
                log.close();
                self.event(Type::Warning, "Failed", format!("Error: {reason}"));
                let now = Time(Timestamp::now());
                self.update(|status| {
                    identify(status);
                    status.ready = false;
                    status.state = Some(ContainerState {
                        terminated: Some(ContainerStateTerminated {
                            container_id: status.container_id.clone(),
                            exit_code: 128,
                            reason: Some("StartError".to_owned()),
                            message: Some(reason),
                            started_at: Some(now.clone()),
                            finished_at: Some(now),
                            ..ContainerStateTerminated::default()
                        }),
                        ..ContainerState::default()
                    });
                });
                Err(Exit {
                    code: 128,
                    signal: None,
                })
            }
        }
    }

    /// Containers without a readiness probe are ready as soon as they have started; init containers
    /// only once they are over, unless they stay.
    fn ready_at_once(&self) -> bool {
        let stays = !self.init || super::status::is_sidecar(&self.container);
        stays && self.container.readiness_probe.is_none() && self.container.startup_probe.is_none()
    }

    fn builtin_context(&self, log: &Arc<Log>) -> BuiltinContext {
        let node = &self.pod.node;
        let pod = self.pod.with_address();
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let user = format!("system:serviceaccount:{}:{account}", self.pod.namespace);
        let log = log.clone();
        BuiltinContext {
            client: (node.client_of)(&user),
            pod,
            container: self.container.clone(),
            node: node.name.clone(),
            netns: self.setup.netns.clone(),
            webhooks: node.webhooks.clone(),
            nft: node.nft.clone(),
            plugin: node.plugin.clone(),
            cancel: CancellationToken::new(),
            log: Arc::new(move |line: &str| log.line(line)),
        }
    }
}

/// How a container ended, if that is its state, becomes how it ended the last time.
fn retire_state(status: &mut ContainerStatus) {
    let over = status
        .state
        .take()
        .filter(|state| state.terminated.is_some());
    if over.is_some() {
        status.last_state = over;
    }
}

/// As Go prints a duration: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
