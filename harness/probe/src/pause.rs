//! A process that only waits, as PID 1 of a container must: reaping, and ending when told to.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::Trouble;

/// Sleeps until SIGTERM or SIGINT.
pub(crate) fn run() -> Result<(), Trouble> {
    let trouble = |errno: Errno| Trouble::Other(format!("waiting for a signal: {errno}"));
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().map_err(trouble)?;
    // Whoever ended before we listened.
    reap();
    loop {
        match signals.wait().map_err(trouble)? {
            Signal::SIGCHLD => reap(),
            _ => return Ok(()),
        }
    }
}

/// Takes leave of every child that has ended. The orphans of processes that were `exec`ed into the
/// container become children of its PID 1.
pub(crate) fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}
