//! Why a Service is not reached.
//!
//! Start from [`cause`]. The object comes first, then its pods, then its endpoints, and only where
//! all of these are right the node that should have programmed it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::traffic;
use crate::layer::labels::{self, Labels};
use crate::layer::tried::Tried;
use crate::layer::workload;
use crate::settings::nearest;
use crate::verdict::cause::{Cause, CauseKind, Object, did_you_mean};

/// What was seen of a Service.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Seen {
    /// Where it should be.
    pub(in crate::layer) namespace: String,
    /// What it should be called.
    pub(in crate::layer) name: String,
    /// The port that was asked for, if one was.
    pub(in crate::layer) port: Option<u16>,
    /// Every Service of the cluster.
    pub(in crate::layer) services: Vec<Service>,
    /// The EndpointSlices of the Service.
    pub(in crate::layer) slices: Vec<EndpointSlice>,
    /// The pods of its namespace, and what explains them; its selector is not looked at.
    pub(in crate::layer) workload: workload::Seen,
    /// Who tried, and from which node.
    pub(in crate::layer) from: Vantage,
    /// The same attempt at the ClusterIP from a pod of another node.
    pub(in crate::layer) elsewhere: Option<(String, Tried)>,
    /// The ClusterIP that was tried: of two, the one that failed.
    pub(in crate::layer) cluster_ip: Option<IpAddr>,
    /// Attempts at it: port, what came of it.
    pub(in crate::layer) at_cluster_ip: Vec<(u16, Tried)>,
    /// Attempts at each endpoint's own address.
    pub(in crate::layer) direct: Vec<Direct>,
    /// Attempts from outside at the node port: node, port, what came of it.
    pub(in crate::layer) at_nodes: Vec<(String, u16, Tried)>,
}

/// Who tried.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Vantage {
    /// As people call it.
    pub(in crate::layer) name: String,
    /// Nothing if it is outside the cluster.
    pub(in crate::layer) node: Option<String>,
}

/// An attempt at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::layer) struct Direct {
    /// The pod, by name.
    pub(in crate::layer) pod: String,
    /// `ADDRESS:PORT`.
    pub(in crate::layer) at: String,
    /// What came of it.
    pub(in crate::layer) tried: Tried,
}

impl Seen {
    /// The Service, if it is there.
    pub(in crate::layer) fn service(&self) -> Option<&Service> {
        self.services.iter().find(|service| {
            service.namespace().as_deref() == Some(&self.namespace)
                && service.name_any() == self.name
        })
    }

    /// Its pods that are not being deleted.
    pub(in crate::layer) fn pods(&self) -> Vec<&Pod> {
        let selector = self.service().map(selector).unwrap_or_default();
        if selector.is_empty() {
            return Vec::new();
        }
        let mut pods = labels::selected(&selector, &self.workload.pods);
        pods.retain(|pod| !workload::leaving(pod));
        pods
    }
}

/// The cause, if evidence names one.
pub(in crate::layer) fn cause(seen: &Seen) -> Option<Cause> {
    let Some(service) = seen.service() else {
        return Some(missing(&seen.namespace, &seen.name, &seen.services));
    };
    external(seen, service)
        .or_else(|| port(seen, service))
        .or_else(|| selection(seen, service))
        .or_else(|| pods(seen, service))
        .or_else(|| named_port(seen, service))
        .or_else(|| endpoints(seen, service))
        .or_else(|| target_port(seen, service))
        .or_else(|| traffic::local(seen, service))
        .or_else(|| traffic::programmed(seen))
}

/// There is no such Service; the nearest name, or the namespace that has it.
pub(in crate::layer) fn missing(namespace: &str, name: &str, services: &[Service]) -> Cause {
    let object = Object::new("Service", namespace, name);
    let near = near_service(namespace, name, services);
    let elsewhere = services.iter().find(|service| service.name_any() == name);
    let hint = match (&near, elsewhere) {
        (None, Some(other)) => format!(
            "; namespace {} has one of that name",
            other.namespace().unwrap_or_default()
        ),
        _ => did_you_mean(near.as_deref()),
    };
    Cause {
        kind: CauseKind::ServiceMissing,
        wrong: format!("there is no {object}{hint}"),
        change: format!("create {object}, or correct the name that is asked for"),
        see: format!("kubectl -n {namespace} get services"),
    }
}

