//! Starting and ending a lab: the processes and namespaces around everything else.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Runs a stage of the lab, if this process is one.
pub fn init() {}

/// What a lab is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabConfig {
    /// How many nodes there are beside the control plane.
    pub workers: usize,
    /// The program behind the image of the host's Envoy.
    pub envoy: Option<PathBuf>,
    /// The nft program.
    pub nft: PathBuf,
    /// Image archives to load on every node.
    pub images: Vec<PathBuf>,
    /// Where the lab's own tracing goes.
    pub log: Option<PathBuf>,
}

/// Why a lab did not start.
#[derive(Debug, thiserror::Error)]
#[error("the lab is not built yet")]
pub struct StartError;

/// A running lab.
#[derive(Debug)]
pub struct Lab(());

/// A lab that lives on alone.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its first process.
    pub pid: u32,
    /// The API server's URL.
    pub server: String,
    /// The kubeconfig's text.
    pub kubeconfig: String,
    /// The kubeconfig as a file.
    pub kubeconfig_path: PathBuf,
}

/// Starts a lab.
///
/// # Errors
/// Always, so far.
pub async fn start(_config: LabConfig) -> Result<Lab, StartError> {
    Err(StartError)
}

impl Lab {
    /// The kubeconfig's text.
    #[must_use]
    pub fn kubeconfig(&self) -> &str {
        ""
    }

    /// The kubeconfig as a file.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        Path::new("")
    }

    /// The API server's URL.
    #[must_use]
    pub fn server(&self) -> &str {
        ""
    }

    /// Its first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        0
    }

    /// The command prefix that enters a network namespace.
    #[must_use]
    pub fn nsenter(&self) -> Vec<String> {
        Vec::new()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it had ended before.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Lets it live on alone.
    ///
    /// # Errors
    /// When it has ended.
    pub fn keep(self) -> io::Result<Kept> {
        Err(io::Error::other("the lab is not built yet"))
    }
}
