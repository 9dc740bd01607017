//! Why a Service of type LoadBalancer has no address.
//!
//! Start from [`cause`]. Who should give one is told by the Service's class, its events, and what the
//! nodes say of the distribution.

use k8s_openapi::api::core::v1::{Event, Node, Service};
use kube::ResourceExt as _;

use super::judge::missing;
use crate::layer::workload::{sentence, warning};
use crate::verdict::cause::{Cause, CauseKind, Object};

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Seen {
    /// Where the Service should be.
    pub(in crate::layer) namespace: String,
    /// What it should be called.
    pub(in crate::layer) name: String,
    /// Every Service of the cluster.
    pub(in crate::layer) services: Vec<Service>,
    /// The events of the namespace.
    pub(in crate::layer) events: Vec<Event>,
    /// The nodes.
    pub(in crate::layer) nodes: Vec<Node>,
}

fn class(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.load_balancer_class.as_deref()
}

fn is_balancer(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
}

fn addressed(service: &Service) -> bool {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    balancer.is_some_and(|balancer| balancer.ingress.iter().flatten().next().is_some())
}

/// The cause, if evidence names one.
pub(in crate::layer) fn cause(seen: &Seen) -> Option<Cause> {
    let object = Object::new("Service", &seen.namespace, &seen.name);
    let service = seen.services.iter().find(|service| {
        service.namespace().as_deref() == Some(&seen.namespace) && service.name_any() == seen.name
    });
    let Some(service) = service else {
        return Some(missing(&seen.namespace, &seen.name, &seen.services));
    };
    if !is_balancer(service) {
        let spec = service.spec.as_ref();
        let is = spec
            .and_then(|spec| spec.type_.as_deref())
            .unwrap_or("ClusterIP");
        return Some(Cause {
            kind: CauseKind::ServiceType,
            wrong: format!(
                "{object} is of type {is}, so nobody gives it an address of a load balancer"
            ),
            change: format!("set spec.type of {object} to LoadBalancer"),
            see: object.see(),
        });
    }
    if addressed(service) {
        return None;
    }
    if let Some((reason, message)) = warning(&seen.events, "Service", &seen.name, &[]) {
        return Some(Cause {
            kind: CauseKind::LoadBalancerRefused,
            wrong: sentence(&format!("{object} gets no address: {reason}"), message),
            change: format!("what the message names: the pool of addresses, or spec of {object}"),
            see: object.describe(),
        });
    }
    let (why, change) = pending(seen, service, &object);
    Some(Cause {
        kind: CauseKind::LoadBalancerPending,
        wrong: format!("{object} stays <pending>: {why}"),
        change,
        see: format!("kubectl -n {} get service {}", seen.namespace, seen.name),
    })
}

fn pending(seen: &Seen, service: &Service, object: &Object<'_>) -> (String, String) {
    if let Some(class) = class(service) {
        let served = |other: &&Service| is_balancer(other) && addressed(other);
        let others = seen
            .services
            .iter()
            .filter(served)
            .any(|other| self::class(other).is_none());
        let others = if others {
            "; Services without a class get one"
        } else {
            ""
        };
        return (
            format!("nobody implements its spec.loadBalancerClass {class}{others}"),
            format!(
                "install the implementation of {class}, or make {object} anew without the class"
            ),
        );
    }
    let minikube = |node: &Node| {
        node.labels()
            .keys()
            .any(|key| key.starts_with("minikube.k8s.io/"))
    };
    let kind = |node: &Node| {
        let id = node
            .spec
            .as_ref()
            .and_then(|spec| spec.provider_id.as_deref());
        id.is_some_and(|id| id.starts_with("kind://"))
    };
    let (why, change) = if seen.nodes.iter().any(minikube) {
        (
            "this is minikube, and minikube tunnel is not running",
            "run minikube tunnel, and leave it running",
        )
    } else if seen.nodes.iter().any(kind) {
        (
            "this is kind, which has no load balancer of its own",
            "run cloud-provider-kind, or install MetalLB",
        )
    } else {
        (
            "the cluster has no implementation of LoadBalancer that takes it",
            "install one (MetalLB, or the cloud provider's controller)",
        )
    };
    (why.to_owned(), change.to_owned())
}