/// The Service of a namespace whose name is nearest.
pub(in crate::layer) fn near_service(
    namespace: &str,
    name: &str,
    services: &[Service],
) -> Option<String> {
    let here: Vec<_> = services
        .iter()
        .filter(|service| service.namespace().as_deref() == Some(namespace))
        .map(ResourceExt::name_any)
        .collect();
    nearest(name, here.iter().map(String::as_str)).map(ToOwned::to_owned)
}

fn spec_type(service: &Service) -> &str {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref())
        .unwrap_or("ClusterIP")
}

/// The selector of a Service; empty if it has none.
pub(in crate::layer) fn selector(service: &Service) -> Labels {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.selector.clone())
        .unwrap_or_default()
}

/// The ports of a Service.
pub(in crate::layer) fn ports(service: &Service) -> &[ServicePort] {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default()
}

/// The ports of a Service, in words: `80 (http), 443`.
pub(in crate::layer) fn said_ports(service: &Service) -> String {
    let said: Vec<_> = ports(service)
        .iter()
        .map(|port| match &port.name {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    said.join(", ")
}

pub(super) fn object(seen: &Seen) -> Object<'_> {
    Object::new("Service", &seen.namespace, &seen.name)
}

fn external(seen: &Seen, service: &Service) -> Option<Cause> {
    (spec_type(service) == "ExternalName").then(|| {
        let object = object(seen);
        let spec = service.spec.as_ref();
        let to = spec
            .and_then(|spec| spec.external_name.as_deref())
            .unwrap_or("nothing");
        Cause {
            kind: CauseKind::ServiceType,
            wrong: format!(
                "{object} is of type ExternalName, a DNS alias of {to}: it has no ClusterIP and no \
                 endpoints"
            ),
            change: format!("set spec.type of {object} to ClusterIP and give it a spec.selector"),
            see: object.see(),
        }
    })
}

fn port(seen: &Seen, service: &Service) -> Option<Cause> {
    let asked = seen.port?;
    let known = |port: &ServicePort| {
        // Whoever asks a node asks for the node port.
        port.port == i32::from(asked) || port.node_port == Some(i32::from(asked))
    };
    if ports(service).iter().any(known) {
        return None;
    }
    let object = object(seen);
    let numbers: Vec<_> = ports(service)
        .iter()
        .map(|port| port.port.to_string())
        .collect();
    let near = match numbers.as_slice() {
        [only] => Some(only.as_str()),
        all => nearest(&asked.to_string(), all.iter().map(String::as_str)),
    };
    Some(Cause {
        kind: CauseKind::ServicePortMissing,
        wrong: format!(
            "{object} has no port {asked}, it has {}{}",
            said_ports(service),
            did_you_mean(near)
        ),
        change: format!("the port that is asked for, or spec.ports[].port of {object}"),
        see: object.see(),
    })
}

fn selection(seen: &Seen, service: &Service) -> Option<Cause> {
    let object = object(seen);
    let selector = selector(service);
    if selector.is_empty() {
        return addresses(seen).is_empty().then(|| Cause {
            kind: CauseKind::EndpointsNotMade,
            wrong: format!(
                "{object} has no spec.selector, and no EndpointSlice has addresses for it"
            ),
            change: format!(
                "give {object} a spec.selector, or make an EndpointSlice labelled \
                 kubernetes.io/service-name={}",
                seen.name
            ),
            see: object.describe(),
        });
    }
    if !seen.pods().is_empty() {
        return None;
    }
    let all: Vec<_> = seen.workload.pods.iter().map(ResourceExt::labels).collect();
    // Without a miss the pods are not there at all, or going: that is their workload's matter.
    let Some(miss) = labels::miss(&selector, &seen.name, &all) else {
        return workload(seen, &selector);
    };
    // So it is where a workload would make such pods.
    if let Some(cause) = workload(seen, &selector)
        && cause.kind != CauseKind::NoPods
    {
        return Some(cause);
    }
    let field = format!("spec.selector.{}", miss.key);
    let change = match (&miss.near_key, &miss.near_value) {
        (Some(key), _) => format!("rename {field} of {object} to spec.selector.{key}"),
        (None, Some(value)) => format!("set {field} of {object} to {value}"),
        (None, None) => format!("{field} of {object}, or the label {} of its pods", miss.key),
    };
    Some(Cause {
        kind: CauseKind::SelectorMatchesNothing,
        wrong: format!(
            "{object} selects no pod: {field} is {}, and {}{}",
            miss.value,
            miss.instead(),
            did_you_mean(miss.near_value.as_deref().or(miss.near_key.as_deref()))
        ),
        change,
        see: format!("kubectl -n {} get pods --show-labels", seen.namespace),
    })
}

fn workload(seen: &Seen, selector: &Labels) -> Option<Cause> {
    workload::cause(&workload::Seen {
        selector: selector.clone(),
        ..seen.workload.clone()
    })
}

/// Pods are selected, and none is ready.
fn pods(seen: &Seen, service: &Service) -> Option<Cause> {
    let pods = seen.pods();
    if pods.is_empty() || pods.iter().any(|pod| workload::ready(pod)) {
        return None;
    }
    workload(seen, &selector(service))
}

/// A target port by a name that no container has.
fn named_port(seen: &Seen, service: &Service) -> Option<Cause> {
    let pods = seen.pods();
    let object = object(seen);
    asked_ports(seen, service).into_iter().find_map(|port| {
        let Some(IntOrString::String(name)) = &port.target_port else {
            return None;
        };
        let pod = pods.first()?;
        let names = |pod: &Pod| -> BTreeSet<String> {
            declared(pod).filter_map(|(_, name)| name).collect()
        };
        if pods.iter().any(|pod| names(pod).contains(name)) {
            return None;
        }
        let has = names(pod);
        let near = nearest(name, has.iter().map(String::as_str));
        let numbers: Vec<_> = declared(pod)
            .map(|(port, name)| {
                name.map_or_else(|| port.to_string(), |name| format!("{port} ({name})"))
            })
            .collect();
        let numbers = if numbers.is_empty() {
            "none".to_owned()
        } else {
            numbers.join(", ")
        };
        Some(Cause {
            kind: CauseKind::NamedPortMissing,
            wrong: format!(
                "{object} sends port {} to targetPort {name}, a name that no container port of its \
                 pods has (pod {} has {numbers}){}",
                port.port,
                pod.name_any(),
                did_you_mean(near)
            ),
            change: format!(
                "spec.ports[].targetPort of {object}, or ports[].name of the containers"
            ),
            see: object.see(),
        })
    })
}

/// Container ports: number and name.
fn declared(pod: &Pod) -> impl Iterator<Item = (i32, Option<String>)> + '_ {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| (port.container_port, port.name.clone()))
}

