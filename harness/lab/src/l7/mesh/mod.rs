//! The mesh: sidecars by injection, and istiod, which tells them what to do.
//!
//! Start from [`run`], the task of image `lab.strata.dev/istiod:v1`. It answers the injection
//! webhook, issues each ServiceAccount's certificate, and tells the sidecars of each workload what
//! [`outbound`] and [`inbound`] made from Services and Istio's objects. The redirection is
//! [`redirect`]'s. Rule: a ConfigMap and certificate are there before the pod that mounts them.

mod authorization;
mod client;
#[cfg(test)]
mod crds;
mod destination;
mod entries;
mod filters;
mod identity;
mod inbound;
mod inject;
mod kept;
mod locality;
mod outbound;
mod probes;
pub(crate) mod redirect;
mod registry;
mod route;
mod sidecar;
#[cfg(test)]
mod tests;
mod tokens;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::identity::Authority;
use self::kept::Kept;
use self::registry::{Mesh, Workload, oldest_first};
use super::cluster::Services;
use super::envoy::bootstrap::{Bootstrap, bootstrap_files};
use super::gateway::{gamma, mesh_status};
use super::publish::{Publisher, config_map, metadata, secret};
use super::ready;
use super::serve::{Servers, until_stopped};
use super::world::World;
use crate::api::webhook::Handler;
use crate::builtin::BuiltinContext;
use crate::istio::destination_rule::DestinationRule;
use crate::istio::request_authentication::RequestAuthentication;
use crate::istio::security::{AuthorizationPolicy, PeerAuthentication};
use crate::istio::service_entry::ServiceEntry;
use crate::istio::sidecar::Sidecar;
use crate::istio::virtual_service::VirtualService;
use crate::xds::{Shared, Xds};

/// Where redirected connections of the pod go out.
pub(crate) const OUTBOUND_PORT: u16 = 15001;
/// Where redirected connections to the pod come in.
pub(crate) const INBOUND_PORT: u16 = 15006;
/// Where the kubelet's probes come in.
pub(crate) const PROBE_PORT: u16 = 15020;
/// The mark of the sidecar's own connections.
pub(crate) const MARK: u32 = 1337;
/// Where the sidecar connects to its application from.
pub(crate) const INBOUND_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// Where the sidecar's ConfigMap is mounted.
const DIRECTORY: &str = "/etc/istio/proxy";
/// Where the sidecar's certificate is mounted.
const CERTIFICATES: &str = "/etc/istio/certs";
/// The Service and path that the webhook's configuration names.
const SERVICE: &str = "istiod";
const INJECT_PATH: &str = "/inject";
/// The Service's port where sidecars' configuration is served.
const XDS_PORT: u16 = 15010;
/// How long what changes is waited for to be followed by more, since every sidecar is told anew: Istio's
/// `PILOT_DEBOUNCE_AFTER`.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// The name that it says things under of routes of the Gateway API, as Istio does.
const CONTROLLER: &str = "istio.io/gateway-controller";
/// The root certificate, in every namespace, as Istio has it.
const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";

/// Keeps of the workloads that are told as one the one whose labels are as they were: a pod whose labels
/// change is told by its new ones if there is no other of its kind.
fn one_a_group(workloads: &mut BTreeSet<Workload>) {
    let unchanged = workloads.iter().filter(|workload| workload.as_admitted());
    let mut taken: BTreeSet<String> = unchanged.map(Workload::group).collect();
    workloads.retain(|workload| workload.as_admitted() || taken.insert(workload.group()));
}

struct Stores {
    namespaces: Store<Namespace>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    virtual_services: Store<VirtualService>,
    destination_rules: Store<DestinationRule>,
    service_entries: Store<ServiceEntry>,
    sidecars: Store<Sidecar>,
    peer_authentications: Store<PeerAuthentication>,
    authorization_policies: Store<AuthorizationPolicy>,
    request_authentications: Store<RequestAuthentication>,
    service_routes: gamma::Stores,
}

/// What sidecars were told last, if nothing went wrong.
struct Told {
    mesh: Mesh,
    /// The UIDs of the namespaces, by name.
    namespaces: BTreeMap<String, String>,
    workloads: BTreeSet<Workload>,
}

