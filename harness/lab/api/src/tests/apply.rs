//! Server-side apply: ownership, conflicts, and fields that go.

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::fixture::server;

fn config(data: serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

#[tokio::test]
async fn a_field_that_its_manager_leaves_out_goes() {
    let api: Api<ConfigMap> = Api::default_namespaced(server().client("test"));
    let mine = PatchParams::apply("mine");
    api.patch(
        "c",
        &mine,
        &Patch::Apply(config(json!({"a": "1", "b": "2"}))),
    )
    .await
    .unwrap();
    let after = api
        .patch("c", &mine, &Patch::Apply(config(json!({"a": "1"}))))
        .await
        .unwrap();
    assert_eq!(after.data.unwrap().keys().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn another_managers_value_is_a_conflict_unless_forced() {
    let api: Api<ConfigMap> = Api::default_namespaced(server().client("test"));
    api.patch(
        "c",
        &PatchParams::apply("one"),
        &Patch::Apply(config(json!({"a": "1"}))),
    )
    .await
    .unwrap();
    let two = PatchParams::apply("two");
    let refused = api
        .patch("c", &two, &Patch::Apply(config(json!({"a": "2"}))))
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains(r#"conflict with "one": .data.a"#),
        "{refused}"
    );
    let same = api
        .patch("c", &two, &Patch::Apply(config(json!({"a": "1"}))))
        .await
        .unwrap();
    assert_eq!(same.metadata.managed_fields.unwrap().len(), 2);
    let forced = api
        .patch("c", &two.force(), &Patch::Apply(config(json!({"a": "2"}))))
        .await
        .unwrap();
    assert_eq!(forced.data.unwrap()["a"], "2");
    assert_eq!(forced.metadata.managed_fields.unwrap().len(), 1);
}

#[tokio::test]
async fn list_items_merge_by_their_keys() {
    let api: Api<Service> = Api::default_namespaced(server().client("test"));
    let service = |ports: serde_json::Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let one = json!([{"name": "a", "port": 80}]);
    let two = json!([{"name": "b", "port": 81}]);
    api.patch("s", &PatchParams::apply("one"), &Patch::Apply(service(one)))
        .await
        .unwrap();
    let both = api
        .patch("s", &PatchParams::apply("two"), &Patch::Apply(service(two)))
        .await
        .unwrap();
    assert_eq!(both.spec.unwrap().ports.unwrap().len(), 2);
    let left = api
        .patch(
            "s",
            &PatchParams::apply("one"),
            &Patch::Apply(service(json!([]))),
        )
        .await
        .unwrap();
    let names: Vec<_> = left
        .spec
        .unwrap()
        .ports
        .unwrap()
        .into_iter()
        .filter_map(|port| port.name)
        .collect();
    assert_eq!(names, ["b"]);
}
