//! Clusters of minikube, made and deleted by its own command.
//!
//! Start from [`Minikube`]. The driver is minikube's choice or the person's (`MINIKUBE_DRIVER`); each run has a
//! profile of its own (`cli`), so nobody's is touched. The vantage outside is this machine, where it reaches the
//! nodes; there load balancers are `minikube tunnel`'s (`tunnel`), and the Ingress controller is its addon's
//! (`ingress`). Whose a profile is says a file that its run holds locked (`claim`). Rule: what it says when it fails
//! is said in one sentence with the remedy (`complaint`).
//!
//! ```text
//! create: claim ─► start ─► image load ─► outside? ─► tunnel?     destroy: tunnel ─► delete ─► claim
//! ```

mod cli;
mod complaint;
mod ingress;
mod tunnel;

// This machine is the vantage outside in most of them, which it is on Linux alone.
#[cfg(test)]
#[cfg(target_os = "linux")]
mod stand_in;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use tokio::sync::Mutex;

use self::cli::Cli;
use self::ingress::IngressAddon;
use self::tunnel::Tunnel;
use super::claim::{self, Claim};
use super::image::Archive;
use super::serving::{self, Serving, serve};
use super::this_machine::{self, ThisMachine};
use super::{Addon, Balancer, Cluster, Layers, Outside, Progress, Provider, istio, tools};
use crate::asset::Assets;
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};
use crate::stack::Layer;
use crate::verdict::NoVerdict;

/// What `--cni` takes beside the path of a manifest.
const CNIS: &[&str] = &["bridge", "calico", "cilium", "flannel", "kindnet"];
/// Two workers, so that traffic crosses nodes that run pods.
const NODES: usize = 3;
/// What minikube itself allows a part of the cluster to get ready.
const READY: &str = "--wait-timeout=4m0s";

/// How long its commands may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    start: Duration,
    load: Duration,
    enable: Duration,
    /// Until a tunnel has added its route, which it tries every few seconds.
    tunnel: Duration,
    stop: Duration,
    delete: Duration,
    logs: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            start: s(270),
            load: s(90),
            enable: s(220),
            tunnel: s(30),
            stop: s(15),
            delete: s(120),
            logs: s(40),
        }
    }
}

/// Makes a minikube cluster and deletes it.
pub(super) struct Minikube {
    program: Option<PathBuf>,
    /// Where `sudo` is looked for.
    path: OsString,
    state: Option<PathBuf>,
    /// Where minikube keeps its profiles, if not where it always does.
    home: Option<String>,
    /// What `minikube start` is told of the cluster.
    wanted: Vec<String>,
    istio: istio::Wanted,
    serving: Serving,
    assets: Assets,
    report_dir: PathBuf,
    limits: Limits,
    made: Mutex<Option<Made>>,
}

/// What there is to remove.
#[derive(Debug)]
struct Made {
    cli: Arc<Cli>,
    claim: Claim,
    tunnel: Option<Tunnel>,
}

impl Minikube {
    /// A minikube cluster by the settings. Nothing is started yet.
    ///
    /// # Errors
    /// When they ask for what minikube has not.
    pub(super) fn new(settings: &Settings) -> Result<Self, BadInput> {
        serving::refused(
            settings,
            &[Layer::Ingress],
            "minikube's own addon serves them",
        )?;
        Ok(Self {
            program: settings.minikube.clone(),
            path: std::env::var_os("PATH").unwrap_or_default(),
            state: claim::folder("minikube"),
            home: std::env::var(cli::HOME)
                .ok()
                .filter(|home| !home.is_empty()),
            wanted: wanted(settings)?,
            istio: istio::Wanted::by(settings)?,
            serving: Serving::by(settings)?,
            assets: Assets::new(settings)?,
            report_dir: settings.report_dir.clone(),
            limits: Limits::default(),
            made: Mutex::default(),
        })
    }

    /// The program, about a profile.
    async fn cli(&self, profile: &str, home: Option<String>) -> anyhow::Result<Cli> {
        Ok(Cli {
            tool: tools::minikube(self.program.as_deref()).await?,
            profile: profile.to_owned(),
            kubeconfig: self.report_dir.join("kubeconfig"),
            home,
        })
    }

    /// Removes what runs left behind that were killed.
    async fn sweep(&self, state: &Path, progress: Progress<'_>) -> anyhow::Result<()> {
        for abandoned in claim::abandoned(state)? {
            let name = abandoned.name().to_owned();
            progress(&abandoned.left_behind());
            let home = home(&abandoned.about()?).or_else(|| self.home.clone());
            let cli = self.cli(&name, home).await?;
            remove(&cli, abandoned, self.limits.delete).await?;
        }
        Ok(())
    }

