//! The stages: what this program is when it is started under one of their names.
//!
//! Start from [`run`], which `main` calls, through `boot::init`, before there is a second thread.
//! A stage's first argument is the pipe on which it says that it got there, or why it did not; the
//! arguments after it are between it and the module that starts it. Rule: a stage never returns.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};

use super::rootfs::{self, ContainerFile};
use super::terminal;

/// Holds namespaces.
pub const SANDBOX: &str = "strata-lab:sandbox";
/// Becomes a container's entrypoint.
pub const CONTAINER: &str = "strata-lab:container";
/// Becomes a command in a running container.
pub const EXEC: &str = "strata-lab:exec";

/// Runs the stage that `argv0` names, and never returns; returns at once when it names none.
pub fn run(argv0: &str) {
    let stage: fn(&mut Arguments, &mut Option<Status>) -> Result<Infallible, String> = match argv0 {
        SANDBOX => sandbox,
        CONTAINER => container,
        EXEC => exec,
        _ => return,
    };
    let mut arguments = Arguments(std::env::args_os().skip(1).collect::<Vec<_>>().into_iter());
    let outcome = Status::open(&mut arguments).map(|status| {
        let mut status = Some(status);
        let Err(said) = stage(&mut arguments, &mut status);
        if let Some(Status(pipe)) = &mut status {
            let _ = pipe.write_all(said.as_bytes());
        }
    });
    // Nobody to tell: the starter is gone, or it sees that the stage ended without a word.
    drop(outcome);
    std::process::exit(128);
}

struct Arguments(std::vec::IntoIter<OsString>);

impl Arguments {
    fn next(&mut self, what: &str) -> Result<OsString, String> {
        self.0.next().ok_or_else(|| format!("no {what} given"))
    }

    fn pid(&mut self) -> Result<u32, String> {
        let text = self.next("process id")?;
        let pid = text.to_str().and_then(|text| text.parse().ok());
        pid.ok_or_else(|| format!("{} is not a process id", text.display()))
    }
}

/// The pipe to the starter, closed by `exec`: silence is success.
struct Status(File);

impl Status {
    fn open(arguments: &mut Arguments) -> Result<Self, String> {
        let path = arguments.next("status pipe")?;
        let mut pipe = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        pipe.write_all(b"+").map_err(|error| error.to_string())?;
        Ok(Self(pipe))
    }
}

fn join(pid: u32, namespaces: &[(&str, CloneFlags)]) -> Result<(), String> {
    for (name, flag) in namespaces {
        let path = format!("/proc/{pid}/ns/{name}");
        File::open(&path)
            .and_then(|file| Ok(setns(file, *flag)?))
            .map_err(|error| format!("cannot join {path}: {error}"))?;
    }
    Ok(())
}

const SHARED: [(&str, CloneFlags); 3] = [
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
];

fn sandbox(arguments: &mut Arguments, status: &mut Option<Status>) -> Result<Infallible, String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("PR_SET_PDEATHSIG: {error}"))?;
    let hostname = arguments.next("host name")?;
    let mut new = CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    match arguments.0.next() {
        Some(shared) => File::open(&shared)
            .and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?))
            .map_err(|error| format!("cannot join {}: {error}", shared.display()))?,
        None => new |= CloneFlags::CLONE_NEWNET,
    }
    unshare(new).map_err(|error| format!("cannot make namespaces: {error}"))?;
    nix::unistd::sethostname(&hostname).map_err(|error| format!("sethostname: {error}"))?;
    if new.contains(CloneFlags::CLONE_NEWNET) {
        loopback_up().map_err(|error| format!("cannot bring up lo: {error}"))?;
        // As containerd sets them; the group range is what a single mapped group allows.
        let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0");
    }
    drop(status.take());
    loop {
        nix::unistd::pause();
    }
}

