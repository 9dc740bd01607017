//! Services, and the endpoints behind their ports.
//!
//! Start from [`Services`]. Proxies of layer 7 send to endpoints, never to a ClusterIP: a second
//! choice of endpoint behind theirs would undo weights, retries and affinity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::envoy::cluster::{Cluster, Endpoint, Protocol};

/// Which port of a Service is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortRef {
    /// By name.
    Name(String),
    /// By number.
    Number(i32),
}

/// The label with which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The Services of the cluster and their endpoints, as they were at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    services: BTreeMap<(String, String), Arc<Service>>,
    slices: BTreeMap<(String, String), Vec<Arc<EndpointSlice>>>,
    /// Pods whose sidecar takes mutual TLS, by namespace and name.
    mesh: BTreeSet<(String, String)>,
}

impl Services {
    /// From the objects that a watch has seen.
    pub(crate) fn new(
        services: impl IntoIterator<Item = Arc<Service>>,
        slices: impl IntoIterator<Item = Arc<EndpointSlice>>,
    ) -> Self {
        let key = |object: &Service| (object.namespace().unwrap_or_default(), object.name_any());
        let mut index = Self {
            services: services
                .into_iter()
                .map(|service| (key(&service), service))
                .collect(),
            ..Self::default()
        };
        for slice in slices {
            let Some(service) = slice.labels().get(SERVICE_NAME).cloned() else {
                continue;
            };
            index
                .slices
                .entry((slice.namespace().unwrap_or_default(), service))
                .or_default()
                .push(slice);
        }
        index
    }

    /// The same, with the pods that have a sidecar.
    pub(crate) fn with_mesh(mut self, mesh: BTreeSet<(String, String)>) -> Self {
        self.mesh = mesh;
        self
    }

    /// The Service of a name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services
            .get(&(namespace.to_owned(), name.to_owned()))
            .map(AsRef::as_ref)
    }

    /// Every Service, by namespace and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Service)> {
        self.services.iter().map(|((namespace, name), service)| {
            (namespace.as_str(), name.as_str(), service.as_ref())
        })
    }

    /// A port of a Service.
    pub(crate) fn port<'a>(service: &'a Service, port: &PortRef) -> Option<&'a ServicePort> {
        let ports = service.spec.as_ref()?.ports.as_ref()?;
        ports.iter().find(|candidate| match port {
            PortRef::Name(name) => candidate.name.as_ref() == Some(name),
            PortRef::Number(number) => candidate.port == *number,
        })
    }

    /// The ready endpoints behind a port of a Service, in order and without repetition. A Service
    /// publishes endpoints by its port's name; which port they listen on may differ between them.
    pub(crate) fn endpoints(
        &self,
        namespace: &str,
        name: &str,
        port: &ServicePort,
    ) -> Vec<Endpoint> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut found = BTreeSet::new();
        for slice in self.slices.get(&key).into_iter().flatten() {
            if slice.address_type == "FQDN" {
                continue;
            }
            let wanted = port.name.as_deref().unwrap_or_default();
            let numbers = slice
                .ports
                .iter()
                .flatten()
                .filter(|candidate| candidate.name.as_deref().unwrap_or_default() == wanted)
                .filter_map(|candidate| u16::try_from(candidate.port?).ok());
            for number in numbers {
                for endpoint in slice.endpoints.iter().filter(|endpoint| is_ready(endpoint)) {
                    let mesh = endpoint.target_ref.as_ref().is_some_and(|target| {
                        let pod = (
                            target
                                .namespace
                                .clone()
                                .unwrap_or_else(|| namespace.to_owned()),
                            target.name.clone().unwrap_or_default(),
                        );
                        self.mesh.contains(&pod)
                    });
                    found.extend(endpoint.addresses.iter().map(|address| Endpoint {
                        address: address.clone(),
                        port: number,
                        mesh,
                    }));
                }
            }
        }
        found.into_iter().collect()
    }

    /// The cluster of a Service's port, or nothing if there is no such Service or port. Its name is
    /// known in either case: [`cluster_name`].
    pub(crate) fn cluster(&self, namespace: &str, name: &str, port: &PortRef) -> Option<Cluster> {
        let found = Self::port(self.find(namespace, name)?, port)?;
        Some(Cluster {
            name: cluster_name(namespace, name, port),
            endpoints: self.endpoints(namespace, name, found),
            protocol: protocol(found),
            ..Cluster::default()
        })
    }
}

/// Absent conditions mean ready (discovery.k8s.io/v1, `EndpointConditions.ready`).
fn is_ready(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}

/// The name of a cluster, as `kubectl get configmap` and Envoy's statistics show it.
pub(crate) fn cluster_name(namespace: &str, name: &str, port: &PortRef) -> String {
    match port {
        PortRef::Name(port) => format!("{namespace}/{name}/{port}"),
        PortRef::Number(port) => format!("{namespace}/{name}/{port}"),
    }
}

/// HTTP/2 by prior knowledge where the port says so (KEP-3726's `kubernetes.io/h2c`, or Istio's
/// names).
pub(crate) fn protocol(port: &ServicePort) -> Protocol {
    let prefix = port
        .name
        .as_deref()
        .unwrap_or_default()
        .split('-')
        .next()
        .unwrap_or_default();
    match port.app_protocol.as_deref().unwrap_or(prefix) {
        "kubernetes.io/h2c" | "http2" | "grpc" | "grpc-web" | "h2c" => Protocol::Http2,
        _ => Protocol::Http1,
    }
}
