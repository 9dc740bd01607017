//! A sandbox: the network, UTS and IPC namespaces that the containers of a pod, or a node, share.
//!
//! Start from [`Sandbox::create`]. A process at stage `strata-lab:sandbox` holds the namespaces and
//! does nothing else; joining them is the containers' work. Rule: dropping the sandbox ends it.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::Context;
use tokio::process::Child;

use super::spawn::{PidNamespace, Stage, Started};
use crate::os::netns::NetNs;

/// Which network namespace a sandbox has.
pub enum SandboxNetwork {
    /// One of its own, empty but for its loopback interface, which is up.
    New,
    /// Somebody else's.
    Shared(NetNs),
}

/// What a sandbox is made from.
pub struct SandboxConfig {
    /// The host name that its processes see.
    pub hostname: String,
    /// Its network namespace.
    pub netns: SandboxNetwork,
}

/// The namespaces, and the process that holds them.
pub struct Sandbox {
    pid: u32,
    netns: NetNs,
    // Killed when dropped.
    _holder: Child,
}

impl Sandbox {
    /// Makes the namespaces.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub async fn create(config: SandboxConfig) -> anyhow::Result<Self> {
        let SandboxConfig { hostname, netns } = config;
        let mut stage = Stage::new(super::stage::SANDBOX)?;
        stage.arg(&hostname);
        if let SandboxNetwork::Shared(netns) = &netns {
            stage.arg(format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                netns.as_fd().as_raw_fd()
            ));
        }
        let null = std::process::Stdio::null;
        stage.command.stdin(null()).stdout(null()).stderr(null());
        let Started {
            child: holder, pid, ..
        } = stage
            .start(PidNamespace::Lab)
            .await
            .with_context(|| format!("cannot make the sandbox of {hostname}"))?;
        let netns = match netns {
            SandboxNetwork::Shared(netns) => netns,
            SandboxNetwork::New => NetNs::of_pid(pid)
                .with_context(|| format!("cannot open the network namespace of {hostname}"))?,
        };
        Ok(Self {
            pid,
            netns,
            _holder: holder,
        })
    }

    /// The process that holds the namespaces, as the lab sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The network namespace.
    #[must_use]
    pub fn netns(&self) -> NetNs {
        self.netns.clone()
    }
}
