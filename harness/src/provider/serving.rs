//! Who serves Ingresses and Gateways in a cluster that was made for the run, and has nobody of its own.
//!
//! Start from [`Serving::by`], which reads who is wanted; [`Server::find`] looks for it before there is a cluster, so that a
//! layer whose controller cannot be had is skipped with the reason, and [`Found::on`] says whether it is of use on
//! the cluster that came to be. It is installed as its layer is brought up. Rule: into a cluster that
//! somebody has nothing of this is installed.

use std::sync::Arc;

use async_trait::async_trait;
use kube::Client;

use super::upstream::{Part, Upstream};
use super::{Addon, Balancer, Cluster, Progress};
use crate::apply::GATEWAY_CLASS;
use crate::asset::Assets;
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};
use crate::stack::Layer;

/// Somebody who can be installed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    /// What it is called in settings.
    name: &'static str,
    /// What its project publishes for it.
    part: Part,
    /// What belongs to it besides: its class, and where there is no file of its project's, all of it.
    more: &'static str,
    /// The class that Gateways name; an Ingress of no class is of the one that is marked for that.
    class: &'static str,
    /// Whether its controller is the mesh's.
    of_mesh: bool,
}

/// ingress-nginx does not call its class the default one, and Ingresses of the tutorial name none. Retired: best
/// effort ended in March 2026.
const NGINX: Server = Server {
    name: "ingress-nginx",
    part: Part {
        called: "ingress-nginx",
        asset: Some("ingress-nginx-cloud"),
        kubernetes: ">=1.21, <1.36",
    },
    more: "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: nginx
  annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}
spec: {controller: k8s.io/ingress-nginx}
",
    class: "",
    of_mesh: false,
};
/// Contour's quickstart makes no class, and serves Ingresses of this one.
const CONTOUR_INGRESS: Server = Server {
    name: "contour",
    part: Part {
        called: "contour",
        asset: Some("contour"),
        kubernetes: ">=1.32, <1.35",
    },
    more: "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: contour
  annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}
spec: {controller: projectcontour.io/ingress-controller}
",
    class: "",
    of_mesh: false,
};
/// Its project publishes a chart and pages of manifests, and no file to apply.
const TRAEFIK_INGRESS: Server = Server {
    name: "traefik",
    part: Part {
        called: "traefik",
        asset: None,
        kubernetes: ">=1.25",
    },
    more: include_str!("../../../manifests/ingress/traefik.yaml"),
    class: "",
    of_mesh: false,
};
/// No file of Contour's makes a class: its provisioner serves those that name it.
const CONTOUR: Server = Server {
    name: "contour",
    part: Part {
        called: "contour",
        asset: Some("contour-gateway-provisioner"),
        kubernetes: ">=1.32, <1.35",
    },
    more: "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: contour}
spec: {controllerName: projectcontour.io/gateway-controller}
",
    class: GATEWAY_CLASS,
    of_mesh: false,
};
/// Its file brings the kinds of the Gateway API, too.
const ENVOY_GATEWAY: Server = Server {
    name: "envoy-gateway",
    part: Part {
        called: "envoy-gateway",
        asset: Some("envoy-gateway"),
        kubernetes: ">=1.33, <1.37",
    },
    more: "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: eg}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
",
    class: "eg",
    of_mesh: false,
};
/// istiod makes the class as soon as there is that kind.
const ISTIO: Server = Server {
    name: "istio",
    part: GATEWAY_API,
    more: "",
    class: "istio",
    of_mesh: true,
};
const TRAEFIK: Server = Server {
    name: "traefik",
    part: GATEWAY_API,
    more: include_str!("../../../manifests/gateway/traefik.yaml"),
    class: "traefik",
    of_mesh: false,
};
/// The kinds of the Gateway API, for who does not bring them.
const GATEWAY_API: Part = Part {
    called: "gateway-api",
    asset: Some("gateway-api"),
    kubernetes: ">=1.30",
};

const INGRESS: [Server; 3] = [NGINX, CONTOUR_INGRESS, TRAEFIK_INGRESS];
const GATEWAY: [Server; 4] = [CONTOUR, ENVOY_GATEWAY, ISTIO, TRAEFIK];
/// The version that `manifests/<layer>/traefik.yaml` names.
const TRAEFIK_VERSION: (&str, &str) = ("traefik", "3.7.15");

/// Who is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Serving {
    pub(super) ingress: Server,
    pub(super) gateway: Server,
}

