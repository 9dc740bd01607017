//! `envoy.service.discovery.v3.AggregatedDiscoveryService`: a stream a proxy.
//!
//! Start from [`Session::next`].

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Streaming;
use tonic::server::{Grpc, StreamingService};
use tonic_prost::ProstCodec;

use crate::Xds;
use crate::configuration::Configuration;
use crate::encode::type_url;
use crate::instance::{Answer, Heard, Instance, Kind};
use crate::message::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource};

const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// How soon a proxy that did not take an answer is offered it again, at first and at most: it may have named a
/// secret whose file is not there yet.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// After how many refusals in a row it is worth a line: more than a second's.
const WORTH_SAYING: u32 = 6;

impl Xds {
    /// What answers proxies, over HTTP/2.
    pub fn router(&self) -> Router {
        Router::new()
            .route(PATH, post(stream))
            .with_state(self.clone())
    }
}

async fn stream(State(xds): State<Xds>, request: Request) -> Response {
    let mut grpc = Grpc::new(ProstCodec::default());
    grpc.streaming(Service(xds), request).await.into_response()
}

struct Service(Xds);

impl StreamingService<DeltaDiscoveryRequest> for Service {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = BoxStream<'static, Result<DeltaDiscoveryResponse, tonic::Status>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let session = Session::new(self.0.clone(), request.into_inner());
        let answers = stream::unfold(session, async |mut session| {
            let answer = session.next().await?;
            Some((Ok(answer), session))
        });
        ready(Ok(tonic::Response::new(answers.boxed())))
    }
}

/// One stream.
struct Session {
    xds: Xds,
    requests: Streaming<DeltaDiscoveryRequest>,
    node: Option<Node>,
    instance: Instance,
    places: watch::Receiver<BTreeMap<String, String>>,
    /// The group that the proxy is of.
    group: Option<(String, watch::Receiver<Option<Arc<Configuration>>>)>,
    /// When what was refused is offered again.
    again: Option<Instant>,
}

impl Session {
    fn new(xds: Xds, requests: Streaming<DeltaDiscoveryRequest>) -> Self {
        Self {
            places: xds.places.subscribe(),
            xds,
            requests,
            node: None,
            instance: Instance::default(),
            group: None,
            again: None,
        }
    }

    /// Waits for something to say; nothing when the proxy is gone.
    async fn next(&mut self) -> Option<DeltaDiscoveryResponse> {
        loop {
            let answer = self
                .configuration()
                .and_then(|configuration| self.instance.next(&configuration));
            if let Some(answer) = answer {
                tracing::debug!(proxy = self.id(), kind = %answer.kind, nonce = answer.nonce,
                    new = answer.resources.len(), gone = answer.removed.len(), "is told");
                return Some(response(answer));
            }
            let newer = async {
                match &mut self.group {
                    Some((_, configuration)) => configuration.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            let again = async {
                match self.again {
                    Some(again) => tokio::time::sleep_until(again).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = self.requests.message() => self.hear(request.ok()??)?,
                there = newer => if !there { self.group = None },
                // Of the control plane itself, which outlives its streams.
                _ = self.places.changed() => {}
                () = again => {
                    self.again = None;
                    self.instance.retry();
                }
            }
        }
    }

    fn id(&self) -> &str {
        self.node.as_ref().map_or("", |node| &node.id)
    }

    /// What the proxy's group is to have.
    fn configuration(&mut self) -> Option<Arc<Configuration>> {
        let node = self.node.as_ref()?;
        let name = self.places.borrow_and_update().get(&node.id).cloned();
        let name = name.unwrap_or_else(|| node.cluster.clone());
        if self.group.as_ref().is_none_or(|(group, _)| *group != name) {
            tracing::debug!(proxy = node.id, group = name, "is of a group");
            let configuration = self.xds.of_group(&name);
            self.group = Some((name, configuration));
        }
        let (_, configuration) = self.group.as_mut()?;
        configuration.borrow_and_update().clone()
    }

    /// Takes in what the proxy says; nothing where it cannot be talked with.
    fn hear(&mut self, request: DeltaDiscoveryRequest) -> Option<()> {
        if self.node.is_none() {
            self.node = Some(request.node?);
        }
        let of = |kind: &Kind| request.type_url == type_url(kind.message());
        let Some(kind) = Kind::ALL.into_iter().find(of) else {
            // Of a kind that nobody publishes there is nothing, ever.
            tracing::debug!(proxy = self.id(), kind = request.type_url, "asks in vain");
            return Some(());
        };
        let refused = request.error_detail.map(|details| details.message);
        tracing::debug!(proxy = self.id(), %kind, nonce = request.response_nonce, ?refused,
            subscribe = ?request.resource_names_subscribe, "says");
        let refuses = refused.is_some();
        let outcome = refused.map_or(Ok(()), Err);
        let mut subscribe = request.resource_names_subscribe;
        // How Envoy names all of them where it names any.
        subscribe.retain(|name| name != "*");
        self.instance.heard(
            kind,
            Heard {
                subscribe,
                unsubscribe: request.resource_names_unsubscribe,
                has: request.initial_resource_versions.into_iter().collect(),
                outcome: (!request.response_nonce.is_empty())
                    .then_some((request.response_nonce, outcome)),
            },
        );
        if refuses {
            self.refused(kind);
        }
        Some(())
    }

    fn refused(&mut self, kind: Kind) {
        let Some((times, why)) = self.instance.refusals(kind) else {
            return;
        };
        if times == WORTH_SAYING {
            let id = self.id();
            (self.xds.log)(&format!("Envoy {id} does not take its {kind}: {why}"));
        }
        let patience = AGAIN.0 * 2_u32.saturating_pow(times - 1);
        self.again = Some(Instant::now() + patience.min(AGAIN.1));
    }
}

fn response(answer: Answer) -> DeltaDiscoveryResponse {
    let resources = answer.resources.into_iter();
    let resources = resources.map(|(name, resource)| Resource {
        name,
        version: resource.version.clone(),
        resource: Some(resource.packed.clone()),
    });
    DeltaDiscoveryResponse {
        resources: resources.collect(),
        type_url: type_url(answer.kind.message()),
        nonce: answer.nonce,
        removed_resources: answer.removed,
    }
}
