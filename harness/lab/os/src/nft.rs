//! nftables, through its own program: one script, one transaction.
//!
//! Start from [`Nft::apply`]. What the rules say is the work of whoever writes them: the Service
//! proxy, the CNI's masquerading, a sidecar's redirection.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::netns::NetNs;

/// The `nft` program.
#[derive(Debug, Clone)]
pub struct Nft(PathBuf);

impl Nft {
    /// The program at a path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Applies a script in a network namespace: all of it, or nothing.
    ///
    /// # Errors
    /// When the program cannot be started, or refuses the script; the text holds its own words.
    pub async fn apply(&self, netns: &NetNs, script: &str) -> anyhow::Result<()> {
        self.run(netns, &["-f", "-"], script).await.map(drop)
    }

    /// Runs the program with arguments and standard input; returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started, or fails; the text holds its own words.
    pub async fn run(
        &self,
        netns: &NetNs,
        arguments: &[&str],
        stdin: &str,
    ) -> anyhow::Result<String> {
        let mut command = Command::new(&self.0);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = netns
            .spawn(&mut command)
            .with_context(|| format!("cannot start {}", self.0.display()))?;
        if let Some(mut pipe) = child.stdin.take() {
            // One that refuses early stops reading; what it said is worth more than the broken pipe.
            let _ = pipe.write_all(stdin.as_bytes()).await;
        }
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            bail!(
                "nft failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
