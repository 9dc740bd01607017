//! From nothing until all nodes are ready, by the number of nodes.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use strata_lab::boot;
use tokio::process::Command;

use crate::cluster;
use crate::report::{Line, Measured, Plot, Samples, Table, short};

const NODES: [usize; 4] = [3, 5, 10, 20];
const ROUNDS: usize = 12;

pub(crate) async fn measure() -> anyhow::Result<Measured> {
    let mut bare = Samples::default();
    let mut starts = NODES.map(|nodes| (nodes, Samples::default(), Samples::default()));
    for (nodes, ready, gone) in &mut starts {
        // The kernel takes networks apart long after their last process, and holds up whoever makes new
        // ones: each lab comes after one of its own size.
        boot::start(cluster::config(*nodes)).await?.stop().await?;
        for _ in 0..ROUNDS {
            bare.add(unshare().await?);
            let begun = Instant::now();
            let lab = boot::start(cluster::config(*nodes)).await?;
            ready.add(begun.elapsed());
            let begun = Instant::now();
            lab.stop().await?;
            gone.add(begun.elapsed());
        }
    }
    let mut table = Table::new(&[
        "nodes",
        "ready, median ms",
        "slowest ms",
        "× `unshare true`",
        "gone, median ms",
    ]);
    let mut lines = [Line::new("ready"), Line::new("gone again")];
    for (nodes, ready, gone) in &starts {
        table.row([
            nodes.to_string(),
            short(ready.median()),
            short(ready.percentile(100)),
            short(ready.median() / bare.median()),
            short(gone.median()),
        ]);
        let x = f64::from(u32::try_from(*nodes)?);
        lines[0].points.push((x, ready.median()));
        lines[1].points.push((x, gone.median()));
    }
    Ok(Measured {
        plots: vec![Plot {
            name: "start".to_owned(),
            title: "Start until all nodes are Ready".to_owned(),
            x: "nodes".to_owned(),
            y: "milliseconds".to_owned(),
            lines: lines.to_vec(),
        }],
        table,
        ..Measured::default()
    })
}

/// A process in new namespaces of the lab's kinds, and nothing else: the least that a lab can take.
async fn unshare() -> anyhow::Result<std::time::Duration> {
    let begun = Instant::now();
    let status = Command::new("unshare")
        .args([
            "--map-root-user",
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
        ])
        .args(["--fork", "true"])
        .stdin(Stdio::null())
        .status()
        .await
        .context("unshare")?;
    ensure!(status.success(), "unshare: {status}");
    Ok(begun.elapsed())
}
