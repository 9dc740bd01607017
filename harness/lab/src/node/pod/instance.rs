//! One run of a container: a process in its image, or a task of the lab.
//!
//! Start from [`Instance::process`] and [`Instance::task`]. Both have a log and an end; only a
//! process can be joined by another. Rule: dropping an instance ends it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::builtin::{Builtin, BuiltinContext};
use crate::node::console::{Console, Input};
use crate::node::log::Log;
use crate::node::process::{Exit, Process};
use crate::node::rootfs::ContainerFile;

/// A container that has been started.
pub(in crate::node) struct Instance {
    /// Its id, as a runtime would name it.
    pub(super) id: String,
    pub(super) started: Timestamp,
    pub(in crate::node) log: Arc<Log>,
    /// What can be attached to.
    pub(in crate::node) console: Option<Arc<Console>>,
    body: Body,
    /// The file of its termination message.
    message: Option<PathBuf>,
    _copies: Option<AbortOnDropHandle<()>>,
}

enum Body {
    Process(Arc<Process>),
    Task {
        cancel: CancellationToken,
        kill: CancellationToken,
        exit: watch::Receiver<Option<Exit>>,
        _end: DropGuard,
    },
}

impl Instance {
    /// Starts a process.
    ///
    /// # Errors
    /// With the runtime's reason.
    pub(super) async fn process(
        id: String,
        log: Arc<Log>,
        file: &ContainerFile,
        input: Input,
        message: PathBuf,
    ) -> io::Result<Self> {
        let (process, streams) = if input.open {
            Process::start_with_input(file).await?
        } else {
            Process::start(file).await?
        };
        let started = Timestamp::now();
        let (console, outputs) = Console::of(streams, input, log.clone())?;
        let console = Arc::new(console);
        let copied = console.clone();
        let copies = tokio::spawn(async move { copied.copy(outputs).await });
        Ok(Self {
            id,
            started,
            log,
            console: Some(console),
            body: Body::Process(Arc::new(process)),
            message: Some(message),
            _copies: Some(AbortOnDropHandle::new(copies)),
        })
    }

    /// Starts a task; `context` is what it gets, with its token and its log's line writer in it.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(super) fn task(
        id: String,
        log: Arc<Log>,
        builtin: Builtin,
        context: BuiltinContext,
    ) -> io::Result<Self> {
        let (cancel, name) = (context.cancel.clone(), context.container.name.clone());
        let kill = CancellationToken::new();
        let (sender, exit) = watch::channel(None);
        let (killed, written) = (kill.clone(), log.clone());
        let run = async move {
            let work = std::panic::AssertUnwindSafe(async move { builtin(context).await });
            let code = tokio::select! {
                () = killed.cancelled() => 137,
                ended = work.catch_unwind() => match ended {
                    Ok(Ok(())) => 0,
                    Ok(Err(error)) => {
                        written.line(&format!("error: {error:#}"));
                        1
                    }
                    Err(_) => {
                        written.line("error: panicked");
                        2
                    }
                },
            };
            written.close();
            let signal = (code == 137).then_some(libc::SIGKILL);
            sender.send_replace(Some(Exit { code, signal }));
        };
        alone(name, run)?;
        Ok(Self {
            id,
            started: Timestamp::now(),
            log,
            console: None,
            body: Body::Task {
                cancel,
                kill: kill.clone(),
                exit,
                _end: kill.drop_guard(),
            },
            message: None,
            _copies: None,
        })
    }

    /// The process, for what only processes can do.
    pub(in crate::node) fn running_process(&self) -> Option<Arc<Process>> {
        match &self.body {
            Body::Process(process) => Some(process.clone()),
            Body::Task { .. } => None,
        }
    }

    /// Waits for its end.
    pub(super) async fn wait(&self) -> Exit {
        match &self.body {
            Body::Process(process) => process.wait().await,
            Body::Task { exit, .. } => {
                let mut exit = exit.clone();
                let exit = exit
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|exit| *exit);
                exit.unwrap_or(Exit {
                    code: 137,
                    signal: Some(libc::SIGKILL),
                })
            }
        }
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        match &self.body {
            Body::Process(process) => process.signal(libc::SIGTERM),
            Body::Task { cancel, .. } => cancel.cancel(),
        }
    }

    /// Ends it.
    pub(super) fn kill(&self) {
        match &self.body {
            Body::Process(process) => process.signal(libc::SIGKILL),
            Body::Task { kill, .. } => kill.cancel(),
        }
    }

    /// What it left as its termination message.
    pub(super) fn message(&self, from_log: bool) -> Option<String> {
        let written = self
            .message
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok());
        let written = written.filter(|written| !written.is_empty());
        written.or_else(|| from_log.then(|| self.log.tail(80)))
    }
}

/// Runs a task on a thread of its own, as another process would, and what it starts on another: who reckons for a
/// while keeps nobody else waiting, and not those either whom it serves.
fn alone(name: String, task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name.clone())
        .enable_all()
        .build()?;
    std::thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(task);
        // What it may still have asked of a blocking thread is nobody's to wait for.
        runtime.shutdown_background();
    })?;
    Ok(())
}
