//! `STRATA_AFTER_LAYER`: a program of the person's, run between a layer's bring-up and its checks.
//!
//! It finds in its environment `LAYER`, `KUBECONFIG`, `NAMESPACE` (the one that the layer's fixture
//! is in) and, where the harness runs on the nodes' machine, a way into every network namespace:
//! `STRATA_NETNS`, a file with a line `kind<TAB>namespace<TAB>name<TAB>pid` each; the same as
//! `NODE_PID_<NAME>` and `POD_PID_<NAMESPACE>_<NAME>` (upper case, other characters as `_`); and
//! `STRATA_NSENTER`, the command prefix that a process id follows.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt as _};

use crate::group::Group;
use crate::provider::{Cluster, tools};
use crate::run::RunInfo;
use crate::settings::BadInput;
use crate::stack::Layer;

/// Long enough for a person to look around by hand, and still an end.
const DEADLINE: Duration = Duration::from_secs(600);

/// Refuses a program that could not be run, before anything is started.
pub(super) fn check(program: &Path) -> Result<(), BadInput> {
    let candidates: Vec<PathBuf> = if program.components().count() > 1 {
        vec![program.to_owned()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        tools::on_path(program, &path).collect()
    };
    let file = candidates
        .iter()
        .filter_map(|path| path.metadata().ok())
        .find(|meta| meta.is_file());
    let remedy = match file {
        None => "does not exist; give the path of a program",
        Some(meta) if meta.permissions().mode() & 0o111 == 0 => "is not executable; chmod +x it",
        Some(_) => return Ok(()),
    };
    Err(BadInput(format!(
        "STRATA_AFTER_LAYER={} {remedy}",
        program.display()
    )))
}

/// Runs the program. What it leaves running goes on until what is returned is dropped; what it
/// writes is in `after-layer-<layer>.log` of the report directory.
///
/// # Errors
/// When it cannot be run, or fails; the text ends with the last line that it wrote.
pub(super) async fn run(
    program: &Path,
    layer: Layer,
    cluster: &Cluster,
    run: &RunInfo,
) -> anyhow::Result<Group> {
    let mut variables = vec![
        ("LAYER".to_owned(), OsString::from(layer.name())),
        ("NAMESPACE".to_owned(), run.fixture_namespace(layer).into()),
        (
            "KUBECONFIG".to_owned(),
            cluster.kubeconfig.clone().into_os_string(),
        ),
    ];
    if let Some(annotation) = cluster.pid_annotation {
        let entries = entries(cluster, annotation).await?;
        let path = run.report_dir.join("netns.tsv");
        std::fs::write(&path, table(&entries))
            .with_context(|| format!("cannot write {}", path.display()))?;
        variables.push(("STRATA_NETNS".to_owned(), path.into_os_string()));
        variables.push((
            "STRATA_NSENTER".to_owned(),
            cluster.nsenter.join(" ").into(),
        ));
        variables.extend(
            entries
                .iter()
                .map(|entry| (entry.variable(), (&entry.pid).into())),
        );
    }
    let name = program.display();
    // A file rather than a pipe: one that something in the background holds open never ends.
    let path = run.report_dir.join(format!("after-layer-{layer}.log"));
    let output = std::fs::File::create(&path);
    let output = output.with_context(|| format!("cannot write {}", path.display()))?;
    let mut child = tokio::process::Command::new(program)
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // A group of its own: what the program starts is ended with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let group = Group::of(&child);
    let status = tokio::time::timeout(DEADLINE, child.wait())
        .await
        .with_context(|| format!("{name} did not end within {} s", DEADLINE.as_secs()))?
        .with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        let output = std::fs::read(&path).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let last = output.lines().rfind(|line| !line.trim().is_empty());
        bail!(
            "{name} failed ({status}): {}",
            last.unwrap_or("it wrote nothing")
        );
    }
    Ok(group)
}

/// A network namespace that can be entered.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    namespace: String,
    name: String,
    pid: String,
}

impl Entry {
    fn of<K: Resource>(kind: &'static str, object: &K, annotation: &str) -> Option<Self> {
        Some(Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            pid: object.annotations().get(annotation)?.clone(),
        })
    }

    fn variable(&self) -> String {
        let name = if self.namespace.is_empty() {
            format!("{}_PID_{}", self.kind, self.name)
        } else {
            format!("{}_PID_{}_{}", self.kind, self.namespace, self.name)
        };
        name.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect()
    }
}

