//! Create, read, list, watch, update, patch, delete; what is refused, and in which words.

use futures::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
    WatchEvent, WatchParams,
};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::fixture::server;

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn service(name: &str, spec: Value) -> Service {
    from(json!({"metadata": {"name": name}, "spec": spec}))
}

#[tokio::test]
async fn a_config_map_lives_through_all_verbs() {
    let api: Api<ConfigMap> = Api::default_namespaced(server().client("test"));
    let made = api
        .create(
            &PostParams::default(),
            &from(json!({"metadata": {"name": "c"}, "data": {"a": "1"}})),
        )
        .await
        .unwrap();
    assert!(made.uid().is_some() && made.metadata.creation_timestamp.is_some());
    let again = api
        .create(
            &PostParams::default(),
            &from(json!({"metadata": {"name": "c"}})),
        )
        .await
        .unwrap_err();
    assert!(
        again
            .to_string()
            .contains(r#"configmaps "c" already exists"#),
        "{again}"
    );
    let patched = api
        .patch(
            "c",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"b": "2"}})),
        )
        .await
        .unwrap();
    assert_eq!(patched.data.as_ref().unwrap().len(), 2);
    let same = api
        .patch(
            "c",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"b": "2"}})),
        )
        .await
        .unwrap();
    assert_eq!(
        same.resource_version(),
        patched.resource_version(),
        "a write that changes nothing is no write"
    );
    let stale = api
        .replace("c", &PostParams::default(), &made)
        .await
        .unwrap_err();
    assert!(
        stale.to_string().contains("the object has been modified"),
        "{stale}"
    );
    api.delete("c", &DeleteParams::default()).await.unwrap();
    let gone = api.get("c").await.unwrap_err();
    assert!(
        gone.to_string().contains(r#"configmaps "c" not found"#),
        "{gone}"
    );
}

#[tokio::test]
async fn a_watch_misses_nothing_between_list_and_watch() {
    let api: Api<ConfigMap> = Api::default_namespaced(server().client("test"));
    let make =
        |name: &str, label: &str| from(json!({"metadata": {"name": name, "labels": {"l": label}}}));
    let list = api.list(&ListParams::default()).await.unwrap();
    let revision = list.metadata.resource_version.unwrap();
    api.create(&PostParams::default(), &make("a", "x"))
        .await
        .unwrap();
    api.create(&PostParams::default(), &make("b", "y"))
        .await
        .unwrap();
    let params = WatchParams::default().labels("l=x");
    let mut events = std::pin::pin!(api.watch(&params, &revision).await.unwrap());
    let WatchEvent::Added(first) = events.try_next().await.unwrap().unwrap() else {
        panic!("not added")
    };
    assert_eq!(first.name_any(), "a");
    api.patch(
        "b",
        &PatchParams::default(),
        &Patch::Merge(json!({"metadata": {"labels": {"l": "x"}}})),
    )
    .await
    .unwrap();
    let WatchEvent::Added(second) = events.try_next().await.unwrap().unwrap() else {
        panic!("not added")
    };
    assert_eq!(second.name_any(), "b", "it came into the selection");
    api.patch(
        "a",
        &PatchParams::default(),
        &Patch::Merge(json!({"metadata": {"labels": {"l": "z"}}})),
    )
    .await
    .unwrap();
    let WatchEvent::Deleted(third) = events.try_next().await.unwrap().unwrap() else {
        panic!("not deleted")
    };
    assert_eq!(third.name_any(), "a", "it left the selection");
}

#[tokio::test]
async fn lists_are_paged() {
    let api: Api<ConfigMap> = Api::default_namespaced(server().client("test"));
    for name in ["a", "b", "c"] {
        api.create(
            &PostParams::default(),
            &from(json!({"metadata": {"name": name}})),
        )
        .await
        .unwrap();
    }
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(first.items.len(), 2);
    let token = first.metadata.continue_.unwrap();
    let rest = api
        .list(&ListParams::default().limit(2).continue_token(&token))
        .await
        .unwrap();
    assert_eq!(
        rest.items
            .iter()
            .map(|item| item.name_any())
            .collect::<Vec<_>>(),
        ["c"]
    );
    assert!(rest.metadata.continue_.is_none());
}

