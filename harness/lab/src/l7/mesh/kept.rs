//! What a client is told of each Service, kept for as long as all that it was made of is the same.
//!
//! Start from [`Kept::service`]. Most changes are of one Service, and every client is told of all of them. Watches
//! hand out the same object until there is a newer one, so what is the same is told by the pointer; of pods only
//! what is read counts. Rule: a Service that rules or routes are about is made anew, since these lead to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::registry::{Client, Mesh};
use super::types::destination_rule::DestinationRule;
use super::types::security::PeerAuthentication;
use crate::l7::cluster::{alike, same_objects};
use crate::l7::envoy::route::VirtualHost;
use crate::l7::locality::Locality;

/// A virtual host, in Envoy's form.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// Its domains.
    pub(super) domains: Vec<String>,
    /// `envoy.config.route.v3.VirtualHost`
    pub(super) value: Arc<Value>,
}

impl From<VirtualHost> for Host {
    fn from(host: VirtualHost) -> Self {
        Self {
            value: Arc::new(host.to_value()),
            domains: host.domains,
        }
    }
}

/// What a client is told of one Service.
#[derive(Debug, Clone, Default)]
pub(super) struct OfService {
    /// Its virtual hosts, by port.
    pub(super) hosts: Vec<(u16, Host)>,
    /// The listeners of its ports for bytes.
    pub(super) listeners: Vec<Arc<Value>>,
    /// Its clusters.
    pub(super) clusters: Vec<Arc<Value>>,
}

/// A Service, as a client may see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// Its namespace.
    pub(super) namespace: &'a str,
    /// Its name.
    pub(super) name: &'a str,
    /// Itself.
    pub(super) service: &'a Arc<Service>,
    /// Its full name.
    pub(super) host: &'a str,
    /// Its other names.
    pub(super) aliases: &'a [String],
    /// Whether the client's Sidecar lets it know.
    pub(super) imported: bool,
}

/// All that a Service's part was made of, but its client, which is whose this is.
#[derive(Debug)]
struct Origin {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    /// Those behind the endpoints.
    pods: Vec<Arc<Pod>>,
    rule: Option<Arc<DestinationRule>>,
    aliases: Vec<String>,
    imported: bool,
}

impl Origin {
    fn of(mesh: &Mesh, client: &Client, seen: Seen<'_>) -> Self {
        let key = (seen.namespace, seen.name);
        Self {
            service: seen.service.clone(),
            slices: mesh.services.slices(key).to_vec(),
            pods: mesh.services.pods_behind(key),
            rule: mesh.destination_rule(seen.host, client).cloned(),
            aliases: seen.aliases.to_vec(),
            imported: seen.imported,
        }
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.service, &other.service)
            && same_objects(&self.slices, &other.slices)
            && self.pods.len() == other.pods.len()
            && self
                .pods
                .iter()
                .zip(&other.pods)
                .all(|(one, two)| alike(one, two))
            && same_objects(&self.rule, &other.rule)
            && self.aliases == other.aliases
            && self.imported == other.imported
    }
}

/// By Service, what one client was told.
#[derive(Default)]
pub(super) struct Kept {
    services: BTreeMap<(String, String), (Origin, Arc<OfService>)>,
    peer_authentications: Vec<Arc<PeerAuthentication>>,
    nodes: BTreeMap<String, Locality>,
}

impl Kept {
    /// The beginning of a round: what all Services depend on may have changed.
    pub(super) fn begin(&mut self, mesh: &Mesh) {
        let nodes = mesh.services.places();
        if !same_objects(&self.peer_authentications, &mesh.peer_authentications)
            || self.nodes != *nodes
        {
            self.services.clear();
            self.peer_authentications
                .clone_from(&mesh.peer_authentications);
            self.nodes.clone_from(nodes);
        }
    }

    /// What the client is told of a Service, as it was told before if nothing changed; else as `make` makes it.
    pub(super) fn service(
        &mut self,
        mesh: &Mesh,
        client: &Client,
        seen: Seen<'_>,
        make: impl FnOnce() -> OfService,
    ) -> Arc<OfService> {
        let key = (seen.namespace.to_owned(), seen.name.to_owned());
        let parented = mesh.service_routes.concern((seen.namespace, seen.name));
        if parented || mesh.virtual_service(seen.host, client).is_some() {
            self.services.remove(&key);
            return Arc::new(make());
        }
        let origin = Origin::of(mesh, client, seen);
        if let Some((before, told)) = self.services.get(&key)
            && before.same(&origin)
        {
            return told.clone();
        }
        let told = Arc::new(make());
        self.services.insert(key, (origin, told.clone()));
        told
    }

    /// The end of a round: forgets Services that are gone.
    pub(super) fn end(&mut self, mesh: &Mesh) {
        let services = &mesh.services;
        self.services
            .retain(|(namespace, name), _| services.find(namespace, name).is_some());
    }
}