async fn entries(cluster: &Cluster, annotation: &str) -> anyhow::Result<Vec<Entry>> {
    let all = ListParams::default();
    let nodes = Api::<Node>::all(cluster.client.clone()).list(&all).await?;
    let pods = Api::<Pod>::all(cluster.client.clone()).list(&all).await?;
    let nodes = nodes
        .items
        .iter()
        .filter_map(|node| Entry::of("node", node, annotation));
    let pods = pods
        .items
        .iter()
        .filter_map(|pod| Entry::of("pod", pod, annotation));
    Ok(nodes.chain(pods).collect())
}

fn table(entries: &[Entry]) -> String {
    entries.iter().fold(String::new(), |mut text, entry| {
        let Entry {
            kind,
            namespace,
            name,
            pid,
        } = entry;
        let _ = writeln!(text, "{kind}\t{namespace}\t{name}\t{pid}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_variables() {
        let mut node = Node::default();
        node.metadata.name = Some("strata-worker2".into());
        node.annotations_mut().insert("pid".into(), "42".into());
        let node = Entry::of("node", &node, "pid").unwrap();
        assert_eq!(node.variable(), "NODE_PID_STRATA_WORKER2");
        let mut pod = Pod::default();
        pod.metadata.name = Some("web-0.a".into());
        pod.metadata.namespace = Some("strata-cni".into());
        assert_eq!(Entry::of("pod", &pod, "pid"), None);
        pod.annotations_mut().insert("pid".into(), "43".into());
        let pod = Entry::of("pod", &pod, "pid").unwrap();
        assert_eq!(pod.variable(), "POD_PID_STRATA_CNI_WEB_0_A");
        assert_eq!(
            table(&[node, pod]),
            "node\t\tstrata-worker2\t42\npod\tstrata-cni\tweb-0.a\t43\n"
        );
    }

    fn cluster() -> Cluster {
        let api = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, std::io::Error>(http::Response::new(kube::client::Body::empty()))
        });
        Cluster {
            client: kube::Client::new(api, "default"),
            kubeconfig: "/the/kubeconfig".into(),
            provider: "toy",
            versions: std::collections::BTreeMap::new(),
            outside: None,
            load_balancer: crate::provider::Balancer::none(),
            ingress: None,
            gateway: None,
            istio: None,
            ours: true,
            layers: crate::provider::Layers::all(),
            fit: crate::apply::Fit::default(),
            node_network: Ok(()),
            pid_annotation: None,
            nsenter: Vec::new(),
        }
    }

    #[tokio::test]
    #[cfg_attr(not(target_os = "linux"), ignore = "it looks for a process in /proc")]
    async fn it_is_told_where_it_is_and_what_it_starts_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let info = RunInfo {
            id: "abc".into(),
            report_dir: dir.path().to_owned(),
            ..RunInfo::default()
        };
        let program = dir.path().join("hook");
        let write = |text: &str| crate::script::write(&program, text);
        let log = || std::fs::read_to_string(dir.path().join("after-layer-cni.log")).unwrap();
        // What it leaves in the background holds its output open, and is no reason to wait.
        write("echo $LAYER $NAMESPACE $KUBECONFIG; tail -f /dev/null & echo $!");
        let group = run(&program, Layer::Cni, &cluster(), &info).await.unwrap();
        let output = log();
        let (first, background) = output.trim().split_once('\n').unwrap();
        assert_eq!(first, "cni strata-cni-abc /the/kubeconfig");
        let background = Path::new("/proc").join(background);
        assert!(background.exists());
        drop(group);
        // It is init's, or the test's reaper's, to collect; nothing of it runs any more.
        let state = || std::fs::read_to_string(background.join("stat")).unwrap_or_default();
        while !state().is_empty() && !state().contains(") Z ") {
            std::thread::yield_now();
        }

        write("echo going; echo 'no such rule' >&2; exit 3");
        let error = run(&program, Layer::Cni, &cluster(), &info).await;
        let error = error.err().unwrap().to_string();
        assert!(
            error.ends_with("failed (exit status: 3): no such rule"),
            "{error}"
        );
    }

    #[test]
    fn a_program_that_cannot_be_run_is_refused() {
        check(Path::new("true")).unwrap();
        let sentence = |path: &str| check(Path::new(path)).unwrap_err().0;
        assert!(sentence("no-such-program").contains("does not exist"));
        assert!(sentence("/etc/passwd").contains("is not executable"));
    }
}
