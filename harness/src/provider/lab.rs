//! The embedded cluster.
//!
//! Start from [`Lab`]. What a lab is and how it starts is `strata_lab`'s; this file finds the
//! programs it needs, hands it the probe's image and asks it as any cluster is asked. Only this file
//! knows of `/lab/v1/outside`.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use strata_lab::boot::{self, Cni, IpFamilies, LabConfig};
use strata_lab::topology::HOST_PID_ANNOTATION;
use tokio::sync::Mutex;

use super::image::Archive;
use super::traefik::{self, Traefik};
use super::{Balancer, Cluster, Layers, Output, Outside, Progress, Provider, tools};
use crate::apply::{Fit, Variant};
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};
use crate::stack::Layer;
use crate::verdict::NoVerdict;

/// Nodes beside the control plane: two, so that traffic crosses nodes that run pods.
const WORKERS: usize = 2;

/// Makes a lab and ends it.
#[derive(Debug)]
pub(super) struct Lab {
    cni: Option<Cni>,
    ip_families: IpFamilies,
    traefik: Traefik,
    envoy: Option<PathBuf>,
    nft: Option<PathBuf>,
    watch_lag: Duration,
    report_dir: PathBuf,
    running: Mutex<Option<boot::Lab>>,
}

impl Lab {
    /// A lab is this program, started again: where this process is one, its life ends in here.
    pub(super) fn init() {
        boot::init();
    }

    /// A lab by the settings. Nothing is started yet.
    ///
    /// # Errors
    /// When it has no CNI of the name that the settings say, or nobody else of that name to serve a layer.
    pub(super) fn provider(settings: &Settings) -> Result<Box<dyn Provider>, BadInput> {
        Ok(Box::new(Self {
            cni: cni(settings.cni.as_deref())?,
            ip_families: ip_families(settings.ip_family.as_deref())?,
            traefik: Traefik::by(settings)?,
            envoy: settings.envoy.clone(),
            nft: settings.nft.clone(),
            watch_lag: settings.watch_lag,
            report_dir: settings.report_dir.clone(),
            running: Mutex::default(),
        }))
    }

