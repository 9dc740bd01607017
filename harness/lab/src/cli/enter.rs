//! A command in a node: in its network, host name and processes, and with the host's files.
//!
//! Start from [`Entry`]. As the lab itself is, this is a stage: the program again, under another
//! name, since namespaces can only be entered while there is one thread. What it becomes waits for
//! the command and passes its exit code on. Rule: the command does not outlive who waits for it.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use strata_lab::node::pidfd_open;

use super::{say, tools};

/// The stage's name.
const ENTER: &str = "strata-lab:enter";

/// A command in the namespaces of a process.
#[derive(Debug)]
pub(super) struct Entry {
    /// Holds the node's namespaces; its id on the host.
    pub(super) pid: u32,
    pub(super) command: Vec<OsString>,
}

impl Entry {
    /// Becomes the stage; comes back only with why it could not.
    pub(super) fn become_command(self) -> anyhow::Error {
        let error = Command::new("/proc/self/exe")
            .arg0(ENTER)
            .arg(self.pid.to_string())
            .args(self.command)
            .exec();
        anyhow::Error::new(error).context("cannot start strata-lab again")
    }
}

/// Runs the stage if this process was started as it, and then never returns.
pub(crate) fn init() {
    let mut arguments = env::args_os();
    if arguments.next().is_none_or(|name| name != ENTER) {
        return;
    }
    let code = match enter(arguments) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("{error:#}"));
            // As shells and `env` say that a command could not be run.
            126
        }
    };
    std::process::exit(code);
}

fn enter(mut arguments: env::ArgsOs) -> anyhow::Result<i32> {
    let pid = arguments.next().context("no process id given")?;
    let pid = pid.to_str().and_then(|pid| pid.parse().ok());
    let pid: u32 = pid.context("not a process id")?;
    let command = arguments.collect::<Vec<_>>();
    let directory = env::current_dir();
    let process = pidfd_open(pid).context("the node has ended")?;
    setns(process, namespaces(pid)?).context("cannot enter the node's namespaces")?;
    own_sysfs();
    if directory.and_then(env::set_current_dir).is_err() {
        env::set_current_dir("/")?;
    }
    // Only children are in the PID namespace that was entered.
    // SAFETY: there is one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let Err(error) = run(command);
            say(&format!("{error:#}"));
            std::process::exit(127);
        }
        ForkResult::Parent { child } => {
            // The terminal tells both; the command decides what it means.
            for ignored in [Signal::SIGINT, Signal::SIGQUIT] {
                // SAFETY: ignoring calls nothing.
                unsafe { signal(ignored, SigHandler::SigIgn) }?;
            }
            match waitpid(child, None)? {
                WaitStatus::Exited(_, code) => Ok(code),
                WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
                other => bail!("the command did something else than end: {other:?}"),
            }
        }
    }
}

/// Those of a node, and of the lab: whose user namespace may be this one.
fn namespaces(pid: u32) -> anyhow::Result<CloneFlags> {
    let user = |of: &str| fs::read_link(format!("/proc/{of}/ns/user"));
    let own = user("self")?;
    let other = user(&pid.to_string()).context("the node has ended, or its lab is not yours")?;
    let mut flags = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID;
    if own != other {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    Ok(flags)
}

/// `/sys/class/net` shows the network in which it was mounted: as `ip netns exec` does, mount one
/// anew for this command alone. Nothing else depends on it. Within a container whose own is read-only
/// the kernel lets none be mounted that is not.
fn own_sysfs() {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let sysfs = |flags| mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>);
    let _ = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>))
        .and_then(|()| sysfs(quiet).or_else(|_| sysfs(quiet | MsFlags::MS_RDONLY)));
}

fn run(command: Vec<OsString>) -> anyhow::Result<Infallible> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // SAFETY: the default disposition; Rust's start-up code ignores the signal, and an ignored
    // signal stays ignored over exec.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    let name = command.first().context("no command given")?.clone();
    let directories = tools::directories(&env::var_os("PATH").unwrap_or_default());
    let program = program(Path::new(&name), &directories)
        .with_context(|| format!("{} is not installed on this machine", name.display()))?;
    let string = |text: OsString| CString::new(text.into_vec());
    let program = string(program.into_os_string())?;
    let command = command.into_iter().map(string);
    let command = command.collect::<Result<Vec<_>, _>>()?;
    let mut environment = Vec::new();
    for (variable, mut value) in env::vars_os() {
        if variable == "PATH" {
            value = env::join_paths(&directories)?;
        }
        let mut text = variable;
        text.push("=");
        text.push(value);
        environment.push(string(text)?);
    }
    nix::unistd::execve(&program, &command, &environment)
        .with_context(|| format!("cannot run {}", name.display()))
}

/// Where a command is, as a shell would look for it.
fn program(name: &Path, directories: &[PathBuf]) -> Option<PathBuf> {
    if name.components().count() > 1 || name.is_absolute() {
        return Some(name.to_owned());
    }
    let mut all = directories.iter().map(|directory| directory.join(name));
    all.find(|path| path.is_file())
}
