//! Endpoints (core/v1): what EndpointSlices replaced, kept for those who still read it.
//!
//! Start from [`run`].

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Node, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt as _};

use super::backends::{self, Backend, Port};
use super::slices::HEADLESS;
use crate::controllers::informer::Informers;
use crate::controllers::owner;
use crate::controllers::owner::forgiving;
use crate::controllers::world::{Cache, Controller, Next, Steps, World, drive};
use crate::topology::IpFamily;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

/// Runs the controller.
pub(in crate::controllers) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = Legacy {
        services: world.watch(),
        pods: world.watch(),
        endpoints: world.watch(),
        client,
    };
    drive(world, controller).await;
}

struct Legacy {
    client: Client,
    services: Cache<Service>,
    pods: Cache<Pod>,
    endpoints: Cache<Endpoints>,
}

impl Controller for Legacy {
    async fn reconcile(&mut self, namespace: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        let api = Api::<Endpoints>::namespaced(self.client.clone(), namespace);
        let pods = self.pods.of(namespace);
        for service in self.services.of(namespace) {
            if backends::selector(&service).is_none()
                || service.metadata.deletion_timestamp.is_some()
            {
                continue;
            }
            let wanted = wanted(&service, &pods, &[]);
            match self.endpoints.get(namespace, &service.name_any()) {
                None => {
                    let made = owner::create(&api, &self.endpoints, &wanted).await;
                    steps.take(made.map(drop).or_else(forgiving));
                }
                Some(found) if found.metadata.deletion_timestamp.is_some() => {}
                Some(found) => {
                    let mut changed = (*found).clone();
                    changed.metadata.labels = wanted.metadata.labels;
                    changed.subsets = wanted.subsets;
                    if changed != *found {
                        steps.take(owner::replace(&api, &self.endpoints, &changed).await);
                    }
                }
            }
        }
        for found in self.endpoints.of(namespace) {
            let owned = found.labels().get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER);
            let service = self.services.get(namespace, &found.name_any());
            if owned && service.is_none() {
                steps.take(owner::delete(&api, &self.endpoints, &*found).await);
            }
        }
        steps.end(Next::Change)
    }
}

/// The Endpoints of a Service, of its first family: they have no place for another. Pods that are ending are not in it, and those that are not ready are
/// apart.
pub(super) fn wanted(service: &Service, pods: &[Arc<Pod>], nodes: &[Arc<Node>]) -> Endpoints {
    let publish = service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        == Some(true);
    let mut subsets = Vec::new();
    let first = backends::families(service).first().copied();
    let family = first.unwrap_or(IpFamily::V4);
    for (ports, backends) in backends::of(service, pods, nodes, family) {
        let mut ready = Vec::new();
        let mut waiting = Vec::new();
        for backend in backends {
            if backend.terminating && !publish {
                continue;
            }
            let list = if backend.ready {
                &mut ready
            } else {
                &mut waiting
            };
            list.push(address(backend));
        }
        if ready.is_empty() && waiting.is_empty() {
            continue;
        }
        let some = |mut list: Vec<EndpointAddress>| {
            list.sort_by(|one, two| one.ip.cmp(&two.ip));
            Some(list).filter(|list| !list.is_empty())
        };
        subsets.push(EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(waiting),
            ports: Some(ports.into_iter().map(port).collect())
                .filter(|ports: &Vec<_>| !ports.is_empty()),
        });
    }
    let mut labels = service.labels().clone();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if backends::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.namespace(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets).filter(|subsets| !subsets.is_empty()),
    }
}

fn address(backend: Backend) -> EndpointAddress {
    EndpointAddress {
        ip: backend.address,
        hostname: backend.hostname,
        node_name: backend.node,
        target_ref: Some(backend.pod),
    }
}

fn port(port: Port) -> EndpointPort {
    EndpointPort {
        app_protocol: port.application,
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.number,
        protocol: Some(port.protocol),
    }
}
