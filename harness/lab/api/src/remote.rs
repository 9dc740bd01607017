//! `exec` and `attach`: a process's streams as channels (`remotecommand`).
//!
//! Start from [`exec`] and [`attach`]. Rule: the process is there before the client is told that it
//! may open channels, so that a refusal is an answer like any other.

use std::io;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::{Buf as _, Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Shared;
use super::channel::{Channel, Labels, Numbered, Protocols, Session, Upgrade};
use super::container::refused;
use super::kubelet::{AttachRequest, ContainerRef, ExecRequest, KubeletError, ProcessStreams};
use super::request::{Asked, Query};
use super::status::Status;

const PROTOCOLS: Protocols = Protocols {
    spdy: &[
        "v4.channel.k8s.io",
        "v3.channel.k8s.io",
        "v2.channel.k8s.io",
        "channel.k8s.io",
    ],
    websocket: &[
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "",
    ],
};
/// The streams in the order of their numbers over a WebSocket.
const STREAMS: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];
/// By which label a stream is told (core/v1 `StreamType`).
const STREAM_TYPE: &str = "streamtype";
/// How long a client has to open its streams, as kubelets give it.
const OPENING: Duration = Duration::from_secs(30);
/// More than any terminal size takes.
const LARGEST_SIZE: usize = 4 << 10;

/// Which streams a client asks for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    resize: bool,
}

impl Wanted {
    fn of(query: &Query, protocol: &str) -> Self {
        let tty = query.is("tty");
        Self {
            stdin: query.is("stdin"),
            stdout: query.is("stdout"),
            // A terminal is one stream.
            stderr: query.is("stderr") && !tty,
            resize: tty && !matches!(protocol, "v2.channel.k8s.io" | "channel.k8s.io"),
        }
    }

    fn has(self, name: &str) -> bool {
        match name {
            "stdin" => self.stdin,
            "stdout" => self.stdout,
            "stderr" => self.stderr,
            "resize" => self.resize,
            name => name == "error",
        }
    }
}

/// Runs a command in a container.
pub(crate) async fn exec(
    shared: &Shared,
    asked: &Asked,
    target: ContainerRef,
    request: Request,
) -> Result<Response, Status> {
    let command = asked.query.all("command");
    if command.is_empty() {
        return Err(Status::bad_request(
            "you must specify at least 1 command for the container",
        ));
    }
    let upgrade = upgrade(request, &asked.query).await?;
    let request = ExecRequest {
        command,
        stdin: asked.query.is("stdin"),
        tty: asked.query.is("tty"),
    };
    let process = match shared.kubelet.exec(&target, request).await {
        Ok(process) => process,
        // As by a container runtime: the stream was made, and tells why it ends.
        Err(KubeletError::Internal(why)) => {
            let why = format!("error executing command in container: {why}");
            failed(Status::internal(why).message)
        }
        Err(error) => return Err(refused(&error)),
    };
    Ok(serve(upgrade, &asked.query, process))
}

/// Joins a container's own process.
pub(crate) async fn attach(
    shared: &Shared,
    asked: &Asked,
    target: ContainerRef,
    request: Request,
) -> Result<Response, Status> {
    let upgrade = upgrade(request, &asked.query).await?;
    let request = AttachRequest {
        stdin: asked.query.is("stdin"),
    };
    let process = shared.kubelet.attach(&target, request).await;
    let process = process.map_err(|error| refused(&error))?;
    Ok(serve(upgrade, &asked.query, process))
}

