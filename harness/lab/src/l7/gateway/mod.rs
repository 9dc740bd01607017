//! The Gateway controller: Gateways and their routes (gateway.networking.k8s.io) become Envoys.
//!
//! Start from [`run`], the task of image `lab.strata.dev/gateway-controller:v1`; what it decides is
//! in [`translate`], which is pure. It serves the GatewayClasses whose controller is [`CONTROLLER`]
//! and gives each of their Gateways an Envoy of its own ([`provision`]). Rule: what others wrote into
//! a status stays there.
//!
//! ```text
//! stores ──► input {route} ──► holder, listener {frontend}, attach, rule {backend {policy}, filter, share} ──► translate {passing, datagrams} ──► provision ──► publish, xds
//!                                    observe ──► status, sets ◄───┘
//! ```

mod attach;
mod backend;
#[cfg(test)]
mod crds;
mod datagrams;
mod filter;
mod frontend;
pub(crate) mod gamma;
mod holder;
mod host;
mod input;
mod listener;
pub(crate) mod mesh_status;
mod observe;
mod passing;
mod policy;
mod port;
mod provision;
mod route;
mod rule;
mod sets;
mod share;
mod status;
mod stores;
#[cfg(test)]
mod tests;
mod translate;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use gateway_api::gatewayclasses::GatewayClass;
use gateway_api::listenersets::ListenerSet;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::api::DynamicObject;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};

use self::input::Input;
use self::observe::Observer;
use self::status::Observed;
use self::stores::Stores;
use self::translate::{Translated, Translation, translate};
use self::write::{remove, write, write_gateway};
use super::HOLDOFF;
use super::cluster::Services;
use super::publish::Publisher;
use super::ready;
use super::serve::{Servers, until_stopped};
use super::world::World;
use crate::builtin::BuiltinContext;
use crate::xds::{Shared, Xds};

/// `spec.controllerName` of the GatewayClasses that are ours.
pub(crate) const CONTROLLER: &str = "lab.strata.dev/gateway-controller";
/// The group of the Gateway API.
const GROUP: &str = "gateway.networking.k8s.io";
/// Where Envoy's pod mounts its ConfigMap.
const DIRECTORY: &str = "/etc/envoy";
/// Where Envoy's pod mounts its Secret.
const SECRETS: &str = "/etc/envoy-secrets";
/// Where Envoy tells which configuration is in force.
const VERSION_PORT: u16 = 15022;
/// The Service of the controller itself, and the port where it serves Envoys' configuration.
const SERVICE: &str = "gateway-controller";
const XDS_PORT: u16 = 8001;
/// Whose fields the objects' are.
const MANAGER: &str = "gateway-controller";

/// Runs until the container is stopped.
///
/// # Errors
/// When its pod's network cannot be used.
pub(crate) async fn run(context: BuiltinContext) -> anyhow::Result<()> {
    until_stopped(context, control).await
}

async fn control(context: BuiltinContext, servers: &mut Servers) -> anyhow::Result<()> {
    let observer = Observer::new(observe::over_http(context.netns.clone()));
    let xds = Xds::new(context.log.clone());
    let own = context.pod.namespace().unwrap_or_default();
    let mut controller =
        Controller::start(context.client.clone(), own, observer, xds.clone()).await;
    servers.serve(&context.netns, XDS_PORT, xds.router())?;
    servers.serve(&context.netns, ready::PORT, ready::router())?;
    (context.log)("watching Gateways and HTTPRoutes of every namespace");
    controller.follow(|line| (context.log)(line)).await;
    Ok(())
}

struct Controller {
    client: Client,
    /// The controller's own namespace.
    namespace: String,
    world: World,
    stores: Stores,
    publisher: Publisher,
    observer: Observer,
    xds: Xds,
}

impl Controller {
    /// Returns once it has seen the cluster.
    async fn start(client: Client, namespace: String, observer: Observer, xds: Xds) -> Self {
        let mut world = World::default();
        let stores = Stores::watch(&mut world, &client);
        world.ready().await;
        Self {
            publisher: Publisher::new(client.clone(), MANAGER),
            client,
            world,
            namespace,
            stores,
            observer,
            xds,
        }
    }

    /// Brings everything up to date at every change, for ever.
    async fn follow(&mut self, log: impl Fn(&str)) {
        loop {
            let (wanted, errors) = self.reconcile().await;
            for error in errors {
                // The next change tries again; what Envoy has stays in force until then.
                log(&format!("{error:#}"));
            }
            // Each time, however much changes: who asked only when nothing does might never hear.
            if self.observer.look(&wanted).await {
                continue;
            }
            tokio::select! {
                () = self.world.settled(HOLDOFF) => {}
                () = self.observer.catch_up(&wanted) => {}
            }
        }
    }

