//! The lab's first process: PID 1 of its PID namespace.
//!
//! Start from [`run`]. Here it makes itself at home (its own `/proc`, a tmpfs for all that the lab
//! writes, loopback) before there is a second thread; then it runs the lab. Rule: nothing is
//! written to a file system that outlives this process.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use tracing_subscriber::EnvFilter;

use super::report::{Report, silence};
use super::stage::readable;
use super::{LabConfig, StartError, inside, namespaces};
use crate::node::HostPids;
use crate::node::stage::loopback_up;

/// What the first process is given by the one that forked it.
pub(super) struct Started {
    pub(super) config: LabConfig,
    /// The API server's listener in the host's network.
    pub(super) listener: TcpListener,
    pub(super) user_namespace: bool,
    /// When the stage began.
    pub(super) begun: Instant,
}

/// Where the lab is at home.
pub(super) struct Home {
    /// A directory on a tmpfs of the lab's own.
    pub(super) root: PathBuf,
    pub(super) host_pids: HostPids,
}

/// Runs the lab; `parent` is the descriptor of the process that forked this one.
pub(super) fn run(parent: &OwnedFd, started: Started) -> ! {
    let code = match live(parent, started) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            let _ = Report::Failed(error).send();
            1
        }
    };
    // The kernel ends every other process of the namespace with this one.
    std::process::exit(code);
}

fn live(parent: &OwnedFd, started: Started) -> Result<i32, StartError> {
    let lost = |error: io::Error| StartError::Spawn(format!("cannot start the lab: {error}"));
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| lost(error.into()))?;
    // It may have ended before that.
    if readable([parent.as_raw_fd()], 0) == [true] {
        return Ok(1);
    }
    silence(0).map_err(lost)?;
    log(&started.config);
    let home = settle(&started)?;
    tracing::info!(took = ?started.begun.elapsed(), "namespaces and file systems");
    let runtime = tokio::runtime::Runtime::new().map_err(lost)?;
    runtime.block_on(inside::run(started, home))
}

/// The lab's log goes to standard error, which is the log's file if there is one. If there is none
/// only errors are kept, for the starter to tell.
fn log(config: &LabConfig) {
    let filter = match &config.log {
        // Of each question that cluster DNS is asked there would be two lines.
        Some(_) => EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new("info,hickory_server=warn")),
        None => EnvFilter::new("error"),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let _ = subscriber.try_init();
}

fn settle(started: &Started) -> Result<Home, StartError> {
    let failed = |what: &str, error: io::Error| StartError::FileSystems(format!("{what}: {error}"));
    umask(Mode::from_bits_truncate(0o022));
    raise_file_limit();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|error| failed("cannot make the lab's mounts private", error.into()))?;
    // The lab's own `/proc` hides the host's, but not from who has it open.
    let host_proc = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open("/proc")
        .map_err(|error| failed("cannot open /proc", error))?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), quiet, None::<&str>)
        .map_err(|error| StartError::FileSystems(namespaces::no_proc(error)))?;

    let root = mount_point(&used(&started.config))
        .ok_or_else(|| StartError::FileSystems(no_mount_point()))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("strata-lab"),
        root,
        Some("tmpfs"),
        flags,
        Some("mode=755"),
    )
    .map_err(|error| failed("cannot mount a tmpfs for the lab's files", error.into()))?;
    let _ = nix::unistd::chdir("/");

    let network = |error: io::Error| StartError::Network(format!("the outside's network: {error}"));
    loopback_up().map_err(network)?;
    nix::unistd::sethostname(OUTSIDE).map_err(|error| network(error.into()))?;
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0");
    Ok(Home {
        root: root.to_owned(),
        host_pids: HostPids::new(host_proc.into()),
    })
}

/// The host name of the lab's own processes, and of those in the outside.
pub(super) const OUTSIDE: &str = "outside";

/// Directories that the lab's tmpfs can be mounted on: present on most systems, and of no use in
/// the lab. Nothing can be made for the purpose, since it would stay behind.
const MOUNT_POINTS: [&str; 6] = ["/dev/shm", "/media", "/srv", "/mnt", "/run", "/tmp"];

/// The first that hides none of the files that the lab needs.
fn mount_point(used: &[PathBuf]) -> Option<&'static Path> {
    let mut candidates = MOUNT_POINTS.iter().map(Path::new);
    candidates.find(|point| point.is_dir() && !used.iter().any(|path| path.starts_with(point)))
}

fn no_mount_point() -> String {
    format!(
        "the lab's tmpfs needs one of the directories {} to be there and to hold neither this program nor any file that the lab is to use",
        MOUNT_POINTS.join(", ")
    )
}

/// Files that the lab still opens by their names, links resolved.
fn used(config: &LabConfig) -> Vec<PathBuf> {
    let named = [Some(&config.nft), config.envoy.as_ref()];
    let named = named.into_iter().flatten().chain(&config.images);
    named
        .flat_map(|path| [Some(path.clone()), path.canonicalize().ok()])
        .flatten()
        .collect()
}

/// Every connection, namespace and watch is an open file, and the usual limit is for one program.
fn raise_file_limit() {
    // SAFETY: both calls take a structure that outlives them.
    unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tmpfs_hides_nothing_that_is_used() {
        let used = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let first = mount_point(&[]).unwrap();
        let below = first.join("target/probe.tar");
        assert_ne!(mount_point(&used(&[below.to_str().unwrap()])), Some(first));
        let all = MOUNT_POINTS.map(|point| format!("{point}/x"));
        assert_eq!(
            mount_point(&used(&all.each_ref().map(String::as_str))),
            None
        );
    }
}
