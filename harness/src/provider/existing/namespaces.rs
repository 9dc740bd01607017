//! What a run makes in somebody's cluster, from the first namespace to the last that goes.
//!
//! Start from [`open`] and [`remove`]. Everything carries the run's label. Rule: what has not this
//! run's label is not touched, whatever it is called.

use anyhow::Context as _;
use gateway_api::gatewayclasses::GatewayClass;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::apply::{Fit, RUN_LABEL, close_namespace};
use crate::budget::CREATE;
use crate::verdict::NoVerdict;
use crate::wait::{self, Progress};

/// The namespace that shows what the cluster takes, and that a run goes on.
pub(super) fn first(run: &str) -> String {
    format!("strata-{run}")
}

/// Makes the first namespace, and finds out whether its pods may use their node's network or ports.
///
/// # Errors
/// When the API refuses the namespace, or cannot be asked.
pub(super) async fn open(
    client: &Client,
    fit: &Fit,
    run: &str,
) -> anyhow::Result<Result<(), String>> {
    let name = first(run);
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.clone());
    namespace
        .labels_mut()
        .insert(RUN_LABEL.to_owned(), run.to_owned());
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .with_context(|| format!("cannot make Namespace {name}"))?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &name);
    let what = format!("ServiceAccount default is in {name}");
    let there = wait::object(
        &what,
        CREATE,
        accounts,
        "default",
        |account| match account {
            Some(_) => Progress::Ready(()),
            None => Progress::NotYet("its controller has not made it".to_owned()),
        },
    );
    there.await.map_err(told)?;
    node_network(client, fit, &name).await
}

fn told(no_verdict: NoVerdict) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", no_verdict.doing(), no_verdict.because())
}

/// Asks whether a pod in its node's network, with a port of its node's, would be admitted; nothing is
/// made.
async fn node_network(
    client: &Client,
    fit: &Fit,
    namespace: &str,
) -> anyhow::Result<Result<(), String>> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "would-be"},
        "spec": {
            "hostNetwork": true,
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "probe",
                "image": fit.probe.reference,
                "ports": [{"containerPort": 18080, "hostPort": 18080}],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    }))
    .context("the pod that is only asked about is no pod")?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    match api.create(&dry_run, &pod).await {
        Ok(_) => Ok(Ok(())),
        Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
        Err(error) => Err(error).context("cannot ask whether pods may use their node's network"),
    }
}

/// Removes everything of a run, and looks again until there is nothing: a request that was under way
/// when the run ended may have been granted since.
pub(super) async fn remove(client: &Client, run: &str) -> anyhow::Result<()> {
    let of_the_run = ListParams::default().labels(&format!("{RUN_LABEL}={run}"));
    let namespaces = Api::<Namespace>::all(client.clone());
    loop {
        let list = namespaces.list(&of_the_run).await;
        let there = list.context("cannot list the run's namespaces")?.items;
        if there.is_empty() {
            break;
        }
        let gone = there.iter().map(|it| close(client, it));
        futures::future::try_join_all(gone).await?;
    }
    let classes = Api::<GatewayClass>::all(client.clone());
    match classes.list(&of_the_run).await {
        Ok(list) => {
            for class in list.items {
                let params = only(class.uid());
                classes
                    .delete(&class.name_any(), &params)
                    .await
                    .with_context(|| format!("cannot delete GatewayClass {}", class.name_any()))?;
            }
            Ok(())
        }
        // No Gateway API, or no right to it: then the run has made none either.
        Err(kube::Error::Api(status)) if [403, 404].contains(&status.code) => Ok(()),
        Err(error) => Err(error).context("cannot list the run's GatewayClasses"),
    }
}

async fn close(client: &Client, namespace: &Namespace) -> anyhow::Result<()> {
    close_namespace(client, &namespace.name_any())
        .await
        .map_err(told)
}

/// Deletes this very object, and not another that has its name by now.
fn only(uid: Option<String>) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            ..Preconditions::default()
        }),
        ..DeleteParams::default()
    }
}
