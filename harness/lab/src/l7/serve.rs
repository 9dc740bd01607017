//! HTTP at a port of a controller's own pod.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::net::netns::{NetNs, any};

/// Serves HTTP/1.1 and HTTP/2 without TLS until dropped; connections end with it.
///
/// # Errors
/// When the port is taken in the pod.
pub(crate) fn serve(
    netns: &NetNs,
    port: u16,
    router: Router,
) -> anyhow::Result<AbortOnDropHandle<()>> {
    let listener = netns
        .tcp_listener(any(port))
        .map_err(|error| anyhow::anyhow!("cannot listen on port {port} of the pod: {error}"))?;
    let listener = TcpListener::from_std(listener)?;
    Ok(AbortOnDropHandle::new(tokio::spawn(accept(
        listener, router,
    ))))
}

/// Serves a listener for ever.
pub(crate) async fn accept(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(connection(stream, router.clone())); }
                Err(error) => tracing::debug!(%error, "a connection was not accepted"),
            },
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let served = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}
