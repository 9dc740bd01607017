//! A lab, as those see it who look at it from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::json;
use strata_lab::boot::{self, Lab, LabConfig};
use strata_lab::topology::HOST_PID_ANNOTATION;
use tokio::process::Command;

use crate::report::kilobytes;

/// The namespace of all that measures make.
pub(crate) const NAMESPACE: &str = "bench";

pub(crate) struct Cluster {
    lab: Lab,
    pub(crate) config: Config,
    pub(crate) client: Client,
}

/// `nft`, which distributions put where only root's `PATH` leads.
pub(crate) fn nft() -> PathBuf {
    let usual = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];
    let found = usual.iter().map(Path::new).find(|path| path.exists());
    found.unwrap_or(Path::new("nft")).to_owned()
}

pub(crate) fn config(nodes: usize) -> LabConfig {
    LabConfig {
        workers: nodes - 1,
        nft: nft(),
        ..LabConfig::default()
    }
}

/// This program again, as one of its roles.
pub(crate) fn role(name: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(name).kill_on_drop(true);
    Ok(command)
}

impl Cluster {
    /// A lab with so many nodes, and the measures' namespace.
    pub(crate) async fn start(config: LabConfig) -> anyhow::Result<Self> {
        let lab = boot::start(config).await?;
        let config = Kubeconfig::from_yaml(lab.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config.clone())?;
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(Self {
            lab,
            config,
            client,
        })
    }

    /// The ids of a process in each node's network, by the node's name.
    pub(crate) async fn nodes(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let nodes = Api::<Node>::all(self.client.clone());
        let nodes = nodes.list(&ListParams::default()).await?.items;
        let pid = |node: &Node| {
            let pid = node.annotations().get(HOST_PID_ANNOTATION).cloned();
            Ok((
                node.name_any(),
                pid.context("a node without its process's id")?,
            ))
        };
        nodes.iter().map(pid).collect()
    }

    /// A command in a node's network, which its own words follow.
    pub(crate) fn enter(&self, pid: &str) -> Command {
        let words = self.lab.nsenter();
        let mut words = words.iter();
        let mut command = Command::new(words.next().map_or("nsenter", String::as_str));
        command.args(words).arg(pid).kill_on_drop(true);
        command
    }

    /// The memory of all its processes: what they share counts once (PSS). In bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let mut children = BTreeMap::<u32, Vec<u32>>::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(parent) = parent(pid) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut sum = 0;
        let mut next = vec![parent(self.lab.pid()).context("the lab has ended")?];
        while let Some(pid) = next.pop() {
            next.extend(children.remove(&pid).unwrap_or_default());
            // One that ended meanwhile has none.
            let found = kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
            sum += found.unwrap_or_default() * 1024;
        }
        Ok(sum)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.lab.stop().await
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// What the kernel holds for namespaces, interfaces and processes, on the whole machine. In bytes.
pub(crate) fn kernel_memory() -> anyhow::Result<u64> {
    let fields = ["Slab:", "KernelStack:", "PageTables:", "Percpu:"];
    let found = fields.map(|field| kilobytes("/proc/meminfo", field));
    let found = found.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    Ok(found.iter().sum::<u64>() * 1024)
}
