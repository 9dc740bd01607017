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
pub(in crate::layer) struct Limits {
    pub(in crate::layer) install: Duration,
    pub(in crate::layer) uninstall: Duration,
}

/// Below what a layer's bring-up may take, with time left to take away what failed.
pub(in crate::layer) const LIMITS: Limits = Limits {
    install: Duration::from_secs(220),
    uninstall: Duration::from_secs(50),
};

/// Installs Istio, and waits until istiod is available.
///
/// # Errors
/// What istioctl says, and which pod holds it up; nothing of the installation is left then.
pub(in crate::layer) async fn install(
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use semver::Version;
    use serde_json::{Value, json};

    use super::*;
    use crate::provider::tools::Tool;
    use crate::provider::{Balancer, Layers};

    /// Takes the documented arguments alone, notes them, and answers in istioctl 1.30's words. (It was never run for
    /// real; see README, "What was run for real".)
    const ISTIOCTL: &str = r#"
echo "istioctl $*" >> LOG
case "$*" in
    "install -y --set profile=minimal --readiness-timeout=200s --kubeconfig /the/kubeconfig")
        case "$(cat SAYS 2>/dev/null)" in
            fails)
                echo '✘ Istiod encountered an error: failed to wait for resource: resources not ready after 3m20s: context deadline exceeded' >&2
                echo '  Deployment/istio-system/istiod (containers with unready status: [discovery])' >&2
                echo 'Error: failed to install manifests: errors occurred during operation' >&2
                exit 1 ;;
            hangs) cat GATE ;;
        esac
        echo '✔ Istio core installed'; echo '✔ Istiod installed'; echo '✔ Installation complete' ;;
    "uninstall -y --purge --kubeconfig /the/kubeconfig") echo '✔ Uninstall complete' ;;
    *) echo "Error: unknown command or flag: $*" >&2; exit 1 ;;
esac
"#;

    struct Stage {
        dir: tempfile::TempDir,
        cluster: Cluster,
        istio: Istio,
    }

    impl Stage {
        /// A cluster in whose namespace of Istio these objects are.
        fn new(istiod: &Value, pods: &Value) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            let text = ["LOG", "SAYS", "GATE"]
                .iter()
                .fold(ISTIOCTL.to_owned(), |text, name| {
                    text.replace(name, at(name).to_str().unwrap())
                });
            crate::script::write(&at("istioctl"), &text);
            nix::unistd::mkfifo(&at("GATE"), nix::sys::stat::Mode::S_IRWXU).unwrap();
            let istio = Istio {
                istioctl: Tool {
                    path: at("istioctl"),
                    version: Version::new(1, 30, 3),
                },
                profile: "minimal",
            };
            Self {
                cluster: cluster(istiod.clone(), pods.clone()),
                dir,
                istio,
            }
        }

        async fn install(&self, limits: Limits) -> Result<(), NoVerdict> {
            install(&self.cluster, &self.istio, limits, &|_| {}).await
        }

        fn says(&self, what: &str) {
            std::fs::write(self.dir.path().join("SAYS"), what).unwrap();
        }

        fn asked(&self) -> Vec<String> {
            let log = std::fs::read_to_string(self.dir.path().join("LOG")).unwrap();
            log.lines().map(str::to_owned).collect()
        }
    }

    fn cluster(istiod: Value, pods: Value) -> Cluster {
        let api = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let path = request.uri().path();
            let (kind, items) = match path.rsplit('/').next() {
                Some("deployments") => ("DeploymentList", &istiod),
                _ => ("PodList", &pods),
            };
            let version = if kind == "PodList" { "v1" } else { "apps/v1" };
            let list = json!({
                "kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items,
            });
            let body = kube::client::Body::from(list.to_string().into_bytes());
            async { Ok::<_, std::io::Error>(http::Response::new(body)) }
        });
        Cluster {
            client: kube::Client::new(api, "default"),
            kubeconfig: "/the/kubeconfig".into(),
            provider: "toy",
            versions: BTreeMap::new(),
            outside: None,
            load_balancer: Balancer::none(),
            ingress: None,
            gateway: None,
            istio: None,
            ours: true,
            layers: Layers::all(),
            fit: crate::apply::Fit::default(),
            node_network: Ok(()),
            pid_annotation: None,
            nsenter: Vec::new(),
        }
    }

    fn istiod(available: u32) -> Value {
        json!([{
            "metadata": {"name": ISTIOD, "namespace": NAMESPACE},
            "spec": {"selector": {}, "template": {}}, "status": {"availableReplicas": available},
        }])
    }

    #[tokio::test]
    async fn istio_is_installed_by_its_own_program_into_this_cluster() {
        let stage = Stage::new(&istiod(1), &json!([]));
        stage.install(LIMITS).await.unwrap();
        assert_eq!(
            stage.asked(),
            [
                "istioctl install -y --set profile=minimal --readiness-timeout=200s --kubeconfig /the/kubeconfig"
            ]
        );
    }

    #[tokio::test]
    async fn what_failed_is_taken_away_again_and_the_pod_that_held_it_up_is_named() {
        let pod = json!([{
            "metadata": {"name": "istiod-7d9f", "namespace": NAMESPACE},
            "status": {"conditions": [{
                "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient memory.",
            }]},
        }]);
        let stage = Stage::new(&json!([]), &pod);
        stage.says("fails");
        let why = stage.install(LIMITS).await.unwrap_err();
        assert!(
            why.because().contains("resources not ready after 3m20s"),
            "{}",
            why.because()
        );
        let likely = why.likely().unwrap();
        assert_eq!(
            likely,
            "Pod istiod-7d9f is not scheduled: 0/3 nodes are available: 3 Insufficient memory."
        );
        let asked = stage.asked();
        assert_eq!(
            asked[1..],
            ["istioctl uninstall -y --purge --kubeconfig /the/kubeconfig"]
        );
    }

    #[tokio::test]
    async fn an_installation_that_hangs_is_ended_and_taken_away() {
        let stage = Stage::new(&json!([]), &json!([]));
        stage.says("hangs");
        let at_once = Limits {
            install: Duration::from_millis(1),
            ..LIMITS
        };
        let why = stage.install(at_once).await.unwrap_err();
        assert!(
            why.because()
                .contains("installing Istio did not end within 0 s"),
            "{}",
            why.because()
        );
        assert!(why.likely().unwrap().contains("2 GiB of memory"));
        assert!(
            stage
                .asked()
                .last()
                .unwrap()
                .starts_with("istioctl uninstall -y --purge")
        );
    }

    #[test]
    fn istiod_is_ready_once_a_replica_is_available() {
        let of = |available: u32| {
            let objects: Vec<Deployment> = serde_json::from_value(istiod(available)).unwrap();
            matches!(super::available(objects.first()), Progress::Ready(()))
        };
        assert!(of(1) && of(2) && !of(0));
        assert!(
            matches!(super::available(None), Progress::NotYet(why) if why.contains("there is no Deployment"))
        );
    }
}
