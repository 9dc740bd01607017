//! The streams of a pod's containers: exec, attach and log.
//!
//! Start from [`stream`]. Exec and attach speak `channel.k8s.io` over WebSocket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts as _, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use http::header;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::Shared;
use super::kubelet::{ContainerRef, ExecRequest, ExecSession, KubeletError, LogOptions};
use super::meta::{items, text};
use super::request::Asked;
use super::status::Status;

/// Whether a subresource is a stream rather than an object.
pub(crate) fn is_stream(name: &str) -> bool {
    matches!(name, "exec" | "attach" | "log")
}

/// `exec`, `attach` and `log` of a pod.
pub(crate) async fn stream(
    shared: Arc<Shared>,
    asked: Asked,
    request: Request,
) -> Result<Response, Status> {
    let name = asked.subresource.clone().unwrap_or_default();
    if !asked.kind.subresources.contains(&name.as_str()) {
        return Err(Status::no_such_path());
    }
    let target = container(&shared, &asked)?;
    match name.as_str() {
        "log" => log(&shared, &asked, &target).await,
        "attach" => attach(shared, &asked, target, request).await,
        _ => exec(shared, &asked, target, request).await,
    }
}

/// The container that a stream is for: the named one, the annotated default, or the first.
fn container(shared: &Shared, asked: &Asked) -> Result<ContainerRef, Status> {
    let name = asked.name.as_deref().unwrap_or_default();
    let pod = shared.store.transact(|state| {
        state
            .get(&asked.kind.table, asked.namespace(), name)
            .cloned()
    });
    let pod = pod.ok_or_else(|| Status::not_found(&asked.kind, name))?;
    let names: Vec<&str> = ["/spec/containers", "/spec/initContainers"]
        .iter()
        .flat_map(|list| items(&pod, list))
        .map(|one| text(one, "/name"))
        .collect();
    let standard = pod["metadata"]["annotations"]
        .get("kubectl.kubernetes.io/default-container")
        .and_then(Value::as_str);
    let wanted = asked
        .query
        .get("container")
        .or(standard)
        .or_else(|| names.first().copied())
        .unwrap_or_default();
    if !names.contains(&wanted) {
        return Err(Status::bad_request(format!(
            "container {wanted} is not valid for pod {name}"
        )));
    }
    let node = text(&pod, "/spec/nodeName");
    if node.is_empty() {
        return Err(Status::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    Ok(ContainerRef {
        namespace: asked.namespace().to_owned(),
        pod: name.to_owned(),
        uid: text(&pod, "/metadata/uid").to_owned(),
        node: node.to_owned(),
        container: wanted.to_owned(),
    })
}

fn refused(error: &KubeletError) -> Status {
    match error {
        KubeletError::BadRequest(why) => Status::bad_request(why.clone()),
        KubeletError::NotFound(why) => Status {
            code: 404,
            reason: "NotFound",
            ..Status::bad_request(why.clone())
        },
        KubeletError::Internal(why) => Status::internal(why.clone()),
    }
}

async fn log(shared: &Shared, asked: &Asked, target: &ContainerRef) -> Result<Response, Status> {
    let options = LogOptions {
        follow: asked.query.is("follow"),
        previous: asked.query.is("previous"),
        tail_lines: asked
            .query
            .number("tailLines")
            .and_then(|lines| usize::try_from(lines).ok()),
        timestamps: asked.query.is("timestamps"),
    };
    let lines = shared
        .kubelet
        .logs(target, options)
        .await
        .map_err(|error| refused(&error))?;
    let mut left = asked
        .query
        .number("limitBytes")
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(usize::MAX);
    let lines = lines
        .map_ok(move |chunk| {
            let chunk = chunk.slice(..chunk.len().min(left));
            left -= chunk.len();
            chunk
        })
        .try_take_while(|chunk| std::future::ready(Ok(!chunk.is_empty())));
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain"),
    );
    Ok(response)
}

/// The channels of `channel.k8s.io`, in order of preference.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5: the channel whose number follows is closed.
const CLOSE: u8 = 255;

async fn exec(
    shared: Arc<Shared>,
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
    let upgrade = upgrade(request).await?;
    let request = ExecRequest {
        command,
        stdin: asked.query.is("stdin"),
        tty: asked.query.is("tty"),
    };
    let session = match shared.kubelet.exec(&target, request).await {
        Ok(session) => session,
        // As by a container runtime: the stream was made, and tells why it ends.
        Err(KubeletError::Internal(why)) => {
            let why = format!("error executing command in container: {why}");
            failed(Status::internal(why).message)
        }
        Err(error) => return Err(refused(&error)),
    };
    Ok(upgrade
        .on_upgrade(move |socket| run(socket, session))
        .into_response())
}

/// What a container writes from now on; its standard input cannot be attached to.
async fn attach(
    shared: Arc<Shared>,
    asked: &Asked,
    target: ContainerRef,
    request: Request,
) -> Result<Response, Status> {
    if asked.query.is("stdin") {
        return Err(Status::bad_request(
            "the lab cannot attach to standard input: use exec, or attach without -i",
        ));
    }
    let upgrade = upgrade(request).await?;
    let options = LogOptions {
        follow: true,
        previous: false,
        tail_lines: Some(0),
        timestamps: false,
    };
    let lines = shared
        .kubelet
        .logs(&target, options)
        .await
        .map_err(|error| refused(&error))?;
    let session = ExecSession {
        stdin: None,
        stdout: Box::new(tokio_util::io::StreamReader::new(lines)),
        stderr: None,
        resize: None,
        exit: Box::pin(async { Ok(0) }),
    };
    Ok(upgrade
        .on_upgrade(move |socket| run(socket, session))
        .into_response())
}

/// A session that ends at once, and says why.
fn failed(why: String) -> ExecSession {
    ExecSession {
        stdin: None,
        stdout: Box::new(tokio::io::empty()),
        stderr: None,
        resize: None,
        exit: Box::pin(async move { Err(std::io::Error::other(why)) }),
    }
}

async fn upgrade(request: Request) -> Result<WebSocketUpgrade, Status> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| {
            Status::bad_request("Upgrade request required: the lab streams over WebSocket (v5.channel.k8s.io, v4.channel.k8s.io) only, which kubectl does from 1.30 on")
        })?;
    Ok(upgrade.protocols(PROTOCOLS))
}

