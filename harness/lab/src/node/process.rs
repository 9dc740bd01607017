//! A container as a process: its entrypoint, and commands beside it.
//!
//! Start from [`Process::start`]; [`Process::exec`] runs a command in a running one. Both are
//! children of the lab, born into the container's PID namespace. Rule: dropping a [`Process`] or an
//! [`Exec`] kills it, and it is reaped.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::rootfs::ContainerFile;
use super::spawn::{PidNamespace, Stage, Started};
use super::{stage, terminal};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + n when signal n ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self { code, signal: None },
            (None, signal) => Self {
                code: 128 + signal.unwrap_or_default(),
                signal,
            },
        }
    }
}

/// A container's first process.
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    file: PathBuf,
    exit: watch::Receiver<Option<Exit>>,
    // Owns the child, which is killed with it.
    _reaper: AbortOnDropHandle<()>,
}

/// What a process was given for its standard streams.
pub struct Streams {
    /// Its standard input, if that is a pipe.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if that is a pipe.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if that is a pipe.
    pub stderr: Option<ChildStderr>,
    /// The other side of the terminal that all three are, if they are one.
    pub terminal: Option<OwnedFd>,
}

impl Streams {
    fn of(child: &mut Child, terminal: Option<OwnedFd>) -> Self {
        // With a terminal, the pipes were those of its stage.
        let pipes = terminal.is_none();
        Self {
            stdin: child.stdin.take().filter(|_| pipes),
            stdout: child.stdout.take().filter(|_| pipes),
            stderr: child.stderr.take().filter(|_| pipes),
            terminal,
        }
    }
}

/// A command beside a container's entrypoint.
pub struct Exec {
    /// The process; dropping it kills it.
    pub child: Child,
    /// Its standard streams.
    pub streams: Streams,
}

impl Process {
    /// Starts a container's entrypoint, which reads nothing but what comes by its terminal.
    ///
    /// # Errors
    /// With the reason, in the words of the stage.
    pub async fn start(file: &ContainerFile) -> io::Result<(Self, Streams)> {
        Self::start_with(file, Stdio::null()).await
    }

    /// Starts a container's entrypoint, whose standard input is the caller's to write.
    ///
    /// # Errors
    /// With the reason, in the words of the stage.
    pub async fn start_with_input(file: &ContainerFile) -> io::Result<(Self, Streams)> {
        Self::start_with(file, Stdio::piped()).await
    }

    async fn start_with(file: &ContainerFile, stdin: Stdio) -> io::Result<(Self, Streams)> {
        let path = file.write()?;
        let mut stage = Stage::new(stage::CONTAINER)?;
        stage.arg(&path);
        let mut socket = None;
        if file.tty {
            // Only the stage can make a terminal of the container's own: it sends back our side.
            let (ours, theirs) = UnixStream::pair()?;
            socket = Some(ours);
            let null = Stdio::null;
            let command = stage.command.stdin(Stdio::from(OwnedFd::from(theirs)));
            command.stdout(null()).stderr(null());
        } else {
            let command = stage.command.stdin(stdin);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let Started {
            mut child,
            pid,
            pidfd,
        } = stage.start(PidNamespace::New).await?;
        let terminal = socket.map(terminal::take_over).transpose()?;
        let streams = Streams::of(&mut child, terminal);
        let (sender, exit) = watch::channel(None);
        let reaper = tokio::spawn(async move {
            let exit = match child.wait().await {
                Ok(status) => status.into(),
                Err(error) => {
                    tracing::error!(%error, pid, "cannot wait for a container");
                    Exit {
                        code: 137,
                        signal: None,
                    }
                }
            };
            sender.send_replace(Some(exit));
        });
        let process = Self {
            pid,
            pidfd,
            file: path,
            exit,
            _reaper: AbortOnDropHandle::new(reaper),
        };
        Ok((process, streams))
    }

    /// Its id, as the lab sees it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            Ok(None) | Err(_) => Exit {
                code: 137,
                signal: Some(libc::SIGKILL),
            },
        }
    }

    /// Sends it a signal; one that has ended takes no notice.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the descriptor is a live pidfd, and no information is passed.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            tracing::debug!(%error, pid = self.pid, signal, "signal not sent");
        }
    }

    /// Starts a command beside the entrypoint.
    ///
    /// # Errors
    /// With the reason, in the words of the stage.
    pub async fn exec(&self, command: &[String], stdin: bool, tty: bool) -> io::Result<Exec> {
        if self.exit.borrow().is_some() {
            return Err(ended());
        }
        let mut stage = Stage::new(stage::EXEC)?;
        stage.arg(&self.file).arg(self.pid.to_string());
        stage.arg(if tty { "tty" } else { "no-tty" });
        for argument in command {
            stage.arg(argument);
        }
        let mut terminal = None;
        if tty {
            let ptmx = format!("/proc/{}/root/dev/pts/ptmx", self.pid);
            let (master, slave) = terminal::open(ptmx.as_ref())?;
            stage
                .command
                .stdin(Stdio::from(slave.try_clone()?))
                .stdout(Stdio::from(slave.try_clone()?))
                .stderr(Stdio::from(slave));
            terminal = Some(master);
        } else {
            let input = if stdin { Stdio::piped() } else { Stdio::null() };
            stage
                .command
                .stdin(input)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        }
        let namespace = File::open(format!("/proc/{}/ns/pid", self.pid))?;
        let mut child = stage.start(PidNamespace::Of(namespace)).await?.child;
        let streams = Streams::of(&mut child, terminal);
        Ok(Exec { child, streams })
    }
}

fn ended() -> io::Error {
    io::Error::other("the container has ended")
}
