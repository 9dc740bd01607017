//! minikube's addon `ingress`: the Ingress controller of its clusters.
//!
//! Start from [`IngressAddon`]. It is ingress-nginx, which its project has retired: minikube still has no other. Its
//! IngressClass is the default one; it serves ports 80 and 443 of the first node's address. Rule: it is up once the
//! Jobs are done that give its admission webhook a certificate: until then the API refuses every Ingress.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::runtime::watcher;

use super::cli::Cli;
use crate::budget::CREATE;
use crate::pod::not_ready;
use crate::provider::{Addon, Progress};
use crate::verdict::NoVerdict;
use crate::wait;

/// Where the addon is.
const NAMESPACE: &str = "ingress-nginx";
/// The Jobs that make the webhook's certificate, and tell the API of it.
const JOBS: [&str; 2] = [
    "ingress-nginx-admission-create",
    "ingress-nginx-admission-patch",
];

/// The addon of one cluster.
pub(super) struct IngressAddon {
    pub(super) cli: Arc<Cli>,
    pub(super) client: kube::Client,
    /// Below what a layer's bring-up may take; minikube itself would wait six minutes for the addon's pods.
    pub(super) limit: Duration,
}

#[async_trait(?Send)]
impl Addon for IngressAddon {
    async fn enable(&self, progress: Progress<'_>) -> anyhow::Result<()> {
        progress("enabling minikube's addon ingress: ingress-nginx, which its project has retired");
        let arguments = ["addons", "enable", "ingress"];
        let enabled = self
            .cli
            .run("enabling the addon ingress", self.limit, &arguments)
            .await;
        if let Err(error) = enabled {
            return Err(match self.waits().await {
                Some(pod) => error.context(format!("its {pod}")),
                None => error,
            });
        }
        progress("waiting for the Jobs of the addon's admission webhook");
        let api = Api::<Job>::namespaced(self.client.clone(), NAMESPACE);
        let what = "the admission webhook of ingress-nginx has its certificate";
        let done = wait::watched(what, CREATE, api, watcher::Config::default(), done).await;
        done.map_err(NoVerdict::into_error)
            .context("the API would refuse every Ingress")
    }
}

impl IngressAddon {
    /// The first pod that is not ready, and why: minikube says only that it waited.
    async fn waits(&self) -> Option<String> {
        let api = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE);
        let pods = api.list(&ListParams::default()).await.ok()?;
        let waiting = pods.iter().filter(|pod| {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            phase != Some("Succeeded")
        });
        waiting.filter_map(not_ready).next()
    }
}

/// Whether both Jobs have succeeded.
fn done(jobs: &[&Job]) -> wait::Progress<()> {
    for name in JOBS {
        let Some(job) = jobs.iter().find(|job| job.name_any() == name) else {
            return wait::Progress::NotYet(format!("there is no Job {NAMESPACE}/{name}"));
        };
        let status = job.status.clone().unwrap_or_default();
        let mut failed = status.conditions.iter().flatten();
        if let Some(failed) = failed.find(|it| it.type_ == "Failed" && it.status == "True") {
            let why = failed.message.clone().unwrap_or_default();
            return wait::Progress::Stop(NoVerdict::new(format!(
                "Job {NAMESPACE}/{name} has failed: {why}"
            )));
        }
        if status.succeeded.unwrap_or_default() < 1 {
            return wait::Progress::NotYet(format!("Job {NAMESPACE}/{name} is not done"));
        }
    }
    wait::Progress::Ready(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(name: &str, status: &Value) -> Job {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
    }

    #[test]
    fn both_jobs_have_to_be_done() {
        let [create, patch] = JOBS;
        let succeeded = json!({"succeeded": 1});
        let created = job(create, &succeeded);
        let said = |patched: Option<&Job>| {
            let jobs: Vec<_> = std::iter::once(&created).chain(patched).collect();
            match done(&jobs) {
                wait::Progress::Ready(()) => "ready".to_owned(),
                wait::Progress::NotYet(why) => why,
                wait::Progress::Stop(why) => format!("stop: {}", why.because()),
            }
        };
        assert_eq!(
            said(None),
            "there is no Job ingress-nginx/ingress-nginx-admission-patch"
        );
        assert_eq!(
            said(Some(&job(patch, &json!({"active": 1})))),
            "Job ingress-nginx/ingress-nginx-admission-patch is not done"
        );
        let failed = json!({"failed": 7, "conditions": [{"type": "Failed", "status": "True", "message": "Job has reached the specified backoff limit"}]});
        assert_eq!(
            said(Some(&job(patch, &failed))),
            "stop: Job ingress-nginx/ingress-nginx-admission-patch has failed: Job has reached the specified backoff limit"
        );
        assert_eq!(said(Some(&job(patch, &succeeded))), "ready");
    }
}
