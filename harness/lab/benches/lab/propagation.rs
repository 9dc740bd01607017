//! From a change of a Service until the kernel of every node has the rules for it, by the number of
//! Services.
//!
//! The rules themselves are the witness: `nft monitor` in each node's network tells of a transaction
//! when the kernel has committed it, whoever made it. What one `nft -f` with such a change takes, on one
//! node's own table, is the least that it can be.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc;

use crate::bare::RULES;
use crate::cluster::{self, Cluster, NAMESPACE};
use crate::report::{Line, Measured, Plot, Samples, Table, short};

const SERVICES: [usize; 3] = [10, 100, 500];
const ROUNDS: usize = 100;
/// How long a change may take before the measure is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// The Service that changes.
const CHANGED: &str = "changed";
/// Its endpoints, beside one that comes and goes.
const FIRST: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

pub(crate) async fn measure() -> anyhow::Result<Measured> {
    let cluster = Cluster::start(cluster::config(3)).await?;
    let objects = Objects::new(&cluster.client);
    let mut monitors = Monitors::start(&cluster).await?;
    objects.make(CHANGED).await?;
    objects.endpoints(&FIRST).await?;
    let mut made = 1;
    let mut table = Table::new(&[
        "Services",
        "change",
        "p50 ms",
        "p99 ms",
        "p50 ÷ one `nft -f`",
    ]);
    let mut lines = [
        "endpoint added",
        "endpoint removed",
        "new Service",
        "port changed",
    ]
    .map(|name| {
        (
            Line::new(format!("{name}, p50")),
            Line::new(format!("{name}, p99")),
        )
    });
    let mut alone = Line::new("one nft -f, p50");
    for services in SERVICES {
        fill(&objects, made, services).await?;
        made = services;
        // The last of them is in force everywhere, so all are.
        let last = objects.make(&format!("last-{services}")).await?;
        monitors.all_tell(&format!("{last} . tcp . 80 ")).await?;
        let least = bare(&cluster).await?;
        let x = f64::from(u32::try_from(services)?);
        alone.points.push((x, least.median()));
        for (samples, (p50, p99)) in changes(&objects, &mut monitors, services)
            .await?
            .iter()
            .zip(&mut lines)
        {
            p50.points.push((x, samples.median()));
            p99.points.push((x, samples.percentile(99)));
            table.row([
                services.to_string(),
                p50.name.trim_end_matches(", p50").to_owned(),
                short(samples.median()),
                short(samples.percentile(99)),
                short(samples.median() / least.median()),
            ]);
        }
        table.row([
            services.to_string(),
            "one `nft -f` alone, one node".to_owned(),
            short(least.median()),
            short(least.percentile(99)),
            String::new(),
        ]);
    }
    cluster.stop().await?;
    let [added, _, new, _] = lines;
    Ok(Measured {
        plots: vec![Plot {
            name: "propagation".to_owned(),
            title: "From a change of a Service to every node's rules".to_owned(),
            x: "Services".to_owned(),
            y: "milliseconds".to_owned(),
            lines: vec![added.1, added.0, new.1, new.0, alone],
        }],
        table,
        ..Measured::default()
    })
}

/// Every kind of change so many times, one after the other, in turns.
async fn changes(
    objects: &Objects,
    monitors: &mut Monitors,
    services: usize,
) -> anyhow::Result<[Samples; 4]> {
    let mut found: [Samples; 4] = Default::default();
    let [added, removed, new, ports] = &mut found;
    for round in 0..ROUNDS {
        // As nftables names chains: `endpoint-HASH-NAMESPACE/SERVICE/tcp/__ADDRESS/PORT`.
        let address = format!("10.9.9.{}", 1 + round % 200);
        let chain = format!("/{CHANGED}/tcp/__{address}/8080");
        monitors.settle();
        let begun = Instant::now();
        objects.endpoints(&[FIRST[0], FIRST[1], &address]).await?;
        added.add(
            monitors
                .all_tell(&format!("add rule ip kube-proxy *{chain}"))
                .await?
                - begun,
        );
        let begun = Instant::now();
        objects.endpoints(&FIRST).await?;
        removed.add(
            monitors
                .all_tell(&format!("delete chain ip kube-proxy *{chain}"))
                .await?
                - begun,
        );
        let port = 1000 + round;
        let own = objects.address(CHANGED).await?;
        let begun = Instant::now();
        objects.port(port).await?;
        ports.add(
            monitors
                .all_tell(&format!(
                    "add element ip kube-proxy service-ips *{own} . tcp . {port} "
                ))
                .await?
                - begun,
        );
        // Deleted again, so that there are as many Services all the time.
        let name = format!("new-{services}-{round}");
        objects.prepare(&name).await?;
        let begun = Instant::now();
        let own = objects.announce(&name).await?;
        new.add(
            monitors
                .all_tell(&format!(
                    "add element ip kube-proxy service-ips *{own} . tcp . 80 "
                ))
                .await?
                - begun,
        );
        objects.remove(&name).await?;
        monitors
            .all_tell(&format!(
                "delete element ip kube-proxy service-ips *{own} . tcp . 80 "
            ))
            .await?;
    }
    Ok(found)
}

