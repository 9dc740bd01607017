//! WebSockets: every message comes back.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Opens one, if that is what is asked for (RFC 6455, section 4.2.1).
pub(crate) fn open(request: &mut Request<Incoming>) -> Option<Response<Empty<Bytes>>> {
    let key = key(request.method(), request.headers())?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            echo(stream).await;
        }
    });
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Some(response)
}

fn key<'a>(method: &Method, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    let upgrade = headers.get(UPGRADE)?.as_bytes();
    let asked = method == Method::GET && upgrade.eq_ignore_ascii_case(b"websocket");
    headers.get(SEC_WEBSOCKET_KEY).filter(|_| asked)
}

/// Until the client closes it, or goes.
async fn echo(stream: hyper::upgrade::Upgraded) {
    let role = Role::Server;
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), role, None).await;
    while let Some(Ok(message)) = socket.next().await {
        // Pings and closing are answered by the library, when it is read on.
        let content = message.is_text() || message.is_binary();
        if content && socket.send(message).await.is_err() {
            return;
        }
    }
}
