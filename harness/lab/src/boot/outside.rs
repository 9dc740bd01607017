//! The outside of the cluster: `POST /lab/v1/outside` runs a command of the probe's image there.
//!
//! Start from [`routes`]. Each command is a container of its own in the lab's own network
//! namespace, so it sees what a machine beside the nodes would. Rule: a caller who goes away takes
//! the command with them.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::api::status::Status;
use crate::node::images::Store;
use crate::node::process::Process;
use crate::node::rootfs::{Bind, ContainerFile};
use crate::node::sandbox::Sandbox;

/// The image that commands are run from.
const PROBE_IMAGE: &str = "strata.dev/probe:v1";
/// There is no resolver outside: the cluster's names are not known there.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";

/// The outside, as commands find it.
pub(super) struct Outside {
    pub(super) images: Arc<Store>,
    /// Shares the lab's own network namespace.
    pub(super) sandbox: Sandbox,
    /// A directory for the commands' own files.
    pub(super) root: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The program, and its arguments.
    command: Vec<String>,
    /// What it reads from its standard input.
    #[serde(default)]
    stdin: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// 128 + n when signal n ended it.
    exit_code: i32,
    stdout: String,
    stderr: String,
}

/// The route.
pub(super) fn routes(outside: Arc<Outside>) -> Router {
    Router::new()
        .route("/lab/v1/outside", post(run))
        .with_state(outside)
}

async fn run(State(outside): State<Arc<Outside>>, body: Bytes) -> Response {
    let request = match serde_json::from_slice::<Request>(&body) {
        Ok(request) => request,
        Err(error) => return Status::bad_request(error.to_string()).into_response(),
    };
    match outside.run(request).await {
        Ok(answer) => Json(answer).into_response(),
        Err(status) => status.into_response(),
    }
}

impl Outside {
    async fn run(&self, request: Request) -> Result<Answer, Status> {
        let image = self.images.find(PROBE_IMAGE).ok_or_else(|| {
            Status::bad_request(format!(
                "image {PROBE_IMAGE}, whose commands run outside the cluster, was not loaded into the lab"
            ))
        })?;
        let internal = |error: io::Error| Status::internal(format!("outside: {error}"));
        // Removed when the command is over, or nobody waits for it any more.
        let directory = tempfile::tempdir_in(&self.root).map_err(internal)?;
        let hosts = directory.path().join("hosts");
        fs::write(&hosts, HOSTS).map_err(internal)?;
        let mut binds = image.binds.clone();
        binds.push(Bind {
            source: hosts,
            target: "/etc/hosts".to_owned(),
            read_only: true,
        });
        let file = ContainerFile {
            sandbox: self.sandbox.pid(),
            lower: image.files.clone(),
            directory: directory.path().to_owned(),
            binds,
            env: image.env.clone(),
            cwd: image.working_dir.clone(),
            command: request.command,
            ..ContainerFile::default()
        };
        let (process, streams) = Process::start_with_input(&file).await.map_err(|error| {
            Status::bad_request(format!("the command could not be started outside: {error}"))
        })?;
        let input = async {
            if let Some(mut pipe) = streams.stdin {
                // One that ends without reading is no trouble.
                let _ = pipe.write_all(request.stdin.as_bytes()).await;
            }
        };
        let ((), stdout, stderr, exit) = tokio::join!(
            input,
            all(streams.stdout),
            all(streams.stderr),
            process.wait()
        );
        Ok(Answer {
            exit_code: exit.code,
            stdout: stdout.map_err(internal)?,
            stderr: stderr.map_err(internal)?,
        })
    }
}

async fn all(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
