//! The CNI plugin of a cluster of kind.
//!
//! Start from [`Plugin::by`]; what was asked for is looked for before there is a cluster ([`Plugin::find`]), and
//! installed into one whose nodes wait for it ([`Network::install`]).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;

use super::NODE_COUNT;
use crate::asset::Assets;
use crate::provider::Progress;
use crate::provider::containers::{Engine, all_ready};
use crate::provider::step::Step;
use crate::provider::tools::{self, Tool};
use crate::provider::upstream::{Part, Upstream};
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};

const CALICO: Part = Part {
    called: "calico",
    asset: Some("calico"),
    kubernetes: "*",
};
const FLANNEL: Part = Part {
    called: "flannel",
    asset: Some("flannel"),
    kubernetes: "*",
};
/// Of the project that flannel's own plugin delegates to. kind's nodes have some of its plugins, and not `bridge`.
const PLUGINS: &str = "cni-plugins";
const BRIDGE: &str = "./bridge";
/// Where kubelets look for plugins.
const PLUGIN_FOLDER: &str = "/opt/cni/bin";

const COPY: Duration = Duration::from_secs(60);
/// Images and all.
const INSTALL: Duration = Duration::from_secs(120);
const READY: &str = "4m";
const READY_WITHIN: Duration = Duration::from_secs(260);

/// What the pods' network is made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plugin {
    /// kind's own.
    Kindnet,
    /// Nothing: nodes never get ready.
    Nothing,
    /// Calico, by its project's manifest.
    Calico,
    /// Flannel, by its project's manifest, with the plugin that it needs.
    Flannel,
    /// Cilium, by its project's own program: `STRATA_CILIUM`, or in PATH.
    Cilium(Option<PathBuf>),
}

/// What was found for it.
#[derive(Debug)]
pub(super) enum Network {
    /// Nothing has to be installed.
    There,
    Manifest(Upstream),
    /// With the archive of plugins.
    Flannel(Upstream, PathBuf),
    Cilium(Tool),
}

impl Plugin {
    /// The one that is asked for.
    ///
    /// # Errors
    /// When this provider has not got it, or not for these address families.
    pub(super) fn by(settings: &Settings) -> Result<Self, BadInput> {
        match settings.cni.as_deref() {
            None | Some("kindnet") => Ok(Self::Kindnet),
            Some("calico") => Ok(Self::Calico),
            Some("flannel") if settings.ip_family.as_deref() == Some("dual") => Err(BadInput(
                "STRATA_CNI=flannel is for IPv4 alone, as its project's manifest has it; unset STRATA_IP_FAMILY"
                    .to_owned(),
            )),
            Some("flannel") => Ok(Self::Flannel),
            Some("cilium") => Ok(Self::Cilium(settings.cilium.clone())),
            Some("none") => Ok(Self::Nothing),
            Some(other) => Err(BadInput(format!(
                "STRATA_CNI={other} is not a CNI that this version installs on kind; choose kindnet, which kind has, \
                 calico, cilium, flannel, or none"
            ))),
        }
    }

    /// Whether kind is to leave its own away.
    pub(super) fn replaces_kinds(&self) -> bool {
        *self != Self::Kindnet
    }

    /// What has to be installed for it.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) async fn find(
        &self,
        assets: &Assets,
        progress: Progress<'_>,
    ) -> anyhow::Result<Network> {
        let upstream = async |part: Part| {
            let found = Upstream::find(assets, part, progress).await;
            found.map_err(|why| anyhow::anyhow!("STRATA_CNI={}: {why}", part.called))
        };
        Ok(match self {
            Self::Kindnet | Self::Nothing => Network::There,
            Self::Calico => Network::Manifest(upstream(CALICO).await?),
            Self::Flannel => {
                let flannel = upstream(FLANNEL).await?;
                let plugins = assets.get(PLUGINS, progress).await;
                let plugins = plugins.context("STRATA_CNI=flannel needs the plugin bridge")?;
                Network::Flannel(flannel, plugins)
            }
            Self::Cilium(program) => {
                let cilium = tools::cilium(program.as_deref()).await;
                Network::Cilium(cilium.context("STRATA_CNI=cilium")?)
            }
        })
    }
}

