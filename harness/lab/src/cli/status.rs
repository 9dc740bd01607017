//! `status`: which labs there are, and how they are.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use clap::ValueEnum;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use nix::sys::statvfs::statvfs;
use serde::Serialize;

use super::process::Memory;
use super::record::{Record, Records, Running};
use super::table::{age, size, table};
use super::{Which, connect};

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    #[command(flatten)]
    which: Which,
    /// For programs.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Output>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Json,
}

/// What is known of a lab.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lab {
    name: String,
    state: State,
    detached: bool,
    server: Option<String>,
    kubeconfig: String,
    context: String,
    log: String,
    pid: u32,
    since: Timestamp,
    uptime_seconds: u64,
    memory: Option<Memory>,
    /// What images, volumes and containers have written: it is in memory, too.
    files_bytes: Option<u64>,
    nodes: Vec<NodeRow>,
    pods_not_ready: Vec<PodRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Starting,
    Ready,
    NotReady,
    /// Its processes are there, but its API server does not answer, because of this.
    Unreachable(String),
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    name: String,
    ready: bool,
    address: String,
    pods: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodRow {
    namespace: String,
    name: String,
    reason: String,
}

impl Show {
    pub(super) async fn run(self, records: &Records) -> anyhow::Result<()> {
        let found = match self.which.given() {
            // Says which there are, if there is none of that name.
            Some(name) => match records.find(name)? {
                Some(record) => vec![record],
                None => vec![records.running(name)?.0],
            },
            None => records.all()?,
        };
        let labs = join_all(found.iter().map(lab)).await;
        let mut out = io::stdout().lock();
        if let Some(Output::Json) = self.output {
            serde_json::to_writer_pretty(&mut out, &serde_json::json!({ "labs": labs }))?;
            writeln!(out)?;
            return Ok(());
        }
        out.write_all(shown(&labs).as_bytes())?;
        Ok(())
    }
}

async fn lab(record: &Record) -> Lab {
    let uptime = Timestamp::now().duration_since(record.since).as_secs();
    let mut lab = Lab {
        name: record.name.to_string(),
        state: State::Starting,
        detached: record.detached,
        server: None,
        kubeconfig: record.kubeconfig.file.display().to_string(),
        context: record.kubeconfig.context.clone(),
        log: record.log.display().to_string(),
        pid: record.process.pid,
        since: record.since,
        uptime_seconds: u64::try_from(uptime).unwrap_or_default(),
        memory: None,
        files_bytes: None,
        nodes: Vec::new(),
        pods_not_ready: Vec::new(),
    };
    if let Some(running) = &record.running {
        lab.server = Some(running.server.clone());
        lab.memory = running.boot.memory();
        lab.files_bytes = files(&running.own_kubeconfig);
        lab.state = match objects(running).await {
            Ok((nodes, pods)) => {
                lab.pods_not_ready = pods.iter().filter_map(not_ready).collect();
                lab.nodes = node_rows(&nodes, &pods);
                match lab.nodes.iter().all(|node| node.ready) {
                    true => State::Ready,
                    false => State::NotReady,
                }
            }
            Err(error) => State::Unreachable(format!("{error:#}")),
        };
    }
    lab
}

/// What is used of the lab's file system.
fn files(path: &Path) -> Option<u64> {
    let told = statvfs(path.parent()?).ok()?;
    Some((told.blocks() - told.blocks_free()) * told.fragment_size())
}

async fn objects(lab: &Running) -> anyhow::Result<(Vec<Node>, Vec<Pod>)> {
    let asked = async {
        let client = connect::client(lab).await?;
        let all = ListParams::default();
        let (nodes, pods) = (Api::<Node>::all(client.clone()), Api::<Pod>::all(client));
        let (nodes, pods) =
            tokio::try_join!(nodes.list(&all), pods.list(&all)).map_err(connect::said)?;
        anyhow::Ok((nodes.items, pods.items))
    };
    tokio::time::timeout(connect::PATIENCE, asked)
        .await
        .context("the lab's API server does not answer")?
}

fn node_rows(nodes: &[Node], pods: &[Pod]) -> Vec<NodeRow> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for pod in pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        *counts.entry(node.unwrap_or_default()).or_default() += 1;
    }
    let row = |node: &Node| {
        let name = node.name_any();
        let status = node.status.clone().unwrap_or_default();
        let addresses = status.addresses.unwrap_or_default();
        let address = addresses.iter().find(|one| one.type_ == "InternalIP");
        let conditions = status.conditions.unwrap_or_default();
        NodeRow {
            ready: conditions
                .iter()
                .any(|one| one.type_ == "Ready" && one.status == "True"),
            address: address.map_or_else(String::new, |one| one.address.clone()),
            pods: counts.get(name.as_str()).copied().unwrap_or_default(),
            name,
        }
    };
    nodes.iter().map(row).collect()
}

/// Why a pod is not ready, as kubectl's column STATUS has it; none if it is, or need not be.
fn not_ready(pod: &Pod) -> Option<PodRow> {
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_else(|| "Unknown".to_owned());
    let conditions = status.conditions.unwrap_or_default();
    let mut ready = conditions.iter().filter(|one| one.type_ == "Ready");
    if phase == "Succeeded" || ready.any(|one| one.status == "True") {
        return None;
    }
    let containers = status.init_container_statuses.into_iter().flatten();
    let containers = containers.chain(status.container_statuses.into_iter().flatten());
    let container = containers.filter_map(|one| one.state).find_map(|state| {
        let waiting = state
            .waiting
            .map(|waiting| (waiting.reason, waiting.message));
        let ended = state.terminated.map(|ended| (ended.reason, ended.message));
        waiting.or(ended)
    });
    let unscheduled = conditions
        .iter()
        .find(|one| one.type_ == "PodScheduled" && one.status == "False")
        .map(|one| (one.reason.clone(), one.message.clone()));
    let told = match container.or(unscheduled) {
        Some((Some(reason), Some(message))) => format!("{reason}: {message}"),
        Some((Some(reason), None)) => reason,
        Some((None, Some(message))) => message,
        Some((None, None)) | None if phase == "Running" => "running, but not ready".to_owned(),
        Some((None, None)) | None => phase,
    };
    Some(PodRow {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        reason: told,
    })
}

