//! From a request to a session: which protocol, over which transport.

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request};
use axum::response::{IntoResponse as _, Response};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::websocket::Encoding;
use super::{Numbered, Session, spdy, tunnel, websocket};
use crate::serve::Afterwards;
use crate::status::Status;

/// The protocol's name in `Upgrade`, and before the `+` of a tunnel's name.
const SPDY: &str = "SPDY/3.1";
/// Where a client says which versions it speaks, and is told which one it is to be.
const VERSION: &str = "x-stream-protocol-version";
/// The largest message that is read from a WebSocket, as Go's servers have it.
const LARGEST_MESSAGE: usize = 32 << 20;

/// What a subresource speaks, the best first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protocols {
    /// Over SPDY, by itself or in a WebSocket.
    pub(crate) spdy: &'static [&'static str],
    /// Over a WebSocket; an empty name stands for a client that names none.
    pub(crate) websocket: &'static [&'static str],
}

enum Transport {
    Spdy(OnUpgrade),
    WebSocket(Box<WebSocketUpgrade>, Encoding, Vec<Numbered>),
    Tunnel(Box<WebSocketUpgrade>),
}

/// A request to change to a streaming protocol, which can be granted.
pub(crate) struct Upgrade {
    /// The name of the protocol that both sides speak.
    pub(crate) protocol: &'static str,
    transport: Transport,
    afterwards: Afterwards,
}

impl Upgrade {
    /// Finds the protocol of a request; `numbered` are the channels of those over WebSocket.
    ///
    /// # Errors
    /// When the request is none for an upgrade, or for none that is spoken here.
    pub(crate) async fn of(
        request: Request,
        protocols: Protocols,
        numbered: impl FnOnce() -> Result<Vec<Numbered>, Status>,
    ) -> Result<Self, Status> {
        let required = || Status::bad_request("Upgrade request required");
        let (mut parts, _) = request.into_parts();
        let afterwards = parts.extensions.get::<Afterwards>().cloned();
        let afterwards = afterwards.ok_or_else(required)?;
        let wanted = parts.headers.get(header::UPGRADE);
        if wanted.is_some_and(|wanted| wanted.as_bytes().eq_ignore_ascii_case(SPDY.as_bytes())) {
            let protocol = version(&parts.headers, protocols.spdy)?;
            let upgraded = parts.extensions.remove::<OnUpgrade>();
            return Ok(Self {
                protocol,
                transport: Transport::Spdy(upgraded.ok_or_else(required)?),
                afterwards,
            });
        }
        let mut upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
            .await
            .map_err(|_| required())?
            .max_message_size(LARGEST_MESSAGE)
            .max_frame_size(LARGEST_MESSAGE);
        let asked = upgrade.requested_protocols();
        let asked: Vec<String> = asked.flat_map(listed).collect();
        let tunnelled = |name: &&&str| {
            let mut tunnels = asked.iter().filter_map(|one| one.strip_prefix(SPDY));
            tunnels.any(|tunnel| tunnel.strip_prefix('+') == Some(**name))
        };
        if let Some(&protocol) = protocols.spdy.iter().find(tunnelled) {
            upgrade.set_selected_protocol(selected(&format!("{SPDY}+{protocol}"))?);
            return Ok(Self {
                protocol,
                transport: Transport::Tunnel(Box::new(upgrade)),
                afterwards,
            });
        }
        let spoken = |name: &&&str| match **name {
            "" => asked.is_empty(),
            name => asked.iter().any(|one| one == name),
        };
        let Some(&protocol) = protocols.websocket.iter().find(spoken) else {
            let known = protocols.websocket.join(" ");
            return Err(Status::bad_request(format!(
                "unable to upgrade websocket connection: requested protocol(s) are not supported: [{}]; supports [{known}]",
                asked.join(" ")
            )));
        };
        if !protocol.is_empty() {
            upgrade.set_selected_protocol(selected(protocol)?);
        }
        let encoding = Encoding::of(protocol);
        Ok(Self {
            protocol,
            transport: Transport::WebSocket(Box::new(upgrade), encoding, numbered()?),
            afterwards,
        })
    }

    /// Grants it. The session is served in the connection's own task, which ends with the
    /// connection, and with the server.
    pub(crate) fn serve<F>(self, serve: impl FnOnce(Session) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let peer = self.afterwards.peer.clone();
        let (response, task): (Response, BoxFuture<'static, ()>) = match self.transport {
            Transport::Spdy(upgraded) => {
                let headers = [
                    (header::CONNECTION, "Upgrade"),
                    (header::UPGRADE, SPDY),
                    (http::HeaderName::from_static(VERSION), self.protocol),
                ];
                let task = Box::pin(async move {
                    // Fails where the client was gone before it was answered.
                    if let Ok(stream) = upgraded.await {
                        let (reader, writer) = tokio::io::split(TokioIo::new(stream));
                        spdy::run(reader, writer, peer, serve).await;
                    }
                });
                let switched = (StatusCode::SWITCHING_PROTOCOLS, headers);
                (switched.into_response(), task)
            }
            Transport::WebSocket(upgrade, encoding, numbered) => {
                let (response, socket) = upgraded(*upgrade);
                let task = Box::pin(async move {
                    if let Ok(socket) = socket.await {
                        websocket::run(socket, encoding, numbered, peer, serve).await;
                    }
                });
                (response, task)
            }
            Transport::Tunnel(upgrade) => {
                let (response, socket) = upgraded(*upgrade);
                let task = Box::pin(async move {
                    if let Ok(socket) = socket.await {
                        let (reader, writer) = tunnel::open(socket);
                        spdy::run(reader, writer, peer, serve).await;
                    }
                });
                (response, task)
            }
        };
        self.afterwards.run(task);
        response
    }
}

/// The answer to a WebSocket's handshake, and the socket once the client has it.
fn upgraded(upgrade: WebSocketUpgrade) -> (Response, oneshot::Receiver<WebSocket>) {
    let (sender, socket) = oneshot::channel();
    let response = upgrade.on_upgrade(async |socket| {
        // Nobody waits for it any more when the server has ended.
        let _ = sender.send(socket);
    });
    (response, socket)
}

fn selected(protocol: &str) -> Result<HeaderValue, Status> {
    HeaderValue::from_str(protocol).map_err(|error| Status::internal(error.to_string()))
}

/// The values of a list in a header.
fn listed(value: &HeaderValue) -> Vec<String> {
    let text = value.to_str().unwrap_or_default().split(',');
    let names = text.map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// The first of the client's versions that is spoken here.
fn version(headers: &HeaderMap, spoken: &[&'static str]) -> Result<&'static str, Status> {
    let asked = headers.get_all(VERSION).iter();
    let asked: Vec<String> = asked.flat_map(listed).collect();
    if asked.is_empty() {
        return Err(Status::bad_request(
            "unable to upgrade: X-Stream-Protocol-Version is required",
        ));
    }
    let known = |one: &String| spoken.iter().find(|&&name| name == one);
    asked.iter().find_map(known).copied().ok_or_else(|| {
        Status::denied(format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            asked.join(" "),
            spoken.join(" ")
        ))
    })
}
