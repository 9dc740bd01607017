//! EndpointSlices (discovery.k8s.io/v1).
//!
//! Start from [`run`]; [`plan`] decides, as a pure function, which slices to make, change and delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt as _};

use super::backends::{self, Backend, Port};
use crate::controllers::informer::Informers;
use crate::controllers::owner;
use crate::controllers::owner::forgiving;
use crate::controllers::world::{Cache, Controller, Next, Steps, World, drive};
use crate::topology::IpFamily;

/// The label that names a slice's Service.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
/// The most endpoints of one slice (`--max-endpoints-per-slice`).
const MOST: usize = 100;

/// Runs the controller.
pub(in crate::controllers) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = Slices {
        services: world.watch(),
        pods: world.watch(),
        nodes: world.watch(),
        slices: world.watch(),
        client,
    };
    drive(world, controller).await;
}

struct Slices {
    client: Client,
    services: Cache<Service>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
}

impl Controller for Slices {
    async fn reconcile(&mut self, namespace: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        // A node, which is of no namespace, may have changed its zone.
        let services = if namespace.is_empty() {
            self.services.all()
        } else {
            self.services.of(namespace)
        };
        for service in &services {
            self.reconcile_one(service, &mut steps).await;
        }
        for slice in self.slices.of(namespace) {
            let owned = slice.labels().get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER);
            let service = slice.labels().get(SERVICE);
            let known = service.is_some_and(|name| self.services.get(namespace, name).is_some());
            if owned && !known && slice.metadata.deletion_timestamp.is_none() {
                let api = Api::<EndpointSlice>::namespaced(self.client.clone(), namespace);
                steps.take(owner::delete(&api, &self.slices, &*slice).await);
            }
        }
        steps.end(Next::Change)
    }
}

impl Slices {
    async fn reconcile_one(&self, service: &Service, steps: &mut Steps) {
        if backends::selector(service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return;
        }
        let namespace = service.namespace().unwrap_or_default();
        let (pods, nodes) = (self.pods.of(&namespace), self.nodes.all());
        let mut existing = self.slices.of(&namespace);
        existing.retain(|slice| {
            let labels = slice.labels();
            labels.get(SERVICE) == service.metadata.name.as_ref()
                && labels.get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER)
                && slice.metadata.deletion_timestamp.is_none()
        });
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &namespace);
        let plan = plan_all(service, &pods, &nodes, existing);
        for slice in plan.create {
            let made = owner::create(&api, &self.slices, &slice).await;
            steps.take(made.map(drop).or_else(forgiving));
        }
        for slice in plan.change {
            steps.take(owner::replace(&api, &self.slices, &slice).await);
        }
        for slice in plan.delete {
            steps.take(owner::delete(&api, &self.slices, &*slice).await);
        }
    }
}

/// What to write.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) change: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

/// The labels that what is made for a Service carries: its own, and what says whose it is.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if backends::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// Who should prefer an endpoint, by the Service's `trafficDistribution` (KEP-3015): its own zone, and
/// its own node if that is asked for. Only those that are ready are for anybody.
fn hints(service: &Service, backend: &Backend) -> Option<EndpointHints> {
    let spec = service.spec.as_ref()?;
    let by_node = match spec.traffic_distribution.as_deref()? {
        "PreferSameNode" => true,
        "PreferClose" | "PreferSameZone" => false,
        _ => return None,
    };
    let zone = backend.zone.clone().map(|name| vec![ForZone { name }]);
    let node = backend.node.clone().filter(|_| by_node);
    let hints = EndpointHints {
        for_zones: zone,
        for_nodes: node.map(|name| vec![ForNode { name }]),
    };
    (backend.ready && hints != EndpointHints::default()).then_some(hints)
}

fn endpoint(service: &Service, backend: Backend) -> Endpoint {
    Endpoint {
        hints: hints(service, &backend),
        addresses: vec![backend.address],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: backend.hostname,
        node_name: backend.node,
        target_ref: Some(backend.pod),
        zone: backend.zone,
        deprecated_topology: None,
    }
}

fn port(port: Port) -> EndpointPort {
    EndpointPort {
        app_protocol: port.application,
        name: Some(port.name),
        port: Some(port.number),
        protocol: Some(port.protocol),
    }
}

/// Plans each family's slices, which are never those of another: a slice's address type is for ever.
pub(super) fn plan_all(
    service: &Service,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    mut existing: Vec<Arc<EndpointSlice>>,
) -> Plan {
    let mut all = Plan::default();
    for family in backends::families(service) {
        let of_family = |slice: &Arc<EndpointSlice>| slice.address_type == family.name();
        let (own, others) = existing.into_iter().partition(of_family);
        existing = others;
        let found = backends::of(service, pods, nodes, family);
        let plan = plan(service, family, found, own);
        all.create.extend(plan.create);
        all.change.extend(plan.change);
        all.delete.extend(plan.delete);
    }
    // Of a family that the Service has no more.
    all.delete.extend(existing);
    all
}

/// Keeps the slices of a family that have the right ports, fills them, and uses up the others for what is new.
pub(super) fn plan(
    service: &Service,
    family: IpFamily,
    mut found: BTreeMap<Vec<Port>, Vec<Backend>>,
    existing: Vec<Arc<EndpointSlice>>,
) -> Plan {
    if found.is_empty() {
        // A Service without pods has a slice all the same, to tell that there are none.
        found.insert(Vec::new(), Vec::new());
    }
    let labels = labels(service);
    let owners = vec![owner::controller_ref(service)];
    let mut plan = Plan::default();
    let mut left = existing;
    let mut missing = Vec::new();
    for (ports, backends) in found {
        let ports: Vec<EndpointPort> = ports.into_iter().map(port).collect();
        let same = |slice: &EndpointSlice| slice.ports.as_deref().unwrap_or_default() == ports;
        let (mut kept, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|one| same(one));
        left = others;
        let mut endpoints: Vec<Endpoint> = backends
            .into_iter()
            .map(|backend| endpoint(service, backend))
            .collect();
        endpoints.sort_by(|one, two| one.addresses.cmp(&two.addresses));
        let mut chunks: Vec<Vec<Endpoint>> = endpoints.chunks(MOST).map(<[_]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        for chunk in chunks {
            if kept.is_empty() {
                missing.push((ports.clone(), chunk));
            } else {
                update(&mut plan, kept.remove(0), &ports, chunk, &labels, &owners);
            }
        }
        left.extend(kept);
    }
    for (ports, chunk) in missing {
        if left.is_empty() {
            plan.create.push(EndpointSlice {
                metadata: ObjectMeta {
                    generate_name: Some(format!("{}-", service.name_any())),
                    namespace: service.namespace(),
                    labels: Some(labels.clone()),
                    owner_references: Some(owners.clone()),
                    ..ObjectMeta::default()
                },
                address_type: family.to_string(),
                endpoints: chunk,
                ports: Some(ports),
            });
        } else {
            update(&mut plan, left.remove(0), &ports, chunk, &labels, &owners);
        }
    }
    plan.delete = left;
    plan
}

fn update(
    plan: &mut Plan,
    slice: Arc<EndpointSlice>,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
    labels: &BTreeMap<String, String>,
    owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
) {
    let mut changed = (*slice).clone();
    changed.metadata.labels = Some(labels.clone());
    changed.metadata.owner_references = Some(owners.to_vec());
    changed.endpoints = endpoints;
    if changed.ports.as_deref().unwrap_or_default() != ports {
        changed.ports = Some(ports.to_vec());
    }
    if changed != *slice {
        plan.change.push(changed);
    }
}
