//! The Gateway controller, asked in YAML.

mod api;
mod holders;
mod kinds;
mod routing;
mod shares;
mod snapshots;
mod statuses;
mod tls;

use std::fmt::Debug;

use gateway_api::experimental::httproutes::HttpRoute;
use gateway_api::gateways::Gateway;
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::input::Input;
use super::route::Route;
use super::*;
use crate::l7::cluster::Services;
use crate::testing::{object, object_of_yaml, shared};

fn add<T: DeserializeOwned>(list: &mut Vec<std::sync::Arc<T>>, value: Value) {
    list.push(shared(value));
}

/// The documents of a YAML text.
fn documents(yaml: &str) -> Vec<Value> {
    yaml.split("\n---\n")
        .map(|document| object_of_yaml::<Value>(document))
        .filter(|document| !document.is_null())
        .collect()
}

/// The cluster that a YAML text describes, with GatewayClass `contour`. Objects without a namespace
/// are in `default`; namespaces are labelled as a cluster labels them.
pub(super) fn input(yaml: &str) -> Input {
    let mut input = Input::default();
    let class =
        "{metadata: {name: contour}, spec: {controllerName: lab.strata.dev/gateway-controller}}";
    add(&mut input.classes, object_of_yaml(class));
    let (mut services, mut slices) = (Vec::new(), Vec::new());
    for mut document in documents(yaml) {
        let kind = document["kind"].as_str().unwrap().to_owned();
        let cluster_wide = matches!(kind.as_str(), "Namespace" | "GatewayClass");
        if document["metadata"]["namespace"].is_null() && !cluster_wide {
            document["metadata"]["namespace"] = json!("default");
        }
        document["metadata"]["generation"] = json!(1);
        let name = document["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace = document["metadata"]["namespace"].as_str();
        match kind.as_str() {
            "GatewayClass" => add(&mut input.classes, document),
            "Gateway" => add(&mut input.gateways, document),
            "HTTPRoute" => {
                let route: HttpRoute = object(document);
                input.routes.push(std::sync::Arc::new(route).into());
            }
            "GRPCRoute" => {
                let route = object(document);
                input.routes.push(Route::of_grpc(&route).unwrap());
            }
            "TLSRoute" => {
                let route = object(document);
                input.routes.push(Route::of_tls(&route).unwrap());
            }
            "TCPRoute" => {
                let route = object(document);
                input.routes.push(Route::of_tcp(&route).unwrap());
            }
            "UDPRoute" => {
                let route = object(document);
                input.routes.push(Route::of_udp(&route).unwrap());
            }
            "ListenerSet" => add(&mut input.listener_sets, document),
            "ReferenceGrant" => add(&mut input.grants, document),
            "BackendTLSPolicy" => add(&mut input.policies, document),
            "Service" => add(&mut services, document),
            "EndpointSlice" => add(&mut slices, document),
            "Namespace" => {
                let labels = document["metadata"]["labels"].clone();
                let labels = serde_json::from_value(labels).unwrap_or_default();
                input.namespaces.insert(name, labels);
            }
            "Secret" => {
                let key = (namespace.unwrap().to_owned(), name);
                let secret = object(document);
                input.secrets.insert(key, std::sync::Arc::new(secret));
            }
            "ConfigMap" => {
                let key = (namespace.unwrap().to_owned(), name);
                let map = object(document);
                input.config_maps.insert(key, std::sync::Arc::new(map));
            }
            other => panic!("kind {other}"),
        }
    }
    input.services = Services::new(services, slices);
    input
}

/// A Service of port 80 and an endpoint for each address, at port 8080.
fn service(name: &str, addresses: &[&str]) -> String {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({ "addresses": [address], "conditions": { "ready": true } }))
        .collect();
    format!(
        "
---
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: 80, targetPort: 8080}}]}}
---
kind: EndpointSlice
metadata: {{name: {name}-x, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: '', port: 8080}}]
endpoints: {}
",
        json!(endpoints)
    )
}

/// The tutorial's Gateway.
const GATEWAY: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: my-gateway
spec:
  gatewayClassName: contour
  listeners:
  - name: http
    protocol: HTTP
    port: 80
";

/// The tutorial's route.
const ROUTE: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: my-route
spec:
  parentRefs:
  - name: my-gateway
  rules:
  - matches:
    - path:
        type: PathPrefix
        value: /frontend
    backendRefs:
    - name: frontend
      port: 80
";

/// A route of the tutorial's Gateway with this specification besides.
fn route(name: &str, spec: &str) -> String {
    format!(
        "
---
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: my-gateway}}]
{spec}
"
    )
}
