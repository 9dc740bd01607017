//! One HTTP exchange, over a new connection or one that is kept.
//!
//! Start from [`Plan::new`], which says what is wrong with a specification, and [`Plan::fetch`], which
//! always gives a reply. How many, how fast and how many at a time is `request`'s work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use strata_probe::{Failure, FailureKind, HttpVersion, PeerTls, Reply, RequestSpec, Stage};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::answer::{head, read};
use super::connect::{Progress, Target, connect};
use super::failure::{chain, find, of_io, of_timeout};
use super::resolve::Resolver;
use super::tap::{Tap, Witness};
use super::{micros_since, tls};

/// A specification, understood.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: RequestSpec,
    resolver: Arc<Resolver>,
    target: Target,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// What is asked for when the first of an answer's body is there.
    release: Option<Box<Plan>>,
}

impl Plan {
    /// Understands a specification, or says in one sentence what is wrong with it.
    pub(crate) fn new(spec: RequestSpec, resolver: Arc<Resolver>) -> Result<Self, String> {
        let url: Uri = spec
            .url
            .parse()
            .map_err(|error| format!("`{}` is no URL: {error}", spec.url))?;
        let secure = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                return Err(format!(
                    "`{}` does not begin with http:// or https://",
                    spec.url
                ));
            }
        };
        let authority = url
            .authority()
            .filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
            .ok_or_else(|| format!("`{}` is to have a host and no user", spec.url))?;
        let port = authority
            .port_u16()
            .unwrap_or(if secure { 443 } else { 80 });
        let target = match &spec.connect_to {
            Some(to) => Target::parse(to, Some(port)),
            None => Target::parse(authority.host(), Some(port)),
        }?;
        let host = spec.host.as_deref().unwrap_or(authority.as_str());
        let method = Method::from_bytes(spec.method.as_bytes())
            .map_err(|_| format!("`{}` is no HTTP method", spec.method))?;
        let tls = match secure {
            true => Some(session(&spec, host)?),
            false => None,
        };
        let release = match spec.release.as_ref() {
            Some(name) => {
                let scheme = url.scheme_str().unwrap_or("http");
                let release = RequestSpec {
                    url: format!("{scheme}://{authority}/release/{name}"),
                    method: Method::POST.to_string(),
                    release: None,
                    ..spec.clone()
                };
                Some(Box::new(Self::new(release, Arc::clone(&resolver))?))
            }
            None => None,
        };
        Ok(Self {
            release,
            resolver,
            target,
            method,
            uri: uri(&url, secure, host, spec.http)?,
            headers: headers(&spec, host)?,
            body: body(&spec)?,
            tls,
            spec,
        })
    }

    /// Sends one request and reads its answer; `kept` is the connection to use, and the one to use next.
    /// Gives the reply and the body's beginning.
    pub(crate) async fn fetch(
        &self,
        sequence: u64,
        run: Instant,
        kept: &mut Option<Connection>,
    ) -> (Reply, Vec<u8>) {
        let start = Instant::now();
        let deadline = start + Duration::from_millis(self.spec.timeout_ms);
        let mut reply = Reply {
            sequence,
            started_us: super::micros(start.duration_since(run)),
            ..Reply::default()
        };
        let mut progress = Progress::default();
        let exchange = self.exchange(kept, deadline, &mut reply, &mut progress);
        let result = match tokio::time::timeout_at(deadline.into(), exchange).await {
            Ok(result) => result,
            Err(_) => Err(of_timeout(progress.stage, deadline, self.spec.timeout_ms)),
        };
        reply.latency_us = micros_since(start);
        if !reply.reused {
            reply.resolved = progress.resolved;
        }
        match result {
            Ok(body) => (reply, body),
            Err(failure) => {
                *kept = None;
                reply.error = Some(failure);
                (reply, Vec::new())
            }
        }
    }

    async fn exchange(
        &self,
        kept: &mut Option<Connection>,
        deadline: Instant,
        reply: &mut Reply,
        progress: &mut Progress,
    ) -> Result<Vec<u8>, Failure> {
        let mut request = self.request();
        let (connection, response) = loop {
            reply.reused = match kept {
                Some(connection) => connection.is_ready().await,
                None => false,
            };
            let connection = match kept.take() {
                Some(connection) if reply.reused => connection,
                _ => self.open(deadline, reply, progress).await?,
            };
            let connection = kept.insert(connection);
            reply.remote = Some(connection.remote);
            reply.local = Some(connection.local);
            progress.stage = Stage::Exchange;
            match connection.send(request).await {
                Ok(response) => break (connection, response),
                // It was closed while idle, and nothing was sent: as if it had not been there.
                Err((Some(unsent), _)) if reply.reused => {
                    request = *unsent;
                    *kept = None;
                }
                Err((_, error)) => return Err(connection.failure(Stage::Exchange, &error)),
            }
        };
        progress.stage = Stage::Body;
        head(reply, &response);
        let beginning = read(reply, response, self.release.as_deref()).await;
        beginning.map_err(|error| connection.failure(Stage::Body, &error))
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Asks for another protocol, with these headers beside the specification's; `reply` gets the head of
    /// the answer, whatever it is.
    pub(crate) async fn upgrade(
        &self,
        method: Method,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        deadline: Instant,
        reply: &mut Reply,
        progress: &mut Progress,
    ) -> Result<Upgraded, Failure> {
        let mut connection = self.open(deadline, reply, progress).await?;
        progress.stage = Stage::Exchange;
        let mut request = self.request();
        *request.method_mut() = method;
        request.headers_mut().extend(headers);
        let response = match connection.send(request).await {
            Ok(response) => response,
            Err((_, error)) => return Err(connection.failure(Stage::Exchange, &error)),
        };
        head(reply, &response);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let text = format!(
                "answered with {} instead of 101",
                response.status().as_u16()
            );
            return Err(Failure::new(FailureKind::Protocol, Stage::Exchange, text));
        }
        let stream = hyper::upgrade::on(response)
            .await
            .map_err(|error| connection.failure(Stage::Exchange, &error))?;
        Ok(Upgraded {
            stream,
            _driver: connection._driver,
        })
    }

    async fn open(
        &self,
        deadline: Instant,
        reply: &mut Reply,
        progress: &mut Progress,
    ) -> Result<Connection, Failure> {
        let source = self.spec.source;
        let opened = connect(&self.resolver, &self.target, source, deadline, progress).await;
        let (stream, remote) = opened.map_err(|mut failure| {
            if failure.stage == Stage::Exchange && self.tls.is_some() {
                failure.stage = Stage::Handshake;
            }
            failure
        })?;
        let local = stream
            .local_addr()
            .map_err(|error| of_io(Stage::Connect, "asking for our address", &error))?;
        (reply.remote, reply.local) = (Some(remote), Some(local));
        progress.stage = Stage::Handshake;
        let (tap, witness) = Tap::new(stream);
        let (sender, driver) = match &self.tls {
            None => speak(tap, self.spec.http).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector
                    .connect(name.clone(), tap)
                    .await
                    .map_err(|error| of_io(Stage::Handshake, "the TLS handshake", &error))?;
                let told = tls::describe(stream.get_ref().1);
                self.agrees(&told)?;
                reply.tls = Some(told);
                speak(stream, self.spec.http).await
            }
        }
        .map_err(|error| http_failure(&witness, Stage::Handshake, &error))?;
        Ok(Connection {
            sender,
            _driver: driver,
            witness,
            remote,
            local,
        })
    }

    /// HTTP/2 under TLS is agreed on by ALPN (RFC 9113 §3.2).
    fn agrees(&self, told: &PeerTls) -> Result<(), Failure> {
        match (self.spec.http, told.alpn.as_deref()) {
            (HttpVersion::H1, _) | (HttpVersion::H2, Some("h2")) => Ok(()),
            (HttpVersion::H2, _) => Err(Failure::new(
                FailureKind::Protocol,
                Stage::Handshake,
                "the server does not offer h2 by ALPN",
            )),
        }
    }
}

