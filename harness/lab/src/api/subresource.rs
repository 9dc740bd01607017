//! Subresources beside `status`: scale, binding, eviction, token, finalize, exec and log.
//!
//! Start from [`write`] and [`stream`].

use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts as _, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::kubelet::{ContainerRef, ExecRequest, ExecSession, KubeletError, LogOptions};
use super::meta::{self, items, text};
use super::request::Asked;
use super::router::{Answered, Call};
use super::status::Status;
use super::write::{self, Part};
use super::{Shared, token};

/// Whether a subresource is a stream rather than an object.
pub(crate) fn is_stream(name: &str) -> bool {
    matches!(name, "exec" | "attach" | "log")
}

/// `GET` of a subresource that is an object.
pub(crate) fn read(call: &Call, name: &str) -> Result<Answered, Status> {
    if name == "scale" && call.asked.kind.scale {
        let target = call.target()?;
        let found = call.shared.store.transact(|state| {
            state
                .get(&target.kind.table, target.namespace, target.name)
                .cloned()
        });
        let found = found.ok_or_else(|| Status::not_found(target.kind, target.name))?;
        return Ok(Answered::ok(scale_of(&found)));
    }
    Err(Status::no_such_path())
}

/// A write to a subresource.
pub(crate) async fn write(
    call: &Call,
    method: &Method,
    name: &str,
    body: &[u8],
) -> Result<Answered, Status> {
    let kind = &call.asked.kind;
    let served = kind.subresources.contains(&name) || (name == "scale" && kind.scale);
    if !served {
        return Err(Status::no_such_path());
    }
    match (name, method) {
        ("scale", &Method::PUT | &Method::PATCH) => scale(call, method, body),
        ("binding", &Method::POST) => bind(call, &call.object(body)?),
        ("eviction", &Method::POST) => {
            super::verbs::delete(call, b"")?;
            Ok(Answered::created(success(), Vec::new()))
        }
        ("token", &Method::POST) => Ok(Answered::created(
            token::issue(&call.shared, call.target()?, call.object(body)?)?,
            Vec::new(),
        )),
        ("finalize", &Method::PUT) => finalize(call, &call.object(body)?),
        _ => Err(Status::method_not_allowed()),
    }
}

fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
}

fn scale_of(object: &Value) -> Value {
    let selector = object
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object);
    let selector: Vec<String> = selector
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let metadata = &object["metadata"];
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": object.pointer("/status/replicas").cloned().unwrap_or_else(|| 0.into()), "selector": selector.join(",")},
    })
}

fn scale(call: &Call, method: &Method, body: &[u8]) -> Result<Answered, Status> {
    let options = call.asked.options(&call.headers)?;
    let change: Value = serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("the Scale is not valid JSON: {error}")))?;
    let written = write::change(&call.shared, call.target()?, Part::Main, &options, |old| {
        let mut scale = scale_of(old);
        if method == Method::PUT {
            scale = change
        } else {
            super::verbs::merge(&mut scale, &change)
        }
        let revision = text(&scale, "/metadata/resourceVersion");
        let mut new = old.clone();
        if !revision.is_empty() {
            new["metadata"]["resourceVersion"] = revision.into();
        }
        new["spec"]["replicas"] = scale["spec"]["replicas"].clone();
        Ok(new)
    })?;
    Ok(Answered::ok(scale_of(&written.object)))
}

/// `POST` of a Binding: the scheduler's decision.
fn bind(call: &Call, binding: &Value) -> Result<Answered, Status> {
    let node = text(binding, "/target/name").to_owned();
    let target = call.target()?;
    let options = call.asked.options(&call.headers)?;
    write::change(&call.shared, target, Part::Main, &options, |old| {
        let bound = text(old, "/spec/nodeName");
        if !bound.is_empty() {
            let why = format!("pod {} is already assigned to node {bound:?}", target.name);
            return Err(Status::conflict(target.kind, target.name, &why));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = node.clone().into();
        Ok(new)
    })?;
    write::change(&call.shared, target, Part::Status, &options, |old| {
        let mut new = old.clone();
        let mut conditions: Vec<Value> = items(old, "/status/conditions")
            .filter(|one| one["type"] != "PodScheduled")
            .cloned()
            .collect();
        conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": meta::now()}));
        new["status"]["conditions"] = conditions.into();
        Ok(new)
    })?;
    Ok(Answered::created(success(), Vec::new()))
}

/// `PUT` of a namespace's finalizers.
fn finalize(call: &Call, body: &Value) -> Result<Answered, Status> {
    let options = call.asked.options(&call.headers)?;
    let written = write::change(&call.shared, call.target()?, Part::Main, &options, |old| {
        let mut new = old.clone();
        new["spec"]["finalizers"] = body
            .pointer("/spec/finalizers")
            .cloned()
            .unwrap_or_else(|| json!([]));
        Ok(new)
    })?;
    Ok(Answered::ok(written.object))
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
        "exec" => exec(shared, &asked, target, request).await,
        _ => Err(Status::bad_request(
            "attach is not served by the lab: use exec or logs",
        )),
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
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_| {
        Status::bad_request("Upgrade request required: exec is served over WebSocket (v5.channel.k8s.io, v4.channel.k8s.io) only")
    })?;
    let request = ExecRequest {
        command,
        stdin: asked.query.is("stdin"),
        tty: asked.query.is("tty"),
    };
    let session = shared
        .kubelet
        .exec(&target, request)
        .await
        .map_err(|error| refused(&error))?;
    let upgrade = upgrade.protocols(PROTOCOLS);
    Ok(upgrade
        .on_upgrade(move |socket| run(socket, session))
        .into_response())
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

/// What is answered rather than stored.
pub(crate) fn review_access(
    _: &Shared,
    _: &super::User,
    mut review: Value,
) -> Result<Value, Status> {
    // Nothing is refused to who is authenticated, and that is what the answer says.
    review["status"] =
        json!({"allowed": true, "reason": "authorization is not enforced by the lab"});
    Ok(review)
}

/// TokenReview (authentication.k8s.io/v1).
pub(crate) fn review_token(
    shared: &Shared,
    _: &super::User,
    mut review: Value,
) -> Result<Value, Status> {
    let user = token::verify(shared, text(&review, "/spec/token"));
    review["status"] = match user {
        Some(user) => {
            json!({"authenticated": true, "user": {"username": user.name, "groups": user.groups}})
        }
        None => {
            json!({"authenticated": false, "error": "the token is not one of this cluster, or not valid any more"})
        }
    };
    Ok(review)
}

/// SelfSubjectReview (authentication.k8s.io/v1).
pub(crate) fn review_self(
    _: &Shared,
    user: &super::User,
    mut review: Value,
) -> Result<Value, Status> {
    review["status"] = json!({"userInfo": {"username": user.name, "groups": user.groups}});
    Ok(review)
}
