//! What flows between a client and a pod that runs: attach, logs, port-forward, proxy.

use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, LogParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Cluster, IMAGE};
use crate::desk::everybody;
use crate::image::shell;

/// A pod of one shell, that reads its standard input.
fn reads(name: &str, tty: bool, script: &str) -> Pod {
    let container = json!({
        "name": "shell", "image": IMAGE, "command": ["/bash", "-c", script],
        "stdin": true, "stdinOnce": true, "tty": tty,
    });
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container]},
    });
    serde_json::from_value(pod).unwrap()
}

#[test]
fn a_container_is_attached_to_with_its_standard_input() {
    everybody(|desk| {
        desk.succeeds(&["up", "-d", "--workers", "1"]);
        desk.with_input(&["load", "-"], shell(IMAGE));
        let cluster = Cluster::of(desk);
        // A file ends, a terminal does not: there, the word does.
        let script =
            "while read word; do echo heard $word; [ $word = last ] && exit; done; echo end";
        for (name, tty, expected) in [
            ("file", false, "heard first\nheard last\n"),
            (
                "terminal",
                true,
                "first\r\nlast\r\nheard first\r\nheard last\r\n",
            ),
        ] {
            cluster.create(&reads(name, tty, script));
            cluster.wait(name, |said| said == "running");
            let parameters = AttachParams {
                stdin: true,
                stderr: !tty,
                tty,
                ..AttachParams::default()
            };
            let said = cluster.runtime.block_on(async {
                let mut attached = cluster.pods.attach(name, &parameters).await.unwrap();
                let mut stdin = attached.stdin().unwrap();
                stdin.write_all(b"first\nlast\n").await.unwrap();
                let mut said = String::new();
                let mut stdout = attached.stdout().unwrap();
                stdout.read_to_string(&mut said).await.unwrap();
                said
            });
            let mut letters: Vec<char> = said.chars().collect();
            let mut all: Vec<char> = expected.chars().collect();
            // What is typed may be echoed between what is answered.
            letters.sort_unstable();
            all.sort_unstable();
            assert_eq!(letters, all, "{said:?}");
            assert_eq!(desk.succeeds(&["logs", name]).len(), said.len());
        }
        // Where it is not a terminal, the end of what is sent is the end of what is read.
        cluster.create(&reads("end", false, script));
        cluster.wait("end", |said| said == "running");
        let parameters = AttachParams::default().stdin(true);
        let said = cluster.runtime.block_on(async {
            let mut attached = cluster.pods.attach("end", &parameters).await.unwrap();
            let mut stdin = attached.stdin().unwrap();
            stdin.write_all(b"word\n").await.unwrap();
            stdin.shutdown().await.unwrap();
            let mut said = String::new();
            let mut stdout = attached.stdout().unwrap();
            stdout.read_to_string(&mut said).await.unwrap();
            said
        });
        assert_eq!(said, "heard word\nend\n");
        desk.succeeds(&["down"]);
    });
}

#[test]
fn a_log_is_read_in_part() {
    everybody(|desk| {
        desk.succeeds(&["up", "-d", "--workers", "1"]);
        desk.with_input(&["load", "-"], shell(IMAGE));
        let cluster = Cluster::of(desk);
        let script = "echo one; echo two; read; echo three";
        cluster.create(&reads("talks", false, script));
        cluster.wait("talks", |said| said == "running");
        let log = |parameters: &LogParams| {
            let log = cluster.pods.logs("talks", parameters);
            cluster.runtime.block_on(log).unwrap()
        };
        let two = LogParams {
            follow: true,
            limit_bytes: Some(8),
            ..LogParams::default()
        };
        // It ends though the container goes on.
        assert_eq!(log(&two), "one\ntwo\n");
        let later = LogParams {
            since_time: Some("2100-01-01T00:00:00Z".parse().unwrap()),
            ..LogParams::default()
        };
        assert_eq!(log(&later), "");
        let since = LogParams {
            since_seconds: Some(3600),
            timestamps: true,
            tail_lines: Some(1),
            ..LogParams::default()
        };
        let line = log(&since);
        assert!(line.len() == 35 && line.ends_with("Z two\n"), "{line:?}");
        desk.succeeds(&["down"]);
    });
}

#[test]
fn ports_of_a_pod_are_reached_from_inside_and_by_its_network() {
    everybody(|desk| {
        desk.succeeds(&["up", "-d", "--workers", "1"]);
        let cluster = Cluster::of(desk);
        let pods = Api::<Pod>::namespaced(cluster.client.clone(), "kube-system");
        cluster.runtime.block_on(async {
            let dns = watcher::Config::default().labels("k8s-app=kube-dns");
            let dns = running(pods.clone(), dns).await;
            // It says something when it listens.
            let follow = LogParams {
                follow: true,
                ..LogParams::default()
            };
            let mut said = pods.log_stream(&dns, &follow).await.unwrap().lines();
            assert_eq!(said.next().await.unwrap().unwrap(), ".:53");
            let mut forwarder = pods.portforward(&dns, &[8080, 9]).await.unwrap();
            let mut stream = forwarder.take_stream(8080).unwrap();
            let request = b"GET /health HTTP/1.0\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
            let refused = forwarder.take_error(9).unwrap().await.unwrap();
            assert!(
                refused.contains("error forwarding port 9 to pod"),
                "{refused}"
            );
            assert!(refused.contains("connection refused"), "{refused}");

            // One that is reached as soon as it runs, whether or not the nodes know each other yet.
            let near = watcher::Config::default()
                .labels("k8s-app=kube-proxy")
                .fields("spec.nodeName=strata-control-plane");
            let near = running(pods, near).await;
            let path = format!("/api/v1/namespaces/kube-system/pods/{near}:9/proxy/");
            let request = http::Request::get(path).body(Vec::new()).unwrap();
            let refused = cluster.client.request_text(request).await.unwrap_err();
            let kube::Error::Api(refused) = refused else {
                panic!("{refused}")
            };
            assert_eq!(refused.reason, "ServiceUnavailable");
            assert_eq!(
                refused.message,
                "error trying to reach service: dial tcp 172.30.0.2:9: connect: connection refused"
            );
        });
        desk.succeeds(&["down"]);
    });
}

/// The name of one of these pods that runs.
async fn running(pods: Api<Pod>, config: watcher::Config) -> String {
    let mut pods = watcher::watcher(pods, config).applied_objects().boxed();
    loop {
        let pod = pods.next().await.unwrap().unwrap();
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if phase == Some("Running") {
            return pod.name_any();
        }
    }
}