struct Istiod {
    client: Client,
    stores: Stores,
    authority: Authority,
    publisher: tokio::sync::Mutex<Publisher>,
    xds: Xds,
    /// istiod's own namespace.
    namespace: String,
    /// What clients are told of where their connections go.
    outbound: Mutex<BTreeMap<registry::Client, Arc<Shared>>>,
    /// What that was made of.
    kept: Mutex<Kept>,
    /// Workloads whose pods were admitted; they may not be in the store yet.
    admitted: Mutex<BTreeSet<Workload>>,
}

/// Runs until the container is stopped.
///
/// # Errors
/// When the authority cannot be loaded.
pub(crate) async fn run(context: BuiltinContext) -> anyhow::Result<()> {
    until_stopped(context, control).await
}

async fn control(context: BuiltinContext, servers: &mut Servers) -> anyhow::Result<()> {
    let namespace = context.pod.namespace().unwrap_or_default();
    let client = context.client.clone();
    let mut world = World::default();
    let stores = Stores {
        namespaces: world.watch(Api::all(client.clone())),
        pods: world.watch(Api::all(client.clone())),
        nodes: world.watch(Api::all(client.clone())),
        services: world.watch(Api::all(client.clone())),
        slices: world.watch(Api::all(client.clone())),
        virtual_services: world.watch(Api::all(client.clone())),
        destination_rules: world.watch(Api::all(client.clone())),
        service_entries: world.watch(Api::all(client.clone())),
        sidecars: world.watch(Api::all(client.clone())),
        peer_authentications: world.watch(Api::all(client.clone())),
        authorization_policies: world.watch(Api::all(client.clone())),
        request_authentications: world.watch(Api::all(client.clone())),
        service_routes: gamma::Stores::watch(&mut world, &client),
    };
    let configurations: Store<MutatingWebhookConfiguration> = world.watch(Api::all(client.clone()));
    let mut publisher = Publisher::new(client.clone(), "istiod");
    let authority = Authority::load(&client, &namespace, &mut publisher).await?;
    // A pod created while the watches begin waits for its answer rather than being refused.
    let (started, running) = watch::channel(None);
    let _registration =
        context
            .webhooks
            .register(&namespace, SERVICE, INJECT_PATH, handler(running));
    world.ready().await;
    let istiod = Arc::new(Istiod {
        client,
        stores,
        authority,
        publisher: tokio::sync::Mutex::new(publisher),
        xds: Xds::new(context.log.clone()),
        namespace,
        outbound: Mutex::default(),
        kept: Mutex::default(),
        admitted: Mutex::default(),
    });
    started.send_replace(Some(istiod.clone()));
    servers.serve(&context.netns, XDS_PORT, istiod.xds.router())?;
    servers.serve(&context.netns, ready::PORT, ready::router())?;
    (context.log)("injecting sidecars into pods of namespaces labelled istio-injection=enabled");
    let log = context.log.clone();
    let reported = context.client.clone();
    let _report = AbortOnDropHandle::new(tokio::spawn(async move {
        mesh_status::report(reported, CONTROLLER, |line| log(line)).await;
    }));
    let mut told = None;
    loop {
        let began = tokio::time::Instant::now();
        for error in istiod.reconcile(&mut told).await {
            (context.log)(&format!("{error:#}"));
        }
        tracing::debug!(took = ?began.elapsed(), "told every sidecar");
        let (namespace, root) = (&istiod.namespace, &istiod.authority.root);
        let completed = webhook::complete(&istiod.client, &configurations, namespace, root);
        if let Err(error) = completed.await {
            (context.log)(&format!("{error:#}"));
        }
        world.settled(DEBOUNCE).await;
    }
}

/// Answers the API server's question what to make of a pod.
fn handler(running: watch::Receiver<Option<Arc<Istiod>>>) -> Handler {
    Arc::new(move |request| {
        let mut running = running.clone();
        Box::pin(async move {
            let istiod = match running.wait_for(Option::is_some).await {
                Ok(istiod) => istiod.clone(),
                Err(_) => None,
            };
            match istiod {
                Some(istiod) => istiod.admit(&request).await,
                None => AdmissionResponse::invalid("istiod has stopped"),
            }
        })
    })
}

