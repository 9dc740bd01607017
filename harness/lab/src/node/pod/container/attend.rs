//! A started container, seen through to its end: its probes, its hooks, its signals.
//!
//! Start from [`Runner::attend`].

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Runner, Stop, stopped};
use crate::event::Type;
use crate::node::pod::instance::Instance;
use crate::node::pod::probe::{self, Eager, Report, Target};
use crate::node::process::Exit;

impl Runner {
    /// Sees a started container through to its end.
    pub(super) async fn attend(&self, instance: &Instance) -> Exit {
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
