//! The Ingress controller: Ingress objects (networking.k8s.io/v1) become Envoy's routes.
//!
//! Start from [`run`], the task of image `lab.strata.dev/ingress-controller:v1`; what it decides is
//! in [`translate`], which is pure. It serves the IngressClasses whose controller is
//! [`CONTROLLER`], writes one ConfigMap and one Secret beside itself, which Envoy's pods mount, and
//! gives each Ingress the address of their Service.

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
use super::cluster::Services;
use super::envoy::bootstrap::{Bootstrap, bootstrap};
use super::publish::{Publisher, config_map, metadata, secret};
use super::ready;
use super::world::World;
use crate::node::builtin::BuiltinContext;

/// `spec.controller` of the IngressClasses that are ours.
pub(crate) const CONTROLLER: &str = "lab.strata.dev/ingress-controller";
/// The ConfigMap, Secret and Service of Envoy, in the controller's own namespace.
const ENVOY: &str = "envoy";
/// Where Envoy's pods mount the ConfigMap.
const DIRECTORY: &str = "/etc/envoy";
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
    let cancel = context.cancel.clone();
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = control(context) => ended,
    }
}

async fn control(context: BuiltinContext) -> anyhow::Result<()> {
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
    let _ready = ready::serve(&context.netns)?;
    (context.log)("watching Ingresses of every namespace");
    let mut publisher = Publisher::new(client.clone(), "ingress-controller");
    loop {
        if let Err(error) = reconcile(&client, &namespace, &stores, &fallback, &mut publisher).await
        {
            // The next change tries again; what Envoy has stays in force until then.
            (context.log)(&format!("{error:#}"));
        }
        world.changed().await;
    }
}

async fn reconcile(
    client: &Client,
    namespace: &str,
    stores: &Stores,
    fallback: &Certificate,
    publisher: &mut Publisher,
) -> anyhow::Result<()> {
    let input = Input {
        classes: stores.classes.state(),
        ingresses: stores.ingresses.state(),
        services: Services::new(stores.services.state(), stores.slices.state()),
        certificates: certificates(&stores.secrets.state()),
        fallback: fallback.clone(),
    };
    let snapshot = translate(&input);
    let start = bootstrap(&Bootstrap {
        id: "ingress-envoy",
        cluster: "ingress-envoy",
        directory: DIRECTORY,
        mark: None,
    });
    let labels = [("app.kubernetes.io/managed-by", "ingress-controller")];
    // Secrets first: a listener that names one not yet there would wait for it.
    let keys = secret(metadata(namespace, ENVOY, &labels), snapshot.secret_files());
    publisher.apply(&keys).await?;
    publisher
        .apply(&config_map(
            metadata(namespace, ENVOY, &labels),
            snapshot.files(&start),
        ))
        .await?;
    let addresses = addresses(input.services.find(namespace, ENVOY));
    for ingress in input.served() {
        write_status(client, ingress, &addresses).await?;
    }
    Ok(())
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
