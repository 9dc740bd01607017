//! What the Envoy of a Gateway serves, as asked of itself.
//!
//! Start from [`Observer`]. A ready pod has *a* configuration; that it has *this* one is what makes
//! a Gateway programmed, and Envoy tells its version at [`VERSION_PORT`](super::VERSION_PORT). Routes
//! are asked about; certificates come in another volume and may be some milliseconds behind.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio_util::task::AbortOnDropHandle;

use super::VERSION_PORT;
use crate::os::netns::NetNs;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon Envoys that are behind are asked again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Asks an Envoy at an address for the version that it serves; none if it does not say.
pub(super) type Ask = Arc<dyn Fn(IpAddr) -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// Knows which version each Envoy was last seen to serve.
pub(super) struct Observer {
    ask: Ask,
    seen: BTreeMap<IpAddr, String>,
}

impl Observer {
    /// One that asks in this way.
    pub(super) fn new(ask: Ask) -> Self {
        Self {
            ask,
            seen: BTreeMap::new(),
        }
    }

    /// Whether an Envoy was seen to serve a version.
    pub(super) fn serves(&self, address: IpAddr, version: &str) -> bool {
        self.seen.get(&address).is_some_and(|seen| seen == version)
    }

    /// Asks the Envoys that were not seen to serve what is wanted of them, again and again, until
    /// one of them does. Never returns if all do.
    pub(super) async fn catch_up(&mut self, wanted: &BTreeMap<IpAddr, String>) {
        let mut pause = AGAIN.0;
        while !self.look(wanted).await {
            if wanted
                .iter()
                .all(|(address, version)| self.serves(*address, version))
            {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    /// Asks those Envoys once; whether one of them has caught up.
    pub(super) async fn look(&mut self, wanted: &BTreeMap<IpAddr, String>) -> bool {
        self.seen.retain(|address, _| wanted.contains_key(address));
        let behind = wanted
            .iter()
            .filter(|(address, version)| !self.serves(**address, version));
        let answers = behind.map(|(address, version)| {
            let answer = (self.ask)(*address);
            async move {
                let told = answer.await.filter(|told| told == version);
                told.map(|told| (*address, told))
            }
        });
        let answers: Vec<_> = answers.collect();
        let found = futures::future::join_all(answers).await;
        let caught_up: Vec<_> = found.into_iter().flatten().collect();
        let any = !caught_up.is_empty();
        self.seen.extend(caught_up);
        any
    }
}

/// Asks over the network of the controller's own pod.
pub(super) fn over_http(netns: NetNs) -> Ask {
    Arc::new(move |address| {
        let netns = netns.clone();
        Box::pin(async move {
            let asked = tokio::time::timeout(PATIENCE, version(&netns, address)).await;
            match asked {
                Ok(Ok(version)) => Some(version),
                Ok(Err(error)) => {
                    tracing::debug!(%address, "asking Envoy for its version: {error:#}");
                    None
                }
                Err(_) => None,
            }
        })
    })
}

async fn version(netns: &NetNs, address: IpAddr) -> anyhow::Result<String> {
    let socket = netns.run(move || match address {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    })?;
    let stream = socket
        .connect(SocketAddr::new(address, VERSION_PORT))
        .await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = http::Request::get("/version")
        .header(http::header::HOST, "envoy")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    anyhow::ensure!(
        response.status() == http::StatusCode::OK,
        "the answer was {}",
        response.status()
    );
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}
