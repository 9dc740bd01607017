//! Namespaces of a run: made, and taken away.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams};

use super::{Applier, Manifest};
use crate::budget::{CREATE, GONE};
use crate::verdict::{Doing as _, NoVerdict};
use crate::wait::{self, Progress};

/// The label of everything that a run makes, with the run's id.
pub const RUN_LABEL: &str = "strata.dev/run";

/// Makes a namespace and waits until pods can be made in it: each takes the account `default`,
/// which a controller makes.
pub(crate) async fn open_namespace(
    applier: &Applier,
    client: &kube::Client,
    name: &str,
    labels: &BTreeMap<String, String>,
    manifest: &Manifest,
) -> Result<(), NoVerdict> {
    applier.namespace(name, labels, Some(manifest)).await?;
    let api = Api::<ServiceAccount>::namespaced(client.clone(), name);
    let what = format!("ServiceAccount default is in {name}");
    wait::object(&what, CREATE, api, "default", |account| match account {
        Some(_) => Progress::Ready(()),
        None => Progress::NotYet("its controller has not made it".to_owned()),
    })
    .await
}

/// Deletes a namespace and waits until it is gone.
pub(crate) async fn close_namespace(client: &kube::Client, name: &str) -> Result<(), NoVerdict> {
    let api = Api::<Namespace>::all(client.clone());
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error).doing(|| format!("deleting Namespace {name}")),
    }
    let what = format!("Namespace {name} is gone");
    wait::object(&what, GONE, api, name, |namespace| match namespace {
        None => Progress::Ready(()),
        Some(namespace) => Progress::NotYet(remaining(namespace)),
    })
    .await
}

/// What the API says keeps a namespace.
pub(crate) fn remaining(namespace: &Namespace) -> String {
    let conditions = namespace
        .status
        .iter()
        .flat_map(|status| &status.conditions);
    let holding = conditions.flatten().filter(|it| it.status == "True");
    let said: Vec<_> = holding.filter_map(|it| it.message.clone()).collect();
    if said.is_empty() {
        "it is still there".to_owned()
    } else {
        said.join("; ")
    }
}
