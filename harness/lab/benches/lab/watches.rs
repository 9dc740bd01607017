//! Watches: from a write until the last of many watchers has it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::AsyncBufReadExt as _;
use http::Request;
use kube::{Client, Config};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::bare::{Answers, Server};
use crate::cluster::{self, Cluster};
use crate::report::{Line, Measured, Plot, Samples, Table, short};
use crate::requests::{config_map, path};

const WATCHERS: [usize; 4] = [1, 10, 100, 300];
const ROUNDS: u64 = 40;
const NAME: &str = "watched";

pub(crate) async fn measure() -> anyhow::Result<Measured> {
    let cluster = Cluster::start(cluster::config(3)).await?;
    let bare = Server::start(&Answers::default()).await?;
    let body = serde_json::to_vec(&config_map(NAME, "0"))?;
    let create = Request::post(path("")).body(body)?;
    cluster.client.request_text(create).await?;
    let mut table = Table::new(&[
        "watchers",
        "last has it, p50 ms",
        "p99 ms",
        "p50 ÷ bare server",
        "lab's memory a watch, KiB",
    ]);
    let mut lines = [
        Line::new("lab, p50"),
        Line::new("lab, p99"),
        Line::new("bare server, p50"),
    ];
    for watchers in WATCHERS {
        let before = cluster.memory()?;
        let mut lab = Crowd::gather(&cluster.config, watchers).await?;
        let held = cluster.memory()?.saturating_sub(before);
        let mut least = Crowd::gather(&bare.config, watchers).await?;
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        for round in 0..ROUNDS {
            ours.add(lab.hears(round).await?);
            theirs.add(least.hears(round).await?);
        }
        let count = u32::try_from(watchers)?;
        let x = f64::from(count);
        lines[0].points.push((x, ours.median()));
        lines[1].points.push((x, ours.percentile(99)));
        lines[2].points.push((x, theirs.median()));
        let held = f64::from(u32::try_from(held / 1024)?) / x;
        table.row([
            watchers.to_string(),
            short(ours.median()),
            short(ours.percentile(99)),
            short(ours.median() / theirs.median()),
            // Of few watches the noise is larger than they are.
            if watchers < 100 {
                String::new()
            } else {
                short(held)
            },
        ]);
    }
    cluster.stop().await?;
    Ok(Measured {
        plots: vec![Plot {
            name: "watches".to_owned(),
            title: "From a write until the last watcher has it".to_owned(),
            x: "watchers".to_owned(),
            y: "milliseconds".to_owned(),
            lines: lines.to_vec(),
        }],
        table,
        ..Measured::default()
    })
}

/// Watchers of one collection, each with a connection of its own.
struct Crowd {
    writer: Client,
    watchers: usize,
    heard: mpsc::UnboundedReceiver<(u64, Instant)>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

impl Crowd {
    async fn gather(config: &Config, watchers: usize) -> anyhow::Result<Self> {
        let (sender, heard) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for _ in 0..watchers {
            let client = Client::try_from(config.clone())?;
            let request = Request::get(path("?watch=true")).body(Vec::new())?;
            let stream = client.request_stream(request).await?;
            let sender = sender.clone();
            tasks.spawn(async move {
                let mut stream = std::pin::pin!(stream);
                let mut line = Vec::new();
                while stream.read_until(b'\n', &mut line).await? > 0 {
                    if let Some(round) = said(&line) {
                        sender.send((round, Instant::now()))?;
                    }
                    line.clear();
                }
                Ok(())
            });
        }
        let mut crowd = Self {
            writer: Client::try_from(config.clone())?,
            watchers,
            heard,
            _tasks: tasks,
        };
        // Whoever was not listening yet is now.
        crowd.hears(u64::MAX).await?;
        Ok(crowd)
    }

    /// Writes, and waits until everybody has heard of it; says how long it took the last.
    async fn hears(&mut self, round: u64) -> anyhow::Result<Duration> {
        let body = serde_json::to_vec(&config_map(NAME, &round.to_string()))?;
        let request = Request::put(path(&format!("/{NAME}"))).body(body)?;
        let begun = Instant::now();
        self.writer.request_text(request).await?;
        let mut last = begun;
        for _ in 0..self.watchers {
            loop {
                let next = tokio::time::timeout(Duration::from_secs(10), self.heard.recv());
                let (heard, at) = next.await?.context("all watches have ended")?;
                last = last.max(at);
                if heard == round {
                    break;
                }
            }
        }
        Ok(last - begun)
    }
}

/// What an event's object says.
fn said(line: &[u8]) -> Option<u64> {
    const FIELD: &[u8] = b"\"said\":\"";
    let at = line.windows(FIELD.len()).position(|found| found == FIELD)?;
    let digits = line.get(at + FIELD.len()..)?.iter();
    let digits: Vec<u8> = digits.copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}
