//! Diagnosing the mesh: sidecars, hosts, splits.
//!
//! Start from [`diagnose_sidecar`] and [`diagnose_split`]. What follows from what is seen is in
//! [`sidecar`] and [`split`]. Istio's objects are read without its types: where the API does not
//! serve them there is nothing to say.

pub(super) mod install;
pub(super) mod objects;
pub(super) mod sidecar;
pub(super) mod split;

#[cfg(test)]
pub(super) mod tests;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;

use self::objects::{Read, read};
pub(super) use self::sidecar::has_sidecar;
use super::labels::Labels;
use super::look::Look;
use crate::verdict::{Cause, NoVerdict};

/// The group of the objects that route.
const GROUP: &str = "networking.istio.io";
/// Its versions, the newest first.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha3"];

/// Names the cause why pods have no sidecar.
pub(super) async fn diagnose_sidecar(
    look: Look<'_>,
    namespace: &str,
    apps: &[&str],
) -> Result<Option<Cause>, NoVerdict> {
    let namespaces: Vec<Namespace> = look.all().await?;
    let Some(found) = namespaces.into_iter().find(|it| it.name_any() == namespace) else {
        return Ok(None);
    };
    let webhooks: Vec<MutatingWebhookConfiguration> = look.all().await?;
    let only = match apps {
        [app] => Labels::from([("app".to_owned(), (*app).to_owned())]),
        _ => Labels::new(),
    };
    Ok(sidecar::cause(&sidecar::Seen {
        namespace: found,
        apps: apps.iter().map(|app| (*app).to_owned()).collect(),
        workload: look.workload(namespace, only).await?,
        webhooks,
        slices: look.all().await?,
    }))
}

/// Names the cause why a VirtualService leads nowhere, or not by the weights that are expected.
pub(super) async fn diagnose_split(
    look: Look<'_>,
    namespace: &str,
    virtual_service: &str,
    expected: Vec<(String, f64)>,
    observed: Vec<(String, f64)>,
) -> Result<Option<Cause>, NoVerdict> {
    let objects = objects_of(look, namespace, "VirtualService").await?;
    Ok(split::cause(&split::Seen {
        namespace: namespace.to_owned(),
        name: virtual_service.to_owned(),
        expected,
        observed,
        virtual_services: objects,
        destination_rules: objects_of(look, namespace, "DestinationRule").await?,
        service_entries: objects_of(look, namespace, "ServiceEntry").await?,
        services: look.services().await?,
        slices: look.within(namespace).await?,
        workload: look.workload(namespace, Labels::new()).await?,
    }))
}

async fn objects_of<T: DeserializeOwned>(
    look: Look<'_>,
    namespace: &str,
    kind: &str,
) -> Result<Vec<Read<T>>, NoVerdict> {
    let found = look
        .untyped(Some(namespace), GROUP, &VERSIONS, kind)
        .await?;
    Ok(found.iter().filter_map(read).collect())
}
