//! What a lab is to the host: an API server, ids that `nsenter` takes, pods, the outside.

use std::process::{Command, Stdio};

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, AttachParams, ListParams, LogParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::await_condition;
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use strata_lab::boot::LabConfig;
use strata_lab::topology::{CONTROL_PLANE, ENVOY_IMAGE, HOST_PID_ANNOTATION};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;

use crate::embed::{self, Embedding, Place};
use crate::image::shell;
use crate::{Case, Who};

pub(crate) const CASES: &[Case] = &[
    ("answers_the_host_by_every_name_of_its_certificate", names),
    (
        "annotates_nodes_and_pods_with_ids_that_nsenter_takes",
        annotations,
    ),
    ("answers_the_nodes_at_the_control_planes_address", endpoint),
    ("runs_pods_with_logs_and_exec", pods),
    ("runs_commands_of_the_probes_image_outside", outside),
];

/// The name of the pod that [`Cluster::run_pod`] makes.
pub(crate) const SHELL_POD: &str = "shell";

/// A client of a lab's API server.
pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
}

impl Cluster {
    pub(crate) fn of(embedding: &Embedding) -> Self {
        Self::known_as(embedding, None)
    }

    /// The client takes the server for one of this name.
    fn known_as(embedding: &Embedding, name: Option<&str>) -> Self {
        let runtime = Runtime::new().unwrap();
        let kubeconfig = Kubeconfig::from_yaml(embedding.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let client = runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            let mut config = config.unwrap();
            config.tls_server_name = name.map(str::to_owned);
            Client::try_from(config).unwrap()
        });
        Self { runtime, client }
    }

    pub(crate) fn ready_nodes(&self) -> Vec<Node> {
        let nodes = Api::<Node>::all(self.client.clone());
        let nodes = self
            .runtime
            .block_on(nodes.list(&ListParams::default()))
            .unwrap();
        let ready = |node: &Node| {
            let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
            conditions
                .iter()
                .any(|one| one.type_ == "Ready" && one.status == "True")
        };
        nodes.items.into_iter().filter(ready).collect()
    }

    /// Runs a pod that says hello and stays; `mark` is in its command line.
    pub(crate) fn run_pod(&self, name: &str, mark: &str) -> Pod {
        let script = "echo hello; while :; do read -t 9 <>/dev/ptmx; done";
        let pod = serde_json::from_value::<Pod>(json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": "strata-worker",
                "hostNetwork": true,
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "shell",
                    "image": ENVOY_IMAGE,
                    "command": ["/envoy", "-c", script, mark],
                }],
            },
        }));
        let account =
            serde_json::from_value::<ServiceAccount>(json!({"metadata": {"name": "default"}}));
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), "default");
        let pods = Api::<Pod>::namespaced(self.client.clone(), "default");
        self.runtime.block_on(async {
            match accounts
                .create(&PostParams::default(), &account.unwrap())
                .await
            {
                Err(kube::Error::Api(answer)) if answer.code == 409 => {}
                created => drop(created.unwrap()),
            }
            pods.create(&PostParams::default(), &pod.unwrap())
                .await
                .unwrap();
            let running = await_condition(pods.clone(), name, is_pod_running()).await;
            running.unwrap().unwrap()
        })
    }

    /// Asks for a command outside; the answer, or the refusal's message.
    fn outside(&self, request: &Value) -> Result<Value, String> {
        let request =
            http::Request::post("/lab/v1/outside").body(serde_json::to_vec(request).unwrap());
        let answer = self
            .runtime
            .block_on(self.client.request::<Value>(request.unwrap()));
        answer.map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            error => panic!("{error}"),
        })
    }
}

fn names(who: Who) {
    let embedding = Embedding::start(who);
    let server = embedding.lab["server"].as_str().unwrap();
    assert!(server.starts_with("https://127.0.0.1:"), "{server}");
    for name in [
        "172.30.0.2",
        "10.96.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "strata-control-plane",
    ] {
        let nodes = Cluster::known_as(&embedding, Some(name)).ready_nodes();
        let names = nodes.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
        assert_eq!(
            names,
            ["strata-control-plane", "strata-worker", "strata-worker2"]
        );
    }
    let version = Cluster::of(&embedding);
    let version = version
        .runtime
        .block_on(version.client.apiserver_version())
        .unwrap();
    assert_eq!(version.minor, "34");
    let path = embedding.lab["path"].as_str().unwrap();
    let mut read = Command::new("cat");
    let read = embed::by(who, &mut read).arg(path).output().unwrap();
    assert_eq!(
        String::from_utf8(read.stdout).unwrap(),
        embedding.kubeconfig()
    );
    embedding.end();
}

