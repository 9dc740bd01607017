//! The user's terminal, lent to a command elsewhere.
//!
//! Start from [`Raw`]. Rule: however the command ends, the terminal is given back as it was.

use std::io::{self, IsTerminal as _};

use kube::api::TerminalSize;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// A terminal that passes every key on; it is as it was before when this is dropped.
pub(super) struct Raw(Termios);

impl Raw {
    /// The one on standard input; none if that is something else.
    pub(super) fn stdin() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// How large the terminal on standard output is.
pub(super) fn size() -> Option<TerminalSize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the ioctl writes one winsize.
    let told = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) };
    (told == 0 && size.ws_row > 0).then_some(TerminalSize {
        width: size.ws_col,
        height: size.ws_row,
    })
}