impl Serving {
    /// By the settings.
    ///
    /// # Errors
    /// When they name who cannot be installed.
    pub(super) fn by(settings: &Settings) -> Result<Self, BadInput> {
        Ok(Self {
            ingress: chosen("STRATA_INGRESS", settings.ingress.as_deref(), &INGRESS)?,
            gateway: chosen("STRATA_GATEWAY", settings.gateway.as_deref(), &GATEWAY)?,
        })
    }
}

/// The one that is named; the first where none is.
fn chosen(variable: &str, named: Option<&str>, of: &[Server]) -> Result<Server, BadInput> {
    let named = named.unwrap_or(of[0].name);
    let found = of.iter().find(|server| server.name == named);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = of.iter().map(|server| server.name).collect();
        BadInput(format!(
            "{variable}={named} is nobody that this version installs; choose one of {}",
            names.join(", ")
        ))
    })
}

/// Refuses who is wanted where nobody can be: what serves there is `what`.
///
/// # Errors
/// When somebody is wanted.
pub(super) fn refused(settings: &Settings, layers: &[Layer], what: &str) -> Result<(), BadInput> {
    for (layer, variable, named) in [
        (Layer::Ingress, "STRATA_INGRESS", &settings.ingress),
        (Layer::Gateway, "STRATA_GATEWAY", &settings.gateway),
    ] {
        if let Some(named) = named.as_deref().filter(|_| layers.contains(&layer)) {
            return Err(BadInput(format!("{variable}={named}: {what}; unset it")));
        }
    }
    Ok(())
}

/// Somebody whose files are here.
#[derive(Debug)]
pub(super) struct Found {
    server: Server,
    upstream: Upstream,
}

impl Server {
    /// Looks for it, if the run plans its layer.
    ///
    /// # Errors
    /// Why the layer is skipped.
    pub(super) async fn find(
        self,
        run: &RunInfo,
        layer: Layer,
        assets: &Assets,
        progress: Progress<'_>,
    ) -> Result<Found, String> {
        let upstream = Upstream::planned(run, layer, assets, self.part, progress).await?;
        Ok(Found {
            server: self,
            upstream,
        })
    }
}

impl Found {
    /// What will have been installed, with versions.
    pub(super) fn shown(&self) -> impl Iterator<Item = (String, String)> {
        let (name, version) = TRAEFIK_VERSION;
        let ours = (self.server.name == name).then(|| (name.to_owned(), version.to_owned()));
        let theirs = self.server.part.asset.map(|_| self.upstream.shown());
        theirs.into_iter().chain(ours)
    }

    /// Whether it can be in a cluster with Contour's static installation.
    ///
    /// # Errors
    /// Why it cannot.
    fn beside_contour(self) -> Result<Self, String> {
        match self.server.name == CONTOUR.name {
            true => Err(
                "Contour's quickstart, which serves Ingresses, and its Gateway provisioner bring the same definitions \
                 in different versions; choose another by STRATA_GATEWAY or STRATA_INGRESS"
                    .to_owned(),
            ),
            false => Ok(self),
        }
    }

    /// What brings up the layer on a cluster, where it is of use there.
    ///
    /// # Errors
    /// Why it is of no use.
    fn on(self, cluster: &Cluster, run: &str) -> Result<Arc<dyn Addon>, String> {
        let Self { server, upstream } = self;
        if server.of_mesh && cluster.istio.is_none() {
            return Err(format!(
                "{} is served by the mesh's own controller, and no mesh is brought up: {}",
                server.name,
                cluster
                    .layers
                    .lacks(Layer::Mesh)
                    .unwrap_or("this run plans none")
            ));
        }
        let kubernetes = cluster.versions.get("kubernetes");
        let kubernetes = kubernetes.map_or("", String::as_str);
        upstream.on(kubernetes)?;
        if let Balancer::None(why) = &cluster.load_balancer {
            return Err(format!(
                "{} is reached by a load balancer, and there is none: {why}",
                server.name
            ));
        }
        Ok(Arc::new(Installed {
            upstream,
            more: server.more,
            client: cluster.client.clone(),
            run: run.to_owned(),
        }))
    }
}