#[tokio::test]
async fn services_get_addresses_and_node_ports() {
    let api: Api<Service> = Api::default_namespaced(server().client("test"));
    let post = PostParams::default();
    let made = api
        .create(
            &post,
            &service(
                "a",
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
            ),
        )
        .await
        .unwrap();
    let spec = made.spec.unwrap();
    assert!(spec.cluster_ip.unwrap().starts_with("10.96."));
    let taken = api
        .create(
            &post,
            &service(
                "b",
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
            ),
        )
        .await
        .unwrap_err();
    let expected = r#"Service "b" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"#;
    assert!(taken.to_string().contains(expected), "{taken}");
    let outside = api
        .create(
            &post,
            &service(
                "b",
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 8080}]}),
            ),
        )
        .await
        .unwrap_err();
    let expected = "Invalid value: 8080: provided port is not in the valid range. The range of valid ports is 30000-32767";
    assert!(outside.to_string().contains(expected), "{outside}");
    let headless = api
        .create(
            &post,
            &service("h", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
        )
        .await
        .unwrap();
    assert_eq!(headless.spec.unwrap().cluster_ip.as_deref(), Some("None"));
    let name = api
        .create(
            &post,
            &service(
                "e",
                json!({"type": "ExternalName", "externalName": "example.com"}),
            ),
        )
        .await
        .unwrap();
    assert_eq!(name.spec.unwrap().cluster_ip, None);
    let back = api
        .patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"type": "ClusterIP"}})),
        )
        .await
        .unwrap();
    assert_eq!(
        back.spec.unwrap().ports.unwrap()[0].node_port,
        None,
        "the node port is given back"
    );
    api.create(
        &post,
        &service(
            "b",
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
        ),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn deployments_are_checked_as_kubernetes_checks_them() {
    let api: Api<Deployment> = Api::default_namespaced(server().client("test"));
    let deployment = |label: &str| -> Deployment {
        from(
            json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {
            "metadata": {"labels": {"app": label}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}),
        )
    };
    let wrong = api
        .create(&PostParams::default(), &deployment("b"))
        .await
        .unwrap_err();
    assert!(
        wrong
            .to_string()
            .contains("`selector` does not match template `labels`"),
        "{wrong}"
    );
    let made = api
        .create(&PostParams::default(), &deployment("a"))
        .await
        .unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let scaled = api
        .patch(
            "d",
            &PatchParams::default(),
            &Patch::Strategic(json!({"spec": {"replicas": 3}})),
        )
        .await
        .unwrap();
    assert_eq!(scaled.metadata.generation, Some(2));
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    let moved = api
        .patch("d", &PatchParams::default(), &Patch::Strategic(image))
        .await
        .unwrap();
    let containers = moved.spec.unwrap().template.spec.unwrap().containers;
    assert_eq!(
        (containers.len(), containers[0].image.as_deref()),
        (1, Some("i:2"))
    );
    let status = api
        .patch_status(
            "d",
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"readyReplicas": 1}, "spec": {"replicas": 9}})),
        )
        .await
        .unwrap();
    assert_eq!(
        (status.spec.unwrap().replicas, status.metadata.generation),
        (Some(3), Some(3)),
        "status writes change only status"
    );
    assert_eq!(
        api.get_scale("d").await.unwrap().spec.unwrap().replicas,
        Some(3)
    );
}

#[tokio::test]
async fn unknown_fields_are_refused_when_asked_to() {
    let api: Api<ConfigMap> = Api::default_namespaced(server().client("test"));
    let strict = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply("test")
    };
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "dota": {"a": "1"}});
    let refused = api
        .patch("c", &strict, &Patch::Apply(object))
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains(r#"strict decoding error: unknown field "dota""#),
        "{refused}"
    );
}