/// Brings up the loopback interface of the caller's network namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: an all-zero ifreq is valid; the ioctls read and write only it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        let up = libc::IFF_UP | libc::IFF_RUNNING;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).unwrap_or_default();
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn container(arguments: &mut Arguments, _: &mut Option<Status>) -> Result<Infallible, String> {
    let file = ContainerFile::read(Path::new(&arguments.next("container file")?))?;
    join(file.sandbox, &SHARED)?;
    rootfs::enter(&file)?;
    stand_alone(file.tty)?;
    if file.tty {
        own_terminal().map_err(|error| format!("cannot make a terminal: {error}"))?;
    }
    let command = file
        .command
        .iter()
        .map(|argument| CString::new(argument.as_str()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    become_command(&file, &command, file.tty)
}

/// Leaves the process group of whoever started this; and the session, where it is to have a terminal. Linux gives
/// every session the same share of the processor (`sched_autogroup_enabled`): were each container one, the lab's
/// own process, with the API server, DNS and all controllers in it, would get no more than one of a hundred proxies.
fn stand_alone(tty: bool) -> Result<(), String> {
    if tty {
        return nix::unistd::setsid()
            .map(drop)
            .map_err(|error| format!("setsid: {error}"));
    }
    let own = nix::unistd::Pid::from_raw(0);
    nix::unistd::setpgid(own, own).map_err(|error| format!("setpgid: {error}"))
}

/// Makes a terminal of the container's devpts the process's own, and sends the other side of it
/// over the socket that has been its standard input.
fn own_terminal() -> io::Result<()> {
    let (master, slave) = terminal::open(Path::new("/dev/pts/ptmx"))?;
    terminal::hand_over(io::stdin(), &master)?;
    nix::unistd::dup2_stdin(&slave)?;
    nix::unistd::dup2_stdout(&slave)?;
    nix::unistd::dup2_stderr(&slave)?;
    control_terminal()
}

/// Has signals come from the terminal that standard input is.
fn control_terminal() -> io::Result<()> {
    // SAFETY: the ioctl takes no memory; standard input is the terminal.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn exec(arguments: &mut Arguments, _: &mut Option<Status>) -> Result<Infallible, String> {
    let path = arguments.next("container file")?;
    let pid = arguments.pid()?;
    let tty = arguments.next("tty flag")? == "tty";
    let file = ContainerFile::read(Path::new(&path))?;
    join(pid, &SHARED)?;
    join(pid, &[("mnt", CloneFlags::CLONE_NEWNS)])?;
    stand_alone(tty)?;
    if tty {
        control_terminal().map_err(|error| format!("cannot take the terminal: {error}"))?;
    }
    let command = arguments
        .0
        .by_ref()
        .map(|argument| CString::new(argument.into_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    become_command(&file, &command, tty)
}

fn become_command(
    file: &ContainerFile,
    command: &[CString],
    tty: bool,
) -> Result<Infallible, String> {
    let cwd = if file.cwd.is_empty() { "/" } else { &file.cwd };
    std::env::set_current_dir(cwd).map_err(|error| format!("chdir to cwd ({cwd:?}): {error}"))?;
    let program = file.program(command)?;
    restrict(file)?;
    let terminal = tty.then_some(("TERM", "xterm"));
    let env = file
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        // As containerd says it to whatever has a terminal.
        .filter(|(name, _)| !(tty && *name == "TERM"))
        .chain(terminal)
        .map(|(name, value)| CString::new(format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("environment: {error}"))?;
    // SAFETY: the default disposition; Rust's start-up code ignores the signal, and an ignored
    // signal stays ignored over exec.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map_err(|error| error.to_string())?;
    // The stage's allocator has done without huge pages; that would hold for the command, too.
    prctl::set_thp_disable(false).map_err(|error| format!("PR_SET_THP_DISABLE: {error}"))?;
    // The pipe to the starter closes itself here.
    match nix::unistd::execve(&program, command, &env) {
        Ok(never) => Ok(never),
        Err(error) => {
            let name = command.first().map(|name| name.to_string_lossy());
            Err(format!(
                "exec: \"{}\": {}",
                name.unwrap_or_default(),
                error.desc().to_lowercase()
            ))
        }
    }
}

/// Keeps of the lab's capabilities what the container's security context leaves it.
fn restrict(file: &ContainerFile) -> Result<(), String> {
    if let Some(keep) = &file.capabilities {
        for capability in 0..=63u8 {
            if keep.contains(&capability) {
                continue;
            }
            // SAFETY: takes numbers only.
            let dropped = unsafe {
                libc::prctl(
                    libc::PR_CAPBSET_DROP,
                    libc::c_ulong::from(capability),
                    0,
                    0,
                    0,
                )
            };
            if dropped < 0 {
                let error = io::Error::last_os_error();
                // The first number past the kernel's last capability.
                if error.raw_os_error() == Some(libc::EINVAL) {
                    break;
                }
                return Err(format!("cannot drop capability {capability}: {error}"));
            }
        }
    }
    if file.no_new_privileges {
        prctl::set_no_new_privs().map_err(|error| format!("PR_SET_NO_NEW_PRIVS: {error}"))?;
    }
    Ok(())
}
