//! Watches of the API's kinds.
//!
//! Start from [`Watch::watch`]. Objects are watched as text, by one state machine for all kinds, and each is read as what it is
//! when it comes. What reads the kinds is in this crate, so that it is compiled once, and with optimisation in every profile:
//! `kube`'s own watcher is compiled anew for every kind that anything watches, and that is two fifths of what would be
//! compiled for the lab.

mod text;

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use gateway_api::backendtlspolicies::BackendTlsPolicy;
use gateway_api::experimental::httproutes::HttpRoute;
use gateway_api::experimental::tcproutes::TcpRoute;
use gateway_api::experimental::udproutes::UdpRoute;
use gateway_api::experimental::xmeshes::XMesh;
use gateway_api::gatewayclasses::GatewayClass;
use gateway_api::gateways::Gateway;
use gateway_api::grpcroutes::GrpcRoute;
use gateway_api::listenersets::ListenerSet;
use gateway_api::referencegrants::ReferenceGrant;
use gateway_api::tlsroutes::TlsRoute;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, NetworkPolicy};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use strata_istio::destination_rule::DestinationRule;
use strata_istio::request_authentication::RequestAuthentication;
use strata_istio::security::{AuthorizationPolicy, PeerAuthentication};
use strata_istio::service_entry::ServiceEntry;
use strata_istio::sidecar::Sidecar;
use strata_istio::virtual_service::VirtualService;

use self::text::Text;

/// What a watch tells, for ever: after an error it starts again.
pub type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// A kind that can be watched.
pub trait Watch: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    /// Every object of a selection as it is now, as a list, and then what becomes of them. One that cannot be read is told as
    /// an error, and is missing from what is told otherwise.
    fn watch(api: Api<Self>, selection: watcher::Config, again: Again) -> Events<Self>;
}

/// How soon a watch that failed starts again.
pub enum Again {
    /// Ever later, as client-go's reflectors do.
    Later(Box<DefaultBackoff>),
    /// As for a kind that may not be defined yet.
    EverySecond,
}

impl Default for Again {
    fn default() -> Self {
        Self::Later(Box::default())
    }
}

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match self {
            Self::Later(backoff) => backoff.next(),
            Self::EverySecond => Some(Duration::from_secs(1)),
        }
    }
}

impl Backoff for Again {
    fn reset(&mut self) {
        match self {
            Self::Later(backoff) => backoff.reset(),
            Self::EverySecond => {}
        }
    }
}

/// What is watched as text, read as what it is. What cannot be read is an error of its own, and the watch goes on.
fn read<K: DeserializeOwned>(
    events: impl Stream<Item = watcher::Result<Event<Text>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    let read = |text: Text| {
        serde_json::from_str(text.json())
            .map_err(|error| watcher::Error::WatchFailed(kube::Error::SerdeError(error)))
    };
    events.map(move |event| {
        Ok(match event? {
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(read(object)?),
            Event::InitDone => Event::InitDone,
            Event::Apply(object) => Event::Apply(read(object)?),
            Event::Delete(object) => Event::Delete(read(object)?),
        })
    })
}

/// The same objects as text.
fn as_text<K: Resource<DynamicType = ()>>(api: Api<K>) -> Api<Text> {
    let kind = ApiResource::erase::<K>(&());
    match api.namespace().map(str::to_owned) {
        Some(namespace) => Api::namespaced_with(api.into_client(), &namespace, &kind),
        None => Api::all_with(api.into_client(), &kind),
    }
}

/// For kinds that are known when this is compiled.
macro_rules! impl_watch {
    ($($kind:ty),+ $(,)?) => {$(
        impl Watch for $kind {
            fn watch(api: Api<Self>, selection: watcher::Config, again: Again) -> Events<Self> {
                let events = watcher(as_text(api), selection).backoff(again);
                read(events).boxed()
            }
        }
    )+};
}

/// For any kind, of which metadata alone is read.
impl Watch for PartialObjectMeta<DynamicObject> {
    fn watch(api: Api<Self>, selection: watcher::Config, again: Again) -> Events<Self> {
        watcher(api, selection).backoff(again).boxed()
    }
}

impl_watch!(
    AuthorizationPolicy,
    BackendTlsPolicy,
    ConfigMap,
    ControllerRevision,
    DaemonSet,
    Deployment,
    DestinationRule,
    EndpointSlice,
    Endpoints,
    Gateway,
    GatewayClass,
    GrpcRoute,
    HttpRoute,
    Ingress,
    IngressClass,
    Job,
    Lease,
    ListenerSet,
    MutatingWebhookConfiguration,
    Namespace,
    NetworkPolicy,
    Node,
    PeerAuthentication,
    Pod,
    ReferenceGrant,
    ReplicaSet,
    RequestAuthentication,
    Secret,
    Service,
    ServiceAccount,
    ServiceEntry,
    Sidecar,
    StatefulSet,
    TcpRoute,
    TlsRoute,
    UdpRoute,
    VirtualService,
    XMesh,
    k8s_openapi::api::core::v1::Event,
);

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    fn text(json: &str) -> Text {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_the_rest_is_told() {
        let events = [
            Event::Init,
            Event::InitApply(text(r#"{"metadata":{"name":"a"},"data":{"b":"c"}}"#)),
            Event::InitApply(text(r#"{"metadata":{"name":"b"},"data":3}"#)),
            Event::InitDone,
            Event::Delete(text(r#"{"metadata":{"name":"a"}}"#)),
        ];
        let events = futures::stream::iter(events.map(Ok));
        let told: Vec<watcher::Result<Event<ConfigMap>>> = block_on(read(events).collect());
        let words: Vec<_> = told
            .into_iter()
            .map(|event| match event {
                Ok(Event::Init) => "init".to_owned(),
                Ok(Event::InitApply(object)) => format!("lists {:?}", object.data.unwrap()),
                Ok(Event::InitDone) => "listed".to_owned(),
                Ok(Event::Apply(object)) => format!("applies {object:?}"),
                Ok(Event::Delete(object)) => format!("deletes {}", object.metadata.name.unwrap()),
                Err(error) => error.to_string(),
            })
            .collect();
        assert_eq!(words[0], "init");
        assert_eq!(words[1], r#"lists {"b": "c"}"#);
        assert!(
            words[2].contains("invalid type: integer `3`"),
            "{}",
            words[2]
        );
        assert_eq!(words[3..], ["listed", "deletes a"]);
    }
}