    async fn make(
        &self,
        made: &mut Made,
        run: &RunInfo,
        progress: Progress<'_>,
    ) -> anyhow::Result<Cluster> {
        // Looked for first: a program that was named and is none is said before anything is started.
        let istio = self.istio.find(run).await?;
        let gateway = self.serving.gateway;
        let gateway = gateway
            .find(run, Layer::Gateway, &self.assets, progress)
            .await;
        let cli = Arc::clone(&made.cli);
        progress("creating the minikube cluster");
        self.start(&cli).await?;
        progress("loading the probe's image");
        self.load(&cli).await?;
        let kubeconfig = tokio::fs::read_to_string(&cli.kubeconfig)
            .await
            .with_context(|| format!("minikube did not write {}", cli.kubeconfig.display()))?;
        let client = super::client(&kubeconfig)
            .await
            .context("minikube's kubeconfig is of no use")?;
        progress("waiting for the system's own pods");
        super::settle(&client).await;
        let (outside, load_balancer) = self.outside(made, &client, progress).await?;
        let mut versions = BTreeMap::from([
            ("kubernetes".to_owned(), super::kubernetes(&client).await?),
            ("minikube".to_owned(), cli.tool.version.to_string()),
        ]);
        let (layers, istio) = istio::told(istio, Layers::all(), &mut versions);
        let cluster = Cluster {
            outside,
            load_balancer,
            ingress: Some(self.addon(&cli, &client)),
            istio,
            layers,
            ..Cluster::made(self.name(), client, &cli.kubeconfig, versions)
        };
        Ok(serve(cluster, (None, gateway), run))
    }

    async fn start(&self, cli: &Cli) -> anyhow::Result<()> {
        // A context of an earlier run would be kept beside the new one.
        let _ = tokio::fs::remove_file(&cli.kubeconfig).await;
        let mut arguments = vec![
            "start",
            "--output=json",
            "--interactive=false",
            "--embed-certs",
            READY,
        ];
        arguments.extend(self.wanted.iter().map(String::as_str));
        let started = cli
            .run("creating a cluster", self.limits.start, &arguments)
            .await;
        started.map(drop).context(
            "minikube made no cluster (a first run also fetches what clusters are made of: minikube start \
             --download-only does that beforehand)",
        )
    }

    /// Loads the probe into the nodes. Whether it worked is seen by looking: `minikube image load` ends with
    /// exit code 0 also where it loads nothing (kubernetes/minikube issue 21393).
    async fn load(&self, cli: &Cli) -> anyhow::Result<()> {
        let archive = Archive::write(&self.report_dir)?;
        let path = archive.path().display().to_string();
        let load = ["image", "load", &path];
        cli.run("loading the probe's image", self.limits.load, &load)
            .await?;
        let list = ["image", "ls", "--format=short"];
        let images = cli
            .run("listing the nodes' images", self.limits.load, &list)
            .await?;
        let image = strata_probe::image::REFERENCE;
        if !images.lines().any(|line| line.trim() == image) {
            bail!(
                "minikube image load ended well, and the nodes have no image {image}; its log says more than its \
                 exit code: minikube logs --profile {}",
                cli.profile
            );
        }
        Ok(())
    }

    /// The vantage outside, and who gives load balancers their addresses: both are there where this machine
    /// reaches the nodes.
    async fn outside(
        &self,
        made: &mut Made,
        client: &kube::Client,
        progress: Progress<'_>,
    ) -> anyhow::Result<(Option<Arc<dyn Outside>>, Balancer)> {
        let nodes = super::nodes(client).await?;
        if let Err(why) = this_machine::sees(&nodes).await {
            progress(&format!("no vantage outside, and so no tunnel: {why}"));
            return Ok((
                None,
                Balancer::None(format!("minikube tunnel would lead nowhere: {why}")),
            ));
        }
        let outside: Arc<dyn Outside> = Arc::new(ThisMachine::new()?);
        progress("starting minikube tunnel");
        let tunnel = Tunnel::start(&made.cli, &self.path, self.limits.tunnel).await;
        let balancer = match tunnel {
            Ok(tunnel) => {
                made.tunnel = Some(tunnel);
                Balancer::ClusterIps
            }
            Err(why) => {
                progress(&format!("no load balancers: {why}"));
                Balancer::None(why)
            }
        };
        Ok((Some(outside), balancer))
    }

    fn addon(&self, cli: &Arc<Cli>, client: &kube::Client) -> Arc<dyn Addon> {
        Arc::new(IngressAddon {
            cli: Arc::clone(cli),
            client: client.clone(),
            limit: self.limits.enable,
        })
    }
}