    /// Writes all that differs from what it should be. Returns the version that each ready Envoy is
    /// to serve, and what could not be written.
    async fn reconcile(&mut self) -> (BTreeMap<IpAddr, String>, Vec<anyhow::Error>) {
        let input = self.stores.input();
        let translation = translate(&input);
        let mut errors = Vec::new();
        self.follow_namespaces();
        for class in input.own_classes() {
            let status = status::of_class(class);
            if class.status.as_ref() != Some(&status) {
                let api = Api::<GatewayClass>::all(self.client.clone());
                errors.extend(write(api, &class.metadata, &status).await.err());
            }
        }
        let mut wanted = BTreeMap::new();
        let mut provisioned = BTreeSet::new();
        for translated in &translation.gateways {
            let gateway = translated.gateway;
            let namespace = gateway.namespace().unwrap_or_default();
            provisioned.insert((namespace, provision::name(gateway)));
            errors.extend(self.provision(translated).await.err());
            let observed = self.observe(translated, &input.services, &mut wanted);
            errors.extend(self.report_sets(translated, &observed).await);
            let status = status::of_gateway(translated, &observed);
            if gateway.status.as_ref() != Some(&status) {
                let api = self.namespaced(gateway);
                errors.extend(write_gateway(api, gateway, &status).await.err());
            }
        }
        for (route, parents) in &translation.routes {
            let status = status::of_route(CONTROLLER, route, parents);
            let none = route.status.is_none() && status.parents.is_empty();
            if !none && route.status.as_ref() != Some(&status) {
                let namespace = route.namespace().unwrap_or_default();
                let (client, resource) = (self.client.clone(), route.kind.resource());
                let api = Api::<DynamicObject>::namespaced_with(client, &namespace, &resource);
                errors.extend(write(api, &route.metadata, &status).await.err());
            }
        }
        errors.extend(self.report_policies(&input, &translation).await);
        let gateways = translation.gateways.iter().map(|it| it.gateway);
        self.xds.retain(&gateways.map(provision::group).collect());
        errors.extend(self.remove_others(&provisioned).await);
        (wanted, errors)
    }

    /// Says of each ListenerSet what it comes to at its Gateway.
    async fn report_sets(
        &mut self,
        translated: &Translated<'_>,
        observed: &Observed,
    ) -> Vec<anyhow::Error> {
        let mut errors = Vec::new();
        for (set, refused) in &translated.sets {
            let status = sets::of_set(translated, (set, refused.as_ref()), observed);
            if set.status.as_ref() != Some(&status) {
                let api: Api<ListenerSet> = self.namespaced(*set);
                errors.extend(write(api, &set.metadata, &status).await.err());
            }
        }
        errors
    }

    /// Says of each BackendTLSPolicy what it comes to at the Gateways whose backends are under it.
    async fn report_policies(
        &mut self,
        input: &Input,
        translation: &Translation<'_>,
    ) -> Vec<anyhow::Error> {
        let mut errors = Vec::new();
        for policy in &input.policies {
            let key = (policy.namespace().unwrap_or_default(), policy.name_any());
            let ancestors = translation.gateways.iter().filter_map(|translated| {
                let backend::Policies { in_force, others } = &translated.policies;
                let concerned = in_force.contains(&key) || others.contains(&key);
                concerned.then_some((translated.gateway, in_force.contains(&key)))
            });
            let ancestors: Vec<_> = ancestors.collect();
            let status = policy::status(policy, &policy::judge(input, policy), &ancestors);
            let none = policy.status.is_none() && status.ancestors.is_empty();
            if !none && policy.status.as_ref() != Some(&status) {
                let api = self.namespaced(policy.as_ref());
                errors.extend(write(api, &policy.metadata, &status).await.err());
            }
        }
        errors
    }

