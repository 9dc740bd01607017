//! Controllers that other projects publish as one file, pinned in `manifests/assets.yaml`.
//!
//! Start from [`Upstream::find`]. Who makes a cluster of its own looks for them beforehand, so that a layer
//! whose controller cannot be had is skipped with the reason; [`Controller`] installs one as its layer is
//! brought up. Rule: into a cluster that somebody has nothing of this is installed.

use std::sync::Arc;

use async_trait::async_trait;
use kube::Client;
use semver::{Prerelease, Version, VersionReq};

use super::{Addon, Balancer, Progress};
use crate::apply::{Applier, Fit, Manifest, install};
use crate::asset::Assets;
use crate::budget::INSTALL;
use crate::run::RunInfo;
use crate::stack::Layer;
use crate::verdict::NoVerdict;

/// ingress-nginx does not call its class the default one, and Ingresses of the tutorial name none.
const DEFAULT_INGRESS_CLASS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: nginx
  annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}
spec: {controller: k8s.io/ingress-nginx}
";
/// No file of Contour's makes a class: its provisioner serves those that name it.
const CONTOUR_CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: contour}
spec: {controllerName: projectcontour.io/gateway-controller}
";

/// Contour, by its Gateway provisioner.
pub(super) const CONTOUR: Part = Part {
    called: "contour",
    asset: "contour-gateway-provisioner",
    kubernetes: ">=1.32, <1.35",
};

/// What can be installed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// What it is called in reports.
    pub(super) called: &'static str,
    /// Its name in `manifests/assets.yaml`.
    pub(super) asset: &'static str,
    /// The versions of Kubernetes that its project lists for the version that is pinned.
    pub(super) kubernetes: &'static str,
}

/// A project's file, verified and read.
#[derive(Debug)]
pub(super) struct Upstream {
    part: Part,
    /// Which version of it is pinned.
    version: String,
    manifest: Manifest,
}

impl Upstream {
    /// The file of an asset, fetched if it has to be.
    ///
    /// # Errors
    /// Why it cannot be had, as what needs it is skipped with.
    pub(super) async fn find(
        assets: &Assets,
        part: Part,
        progress: Progress<'_>,
    ) -> Result<Self, String> {
        let Part { called, asset, .. } = part;
        let listed = assets.listed().iter().find(|it| it.name == asset);
        let version = listed.map(|it| it.version.clone()).unwrap_or_default();
        let cannot = |why: String| format!("{called} {version} cannot be had: {why}");
        let path = assets.get(asset, progress).await;
        let path = path.map_err(|error| cannot(error.to_string()))?;
        let manifest = Manifest::load(&path, &path.display().to_string());
        let manifest = manifest.map_err(|error| cannot(error.to_string()))?;
        Ok(Self {
            part,
            version,
            manifest,
        })
    }

    /// What it is called in reports, with its version.
    pub(super) fn shown(&self) -> (String, String) {
        (self.part.called.to_owned(), self.version.clone())
    }

    /// [`Self::find`] for a layer, if the run plans it.
    ///
    /// # Errors
    /// Why the layer is skipped.
    pub(super) async fn planned(
        run: &RunInfo,
        layer: Layer,
        assets: &Assets,
        part: Part,
        progress: Progress<'_>,
    ) -> Result<Self, String> {
        match run.manifests.layer(layer) {
            Some(_) => Self::find(assets, part, progress).await,
            None => Err(format!("this run plans no {layer}")),
        }
    }

    /// Itself, where its project lists this version of Kubernetes, and something gives it the address that it is
    /// reached by.
    ///
    /// # Errors
    /// Why it is of no use.
    pub(super) fn on(self, kubernetes: &str, balancer: &Balancer) -> Result<Self, String> {
        let Part {
            called,
            kubernetes: lists,
            ..
        } = self.part;
        if !listed(lists, kubernetes) {
            let version = &self.version;
            return Err(format!(
                "{called} {version} is for Kubernetes {lists}, and this is {kubernetes}"
            ));
        }
        match balancer {
            Balancer::None(why) => Err(format!(
                "{called} is reached by a load balancer, and there is none: {why}"
            )),
            Balancer::Own | Balancer::ClusterIps => Ok(self),
        }
    }

    /// Applies it, then more that its kinds are needed for, and waits until all of it works.
    ///
    /// # Errors
    /// When the API refuses something, or something never gets ready.
    pub(super) async fn install(
        &self,
        (client, run): (&Client, &str),
        more: Option<&str>,
        progress: Progress<'_>,
    ) -> anyhow::Result<()> {
        let called = self.part.called;
        progress(&format!("installing {called} {}", self.version));
        let shown = format!("what {called} is told");
        let more = more.map(|text| Manifest::parse(text, &shown)).transpose()?;
        let applier = Applier::new(client.clone(), Fit::default(), run);
        for manifest in [&self.manifest].into_iter().chain(&more) {
            let installed = install(&applier, client, manifest, INSTALL, progress).await;
            installed.map_err(NoVerdict::into_error)?;
        }
        Ok(())
    }
}

