//! gRPC probes: whether a server says by `grpc.health.v1` that it serves.
//!
//! Start from [`check`]. The two messages have one field each, so they are read and written by hand.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

/// Asks for a service, or for the server as a whole where that is empty.
pub(super) async fn check<S>(stream: S, address: SocketAddr, service: &str) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: &dyn std::fmt::Display| format!("error: health rpc failed: {error}");
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let asking = async {
        let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "kube-probe/1.34")
            .body(Full::new(question(service)))
            .map_err(|error| failed(&error))?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| failed(&error))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| failed(&error))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        // A call that fails at once has its status in the head.
        let status = trailers
            .get("grpc-status")
            .or(head.headers.get("grpc-status"));
        match status.and_then(|status| status.to_str().ok()) {
            Some("0") => serving(&body.to_bytes()),
            Some("12") => Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()),
            Some(other) => Err(failed(&format!("status {other}"))),
            None => Err(failed(&format!("no status; HTTP {}", head.status))),
        }
    };
    tokio::select! {
        outcome = asking => outcome,
        _ = connection => Err(failed(&"the connection was closed")),
    }
}

/// `HealthCheckRequest`, whose field 1 is the service, behind the five bytes before each message.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or_default());
    framed.put(message);
    framed.freeze()
}

/// `HealthCheckResponse`, whose field 1 is the status.
fn serving(framed: &[u8]) -> Result<(), String> {
    let status = match framed.get(5..) {
        Some([0x08, 1, ..]) => return Ok(()),
        Some([0x08, 2, ..]) => "NOT_SERVING",
        Some([0x08, 3, ..]) => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    };
    Err(format!("service unhealthy (responded with {status:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_protocol_buffers_has_them() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(
            question(&"x".repeat(200))[..8],
            [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]
        );
        for (message, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Ok(())),
            (&[0, 0, 0, 0, 2, 8, 2], Err("NOT_SERVING")),
            (&[0, 0, 0, 0, 2, 8, 3], Err("SERVICE_UNKNOWN")),
            (&[0, 0, 0, 0, 0], Err("UNKNOWN")),
            (&[], Err("UNKNOWN")),
        ] {
            let expected =
                expected.map_err(|name| format!("service unhealthy (responded with {name:?})"));
            assert_eq!(serving(message), expected, "{message:?}");
        }
    }
}
