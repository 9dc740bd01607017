//! What the lab tells its starter, as one line of JSON on its standard output.

use std::fs::OpenOptions;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::StartError;

/// How the start went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Report {
    Ready(Ready),
    Failed(StartError),
}

/// Where the lab is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ready {
    /// The API server's URL, as the host reaches it.
    pub(super) server: String,
    /// The administrator's kubeconfig: its text.
    pub(super) kubeconfig: String,
    /// The kubeconfig again, as a file that is there as long as the lab is.
    pub(super) kubeconfig_path: String,
    /// The lab's first process, by its id on the host.
    pub(super) pid: u32,
    /// Whether the lab has a user namespace of its own.
    pub(super) user_namespace: bool,
}

impl Report {
    /// Says it, and lets go of the standard output: there is nothing else to say, and the starter
    /// may not be there for long.
    pub(super) fn send(&self) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.flush()?;
        silence(1)
    }
}

/// Lets one of the standard streams lead nowhere.
pub(super) fn silence(stream: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    // SAFETY: both are open; dup2 replaces the one atomically.
    if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
