//! The cluster as policies see it: pods with an address of their own, and namespaces' labels.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use crate::topology::IpFamily;

type Labels = BTreeMap<String, String>;

/// A pod.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) node: String,
    /// Its address of the family that is looked at.
    pub(super) ip: IpAddr,
    ports: Vec<Port>,
}

/// A port that a container has a name for.
#[derive(Debug)]
struct Port {
    name: String,
    protocol: String,
    number: i32,
}

impl Endpoint {
    /// A pod that has an address of its own now: one on its node's network is the node, and one that
    /// has ended may have left its address to another.
    fn of(pod: &Pod, family: IpFamily) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ended || spec.host_network == Some(true) {
            return None;
        }
        let more = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
        let ips = status.pod_ip.iter().chain(more);
        let containers = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        Some(Self {
            namespace: pod.namespace()?,
            name: pod.name_any(),
            labels: pod.labels().clone(),
            node: spec.node_name.clone()?,
            ip: ips
                .filter_map(|ip| ip.parse().ok())
                .find(|ip| IpFamily::of(*ip) == family)?,
            ports: ports
                .filter_map(|port| {
                    Some(Port {
                        name: port.name.clone()?,
                        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                        number: port.container_port,
                    })
                })
                .collect(),
        })
    }

    /// The numbers of its port of this name and protocol: containers may share the name.
    pub(super) fn numbers<'a>(
        &'a self,
        name: &'a str,
        protocol: &'a str,
    ) -> impl Iterator<Item = i32> + 'a {
        let named = self
            .ports
            .iter()
            .filter(move |port| port.name == name && port.protocol == protocol);
        named.map(|port| port.number)
    }
}

/// Pods with an address of a family, in order of their names, and namespaces.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) family: IpFamily,
    pub(super) endpoints: Vec<Endpoint>,
    namespaces: BTreeMap<String, Labels>,
}

impl Cluster {
    pub(super) fn of(pods: &[Arc<Pod>], namespaces: &[Arc<Namespace>], family: IpFamily) -> Self {
        let of_family = pods.iter().filter_map(|pod| Endpoint::of(pod, family));
        let mut endpoints: Vec<_> = of_family.collect();
        endpoints.sort_by(|one, two| (&one.namespace, &one.name).cmp(&(&two.namespace, &two.name)));
        let labels =
            |namespace: &Arc<Namespace>| (namespace.name_any(), namespace.labels().clone());
        Self {
            family,
            endpoints,
            namespaces: namespaces.iter().map(labels).collect(),
        }
    }

    /// Whether the labels of a pod's namespace satisfy a selector.
    pub(super) fn in_namespace(&self, selector: &LabelSelector, endpoint: &Endpoint) -> bool {
        let labels = self.namespaces.get(&endpoint.namespace);
        labels.is_some_and(|labels| selects(selector, labels))
    }
}

/// Whether labels satisfy a selector; an empty one selects everything.
pub(super) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    // The API server refuses what cannot be read.
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}
