//! What clients are told of each Service, kept for as long as all that it was made of is the same.
//!
//! Start from [`Kept::service`]. Most changes are of one Service, and every client is told of all of them; and most
//! clients are told the same of one. Watches hand out the same object until there is a newer one, so what is the same
//! is told by the pointer; of pods only what is read counts. Rule: a Service that rules or routes are about is made
//! anew, since these lead to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::registry::{Client, Mesh};
use crate::istio::destination_rule::DestinationRule;
use crate::istio::security::PeerAuthentication;
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

/// The objects that a Service is.
#[derive(Debug)]
struct Objects {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    /// Those behind the endpoints.
    pods: Vec<Arc<Pod>>,
}

/// As what a client sees it.
#[derive(Debug)]
struct View {
    rule: Option<Arc<DestinationRule>>,
    aliases: Vec<String>,
    imported: bool,
    /// Whether the client is of the Service's namespace, and may call it by its name alone.
    at_home: bool,
    /// Where the client is.
    locality: Locality,
}

impl Objects {
    fn of(mesh: &Mesh, seen: Seen<'_>) -> Self {
        let key = (seen.namespace, seen.name);
        Self {
            service: seen.service.clone(),
            slices: mesh.services.slices(key).to_vec(),
            pods: mesh.services.pods_behind(key),
        }
    }

    fn same(&self, other: &Self) -> bool {
        let pods = self.pods.iter().zip(&other.pods);
        Arc::ptr_eq(&self.service, &other.service)
            && same_objects(&self.slices, &other.slices)
            && self.pods.len() == other.pods.len()
            && pods.into_iter().all(|(one, two)| alike(one, two))
    }
}

impl View {
    fn of(rule: Option<&Arc<DestinationRule>>, client: &Client, seen: Seen<'_>) -> Self {
        Self {
            rule: rule.cloned(),
            aliases: seen.aliases.to_vec(),
            imported: seen.imported,
            at_home: client.namespace == seen.namespace,
            locality: client.locality.clone(),
        }
    }

    fn is(&self, rule: Option<&Arc<DestinationRule>>, client: &Client, seen: Seen<'_>) -> bool {
        self.rule.as_ref().map(Arc::as_ptr) == rule.map(Arc::as_ptr)
            && self.aliases == seen.aliases
            && self.imported == seen.imported
            && self.at_home == (client.namespace == seen.namespace)
            && self.locality == client.locality
    }
}

/// What was made of one Service, for all that see it alike.
struct Made {
    objects: Objects,
    told: Vec<(View, Arc<OfService>)>,
}

/// By Service, what clients were told.
#[derive(Default)]
pub(super) struct Kept {
    services: BTreeMap<(String, String), Made>,
    peer_authentications: Vec<Arc<PeerAuthentication>>,
    nodes: BTreeMap<String, Locality>,
}

impl Kept {
    /// Forgets what is no longer so of a mesh: all of it, where that has changed which all Services depend on.
    pub(super) fn follow(&mut self, mesh: &Mesh) {
        let nodes = mesh.services.places();
        if !same_objects(&self.peer_authentications, &mesh.peer_authentications)
            || self.nodes != *nodes
        {
            self.services.clear();
            self.peer_authentications
                .clone_from(&mesh.peer_authentications);
            self.nodes.clone_from(nodes);
        }
        let services = &mesh.services;
        self.services
            .retain(|(namespace, name), _| services.find(namespace, name).is_some());
    }

