//! Clusters of kind, made and deleted by its own command.
//!
//! Start from [`Kind`]. kind's nodes are containers on a network of their own, so the vantage
//! outside is a container beside them: that reaches node addresses also where the nodes' machine is
//! a virtual one. Whose a cluster is says a file that its run holds locked (`claim`): what a run
//! leaves behind that was killed, the next one removes.

mod balancer;
mod plugin;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::Mutex;

use self::balancer::{CloudProvider, Program};
use self::plugin::{Network, Plugin, Waiting};
use super::claim::{self, Claim};
use super::containers::{Beside, Engine, Parts, remove_beside};
use super::image::Archive;
use super::serving::Serving;
use super::step::Step;
use super::tools::{self, Tool};
use super::{Balancer, Cluster, Istio, Layers, Progress, Provider, istio};
use crate::asset::Assets;
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};
use crate::stack::Layer;
use crate::verdict::NoVerdict;

/// As kind itself waits for nodes to become Ready.
const READY: &str = "180s";
/// Nodes, images and all; a first run also pulls the node image.
const CREATE: Duration = Duration::from_secs(280);
const LOAD: Duration = Duration::from_secs(120);
const DELETE: Duration = Duration::from_secs(50);
const ASK: Duration = Duration::from_secs(20);
const EXPORT: Duration = Duration::from_secs(40);

/// kind's own variable for which engine it takes.
const ENGINE: &str = "KIND_EXPERIMENTAL_PROVIDER";
/// kind's own variable for the network that its nodes are on.
const NETWORK: &str = "KIND_EXPERIMENTAL_DOCKER_NETWORK";

/// What its clusters look like: two workers, so that traffic crosses nodes that run pods.
const NODES: &str = "nodes: [{role: control-plane}, {role: worker}, {role: worker}]";
const NODE_COUNT: usize = 3;

/// Makes a kind cluster and deletes it.
pub(super) struct Kind {
    program: Option<PathBuf>,
    /// Where programs are looked for, and which engine is asked for.
    path: OsString,
    engine: Option<String>,
    /// The engine's network that kind puts nodes on.
    network: String,
    state: Option<PathBuf>,
    node_image: Option<String>,
    config: String,
    plugin: Plugin,
    assets: Assets,
    istio: istio::Wanted,
    serving: Serving,
    balancer: balancer::Wanted,
    report_dir: PathBuf,
    made: Mutex<Option<Made>>,
}

/// What there is to remove.
#[derive(Debug)]
struct Made {
    kind: Tool,
    engine: Engine,
    claim: Claim,
    kubeconfig: PathBuf,
    cloud_provider: Option<CloudProvider>,
}

impl Kind {
    /// A kind cluster by the settings. Nothing is started yet.
    ///
    /// # Errors
    /// When they ask for a CNI or for address families that this provider has not.
    pub(super) fn new(settings: &Settings) -> Result<Self, BadInput> {
        Ok(Self {
            program: settings.kind.clone(),
            path: std::env::var_os("PATH").unwrap_or_default(),
            engine: std::env::var(ENGINE).ok().filter(|name| !name.is_empty()),
            network: std::env::var(NETWORK).unwrap_or_else(|_| "kind".to_owned()),
            state: claim::folder("kind"),
            node_image: settings.node_image.clone(),
            config: config(settings)?,
            plugin: Plugin::by(settings)?,
            assets: Assets::new(settings)?,
            istio: istio::Wanted::by(settings)?,
            serving: Serving::by(settings)?,
            balancer: balancer::Wanted::by(settings)?,
            report_dir: settings.report_dir.clone(),
            made: Mutex::default(),
        })
    }

    async fn make(
        &self,
        made: &mut Made,
        run: &RunInfo,
        progress: Progress<'_>,
    ) -> anyhow::Result<Cluster> {
        // Looked for first: a program that was named and is none is said before anything is started.
        let istio = self.istio.find(run).await?;
        let network = self.plugin.find(&self.assets, progress).await?;
        let (parts, program) = self.parts(made, run, progress).await?;
        let name = made.claim.name();
        progress("creating the kind cluster");
        let mut arguments = vec!["create", "cluster", "--name", name, "--config", "-"];
        arguments.push("--retain");
        if !self.plugin.replaces_kinds() {
            // No other is there as long as kind waits.
            arguments.extend(["--wait", READY]);
        }
        if let Some(image) = &self.node_image {
            arguments.extend(["--image", image]);
        }
        let created = made.kind("creating a cluster", CREATE, &arguments);
        let created = created.kubeconfig(&made.kubeconfig).input(&self.config);
        created.run().await?;
        progress("loading the probe's image");
        let archive = Archive::write(&self.report_dir)?;
        let load = ["load", "image-archive", "--name", name];
        let load = made.kind("loading the probe's image", LOAD, &load);
        load.argument(archive.path()).run().await?;
        progress("starting the vantage outside");
        let beside = (name, self.network.as_str());
        let outside = Beside::start(&made.engine, beside, archive.path()).await?;
        let cluster = self.described(made, run, (outside, istio, network), progress);
        let mut cluster = cluster.await?;
        if let Some(program) = program {
            progress("starting cloud-provider-kind");
            cluster.load_balancer = self.balanced(made, &program, &cluster.client).await;
        }
        let on = (&made.engine, self.network.as_str());
        Ok(parts.give(cluster, on, run, progress).await)
    }

