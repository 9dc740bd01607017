//! Pods on ten nodes: how long until all are ready, and what memory they take, by their number.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::Arguments;
use crate::cluster::{self, Cluster, NAMESPACE, kernel_memory};
use crate::report::{Line, Measured, Plot, Table, short};

const NODES: usize = 10;
const PODS: [u32; 4] = [10, 30, 100, 300];
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) async fn measure(arguments: &Arguments) -> anyhow::Result<Measured> {
    let mut measured = Measured {
        table: Table::new(&[
            "pods",
            "kind",
            "all Ready, s",
            "pods/s",
            "lab in all, MiB",
            "a pod, MiB",
            "kernel a pod, MiB",
        ]),
        ..Measured::default()
    };
    let builtin = json!({"name": "dns", "image": "lab.strata.dev/coredns:v1"});
    let mut kinds = vec![("builtin", builtin, None)];
    // Held until all labs have read it.
    let directory = tempfile::tempdir()?;
    match &arguments.probe {
        Some(probe) => {
            let archive = directory.path().join("probe.tar");
            let output = Command::new(probe).arg("image").output().await;
            let output = output.with_context(|| format!("{}", probe.display()))?;
            ensure!(output.status.success(), "{} image failed", probe.display());
            std::fs::File::create(&archive)?.write_all(&output.stdout)?;
            let image = json!({"name": "probe", "image": "strata.dev/probe:v1", "args": ["serve"]});
            kinds.push(("probe", image, Some(archive)));
        }
        None => measured
            .skipped
            .push("pods of the probe: --probe names no program".to_owned()),
    }
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for (kind, container, archive) in &kinds {
        let (mut time, mut all) = (
            Line::new(format!("{kind} pods")),
            Line::new(format!("{kind} pods")),
        );
        for pods in PODS {
            let found = run(pods, container, archive.as_ref()).await?;
            let count = f64::from(pods);
            let mebi = |bytes: f64| bytes / f64::from(1 << 20);
            time.points.push((count, found.took.as_secs_f64()));
            all.points.push((count, mebi(found.memory)));
            measured.table.row([
                pods.to_string(),
                (*kind).to_owned(),
                short(found.took.as_secs_f64()),
                short(count / found.took.as_secs_f64()),
                short(mebi(found.memory)),
                short(mebi(found.memory - found.before) / count),
                short(mebi(found.kernel) / count),
            ]);
        }
        times.push(time);
        memory.push(all);
    }
    let plot = |name: &str, title: &str, y: &str, lines| Plot {
        name: name.to_owned(),
        title: title.to_owned(),
        x: "pods".to_owned(),
        y: y.to_owned(),
        lines,
    };
    measured.plots = vec![
        plot(
            "pods",
            "Pods on ten nodes until all are Ready",
            "seconds",
            times,
        ),
        plot(
            "memory",
            "Memory of the lab with its pods (PSS)",
            "MiB",
            memory,
        ),
    ];
    Ok(measured)
}

struct Found {
    took: Duration,
    /// The lab's memory before and after, and how much more the kernel's is; in bytes.
    before: f64,
    memory: f64,
    kernel: f64,
}

async fn run(pods: u32, container: &Value, archive: Option<&PathBuf>) -> anyhow::Result<Found> {
    let mut config = cluster::config(NODES);
    config.images.extend(archive.cloned());
    let cluster = Cluster::start(config).await?;
    // What the lab starts with is there first.
    ready(&cluster.client, "kube-system", "coredns", 2).await?;
    let (before, kernel) = (number(cluster.memory()?)?, number(kernel_memory()?)?);
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": "pods"},
        "spec": {"replicas": pods, "selector": {"matchLabels": {"app": "pods"}}, "template": {
            "metadata": {"labels": {"app": "pods"}}, "spec": {"containers": [container]},
        }},
    }))?;
    let deployments = Api::<Deployment>::namespaced(cluster.client.clone(), NAMESPACE);
    let begun = Instant::now();
    deployments
        .create(&PostParams::default(), &deployment)
        .await?;
    ready(&cluster.client, NAMESPACE, "pods", pods).await?;
    let took = begun.elapsed();
    let memory = number(cluster.memory()?)?;
    let kernel = number(kernel_memory()?)? - kernel;
    cluster.stop().await?;
    Ok(Found {
        took,
        before,
        memory,
        kernel,
    })
}

fn number(bytes: u64) -> anyhow::Result<f64> {
    // To the kilobyte, which is what is told anyway.
    Ok(f64::from(u32::try_from(bytes / 1024)?) * 1024.0)
}

async fn ready(client: &Client, namespace: &str, name: &str, pods: u32) -> anyhow::Result<()> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let all = |deployment: Option<&Deployment>| {
        let ready = deployment.and_then(|deployment| deployment.status.as_ref()?.ready_replicas);
        ready.is_some_and(|ready| i64::from(ready) == i64::from(pods))
    };
    let waited = tokio::time::timeout(PATIENCE, await_condition(deployments, name, all)).await;
    waited.with_context(|| format!("{pods} pods of {name} did not become ready"))??;
    Ok(())
}
