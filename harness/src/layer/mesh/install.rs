//! Installing Istio by its own `istioctl`, on clusters that have no mesh of their own.
//!
//! Start from [`install`]. The profile `minimal` is istiod alone, which is all that sidecars need. Rule: an
//! installation that failed is taken away again, so that half a mesh does not stand in the way of the layers above;
//! one that worked goes with its cluster, which is the run's own.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

use crate::budget::CREATE;
use crate::pod::not_ready;
use crate::provider::step::Step;
use crate::provider::{Cluster, Istio};
use crate::verdict::{Doing as _, NoVerdict};
use crate::wait::{self, Progress};

/// Where istioctl installs istiod.
const NAMESPACE: &str = "istio-system";
const ISTIOD: &str = "istiod";
/// What istioctl itself allows istiod to get ready, images and all.
const READY: &str = "--readiness-timeout=200s";

/// How long istioctl may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) install: Duration,
    pub(super) uninstall: Duration,
}

/// Below what a layer's bring-up may take, with time left to take away what failed.
pub(super) const LIMITS: Limits = Limits {
    install: Duration::from_secs(220),
    uninstall: Duration::from_secs(50),
};

/// Installs Istio, and waits until istiod is available.
///
/// # Errors
/// What istioctl says, and which pod holds it up; nothing of the installation is left then.
pub(super) async fn install(
    cluster: &Cluster,
    istio: &Istio,
    limits: Limits,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(), NoVerdict> {
    let Istio { istioctl, profile } = istio;
    progress(&format!(
        "installing Istio {} (profile {profile})",
        istioctl.version
    ));
    let installed = installed(cluster, istio, limits).await;
    let Err(why) = installed else { return Ok(()) };
    // Looked at before it is taken away.
    let pod = waits(&cluster.client).await;
    progress("taking away what was installed");
    let arguments = ["uninstall", "-y", "--purge"];
    let step = istioctl_of(
        cluster,
        istio,
        "uninstalling Istio",
        limits.uninstall,
        &arguments,
    );
    if let Err(left) = step.run().await {
        tracing::warn!("half a mesh may be left: {left:#}");
    }
    let likely = pod.unwrap_or_else(|| {
        "istiod asks for 2 GiB of memory; where nodes have less, it is not scheduled".to_owned()
    });
    Err(why.with_likely(likely))
}

async fn installed(cluster: &Cluster, istio: &Istio, limits: Limits) -> Result<(), NoVerdict> {
    let profile = format!("profile={}", istio.profile);
    let arguments = ["install", "-y", "--set", &profile, READY];
    let step = istioctl_of(
        cluster,
        istio,
        "installing Istio",
        limits.install,
        &arguments,
    );
    step.run()
        .await
        .doing(|| "bringing up the mesh".to_owned())?;
    let api = Api::<Deployment>::namespaced(cluster.client.clone(), NAMESPACE);
    let what = format!("Deployment {NAMESPACE}/{ISTIOD} is available");
    wait::object(&what, CREATE, api, ISTIOD, available).await
}

/// A command of istioctl's about this cluster, whatever the person's own context is.
fn istioctl_of<'a>(
    cluster: &Cluster,
    istio: &'a Istio,
    doing: &'static str,
    limit: Duration,
    arguments: &[&str],
) -> Step<'a> {
    let program: &Path = &istio.istioctl.path;
    Step::new(program, doing, limit, arguments).kubeconfig(&cluster.kubeconfig)
}

fn available(istiod: Option<&Deployment>) -> Progress<()> {
    let Some(istiod) = istiod else {
        return Progress::NotYet(format!("there is no Deployment {NAMESPACE}/{ISTIOD}"));
    };
    let status = istiod.status.as_ref();
    match status.and_then(|status| status.available_replicas) {
        Some(1..) => Progress::Ready(()),
        _ => Progress::NotYet(format!(
            "Deployment {NAMESPACE}/{ISTIOD} has no available replica"
        )),
    }
}

/// The first pod of the control plane that is not ready, and why.
async fn waits(client: &kube::Client) -> Option<String> {
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let pods = tokio::time::timeout(CREATE.within, api.list(&ListParams::default())).await;
    pods.ok()?.ok()?.iter().find_map(not_ready)
}