#[async_trait(?Send)]
impl Provider for Minikube {
    fn name(&self) -> &'static str {
        "minikube"
    }

    async fn create(&self, run: &RunInfo, progress: Progress<'_>) -> anyhow::Result<Arc<Cluster>> {
        let state = claim::noted(self.state.as_deref(), "profiles")?;
        let profile = format!("strata-{}", run.id);
        let cli = self.cli(&profile, self.home.clone()).await?;
        self.sweep(state, progress).await?;
        let about = cli.home.as_ref().map(|home| format!("home {home}\n"));
        let mut slot = self.made.lock().await;
        let made = slot.insert(Made {
            cli: Arc::new(cli),
            claim: Claim::new(state, &profile, about.unwrap_or_default())?,
            tunnel: None,
        });
        Ok(Arc::new(self.make(made, run, progress).await?))
    }

    async fn export_logs(&self) -> anyhow::Result<Option<PathBuf>> {
        let slot = self.made.lock().await;
        let Some(made) = slot.as_ref() else {
            return Ok(None);
        };
        let folder = super::node_logs(&self.report_dir);
        tokio::fs::create_dir_all(&folder).await?;
        let file = folder.join("minikube.log").display().to_string();
        let arguments = ["logs", "--file", &file];
        let exported = made
            .cli
            .run("exporting minikube's logs", self.limits.logs, &arguments);
        match exported.await {
            Ok(_) => Ok(Some(folder)),
            // There are none of a cluster that was not begun.
            Err(error) => {
                tracing::warn!("no logs of the nodes: {error:#}");
                Ok(None)
            }
        }
    }

    async fn keep(&self) -> Vec<String> {
        let Some(made) = self.made.lock().await.take() else {
            return Vec::new();
        };
        let Made { cli, claim, tunnel } = made;
        let name = &cli.profile;
        let mut lines = Vec::new();
        if let Ok(ip) = cli
            .run("asking for its address", self.limits.stop, &["ip"])
            .await
        {
            lines.push(format!(
                "its first node, where the addon ingress serves: {}",
                ip.trim()
            ));
        }
        if let Some(tunnel) = tunnel {
            lines.extend(tunnel.stop(self.limits.stop).await);
            lines.push(format!(
                "its tunnel has ended; start it again: minikube tunnel -p {name}"
            ));
        }
        claim.keep_cluster(self.name(), &cli.kubeconfig, lines)
    }

    async fn destroy(&self) -> Vec<String> {
        let Some(made) = self.made.lock().await.take() else {
            return Vec::new();
        };
        let Made { cli, claim, tunnel } = made;
        let mut troubles = Vec::new();
        // First: it ends by itself once the cluster is gone, but says that something is wrong.
        if let Some(tunnel) = tunnel {
            troubles.extend(tunnel.stop(self.limits.stop).await);
        }
        let gone = remove(&cli, claim, self.limits.delete).await;
        let _ = tokio::fs::remove_file(&cli.kubeconfig).await;
        let because = |error| NoVerdict::from(error).because().to_owned();
        troubles.extend(gone.err().map(because));
        troubles
    }

    fn patience(&self) -> Duration {
        self.limits.stop + self.limits.delete + Duration::from_secs(15)
    }
}

/// Removes a profile, and the claim to it.
async fn remove(cli: &Cli, claim: Claim, limit: Duration) -> anyhow::Result<()> {
    let deleted = cli.run("deleting the cluster", limit, &["delete"]).await;
    claim.drop_removed("minikube", deleted.map(drop))
}

/// Where the profile of a claim is, by what its run noted.
fn home(about: &str) -> Option<String> {
    about
        .lines()
        .find_map(|line| line.strip_prefix("home "))
        .map(str::to_owned)
}

/// What `minikube start` is told of the cluster.
fn wanted(settings: &Settings) -> Result<Vec<String>, BadInput> {
    let nodes = settings.nodes.unwrap_or(NODES);
    let mut wanted = vec![format!("--nodes={nodes}")];
    wanted.extend(cni(settings, nodes)?);
    if let Some(version) = &settings.kubernetes_version {
        wanted.push(format!("--kubernetes-version={version}"));
    }
    if let Some(family) = settings
        .ip_family
        .as_deref()
        .filter(|family| *family != "ipv4")
    {
        return Err(BadInput(format!(
            "STRATA_IP_FAMILY={family} is not what minikube makes; leave it out, or choose ipv4"
        )));
    }
    Ok(wanted)
}

/// Which pod network, and what to wait for: without one no pod gets ready, the system's neither.
fn cni(settings: &Settings, nodes: usize) -> Result<Vec<String>, BadInput> {
    let wait = |what: &str| format!("--wait={what}");
    match settings.cni.as_deref() {
        None => Ok(vec![wait("all")]),
        Some("none") => Ok(vec!["--cni=false".to_owned(), wait("apiserver")]),
        Some("bridge") if nodes > 1 => Err(BadInput(
            "STRATA_CNI=bridge joins the pods of one node only, and minikube refuses it with more; choose \
             another, or STRATA_NODES=1"
                .to_owned(),
        )),
        Some(known) if CNIS.contains(&known) => Ok(vec![format!("--cni={known}"), wait("all")]),
        Some(path) if path.contains('/') => {
            let path = crate::settings::workspace().join(path);
            if !path.is_file() {
                return Err(BadInput(format!("STRATA_CNI names {}, which is not a file", path.display())));
            }
            Ok(vec![format!("--cni={}", path.display()), wait("all")])
        }
        Some(other) => Err(BadInput(format!(
            "STRATA_CNI={other} is not a CNI of minikube; choose one of {}, none, or the path of a manifest",
            CNIS.join(", ")
        ))),
    }
}
