//! A cluster, whoever made it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{Istio, Layers, Progress};
use crate::apply::{Definitions, Fit};

/// What the harness knows of the cluster under test.
#[derive(Clone)]
pub struct Cluster {
    /// A client with every right.
    pub client: kube::Client,
    /// A kubeconfig file for programs of the user's.
    pub kubeconfig: PathBuf,
    /// The provider's name, for reports.
    pub provider: &'static str,
    /// What is being judged: `kubernetes`, `envoy`, … with their versions.
    pub versions: BTreeMap<String, String>,
    /// A vantage outside the cluster that reaches node addresses, if there is one.
    pub outside: Option<Arc<dyn Outside>>,
    /// Who gives Services of `type: LoadBalancer` their addresses.
    pub load_balancer: Balancer,
    /// What brings up the Ingress layer, where that is not manifests.
    pub ingress: Option<Arc<dyn Addon>>,
    /// What brings up the Gateway layer, where that is not manifests.
    pub gateway: Option<Arc<dyn Addon>>,
    /// What brings up the mesh, where that is not manifests.
    pub istio: Option<Istio>,
    /// Whether it was made for the run, so that nobody else suffers from what is changed in all of it.
    pub ours: bool,
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

impl Cluster {
    /// One that another project's program made for the run, with every layer and nothing beside it.
    pub(super) fn made(
        provider: &'static str,
        client: kube::Client,
        kubeconfig: &Path,
        versions: BTreeMap<String, String>,
    ) -> Self {
        Self {
            client,
            kubeconfig: kubeconfig.to_owned(),
            provider,
            versions,
            outside: None,
            load_balancer: Balancer::none(),
            ingress: None,
            gateway: None,
            istio: None,
            ours: true,
            layers: Layers::all(),
            fit: Fit {
                definitions: Definitions::Theirs,
                ..Fit::default()
            },
            node_network: Ok(()),
            pid_annotation: None,
            nsenter: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// Who gives Services of `type: LoadBalancer` their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balancer {
    /// Nobody, and why.
    None(String),
    /// An implementation that has addresses of its own.
    Own,
    /// One that gives them their own cluster IPs, as `minikube tunnel` does: for kube-proxy such an
    /// address is a cluster IP and nothing else.
    ClusterIps,
}

impl Balancer {
    /// Nobody, and there is no more to say.
    #[must_use]
    pub fn none() -> Self {
        Self::None("this cluster has none".to_owned())
    }
}

/// A part of a cluster that its provider brings up in a way of its own.
#[async_trait(?Send)]
pub trait Addon: Send + Sync {
    /// Brings it up, and waits until it is.
    ///
    /// # Errors
    /// A sentence that names what is wrong and what to do.
    async fn enable(&self, progress: Progress<'_>) -> anyhow::Result<()>;
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
