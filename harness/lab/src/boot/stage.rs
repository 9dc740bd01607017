//! Stage `strata-lab:boot`: the process between the host and the lab.
//!
//! Start from [`run`]. It opens what the host must reach, makes the namespaces, forks the lab's
//! first process into them, and then only waits: for the lab to end, or for its lifeline to. It
//! stays single-threaded and small so that nothing can keep it from that. Rule: the lab never
//! outlives it.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::report::{Report, silence};
use super::{LabConfig, StartError, first, namespaces};
use crate::node::pidfd_open;

/// The stage's name.
pub(super) const BOOT: &str = "strata-lab:boot";

/// On the lifeline: live on when it ends.
pub(super) const KEEP: &str = "keep";

/// Runs the stage if it is the one that `argv0` names, and then never returns.
pub(super) fn run(argv0: &str) {
    if argv0 != BOOT {
        return;
    }
    let code = match boot() {
        Ok(code) => code,
        Err(error) => {
            // Nobody to tell: the starter is gone.
            let _ = Report::Failed(error).send();
            1
        }
    };
    std::process::exit(code);
}

fn boot() -> Result<i32, StartError> {
    let begun = Instant::now();
    // Out of the terminal's foreground: what ctrl-C means is for the starter to decide.
    let _ = nix::unistd::setsid();
    let mut lifeline = Lifeline::default();
    let Some(line) = lifeline.first_line() else {
        return Ok(0);
    };
    let config = serde_json::from_str::<LabConfig>(&line)
        .map_err(|error| StartError::Config(format!("the lab's configuration: {error}")))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| {
        StartError::Listener(format!(
            "cannot open a port on 127.0.0.1 for the API server: {error}"
        ))
    })?;
    let spawn = |error: io::Error| StartError::Spawn(format!("cannot start the lab: {error}"));
    let parent = pidfd_open(std::process::id()).map_err(spawn)?;
    let user_namespace = namespaces::enter()?;
    // SAFETY: there is one thread.
    match unsafe { fork() }.map_err(|error| spawn(error.into()))? {
        ForkResult::Child => {
            let started = first::Started {
                config,
                listener,
                user_namespace,
                begun,
            };
            first::run(&parent, started)
        }
        ForkResult::Parent { child } => {
            drop((listener, parent));
            let _ = silence(1);
            let id = u32::try_from(child.as_raw()).unwrap_or_default();
            let process = pidfd_open(id).map_err(spawn)?;
            Ok(wait(child, &process, &mut lifeline))
        }
    }
}

/// Waits for the lab's end, and brings it about when the lifeline ends; says the exit code.
fn wait(child: Pid, process: &OwnedFd, lifeline: &mut Lifeline) -> i32 {
    let (mut kept, mut ended) = (false, false);
    loop {
        while let Some(line) = lifeline.line() {
            kept |= line == KEEP;
        }
        if lifeline.over && !kept && !ended {
            // Nothing in the lab is worth saying goodbye to, and this cannot be missed.
            let _ = kill(child, Signal::SIGKILL);
            ended = true;
        }
        let stdin = if lifeline.over { -1 } else { 0 };
        match readable([process.as_raw_fd(), stdin], -1) {
            [true, _] => break,
            [_, true] => lifeline.read(),
            _ => {}
        }
    }
    match waitpid(child, None) {
        Ok(_) if ended => 0,
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        _ => 1,
    }
}

/// Which of the descriptors have something to read, or are at their end; negative ones never.
/// Waits for so many milliseconds, or for ever if negative.
pub(super) fn readable<const N: usize>(fds: [i32; N], milliseconds: i32) -> [bool; N] {
    let mut polled = fds.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: the array outlives the call, which is given its length.
    unsafe {
        libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, milliseconds);
    }
    polled.map(|polled| polled.revents != 0)
}

/// Standard input: the configuration, then perhaps [`KEEP`], then end of file.
#[derive(Default)]
struct Lifeline {
    unread: Vec<u8>,
    over: bool,
}

impl Lifeline {
    /// The first line, waiting for it; none if the starter is gone already.
    fn first_line(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.line() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            self.read();
        }
    }

    /// A line that has come.
    fn line(&mut self) -> Option<String> {
        let end = self.unread.iter().position(|byte| *byte == b'\n')?;
        let line = self.unread.drain(..=end).take(end).collect::<Vec<_>>();
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads on, waiting if need be.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        match nix::unistd::read(io::stdin(), &mut buffer) {
            Ok(0) => self.over = true,
            Ok(count) => self.unread.extend(buffer.iter().take(count)),
            Err(Errno::EINTR) => {}
            Err(_) => self.over = true,
        }
    }
}