/// The port that was asked for, or all of them.
fn asked_ports<'a>(seen: &Seen, service: &'a Service) -> Vec<&'a ServicePort> {
    let asked = |port: &&ServicePort| {
        seen.port.is_none_or(|asked| {
            let asked = i32::from(asked);
            port.port == asked || port.node_port == Some(asked)
        })
    };
    ports(service).iter().filter(asked).collect()
}

/// Addresses of the slices that are ready: absent conditions mean ready.
fn addresses(seen: &Seen) -> BTreeSet<String> {
    let endpoints = seen.slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints
        .filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready) != Some(false)
        })
        .flat_map(|endpoint| endpoint.addresses.clone())
        .collect()
}

/// The slices list other addresses than the ready pods have.
fn endpoints(seen: &Seen, service: &Service) -> Option<Cause> {
    let spec = service.spec.as_ref()?;
    if selector(service).is_empty() || spec.publish_not_ready_addresses == Some(true) {
        return None;
    }
    let ready = seen.pods().into_iter().filter(|pod| workload::ready(pod));
    let pods: BTreeSet<String> = ready.flat_map(|pod| ips(pod, service)).collect();
    let listed = addresses(seen);
    // Nobody says which family a Service of old is of.
    let of_family = |ip: &String| spec.ip_families.is_some() || same_family(ip, &pods);
    let listed: BTreeSet<_> = listed.into_iter().filter(of_family).collect();
    let absent: Vec<_> = pods.difference(&listed).cloned().collect();
    let extra: Vec<_> = listed.difference(&pods).cloned().collect();
    if absent.is_empty() && extra.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    if !absent.is_empty() {
        parts.push(format!("lack {} of ready pods", absent.join(", ")));
    }
    if !extra.is_empty() {
        parts.push(format!("list {}, which no ready pod has", extra.join(", ")));
    }
    let object = object(seen);
    Some(Cause {
        kind: CauseKind::EndpointsDiffer,
        wrong: format!("the EndpointSlices of {object} {}", parts.join(" and ")),
        change:
            "nothing in the Service: the EndpointSlice controller does not follow the pods; see \
                 that kube-controller-manager runs"
                .into(),
        see: format!(
            "kubectl -n {} get endpointslices -l kubernetes.io/service-name={} -o yaml",
            seen.namespace, seen.name
        ),
    })
}

