//! Those who can be installed, as a table.
//!
//! Start from [`INGRESS`] and [`GATEWAY`], whose first are those whom nobody has to name.

use crate::apply::GATEWAY_CLASS;
use crate::provider::upstream::Part;

/// Somebody who can be installed.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Server {
    /// What it is called in settings.
    pub(super) name: &'static str,
    /// What its project publishes for it.
    pub(super) part: Part,
    /// What belongs to it besides: its class, and where there is no file of its project's, all of it.
    pub(super) more: &'static str,
    /// The class that Gateways name; an Ingress of no class is of the one that is marked for that.
    pub(super) class: &'static str,
    /// Whether its controller is the mesh's.
    pub(super) of_mesh: bool,
}

/// ingress-nginx does not call its class the default one, and Ingresses of the tutorial name none. Retired: best
/// effort ended in March 2026.
pub(super) const NGINX: Server = Server {
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
pub(super) const CONTOUR_INGRESS: Server = Server {
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
pub(super) const TRAEFIK_INGRESS: Server = Server {
    name: "traefik",
    part: Part {
        called: "traefik",
        asset: None,
        kubernetes: ">=1.25",
    },
    more: include_str!("../../../../manifests/ingress/traefik.yaml"),
    class: "",
    of_mesh: false,
};
/// No file of Contour's makes a class: its provisioner serves those that name it.
pub(super) const CONTOUR: Server = Server {
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
pub(super) const ENVOY_GATEWAY: Server = Server {
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
pub(super) const ISTIO: Server = Server {
    name: "istio",
    part: GATEWAY_API,
    more: "",
    class: "istio",
    of_mesh: true,
};
pub(super) const TRAEFIK: Server = Server {
    name: "traefik",
    part: GATEWAY_API,
    more: include_str!("../../../../manifests/gateway/traefik.yaml"),
    class: "traefik",
    of_mesh: false,
};
/// The kinds of the Gateway API, for who does not bring them.
const GATEWAY_API: Part = Part {
    called: "gateway-api",
    asset: Some("gateway-api"),
    kubernetes: ">=1.30",
};

pub(super) const INGRESS: [Server; 3] = [NGINX, CONTOUR_INGRESS, TRAEFIK_INGRESS];
pub(super) const GATEWAY: [Server; 4] = [CONTOUR, ENVOY_GATEWAY, ISTIO, TRAEFIK];
/// The version that `manifests/<layer>/traefik.yaml` names.
pub(super) const TRAEFIK_VERSION: (&str, &str) = ("traefik", "3.7.15");
