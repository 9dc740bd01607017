//! Images for a lab that runs, and the pods that waited for them.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::cluster::{Cluster, IMAGE};
use crate::desk::{Desk, everybody};
use crate::image::shell;

fn web() -> Pod {
    let script = "echo hello; while :; do read -t 9 <>/dev/ptmx; done";
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "shell", "image": IMAGE, "command": ["/bash", "-c", script]}],
        },
    });
    serde_json::from_value(pod).unwrap()
}

/// The first line that a command which goes on writes.
fn first_line(desk: &Desk, arguments: &[&str]) -> String {
    let mut child = desk
        .command(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    line
}

#[test]
fn a_pod_that_lacks_its_image_starts_when_it_is_loaded() {
    everybody(|desk| {
        desk.succeeds(&["up", "-d", "--workers", "1"]);
        let cluster = Cluster::of(desk);
        cluster.create(&web());
        cluster.wait("web", |said| {
            said == "ErrImagePull" || said == "ImagePullBackOff"
        });
        let status = desk.status();
        let waiting = &status["labs"][0]["podsNotReady"];
        let waiting = waiting
            .as_array()
            .unwrap()
            .iter()
            .find(|pod| pod["name"] == "web");
        let reason = waiting.unwrap()["reason"].as_str().unwrap();
        assert!(
            reason.contains("docker save localhost/shell:v1 | strata-lab load -"),
            "{reason}"
        );

        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&shell(IMAGE)).unwrap();
        let said = desk.with_input(&["load", "-"], gzip.finish().unwrap());
        assert!(
            said.starts_with("Loaded localhost/shell:v1\nEvery node of lab \"lab\" has it ("),
            "{said}"
        );
        cluster.wait("web", |said| said == "running");
        // It may run for a moment before it says anything.
        assert_eq!(first_line(desk, &["logs", "-f", "web"]), "hello\n");
        assert_eq!(desk.succeeds(&["logs", "web"]), "hello\n");

        let script = "read line; echo $line; exit 5";
        let command = ["exec", "-i", "pod/web", "--", "/bash", "-c", script];
        let mut child = desk.command(&command);
        let child = child.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"given\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), output.stdout),
            (Some(5), b"given\n".to_vec())
        );
        desk.succeeds(&["down"]);
    });
}

#[test]
fn what_is_no_archive_of_images_is_refused_with_the_reason() {
    everybody(|desk| {
        desk.succeeds(&["up", "-d", "--workers", "1"]);
        let archive = desk.home().join("image.tar");
        let path = archive.to_str().unwrap();
        let whole = shell(IMAGE);
        let zstd = b"\x28\xb5\x2f\xfd and more";
        for (content, expected) in [
            (&whole[..whole.len() / 2], "it was cut short"),
            (
                &zstd[..],
                "is compressed with zstd: compress it with gzip, or not at all",
            ),
            (b"", "it has neither manifest.json nor index.json"),
        ] {
            std::fs::write(&archive, content).unwrap();
            let said = desk.fails(&["load", path]);
            assert!(said.contains(path) && said.contains(expected), "{said}");
        }
        std::fs::write(&archive, whole).unwrap();
        let said = desk.succeeds(&["load", path]);
        assert!(said.starts_with("Loaded localhost/shell:v1\n"), "{said}");
        desk.succeeds(&["down"]);
    });
}
