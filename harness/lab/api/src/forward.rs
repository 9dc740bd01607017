//! `portforward`: connections into a pod as pairs of channels, one for data and one for errors.
//!
//! Start from [`forward`]. Rule: a pair is over when the pod's side is, when the client takes it
//! back, or with the client; the other pairs do not notice.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Shared;
use super::channel::{Channel, Labels, Numbered, Protocols, Session, Upgrade};
use super::kubelet::{Kubelet, PodRef};
use super::request::{Asked, Query};
use super::status::Status;

const PROTOCOLS: Protocols = Protocols {
    spdy: &["portforward.k8s.io"],
    websocket: &["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""],
};
/// The labels of a channel (core/v1 `StreamType`, `PortHeader`, `PortForwardRequestIDHeader`).
const STREAM_TYPE: &str = "streamtype";
const PORT: &str = "port";
const REQUEST: &str = "requestid";
const DATA: &str = "data";
const ERROR: &str = "error";

/// Forwards ports of a pod.
pub(crate) async fn forward(
    shared: &Shared,
    asked: &Asked,
    pod: PodRef,
    request: Request,
) -> Result<Response, Status> {
    let upgrade = Upgrade::of(request, PROTOCOLS, || numbered(&asked.query)).await?;
    let kubelet = shared.kubelet.clone();
    Ok(upgrade.serve(async move |session| serve(session, &kubelet, &Arc::new(pod)).await))
}

/// Over a WebSocket the ports are said in the request. Each has two channels, which begin with the
/// port's number, the low octet first.
fn numbered(query: &Query) -> Result<Vec<Numbered>, Status> {
    let ports = ["ports", "port"].map(|name| query.all(name)).concat();
    if ports.is_empty() {
        return Err(Status::bad_request("query parameter \"ports\" is required"));
    }
    let mut channels = Vec::new();
    for (request, text) in ports.iter().flat_map(|list| list.split(',')).enumerate() {
        let port = port(text).map_err(Status::bad_request)?;
        channels.extend([DATA, ERROR].map(|kind| Numbered {
            labels: Labels::new([
                (STREAM_TYPE, kind.to_owned()),
                (PORT, text.to_owned()),
                (REQUEST, request.to_string()),
            ]),
            greeting: Bytes::copy_from_slice(&port.to_le_bytes()),
        }));
    }
    Ok(channels)
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(error) => Err(format!("unable to parse {text:?} as a port: {error}")),
    }
}

async fn serve(mut session: Session, kubelet: &Arc<dyn Kubelet>, pod: &Arc<PodRef>) {
    // Each waits for the other of its pair.
    let mut single = HashMap::<String, Channel>::new();
    let mut pairs = JoinSet::new();
    loop {
        let channel = tokio::select! {
            channel = session.next() => channel,
            Some(_) = pairs.join_next() => continue,
        };
        let Some(channel) = channel else {
            break;
        };
        single.retain(|_, other| !other.lost.is_cancelled());
        let request = request(&channel);
        match (single.remove(&request), channel) {
            (Some(data), error) if is(&data, DATA) && is(&error, ERROR) => {
                pairs.spawn(pair(kubelet.clone(), pod.clone(), data, error));
            }
            (Some(error), data) if is(&data, DATA) && is(&error, ERROR) => {
                pairs.spawn(pair(kubelet.clone(), pod.clone(), data, error));
            }
            (_, channel) => drop(single.insert(request, channel)),
        }
    }
    while pairs.join_next().await.is_some() {}
}

fn is(channel: &Channel, kind: &str) -> bool {
    channel.labels.get(STREAM_TYPE) == kind
}

/// Which pair a channel belongs to. Clients that do not say open the one for errors first.
fn request(channel: &Channel) -> String {
    match channel.labels.get(REQUEST) {
        "" if is(channel, DATA) => channel.number.saturating_sub(2).to_string(),
        "" => channel.number.to_string(),
        request => request.to_owned(),
    }
}

async fn pair(kubelet: Arc<dyn Kubelet>, pod: Arc<PodRef>, data: Channel, error: Channel) {
    let (mut data, mut error) = (data, error.output);
    let port = port(data.labels.get(PORT));
    let shown = port.as_ref().map_or(0, |port| *port);
    let lost = data.lost.clone();
    let forwarded = async {
        let port = port?;
        let stream = kubelet.connect(&pod, port).await;
        let stream = stream.map_err(|error| error.to_string())?;
        carry(stream, &mut data)
            .await
            .map_err(|error| error.to_string())
    };
    let failed = tokio::select! {
        forwarded = forwarded => forwarded.err(),
        () = lost.cancelled() => None,
    };
    if let Some(why) = failed {
        let uid = &pod.uid;
        let said = format!("error forwarding port {shown} to pod {uid}, uid : {why}");
        let _ = error.write_all(said.as_bytes()).await;
    }
    let _ = data.output.shutdown().await;
    let _ = error.shutdown().await;
}

/// Carries bytes both ways until the pod has no more to say.
async fn carry(mut stream: TcpStream, data: &mut Channel) -> io::Result<()> {
    let (mut from_pod, mut to_pod) = stream.split();
    let to_pod = async {
        copy(&mut data.input, &mut to_pod).await?;
        to_pod.shutdown().await?;
        // The answer may be still to come.
        std::future::pending::<io::Result<()>>().await
    };
    let carried = tokio::select! {
        carried = copy(&mut from_pod, &mut data.output) => carried.map(drop),
        Err(error) = to_pod => Err(error),
    };
    match carried {
        // A server that has heard enough; what it said before is still of use.
        Err(error) if is_reset(&error) => Ok(()),
        carried => carried,
    }
}

fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}