    /// What a client is told of a Service, as one was told before if nothing changed; else as `make` makes it.
    pub(super) fn service(
        &mut self,
        mesh: &Mesh,
        client: &Client,
        seen: Seen<'_>,
        make: impl FnOnce() -> OfService,
    ) -> Arc<OfService> {
        let parented = mesh.service_routes.concern((seen.namespace, seen.name));
        if parented || mesh.virtual_service(seen.host, client).is_some() {
            return Arc::new(make());
        }
        let objects = Objects::of(mesh, seen);
        let rule = mesh.destination_rule(seen.host, client);
        let key = (seen.namespace.to_owned(), seen.name.to_owned());
        let mut made = match self.services.remove(&key) {
            Some(made) if made.objects.same(&objects) => made,
            _ => Made {
                objects,
                told: Vec::new(),
            },
        };
        let known = made
            .told
            .iter()
            .find(|(view, _)| view.is(rule, client, seen));
        let told = known.map_or_else(|| Arc::new(make()), |(_, told)| told.clone());
        if known.is_none() {
            let view = View::of(rule, client, seen);
            let of_mesh = |rule: &Arc<DestinationRule>| {
                mesh.destination_rules
                    .iter()
                    .any(|it| Arc::ptr_eq(it, rule))
            };
            made.told
                .retain(|(view, _)| view.rule.as_ref().is_none_or(of_mesh));
            made.told.push((view, told.clone()));
        }
        self.services.insert(key, made);
        told
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;
    use crate::l7::cluster::Services;
    use crate::testing::shared;

    fn rule(host: &str) -> Arc<DestinationRule> {
        shared(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": { "name": "x", "namespace": "ns" }, "spec": { "host": host },
        }))
    }

    struct World {
        service: Arc<Service>,
        slice: Arc<EndpointSlice>,
        pod: Arc<Pod>,
    }

    impl World {
        fn new() -> Self {
            Self {
                service: shared(json!({ "metadata": { "namespace": "ns", "name": "web" } })),
                slice: Self::slice(),
                pod: Self::pod("v1", "Running"),
            }
        }

        fn slice() -> Arc<EndpointSlice> {
            shared(json!({
                "metadata": { "namespace": "ns", "labels": { "kubernetes.io/service-name": "web" } },
                "addressType": "IPv4",
                "endpoints": [{ "addresses": ["10.244.1.2"], "targetRef": { "kind": "Pod", "name": "web" } }],
            }))
        }

        fn pod(version: &str, phase: &str) -> Arc<Pod> {
            shared(json!({
                "metadata": { "namespace": "ns", "name": "web", "labels": { "version": version } },
                "spec": { "containers": [] }, "status": { "phase": phase },
            }))
        }

        fn mesh(&self) -> Mesh {
            let services = Services::new([self.service.clone()], [self.slice.clone()]);
            Mesh {
                services: services.with_pods([self.pod.clone()]),
                ..Mesh::default()
            }
        }
    }

    fn client(namespace: &str) -> Client {
        Client {
            namespace: namespace.to_owned(),
            ..Client::default()
        }
    }

    /// Whether a Service's part is made anew.
    fn made(kept: &mut Kept, mesh: &Mesh, client: &Client, aliases: &[String]) -> bool {
        let made = Cell::new(false);
        kept.follow(mesh);
        for (namespace, name, service) in mesh.services.iter() {
            let seen = Seen {
                namespace,
                name,
                service,
                host: "web.ns.svc.cluster.local",
                aliases,
                imported: true,
            };
            kept.service(mesh, client, seen, || {
                made.set(true);
                OfService::default()
            });
        }
        made.get()
    }

    #[test]
    fn a_part_is_made_anew_when_something_it_was_made_of_changes() {
        let elsewhere = client("other");
        type Change = fn(&mut World, &mut Mesh);
        let changes: [(&str, bool, Change); 8] = [
            ("nothing", false, |_, _| {}),
            ("a pod's state", false, |world, mesh| {
                world.pod = World::pod("v1", "Succeeded");
                *mesh = world.mesh();
            }),
            ("a pod's label", true, |world, mesh| {
                world.pod = World::pod("v2", "Running");
                *mesh = world.mesh();
            }),
            ("a slice", true, |world, mesh| {
                world.slice = World::slice();
                *mesh = world.mesh();
            }),
            ("its rule", true, |_, mesh| {
                mesh.destination_rules = vec![rule("web")];
            }),
            ("another's rule", false, |_, mesh| {
                mesh.destination_rules = vec![rule("else")];
            }),
            ("a policy", true, |_, mesh| {
                let policy = json!({
                    "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                    "metadata": { "name": "x", "namespace": "ns" }, "spec": {},
                });
                mesh.peer_authentications = vec![shared(policy)];
            }),
            ("a VirtualService", true, |_, mesh| {
                let rules = json!({
                    "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                    "metadata": { "name": "x", "namespace": "ns" }, "spec": { "hosts": ["web"] },
                });
                mesh.virtual_services = vec![shared(rules)];
            }),
        ];
        for (what, anew, change) in changes {
            let (mut kept, mut world) = (Kept::default(), World::new());
            let mut mesh = world.mesh();
            assert!(
                made(&mut kept, &mesh, &elsewhere, &[]),
                "{what}: the first time"
            );
            let mut changed = world.mesh();
            change(&mut world, &mut changed);
            mesh = changed;
            assert_eq!(made(&mut kept, &mesh, &elsewhere, &[]), anew, "{what}");
            let rules = mesh.virtual_services.len();
            assert_eq!(
                made(&mut kept, &mesh, &elsewhere, &[]),
                rules > 0,
                "{what}: again"
            );
        }
    }

    #[test]
    fn clients_that_see_a_service_alike_share_what_was_made_of_it() {
        let (mut kept, mesh) = (Kept::default(), World::new().mesh());
        let mut far = client("third");
        far.locality = Locality::parse("region/zone");
        let alias = ["web.ns.example".to_owned()];
        for (what, client, aliases, anew) in [
            ("the first", client("other"), &[][..], true),
            ("one of elsewhere", client("third"), &[], false),
            ("one at home", client("ns"), &[], true),
            ("one far away", far, &[], true),
            ("under another name", client("other"), &alias[..], true),
            ("the first again", client("other"), &[], false),
        ] {
            assert_eq!(made(&mut kept, &mesh, &client, aliases), anew, "{what}");
        }
    }
}