    /// What the cluster will be given, and the program that gives load balancers their addresses where MetalLB does not.
    async fn parts(
        &self,
        made: &Made,
        run: &RunInfo,
        progress: Progress<'_>,
    ) -> anyhow::Result<(Parts, Option<Program>)> {
        use balancer::Wanted;

        let program = async || {
            let told = made.kind("asking for other clusters", ASK, &["get", "clusters"]);
            let others: Vec<_> = told.run().await?.lines().map(str::to_owned).collect();
            anyhow::Ok(Program::find(&self.path, &others))
        };
        let wanted = match &self.balancer {
            Wanted::CloudProvider => {
                let found = program().await?;
                let found = found.map_err(|why| anyhow::anyhow!("STRATA_LOAD_BALANCER: {why}"))?;
                Some(found)
            }
            Wanted::Either | Wanted::MetalLb => None,
        };
        let metallb = match &wanted {
            Some(_) => Err("cloud-provider-kind is there in its place".to_owned()),
            None => Ok(()),
        };
        let parts = Parts::find(&self.serving, metallb, &self.assets, run, progress).await;
        let planned = run.manifests.layer(Layer::Services).is_some();
        let instead = self.balancer == Wanted::Either && planned && parts.lacks_metallb();
        let program = match wanted {
            None if instead => program().await?.ok(),
            wanted => wanted,
        };
        Ok((parts, program))
    }

    /// Starts what gives load balancers their addresses; who they have them from then.
    async fn balanced(
        &self,
        made: &mut Made,
        program: &Program,
        client: &kube::Client,
    ) -> Balancer {
        let on = (&made.engine, self.network.as_str());
        let started = CloudProvider::start(program, on, &self.report_dir).await;
        let works = async { made.cloud_provider.insert(started?).works(client).await };
        match works.await {
            Ok(()) => Balancer::Own,
            Err(error) => Balancer::None(format!("cloud-provider-kind did not come up: {error:#}")),
        }
    }

    async fn described(
        &self,
        made: &Made,
        run: &RunInfo,
        (outside, istio, network): (Beside, Result<Istio, String>, Network),
        progress: Progress<'_>,
    ) -> anyhow::Result<Cluster> {
        let kubeconfig = tokio::fs::read_to_string(&made.kubeconfig)
            .await
            .with_context(|| format!("kind did not write {}", made.kubeconfig.display()))?;
        let client = super::client(&kubeconfig)
            .await
            .context("kind's kubeconfig is of no use")?;
        let nodes = match network.is_in_nodes() {
            true => made.nodes().await?,
            false => Vec::new(),
        };
        let waiting = Waiting {
            client: &client,
            kubeconfig: &made.kubeconfig,
            engine: &made.engine,
            nodes: &nodes,
        };
        network.install(waiting, run, progress).await?;
        progress("waiting for the system's own pods");
        super::nodes(&client).await?;
        super::settle(&client).await;
        let mut versions = BTreeMap::from([
            ("kubernetes".to_owned(), super::kubernetes(&client).await?),
            ("kind".to_owned(), made.kind.version.to_string()),
            (made.engine.name().to_owned(), made.engine.version()),
        ]);
        versions.extend(network.shown());
        let (layers, istio) = istio::told(istio, Layers::all(), &mut versions);
        Ok(Cluster {
            outside: Some(Arc::new(outside)),
            istio,
            layers,
            ..Cluster::made(self.name(), client, &made.kubeconfig, versions)
        })
    }
}

