//! A terminal for a program that is tested.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::pty::{OpenptyResult, openpty};

/// A terminal of which the command's process is the foreground. What the keyboard sends means to it what
/// it means to a shell's foreground job, though who runs the tests may ignore it, as whatever a script
/// leaves in the background does.
pub(crate) fn terminal(command: &mut Command) -> File {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    command.stdin(Stdio::from(slave));
    // SAFETY: all calls are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    File::from(master)
}

pub(crate) const CTRL_C: &[u8] = b"\x03";
