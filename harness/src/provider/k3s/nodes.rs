//! The containers of a k3s cluster, and the network they are on.
//!
//! Start from [`Nodes::start`]. All is named after the cluster and carries its label, by which [`Nodes::remove`]
//! finds it whatever became of the run that made it.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use kube::config::Kubeconfig;
use rand::RngExt as _;
use rand::distr::Alphanumeric;

use super::wanted::Wanted;
use crate::budget::Budget;
use crate::provider::containers::{Engine, labelled, remove_beside, remove_labelled};
use crate::provider::step::Step;
use crate::verdict::NoVerdict;
use crate::wait::{self, Progress};

/// The label of everything that is a cluster's.
const LABEL: &str = "strata.dev/cluster";
/// The variable of what agents join by.
const SECRET: &str = "K3S_TOKEN";
/// Where k3s writes the administrator's kubeconfig.
const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";
/// The API server's port in its container.
const PORT: &str = "6443";
const ASK: Duration = Duration::from_secs(20);
/// A first run also pulls the image.
const START: Duration = Duration::from_secs(280);
const LOAD: Duration = Duration::from_secs(120);
/// How long all may take to go.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// From the start of its container until the server has written its kubeconfig.
const UP: Budget = Budget {
    name: "k3s",
    within: Duration::from_secs(120),
    every: Duration::from_millis(500),
    settled: 1,
};

/// A cluster's containers, whether or not there are any.
#[derive(Debug)]
pub(super) struct Nodes {
    engine: Engine,
    cluster: String,
}

impl Nodes {
    pub(super) fn of(engine: &Engine, cluster: &str) -> Self {
        Self {
            engine: engine.clone(),
            cluster: cluster.to_owned(),
        }
    }

    pub(super) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Its name, and that of its network.
    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    fn server(&self) -> String {
        format!("{}-server", self.cluster)
    }

    fn agents(&self, wanted: &Wanted) -> impl Iterator<Item = String> {
        let cluster = self.cluster.clone();
        (1..=wanted.agents).map(move |number| format!("{cluster}-agent-{number}"))
    }

    fn label(&self) -> String {
        format!("{LABEL}={}", self.cluster)
    }

