//! A cluster, whoever made it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::Layers;
use crate::apply::Fit;

/// What the harness knows of the cluster under test.
#[derive(Clone)]
pub struct Cluster {
    /// A client with every right.
    pub client: kube::Client,
    /// A kubeconfig file for programs of the user's.
    pub kubeconfig: PathBuf,
    /// The provider's name, for reports.
    pub provider: &'static str,
    /// The folder of `manifests/<layer>/` variants that suit this cluster: `lab`, …
    pub profile: &'static str,
    /// What is being judged: `kubernetes`, `envoy`, … with their versions.
    pub versions: BTreeMap<String, String>,
    /// A vantage outside the cluster that reaches node addresses, if there is one.
    pub outside: Option<Arc<dyn Outside>>,
    /// Whether Services of `type: LoadBalancer` are given addresses.
    pub load_balancer: bool,
    /// Which layers can be judged on it.
    pub layers: Layers,
    /// What it calls the things that manifests name.
    pub fit: Fit,
    /// Whether it takes pods that use their node's network or ports, which the Pod Security Standards
    /// baseline and restricted forbid; or what it answered.
    pub node_network: Result<(), String>,
    /// The annotation of Nodes and Pods that holds the id of a process in their network namespace,
    /// where the harness runs on the same machine.
    pub pid_annotation: Option<&'static str>,
    /// The command prefix that enters such a process' network namespace; the process id follows it.
    pub nsenter: Vec<String>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// Runs the probe outside the cluster.
#[async_trait]
pub trait Outside: Send + Sync {
    /// Runs a command of the probe's image to its end.
    ///
    /// # Errors
    /// When it cannot be run; a non-zero exit code is not an error.
    async fn run(&self, command: &[String], stdin: &[u8]) -> anyhow::Result<Output>;
}

/// What a command came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub exit_code: i32,
    /// Everything it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to its standard error.
    pub stderr: Vec<u8>,
}
