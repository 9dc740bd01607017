//! Waiting for a condition while others bring it about.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions, delete::delete_and_finalize};
use serde_json::json;
use strata_lab::api::ApiServer;

use crate::line::Line;
use crate::{from, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_comes_about_is_seen_over_a_line_that_breaks() {
    let server = ApiServer::alone().unwrap();
    let client = server.client("test");
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    accounts
        .create(
            &PostParams::default(),
            &from(json!({"metadata": {"name": "default"}})),
        )
        .await
        .unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client);
    let watched: Api<Pod> =
        Api::default_namespaced(Line::new([0, 3, 0, 3, 0]).client(server.client("watcher")));
    let waiting =
        tokio::spawn(
            async move { await_condition(watched, "p", conditions::is_pod_running()).await },
        );
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    pods.create(&PostParams::default(), &from(pod))
        .await
        .unwrap();
    for phase in ["Pending", "Running"] {
        let patch = Patch::Merge(json!({"status": {"phase": phase}}));
        pods.patch_status("p", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    let seen = soon("the pod runs", waiting).await.unwrap().unwrap();
    assert_eq!(
        seen.unwrap().status.unwrap().phase.as_deref(),
        Some("Running")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_waited_for_until_the_last_finalizer_goes() {
    let server = ApiServer::alone().unwrap();
    let api: Api<ConfigMap> = Api::default_namespaced(server.client("test"));
    let held = json!({"metadata": {"name": "c", "finalizers": ["runtime.strata.dev/hold"]}});
    let made = api
        .create(&PostParams::default(), &from(held))
        .await
        .unwrap();
    // An error would end the wait; these connections end without one.
    let waiting = tokio::spawn({
        let api = api.clone();
        async move { delete_and_finalize(api, "c", &DeleteParams::default()).await }
    });
    let marked = await_condition(api.clone(), "c", |found: Option<&ConfigMap>| {
        found.is_some_and(|found| found.metadata.deletion_timestamp.is_some())
    });
    soon("it is marked", marked).await.unwrap();
    assert!(!waiting.is_finished(), "a finalizer holds it");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("c", &PatchParams::default(), &free)
        .await
        .unwrap();
    soon("it goes", waiting).await.unwrap().unwrap();
    let again = api
        .create(
            &PostParams::default(),
            &from(json!({"metadata": {"name": "c"}})),
        )
        .await
        .unwrap();
    assert_ne!(again.metadata.uid, made.metadata.uid);
}
