//! HTTPS: HTTP/1.1 with upgrades, and HTTP/2.
//!
//! Start from [`serve`]. Rule: whatever a connection becomes is done in the connection's own task,
//! so that nothing goes on when the server has ended.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use x509_parser::prelude::FromDer as _;

use super::{Shared, User};

/// How often a silent client is asked whether it is there, in seconds, as Go's servers do it.
const KEEP_ALIVE: u32 = 15;

/// What is to be done with a connection when it has become something else than HTTP; an extension
/// of every request that came over one.
#[derive(Clone)]
pub(crate) struct Afterwards {
    tasks: mpsc::Sender<BoxFuture<'static, ()>>,
    /// Who is at the other end.
    pub(crate) peer: Peer,
}

impl Afterwards {
    /// Runs a task in place of further requests; the first one counts.
    pub(crate) fn run(&self, task: BoxFuture<'static, ()>) {
        let _ = self.tasks.try_send(task);
    }
}

/// The other end of a connection; the default is one that never closes.
#[derive(Clone, Default)]
pub(crate) struct Peer(Option<Arc<AsyncFd<OwnedFd>>>);

impl Peer {
    pub(crate) fn of(stream: &TcpStream) -> std::io::Result<Self> {
        let socket = stream.as_fd().try_clone_to_owned()?;
        // SAFETY: an OwnedFd is open, and the same descriptor, for as long as it lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self(Some(Arc::new(socket))))
    }

    /// Waits until the connection is closed from there, or broken. Reading tells so only after all
    /// that was sent before, which is of no help to one who cannot read on.
    pub(crate) async fn gone(&self) {
        let Some(socket) = &self.0 else {
            return std::future::pending().await;
        };
        while let Ok(mut ready) = socket.ready(Interest::READABLE).await {
            if ready.ready().is_read_closed() {
                return;
            }
            ready.clear_ready();
        }
    }
}

/// Serves a listener until cancelled.
pub(crate) async fn serve(
    router: Router,
    shared: Arc<Shared>,
    listener: std::net::TcpListener,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&shared)?));
    listener
        .set_nonblocking(true)
        .context("the API server's listener")?;
    let listener =
        tokio::net::TcpListener::from_std(listener).context("the API server's listener")?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (stream, _) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::debug!(%error, "a connection to the API server was not accepted");
                        continue;
                    }
                };
                connections.spawn(connection(router.clone(), acceptor.clone(), stream));
            }
        }
    }
}

async fn connection(router: Router, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    // A client that died while it was not being read says nothing, but no longer answers either.
    let _ = setsockopt(&stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(&stream, sockopt::TcpKeepIdle, &KEEP_ALIVE);
    let _ = setsockopt(&stream, sockopt::TcpKeepInterval, &KEEP_ALIVE);
    let peer = Peer::of(&stream).unwrap_or_default();
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake with the API server failed");
            return;
        }
    };
    let user = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(user_of);
    http(router, user, stream, peer).await;
}

/// Serves one connection, as a user if there is one, and whatever it becomes.
pub(crate) async fn http(
    router: Router,
    user: Option<User>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
) {
    let (afterwards, mut tasks) = mpsc::channel(1);
    let afterwards = Afterwards {
        tasks: afterwards,
        peer,
    };
    let service = router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(afterwards.clone());
        if let Some(user) = &user {
            request.extensions_mut().insert(user.clone());
        }
        request.map(axum::body::Body::new)
    });
    let served = auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the API server broke");
    }
    if let Ok(task) = tasks.try_recv() {
        task.await;
    }
}

fn tls(shared: &Shared) -> anyhow::Result<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        shared.pki.ca_pem().as_bytes(),
    )?)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let (certificate, key) = shared.pki.server();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The user that a certificate names: common name and organizations.
fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = subject
        .iter_organization()
        .filter_map(|one| one.as_str().ok())
        .map(str::to_owned);
    let groups = organizations
        .chain(std::iter::once("system:authenticated".to_owned()))
        .collect();
    Some(User { name, groups })
}