/// Copies between the socket and the process until the process ends.
async fn run(socket: WebSocket, session: ExecSession) {
    let ExecSession {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = session;
    let (mut sink, source) = socket.split();
    let (frames, mut outgoing) = mpsc::channel::<Message>(64);
    let input = tokio::spawn(feed(source, stdin, resize));
    let out = tokio::spawn(pump(STDOUT, Some(stdout), frames.clone()));
    let err = tokio::spawn(pump(STDERR, stderr, frames.clone()));
    let end = tokio::spawn(async move {
        let code = exit.await;
        // What the process wrote before it ended comes before its exit code.
        let _ = tokio::join!(out, err);
        let mut frame = vec![ERROR];
        frame.extend(outcome(code).to_string().into_bytes());
        let _ = frames.send(Message::Binary(Bytes::from(frame))).await;
    });
    while let Some(frame) = outgoing.recv().await {
        if sink.send(frame).await.is_err() {
            break;
        }
    }
    // Without a code, client-go takes the end for a broken connection.
    let ended = CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    };
    let _ = sink.send(Message::Close(Some(ended))).await;
    let _ = sink.close().await;
    // A client that went away ends the process: the session's parts are dropped here.
    end.abort();
    input.abort();
}

/// The Status that ends an exec (`remotecommand`, v4 and later).
fn outcome(code: std::io::Result<i32>) -> Value {
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

async fn pump(
    channel: u8,
    from: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>,
    to: mpsc::Sender<Message>,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let mut frame = Vec::with_capacity(length + 1);
                frame.push(channel);
                frame.extend_from_slice(&buffer[..length]);
                if to.send(Message::Binary(Bytes::from(frame))).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn feed(
    mut source: futures::stream::SplitStream<WebSocket>,
    mut stdin: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    resize: Option<mpsc::Sender<(u16, u16)>>,
) {
    while let Some(Ok(message)) = source.next().await {
        let data: Bytes = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            _ => continue,
        };
        match data.split_first() {
            Some((&STDIN, rest)) if !rest.is_empty() => {
                if let Some(pipe) = &mut stdin
                    && (pipe.write_all(rest).await.is_err() || pipe.flush().await.is_err())
                {
                    stdin = None;
                }
            }
            Some((&CLOSE, [STDIN])) => stdin = None,
            Some((&RESIZE, rest)) => {
                let size: Value = serde_json::from_slice(rest).unwrap_or_default();
                let side = |name: &str| {
                    size.get(name)
                        .and_then(Value::as_u64)
                        .and_then(|side| u16::try_from(side).ok())
                };
                if let (Some(resize), Some(width), Some(height)) =
                    (&resize, side("Width"), side("Height"))
                {
                    let _ = resize.send((width, height)).await;
                }
            }
            _ => {}
        }
    }
}
