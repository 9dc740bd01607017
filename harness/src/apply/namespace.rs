//! Namespaces of a run: made, and taken away.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams};

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

/// How long pods of a namespace that goes may take to end, in seconds: what they serve is nobody's any longer, and proxies
/// of Gateways give themselves minutes.
const GRACE: u32 = 1;

/// Deletes a namespace and waits until it is gone.
pub(crate) async fn close_namespace(client: &kube::Client, name: &str) -> Result<(), NoVerdict> {
    let api = Api::<Namespace>::all(client.clone());
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error).doing(|| format!("deleting Namespace {name}")),
    }
    hasten(client, name).await?;
    let what = format!("Namespace {name} is gone");
    wait::object(&what, GONE, api, name, |namespace| match namespace {
        None => Progress::Ready(()),
        Some(namespace) => Progress::NotYet(remaining(namespace)),
    })
    .await
}

/// Has the pods of a namespace end within [`GRACE`].
async fn hasten(client: &kube::Client, namespace: &str) -> Result<(), NoVerdict> {
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let pods = api.list(&ListParams::default()).await;
    let pods = pods.doing(|| format!("listing the pods of Namespace {namespace}"))?;
    let slow = pods.items.iter().filter(|pod| grace_of(pod) > GRACE.into());
    for pod in slow {
        let name = pod.name_any();
        match api
            .delete(&name, &DeleteParams::default().grace_period(GRACE))
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).doing(|| format!("deleting Pod {namespace}/{name}")),
        }
    }
    Ok(())
}

/// How many seconds a pod is given to end.
fn grace_of(pod: &Pod) -> i64 {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let own = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    // Kubernetes' default.
    asked.or(own).unwrap_or(30)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_takes_what_was_asked_else_its_own_time_else_half_a_minute() {
        for (asked, own, expected) in [
            (json!(2), json!(60), 2),
            (json!(null), json!(60), 60),
            (json!(null), json!(null), 30),
        ] {
            let pod = json!({
                "metadata": { "deletionGracePeriodSeconds": asked },
                "spec": { "containers": [], "terminationGracePeriodSeconds": own },
            });
            let pod = serde_json::from_value(pod).unwrap();
            assert_eq!(grace_of(&pod), expected, "{pod:?}");
        }
    }
}