async fn upgrade(request: Request, query: &Query) -> Result<Upgrade, Status> {
    if !["stdin", "stdout", "stderr"]
        .iter()
        .any(|name| query.is(name))
    {
        return Err(Status::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    let numbered = STREAMS.map(|name| Numbered {
        labels: Labels::new([(STREAM_TYPE, name.to_owned())]),
        greeting: Bytes::new(),
    });
    Upgrade::of(request, PROTOCOLS, || Ok(numbered.into())).await
}

fn serve(upgrade: Upgrade, query: &Query, process: ProcessStreams) -> Response {
    let wanted = Wanted::of(query, upgrade.protocol);
    // Before version 4, errors are told in words, and success by silence.
    let in_words =
        !matches!(upgrade.protocol, name if name.starts_with("v4.") || name.starts_with("v5."));
    upgrade.serve(async move |session| {
        match timeout(OPENING, Streams::opened(session, wanted)).await {
            Ok(Some(streams)) => run(streams, process, in_words).await,
            Ok(None) => {}
            Err(_) => tracing::debug!("timed out waiting for client to create streams"),
        }
    })
}

/// A session that ends at once, and says why.
fn failed(why: String) -> ProcessStreams {
    ProcessStreams {
        stdin: None,
        stdout: Box::new(tokio::io::empty()),
        stderr: None,
        resize: None,
        exit: Box::pin(async move { Err(io::Error::other(why)) }),
    }
}

/// A client's channels, by what they are for.
struct Streams {
    stdin: Option<Channel>,
    stdout: Option<Channel>,
    stderr: Option<Channel>,
    error: Option<Channel>,
    resize: Option<Channel>,
}

impl Streams {
    /// Waits until the client has opened all that it wants; none if it is gone before that.
    async fn opened(mut session: Session, wanted: Wanted) -> Option<Self> {
        let mut streams = Self {
            stdin: None,
            stdout: None,
            stderr: None,
            error: None,
            resize: None,
        };
        while STREAMS.iter().any(|name| {
            let missing = streams.slot(name).is_some_and(|slot| slot.is_none());
            wanted.has(name) && missing
        }) {
            let channel = session.next().await?;
            let name = channel.labels.get(STREAM_TYPE).to_owned();
            if let Some(slot) = streams.slot(&name).filter(|_| wanted.has(&name)) {
                *slot = Some(channel);
            }
        }
        Some(streams)
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<Channel>> {
        match name {
            "stdin" => Some(&mut self.stdin),
            "stdout" => Some(&mut self.stdout),
            "stderr" => Some(&mut self.stderr),
            "error" => Some(&mut self.error),
            "resize" => Some(&mut self.resize),
            _ => None,
        }
    }
}

/// Copies between the channels and the process until the process ends.
async fn run(streams: Streams, process: ProcessStreams, in_words: bool) {
    let input = async {
        if let (Some(mut channel), Some(mut stdin)) = (streams.stdin, process.stdin) {
            // A process that reads no more is no trouble: what comes is dropped.
            let _ = tokio::io::copy(&mut channel.input, &mut stdin).await;
        }
        std::future::pending::<()>().await;
    };
    let sizes = async {
        if let (Some(channel), Some(resize)) = (streams.resize, process.resize) {
            let _ = sizes(channel, resize).await;
        }
        std::future::pending::<()>().await;
    };
    let output = async {
        let (_, _, exit) = tokio::join!(
            pump(Some(process.stdout), streams.stdout),
            pump(process.stderr, streams.stderr),
            process.exit
        );
        exit
    };
    let exit = tokio::select! {
        exit = output => exit,
        () = input => return,
        () = sizes => return,
    };
    let Some(mut error) = streams.error else {
        return;
    };
    let outcome = outcome(exit);
    let said = match outcome["message"].as_str().unwrap_or_default() {
        words if in_words => words.to_owned(),
        _ => outcome.to_string(),
    };
    if !said.is_empty() {
        let _ = error.output.write_all(said.as_bytes()).await;
    }
    let _ = error.output.shutdown().await;
}

/// Passes on what a process writes, and that it writes no more.
async fn pump(from: Option<Box<dyn AsyncRead + Send + Unpin>>, to: Option<Channel>) {
    let Some(mut from) = from else {
        return;
    };
    let Some(Channel { mut output, .. }) = to else {
        // Nobody asked for it, but a full pipe would stop the process.
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
        return;
    };
    let _ = tokio::io::copy(&mut from, &mut output).await;
    let _ = output.shutdown().await;
}

/// Tells the process how large the client's terminal is, as often as that changes.
async fn sizes(mut channel: Channel, resize: mpsc::Sender<(u16, u16)>) -> io::Result<()> {
    let mut text = BytesMut::new();
    while channel.input.read_buf(&mut text).await? > 0 && text.len() < LARGEST_SIZE {
        let mut sizes = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
        let mut read = 0;
        while let Some(Ok(size)) = sizes.next() {
            read = sizes.byte_offset();
            let side = |name: &str| {
                size[name]
                    .as_u64()
                    .and_then(|side| u16::try_from(side).ok())
            };
            if let (Some(width), Some(height)) = (side("Width"), side("Height")) {
                let _ = resize.send((width, height)).await;
            }
        }
        text.advance(read);
    }
    Ok(())
}

/// The Status that ends a session (`remotecommand`, v4 and later).
fn outcome(code: io::Result<i32>) -> Value {
    match code {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": error.to_string(), "code": 500})
        }
    }
}

#[cfg(test)]
mod tests;
