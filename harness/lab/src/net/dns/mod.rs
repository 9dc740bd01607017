//! Cluster DNS: the component `coredns`.
//!
//! Start from [`run`]. [`zone`] holds what the cluster's objects mean in DNS, by the Kubernetes DNS
//! specification 1.1.0; [`answer`] finds a question's answer in it, as a pure function; [`server`]
//! speaks the protocol. Where the specification leaves a choice, it is CoreDNS' (`pods insecure`). What
//! is not the cluster's goes to whom the [`corefile`] names, and in the end to the [`world`]'s name
//! server. Rule: a name that exists without the asked type is no NXDOMAIN, or resolvers would
//! stop asking for the other types.
//!
//! ```text
//! Service, EndpointSlice, Namespace ──► zone ──► answer ◄── server ◄── UDP, TCP
//!                  ConfigMap coredns ──► corefile ──► forward ◄┘ └──► other name servers
//! ```

mod answer;
mod corefile;
mod forward;
mod server;
#[cfg(test)]
mod tests;
pub mod world;
mod zone;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::corefile::Corefile;
use self::forward::Upstream;
use self::server::Handler;
use self::zone::{Objects, Zone};
use crate::builtin::BuiltinContext;
use crate::os::netns::{NetNs, any};
use crate::topology::OUTSIDE_IP;
use crate::world::World;

/// Where its ConfigMap is.
const NAMESPACE: &str = "kube-system";
/// How long what changes is waited for to be followed by more.
const HOLDOFF: Duration = Duration::from_millis(20);
/// Where names are asked for.
const PORT: u16 = 53;
/// Where CoreDNS' `ready` plugin answers.
const READY_PORT: u16 = 8181;
/// Where CoreDNS' `health` plugin answers.
const HEALTH_PORT: u16 = 8080;

/// Answers for the cluster until cancelled.
///
/// # Errors
/// When a port is taken in the pod.
pub(crate) async fn run(context: BuiltinContext) -> anyhow::Result<()> {
    let mut world = World::default();
    let services = world.watch(Api::<Service>::all(context.client.clone()));
    let slices = world.watch(Api::<EndpointSlice>::all(context.client.clone()));
    let namespaces = world.watch(Api::<Namespace>::all(context.client.clone()));
    let configuration = world.watch(Api::<ConfigMap>::namespaced(
        context.client.clone(),
        NAMESPACE,
    ));
    let own = context.ips();
    let _health = serve_http(&context.netns, HEALTH_PORT, "/health", || StatusCode::OK)?;
    let (sender, zone) = watch::channel(None::<Zone>);
    let (told, corefile) = watch::channel(Arc::<Corefile>::default());
    let seen = zone.clone();
    let _ready = serve_http(&context.netns, READY_PORT, "/ready", move || {
        if seen.borrow().is_some() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        }
    })?;
    let keep = async {
        world.ready().await;
        let mut read = None;
        loop {
            let text = corefile_of(&configuration.state());
            if read.as_ref() != Some(&text) {
                match Corefile::parse(&text, &machine()) {
                    Ok(corefile) => drop(told.send_replace(Arc::new(corefile))),
                    // The last that could be read goes on, as with CoreDNS' plugin `reload`.
                    Err(error) => (context.log)(&format!("[ERROR] plugin/reload: {error:#}")),
                }
                read = Some(text);
            }
            let objects = Objects {
                services: services.state(),
                slices: slices.state(),
                namespaces: namespaces.state(),
                serial: u32::try_from(Timestamp::now().as_second()).unwrap_or_default(),
            };
            sender.send_modify(|zone| {
                let zone = zone.get_or_insert_with(|| Zone::served_at(own.clone()));
                zone.update(&objects);
            });
            world.settled(HOLDOFF).await;
        }
    };
    (context.log)(&format!(".:{PORT}"));
    let handler = Handler {
        zone,
        corefile,
        upstream: Upstream::of(context.netns.clone()),
    };
    tokio::select! {
        () = context.cancel.cancelled() => Ok(()),
        () = keep => Ok(()),
        ended = server::serve(&context.netns, PORT, handler) => ended,
    }
}

/// The text of ConfigMap `kube-system/coredns`; of none, that of a Corefile without one.
fn corefile_of(maps: &[Arc<ConfigMap>]) -> String {
    let own = maps.iter().find(|map| map.name_any() == "coredns");
    let text = own.and_then(|map| map.data.as_ref()?.get("Corefile"));
    text.cloned().unwrap_or_default()
}

/// The name servers in `/etc/resolv.conf` of a node.
fn machine() -> Vec<SocketAddr> {
    vec![SocketAddr::from((OUTSIDE_IP, PORT))]
}

/// Answers one path with a status until dropped.
fn serve_http(
    netns: &NetNs,
    port: u16,
    path: &str,
    status: impl Fn() -> StatusCode + Clone + Send + Sync + 'static,
) -> anyhow::Result<AbortOnDropHandle<()>> {
    let listener = netns
        .tcp_listener(any(port))
        .map_err(|error| anyhow::anyhow!("cannot listen on port {port} of the pod: {error}"))?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let answer = move || {
        let status = status();
        async move { (status, status.canonical_reason().unwrap_or_default()) }
    };
    let router = Router::new().route(path, get(answer));
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::debug!(%error, port, "a health endpoint ended");
        }
    })))
}
