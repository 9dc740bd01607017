//! The Ingress controller: Ingress objects (networking.k8s.io/v1) become Envoy's routes.
//!
//! Start from [`run`], the task of image `lab.strata.dev/ingress-controller:v1`; what it decides is
//! in [`translate`], which is pure. It serves the IngressClasses whose controller is
//! [`CONTROLLER`], tells the Envoys beside it over xDS, writes the ConfigMap and Secret that their pods
//! mount, and gives each Ingress the address of their Service.

mod host;
mod translate;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

pub(crate) use self::translate::Certificate;
use self::translate::{Input, translate};
use super::HOLDOFF;
use super::cluster::Services;
use super::envoy::bootstrap::{Bootstrap, bootstrap_files};
use super::publish::{Publisher, config_map, metadata, secret};
use super::ready;
use super::serve::{Servers, until_stopped};
use super::world::World;
use crate::builtin::BuiltinContext;
use crate::xds::{Shared, Xds};

/// `spec.controller` of the IngressClasses that are ours.
pub(crate) const CONTROLLER: &str = "lab.strata.dev/ingress-controller";
/// The ConfigMap, Secret and Service of Envoy, in the controller's own namespace.
const ENVOY: &str = "envoy";
/// The Service of the controller itself, and the port where it serves Envoy's configuration.
const SERVICE: &str = "ingress-controller";
const XDS_PORT: u16 = 8001;
/// What its Envoys are told as.
const GROUP: &str = "ingress-envoy";
/// Where Envoy's pods mount the Secret.
const SECRETS: &str = "/etc/envoy-secrets";

struct Stores {
    classes: Store<IngressClass>,
    ingresses: Store<Ingress>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    secrets: Store<Secret>,
}

/// Runs until the container is stopped.
///
/// # Errors
/// When the default certificate cannot be made.
pub(crate) async fn run(context: BuiltinContext) -> anyhow::Result<()> {
    until_stopped(context, control).await
}

async fn control(context: BuiltinContext, servers: &mut Servers) -> anyhow::Result<()> {
    let client = context.client.clone();
    let namespace = context.pod.namespace().unwrap_or_default();
    let fallback = fallback_certificate()?;
    let mut world = World::default();
    let stores = Stores {
        classes: world.watch(Api::all(client.clone())),
        ingresses: world.watch(Api::all(client.clone())),
        services: world.watch(Api::all(client.clone())),
        slices: world.watch(Api::all(client.clone())),
        secrets: world.watch(Api::all(client.clone())),
    };
    world.ready().await;
    let xds = Xds::new(context.log.clone());
    servers.serve(&context.netns, XDS_PORT, xds.router())?;
    servers.serve(&context.netns, ready::PORT, ready::router())?;
    (context.log)("watching Ingresses of every namespace");
    let mut controller = Controller {
        publisher: Publisher::new(client.clone(), "ingress-controller"),
        client,
        namespace,
        stores,
        fallback,
        xds,
    };
    loop {
        if let Err(error) = controller.reconcile().await {
            // The next change tries again; what Envoy has stays in force until then.
            (context.log)(&format!("{error:#}"));
        }
        world.settled(HOLDOFF).await;
    }
}

struct Controller {
    client: Client,
    namespace: String,
    stores: Stores,
    fallback: Certificate,
    publisher: Publisher,
    xds: Xds,
}

impl Controller {
    async fn reconcile(&mut self) -> anyhow::Result<()> {
        let stores = &self.stores;
        let input = Input {
            classes: stores.classes.state(),
            ingresses: stores.ingresses.state(),
            services: Services::new(stores.services.state(), stores.slices.state()),
            certificates: certificates(&stores.secrets.state()),
            fallback: self.fallback.clone(),
        };
        let snapshot = translate(&input);
        let start = bootstrap_files(&Bootstrap {
            group: GROUP,
            control_plane: (&self.namespace, SERVICE, XDS_PORT),
            mark: None,
        });
        let labels = [("app.kubernetes.io/managed-by", "ingress-controller")];
        let of_envoy = metadata(&self.namespace, ENVOY, &labels);
        // Secrets first: a listener that names one not yet there is refused.
        let keys = secret(of_envoy.clone(), snapshot.secret_files());
        self.publisher.apply(&keys).await?;
        self.publisher.apply(&config_map(of_envoy, start)).await?;
        self.xds.publish(GROUP, &Shared::default(), snapshot.into());
        let addresses = addresses(input.services.find(&self.namespace, ENVOY));
        for ingress in input.served() {
            write_status(&self.client, ingress, &addresses).await?;
        }
        Ok(())
    }
}

/// The addresses of the Service in front of Envoy, in the form of an Ingress's status.
fn addresses(service: Option<&Service>) -> serde_json::Value {
    let ingress = service
        .and_then(|service| {
            service
                .status
                .as_ref()?
                .load_balancer
                .as_ref()?
                .ingress
                .as_ref()
        })
        .map(|ingress| {
            let address = |entry: &k8s_openapi::api::core::v1::LoadBalancerIngress| match (
                &entry.ip,
                &entry.hostname,
            ) {
                (Some(ip), _) => json!({ "ip": ip }),
                (None, hostname) => json!({ "hostname": hostname }),
            };
            ingress.iter().map(address).collect::<Vec<_>>()
        });
    json!(ingress.unwrap_or_default())
}

async fn write_status(
    client: &Client,
    ingress: &Ingress,
    addresses: &serde_json::Value,
) -> anyhow::Result<()> {
    let current = ingress
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let current = serde_json::to_value(current.and_then(|balancer| balancer.ingress.as_ref()))?;
    let none = current.is_null() && addresses.as_array().is_some_and(Vec::is_empty);
    if none || &current == addresses {
        return Ok(());
    }
    let namespace = ingress.namespace().unwrap_or_default();
    let api: Api<Ingress> = Api::namespaced(client.clone(), &namespace);
    let status = json!({ "status": { "loadBalancer": { "ingress": addresses } } });
    match api
        .patch_status(
            &ingress.name_any(),
            &PatchParams::default(),
            &Patch::Merge(status),
        )
        .await
    {
        // Deleted meanwhile: there is nothing to tell.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(anyhow::anyhow!(
            "status of Ingress {namespace}/{}: {error}",
            ingress.name_any()
        )),
        Ok(_) => Ok(()),
    }
}

/// The `kubernetes.io/tls` Secrets that hold text for both of their keys.
pub(crate) fn certificates(secrets: &[Arc<Secret>]) -> BTreeMap<(String, String), Certificate> {
    secrets
        .iter()
        .filter_map(|secret| {
            let text = |key: &str| {
                String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone())
                    .ok()
                    .filter(|text| !text.is_empty())
            };
            let certificate = Certificate {
                chain: text("tls.crt")?,
                key: text("tls.key")?,
            };
            Some((
                (secret.namespace().unwrap_or_default(), secret.name_any()),
                certificate,
            ))
        })
        .collect()
}

/// What a client is shown that names no host of ours.
fn fallback_certificate() -> anyhow::Result<Certificate> {
    let made = rcgen::generate_simple_self_signed(["ingress.local".to_owned()])?;
    Ok(Certificate {
        chain: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    })
}
