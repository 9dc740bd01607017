//! Where a cluster comes from.
//!
//! Start from [`Provider`]: one small trait, one file each. What a provider hands over is a
//! [`Cluster`], and everything after that is the same for all of them. Rule: nothing outside this
//! folder asks which provider it is; it asks what the cluster can do.

mod capability;
mod claim;
mod cluster;
mod containers;
mod existing;
mod image;
mod implementation;
mod istio;
mod k3s;
mod kind;
#[cfg(target_os = "linux")]
mod lab;
mod layers;
#[cfg(target_os = "linux")]
mod memory;
mod minikube;
#[cfg(any(test, not(target_os = "linux")))]
mod no_lab;
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(
    target_os = "linux",
    expect(dead_code, reason = "here its test alone uses it")
)]
mod noted;
mod older;
mod plugin;
mod reach;
pub mod registry;
mod serving;
#[cfg(test)]
mod stand_in;
pub(crate) mod step;
mod this_machine;
pub mod tools;
#[cfg(target_os = "linux")]
mod traefik;
mod upstream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use tower::util::MapRequestLayer;

pub use capability::Need;
pub use cluster::{Addon, Balancer, Cluster, Output, Outside};
pub use image::image;
pub(crate) use implementation::is_default;
pub use istio::Istio;
pub use layers::Layers;
pub use plugin::{Denial, Plugin};

use crate::apply::Variant;
use crate::budget;
use crate::pod::not_ready;
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings, nearest};
use crate::stack::Layer;
use crate::wait;
// What is Linux' alone, and what stands in its place elsewhere.
#[cfg(target_os = "linux")]
use {lab::Lab, memory::MemoryFile as PrivateFile};
#[cfg(not(target_os = "linux"))]
use {no_lab::NoLab as Lab, noted::NotedFile as PrivateFile};

/// The providers there are.
pub const PROVIDERS: &[&str] = &["lab", "kind", "minikube", "k3s", "existing"];

/// What has to be done before this process has a second thread.
pub(crate) fn init() {
    Lab::init();
}

/// The provider that the settings name. Nothing is started yet.
///
/// # Errors
/// When there is none of that name, or not on this system.
pub fn choose(settings: &Settings) -> Result<Box<dyn Provider>, BadInput> {
    let name = settings.provider.as_str();
    match name {
        "lab" => return Lab::provider(settings),
        "kind" => return Ok(Box::new(kind::Kind::new(settings)?)),
        "minikube" => return Ok(Box::new(minikube::Minikube::new(settings)?)),
        "k3s" => return Ok(Box::new(k3s::K3s::new(settings)?)),
        "existing" => return Ok(Box::new(existing::Existing::new(settings)?)),
        _ => {}
    }
    let hint = nearest(name, PROVIDERS.iter().copied()).map_or_else(
        || format!("choose one of {}", PROVIDERS.join(", ")),
        |near| format!("did you mean {near}?"),
    );
    Err(BadInput(format!(
        "STRATA_PROVIDER={name} is not a provider; {hint}"
    )))
}

/// Who is told how far a cluster is, for the person who waits.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// What a run is about to do, for whoever has to allow it.
#[derive(Debug)]
pub struct Planned<'a> {
    /// The run, with everything that it may apply.
    pub run: &'a RunInfo,
    /// Each manifest of a check, and of how many.
    pub checks: BTreeMap<&'static str, usize>,
}

/// Makes a cluster and takes it away again.
#[async_trait(?Send)]
pub trait Provider: Send + Sync {
    /// Its name, as `STRATA_PROVIDER` has it.
    fn name(&self) -> &'static str;

    /// Which of a layer's manifests install it in its clusters.
    fn variant(&self, _layer: Layer) -> Variant {
        Variant::of(self.name())
    }

    /// How many trials run side by side where nobody says. Checks wait for traffic rather than compute, so the number
    /// of processors says little; but a real cluster's nodes have other work, too.
    fn side_by_side(&self) -> usize {
        8
    }

    /// Looks whether a run may begin, and changes nothing; `tell` says to the person what it would do.
    /// Who makes a cluster of its own has nobody to ask.
    ///
    /// # Errors
    /// Why it may not.
    async fn preflight(&self, _: &Planned<'_>, _: Progress<'_>) -> Result<(), BadInput> {
        Ok(())
    }

    /// Makes the cluster; `progress` is shown to the person who waits.
    ///
    /// # Errors
    /// A sentence that names what is wrong and what to do.
    async fn create(&self, run: &RunInfo, progress: Progress<'_>) -> anyhow::Result<Arc<Cluster>>;

    /// Writes the logs of the cluster's nodes to a folder that it makes, for a run that is not green; the folder,
    /// or nothing where there is no cluster, or where its nodes are not the provider's to look into.
    ///
    /// # Errors
    /// Why there are none.
    async fn export_logs(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(None)
    }

    /// Leaves the cluster running for the person; returns the lines that say how to reach it and
    /// how to end it.
    async fn keep(&self) -> Vec<String>;

    /// Takes the cluster away; returns what went wrong with that.
    async fn destroy(&self) -> Vec<String>;

    /// How long [`Self::destroy`] may take before the run ends without it.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Where a run's reports have the logs of nodes: beside what the checks collected, so that the next run takes them away.
fn node_logs(report_dir: &Path) -> PathBuf {
    report_dir.join("evidence").join("nodes")
}

/// A client by the text of a kubeconfig: [`client_of`] its current context.
async fn client(kubeconfig: &str) -> anyhow::Result<kube::Client> {
    client_of(Kubeconfig::from_yaml(kubeconfig)?).await
}

/// A client by a kubeconfig, which says in every request whose it is, in the words that
/// the cluster knows.
async fn client_of(kubeconfig: Kubeconfig) -> anyhow::Result<kube::Client> {
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    let agent = http::HeaderValue::from_static("strata");
    config.headers.push((http::header::USER_AGENT, agent));
    let client = kube::Client::try_from(config.clone())?;
    let dialect = older::dialect(&client).await?;
    let translate = move |request| dialect.translated(request);
    let builder = kube::client::ClientBuilder::try_from(config)?;
    Ok(builder.with_layer(&MapRequestLayer::new(translate)).build())
}

/// The version that a cluster's API server tells.
async fn kubernetes(client: &kube::Client) -> anyhow::Result<String> {
    let version = client.apiserver_version().await;
    let version = version.context("the cluster's API server does not tell its version")?;
    Ok(version.git_version)
}

/// The nodes, which have to be such as the probe runs on.
///
/// # Errors
/// When they cannot be listed, or one of them does not run it.
async fn nodes(client: &kube::Client) -> anyhow::Result<Vec<Node>> {
    let nodes = Api::<Node>::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await;
    let nodes = nodes.context("cannot list the nodes")?.items;
    image::runs_on(&nodes)?;
    Ok(nodes)
}

/// Waits until the control plane's pods are ready, which what makes it does not: on a cluster that is a minute
/// old they say little of it. Whether they ever are is a gate's to judge.
async fn settle(client: &kube::Client) {
    let api = Api::<Pod>::namespaced(client.clone(), "kube-system");
    let all = watcher::Config::default();
    let settled = wait::watched("kube-system is ready", budget::CREATE, api, all, |pods| {
        let waiting = pods.iter().find_map(|pod| not_ready(pod));
        waiting.map_or(wait::Progress::Ready(()), wait::Progress::NotYet)
    });
    if let Err(no_verdict) = settled.await {
        tracing::warn!("{}", no_verdict.because());
    }
}