/// A cluster in which these come to serve, each in its layer; or which lacks the layer, and why.
pub(super) fn serve(
    mut cluster: Cluster,
    (ingress, gateway): (Option<Result<Found, String>>, Result<Found, String>),
    run: &RunInfo,
) -> Cluster {
    let of_contour = matches!(&ingress, Some(Ok(found)) if found.server.name == CONTOUR.name);
    if let Some(ingress) = ingress {
        cluster.ingress = served(&mut cluster, Layer::Ingress, ingress, run);
    }
    let gateway = match cluster.ingress.is_some() && of_contour {
        true => gateway.and_then(|found| found.beside_contour()),
        false => gateway,
    };
    let class = gateway.as_ref().map(|found| found.server.class).ok();
    cluster.gateway = served(&mut cluster, Layer::Gateway, gateway, run);
    let class = class.filter(|class| *class != GATEWAY_CLASS);
    cluster.fit.gateway_class = class.map(str::to_owned);
    cluster
}

fn served(
    cluster: &mut Cluster,
    layer: Layer,
    found: Result<Found, String>,
    run: &RunInfo,
) -> Option<Arc<dyn Addon>> {
    let versions: Vec<_> = found.iter().flat_map(Found::shown).collect();
    match found.and_then(|found| found.on(cluster, &run.id)) {
        Ok(addon) => {
            cluster.versions.extend(versions);
            Some(addon)
        }
        Err(why) => {
            cluster.layers = std::mem::take(&mut cluster.layers).without(layer, why);
            None
        }
    }
}

/// A layer's controller, not yet installed.
struct Installed {
    upstream: Upstream,
    more: &'static str,
    client: Client,
    run: String,
}