/// Whether a range has a version as the API server tells it (`v1.34.1-gke.7`).
fn listed(range: &str, version: &str) -> bool {
    let version = version.trim_start_matches('v');
    let (Ok(range), Ok(mut version)) = (VersionReq::parse(range), Version::parse(version)) else {
        return false;
    };
    version.pre = Prerelease::EMPTY;
    range.matches(&version)
}

/// A layer's controller, not yet installed.
pub(super) struct Controller {
    upstream: Upstream,
    client: Client,
    run: String,
    more: &'static str,
}

impl Controller {
    /// ingress-nginx, as the default IngressClass.
    pub(super) fn ingress(upstream: Upstream, client: &Client, run: &str) -> Arc<dyn Addon> {
        Self::of(upstream, client, run, DEFAULT_INGRESS_CLASS)
    }

    /// Contour's Gateway provisioner, with a GatewayClass `contour`.
    pub(super) fn gateway(upstream: Upstream, client: &Client, run: &str) -> Arc<dyn Addon> {
        Self::of(upstream, client, run, CONTOUR_CLASS)
    }

    fn of(upstream: Upstream, client: &Client, run: &str, more: &'static str) -> Arc<dyn Addon> {
        Arc::new(Self {
            upstream,
            client: client.clone(),
            run: run.to_owned(),
            more,
        })
    }
}

#[async_trait(?Send)]
impl Addon for Controller {
    async fn enable(&self, progress: Progress<'_>) -> anyhow::Result<()> {
        let of = (&self.client, self.run.as_str());
        self.upstream.install(of, Some(self.more), progress).await
    }
}

#[cfg(test)]
mod tests {
    use gateway_api::gatewayclasses::GatewayClass;
    use k8s_openapi::api::networking::v1::IngressClass;
    use kube::Api;
    use strata_lab::api::ApiServer;

    use super::*;
    use crate::settings::workspace;

    fn upstream(called: &'static str, text: &str) -> Upstream {
        Upstream {
            part: Part {
                called,
                asset: "",
                kubernetes: ">=1.32, <1.35",
            },
            version: "v1".to_owned(),
            manifest: Manifest::parse(text, "upstream.yaml").unwrap(),
        }
    }

    #[test]
    fn what_a_project_does_not_list_is_not_installed() {
        let on = |kubernetes: &str, balancer| {
            let on = upstream("Contour", CONTOUR_CLASS).on(kubernetes, &balancer);
            on.map(drop).err().unwrap_or_default()
        };
        for version in ["v1.32.0", "v1.34.1", "v1.34.1-gke.7", "v1.33.2+k3s1"] {
            assert_eq!(on(version, Balancer::Own), "", "{version}");
        }
        for version in ["v1.20.2", "v1.35.0", "v1.36.0-rc.0"] {
            let why = format!("Contour v1 is for Kubernetes >=1.32, <1.35, and this is {version}");
            assert_eq!(on(version, Balancer::Own), why);
        }
        let why = on("v1.34.1", Balancer::none());
        assert!(why.contains("reached by a load balancer"), "{why}");
    }

    #[tokio::test]
    async fn classes_that_no_project_s_file_makes_are_made() {
        let client = ApiServer::alone().unwrap().client("admin");
        let kinds = workspace().join("manifests/gateway/lab-crds.yaml");
        let kinds = std::fs::read_to_string(kinds).unwrap();
        let contour = Controller::gateway(upstream("Contour", &kinds), &client, "run");
        contour.enable(&|_| {}).await.unwrap();
        let classes = Api::<GatewayClass>::all(client.clone());
        let class = classes.get("contour").await.unwrap();
        assert_eq!(
            class.spec.controller_name,
            "projectcontour.io/gateway-controller"
        );

        let published = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx, labels: {app.kubernetes.io/name: ingress-nginx}}
spec: {controller: k8s.io/ingress-nginx}
";
        let nginx = Controller::ingress(upstream("ingress-nginx", published), &client, "run");
        nginx.enable(&|_| {}).await.unwrap();
        let classes = Api::<IngressClass>::all(client);
        let class = classes.get("nginx").await.unwrap();
        let annotations = class.metadata.annotations.unwrap();
        assert_eq!(
            annotations["ingressclass.kubernetes.io/is-default-class"],
            "true"
        );
    }
}