#[async_trait(?Send)]
impl Provider for Kind {
    fn name(&self) -> &'static str {
        "kind"
    }

    async fn create(&self, run: &RunInfo, progress: Progress<'_>) -> anyhow::Result<Arc<Cluster>> {
        let choice = self.engine.as_deref().map(|name| (ENGINE, name));
        let engine = Engine::find(choice, &self.path).await?;
        let state = claim::noted(self.state.as_deref(), "clusters")?;
        let kind = tools::kind(self.program.as_deref()).await?;
        for abandoned in claim::abandoned(state)? {
            progress(&abandoned.left_behind());
            remove(&kind, &engine, abandoned).await?;
        }
        let mut slot = self.made.lock().await;
        let made = slot.insert(Made {
            kind,
            engine,
            claim: Claim::new(state, &format!("strata-{}", run.id), "")?,
            kubeconfig: self.report_dir.join("kubeconfig"),
            cloud_provider: None,
        });
        Ok(Arc::new(self.make(made, run, progress).await?))
    }

    async fn export_logs(&self) -> anyhow::Result<Option<PathBuf>> {
        let slot = self.made.lock().await;
        let Some(made) = slot.as_ref() else {
            return Ok(None);
        };
        let logs = super::node_logs(&self.report_dir);
        let arguments = ["export", "logs", "--name", made.claim.name()];
        let export = made.kind("exporting the nodes' logs", EXPORT, &arguments);
        if let Err(error) = export.argument(&logs).run().await {
            // kind goes on with the others where a node does not give one of its logs.
            if !logs.is_dir() {
                return Err(error);
            }
            tracing::warn!("not all of the nodes' logs could be had: {error:#}");
        }
        Ok(Some(logs))
    }

    async fn keep(&self) -> Vec<String> {
        let Some(made) = self.made.lock().await.take() else {
            return Vec::new();
        };
        let still = made.cloud_provider.map(|_| {
            "its load balancers stand still: cloud-provider-kind has ended with the run; start it again".to_owned()
        });
        made.claim
            .keep_cluster(self.name(), &made.kubeconfig, Vec::from_iter(still))
    }

    async fn destroy(&self) -> Vec<String> {
        let Some(made) = self.made.lock().await.take() else {
            return Vec::new();
        };
        let ended = match made.cloud_provider {
            Some(cloud_provider) => cloud_provider.stop().await,
            None => None,
        };
        let gone = remove(&made.kind, &made.engine, made.claim).await;
        let _ = tokio::fs::remove_file(&made.kubeconfig).await;
        let troubles = gone
            .err()
            .map(|error| NoVerdict::from(error).because().to_owned());
        ended.into_iter().chain(troubles).collect()
    }
}

impl Made {
    /// The containers that are its nodes.
    async fn nodes(&self) -> anyhow::Result<Vec<String>> {
        let arguments = ["get", "nodes", "--name", self.claim.name()];
        let told = self
            .kind("asking for the nodes", ASK, &arguments)
            .run()
            .await?;
        Ok(told.lines().map(str::to_owned).collect())
    }

    fn kind<'a>(&'a self, doing: &'static str, limit: Duration, arguments: &[&str]) -> Step<'a> {
        command(&self.kind, &self.engine, doing, limit, arguments)
    }
}

/// A command of kind's, which is told to take this engine.
fn command<'a>(
    kind: &'a Tool,
    engine: &Engine,
    doing: &'static str,
    limit: Duration,
    arguments: &[&str],
) -> Step<'a> {
    Step::new(&kind.path, doing, limit, arguments).variable(ENGINE, engine.name())
}

/// Removes a cluster, the containers beside it, and the claim to them.
async fn remove(kind: &Tool, engine: &Engine, claim: Claim) -> anyhow::Result<()> {
    let name = claim.name();
    let arguments = ["delete", "cluster", "--name", name];
    let delete = command(kind, engine, "deleting the cluster", DELETE, &arguments);
    let balancers = balancer::remove(engine, name);
    let (cluster, beside, balancers) =
        tokio::join!(delete.run(), remove_beside(engine, name), balancers);
    let removed = cluster.map(drop).and(beside).and(balancers);
    claim.drop_removed("kind", removed)
}

/// kind's configuration (`kind.x-k8s.io/v1alpha4`).
fn config(settings: &Settings) -> Result<String, BadInput> {
    let cni = match Plugin::by(settings)?.replaces_kinds() {
        true => ", disableDefaultCNI: true",
        false => "",
    };
    let family = settings.ip_family.as_deref().unwrap_or("ipv4");
    if !["ipv4", "dual"].contains(&family) {
        return Err(BadInput(format!(
            "STRATA_IP_FAMILY={family} is neither ipv4 nor dual"
        )));
    }
    Ok(format!(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {{ipFamily: {family}{cni}}}\n{NODES}\n"
    ))
}
