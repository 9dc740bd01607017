//! `websocket`: one WebSocket, whose messages come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper_util::rt::TokioIo;
use strata_probe::{
    Failure, FailureKind, HttpVersion, Reply, Stage, WebSocketReply, WebSocketSpec,
};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::connect::Progress;
use super::failure::of_timeout;
use super::http::{Plan, Upgraded};
use super::resolve::Resolver;
use super::{micros_since, write};
use crate::Trouble;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Opens it, sends, compares, closes; writes the reply.
pub(crate) async fn run(spec: WebSocketSpec) -> Result<(), Trouble> {
    if spec.request.http != HttpVersion::H1 {
        let sentence = "a WebSocket is opened by HTTP/1.1 only".to_owned();
        return Err(Trouble::CommandLine(sentence));
    }
    let start = Instant::now();
    let deadline = start + Duration::from_millis(spec.request.timeout_ms);
    let plan = Plan::new(spec.request.clone(), Arc::new(Resolver::from_system()));
    let plan = plan.map_err(Trouble::CommandLine)?;
    let mut reply = WebSocketReply::default();
    let mut progress = Progress::default();
    let exchange = exchange(&plan, &spec, deadline, &mut reply, &mut progress);
    let result = match tokio::time::timeout_at(deadline.into(), exchange).await {
        Ok(result) => result,
        Err(_) => Err(of_timeout(
            progress.stage,
            deadline,
            spec.request.timeout_ms,
        )),
    };
    reply.error = result.err();
    reply.latency_us = micros_since(start);
    write(&reply)
}

async fn exchange(
    plan: &Plan,
    spec: &WebSocketSpec,
    deadline: Instant,
    reply: &mut WebSocketReply,
    progress: &mut Progress,
) -> Result<(), Failure> {
    // What it is derived from is no secret: it shows that the answer is to this request.
    let key = STANDARD.encode(u128::from(std::process::id()).to_be_bytes());
    let headers = [
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (SEC_WEBSOCKET_KEY, word(&key)?),
    ];
    let mut head = Reply::default();
    let upgraded = plan
        .upgrade(Method::GET, headers, deadline, &mut head, progress)
        .await;
    reply.status = head.status;
    reply.headers = head.headers;
    let Upgraded { stream, _driver } = upgraded?;
    let accepted = reply.headers.get(SEC_WEBSOCKET_ACCEPT.as_str());
    if accepted.and_then(|values| values.first()) != Some(&derive_accept_key(key.as_bytes())) {
        return Err(broken(
            "the answer's Sec-WebSocket-Accept is not for this key",
        ));
    }
    progress.stage = Stage::Body;
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Client, None).await;
    converse(socket, spec, &mut reply.echoed).await
}

async fn converse(
    mut socket: Socket,
    spec: &WebSocketSpec,
    echoed: &mut u64,
) -> Result<(), Failure> {
    let size = usize::try_from(spec.bytes).unwrap_or(usize::MAX);
    for number in 0..spec.messages {
        let fill = u8::try_from(number % 251).unwrap_or_default();
        let message = Message::binary(vec![fill; size]);
        socket
            .send(message.clone())
            .await
            .map_err(|error| cut(&error))?;
        match socket.next().await {
            Some(Ok(back)) if back == message => *echoed += 1,
            Some(Ok(_)) => {
                return Err(Failure::new(
                    FailureKind::Corrupted,
                    Stage::Body,
                    format!("message {number} came back as another one"),
                ));
            }
            Some(Err(error)) => return Err(cut(&error)),
            None => return Err(gone()),
        }
    }
    socket.close(None).await.map_err(|error| cut(&error))?;
    // Until the server's own word that it is closed.
    while let Some(message) = socket.next().await {
        message.map_err(|error| cut(&error))?;
    }
    Ok(())
}

fn word(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text)
        .map_err(|error| Failure::new(FailureKind::Other, Stage::Local, error.to_string()))
}

fn broken(text: &str) -> Failure {
    Failure::new(FailureKind::Protocol, Stage::Exchange, text)
}

fn gone() -> Failure {
    let text = "the connection ended without a word that it would";
    Failure::new(FailureKind::Closed, Stage::Body, text)
}

fn cut(error: &tokio_tungstenite::tungstenite::Error) -> Failure {
    use tokio_tungstenite::tungstenite::Error;
    let kind = match error {
        Error::Io(error) => super::failure::kind_of_io(error),
        Error::ConnectionClosed | Error::AlreadyClosed => FailureKind::Closed,
        Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(_) => FailureKind::Protocol,
        _ => FailureKind::Other,
    };
    Failure::new(kind, Stage::Body, error.to_string())
}