#[tokio::test]
async fn running_pods_are_given_their_grace_and_namespaces_their_end() {
    let server = server();
    let client = server.client("test");
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod: Pod = from(
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i:1"}]}}),
    );
    let early = pods.create(&PostParams::default(), &pod).await.unwrap_err();
    assert!(
        early
            .to_string()
            .contains(r#"serviceaccount "default" not found"#),
        "{early}"
    );
    accounts
        .create(
            &PostParams::default(),
            &from(json!({"metadata": {"name": "default"}})),
        )
        .await
        .unwrap();
    let made = pods.create(&PostParams::default(), &pod).await.unwrap();
    let mounts = &made.spec.as_ref().unwrap().containers[0].volume_mounts;
    assert_eq!(
        mounts.as_ref().unwrap()[0].mount_path,
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    let ending = pods.get("p").await.unwrap();
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(
            &PostParams::default(),
            &from(json!({"metadata": {"name": "n"}})),
        )
        .await
        .unwrap();
    namespaces
        .delete("n", &DeleteParams::default())
        .await
        .unwrap();
    let refused = Api::<ConfigMap>::namespaced(client, "n")
        .create(
            &PostParams::default(),
            &from(json!({"metadata": {"name": "c"}})),
        )
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("because it is being terminated"),
        "{refused}"
    );
}

#[tokio::test]
async fn custom_kinds_are_served_and_checked() {
    let server = server();
    let client = server.client("test");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"}, "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
                "size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"}}}}}}}]}});
    definitions
        .create(&PostParams::default(), &from(definition))
        .await
        .unwrap();
    let resource = ApiResource {
        group: "example.com".into(),
        version: "v1".into(),
        api_version: "example.com/v1".into(),
        kind: "Thing".into(),
        plural: "things".into(),
    };
    let things: Api<DynamicObject> = Api::default_namespaced_with(client, &resource);
    let thing = |spec: Value| -> DynamicObject {
        from(
            json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}),
        )
    };
    let wrong = things
        .create(
            &PostParams::default(),
            &thing(json!({"size": 0, "colour": "green"})),
        )
        .await
        .unwrap_err();
    assert!(
        wrong
            .to_string()
            .contains("should be greater than or equal to 1"),
        "{wrong}"
    );
    assert!(
        wrong
            .to_string()
            .contains(r#"Unsupported value: "green": supported values: "red", "blue""#),
        "{wrong}"
    );
    let made = things
        .create(
            &PostParams::default(),
            &thing(json!({"size": 2, "other": 1})),
        )
        .await
        .unwrap();
    assert_eq!(
        made.data["spec"],
        json!({"size": 2, "colour": "red"}),
        "defaulted and pruned"
    );
}

#[tokio::test]
async fn nodes_register_with_their_status() {
    let nodes: Api<Node> = Api::all(server().client("test"));
    let node = json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let made = nodes
        .create(&PostParams::default(), &from(node))
        .await
        .unwrap();
    assert_eq!(made.status.unwrap().conditions.unwrap().len(), 1);
}

#[tokio::test]
async fn annotations_hold_so_much_and_no_more() {
    let api: Api<ConfigMap> = Api::default_namespaced(server().client("test"));
    let annotated = |name: &str, length: usize| {
        let annotations =
            json!({"a": "x".repeat(length / 2), "b": "y".repeat(length - length / 2)});
        from(json!({"metadata": {"name": name, "annotations": annotations}}))
    };
    let most = 262_144 - "ab".len();
    let parameters = PostParams::default();
    api.create(&parameters, &annotated("most", most))
        .await
        .unwrap();
    let refused = api.create(&parameters, &annotated("more", most + 1)).await;
    let said = refused.unwrap_err().to_string();
    assert!(
        said.contains(
            "\"more\" is invalid: metadata.annotations: Too long: may not be more than 262144 bytes"
        ),
        "{said}"
    );
}