    fn step(&self, doing: &'static str, limit: Duration, arguments: &[&str]) -> Step<'_> {
        self.engine.step(doing, limit, arguments)
    }

    /// Starts the server, then the agents; the administrator's kubeconfig, by the port that this machine has for
    /// the API server.
    ///
    /// # Errors
    /// When the engine refuses something, or the server does not come up.
    pub(super) async fn start(&self, wanted: &Wanted) -> anyhow::Result<String> {
        let label = self.label();
        let subnet = wanted.subnet();
        let mut network = vec!["network", "create", "--label", &label];
        network.extend(subnet.iter().map(String::as_str));
        network.push(&self.cluster);
        self.step("making the nodes' network", ASK, &network)
            .run()
            .await?;
        let secret = secret();
        let (server, published) = (self.server(), format!("127.0.0.1::{PORT}"));
        let mut words = wanted.container().to_vec();
        words.extend(["--publish", &published, &wanted.image]);
        words.extend(wanted.server());
        self.run(&server, &secret, &words).await?;
        let kubeconfig = self.kubeconfig(&server).await?;
        let url = format!("K3S_URL=https://{server}:{PORT}");
        let mut words = wanted.container().to_vec();
        words.extend(["--env", &url, &wanted.image, "agent"]);
        let (words, secret) = (&words, secret.as_str());
        let agents = self.agents(wanted);
        let agents = agents.map(|name| async move { self.run(&name, secret, words).await });
        try_join_all(agents).await?;
        self.published(&server, &kubeconfig).await
    }

    /// Runs a node, as k3s' documentation does. The secret is no argument, which everybody on this machine reads.
    async fn run(&self, name: &str, secret: &str, rest: &[&str]) -> anyhow::Result<()> {
        let label = self.label();
        let mut words = vec!["run", "--detach", "--privileged"];
        words.extend(["--tmpfs", "/run", "--tmpfs", "/var/run"]);
        words.extend(["--network", &self.cluster, "--label", &label]);
        words.extend(["--name", name, "--hostname", name]);
        words.extend(["--env", SECRET]);
        words.extend(rest);
        let step = self.step("starting a node", START, &words);
        step.variable(SECRET, secret).run().await?;
        Ok(())
    }

    /// The kubeconfig that the server has written.
    async fn kubeconfig(&self, server: &str) -> anyhow::Result<String> {
        let ask = async || {
            let read = ["exec", server, "cat", KUBECONFIG];
            let step = self.step("reading the server's kubeconfig", ASK, &read);
            let output = step.output().await.map_err(NoVerdict::from)?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            // It is made, then written: its users come last.
            let whole = Kubeconfig::from_yaml(&text).is_ok_and(|it| !it.auth_infos.is_empty());
            if output.exit_code == 0 && whole {
                return Ok(Progress::Ready(text));
            }
            Ok(match self.ended(server).await? {
                Some(why) => Progress::Stop(NoVerdict::new(why)),
                None => Progress::NotYet(format!("there is no {KUBECONFIG} in {server}")),
            })
        };
        let written = wait::until("the k3s server is up", UP, ask).await;
        written.map_err(NoVerdict::into_error)
    }

    /// Why a node has ended, if it has.
    async fn ended(&self, name: &str) -> Result<Option<String>, NoVerdict> {
        let look = ["inspect", "--format", "{{.State.Running}}", name];
        let running = self.step("looking at a node", ASK, &look).run().await;
        if running.map_err(NoVerdict::from)?.trim() != "false" {
            return Ok(None);
        }
        let log = self.step("reading a node's log", ASK, &["logs", "--tail", "20", name]);
        let log = log.output().await.map_err(NoVerdict::from)?;
        let said = [log.stdout, log.stderr].concat();
        Ok(Some(format!("{name} has ended: {}", last_word(&said))))
    }

    /// A kubeconfig by which this machine reaches the API server, rather than the server itself.
    async fn published(&self, server: &str, kubeconfig: &str) -> anyhow::Result<String> {
        let ask = ["port", server, &format!("{PORT}/tcp")];
        let told = self.step("asking for the API server's port", ASK, &ask);
        let told = told.run().await?;
        let address = told.lines().next().unwrap_or_default().trim();
        let port = address.rsplit_once(':').map(|(_, port)| port);
        let port = port.with_context(|| {
            format!("{} publishes no port {PORT}: {address}", self.engine.name())
        })?;
        let (theirs, ours) = (
            format!("https://127.0.0.1:{PORT}"),
            format!("https://127.0.0.1:{port}"),
        );
        Ok(kubeconfig.replace(&theirs, &ours))
    }

    /// Loads an archive of images into every node.
    ///
    /// # Errors
    /// When a node's container runtime refuses it.
    pub(super) async fn load(&self, archive: &Path, wanted: &Wanted) -> anyhow::Result<()> {
        let images = tokio::fs::read(archive).await?;
        let nodes = std::iter::once(self.server()).chain(self.agents(wanted));
        let each = nodes.map(|node| {
            let images = &images;
            async move {
                let import = [
                    "exec",
                    "--interactive",
                    &node,
                    "ctr",
                    "--namespace=k8s.io",
                    "images",
                    "import",
                    "-",
                ];
                let step = self.step("loading the probe's image", LOAD, &import);
                step.input(images).run().await
            }
        });
        try_join_all(each).await?;
        Ok(())
    }

    /// Writes what each node has said to a folder that it makes.
    ///
    /// # Errors
    /// When the engine does not tell, or a file cannot be written.
    pub(super) async fn export_logs(&self, folder: &Path) -> anyhow::Result<()> {
        tokio::fs::create_dir_all(folder)
            .await
            .with_context(|| format!("cannot make {}", folder.display()))?;
        for name in labelled(&self.engine, &self.label()).await? {
            let log = self.step(
                "reading a node's log",
                ASK,
                &["logs", "--timestamps", &name],
            );
            let log = log.output().await?;
            let path = folder.join(format!("{name}.log"));
            tokio::fs::write(&path, [log.stdout, log.stderr].concat())
                .await
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes all that there is of the cluster.
    ///
    /// # Errors
    /// When the engine refuses that.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        let label = self.label();
        let nodes = remove_labelled(&self.engine, &label);
        let beside = remove_beside(&self.engine, &self.cluster);
        let (nodes, beside) = tokio::join!(nodes, beside);
        nodes.and(beside)?;
        let filter = format!("label={label}");
        let list = ["network", "ls", "--quiet", "--filter", &filter];
        let networks = self.step("looking for the nodes' network", ASK, &list);
        for network in networks.run().await?.split_whitespace() {
            let remove = ["network", "rm", network];
            self.step("removing the nodes' network", ASK, &remove)
                .run()
                .await?;
        }
        Ok(())
    }
}

/// What agents join by.
fn secret() -> String {
    let letters = rand::rng().sample_iter(Alphanumeric).take(32);
    letters.map(char::from).collect()
}

/// The line of a node's log that says why it ended.
fn last_word(log: &[u8]) -> String {
    let log = String::from_utf8_lossy(log);
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let fatal = lines().rfind(|line| line.contains("level=fatal"));
    let said = fatal.or_else(|| lines().next_back());
    said.unwrap_or("it said nothing").to_owned()
}