async fn fill(objects: &Objects, from: usize, to: usize) -> anyhow::Result<()> {
    let names: Vec<String> = (from..to).map(|number| format!("other-{number}")).collect();
    let each = names.iter().map(|name| objects.make(name));
    let made: Vec<_> = futures::stream::iter(each)
        .buffer_unordered(16)
        .collect()
        .await;
    made.into_iter()
        .collect::<anyhow::Result<Vec<_>>>()
        .map(drop)
}

/// Services without a selector, and their endpoints: there need be no pods.
pub(crate) struct Objects {
    services: Api<Service>,
    slices: Api<EndpointSlice>,
    made: AtomicU16,
}

impl Objects {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            services: Api::namespaced(client.clone(), NAMESPACE),
            slices: Api::namespaced(client.clone(), NAMESPACE),
            made: AtomicU16::new(0),
        }
    }

    /// A Service with two endpoints; returns its address.
    pub(crate) async fn make(&self, name: &str) -> anyhow::Result<String> {
        self.prepare(name).await?;
        self.announce(name).await
    }

    /// The endpoints of a Service to be.
    pub(crate) async fn prepare(&self, name: &str) -> anyhow::Result<()> {
        let [high, low] = self.made.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let own = [10, 11].map(|network| format!("10.{network}.{high}.{low}"));
        let slice = slice(name, &[&own[0], &own[1]]);
        let slice = serde_json::from_value(slice)?;
        self.slices.create(&PostParams::default(), &slice).await?;
        Ok(())
    }

    /// The Service itself; returns its address.
    pub(crate) async fn announce(&self, name: &str) -> anyhow::Result<String> {
        let service = serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"ports": [{"port": 80, "targetPort": 8080}]},
        }))?;
        let made = self
            .services
            .create(&PostParams::default(), &service)
            .await?;
        address(&made)
    }

    pub(crate) async fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.services.delete(name, &Default::default()).await?;
        self.slices.delete(name, &Default::default()).await?;
        Ok(())
    }

    async fn find(&self, name: &str) -> anyhow::Result<Service> {
        Ok(self.services.get(name).await?)
    }

    async fn address(&self, name: &str) -> anyhow::Result<String> {
        address(&self.find(name).await?)
    }

    async fn endpoints(&self, addresses: &[&str]) -> anyhow::Result<()> {
        let patch = Patch::Merge(slice(CHANGED, addresses));
        self.slices
            .patch(CHANGED, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    async fn port(&self, port: usize) -> anyhow::Result<()> {
        let patch = json!({"spec": {"ports": [{"port": port, "targetPort": 8080}]}});
        let patch = Patch::Merge(patch);
        self.services
            .patch(CHANGED, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}

fn address(service: &Service) -> anyhow::Result<String> {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.clone())
        .context("a Service without an address")
}

fn slice(service: &str, addresses: &[&str]) -> serde_json::Value {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address]}))
        .collect();
    json!({
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080, "protocol": "TCP"}],
    })
}

/// `nft monitor` on every node.
struct Monitors {
    nodes: usize,
    told: mpsc::UnboundedReceiver<(usize, Instant, String)>,
    _children: Vec<Child>,
}

