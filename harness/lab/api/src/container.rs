//! The streams of pods and their containers: exec, attach, log and portforward.
//!
//! Start from [`stream`]. Here the pod and the container are found; what is done with them is
//! [`remote`](super::remote)'s and [`forward`](super::forward)'s.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::{StreamExt as _, stream};
use http::header;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::kubelet::{ContainerRef, KubeletError, LogOptions, PodRef};
use super::meta::{items, text};
use super::request::Asked;
use super::status::Status;
use super::{Shared, forward, remote};

/// Whether a subresource is a stream rather than an object.
pub(crate) fn is_stream(name: &str) -> bool {
    matches!(name, "exec" | "attach" | "log" | "portforward")
}

/// `exec`, `attach`, `log` and `portforward` of a pod.
pub(crate) async fn stream(
    shared: Arc<Shared>,
    asked: Asked,
    request: Request,
) -> Result<Response, Status> {
    let name = asked.subresource.clone().unwrap_or_default();
    if !asked.kind.subresources.contains(&name.as_str()) {
        return Err(Status::no_such_path());
    }
    let object = find(&shared, &asked)?;
    if name == "portforward" {
        let pod = bound(&object)?;
        return forward::forward(&shared, &asked, pod, request).await;
    }
    let target = container(&asked, &object)?;
    match name.as_str() {
        "log" => log(&shared, &asked, &target).await,
        "attach" => remote::attach(&shared, &asked, target, request).await,
        _ => remote::exec(&shared, &asked, target, request).await,
    }
}

fn find(shared: &Shared, asked: &Asked) -> Result<Arc<Value>, Status> {
    let name = asked.name.as_deref().unwrap_or_default();
    let pod = shared.store.transact(|state| {
        state
            .get(&asked.kind.table, asked.namespace(), name)
            .cloned()
    });
    pod.ok_or_else(|| Status::not_found(&asked.kind, name))
}

/// The pod, where a node has it.
fn bound(pod: &Value) -> Result<PodRef, Status> {
    let name = text(pod, "/metadata/name");
    if text(pod, "/spec/nodeName").is_empty() {
        return Err(Status::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    Ok(PodRef {
        namespace: text(pod, "/metadata/namespace").to_owned(),
        name: name.to_owned(),
        uid: text(pod, "/metadata/uid").to_owned(),
    })
}

/// The container that a stream is for: the named one, the annotated default, or the first.
fn container(asked: &Asked, pod: &Value) -> Result<ContainerRef, Status> {
    let names: Vec<&str> = ["/spec/containers", "/spec/initContainers"]
        .iter()
        .flat_map(|list| items(pod, list))
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
            "container {wanted} is not valid for pod {}",
            text(pod, "/metadata/name")
        )));
    }
    Ok(ContainerRef {
        pod: bound(pod)?,
        container: wanted.to_owned(),
    })
}

/// A kubelet's refusal, as the API server passes it on.
pub(crate) fn refused(error: &KubeletError) -> Status {
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
    let number = |name: &str| {
        let number = asked.query.number(name);
        number.and_then(|number| usize::try_from(number).ok())
    };
    let options = LogOptions {
        follow: asked.query.is("follow"),
        previous: asked.query.is("previous"),
        tail_lines: number("tailLines"),
        since: since(asked)?,
        timestamps: asked.query.is("timestamps"),
    };
    let lines = shared
        .kubelet
        .logs(target, options)
        .await
        .map_err(|error| refused(&error))?;
    let limit = number("limitBytes").unwrap_or(usize::MAX);
    let lines = stream::unfold((lines, limit), |(mut lines, left)| async move {
        if left == 0 {
            return None;
        }
        let chunk = lines.next().await?;
        let chunk = chunk.map(|chunk| chunk.slice(..chunk.len().min(left)));
        let taken = chunk.as_ref().map_or(0, bytes::Bytes::len);
        Some((chunk, (lines, left - taken)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain"),
    );
    Ok(response)
}

/// `sinceSeconds` before now, or `sinceTime`.
fn since(asked: &Asked) -> Result<Option<Timestamp>, Status> {
    let refused = |why: &str| {
        let name = asked.name.as_deref().unwrap_or_default();
        Status {
            code: 422,
            reason: "Invalid",
            ..Status::bad_request(format!("PodLogOptions {name:?} is invalid: {why}"))
        }
    };
    let (seconds, time) = (
        asked.query.get("sinceSeconds"),
        asked.query.get("sinceTime"),
    );
    match (seconds, time) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(refused(
            "sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        )),
        (Some(seconds), None) => {
            let positive = seconds.parse::<u64>().ok().filter(|&seconds| seconds > 0);
            let positive = positive.ok_or_else(|| {
                refused(&format!(
                    "sinceSeconds: Invalid value: {seconds}: must be greater than 0"
                ))
            })?;
            // Longer ago than can be said is since ever.
            let before = Timestamp::now().checked_sub(Duration::from_secs(positive));
            Ok(before.ok())
        }
        (None, Some(time)) => match time.parse() {
            Ok(time) => Ok(Some(time)),
            Err(error) => Err(Status::bad_request(format!(
                "sinceTime: {time:?} is not a time of RFC 3339: {error}"
            ))),
        },
    }
}