fn session(
    spec: &RequestSpec,
    host: &str,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
    let name = match &spec.server_name {
        Some(name) => name.clone(),
        None => Target::parse(host, Some(443))?.host,
    };
    let server_name = ServerName::try_from(name.clone())
        .map_err(|_| format!("`{name}` is no server name for TLS"))?;
    let alpn: &[u8] = match spec.http {
        HttpVersion::H1 => b"http/1.1",
        HttpVersion::H2 => b"h2",
    };
    Ok((
        tls::config(
            spec.ca.as_deref(),
            spec.identity.as_deref(),
            spec.insecure,
            alpn,
        )?,
        server_name,
    ))
}

/// HTTP/1.1 sends the path alone (RFC 9112 §3.2.1), HTTP/2 all of it.
fn uri(url: &Uri, secure: bool, host: &str, version: HttpVersion) -> Result<Uri, String> {
    let path = match url.path_and_query() {
        Some(path) if path.as_str().starts_with('/') => path.clone(),
        Some(path) => format!("/{path}")
            .parse()
            .map_err(|error| format!("`{url}` has no such path: {error}"))?,
        None => PathAndQuery::from_static("/"),
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    if version == HttpVersion::H2 {
        let authority: Authority = host
            .parse()
            .map_err(|error| format!("`{host}` is no host: {error}"))?;
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(authority);
    }
    Uri::from_parts(parts).map_err(|error| format!("`{url}`: {error}"))
}

fn headers(spec: &RequestSpec, host: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in &spec.headers {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| format!("the header `{header}` is not `Name: value`"))?;
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|error| format!("the header `{header}`: {error}"))?;
        let value = HeaderValue::from_str(value.trim_matches([' ', '\t']))
            .map_err(|error| format!("the header `{header}`: {error}"))?;
        headers.append(name, value);
    }
    if spec.http == HttpVersion::H1 && !headers.contains_key(HOST) {
        let host = HeaderValue::from_str(host).map_err(|error| format!("`{host}`: {error}"))?;
        headers.insert(HOST, host);
    }
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static("strata-probe"));
    Ok(headers)
}

