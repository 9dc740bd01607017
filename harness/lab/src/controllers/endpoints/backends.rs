//! Which pods are behind a Service, on which ports, and in which state.
//!
//! Start from [`of`], a pure function that follows Kubernetes' `endpointslice` reconciler.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use crate::controllers::pods::{is_ready, is_terminal, node_of};
use crate::event::reference;
use crate::topology::IpFamily;

/// A port of a Service, as one pod serves it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) number: i32,
    pub(super) protocol: String,
    pub(super) application: Option<String>,
}

/// A pod behind a Service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Backend {
    pub(super) address: String,
    pub(super) node: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) pod: ObjectReference,
    /// It takes new connections.
    pub(super) ready: bool,
    /// It answers, even if it is ending.
    pub(super) serving: bool,
    pub(super) terminating: bool,
}

/// A Service's selector, if it has one that a controller is to follow.
pub(super) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector
        .as_ref()
        .filter(|selector| !selector.is_empty() && !external)
}

/// Whether a Service has no address of its own.
pub(super) fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The families of a Service's endpoints, its own first choice first.
pub(super) fn families(service: &Service) -> Vec<IpFamily> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|spec| spec.ip_families.as_ref());
    let families = families.into_iter().flatten();
    families.filter_map(|family| family.parse().ok()).collect()
}

/// The pods behind a Service with an address of a family, by the ports that they serve it on. Pods may differ in those, since a
/// `targetPort` can be a name.
pub(super) fn of(
    service: &Service,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    family: IpFamily,
) -> BTreeMap<Vec<Port>, Vec<Backend>> {
    let mut found: BTreeMap<Vec<Port>, Vec<Backend>> = BTreeMap::new();
    let (Some(selector), Some(spec)) = (selector(service), &service.spec) else {
        return found;
    };
    let publish = spec.publish_not_ready_addresses == Some(true);
    for pod in pods {
        let labels = pod.labels();
        let selected = selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        if !selected || is_terminal(pod) {
            continue;
        }
        let Some(address) = address(pod, family) else {
            continue;
        };
        let node = node_of(pod).map(str::to_owned);
        let zone = nodes
            .iter()
            .find(|found| found.metadata.name == node)
            .and_then(|node| node.labels().get("topology.kubernetes.io/zone").cloned());
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let serving = is_ready(pod);
        let mut reference = reference(&**pod);
        // Part of an endpoint's identity they are not, and would change it all the time.
        reference.resource_version = None;
        reference.api_version = None;
        let backend = Backend {
            address,
            node,
            zone,
            hostname: hostname(service, pod),
            pod: reference,
            ready: publish || (serving && !terminating),
            serving,
            terminating,
        };
        let ports = spec.ports.iter().flatten();
        let mut ports: Vec<Port> = ports.filter_map(|port| resolve(port, pod)).collect();
        ports.sort();
        found.entry(ports).or_default().push(backend);
    }
    found
}

/// A pod's address of a family.
fn address(pod: &Pod, family: IpFamily) -> Option<String> {
    let status = pod.status.as_ref()?;
    let first = status.pod_ip.iter().filter(|_| status.pod_ips.is_none());
    let mut all = first.chain(status.pod_ips.iter().flatten().map(|one| &one.ip));
    let is_of_family = |ip: &&String| ip.parse().is_ok_and(|ip| IpFamily::of(ip) == family);
    all.find(is_of_family).cloned()
}

/// A pod's name in DNS below its governing Service.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let governed = spec.subdomain.as_deref() == Some(&service.name_any());
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty());
    hostname.filter(|_| governed)
}

/// A Service's port on a pod; none where the pod has no port of that name.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            // An init container that restarts is a sidecar, and serves.
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
            let mut ports = spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| container.ports.iter().flatten());
            let found = ports.find(|found| {
                found.name.as_ref() == Some(name)
                    && found.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            found?.container_port
        }
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        number,
        protocol,
        application: port.app_protocol.clone(),
    })
}
