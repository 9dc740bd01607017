//! Cluster DNS: the component `coredns`.
//!
//! Start from [`run`]. [`zone`] holds what the cluster's objects mean in DNS, by the Kubernetes DNS
//! specification 1.1.0; [`answer`] finds a question's answer in it, as a pure function; [`server`]
//! speaks the protocol. Where the specification leaves a choice, it is CoreDNS' (`pods insecure`,
//! no upstream). Rule: a name that exists without the asked type is no NXDOMAIN, or resolvers would
//! stop asking for the other types.
//!
//! ```text
//! Service, EndpointSlice, Namespace ──► zone ──► answer ◄── server ◄── UDP, TCP
//! ```

mod answer;
mod server;
#[cfg(test)]
mod tests;
mod zone;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::zone::{Objects, Zone};
use super::kept::Kept;
use crate::builtin::BuiltinContext;
use crate::os::netns::{NetNs, any};
use crate::world::World;

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
    let own = context.ips();
    let _health = serve_http(&context.netns, HEALTH_PORT, "/health", || StatusCode::OK)?;
    let (sender, zone) = watch::channel(None::<Arc<Zone>>);
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
        let mut kept = Kept::default();
        loop {
            let objects = Objects {
                services: services.state(),
                slices: slices.state(),
                namespaces: namespaces.state(),
                own: own.clone(),
                serial: u32::try_from(Timestamp::now().as_second()).unwrap_or_default(),
            };
            sender.send_replace(Some(Arc::new(Zone::of(&objects, &mut kept))));
            world.changed().await;
        }
    };
    (context.log)(&format!(".:{PORT}"));
    tokio::select! {
        () = context.cancel.cancelled() => Ok(()),
        () = keep => Ok(()),
        ended = server::serve(&context.netns, PORT, zone) => ended,
    }
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
