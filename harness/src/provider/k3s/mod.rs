//! Clusters of k3s, whose nodes are containers of its own image.
//!
//! Start from [`K3s`]. As k3s' documentation runs it in Docker: a server, and agents that join it by a secret, on a
//! network of the cluster's own ([`nodes`]). There is no program of k3s' to ask on this machine, so everything is a
//! command of the container engine, and everything carries the cluster's label. Whose a cluster is says a file that
//! its run holds locked (`claim`), as with kind.

mod bundled;
mod nodes;
mod wanted;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::Mutex;

use self::nodes::Nodes;
use self::wanted::Wanted;
use super::claim::{self, Claim};
use super::containers::{Beside, Engine, Parts, all_ready};
use super::image::Archive;
use super::serving::{self, Serving};
use super::{Cluster, Istio, Layers, Progress, Provider, istio};
use crate::asset::Assets;
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};
use crate::stack::Layer;
use crate::verdict::NoVerdict;

/// Makes a cluster of k3s and removes it.
pub(super) struct K3s {
    /// Where the engine is looked for.
    path: OsString,
    state: Option<PathBuf>,
    wanted: Wanted,
    assets: Assets,
    istio: istio::Wanted,
    serving: Serving,
    report_dir: PathBuf,
    made: Mutex<Option<Made>>,
}

/// What there is to remove.
#[derive(Debug)]
struct Made {
    nodes: Nodes,
    claim: Claim,
    kubeconfig: PathBuf,
}

impl K3s {
    /// A k3s cluster by the settings. Nothing is started yet.
    ///
    /// # Errors
    /// When they ask for a CNI or for address families that this provider has not.
    pub(super) fn new(settings: &Settings) -> Result<Self, BadInput> {
        if settings.k3s_bundled {
            let layers = [Layer::Ingress, Layer::Gateway];
            serving::refused(settings, &layers, "STRATA_K3S_BUNDLED takes k3s' own")?;
        }
        Ok(Self {
            path: std::env::var_os("PATH").unwrap_or_default(),
            state: claim::folder("k3s"),
            wanted: Wanted::by(settings)?,
            assets: Assets::new(settings)?,
            istio: istio::Wanted::by(settings)?,
            serving: Serving::by(settings)?,
            report_dir: settings.report_dir.clone(),
            made: Mutex::default(),
        })
    }

    async fn make(
        &self,
        made: &Made,
        run: &RunInfo,
        progress: Progress<'_>,
    ) -> anyhow::Result<Cluster> {
        // Looked for first: what cannot be had is not missed half-way.
        let istio = self.istio.find(run).await?;
        let parts = match self.wanted.bundled {
            true => None,
            false => Some(Parts::find(&self.serving, Ok(()), &self.assets, run, progress).await),
        };
        let nodes = &made.nodes;
        progress("creating the k3s cluster");
        let kubeconfig = nodes.start(&self.wanted).await?;
        write_kubeconfig(&made.kubeconfig, &kubeconfig)
            .with_context(|| format!("cannot write {}", made.kubeconfig.display()))?;
        let client = super::client(&kubeconfig)
            .await
            .context("k3s' kubeconfig is of no use")?;
        progress("waiting for the nodes");
        if self.wanted.has_network() {
            all_ready(&client, self.wanted.nodes()).await?;
        }
        super::nodes(&client).await?;
        progress("loading the probe's image");
        let archive = Archive::write(&self.report_dir)?;
        nodes.load(archive.path(), &self.wanted).await?;
        progress("starting the vantage outside");
        let beside = (nodes.cluster(), nodes.cluster());
        let outside = Beside::start(nodes.engine(), beside, archive.path()).await?;
        progress("waiting for the system's own pods");
        super::settle(&client).await;
        self.described(made, run, (client, outside, istio, parts), progress)
            .await
    }

    async fn described(
        &self,
        made: &Made,
        run: &RunInfo,
        (client, outside, istio, parts): (
            kube::Client,
            Beside,
            Result<Istio, String>,
            Option<Parts>,
        ),
        progress: Progress<'_>,
    ) -> anyhow::Result<Cluster> {
        let engine = made.nodes.engine();
        let mut versions = BTreeMap::from([
            ("kubernetes".to_owned(), super::kubernetes(&client).await?),
            (engine.name().to_owned(), engine.version()),
        ]);
        let (layers, istio) = istio::told(istio, Layers::all(), &mut versions);
        let cluster = Cluster {
            outside: Some(Arc::new(outside)),
            istio,
            layers,
            ..Cluster::made(self.name(), client, &made.kubeconfig, versions)
        };
        Ok(match parts {
            Some(parts) => {
                let on = (engine, made.nodes.cluster());
                parts.give(cluster, on, run, progress).await
            }
            None => bundled::on(cluster),
        })
    }
}

#[async_trait(?Send)]
impl Provider for K3s {
    fn name(&self) -> &'static str {
        "k3s"
    }

    async fn create(&self, run: &RunInfo, progress: Progress<'_>) -> anyhow::Result<Arc<Cluster>> {
        let engine = Engine::find(None, &self.path).await?;
        let state = claim::noted(self.state.as_deref(), "clusters")?;
        for abandoned in claim::abandoned(state)? {
            progress(&abandoned.left_behind());
            remove(&Nodes::of(&engine, abandoned.name()), abandoned).await?;
        }
        let name = format!("strata-{}", run.id);
        let mut slot = self.made.lock().await;
        let made = slot.insert(Made {
            nodes: Nodes::of(&engine, &name),
            claim: Claim::new(state, &name, "")?,
            kubeconfig: self.report_dir.join("kubeconfig"),
        });
        Ok(Arc::new(self.make(made, run, progress).await?))
    }

    async fn export_logs(&self) -> anyhow::Result<Option<PathBuf>> {
        let slot = self.made.lock().await;
        let Some(made) = slot.as_ref() else {
            return Ok(None);
        };
        let logs = super::node_logs(&self.report_dir);
        made.nodes.export_logs(&logs).await?;
        Ok(Some(logs))
    }

    async fn keep(&self) -> Vec<String> {
        let Some(made) = self.made.lock().await.take() else {
            return Vec::new();
        };
        made.claim
            .keep_cluster(self.name(), &made.kubeconfig, Vec::new())
    }

    async fn destroy(&self) -> Vec<String> {
        let Some(made) = self.made.lock().await.take() else {
            return Vec::new();
        };
        let gone = remove(&made.nodes, made.claim).await;
        let _ = tokio::fs::remove_file(&made.kubeconfig).await;
        let troubles = gone
            .err()
            .map(|error| NoVerdict::from(error).because().to_owned());
        troubles.into_iter().collect()
    }

    fn patience(&self) -> Duration {
        nodes::PATIENCE
    }
}

/// Removes a cluster and the claim to it.
async fn remove(nodes: &Nodes, claim: Claim) -> anyhow::Result<()> {
    claim.drop_removed("k3s", nodes.remove().await)
}

/// It holds the administrator's key.
fn write_kubeconfig(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = File::options();
    let options = options.create(true).truncate(true).write(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}
