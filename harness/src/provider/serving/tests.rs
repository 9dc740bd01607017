//! Who can be installed, against an API server of a lab.

use std::collections::BTreeMap;
use std::path::Path;

use gateway_api::gatewayclasses::GatewayClass;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::Api;
use strata_lab::api::ApiServer;

use super::who::{CONTOUR_INGRESS, ENVOY_GATEWAY, ISTIO, NGINX, TRAEFIK, TRAEFIK_INGRESS};
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
    let fetched = std::fs::read_to_string(workspace().join("scripts/fetch-traefik")).unwrap();
    assert!(fetched.contains(&format!("\nversion={version}\n")));
    for server in [TRAEFIK_INGRESS, TRAEFIK] {
        assert!(server.more.contains(&format!("{name}:v{version}\n")));
        let shown: Vec<_> = found(server, "").shown().collect();
        assert!(
            shown.contains(&(name.to_owned(), version.to_owned())),
            "{shown:?}"
        );
    }
}
