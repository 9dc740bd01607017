//! Looking at a cluster for a diagnosis: objects through the API, attempts through vantages.
//!
//! Start from [`Look`]. What is seen is handed to the judging functions beside each diagnoser, which
//! are pure. Rule: few requests, each bounded; a vantage that cannot be asked is no evidence.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, ListParams, LogParams};
use kube::core::GroupVersionKind;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use strata_probe::TcpSpec;

use super::labels::Labels;
use super::tried::Tried;
use super::workload;
use crate::pod::PodView;
use crate::probe::Vantage;
use crate::scope::Scope;
use crate::verdict::{Doing as _, NoVerdict};

/// An attempt that nobody answered by then is one that times out.
const ATTEMPT_MS: u64 = 1000;
/// As many containers' last words are read.
const LAST_WORDS: usize = 4;
/// The probe's image by name, in whichever registry and version.
const PROBE_IMAGE: &str = "strata.dev/probe";

/// Looks at the cluster of a scope.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    /// Whose cluster and vantages.
    pub(super) scope: &'a Scope,
}

impl<'a> Look<'a> {
    /// Every object of a kind in the cluster; none where the API does not serve it.
    pub(super) async fn all<K>(self) -> Result<Vec<K>, NoVerdict>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        list(Api::<K>::all(self.scope.client().clone())).await
    }

    /// Every object of a kind in a namespace; none where the API does not serve it.
    pub(super) async fn within<K>(self, namespace: &str) -> Result<Vec<K>, NoVerdict>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        list(Api::<K>::namespaced(self.scope.client().clone(), namespace)).await
    }

    /// Every object of a kind without a type here, in a namespace or in all; the first of the
    /// versions that the API serves.
    pub(super) async fn untyped(
        self,
        namespace: Option<&str>,
        group: &str,
        versions: &[&str],
        kind: &str,
    ) -> Result<Vec<DynamicObject>, NoVerdict> {
        for version in versions {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let client = self.scope.client().clone();
            let api: Api<DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(client, namespace, &resource),
                None => Api::all_with(client, &resource),
            };
            match api.list(&ListParams::default()).await {
                Ok(found) => return Ok(found.items),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error).doing(|| format!("listing {kind}")),
            }
        }
        Ok(Vec::new())
    }

    /// The labels of every namespace.
    pub(super) async fn namespaces(self) -> Result<Vec<(String, Labels)>, NoVerdict> {
        let all: Vec<Namespace> = self.all().await?;
        let named = all.iter().map(|it| (it.name_any(), it.labels().clone()));
        Ok(named.collect())
    }

    /// The EndpointSlices of a Service.
    pub(super) async fn slices(
        self,
        namespace: &str,
        service: &str,
    ) -> Result<Vec<EndpointSlice>, NoVerdict> {
        let mut slices: Vec<EndpointSlice> = self.within(namespace).await?;
        slices.retain(|slice| {
            slice
                .labels()
                .get("kubernetes.io/service-name")
                .is_some_and(|it| it == service)
        });
        Ok(slices)
    }

    /// Every Service of the cluster.
    pub(super) async fn services(self) -> Result<Vec<Service>, NoVerdict> {
        self.all().await
    }

    /// What explains the pods of a namespace.
    pub(super) async fn workload(
        self,
        namespace: &str,
        selector: Labels,
    ) -> Result<workload::Seen, NoVerdict> {
        let pods: Vec<Pod> = self.within(namespace).await?;
        let deployments: Vec<Deployment> = self.within(namespace).await?;
        let events: Vec<Event> = self.within(namespace).await?;
        let last_lines = self.last_lines(namespace, &pods).await;
        Ok(workload::Seen {
            namespace: namespace.to_owned(),
            selector,
            pods,
            deployments,
            events,
            last_lines,
        })
    }

    /// What containers that have ended said last. One that cannot be read said nothing.
    async fn last_lines(self, namespace: &str, pods: &[Pod]) -> Vec<(String, String, String)> {
        let containers = pods.iter().flat_map(|pod| {
            let status = pod.status.iter();
            let containers = status.flat_map(|it| it.container_statuses.iter().flatten());
            let ended =
                containers.filter(|container| !container.ready && container.restart_count > 0);
            ended.map(move |container| (pod.name_any(), container.name.clone()))
        });
        let api = Api::<Pod>::namespaced(self.scope.client().clone(), namespace);
        let read = containers.take(LAST_WORDS).map(|(pod, container)| {
            let api = api.clone();
            async move {
                let parameters = LogParams {
                    container: Some(container.clone()),
                    previous: true,
                    tail_lines: Some(1),
                    ..LogParams::default()
                };
                let log = api.logs(&pod, &parameters).await.ok()?;
                let last = log.lines().rfind(|line| !line.trim().is_empty())?;
                Some((pod, container, last.trim().to_owned()))
            }
        });
        join_all(read).await.into_iter().flatten().collect()
    }

    /// The pods that can be asked to send traffic: ready, and of the probe's image.
    pub(super) fn askable(self, pods: &[Pod]) -> Vec<(PodView, Vantage)> {
        let own = &self.scope.cluster().fit.probe.reference;
        let probes = pods.iter().filter(|pod| {
            let first = pod.spec.as_ref().and_then(|spec| spec.containers.first());
            let image = first.and_then(|container| container.image.as_deref());
            workload::ready(pod)
                && !workload::leaving(pod)
                && image.is_some_and(|image| image.contains(PROBE_IMAGE) || image == own.as_str())
        });
        let views = probes.filter_map(PodView::of);
        views
            .map(|view| (view.clone(), self.scope.from_pod(&view)))
            .collect()
    }
}

async fn list<K>(api: Api<K>) -> Result<Vec<K>, NoVerdict>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.list(&ListParams::default()).await {
        Ok(found) => Ok(found.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).doing(|| format!("listing {}", K::plural(&()))),
    }
}

/// Tries to connect; nothing if that could not be tried, or would say nothing: a sidecar accepts
/// every connection itself.
pub(super) async fn attempt(from: &Vantage, ip: IpAddr, port: u16) -> Option<Tried> {
    if from
        .pod()
        .is_some_and(|pod| super::mesh::has_sidecar(&pod.pod))
    {
        return None;
    }
    let spec = TcpSpec {
        connect_only: true,
        timeout_ms: ATTEMPT_MS,
        ..TcpSpec::new(SocketAddr::new(ip, port).to_string())
    };
    let replies = from.tcp(&spec).await.ok()?;
    Tried::of(replies.first()?.error.as_ref())
}

/// The TCP ports that a pod's containers declare; the probe's own default if none.
pub(super) fn tcp_ports(pod: &Pod) -> Vec<u16> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|port| u16::try_from(port.container_port).ok());
    let ports: Vec<_> = ports.collect();
    if ports.is_empty() { vec![8080] } else { ports }
}
