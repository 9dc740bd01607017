//! HTTP at ports of a controller's own pod.
//!
//! Start from [`Servers`].

use axum::Router;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::builtin::BuiltinContext;
use crate::os::netns::{NetNs, any};

/// The servers of one controller; they end when this is dropped.
#[derive(Default)]
pub(crate) struct Servers(JoinSet<()>);

impl Servers {
    /// Serves HTTP/1.1 and HTTP/2 without TLS at a port of a pod.
    ///
    /// # Errors
    /// When the port is taken.
    pub(crate) fn serve(&mut self, netns: &NetNs, port: u16, router: Router) -> anyhow::Result<()> {
        let listener = netns
            .tcp_listener(any(port))
            .map_err(|error| anyhow::anyhow!("cannot listen on port {port} of the pod: {error}"))?;
        let listener = TcpListener::from_std(listener)?;
        self.0.spawn(accept(listener, router));
        Ok(())
    }

    /// Ends them, and returns when their connections are closed: while the pod has a network, the
    /// other sides are told.
    pub(crate) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// Runs a controller until its container is stopped; then its servers end while it has a network.
///
/// # Errors
/// Those of the controller.
pub(crate) async fn until_stopped(
    context: BuiltinContext,
    control: impl AsyncFnOnce(BuiltinContext, &mut Servers) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cancel = context.cancel.clone();
    let mut servers = Servers::default();
    let ended = tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = control(context, &mut servers) => ended,
    };
    servers.end().await;
    ended
}

/// Serves a listener for ever. Connections are not tasks of their own, so that they end with this.
async fn accept(listener: TcpListener, router: Router) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = connections.next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.push(connection(stream, router.clone())),
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
