//! HTTP: every path answers with what was asked, as it arrived.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use strata_probe::{Answer, Protocol, Tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::control::{Control, HEALTH};
use super::health::{self, Called};
use super::state::State;
use super::{Stopping, stopped};
use crate::client::told;

/// How long a client may take to shake hands, and over the head of a request.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a `size` body is written at a time.
const FILL: Bytes = Bytes::from_static(&[b'.'; 16 * 1024]);
/// How much of a held body is a part.
const HELD: usize = 1024;

type Answered = Either<Either<Full<Bytes>, Held>, Either<Filler, Either<Called, Empty<Bytes>>>>;

/// Where a connection is from and what is spoken on it.
#[derive(Debug, Clone)]
struct Peer {
    client: SocketAddr,
    local: SocketAddr,
    tls: Option<Tls>,
}

impl Peer {
    /// Nothing if the connection is gone already.
    fn of(stream: &TcpStream) -> Option<Self> {
        Some(Self {
            client: stream.peer_addr().ok()?,
            local: stream.local_addr().ok()?,
            tls: None,
        })
    }
}

/// Serves a connection in plain text.
pub(crate) async fn plain(state: Arc<State>, stream: TcpStream, stopping: Stopping) {
    if let Some(peer) = Peer::of(&stream) {
        serve(state, peer, stream, stopping).await;
    }
}

/// Serves a connection over TLS.
pub(crate) async fn secure(
    state: Arc<State>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    mut stopping: Stopping,
) {
    let Some(mut peer) = Peer::of(&stream) else {
        return;
    };
    let handshake = tokio::time::timeout(PATIENCE, acceptor.accept(stream));
    let stream = tokio::select! {
        // A handshake is not yet a request in flight.
        () = stopped(&mut stopping) => return,
        result = handshake => match result {
            Ok(Ok(stream)) => stream,
            // The client knows.
            Ok(Err(_)) | Err(_) => return,
        },
    };
    peer.tls = Some(super::tls::describe(stream.get_ref().1));
    serve(state, peer, stream, stopping).await;
}

async fn serve<T>(state: Arc<State>, peer: Peer, stream: T, mut stopping: Stopping)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| {
        let (state, peer) = (Arc::clone(&state), peer.clone());
        async move { Ok::<_, Infallible>(answer(&state, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // How a connection ends is the client's to tell.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopped(&mut stopping) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(state: &State, peer: Peer, mut request: Request<Incoming>) -> Response<Answered> {
    if let Some(opened) = super::websocket::open(&mut request) {
        let mut response = opened.map(|body| Either::Right(Either::Right(Either::Right(body))));
        introduce(state, &mut response);
        return response;
    }
    let (head, body) = request.into_parts();
    let mut response = match read(body).await {
        Ok(_) if head.method == Method::CONNECT => refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "this is no proxy: it does not CONNECT".into(),
        ),
        Ok(_) if head.uri.path() == health::CHECK => health::answer(state.ready())
            .map(|body| Either::Right(Either::Right(Either::Left(body)))),
        Ok(length) => respond(state, peer, &head, length).await,
        Err(error) => refusal(
            StatusCode::BAD_REQUEST,
            format!("the body did not arrive: {error}"),
        ),
    };
    introduce(state, &mut response);
    bodiless(&head.method, response)
}

fn introduce(state: &State, response: &mut Response<Answered>) {
    for (name, value) in &state.headers {
        response.headers_mut().insert(name, value.clone());
    }
}

async fn read(mut body: Incoming) -> hyper::Result<u64> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(length)
}

async fn respond(
    state: &State,
    peer: Peer,
    head: &http::request::Parts,
    body_length: u64,
) -> Response<Answered> {
    let path = head.uri.path();
    if path != HEALTH {
        state.asked();
    }
    let query = head.uri.query().unwrap_or_default();
    let mut control = match Control::read(&head.method, path, query, state.ready()) {
        Ok(control) => control,
        Err(sentence) => return refusal(StatusCode::BAD_REQUEST, sentence),
    };
    let count = control.count.as_deref().map(|name| match control.look {
        true => state.counted(name),
        false => state.count(name),
    });
    if control.first.is_some_and(|first| count > Some(first)) {
        (control.status, control.delay) = Default::default();
    }
    tokio::time::sleep(control.delay).await;
    if let Some(ready) = control.ready {
        state.set_ready(ready);
    }
    if let Some(name) = &control.release {
        state.release(name);
    }
    let (body, content_type) = match (control.size, &control.hold) {
        (_, Some(name)) => (
            Either::Left(Either::Right(Held::until(state.released(name)))),
            "application/octet-stream",
        ),
        (Some(size), None) => (
            Either::Right(Either::Left(Filler(size))),
            "application/octet-stream",
        ),
        (None, None) => {
            let answer = Answer {
                count,
                ..tell(state, peer, head, body_length)
            };
            let json = match control.body {
                Some(body) => body.into_bytes(),
                // What it is made of always serialises.
                None => serde_json::to_vec(&answer).unwrap_or_default(),
            };
            (
                Either::Left(Either::Left(Full::new(json.into()))),
                "application/json",
            )
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = control.status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in control.headers {
        response.headers_mut().append(name, value);
    }
    response
}

fn tell(state: &State, peer: Peer, head: &http::request::Parts, body_length: u64) -> Answer {
    let protocol = match head.version {
        Version::HTTP_2 => Protocol::H2,
        _ => Protocol::H1,
    };
    // A whole URL in the request line goes before the Host header (RFC 9112 §3.2.2).
    let host = match head.uri.authority() {
        Some(authority) => authority.to_string(),
        None => head.headers.get(HOST).map_or_else(String::new, |host| {
            String::from_utf8_lossy(host.as_bytes()).into_owned()
        }),
    };
    Answer {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        host,
        headers: told(&head.headers),
        tls: peer.tls,
        ..state.answer(peer.client, peer.local, protocol, body_length)
    }
}

fn refusal(status: StatusCode, sentence: String) -> Response<Answered> {
    let body = Full::new(Bytes::from(sentence + "\n"));
    let mut response = Response::new(Either::Left(Either::Left(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// Takes the body off answers that have none (RFC 9110 §6.4.1, §9.3.2), with its length told for HEAD.
fn bodiless(method: &Method, response: Response<Answered>) -> Response<Answered> {
    let none = matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    if !none && method != Method::HEAD {
        return response;
    }
    let (mut head, body) = response.into_parts();
    if !none && let Some(length) = body.size_hint().exact() {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(
        head,
        Either::Right(Either::Right(Either::Right(Empty::new()))),
    )
}

/// A body in two parts: the second comes when it is let go.
struct Held {
    /// Parts that are to come.
    left: u8,
    let_go: BoxFuture<'static, ()>,
}

impl Held {
    fn until(let_go: BoxFuture<'static, ()>) -> Self {
        Self { left: 2, let_go }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.left {
            0 => return Poll::Ready(None),
            1 => ready!(self.let_go.as_mut().poll(context)),
            _ => {}
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(FILL.slice(..HELD)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}

/// So many bytes of no meaning.
#[derive(Debug)]
struct Filler(u64);

impl Body for Filler {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = usize::try_from(self.0).map_or(FILL.len(), |left| left.min(FILL.len()));
        if length == 0 {
            return Poll::Ready(None);
        }
        self.0 -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(FILL.slice(..length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}