    fn namespaced<K>(&self, object: &K) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }

    /// What was written to a namespace that is gone has to be written again.
    fn follow_namespaces(&mut self) {
        let active = self
            .stores
            .namespaces
            .state()
            .iter()
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
            .map(|namespace| (namespace.name_any(), namespace.uid().unwrap_or_default()))
            .collect();
        self.publisher.follow(&active);
    }

    /// Makes the Envoy of a Gateway. Where nothing can be served, one that is there stays, with its
    /// address, and serves nothing; none is made.
    async fn provision(&mut self, translated: &Translated<'_>) -> anyhow::Result<()> {
        let control_plane = (self.namespace.as_str(), SERVICE, XDS_PORT);
        let objects = provision::objects(translated, control_plane);
        let namespace = translated.gateway.namespace().unwrap_or_default();
        let name = provision::name(translated.gateway);
        let serves = !translated.ports.is_empty() && translated.problem.is_none();
        if !serves && !has(&self.stores.deployments, &namespace, &name) {
            return Ok(());
        }
        // What somebody deleted has to be written again. (That it may only not have been seen yet
        // does no harm: writing the same again changes nothing.)
        let stores = &self.stores;
        for (kind, there) in [
            ("Secret", has(&stores.secrets, &namespace, &name)),
            ("Deployment", has(&stores.deployments, &namespace, &name)),
            ("Service", has(&stores.services, &namespace, &name)),
        ] {
            if !there {
                self.publisher.forget(kind, &namespace, &name);
            }
        }
        // Secrets first: a listener that names one not yet there is refused.
        self.publisher.apply(&objects.secret).await?;
        self.publisher.apply(&objects.config_map).await?;
        let group = provision::group(translated.gateway);
        let snapshot = translated.snapshot.clone();
        self.xds
            .publish(&group, &Shared::default(), snapshot.into());
        // A Service must have a port.
        if !serves {
            return Ok(());
        }
        self.publisher.apply(&objects.deployment).await?;
        self.publisher.apply(&objects.service).await?;
        Ok(())
    }

    /// What there is to see of a Gateway's Envoy; adds to what is `wanted` of its pods.
    fn observe(
        &self,
        translated: &Translated<'_>,
        services: &Services,
        wanted: &mut BTreeMap<IpAddr, String>,
    ) -> Observed {
        let gateway = translated.gateway;
        let namespace = gateway.namespace().unwrap_or_default();
        let name = provision::name(gateway);
        let addresses = services
            .find(&namespace, &name)
            .filter(|service| {
                service
                    .owner_references()
                    .iter()
                    .any(|owner| Some(&owner.uid) == gateway.metadata.uid.as_ref())
            })
            .map(addresses)
            .unwrap_or_default();
        let ready: Vec<IpAddr> = self
            .stores
            .pods
            .state()
            .iter()
            .filter(|pod| pod.namespace().as_deref() == Some(&namespace))
            .filter(|pod| {
                pod.labels().get(provision::GATEWAY_NAME) == Some(&provision::label(gateway))
            })
            .filter_map(|pod| ready_address(pod))
            .collect();
        let late: Vec<IpAddr> = ready
            .iter()
            .copied()
            .filter(|address| !self.observer.serves(*address, &translated.version))
            .collect();
        let waits_for = if ready.is_empty() {
            Some(format!("no pod of Deployment {name} is ready"))
        } else if late.is_empty() || status::was_programmed(gateway) {
            None
        } else {
            let late: Vec<String> = late.iter().map(IpAddr::to_string).collect();
            Some(format!(
                "Envoy at {} does not serve configuration {} yet",
                late.join(", "),
                translated.version
            ))
        };
        let version = &translated.version;
        wanted.extend(ready.into_iter().map(|address| (address, version.clone())));
        Observed {
            addresses,
            waits_for,
        }
    }

    /// Removes the Envoys of Gateways that are no longer ours; garbage collection does it only for
    /// those that are gone.
    async fn remove_others(
        &mut self,
        provisioned: &BTreeSet<(String, String)>,
    ) -> Vec<anyhow::Error> {
        let mut errors = Vec::new();
        for deployment in self.stores.deployments.state() {
            let key = (
                deployment.namespace().unwrap_or_default(),
                deployment.name_any(),
            );
            let (label, value) = provision::MANAGED_BY;
            let ours = deployment.labels().get(label).is_some_and(|by| by == value)
                && deployment.labels().contains_key(provision::GATEWAY_NAME);
            if !ours
                || provisioned.contains(&key)
                || deployment.metadata.deletion_timestamp.is_some()
            {
                continue;
            }
            let (namespace, name) = &key;
            for kind in ["Secret", "ConfigMap", "Deployment", "Service"] {
                self.publisher.forget(kind, namespace, name);
            }
            errors.extend(remove::<Service>(&self.client, namespace, name).await.err());
            errors.extend(
                remove::<Deployment>(&self.client, namespace, name)
                    .await
                    .err(),
            );
            errors.extend(
                remove::<ConfigMap>(&self.client, namespace, name)
                    .await
                    .err(),
            );
            errors.extend(remove::<Secret>(&self.client, namespace, name).await.err());
        }
        errors
    }
}

fn has<K>(store: &Store<K>, namespace: &str, name: &str) -> bool
where
    K: kube::runtime::reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    store
        .get(&kube::runtime::reflector::ObjectRef::new(name).within(namespace))
        .is_some()
}

/// The addresses of a Service's load balancer.
fn addresses(service: &Service) -> Vec<(&'static str, String)> {
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let given = balancer.and_then(|balancer| balancer.ingress.as_ref());
    given
        .into_iter()
        .flatten()
        .filter_map(|entry| match (&entry.ip, &entry.hostname) {
            (Some(ip), _) => Some(("IPAddress", ip.clone())),
            (None, Some(hostname)) => Some(("Hostname", hostname.clone())),
            (None, None) => None,
        })
        .collect()
}

/// The address of a pod that is ready and stays.
fn ready_address(pod: &Pod) -> Option<IpAddr> {
    let status = pod.status.as_ref()?;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if !ready || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    status.pod_ip.as_ref()?.parse().ok()
}
