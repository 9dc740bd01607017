//! Services, and the endpoints behind their ports.
//!
//! Start from [`Services`]. Proxies of layer 7 send to endpoints, never to a ClusterIP: a second
//! choice of endpoint behind theirs would undo weights, retries and affinity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use crate::topology::IpFamily;

use super::envoy::cluster::{Cluster, Endpoint, Protocol};
use super::locality::Locality;

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
    pods: BTreeMap<(String, String), Arc<Pod>>,
    nodes: BTreeMap<String, Locality>,
}

/// The label of pods whose sidecar takes Istio's mutual TLS.
pub(crate) const TLS_MODE: &str = "security.istio.io/tlsMode";

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

    /// The same, with the pods: who is in the mesh, and whose labels make a subset.
    pub(crate) fn with_pods(mut self, pods: impl IntoIterator<Item = Arc<Pod>>) -> Self {
        let key = |pod: &Pod| (pod.namespace().unwrap_or_default(), pod.name_any());
        self.pods = pods.into_iter().map(|pod| (key(&pod), pod)).collect();
        self
    }

    /// The same, with the nodes that say where they are.
    pub(crate) fn with_nodes(mut self, nodes: impl IntoIterator<Item = Arc<Node>>) -> Self {
        let nodes = nodes.into_iter();
        let known = |node: Arc<Node>| Some((node.name_any(), Locality::of_node(node.as_ref())?));
        self.nodes = nodes.filter_map(known).collect();
        self
    }

    /// Where a pod is: what itself says before what its node does.
    pub(crate) fn locality(&self, pod: Option<&Pod>, node: Option<&str>) -> Locality {
        let own = pod.and_then(|pod| Locality::of_pod(pod.labels()));
        let of_node = || self.nodes.get(node?).cloned();
        own.or_else(of_node).unwrap_or_default()
    }

    /// Whether both are made of the same objects, and of the same of pods, which are read for their
    /// labels and accounts only: of what becomes of pods, EndpointSlices tell.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.services.keys().eq(other.services.keys())
            && same_objects(self.services.values(), other.services.values())
            && same_objects(
                self.slices.values().flatten(),
                other.slices.values().flatten(),
            )
            && self.nodes == other.nodes
            && self.pods.keys().eq(other.pods.keys())
            && (self.pods.values().zip(other.pods.values())).all(|(one, two)| alike(one, two))
    }

    /// The EndpointSlices of a Service.
    pub(crate) fn slices(&self, (namespace, name): (&str, &str)) -> &[Arc<EndpointSlice>] {
        let key = (namespace.to_owned(), name.to_owned());
        self.slices.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The pods behind a Service's endpoints, ready or not.
    pub(crate) fn pods_behind(&self, service: (&str, &str)) -> Vec<Arc<Pod>> {
        let slices = self.slices(service).iter();
        let endpoints = slices.flat_map(|slice| &slice.endpoints);
        let pods = endpoints.filter_map(|endpoint| self.pod_of(service.0, endpoint));
        pods.cloned().collect()
    }

    /// The nodes that say where they are.
    pub(crate) const fn places(&self) -> &BTreeMap<String, Locality> {
        &self.nodes
    }

    /// The Service of a name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services
            .get(&(namespace.to_owned(), name.to_owned()))
            .map(AsRef::as_ref)
    }

    /// Every Service, by namespace and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Arc<Service>)> {
        let services = self.services.iter();
        services.map(|((namespace, name), service)| (namespace.as_str(), name.as_str(), service))
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
        self.endpoints_where(namespace, name, port, |_| true).0
    }

    /// The same of the pods that `keep` keeps, and the pods themselves.
    pub(crate) fn endpoints_where(
        &self,
        namespace: &str,
        name: &str,
        port: &ServicePort,
        keep: impl Fn(Option<&Pod>) -> bool,
    ) -> (Vec<Endpoint>, Vec<&Pod>) {
        let key = (namespace.to_owned(), name.to_owned());
        let spec = self
            .find(namespace, name)
            .and_then(|found| found.spec.as_ref());
        let families = spec.and_then(|spec| spec.ip_families.as_ref());
        let first = families.and_then(|families| families.first());
        let family = first.map_or(IpFamily::V4.name(), String::as_str);
        let mut found = BTreeSet::new();
        let mut behind = Vec::new();
        for slice in self.slices.get(&key).into_iter().flatten() {
            // One address of each endpoint, or pods would be chosen twice as often that have two.
            if slice.address_type != family {
                continue;
            }
            let wanted = port.name.as_deref().unwrap_or_default();
            let numbers: Vec<u16> = slice
                .ports
                .iter()
                .flatten()
                .filter(|candidate| candidate.name.as_deref().unwrap_or_default() == wanted)
                .filter_map(|candidate| u16::try_from(candidate.port?).ok())
                .collect();
            for endpoint in slice.endpoints.iter().filter(|endpoint| is_ready(endpoint)) {
                let pod = self.pod_of(namespace, endpoint).map(AsRef::as_ref);
                if !keep(pod) {
                    continue;
                }
                behind.extend(pod);
                let mesh = pod.is_some_and(|pod| {
                    pod.labels()
                        .get(TLS_MODE)
                        .is_some_and(|mode| mode == "istio")
                });
                for (address, number) in endpoint
                    .addresses
                    .iter()
                    .flat_map(|a| numbers.iter().map(move |n| (a, *n)))
                {
                    found.insert(Endpoint {
                        address: address.clone(),
                        port: number,
                        mesh,
                        locality: self.locality(pod, endpoint.node_name.as_deref()),
                    });
                }
            }
        }
        (found.into_iter().collect(), behind)
    }

    fn pod_of(
        &self,
        namespace: &str,
        endpoint: &k8s_openapi::api::discovery::v1::Endpoint,
    ) -> Option<&Arc<Pod>> {
        let target = endpoint.target_ref.as_ref()?;
        let namespace = target.namespace.as_deref().unwrap_or(namespace);
        self.pods.get(&(namespace.to_owned(), target.name.clone()?))
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

/// Whether as much of two pods is the same as is read: their labels and accounts. Of what becomes of pods,
/// EndpointSlices tell.
pub(crate) fn alike(one: &Arc<Pod>, two: &Arc<Pod>) -> bool {
    let account = |pod: &Pod| pod.spec.as_ref()?.service_account_name.clone();
    Arc::ptr_eq(one, two)
        || one.metadata.name == two.metadata.name
            && one.metadata.namespace == two.metadata.namespace
            && one.labels() == two.labels()
            && account(one) == account(two)
}

/// Whether two stores' objects are the very same, in the same order: what did not change is not copied.
pub(crate) fn same_objects<'a, K: 'a>(
    one: impl IntoIterator<Item = &'a Arc<K>>,
    two: impl IntoIterator<Item = &'a Arc<K>>,
) -> bool {
    let (one, two) = (one.into_iter(), two.into_iter());
    one.map(Arc::as_ptr).eq(two.map(Arc::as_ptr))
}

/// Absent conditions mean ready (discovery.k8s.io/v1, `EndpointConditions.ready`).
fn is_ready(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}

/// The name of a cluster, as Envoy's statistics show it.
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::shared;

    #[test]
    fn what_is_read_of_a_pod_makes_a_difference_and_its_state_does_not() {
        let pod = |name: &str, account: &str, version: &str, phase: &str| {
            shared::<Pod>(json!({
                "metadata": { "name": name, "namespace": "ns", "labels": { "version": version } },
                "spec": { "containers": [], "serviceAccountName": account },
                "status": { "phase": phase },
            }))
        };
        let service =
            shared::<Service>(json!({ "metadata": { "name": "web", "namespace": "ns" } }));
        let slice = |address: &str| {
            shared::<EndpointSlice>(json!({
                "metadata": { "namespace": "ns", "labels": { SERVICE_NAME: "web" } },
                "addressType": "IPv4", "endpoints": [{ "addresses": [address] }],
            }))
        };
        let (one, two) = (slice("10.244.1.2"), slice("10.244.1.3"));
        let of = |slice: &Arc<EndpointSlice>, pods: Vec<Arc<Pod>>| {
            Services::new([service.clone()], [slice.clone()]).with_pods(pods)
        };
        let before = of(&one, vec![pod("a", "web", "v1", "Pending")]);
        assert!(before.same(&of(&one, vec![pod("a", "web", "v1", "Running")])));
        for (what, after) in [
            ("label", of(&one, vec![pod("a", "web", "v2", "Pending")])),
            ("account", of(&one, vec![pod("a", "else", "v1", "Pending")])),
            ("name", of(&one, vec![pod("b", "web", "v1", "Pending")])),
            ("none", of(&one, vec![])),
            ("slice", of(&two, vec![pod("a", "web", "v1", "Pending")])),
        ] {
            assert!(!before.same(&after), "{what}");
        }
    }
}
