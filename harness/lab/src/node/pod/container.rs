//! The life of one container of a pod: prepared, started, probed, restarted, ended.
//!
//! Start from [`Runner::run`]. It returns when the container will not be started again. What is
//! seen of it goes into the pod's state, and from there into its status. Rule: a restart waits as
//! long as a kubelet makes it wait, and nothing waits longer than the pod is wanted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus,
    LifecycleHandler,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::instance::Instance;
use super::probe::{self, Eager, Report, Target};
use super::status::{PodState, waiting};
use super::{PodContext, Setup, env, security};
use crate::event::Type;
use crate::node::builtin::{Builtin, BuiltinContext};
use crate::node::images::Image;
use crate::node::log::Log;
use crate::node::process::Exit;
use crate::node::rootfs::{Bind, ContainerFile};
use crate::topology::{BUILTIN_IMAGE_PREFIX, ENVOY_IMAGE};

/// A back-off begins with this, doubles, and stays at the most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// A container that ran so long starts afresh.
const RESET: Duration = Duration::from_secs(600);
/// How soon a container's configuration is looked at again, at first and at most.
const RECONFIGURE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

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
            let over = status
                .state
                .take()
                .filter(|state| state.terminated.is_some());
            if over.is_some() {
                status.last_state = over;
            }
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

    /// Waits until there is everything that it takes to start the container.
    async fn prepare(&self, restarts: i32) -> (Launch, Image) {
        let (image, builtin) = self.image().await;
        let mut step = RECONFIGURE.0;
        loop {
            match self.launch(&image, builtin, restarts).await {
                Ok(launch) => return (launch, image),
                Err(reason) => {
                    self.waits("CreateContainerConfigError", &reason);
                    self.event(Type::Warning, "Failed", format!("Error: {reason}"));
                    sleep(step).await;
                    step = (step * 2).min(RECONFIGURE.1);
                }
            }
        }
    }

    /// Waits until the image is there.
    async fn image(&self) -> (Image, Option<Builtin>) {
        let name = self.container.image.clone().unwrap_or_default();
        let node = &self.pod.node;
        if let Some(builtin) = node.builtins.of_image(&name) {
            let id = format!("{name}@builtin");
            return (
                Image {
                    id,
                    ..Image::default()
                },
                Some(builtin),
            );
        }
        let mut changes = node.images.changes();
        let mut back_off = BACK_OFF.0;
        loop {
            changes.borrow_and_update();
            if let Some(image) = node.images.find(&name) {
                self.event(
                    Type::Normal,
                    "Pulled",
                    format!("Container image \"{name}\" already present on machine"),
                );
                return (Image::clone(&image), None);
            }
            if self.container.image_pull_policy.as_deref() == Some("Never") {
                let reason =
                    format!("Container image \"{name}\" is not present with pull policy of Never");
                self.waits("ErrImageNeverPull", &reason);
                self.event(Type::Warning, "ErrImageNeverPull", reason);
                let _ = changes.changed().await;
                continue;
            }
            self.event(Type::Normal, "Pulling", format!("Pulling image \"{name}\""));
            let reason = format!(
                "failed to pull and unpack image \"{}\": {}",
                crate::node::images::normalised(&name),
                missing(&name)
            );
            self.waits("ErrImagePull", &reason);
            self.event(
                Type::Warning,
                "Failed",
                format!("Failed to pull image \"{name}\": {reason}"),
            );
            self.event(Type::Warning, "Failed", "Error: ErrImagePull".to_owned());
            let soon = Instant::now() + back_off;
            if timeout_at(Instant::now() + Duration::from_secs(1), changes.changed())
                .await
                .is_ok()
            {
                continue;
            }
            self.event(
                Type::Normal,
                "BackOff",
                format!("Back-off pulling image \"{name}\""),
            );
            self.event(
                Type::Warning,
                "Failed",
                "Error: ImagePullBackOff".to_owned(),
            );
            self.waits(
                "ImagePullBackOff",
                &format!("Back-off pulling image \"{name}\": ErrImagePull: {reason}"),
            );
            let _ = timeout_at(soon, changes.changed()).await;
            back_off = (back_off * 2).min(BACK_OFF.1);
        }
    }

    async fn launch(
        &self,
        image: &Image,
        builtin: Option<Builtin>,
        restarts: i32,
    ) -> Result<Launch, String> {
        if let Some(builtin) = builtin {
            return Ok(Launch::Task(builtin));
        }
        let pod = self.pod.with_address();
        let environment = env::of_container(&pod, &self.container, &self.pod.node.objects).await?;
        let expanded = |words: &Option<Vec<String>>| {
            let words = words
                .iter()
                .flatten()
                .map(|word| env::expand(word, &environment));
            Some(words.collect::<Vec<_>>()).filter(|words| !words.is_empty())
        };
        // A command takes the place of the image's arguments too.
        let command = match (
            expanded(&self.container.command),
            expanded(&self.container.args),
        ) {
            (Some(command), args) => [command, args.unwrap_or_default()].concat(),
            (None, Some(args)) => [image.entrypoint.clone(), args].concat(),
            (None, None) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
        };
        let directory = self
            .pod
            .directory
            .join(format!("{}.{restarts}", self.container.name));
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let message = directory.join("termination-log");
        std::fs::write(&message, "").map_err(|error| error.to_string())?;
        let mounts = self.container.volume_mounts.clone().unwrap_or_default();
        let mut binds = image.binds.clone();
        binds.extend(self.setup.files.iter().cloned());
        binds.extend(self.setup.volumes.binds(&mounts, &environment)?);
        let path = self.container.termination_message_path.clone();
        binds.push(Bind {
            source: message.clone(),
            target: path.unwrap_or_else(|| "/dev/termination-log".to_owned()),
            read_only: false,
        });
        let mut file = ContainerFile {
            sandbox: self.setup.sandbox,
            lower: image.files.clone(),
            directory,
            binds,
            env: env::merged(image, &environment, &self.setup.hostname),
            cwd: self
                .container
                .working_dir
                .clone()
                .unwrap_or_else(|| image.working_dir.clone()),
            command,
            ..ContainerFile::default()
        };
        security::restrict(&mut file, &self.container);
        Ok(Launch::Process {
            file: Box::new(file),
            message,
        })
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
                Instance::process(id.clone(), log.clone(), &file, message).await.map_err(|error| {
                    format!("failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: {error}")
                })
            }
            Launch::Task(builtin) => {
                let context = self.builtin_context(&log);
                Ok(Instance::task(id.clone(), log.clone(), builtin, context))
            }
        };
        let image_name = self.container.image.clone().unwrap_or_default();
        let identify = |status: &mut ContainerStatus| {
            status.container_id = Some(format!("containerd://{id}"));
            status.image_id.clone_from(&image.id);
            status.image = crate::node::images::normalised(&image_name);
            let over = status
                .state
                .take()
                .filter(|state| state.terminated.is_some());
            if over.is_some() {
                status.last_state = over;
            }
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
            cancel: CancellationToken::new(),
            log: Arc::new(move |line: &str| log.line(line)),
        }
    }

    /// Sees a started container through to its end.
    async fn attend(&self, instance: &Instance) -> Exit {
        let target = Target {
            node: self.pod.node.sandbox.netns(),
            address: self.setup.address,
            container: self.container.clone(),
            process: instance.running_process(),
        };
        let exit = tokio::select! {
            exit = instance.wait() => exit,
            () = self.watch_over(&target) => {
                let grace = self.pod.grace();
                let (_keep, deadline) = watch::channel(Some(Instant::now() + grace));
                self.end(instance, &target, &deadline).await
            }
            _ = stopped(&self.stop) => {
                self.event(Type::Normal, "Killing", format!("Stopping container {}", self.container.name));
                self.end(instance, &target, &self.stop).await
            }
        };
        let from_log = exit.code != 0
            && self.container.termination_message_policy.as_deref()
                == Some("FallbackToLogsOnError");
        let message = instance.message(from_log);
        self.update(|status| {
            status.ready = self.init && exit.code == 0;
            status.started = Some(false);
            status.state = Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    container_id: Some(format!("containerd://{}", instance.id)),
                    exit_code: exit.code,
                    // As containerd reports it: 128 + n in the code, and no signal.
                    signal: None,
                    reason: Some(if exit.code == 0 { "Completed" } else { "Error" }.to_owned()),
                    message,
                    started_at: Some(Time(instance.started)),
                    finished_at: Some(Time(Timestamp::now())),
                }),
                ..ContainerState::default()
            });
        });
        exit
    }

    /// Probes the container; returns when it has to be restarted.
    async fn watch_over(&self, target: &Target) {
        let name = &self.container.name;
        if let Some(hook) = self
            .container
            .lifecycle
            .as_ref()
            .and_then(|hooks| hooks.post_start.as_ref())
            && let Err(reason) = run_hook(hook, target).await
        {
            self.event(
                Type::Warning,
                "FailedPostStartHook",
                format!("PostStartHook failed: {reason}"),
            );
            self.event(
                Type::Normal,
                "Killing",
                format!("FailedPostStartHook: container {name} will be killed"),
            );
            return;
        }
        if self.container.startup_probe.is_none() {
            self.update(|status| status.started = Some(true));
        }
        if let Some(startup) = &self.container.startup_probe {
            let (sender, mut started) = watch::channel(None);
            let probing = probe::run(startup, Eager::Yes, target, |report| match report {
                Report::Failed(reason) => self.unhealthy("Startup", reason),
                Report::Is(result) => drop(sender.send_replace(Some(result))),
            });
            let failed = tokio::select! {
                () = probing => true,
                result = started.wait_for(Option::is_some) => result.is_ok_and(|result| *result == Some(false)),
            };
            if failed {
                self.event(
                    Type::Normal,
                    "Killing",
                    format!("Container {name} failed startup probe, will be restarted"),
                );
                return;
            }
            let ready = self.container.readiness_probe.is_none();
            self.update(|status| {
                status.started = Some(true);
                status.ready = ready;
            });
        }
        let readiness = async {
            let Some(readiness) = &self.container.readiness_probe else {
                return std::future::pending().await;
            };
            probe::run(readiness, Eager::Yes, target, |report| match report {
                Report::Failed(reason) => self.unhealthy("Readiness", reason),
                Report::Is(result) => self.update(|status| status.ready = result),
            })
            .await;
        };
        let (sender, mut dead) = watch::channel(false);
        let liveness = async {
            let Some(liveness) = &self.container.liveness_probe else {
                return std::future::pending().await;
            };
            probe::run(liveness, Eager::No, target, |report| match report {
                Report::Failed(reason) => self.unhealthy("Liveness", reason),
                Report::Is(result) => drop(sender.send_replace(!result)),
            })
            .await;
        };
        tokio::select! {
            () = readiness => {}
            () = liveness => {}
            _ = dead.wait_for(|dead| *dead) => {}
        }
        self.event(
            Type::Normal,
            "Killing",
            format!("Container {name} failed liveness probe, will be restarted"),
        );
    }

    fn unhealthy(&self, which: &str, reason: &str) {
        self.event(
            Type::Warning,
            "Unhealthy",
            format!("{which} probe failed: {reason}"),
        );
    }

    /// Ends a running container: its hook, the signal it may handle, and the one it may not.
    async fn end(&self, instance: &Instance, target: &Target, deadline: &Stop) -> Exit {
        let over = async {
            let mut deadline = deadline.clone();
            loop {
                let at = (*deadline.borrow_and_update()).unwrap_or_else(Instant::now);
                tokio::select! {
                    () = sleep_until(at) => return,
                    // It may only come nearer.
                    changed = deadline.changed() => if changed.is_err() { return sleep_until(at).await },
                }
            }
        };
        let graceful = async {
            let hooks = self.container.lifecycle.as_ref();
            if let Some(hook) = hooks.and_then(|hooks| hooks.pre_stop.as_ref())
                && let Err(reason) = run_hook(hook, target).await
            {
                self.event(
                    Type::Warning,
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {reason}"),
                );
            }
            instance.terminate();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            exit = instance.wait() => return exit,
            () = over => {}
            () = graceful => {}
        }
        instance.kill();
        instance.wait().await
    }
}

/// Why an image that was not loaded cannot be had, and what to do.
fn missing(name: &str) -> String {
    if name == ENVOY_IMAGE {
        "the lab was started without Envoy: set STRATA_ENVOY".to_owned()
    } else if name.starts_with(BUILTIN_IMAGE_PREFIX) {
        "the lab has no such component".to_owned()
    } else {
        format!("not found: the lab pulls nothing; load it: docker save {name} | strata-lab load -")
    }
}

async fn run_hook(hook: &LifecycleHandler, target: &Target) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        return probe::command(&exec.command.clone().unwrap_or_default(), target).await;
    }
    if let Some(get) = &hook.http_get {
        return probe::http_get(get, target).await;
    }
    if let Some(pause) = &hook.sleep {
        sleep(Duration::from_secs(
            u64::try_from(pause.seconds).unwrap_or_default(),
        ))
        .await;
    }
    Ok(())
}

/// As Go prints a duration: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
