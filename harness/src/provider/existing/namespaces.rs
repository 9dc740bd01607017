//! What a run makes in somebody's cluster, from the first namespace to the last that goes.
//!
//! Start from [`open`] and [`remove`]. Everything carries the run's label. Rule: what has not this
//! run's label is not touched, whatever it is called.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Context as _;
use gateway_api::gatewayclasses::GatewayClass;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::apply::{Fit, RUN_LABEL, remaining};
use crate::budget::{Budget, CREATE, GONE};
use crate::verdict::NoVerdict;
use crate::wait::{self, Progress};

/// Namespaces go as slowly as the cluster likes: their controller looks again at ever longer intervals,
/// and a kubelet that missed the end of a pod once a minute.
const REMOVED: Budget = Budget {
    name: "removed",
    within: Duration::from_secs(240),
    ..GONE
};

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
    let label = format!("{RUN_LABEL}={run}");
    let of_the_run = ListParams::default().labels(&label);
    let namespaces = Api::<Namespace>::all(client.clone());
    loop {
        let list = namespaces.list(&of_the_run).await;
        let there = list.context("cannot list the run's namespaces")?.items;
        if there.is_empty() {
            break;
        }
        for namespace in &there {
            delete(&namespaces, namespace).await?;
        }
        let selection = watcher::Config::default().labels(&label);
        let what = "the run's namespaces are gone";
        let gone = wait::watched(
            what,
            REMOVED,
            namespaces.clone(),
            selection,
            |left| match left.first() {
                None => Progress::Ready(()),
                Some(namespace) => Progress::NotYet(remaining(namespace)),
            },
        );
        gone.await.map_err(told)?;
    }
    let classes = Api::<GatewayClass>::all(client.clone());
    match classes.list(&of_the_run).await {
        Ok(list) => {
            for class in &list.items {
                delete(&classes, class).await?;
            }
            Ok(())
        }
        // No Gateway API, or no right to it: then the run has made none either.
        Err(kube::Error::Api(status)) if [403, 404].contains(&status.code) => Ok(()),
        Err(error) => Err(error).context("cannot list the run's GatewayClasses"),
    }
}

/// Deletes this very object, and not another that has its name by now. One that goes already is left
/// to it.
async fn delete<K>(api: &Api<K>, object: &K) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if object.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let name = object.name_any();
    let this = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            ..Preconditions::default()
        }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &this).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot delete {} {name}", K::kind(&()))),
    }
}