impl Istiod {
    async fn admit(&self, request: &AdmissionRequest<DynamicObject>) -> AdmissionResponse {
        let response = AdmissionResponse::from(request);
        match self.patch(request).await {
            Ok(None) => response,
            // Through JSON, because kube has a json-patch of its own version.
            Ok(Some(patch)) => match serde_json::from_value(patch)
                .map(|patch| response.with_patch(patch))
            {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => AdmissionResponse::invalid(format!("sidecar injection: {error}")),
                Err(error) => AdmissionResponse::invalid(format!("sidecar injection: {error}")),
            },
            Err(error) => response.deny(format!("sidecar injection: {error:#}")),
        }
    }

    async fn patch(
        &self,
        request: &AdmissionRequest<DynamicObject>,
    ) -> anyhow::Result<Option<serde_json::Value>> {
        let Some(object) = &request.object else {
            return Ok(None);
        };
        let before: Pod = serde_json::from_value(serde_json::to_value(object)?)?;
        let namespace = request
            .namespace
            .clone()
            .or_else(|| before.namespace())
            .unwrap_or_default();
        let Some(workload) = inject::workload_of(&before, &namespace) else {
            return Ok(None);
        };
        let mut after = before.clone();
        inject::inject(&mut after, &workload);
        if !request.dry_run {
            self.provide(&workload).await?;
        }
        let (before, after) = (serde_json::to_value(before)?, serde_json::to_value(after)?);
        Ok(Some(serde_json::to_value(json_patch::diff(
            &before, &after,
        ))?))
    }

    /// Makes what a workload's pods mount.
    async fn provide(&self, workload: &Workload) -> anyhow::Result<()> {
        self.admitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(workload.clone());
        self.certify(workload).await?;
        let mesh = self.mesh();
        let mut publisher = self.publisher.lock().await;
        // The namespace may have been deleted and made again since the last time.
        publisher.forget("ConfigMap", &workload.namespace, &workload.config_map());
        let shared = self.share(&mesh, workload.client(&mesh));
        self.publish(&mut publisher, &mesh, workload, &shared).await
    }

    /// Issues the certificate of a workload's ServiceAccount, unless there is one of this authority.
    async fn certify(&self, workload: &Workload) -> anyhow::Result<()> {
        let (namespace, account) = (&workload.namespace, &workload.service_account);
        let name = inject::certificate_secret(account);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(&name).await?;
        let root = found
            .as_ref()
            .and_then(|secret| secret.data.as_ref()?.get("root-cert.pem"));
        if root.is_some_and(|root| root.0 == self.authority.root.as_bytes()) {
            return Ok(());
        }
        let mut issued = secret(
            metadata(namespace, &name, &[]),
            self.authority.issue(namespace, account)?,
        );
        issued.type_ = Some("istio.io/key-and-cert".to_owned());
        let mut publisher = self.publisher.lock().await;
        publisher.apply(&issued).await?;
        Ok(())
    }

    fn mesh(&self) -> Mesh {
        let stores = &self.stores;
        let services = Services::new(stores.services.state(), stores.slices.state())
            .with_pods(stores.pods.state())
            .with_nodes(stores.nodes.state());
        Mesh {
            service_routes: stores.service_routes.routes(&services),
            services,
            virtual_services: oldest_first(stores.virtual_services.state()),
            destination_rules: oldest_first(stores.destination_rules.state()),
            service_entries: oldest_first(stores.service_entries.state()),
            sidecars: oldest_first(stores.sidecars.state()),
            peer_authentications: oldest_first(stores.peer_authentications.state()),
            authorization_policies: oldest_first(stores.authorization_policies.state()),
            request_authentications: oldest_first(stores.request_authentications.state()),
            hosts: OnceLock::new(),
        }
    }

