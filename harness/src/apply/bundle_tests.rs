//! A bundle as large as upstream's, on the lab's API server.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use strata_lab::api::ApiServer;

use super::*;
use crate::budget::CREATE;
use crate::settings::workspace;

/// As large as Contour's gateway-provisioner v1.33.6 (manifests/assets.yaml).
const SIZE: usize = 1_554_598;
/// More than an annotation may hold, which is 262144 bytes, several times over.
const LARGEST: usize = 700_000;

/// What is not a definition, in an order in which nothing could be applied.
const REST: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: contour}
spec: {controllerName: projectcontour.io/gateway-controller}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: judge}
webhooks:
  - name: judge.example.io
    admissionReviewVersions: [v1]
    sideEffects: None
    clientConfig: {service: {namespace: projectcontour, name: judge}, caBundle: YQ==}
    rules: [{operations: [CREATE], apiGroups: [example.io], apiVersions: [v1], resources: [things]}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: contour, namespace: projectcontour}
";

const ENDPOINT: &str = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: judge-1, namespace: projectcontour, labels: {kubernetes.io/service-name: judge}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]
ports: [{port: 9443}]
";

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: projectcontour}\n";

/// Gives a definition further fields until it is this long.
fn pad(definition: &mut Value, to: usize) {
    let written = |value: &Value| serde_yaml::to_string(value).unwrap().len();
    let fields = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let mut more = json!({});
    let description =
        "What this field is for, at the length that upstream takes for it. ".repeat(6);
    let one = |number: usize| {
        (
            format!("padding{number:05}"),
            json!({"type": "string", "description": description}),
        )
    };
    let before = written(definition);
    more["padding"] = one(0).1;
    let each = written(&more) + 80;
    for number in 0..to.saturating_sub(before) / each {
        let (name, field) = one(number);
        definition.pointer_mut(fields).unwrap()[name] = field;
    }
}

/// The Gateway API's definitions, as long as Contour's bundle is, after all that needs them.
fn bundle() -> String {
    let file = workspace().join("manifests/gateway/lab-crds.yaml");
    let definitions = Manifest::load(&file, "lab-crds.yaml").unwrap().documents;
    let mut parts = vec![REST.to_owned(), ENDPOINT.to_owned()];
    let mut missing = SIZE;
    for (at, document) in definitions.iter().enumerate() {
        let mut definition = document.object.clone();
        let left = definitions.len() - at;
        pad(
            &mut definition,
            if at == 0 { LARGEST } else { missing / left },
        );
        let part = serde_yaml::to_string(&definition).unwrap();
        missing = missing.saturating_sub(part.len());
        parts.push(part);
    }
    parts.push(NAMESPACE.to_owned());
    parts.join("\n---\n")
}

async fn there(client: &Client, kind: &str) -> Vec<String> {
    let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind);
    let api = Api::<DynamicObject>::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let list = api.list(&ListParams::default()).await.unwrap();
    list.items
        .into_iter()
        .filter_map(|it| it.metadata.name)
        .collect()
}

#[tokio::test]
async fn a_bundle_as_large_as_upstreams_is_installed_in_one_go_and_again() {
    let text = bundle();
    assert!(text.len() > SIZE - SIZE / 20, "{}", text.len());
    let manifest = Manifest::parse(&text, "bundle.yaml").unwrap();
    let largest = |document: &Document| document.object.to_string().len();
    let largest = manifest.documents.iter().map(largest).max().unwrap();
    assert!(largest > 2 * 262_144, "{largest}");

    let client = ApiServer::alone().unwrap().client("admin");
    for _ in 0..2 {
        let applier = Applier::new(client.clone(), Fit::default(), "run");
        install(&applier, &client, &manifest, CREATE, &|_| {})
            .await
            .unwrap();
        assert_eq!(there(&client, "GatewayClass").await, ["contour"]);
    }
    // What was asked of the API is what it has, to the last field.
    let api = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    assert!(api.get("judge").await.unwrap().webhooks.is_some());
    let api = Api::<EndpointSlice>::namespaced(client, "projectcontour");
    assert_eq!(api.get("judge-1").await.unwrap().endpoints.len(), 1);
}