/// A pod's addresses of a Service's families.
fn ips(pod: &Pod, service: &Service) -> Vec<String> {
    let (Some(status), Some(spec)) = (&pod.status, &service.spec) else {
        return Vec::new();
    };
    let all = status.pod_ips.iter().flatten().map(|one| one.ip.clone());
    let all: Vec<_> = all.collect();
    let Some(families) = spec.ip_families.as_ref().filter(|_| !all.is_empty()) else {
        return status.pod_ip.iter().cloned().collect();
    };
    let family = |ip: &String| if ip.contains(':') { "IPv6" } else { "IPv4" };
    let wanted = |ip: &String| families.iter().any(|one| one == family(ip));
    all.into_iter().filter(wanted).collect()
}

fn same_family(ip: &str, pods: &BTreeSet<String>) -> bool {
    pods.is_empty() || pods.iter().any(|pod| pod.contains(':') == ip.contains(':'))
}

/// Every endpoint refuses the target port: nothing listens there.
fn target_port(seen: &Seen, service: &Service) -> Option<Cause> {
    let first = seen.direct.first()?;
    if seen
        .direct
        .iter()
        .any(|direct| direct.tried != Tried::Refused)
    {
        return None;
    }
    let target = first.at.rsplit_once(':')?.1;
    let port = asked_ports(seen, service)
        .into_iter()
        .find(|port| match &port.target_port {
            Some(IntOrString::Int(number)) => number.to_string() == target,
            Some(IntOrString::String(_)) => true,
            None => port.port.to_string() == target,
        })?;
    let pods = seen.pods();
    let has: BTreeSet<_> = pods
        .iter()
        .flat_map(|pod| declared(pod))
        .map(|(port, _)| port)
        .collect();
    let has: Vec<_> = has
        .iter()
        .map(ToString::to_string)
        .filter(|port| port != target)
        .collect();
    let near = match has.as_slice() {
        [] => String::new(),
        [only] => did_you_mean(Some(only)),
        all => format!("; its containers declare {}", all.join(", ")),
    };
    let object = object(seen);
    Some(Cause {
        kind: CauseKind::TargetPortRefused,
        wrong: format!(
            "{object} sends port {} to targetPort {target}, where nothing listens: {} is refused{near}",
            port.port, first.at
        ),
        change: format!("spec.ports[].targetPort of {object}"),
        see: object.see(),
    })
}