    /// The workloads of the pods that there are; and the groups of those proxies that are told more than
    /// they know of themselves.
    fn running(&self, services: &Services) -> (BTreeSet<Workload>, BTreeMap<String, String>) {
        let mut places = BTreeMap::new();
        let pods = self.stores.pods.state().into_iter();
        let workloads = pods.filter_map(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let workload = inject::injected_workload(&pod)?.at(services.locality(Some(&pod), node));
            if workload.group() != workload.admitted_group() {
                let proxy = format!("{}.{}", pod.name_any(), workload.namespace);
                places.insert(proxy, workload.group());
            }
            Some(workload)
        });
        (workloads.collect(), places)
    }

    /// Brings what every workload is told up to date; what failed is returned and tried again at the
    /// next change. Most changes are of pods' states, which leave it as it is.
    async fn reconcile(&self, told: &mut Option<Told>) -> Vec<anyhow::Error> {
        let mut errors = Vec::new();
        let mesh = self.mesh();
        let active: BTreeMap<String, String> = self
            .stores
            .namespaces
            .state()
            .iter()
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
            .map(|namespace| (namespace.name_any(), namespace.uid().unwrap_or_default()))
            .collect();
        let (mut workloads, places) = self.running(&mesh.services);
        let named: BTreeSet<String> = workloads.iter().map(Workload::admitted_group).collect();
        {
            let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
            admitted.retain(|workload| {
                !named.contains(&workload.admitted_group())
                    && active.contains_key(&workload.namespace)
            });
            workloads.extend(admitted.iter().cloned());
        }
        one_a_group(&mut workloads);
        let mut publisher = self.publisher.lock().await;
        publisher.follow(&active);
        for namespace in active.keys() {
            let root = BTreeMap::from([("root-cert.pem".to_owned(), self.authority.root.clone())]);
            let object = config_map(metadata(namespace, ROOT_CONFIG_MAP, &[]), root);
            if let Err(error) = publisher.apply(&object).await {
                errors.push(error);
            }
        }
        let before = told
            .take()
            .filter(|before| before.namespaces == active && before.mesh.same(&mesh));
        let known = |workload: &Workload| {
            let before = before.as_ref();
            before.is_some_and(|before| before.workloads.contains(workload))
        };
        let stay = workloads
            .iter()
            .filter(|workload| active.contains_key(&workload.namespace));
        let clients: Vec<_> = stay.map(|it| (it, it.client(&mesh))).collect();
        let mut made = BTreeMap::new();
        for (workload, client) in clients.iter().filter(|(workload, _)| !known(workload)) {
            let shared = made
                .entry(client)
                .or_insert_with(|| self.share(&mesh, client.clone()));
            let published = self.publish(&mut publisher, &mesh, workload, shared);
            if let Err(error) = published.await {
                errors.push(error);
            }
        }
        let clients: BTreeSet<_> = clients.iter().map(|(_, client)| client).collect();
        self.outbound().retain(|client, _| clients.contains(client));
        let groups = workloads.iter().map(Workload::group);
        self.xds.retain(&groups.chain(named).collect());
        self.xds.place(places);
        if errors.is_empty() {
            *told = Some(Told {
                mesh,
                namespaces: active,
                workloads,
            });
        }
        errors
    }

    fn outbound(&self) -> MutexGuard<'_, BTreeMap<registry::Client, Arc<Shared>>> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client is told of where its connections go.
    fn share(&self, mesh: &Mesh, client: registry::Client) -> Arc<Shared> {
        let before = self.outbound().get(&client).cloned();
        let parts = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.follow(mesh);
            outbound::outbound(mesh, &client, &mut kept)
        };
        let shared = Arc::new(self.xds.share(parts, before.as_deref()));
        self.outbound().insert(client, shared.clone());
        shared
    }

    async fn publish(
        &self,
        publisher: &mut Publisher,
        mesh: &Mesh,
        workload: &Workload,
        shared: &Shared,
    ) -> anyhow::Result<()> {
        let start = bootstrap_files(&Bootstrap {
            group: &workload.admitted_group(),
            control_plane: (&self.namespace, SERVICE, XDS_PORT),
            mark: Some(MARK),
        });
        // A sidecar has the clusters of all Services, whether or not its routes lead there.
        let own = inbound::inbound(mesh, workload);
        self.xds.publish(&workload.group(), shared, own.into());
        let labels = [("app.kubernetes.io/managed-by", "istiod")];
        let metadata = metadata(&workload.namespace, &workload.config_map(), &labels);
        publisher.apply(&config_map(metadata, start)).await?;
        Ok(())
    }
}
