//! EndpointSlices of Endpoints that people make by hand, for Services without a selector.
//!
//! Start from [`run`]; [`wanted`] decides, as a pure function, after Kubernetes'
//! `endpointslicemirroring` reconciler.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as Port, EndpointSubset, Endpoints, Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt as _};

use super::backends;
use super::slices::{MANAGED_BY, SERVICE};
use crate::controllers::informer::Informers;
use crate::controllers::owner;
use crate::controllers::owner::forgiving;
use crate::controllers::world::{Cache, Controller, Next, Steps, World, drive};
use crate::topology::IpFamily;

const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// The label of Endpoints that have slices from whoever made them.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// The annotation of Endpoints that are nobody's endpoints but a lock.
const LOCK: &str = "control-plane.alpha.kubernetes.io/leader";

/// Runs the controller.
pub(in crate::controllers) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = Mirror {
        services: world.watch(),
        endpoints: world.watch(),
        slices: world.watch(),
        client,
    };
    drive(world, controller).await;
}

struct Mirror {
    client: Client,
    services: Cache<Service>,
    endpoints: Cache<Endpoints>,
    slices: Cache<EndpointSlice>,
}

impl Controller for Mirror {
    async fn reconcile(&mut self, namespace: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), namespace);
        let mut existing: BTreeMap<String, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in self.slices.of(namespace) {
            let ours = slice.labels().get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER);
            if ours && slice.metadata.deletion_timestamp.is_none() {
                let of = slice.labels().get(SERVICE).cloned().unwrap_or_default();
                existing.entry(of).or_default().push(slice);
            }
        }
        for endpoints in self.endpoints.of(namespace) {
            let name = endpoints.name_any();
            let service = self.services.get(namespace, &name);
            if !service.is_some_and(|service| is_mirrored(&endpoints, &service)) {
                continue;
            }
            let mut left = existing.remove(&name).unwrap_or_default();
            for wanted in wanted(&endpoints) {
                let same = |slice: &Arc<EndpointSlice>| {
                    let ports = |slice: &EndpointSlice| slice.ports.clone().unwrap_or_default();
                    slice.address_type == wanted.address_type && ports(slice) == ports(&wanted)
                };
                let Some(at) = left.iter().position(same) else {
                    let made = owner::create(&api, &self.slices, &wanted).await;
                    steps.take(made.map(drop).or_else(forgiving));
                    continue;
                };
                let found = left.swap_remove(at);
                let mut changed = (*found).clone();
                changed.endpoints = wanted.endpoints;
                changed.metadata.labels = wanted.metadata.labels;
                if changed != *found {
                    steps.take(owner::replace(&api, &self.slices, &changed).await);
                }
            }
            existing.insert(name, left);
        }
        // Of ports or families that are no more, or of Endpoints that are not to be mirrored.
        for slice in existing.into_values().flatten() {
            steps.take(owner::delete(&api, &self.slices, &*slice).await);
        }
        steps.end(Next::Change)
    }
}

/// Whether Endpoints are somebody's own, for a Service that no controller makes them for.
pub(super) fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let skipped = endpoints.labels().get(SKIP).map(String::as_str) == Some("true");
    let ending = endpoints.metadata.deletion_timestamp.is_some()
        || service.metadata.deletion_timestamp.is_some();
    !skipped
        && !ending
        && !endpoints.annotations().contains_key(LOCK)
        && backends::selector(service).is_none()
}

/// A slice for every subset and family of Endpoints.
pub(super) fn wanted(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", endpoints.name_any())),
        namespace: endpoints.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![owner::controller_ref(endpoints)]),
        ..ObjectMeta::default()
    };
    let mut slices = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for family in [IpFamily::V4, IpFamily::V6] {
            let found = of_family(subset, family);
            if !found.is_empty() {
                slices.push(EndpointSlice {
                    metadata: metadata.clone(),
                    address_type: family.to_string(),
                    endpoints: found,
                    ports: Some(subset.ports.iter().flatten().map(port).collect()),
                });
            }
        }
    }
    slices
}

fn of_family(subset: &EndpointSubset, family: IpFamily) -> Vec<Endpoint> {
    let ready = subset.addresses.iter().flatten().map(|one| (one, true));
    let waiting = subset.not_ready_addresses.iter().flatten();
    let all = ready.chain(waiting.map(|one| (one, false)));
    let is_of_family =
        |one: &EndpointAddress| one.ip.parse().is_ok_and(|ip| IpFamily::of(ip) == family);
    all.filter(|(one, _)| is_of_family(one))
        .map(|(one, ready)| Endpoint {
            addresses: vec![one.ip.clone()],
            conditions: Some(EndpointConditions {
                ready: Some(ready),
                ..EndpointConditions::default()
            }),
            hostname: one.hostname.clone().filter(|name| !name.is_empty()),
            node_name: one.node_name.clone(),
            target_ref: one.target_ref.clone(),
            ..Endpoint::default()
        })
        .collect()
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        app_protocol: port.app_protocol.clone(),
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
    }
}