impl Monitors {
    async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let (sender, told) = mpsc::unbounded_channel();
        let mut children = Vec::new();
        for (number, pid) in cluster.nodes().await?.values().enumerate() {
            let mut command = cluster.enter(pid);
            command.arg(cluster::nft()).arg("monitor");
            let mut child = command.stdout(Stdio::piped()).spawn()?;
            let stdout = child.stdout.take().context("no standard output")?;
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if sender.send((number, Instant::now(), line)).is_err() {
                        break;
                    }
                }
            });
            children.push(child);
        }
        Ok(Self {
            nodes: children.len(),
            told,
            _children: children,
        })
    }

    /// Forgets what was told until now.
    fn settle(&mut self) {
        while self.told.try_recv().is_ok() {}
    }

    /// Waits until every node's kernel has told of a line with these two parts (`START*PART`, or only
    /// a part); says when the last did.
    async fn all_tell(&mut self, wanted: &str) -> anyhow::Result<Instant> {
        let (start, part) = wanted.split_once('*').unwrap_or(("", wanted));
        let mut missing: BTreeSet<usize> = (0..self.nodes).collect();
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(until, self.told.recv()).await;
            let next = next.with_context(|| format!("nodes {missing:?} never told: {wanted}"))?;
            let (node, at, line) = next.context("nft monitor has ended")?;
            if line.starts_with(start) && line.contains(part) {
                missing.remove(&node);
            }
            if missing.is_empty() {
                return Ok(at);
            }
        }
    }
}

/// What `nft` takes alone for changes as those that are measured: an endpoint more, and one less again.
async fn bare(cluster: &Cluster) -> anyhow::Result<Samples> {
    let nodes = cluster.nodes().await?;
    let pid = nodes.values().next().context("no nodes")?;
    let mut list = cluster.enter(pid);
    list.arg(cluster::nft());
    list.args(["list", "table", "ip", "kube-proxy"]);
    let listed = list.output().await?;
    ensure!(listed.status.success(), "nft list: {}", listed.status);
    let table = String::from_utf8(listed.stdout)?;
    let start = "\tchain service-";
    let end = format!("-{NAMESPACE}/{CHANGED}/tcp/ {{");
    let mut lines = table.lines();
    let chain = lines.find(|line| line.starts_with(start) && line.ends_with(&end));
    let chain = chain.and_then(|line| line.trim().strip_prefix("chain ")?.strip_suffix(" {"));
    let chain = chain.context("no chain of the Service")?;
    let rules = lines.take_while(|line| line.trim() != "}").map(str::trim);
    let rules: Vec<_> = rules.filter(|line| !line.starts_with("comment ")).collect();
    let (balance, others) = rules.split_last().context("no rules of the Service")?;
    let (_, arms) = balance
        .split_once('{')
        .context("no endpoints of the Service")?;
    let own = format!("endpoint-ABCDEFGH-{NAMESPACE}/{CHANGED}/tcp/__10.9.9.250/8080");
    let add = |chain: &str, rule: &str| format!("add rule ip kube-proxy {chain} {rule}\n");
    let before: String = rules.iter().map(|rule| add(chain, rule)).collect();
    let others: String = others.iter().map(|rule| add(chain, rule)).collect();
    let third = format!("numgen random mod 3 vmap {{ 2 : goto {own}, {arms}");
    let flush = |chain: &str| format!("flush chain ip kube-proxy {chain}\n");
    let scripts = [
        [
            format!("add chain ip kube-proxy {own} {{ comment \"{NAMESPACE}/{CHANGED}\" ; }}\n"),
            flush(&own) + &flush(chain),
            add(&own, "ip saddr 10.9.9.250 jump mark-for-masquerade"),
            add(&own, "meta l4proto tcp dnat to 10.9.9.250:8080"),
            others + &add(chain, &third),
        ]
        .concat(),
        flush(chain) + &flush(&own) + &format!("delete chain ip kube-proxy {own}\n") + &before,
    ];
    let mut command = cluster.enter(pid);
    command.arg(std::env::current_exe()?).arg(RULES);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(&serde_json::to_vec(&scripts)?).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "nft alone: {}", output.status);
    let mut samples = Samples::default();
    let times: Vec<f64> = serde_json::from_slice(&output.stdout)?;
    times
        .into_iter()
        .for_each(|took| samples.add_milliseconds(took));
    Ok(samples)
}
