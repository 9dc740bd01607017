//! `exec`: a command in a pod, as kubectl runs it, or in a node.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use futures::SinkExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use kube::{Api, Client, ResourceExt as _};
use strata_lab::topology::HOST_PID_ANNOTATION;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use super::enter::Entry;
use super::record::Records;
use super::{InLab, connect, say, terminal};

const LONG: &str = "\
Run a command in a node's network, or in a pod

In a pod, the command is the image's, and it runs as kubectl exec runs it.

In a node, the command is this machine's: it runs in the node's network, host name and processes, as
the lab's root, with this machine's files. So ip, nft, conntrack, ss and tcpdump show the node. A
terminal and standard input are there without -i and -t.";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG)]
pub(super) struct Exec {
    /// node/NAME or pod/NAME; of a bare name, the node is taken before the pod.
    #[arg(value_name = "NODE|POD")]
    target: String,
    #[command(flatten)]
    pub(super) in_lab: InLab,
    /// The pod's namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The pod's container, if it has several.
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input to the pod.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command in the pod a terminal.
    #[arg(short, long)]
    tty: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(super) command: Vec<OsString>,
}

/// What came of it.
pub(super) enum Ran {
    Ended(ExitCode),
    /// It is still to be run, by this very process.
    Enters(Entry),
}

impl Exec {
    pub(super) async fn run(self, records: &Records) -> anyhow::Result<Ran> {
        let (record, running) = records.running(&self.in_lab.lab)?;
        let client = connect::client(&running).await?;
        let (node, pod) = match self.target.split_once('/') {
            Some(("node" | "nodes" | "no", name)) => (Some(name), None),
            Some(("pod" | "pods" | "po", name)) => (None, Some(name)),
            Some(_) => bail!("{} is neither node/NAME nor pod/NAME", self.target),
            None => (Some(self.target.as_str()), Some(self.target.as_str())),
        };
        if let Some(name) = node {
            let nodes = Api::<Node>::all(client.clone());
            let found = nodes.get_opt(name).await.map_err(connect::said)?;
            if let Some(node) = found {
                return enters(&node, record.process.pid, self.command).map(Ran::Enters);
            }
            if pod.is_none() {
                bail!("there is no node {name} in lab {:?}", self.in_lab.lab);
            }
        }
        let name = pod.unwrap_or_default().to_owned();
        let code = self.in_pod(client, &name).await?;
        Ok(Ran::Ended(ExitCode::from(code)))
    }

    async fn in_pod(&self, client: Client, name: &str) -> anyhow::Result<u8> {
        let pods = Api::<Pod>::namespaced(client, &self.namespace);
        if pods.get_opt(name).await.map_err(connect::said)?.is_none() {
            let node = if self.target.contains('/') {
                ""
            } else {
                "node or "
            };
            bail!(
                "there is no {node}pod {name} in lab {:?}, namespace {}",
                self.in_lab.lab,
                self.namespace
            );
        }
        let mut command = Vec::new();
        for word in &self.command {
            let word = word.to_str();
            command.push(word.context("a pod's command has to be UTF-8")?);
        }
        let parameters = AttachParams {
            container: self.container.clone(),
            stdin: self.stdin,
            stdout: true,
            // A terminal is one stream.
            stderr: !self.tty,
            tty: self.tty,
            ..AttachParams::default()
        };
        let attached = pods.exec(name, command, &parameters).await;
        let raw = if self.tty && self.stdin {
            terminal::Raw::stdin()?
        } else {
            None
        };
        let status = streams(attached.map_err(connect::said)?).await;
        drop(raw);
        exit_code(status?)
    }
}

/// The node's process that its kubelet annotates it with; `first` is the lab's own first.
fn enters(node: &Node, first: u32, command: Vec<OsString>) -> anyhow::Result<Entry> {
    let told = node.annotations().get(HOST_PID_ANNOTATION);
    let told = told.and_then(|pid| pid.parse::<u32>().ok());
    let space = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    // Whoever may write to the API could have us enter any process of this machine.
    let is_of_lab = |pid: &u32| space(*pid).is_some() && space(*pid) == space(first);
    let pid = told.filter(is_of_lab).with_context(|| {
        format!(
            "annotation {HOST_PID_ANNOTATION} of node {} does not tell a process of the lab: it was changed",
            node.name_any()
        )
    })?;
    Ok(Entry { pid, command })
}

/// Passes everything on until the command has ended.
async fn streams(mut process: AttachedProcess) -> anyhow::Result<Option<Status>> {
    let status = process.take_status();
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let stdin = process.stdin();
    let sizes = process.terminal_size();
    let input = async move {
        if let Some(mut stdin) = stdin {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let resized = async move {
        if let (Some(mut sizes), Ok(mut changes)) = (sizes, signal(SignalKind::window_change())) {
            while let Some(size) = terminal::size() {
                if sizes.send(size).await.is_err() || changes.recv().await.is_none() {
                    break;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let output = async {
        let (out, err) = tokio::join!(
            copy(stdout, std::io::stdout()),
            copy(stderr, std::io::stderr())
        );
        out.and(err)
    };
    tokio::select! {
        copied = output => copied?,
        () = input => {}
        () = resized => {}
    }
    match status {
        Some(status) => Ok(status.await),
        None => Ok(None),
    }
}

async fn copy(
    from: Option<impl AsyncRead + Unpin>,
    mut to: impl std::io::Write,
) -> std::io::Result<()> {
    let Some(mut from) = from else {
        return Ok(());
    };
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        match buffer.get(..count) {
            Some(read) if count > 0 => {
                to.write_all(read)?;
                to.flush()?;
            }
            _ => return Ok(()),
        }
    }
}

/// What the end of the stream of statuses means.
fn exit_code(status: Option<Status>) -> anyhow::Result<u8> {
    let status = status.context("the connection ended before the command did")?;
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    if status.reason.as_deref() == Some("NonZeroExitCode") {
        let causes = status.details.and_then(|details| details.causes);
        let mut causes = causes.into_iter().flatten();
        let code = causes.find(|cause| cause.reason.as_deref() == Some("ExitCode"));
        let code = code.and_then(|cause| cause.message?.parse::<i64>().ok());
        let code = code.context("the command failed, and did not say with which code")?;
        return Ok(u8::try_from(code).unwrap_or(u8::MAX));
    }
    say(&status
        .message
        .unwrap_or_else(|| "the command failed".to_owned()));
    Ok(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_process_of_the_lab_is_entered() {
        let node = |pid: &str| {
            let node =
                json!({"metadata": {"name": "a", "annotations": {HOST_PID_ANNOTATION: pid}}});
            serde_json::from_value::<Node>(node).unwrap()
        };
        let own = std::process::id();
        let enters = |pid: &str| enters(&node(pid), own, Vec::new()).map(|entry| entry.pid);
        assert_eq!(enters(&own.to_string()).unwrap(), own);
        for wrong in ["", "-1", "4194305"] {
            let refused = enters(wrong).unwrap_err().to_string();
            assert!(refused.contains("of node a does not tell a process of the lab"));
        }
    }

    #[test]
    fn a_commands_code_is_passed_on() {
        let code = |status| exit_code(Some(serde_json::from_value(status).unwrap())).unwrap();
        assert_eq!(code(json!({"status": "Success"})), 0);
        let failed = json!({
            "status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
        });
        assert_eq!(code(failed), 7);
        let failed = json!({"status": "Failure", "message": "no such program"});
        assert_eq!(code(failed), 1);
        assert!(exit_code(None).is_err());
    }
}