/// Runs a command in the network namespace of a process, as whoever runs the lab.
fn nsenter(who: Who, embedding: &Embedding, pid: &str, command: &[&str]) -> String {
    let prefix: Vec<String> = serde_json::from_value(embedding.lab["nsenter"].clone()).unwrap();
    let mut nsenter = Command::new(&prefix[0]);
    let output = embed::by(who, &mut nsenter)
        .args(&prefix[1..])
        .arg(pid)
        .args(command)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn annotations(who: Who) {
    let embedding = Embedding::start(who);
    let cluster = Cluster::of(&embedding);
    let pod = cluster.run_pod(SHELL_POD, &embedding.place.mark());
    let mut seen = std::collections::BTreeMap::new();
    for node in cluster.ready_nodes() {
        let pid = &node.annotations()[HOST_PID_ANNOTATION];
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let entered = nsenter(who, &embedding, pid, &["readlink", "/proc/self/ns/net"]);
        assert_eq!(entered, namespace.to_str().unwrap());
        // What people enter it for needs the rights to change it.
        let change = ["ip", "address", "add", "192.0.2.1/32", "dev", "lo"];
        nsenter(who, &embedding, pid, &change);
        let addresses = nsenter(who, &embedding, pid, &["ip", "-o", "address"]);
        assert!(addresses.contains("192.0.2.1"), "{addresses}");
        seen.insert(node.name_any(), entered);
    }
    let entered = nsenter(
        who,
        &embedding,
        &embedding.first().to_string(),
        &["readlink", "/proc/self/ns/net"],
    );
    seen.insert("outside".to_owned(), entered);
    let distinct = seen.values().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(distinct.len(), 4, "{seen:?}");
    // The kubelet annotates after it has made the sandbox, and runs containers after that.
    let pid = &pod.annotations()[HOST_PID_ANNOTATION];
    let entered = nsenter(who, &embedding, pid, &["readlink", "/proc/self/ns/net"]);
    assert_eq!(entered, seen["strata-worker"]);
    embedding.end();
}

fn endpoint(who: Who) {
    let embedding = Embedding::start(who);
    let nodes = Cluster::of(&embedding).ready_nodes();
    let node = nodes
        .iter()
        .find(|node| node.name_any() == CONTROL_PLANE)
        .unwrap();
    let pid = &node.annotations()[HOST_PID_ANNOTATION];
    let script = "exec 3<>/dev/tcp/172.30.0.2/6443 && echo open";
    assert_eq!(
        nsenter(who, &embedding, pid, &["bash", "-c", script]),
        "open"
    );
    embedding.end();
}

fn pods(who: Who) {
    let embedding = Embedding::start(who);
    let cluster = Cluster::of(&embedding);
    cluster.run_pod(SHELL_POD, &embedding.place.mark());
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), "default");
    cluster.runtime.block_on(async {
        let follow = LogParams {
            follow: true,
            ..LogParams::default()
        };
        let mut lines = pods.log_stream(SHELL_POD, &follow).await.unwrap().lines();
        assert_eq!(lines.try_next().await.unwrap().as_deref(), Some("hello"));
        let command = ["/envoy", "-c", "echo in $$; exit 3"];
        let mut exec = pods
            .exec(SHELL_POD, command, &AttachParams::default())
            .await
            .unwrap();
        let mut said = String::new();
        let status = exec.take_status().unwrap();
        exec.stdout()
            .unwrap()
            .read_to_string(&mut said)
            .await
            .unwrap();
        assert!(said.starts_with("in "), "{said}");
        assert_eq!(
            status.await.unwrap().reason.as_deref(),
            Some("NonZeroExitCode")
        );
    });
    embedding.end();
}

fn outside(who: Who) {
    let embedding = Embedding::start(who);
    let refused = Cluster::of(&embedding).outside(&json!({"command": ["/bash"]}));
    assert_eq!(
        refused.unwrap_err(),
        "image strata.dev/probe:v1, whose commands run outside the cluster, was not loaded into the lab"
    );
    embedding.end();

    let place = Place::new();
    let archive = place.path().join("image.tar");
    std::fs::write(&archive, shell("strata.dev/probe:v1")).unwrap();
    let mut command = Command::new(place.program());
    command.stdin(Stdio::piped());
    let config = LabConfig {
        images: vec![archive],
        ..embed::config()
    };
    let embedding = Embedding::start_as(place, embed::by(who, &mut command), &config);
    let cluster = Cluster::of(&embedding);
    let script = "read -r line; echo $line; echo no >&2; read -r name </proc/sys/kernel/hostname; echo $name; exit 5";
    let answer = cluster.outside(&json!({"command": ["/bash", "-c", script], "stdin": "given\n"}));
    assert_eq!(
        answer.unwrap(),
        json!({"exitCode": 5, "stdout": "given\noutside\n", "stderr": "no\n"})
    );
    // The outside has an address on the nodes' network, and no other way out.
    let script = "while read -r line; do echo $line; done </proc/net/fib_trie";
    let answer = cluster
        .outside(&json!({"command": ["/bash", "-c", script]}))
        .unwrap();
    assert!(
        answer["stdout"].as_str().unwrap().contains("172.30.0.1"),
        "{answer}"
    );
    let refused = cluster.outside(&json!({"command": ["/nope"]})).unwrap_err();
    assert!(refused.contains("no such file or directory"), "{refused}");
    let refused = cluster.outside(&json!({"comand": []})).unwrap_err();
    assert!(refused.contains("unknown field `comand`"), "{refused}");
    // A caller who does not wait takes the command along.
    let mark = embedding.place.mark();
    let script = "exec 3<>/dev/ptmx; while :; do read -t 9 -u 3; done";
    let body = json!({"command": ["/bash", "-c", script, mark]});
    let request = http::Request::post("/lab/v1/outside").body(serde_json::to_vec(&body).unwrap());
    let tree = cluster.runtime.block_on(async {
        let asked = cluster.client.request::<Value>(request.unwrap());
        let running = async {
            loop {
                let tree = crate::processes::Tree::of(embedding.first());
                if tree.count("/bash -c exec 3") > 0 {
                    return tree;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = asked => panic!("{answer:?}"),
            tree = running => tree,
        }
    });
    drop(cluster);
    tree.wait_for("/bash -c exec 3");
    embedding.end();
}
