//! From nothing until three nodes are ready, beside `kind create cluster`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use strata_lab::boot;
use tokio::process::Command;

use crate::cluster;
use crate::report::{Measured, Samples, Table, short};

const NAME: &str = "strata-bench";
const NODES: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}, {role: worker}, {role: worker}]\n";
const ROUNDS: usize = 6;

pub(crate) async fn measure() -> anyhow::Result<Measured> {
    let mut table = Table::new(&["three nodes", "ready, s", "kind ÷ lab"]);
    let image = match found().await {
        Ok(image) => image,
        Err(why) => {
            return Ok(Measured {
                table,
                skipped: vec![format!("kind create cluster: {why}")],
                ..Measured::default()
            });
        }
    };
    let mut labs = Samples::default();
    let lab = async |labs: &mut Samples| {
        for _ in 0..ROUNDS / 2 {
            let begun = Instant::now();
            let lab = boot::start(cluster::config(3)).await?;
            labs.add(begun.elapsed());
            lab.stop().await?;
        }
        anyhow::Ok(())
    };
    lab(&mut labs).await?;
    let created = create(&image).await;
    let deleted = run(Command::new("kind").args(["delete", "cluster", "--name", NAME])).await;
    let real = created?;
    deleted?;
    lab(&mut labs).await?;
    let ours = labs.median() / 1000.0;
    table.row(["lab".to_owned(), short(ours), String::new()]);
    let ratio = real.as_secs_f64() / ours;
    table.row([
        format!("`kind create cluster` ({image})"),
        short(real.as_secs_f64()),
        short(ratio),
    ]);
    Ok(Measured {
        table,
        ..Measured::default()
    })
}

/// The node image to use, or why there is no kind to compare with.
async fn found() -> Result<String, String> {
    let image = std::env::var("STRATA_NODE_IMAGE");
    let image = image.map_err(|_| "STRATA_NODE_IMAGE names no node image".to_owned())?;
    let version = run(Command::new("kind").arg("version")).await;
    version.map_err(|error| format!("{error:#}"))?;
    let docker = run(Command::new("docker").args(["image", "inspect", &image])).await;
    docker.map_err(|error| format!("{error:#}"))?;
    Ok(image)
}

async fn create(image: &str) -> anyhow::Result<Duration> {
    let directory = tempfile::tempdir()?;
    let [config, kubeconfig] = ["kind.yaml", "kubeconfig"].map(|name| directory.path().join(name));
    std::fs::write(&config, NODES)?;
    let begun = Instant::now();
    let mut command = Command::new("kind");
    command.args(["create", "cluster", "--name", NAME, "--image", image]);
    command.arg("--config").arg(&config);
    command.arg("--kubeconfig").arg(&kubeconfig);
    // That is for the control plane alone; the workers are asked about below.
    run(command.args(["--wait", "180s"])).await?;
    let control_plane = format!("{NAME}-control-plane");
    let mut wait = Command::new("docker");
    wait.args(["exec", &control_plane, "kubectl"]);
    wait.args([
        "--kubeconfig",
        "/etc/kubernetes/admin.conf",
        "wait",
        "nodes",
        "--all",
    ]);
    run(wait.args(["--for=condition=Ready", "--timeout=180s"])).await?;
    Ok(begun.elapsed())
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let output = command.stdin(Stdio::null()).output().await;
    let output = output.with_context(|| format!("cannot run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {}", said.trim());
    Ok(())
}