fn body(spec: &RequestSpec) -> Result<Bytes, String> {
    match &spec.body {
        Some(body) => Ok(Bytes::from(body.clone())),
        None => usize::try_from(spec.body_bytes)
            .map(|length| Bytes::from(vec![b'.'; length]))
            .map_err(|_| format!("a body of {} bytes is too large", spec.body_bytes)),
    }
}

/// A connection on which another protocol is spoken now.
pub(crate) struct Upgraded {
    pub(crate) stream: hyper::upgrade::Upgraded,
    pub(crate) _driver: JoinSet<()>,
}

/// A connection that requests can be sent over, one after the other.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    /// Moves the bytes; ends with us.
    _driver: JoinSet<()>,
    witness: Witness,
    remote: SocketAddr,
    local: SocketAddr,
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn is_ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::H1(sender) => sender.ready().await.is_ok(),
            Sender::H2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// On failure also the request, if none of it was sent.
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (Option<Box<Request<Full<Bytes>>>>, hyper::Error)> {
        let result = match &mut self.sender {
            Sender::H1(sender) => sender.try_send_request(request).await,
            Sender::H2(sender) => sender.try_send_request(request).await,
        };
        result.map_err(|mut error| (error.take_message().map(Box::new), error.into_error()))
    }

    fn failure(&self, stage: Stage, error: &hyper::Error) -> Failure {
        http_failure(&self.witness, stage, error)
    }
}

async fn speak<T>(stream: T, version: HttpVersion) -> hyper::Result<(Sender, JoinSet<()>)>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    let mut driver = JoinSet::new();
    // How a connection ended is told by the request on it, and by the tap.
    let sender = match version {
        HttpVersion::H1 => {
            let (sender, connection) = http1::handshake(io).await?;
            driver.spawn(async move { drop(connection.with_upgrades().await) });
            Sender::H1(sender)
        }
        HttpVersion::H2 => {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            driver.spawn(async move { drop(connection.await) });
            Sender::H2(sender)
        }
    };
    Ok((sender, driver))
}

/// What the socket saw goes before what the library makes of it.
fn http_failure(witness: &Witness, stage: Stage, error: &hyper::Error) -> Failure {
    let kind = if find::<rustls::Error>(error).is_some() {
        FailureKind::Tls
    } else if let Some(kind) = witness.error() {
        kind
    } else if let Some(error) = find::<h2::Error>(error).filter(|error| !error.is_io()) {
        of_h2(error, witness)
    } else if error.is_parse() {
        FailureKind::Protocol
    } else if let Some(kind) = witness.verdict() {
        kind
    } else if error.is_incomplete_message() {
        FailureKind::Closed
    } else {
        FailureKind::Other
    };
    Failure::new(kind, stage, chain(error))
}

fn of_h2(error: &h2::Error, witness: &Witness) -> FailureKind {
    let in_order = error.reason() == Some(h2::Reason::NO_ERROR);
    if error.is_remote() && error.is_reset() && !in_order {
        FailureKind::Reset
    } else if error.is_go_away() && in_order {
        FailureKind::Closed
    } else if error.reason().is_some() {
        FailureKind::Protocol
    } else {
        witness.verdict().unwrap_or(FailureKind::Protocol)
    }
}