/// A cluster whose nodes wait for a network.
#[derive(Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub(super) client: &'a Client,
    pub(super) kubeconfig: &'a Path,
    pub(super) engine: &'a Engine,
    /// Their containers, where something is done in them.
    pub(super) nodes: &'a [String],
}

impl Network {
    /// Whether something is done in the nodes for it.
    pub(super) fn is_in_nodes(&self) -> bool {
        matches!(self, Self::Flannel(..))
    }

    /// What it is called in reports, with its version.
    pub(super) fn shown(&self) -> Option<(String, String)> {
        match self {
            Self::There => None,
            Self::Manifest(upstream) | Self::Flannel(upstream, _) => Some(upstream.shown()),
            Self::Cilium(tool) => Some(("cilium-cli".to_owned(), tool.version.to_string())),
        }
    }

    /// Installs what kind has not, and waits for the nodes, which wait for it.
    ///
    /// # Errors
    /// When it does not come up, or a node does not.
    pub(super) async fn install(
        &self,
        cluster: Waiting<'_>,
        run: &RunInfo,
        progress: Progress<'_>,
    ) -> anyhow::Result<()> {
        let of = (cluster.client, run.id.as_str());
        match self {
            Self::There => return Ok(()),
            Self::Manifest(upstream) => upstream.install(of, None, progress).await?,
            Self::Flannel(upstream, plugins) => {
                progress("giving the nodes the plugin bridge");
                give_bridge(cluster.engine, cluster.nodes, plugins).await?;
                upstream.install(of, None, progress).await?;
            }
            Self::Cilium(tool) => install_cilium(cluster.kubeconfig, tool, progress).await?,
        }
        all_ready(cluster.client, NODE_COUNT).await
    }
}

/// Unpacks one plugin of an archive where each node's kubelet looks for it.
async fn give_bridge(engine: &Engine, nodes: &[String], plugins: &Path) -> anyhow::Result<()> {
    let archive = tokio::fs::read(plugins).await;
    let archive = archive.with_context(|| format!("cannot read {}", plugins.display()))?;
    for node in nodes {
        let unpack = [
            "tar",
            "--extract",
            "--gzip",
            "--directory",
            PLUGIN_FOLDER,
            BRIDGE,
        ];
        let arguments = [&["exec", "--interactive", node], &unpack[..]].concat();
        let doing = "giving a node the plugin bridge";
        let step = engine.step(doing, COPY, &arguments).input(&archive);
        step.run().await?;
    }
    Ok(())
}

/// As its documentation installs it on kind: addresses by the nodes' own CIDRs, which kind gives.
async fn install_cilium(
    kubeconfig: &Path,
    tool: &Tool,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    progress(&format!("installing Cilium (cilium-cli {})", tool.version));
    let step = |doing, limit, arguments: &[&str]| {
        let step = Step::new(&tool.path, doing, limit, arguments);
        step.variable("KUBECONFIG", kubeconfig).run()
    };
    let install = ["install", "--set", "ipam.mode=kubernetes"];
    step("installing Cilium", INSTALL, &install).await?;
    let wait = ["status", "--wait", "--wait-duration", READY];
    step("waiting for Cilium", READY_WITHIN, &wait).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::stand_in::{self, settings};

    fn log(dir: &Path) -> Vec<String> {
        let log = std::fs::read_to_string(dir.join("LOG")).unwrap();
        log.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn every_node_is_given_the_plugin_that_kind_leaves_away() {
        const DOCKER: &str = r#"
echo "docker $*" >> LOG
case "$1" in
    version) echo 28.2.2 ;;
    exec) case "$3" in broken) echo 'tar: ./bridge: Not found in archive' >&2; exit 2 ;; *) cat > GIVEN ;; esac ;;
    *) exit 1 ;;