    async fn cluster(
        &self,
        lab: &boot::Lab,
        tools: impl IntoIterator<Item = (&'static str, &tools::Tool)>,
    ) -> anyhow::Result<Cluster> {
        let client = super::client(lab.kubeconfig())
            .await
            .context("the lab's kubeconfig is of no use")?;
        let kubernetes = client
            .apiserver_version()
            .await
            .context("the lab's API server does not tell its version")?;
        let tools = tools.into_iter();
        let mut versions: BTreeMap<_, _> = tools
            .map(|(name, tool)| (name.to_owned(), tool.version.to_string()))
            .collect();
        let own = [
            ("kubernetes", kubernetes.git_version),
            ("strata-lab", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        versions.extend(own.map(|(name, version)| (name.to_owned(), version)));
        Ok(Cluster {
            outside: Some(Arc::new(OutsideOfLab(client.clone()))),
            client,
            kubeconfig: lab.kubeconfig_path().to_owned(),
            provider: self.name(),
            versions,
            load_balancer: Balancer::Own,
            ingress: None,
            gateway: None,
            istio: None,
            ours: true,
            layers: Layers::all(),
            fit: Fit {
                gateway_class: (self.traefik.serves(Layer::Gateway))
                    .then(|| traefik::NAME.to_owned()),
                ..Fit::default()
            },
            node_network: Ok(()),
            pid_annotation: Some(HOST_PID_ANNOTATION),
            nsenter: lab.nsenter(),
        })
    }
}

#[async_trait(?Send)]
impl Provider for Lab {
    fn name(&self) -> &'static str {
        "lab"
    }

    fn variant(&self, layer: Layer) -> Variant {
        self.traefik.variant(layer)
    }

    fn side_by_side(&self) -> usize {
        16
    }

    async fn create(&self, run: &RunInfo, progress: Progress<'_>) -> anyhow::Result<Arc<Cluster>> {
        let nft = tools::nft(self.nft.as_deref()).await?;
        let envoy = tools::envoy(self.envoy.as_deref()).await?;
        let planned = |layer| run.manifests.layer(layer).is_some();
        let traefik = self.traefik.find(planned).await?;
        progress("starting the lab");
        let image = Archive::write(&run.report_dir)?;
        let mut images = vec![image];
        if let Some(traefik) = &traefik {
            progress("packing Traefik's image");
            images.push(traefik::image(&traefik.path, &run.report_dir)?);
        }
        let log = run.report_dir.join("lab.log");
        // The lab adds to its log, and this one is to be of this run alone.
        std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let config = LabConfig {
            workers: WORKERS,
            cni: self.cni,
            ip_families: self.ip_families,
            envoy: Some(envoy.path.clone()),
            nft: nft.path.clone(),
            images: images.iter().map(|it| it.path().to_owned()).collect(),
            log: Some(log),
            watch_lag: self.watch_lag,
        };
        let lab = boot::start(config).await?;
        let tools = [("envoy", &envoy), ("nft", &nft)].into_iter();
        let tools = tools.chain(traefik.iter().map(|tool| (traefik::NAME, tool)));
        let cluster = self.cluster(&lab, tools).await;
        // Kept also if it is of no use, so that it is ended in order.
        *self.running.lock().await = Some(lab);
        Ok(Arc::new(cluster?))
    }

    async fn keep(&self) -> Vec<String> {
        let Some(lab) = self.running.lock().await.take() else {
            return Vec::new();
        };
        let kept = match lab.keep() {
            Ok(kept) => kept,
            Err(error) => return vec![format!("the lab could not be kept: {error}")],
        };
        let path = self.report_dir.join("kubeconfig");
        // On the lab's own file system it is there as well, if not under a name to remember.
        let path = write_private(&path, &kept.kubeconfig).map_or(kept.kubeconfig_path, |()| path);
        vec![
            "the lab goes on, as STRATA_KEEP=1 asks".to_owned(),
            format!("reach it: export KUBECONFIG={}", path.display()),
            format!("end it: kill {}", kept.pid),
        ]
    }

    async fn destroy(&self) -> Vec<String> {
        let Some(lab) = self.running.lock().await.take() else {
            return Vec::new();
        };
        match lab.stop().await {
            Ok(()) => Vec::new(),
            Err(error) => vec![NoVerdict::from(error).because().to_owned()],
        }
    }
}

/// The CNI that `STRATA_CNI` names.
fn cni(name: Option<&str>) -> Result<Option<Cni>, BadInput> {
    let Some(name) = name else {
        return Ok(Some(Cni::default()));
    };
    Cni::choice(name).map_err(|why| BadInput(format!("STRATA_CNI={why}")))
}

/// The address families that `STRATA_IP_FAMILY` names; by default all that this kernel has.
fn ip_families(name: Option<&str>) -> Result<IpFamilies, BadInput> {
    let Some(name) = name else {
        let both = IpFamilies::Dual.check();
        return Ok(both.map_or(IpFamilies::Ipv4, |()| IpFamilies::Dual));
    };
    name.parse()
        .map_err(|why| BadInput(format!("STRATA_IP_FAMILY={why}")))
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    // A new file: the mode below counts only when one is made.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
}

/// The lab's own network namespace, which joins the nodes' underlay.
struct OutsideOfLab(kube::Client);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    exit_code: i32,
    stdout: String,
    stderr: String,
}

#[async_trait]
impl Outside for OutsideOfLab {
    async fn run(&self, command: &[String], stdin: &[u8]) -> anyhow::Result<Output> {
        let stdin = str::from_utf8(stdin).map_err(|_| anyhow!("the input is not UTF-8"))?;
        let body = serde_json::to_vec(&json!({"command": command, "stdin": stdin}))?;
        let request = http::Request::post("/lab/v1/outside")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)?;
        let answer: Answer = self.0.request(request).await?;
        Ok(Output {
            exit_code: answer.exit_code,
            stdout: answer.stdout.into_bytes(),
            stderr: answer.stderr.into_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cni_that_there_is_not_is_refused_with_those_that_there_are() {
        assert_eq!(cni(None), Ok(Some(Cni::Vxlan)));
        assert_eq!(cni(Some("calico")), Ok(Some(Cni::Calico)));
        assert_eq!(cni(Some("none")), Ok(None));
        assert_eq!(
            cni(Some("cilium")).unwrap_err().to_string(),
            "STRATA_CNI=cilium is not a CNI of the lab; choose one of vxlan, kindnet, flannel, calico, or none"
        );
    }
}