fn shown(labs: &[Lab]) -> String {
    let [first, others @ ..] = labs else {
        return "There is no lab; strata-lab up starts one.\n".to_owned();
    };
    let heading = [
        "LAB",
        "STATE",
        "NODES",
        "MEMORY",
        "FILES",
        "UP",
        "API SERVER",
    ];
    let rows = labs.iter().map(|lab| {
        let ready = lab.nodes.iter().filter(|node| node.ready).count();
        let state = match &lab.state {
            State::Starting => "Starting",
            State::Ready => "Ready",
            State::NotReady => "NotReady",
            State::Unreachable(_) => "Unreachable",
        };
        [
            lab.name.clone(),
            state.to_owned(),
            format!("{ready}/{}", lab.nodes.len()),
            lab.memory
                .map_or_else(String::new, |memory| size(memory.pss)),
            lab.files_bytes.map_or_else(String::new, size),
            age(lab.uptime_seconds),
            lab.server.clone().unwrap_or_default(),
        ]
    });
    let mut text = table(heading, &rows.collect::<Vec<_>>());
    for lab in labs {
        if let State::Unreachable(why) = &lab.state {
            text.push_str(&format!("\nLab {:?}: {why}\n", lab.name));
        }
    }
    if others.is_empty() {
        text.push_str(&details(first));
    } else {
        text.push_str("\nMore of one: strata-lab status NAME\n");
    }
    text
}

fn details(lab: &Lab) -> String {
    if lab.nodes.is_empty() {
        return String::new();
    }
    let nodes = lab.nodes.iter().map(|node| {
        let ready = if node.ready { "Ready" } else { "NotReady" };
        [
            node.name.clone(),
            ready.to_owned(),
            node.address.clone(),
            node.pods.to_string(),
        ]
    });
    let mut text = "\n".to_owned();
    text.push_str(&table(
        ["NODE", "STATE", "ADDRESS", "PODS"],
        &nodes.collect::<Vec<_>>(),
    ));
    if !lab.pods_not_ready.is_empty() {
        let pods = lab.pods_not_ready.iter();
        let pods = pods.map(|pod| {
            let name = format!("{}/{}", pod.namespace, pod.name);
            [name, brief(&pod.reason)]
        });
        text.push('\n');
        text.push_str(&table(
            ["POD NOT READY", "REASON"],
            &pods.collect::<Vec<_>>(),
        ));
    }
    text
}

/// What is tried is in the middle; what it comes to is at the ends.
fn brief(reason: &str) -> String {
    let ends = reason
        .split_once(": ")
        .zip(reason.rsplit_once(": not found: "));
    ends.map_or_else(
        || reason.to_owned(),
        |((reason, _), (_, remedy))| format!("{reason}: {remedy}"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reason(status: Value) -> Option<String> {
        let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "status": status});
        not_ready(&serde_json::from_value(pod).unwrap()).map(|row| row.reason)
    }

    #[test]
    fn a_pod_that_is_not_ready_says_why() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let not = json!([{"type": "Ready", "status": "False"}]);
        let unscheduled = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]);
        let waiting = json!([{"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "not loaded"}}}]);
        let running = json!([{"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}}]);
        for (status, expected) in [
            (json!({"phase": "Running", "conditions": ready}), None),
            (json!({"phase": "Succeeded", "conditions": not}), None),
            (
                json!({"phase": "Pending", "conditions": not, "containerStatuses": waiting}),
                Some("ErrImagePull: not loaded"),
            ),
            (
                json!({"phase": "Pending", "conditions": unscheduled}),
                Some("Unschedulable: 0/3 nodes are available"),
            ),
            (
                json!({"phase": "Running", "conditions": not, "containerStatuses": running}),
                Some("running, but not ready"),
            ),
            (json!({"phase": "Pending"}), Some("Pending")),
        ] {
            assert_eq!(reason(status.clone()).as_deref(), expected, "{status}");
        }
    }

    #[test]
    fn an_image_that_is_lacking_is_said_in_a_line() {
        let long = "ErrImagePull: failed to pull and unpack image \"a\": not found: load it: docker save a";
        assert_eq!(brief(long), "ErrImagePull: load it: docker save a");
        assert_eq!(brief("Error: a: b"), "Error: a: b");
    }

    #[test]
    fn nodes_are_counted_with_their_pods() {
        let node = json!({
            "metadata": {"name": "a"},
            "status": {
                "addresses": [{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "172.30.0.2"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        let pod = json!({"spec": {"nodeName": "a", "containers": []}});
        let elsewhere = json!({"spec": {"nodeName": "b", "containers": []}});
        let pods = [pod.clone(), pod, elsewhere].map(|pod| serde_json::from_value(pod).unwrap());
        let rows = node_rows(&[serde_json::from_value(node).unwrap()], &pods);
        let expected = NodeRow {
            name: "a".to_owned(),
            ready: true,
            address: "172.30.0.2".to_owned(),
            pods: 2,
        };
        assert_eq!(rows, [expected]);
    }
}