#[async_trait(?Send)]
impl Addon for Installed {
    async fn enable(&self, progress: Progress<'_>) -> anyhow::Result<()> {
        let of = (&self.client, self.run.as_str());
        let more = (!self.more.is_empty()).then_some(self.more);
        self.upstream.install(of, more, progress).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use gateway_api::gatewayclasses::GatewayClass;
    use k8s_openapi::api::networking::v1::IngressClass;
    use kube::Api;
    use strata_lab::api::ApiServer;

    use super::*;
    use crate::apply::Manifest;
    use crate::provider::stand_in::settings;
    use crate::settings::workspace;

    /// A cluster of some version of Kubernetes with load balancers, whose API server is a lab's.
    fn cluster(kubernetes: &str) -> Cluster {
        let client = ApiServer::alone().unwrap().client("admin");
        let versions = BTreeMap::from([("kubernetes".to_owned(), kubernetes.to_owned())]);
        Cluster {
            load_balancer: Balancer::Own,
            ..Cluster::made("toy", client, Path::new("/the/kubeconfig"), versions)
        }
    }

    fn found(server: Server, text: &str) -> Found {
        let manifest = match text {
            "" => Manifest::default(),
            text => Manifest::parse(text, "upstream.yaml").unwrap(),
        };
        Found {
            server,
            upstream: Upstream::of(server.part, "v1", manifest),
        }
    }

    fn none() -> Result<Found, String> {
        Err("not wanted".to_owned())
    }

    #[test]
    fn who_cannot_be_installed_is_refused_with_those_who_can() {
        let by = |vars: &[(&str, &str)]| Serving::by(&settings(vars)).map_err(|bad| bad.0);
        let default = by(&[]).unwrap();
        assert_eq!(
            (default.ingress.name, default.gateway.name),
            ("ingress-nginx", "contour")
        );
        let vars = [("STRATA_INGRESS", "traefik"), ("STRATA_GATEWAY", "istio")];
        let chosen = by(&vars).unwrap();
        assert_eq!(
            (chosen.ingress.name, chosen.gateway.name),
            ("traefik", "istio")
        );
        assert_eq!(
            by(&[("STRATA_GATEWAY", "nginx")]).unwrap_err(),
            "STRATA_GATEWAY=nginx is nobody that this version installs; choose one of contour, envoy-gateway, \
             istio, traefik"
        );
        let vars = settings(&[("STRATA_INGRESS", "traefik")]);
        assert_eq!(refused(&vars, &[Layer::Gateway], "here"), Ok(()));
        let bad = refused(&vars, &[Layer::Ingress], "its own serves").unwrap_err();
        assert_eq!(bad.0, "STRATA_INGRESS=traefik: its own serves; unset it");
    }

    #[tokio::test]
    async fn what_a_project_does_not_list_is_not_installed() {
        let why = |kubernetes: &str| {
            let on = found(CONTOUR, CONTOUR.more).on(&cluster(kubernetes), "run");
            on.map(drop).err().unwrap_or_default()
        };
        for version in ["v1.32.0", "v1.34.1", "v1.34.1-gke.7", "v1.33.2+k3s1"] {
            assert_eq!(why(version), "", "{version}");
        }
        for version in ["v1.20.2", "v1.35.0", "v1.36.0-rc.0"] {
            let said = format!("contour v1 is for Kubernetes >=1.32, <1.35, and this is {version}");
            assert_eq!(why(version), said);
        }
    }

    #[tokio::test]
    async fn what_nothing_reaches_or_drives_is_not_installed() {
        let without = Cluster {
            load_balancer: Balancer::none(),
            ..cluster("v1.34.0")
        };
        let served = serve(
            without,
            (Some(Ok(found(NGINX, ""))), Ok(found(CONTOUR, ""))),
            &RunInfo::default(),
        );
        let why = served.layers.lacks(Layer::Gateway).unwrap();
        assert!(
            why.starts_with("contour is reached by a load balancer, and there is none"),
            "{why}"
        );
        assert!(served.layers.lacks(Layer::Ingress).is_some());
        let why = found(ISTIO, "")
            .on(&cluster("v1.34.0"), "run")
            .map(drop)
            .unwrap_err();
        assert!(
            why.contains("no mesh is brought up: this run plans none"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn contour_is_not_beside_itself() {
        for (ingress, gateway, clash) in [
            (CONTOUR_INGRESS, CONTOUR, true),
            (CONTOUR_INGRESS, ENVOY_GATEWAY, false),
            (NGINX, CONTOUR, false),
        ] {
            let both = (Some(Ok(found(ingress, ""))), Ok(found(gateway, "")));
            let served = serve(cluster("v1.34.0"), both, &RunInfo::default());
            let why = served.layers.lacks(Layer::Gateway).unwrap_or_default();
            assert_eq!(why.contains("the same definitions"), clash, "{why}");
        }
    }

    #[tokio::test]
    async fn classes_that_no_project_s_file_makes_are_made_and_named() {
        let kinds = workspace().join("manifests/gateway/lab-crds.yaml");
        let kinds = std::fs::read_to_string(kinds).unwrap();
        for (server, controller) in [
            (CONTOUR, "projectcontour.io/gateway-controller"),
            (
                ENVOY_GATEWAY,
                "gateway.envoyproxy.io/gatewayclass-controller",
            ),
        ] {
            let gateway = Ok(found(server, &kinds));
            let cluster = serve(cluster("v1.34.0"), (None, gateway), &RunInfo::default());
            assert_eq!(cluster.versions[server.part.called], "v1");
            let gateway = cluster.gateway.clone().unwrap();
            gateway.enable(&|_| {}).await.unwrap();
            let classes = Api::<GatewayClass>::all(cluster.client.clone());
            let class = classes.get(server.class).await.unwrap();
            assert_eq!(class.spec.controller_name, controller);
            let named = cluster.controller(Layer::Gateway).await.unwrap();
            assert_eq!(named.as_deref(), Some(controller));
        }
    }

    #[tokio::test]
    async fn an_ingress_of_no_class_is_of_theirs() {
        for (server, controller) in [
            (NGINX, "k8s.io/ingress-nginx"),
            (CONTOUR_INGRESS, "projectcontour.io/ingress-controller"),
        ] {
            let ingress = Some(Ok(found(server, "")));
            let cluster = serve(cluster("v1.34.0"), (ingress, none()), &RunInfo::default());
            cluster
                .ingress
                .clone()
                .unwrap()
                .enable(&|_| {})
                .await
                .unwrap();
            let classes = Api::<IngressClass>::all(cluster.client.clone());
            assert_eq!(
                classes.list(&Default::default()).await.unwrap().items.len(),
                1
            );
            let named = cluster.controller(Layer::Ingress).await.unwrap();
            assert_eq!(named.as_deref(), Some(controller));
            assert_eq!(cluster.layers.lacks(Layer::Gateway), Some("not wanted"));
        }
    }

    #[test]
    fn traefik_s_manifests_are_of_the_version_that_is_told() {
        let (name, version) = TRAEFIK_VERSION;
        for server in [TRAEFIK_INGRESS, TRAEFIK] {
            assert!(server.more.contains(&format!("{name}:v{version}\n")));
            let shown: Vec<_> = found(server, "").shown().collect();
            assert!(
                shown.contains(&(name.to_owned(), version.to_owned())),
                "{shown:?}"
            );
        }
    }
}