esac
"#;
        let dir = tempfile::tempdir().unwrap();
        stand_in::program(dir.path(), "docker", DOCKER, &["LOG", "GIVEN"]);
        let engine = Engine::find(None, dir.path().as_os_str()).await.unwrap();
        let archive = dir.path().join("plugins.tgz");
        std::fs::write(&archive, b"plugins").unwrap();
        let nodes = ["a", "b"].map(str::to_owned);
        give_bridge(&engine, &nodes, &archive).await.unwrap();
        let unpack = |node: &str| {
            format!(
                "docker exec --interactive {node} tar --extract --gzip --directory /opt/cni/bin ./bridge"
            )
        };
        assert_eq!(log(dir.path())[1..], nodes.map(|node| unpack(&node)));
        assert_eq!(std::fs::read(dir.path().join("GIVEN")).unwrap(), b"plugins");

        let failed = give_bridge(&engine, &["broken".to_owned()], &archive).await;
        let said = failed.unwrap_err().to_string();
        assert!(
            said.starts_with("giving a node the plugin bridge failed"),
            "{said}"
        );
        assert!(said.ends_with("Not found in archive"), "{said}");
    }

    /// cilium-cli 0.18's words, as its documentation has them. (It was never run for real.)
    const CILIUM: &str = r#"
echo "$KUBECONFIG: cilium $*" >> LOG
case "$*" in
    "version --client") echo 'cilium-cli: v0.18.3 compiled with go1.24.1 on linux/amd64'; echo 'cilium image (default): v1.17.2' ;;
    "install --set ipam.mode=kubernetes") ;;
    "status --wait --wait-duration 4m")
        if [ -e FAILS ]; then
            echo 'Error: Unable to determine status:  timeout while waiting for status to become successful: context deadline exceeded' >&2
            exit 1
        fi ;;
    *) echo "Error: unknown flag: $*" >&2; exit 1 ;;
esac
"#;

    #[tokio::test]
    async fn cilium_is_installed_and_waited_for_by_its_own_program() {
        let dir = tempfile::tempdir().unwrap();
        stand_in::program(dir.path(), "cilium", CILIUM, &["LOG", "FAILS"]);
        let tool = tools::cilium(Some(&dir.path().join("cilium")))
            .await
            .unwrap();
        assert_eq!(tool.version.to_string(), "0.18.3");
        let install = || install_cilium(Path::new("/the/kubeconfig"), &tool, &|_| {});
        install().await.unwrap();
        let asked = log(dir.path());
        assert_eq!(
            asked[1..],
            [
                "/the/kubeconfig: cilium install --set ipam.mode=kubernetes",
                "/the/kubeconfig: cilium status --wait --wait-duration 4m",
            ]
        );
        std::fs::write(dir.path().join("FAILS"), "").unwrap();
        let said = install().await.unwrap_err().to_string();
        assert!(said.starts_with("waiting for Cilium failed: "), "{said}");
        assert!(said.contains("context deadline exceeded"), "{said}");
    }

    #[test]
    fn flannel_is_for_ipv4_alone() {
        let by = |vars: &[(&str, &str)]| Plugin::by(&settings(vars)).map_err(|bad| bad.0);
        assert_eq!(by(&[("STRATA_CNI", "flannel")]), Ok(Plugin::Flannel));
        let both = [("STRATA_CNI", "flannel"), ("STRATA_IP_FAMILY", "dual")];
        assert!(by(&both).unwrap_err().contains("IPv4 alone"));
        let cilium = [("STRATA_CNI", "cilium"), ("STRATA_CILIUM", "/a/cilium")];
        assert_eq!(by(&cilium), Ok(Plugin::Cilium(Some("/a/cilium".into()))));
    }
}
