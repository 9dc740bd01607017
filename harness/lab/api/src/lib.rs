//! The API server: one object store, one request path, one table with a row a kind.
//!
//! Start from [`ApiServer`]. A request is understood ([`request`]), authenticated ([`auth`]) and
//! carried out ([`verbs`]) against the [`store`]; what differs between kinds is their row in
//! [`rows`]. Authorization is not enforced: whoever is authenticated may do everything. Rule: no
//! kind is handled by name outside its row.
//!
//! ```text
//! serve ──► router ──► {verbs, stream, subresource} ──► write ──► store
//!    │                       └──► rows ──► {defaults, validate, crd}
//!    └──► container ──► {remote, forward} ──► channel ──► {websocket, spdy}
//! ```

mod admission;
mod apply;
mod auth;
mod bootstrap;
mod channel;
mod check;
mod container;
mod crd;
mod delete;
mod discovery;
mod family;
mod fields;
pub mod flags;
mod forward;
pub mod kubelet;
mod meta;
mod openapi;
mod patch;
pub mod pki;
mod protobuf;
mod proxy;
mod registry;
mod remote;
mod request;
mod review;
mod router;
mod rows;
mod schema;
mod selector;
mod serve;
mod shape;
pub mod status;
mod store;
mod stream;
mod subresource;
mod swagger;
mod table;
#[cfg(test)]
mod tests;
mod token;
mod types;
mod verbs;
pub mod webhook;
mod write;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use ipnet::IpNet;
use strata_os::netns::NetNs;
use tokio_util::sync::CancellationToken;

use self::kubelet::{Kubelet, NoNodes};
use self::pki::ClusterPki;
use self::registry::Registry;
use self::store::Store;
use self::webhook::Webhooks;

pub use self::auth::User;
pub use self::family::IpFamily;

/// What an API server is made from.
pub struct ApiConfig {
    /// Whom the streams of pods are asked of.
    pub kubelet: Arc<dyn Kubelet>,
    /// The admission webhooks' servers in this process.
    pub webhooks: Webhooks,
    /// The cluster's certificate authority.
    pub pki: Arc<ClusterPki>,
    /// Where connections to pods are made from: the control plane's network.
    pub network: NetNs,
    /// The networks of ClusterIPs, one a family; the first is that of Services that ask for none
    /// (`--service-cluster-ip-range`).
    pub service_cidrs: Vec<IpNet>,
    /// How late others than the administrator hear of what they watch, at most; each watch by a part of it that is drawn
    /// as it begins. So is a cluster that has much to do: what one component wrote another does not know yet.
    pub watch_lag: Duration,
}

impl ApiConfig {
    /// What an API server without a cluster is made from: it has no nodes, and is called `localhost`.
    ///
    /// # Errors
    /// When its certificate authority cannot be made, or `/proc` is not mounted.
    pub fn alone() -> anyhow::Result<Self> {
        Ok(Self {
            kubelet: Arc::new(NoNodes),
            webhooks: Webhooks::default(),
            pki: Arc::new(ClusterPki::new(&["localhost".to_owned()])?),
            network: NetNs::current()?,
            service_cidrs: vec![flags::service_cidr(IpFamily::V4)],
            watch_lag: Duration::ZERO,
        })
    }
}

/// What every request may use.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) kubelet: Arc<dyn Kubelet>,
    pub(crate) webhooks: Webhooks,
    pub(crate) pki: Arc<ClusterPki>,
    pub(crate) network: NetNs,
    pub(crate) watch_lag: Duration,
}

/// The API server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
    router: Router,
}

impl ApiServer {
    /// An API server with the objects that every cluster begins with.
    ///
    /// # Errors
    /// When its first objects cannot be stored, which would be a defect.
    pub fn new(config: ApiConfig) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            store: Store::default(),
            registry: Registry::new(),
            kubelet: config.kubelet,
            webhooks: config.webhooks,
            pki: config.pki,
            network: config.network,
            watch_lag: config.watch_lag,
        });
        bootstrap::objects(&shared, &config.service_cidrs)?;
        let router = router::router(shared.clone());
        Ok(Self { shared, router })
    }

    /// An API server with no cluster around it, as tests of clients want: its pods run nowhere.
    ///
    /// # Errors
    /// As [`ApiConfig::alone`].
    pub fn alone() -> anyhow::Result<Self> {
        Self::new(ApiConfig::alone()?)
    }

    /// Serves further routes, to members of `system:masters` only.
    #[must_use]
    pub fn extend(mut self, routes: Router) -> Self {
        let routes = routes.layer(axum::middleware::from_fn(auth::require_masters));
        self.router = routes.fallback_service(self.router);
        self
    }

    /// A client in this process, authenticated as a user.
    #[must_use]
    pub fn client(&self, user: &str) -> kube::Client {
        use tower::ServiceExt as _;
        let user = User::component(user);
        let service =
            self.router
                .clone()
                .map_request(move |request: http::Request<kube::client::Body>| {
                    let mut request = request.map(axum::body::Body::new);
                    request.extensions_mut().insert(user.clone());
                    request
                });
        kube::Client::new(service, "default")
    }

    /// Forgets the past, as a cluster's API server has etcd do every five minutes: watches and lists that
    /// would go on from it are answered 410.
    pub fn compact(&self) {
        self.shared.store.transact(store::State::compact);
    }

    /// Serves HTTPS on a listener until cancelled.
    ///
    /// # Errors
    /// When the listener or the server's certificate cannot be used.
    pub async fn serve(
        &self,
        listener: std::net::TcpListener,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        serve::serve(self.router.clone(), self.shared.clone(), listener, cancel).await
    }
}
