//! What kubectl sends and reads, in the words of a real API server.

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::fixture::server;
use crate::{ApiServer, User};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

async fn send(
    server: &ApiServer,
    method: &str,
    path: &str,
    kind: &str,
    body: impl Into<Body>,
) -> (u16, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, kind)
        .body(body.into())
        .unwrap();
    request.extensions_mut().insert(User::component("test"));
    let response = server.router.clone().oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn create(server: &ApiServer, path: &str, object: Value) -> (u16, Value) {
    send(server, "POST", path, JSON, object.to_string()).await
}

/// The refusal of a create, in one text.
async fn refusal(path: &str, object: Value) -> String {
    let (code, status) = create(&server(), path, object).await;
    assert!(code >= 400, "{status}");
    status["message"].as_str().unwrap().to_owned()
}

/// As `kubectl create namespace n37` of 1.37 sends it.
const NAMESPACE: &[u8] = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x1b\x0a\x13\x0a\x03n37\x12\x00\x1a\x00\x22\x00*\x002\x008\x00B\x00\x12\x00\x1a\x02\x0a\x00\x1a\x00\x22\x00";

#[tokio::test]
async fn a_namespace_is_made_from_protobuf() {
    let server = server();
    let (code, made) = send(&server, "POST", "/api/v1/namespaces", PROTOBUF, NAMESPACE).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["name"], "n37");
    assert_eq!(made["status"]["phase"], "Active");
    assert!(made["metadata"].get("generateName").is_none(), "{made}");
}

#[tokio::test]
async fn protobuf_that_ends_early_is_refused() {
    let server = server();
    // The last two fields, of two bytes each, may be left out.
    for length in 0..NAMESPACE.len() - 4 {
        let cut = &NAMESPACE[..length];
        let (code, status) = send(&server, "POST", "/api/v1/namespaces", PROTOBUF, cut).await;
        assert!((400..500).contains(&code), "{length}: {status}");
    }
}

#[tokio::test]
async fn openapi_tells_the_fields_of_a_built_in_kind() {
    let server = server();
    let (_, document) = send(&server, "GET", "/openapi/v3/api/v1", JSON, "").await;
    let schemas = &document["components"]["schemas"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    let (_, document) = send(&server, "GET", "/openapi/v2", JSON, "").await;
    let port = &document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(port["type"], "string");
}

#[tokio::test]
async fn an_event_is_one_object_in_two_shapes() {
    let server = server();
    let event = json!({
        "metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Tested", "note": "a note", "type": "Normal", "action": "Test",
        "reportingController": "test", "reportingInstance": "test-0", "eventTime": "2026-01-01T00:00:00.000000Z",
    });
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let (code, made) = create(&server, path, event).await;
    assert_eq!((code, &made["note"]), (201, &json!("a note")), "{made}");
    let core = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=p";
    let (_, list) = send(&server, "GET", core, JSON, "").await;
    assert_eq!(list["items"][0]["message"], "a note", "{list}");
    assert_eq!(list["items"][0]["apiVersion"], "v1");
    let new = format!("{path}?fieldSelector=regarding.name=p");
    let (_, list) = send(&server, "GET", &new, JSON, "").await;
    assert_eq!(list["items"][0]["regarding"]["name"], "p", "{list}");
}

#[tokio::test]
async fn an_autoscaler_is_one_object_in_two_versions() {
    let server = server();
    let scaler = json!({
        "metadata": {"name": "s"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    let of = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers")
    };
    let (code, made) = create(&server, &of("v1"), scaler).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 50);
    let (_, second) = send(&server, "GET", &format!("{}/s", of("v2")), JSON, "").await;
    assert_eq!(
        second["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        50
    );
}

#[tokio::test]
async fn several_conflicts_are_told_by_manager() {
    let server = server();
    let apply = async |manager: &str, data: Value| {
        let path = format!("/api/v1/namespaces/default/configmaps/c?fieldManager={manager}");
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
        let kind = "application/apply-patch+yaml";
        send(&server, "PATCH", &path, kind, body.to_string())
            .await
            .1
    };
    apply("one", json!({"a": "1", "b": "1"})).await;
    let status = apply("two", json!({"a": "2", "b": "2"})).await;
    assert_eq!(
        status["message"],
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b"
    );
}

#[tokio::test]
async fn patches_that_do_not_apply_are_refused() {
    let server = server();
    let maps = "/api/v1/namespaces/default/configmaps";
    create(
        &server,
        maps,
        json!({"metadata": {"name": "c"}, "data": {"a": "1"}}),
    )
    .await;
    let patch = async |kind: &str, body: &str| {
        let (code, status) = send(
            &server,
            "PATCH",
            &format!("{maps}/c"),
            kind,
            body.to_owned(),
        )
        .await;
        (
            code,
            status["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let json_patch = "application/json-patch+json";
    let rejected = "the server rejected our request due to an error in our request";
    for body in [
        r#"[{"op": "test", "path": "/data/a", "value": "2"}]"#,
        r#"[{"op": "remove", "path": "/data/absent"}]"#,
    ] {
        assert_eq!(patch(json_patch, body).await, (422, rejected.to_owned()));
    }
    assert_eq!(
        patch(json_patch, r#"{"op": "remove"}"#).await,
        (
            400,
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch".to_owned()
        )
    );
    assert_eq!(
        patch("application/merge-patch+json", r#"{"data":"#).await,
        (
            400,
            "error decoding patch: unexpected end of JSON input".to_owned()
        )
    );
}

#[tokio::test]
async fn a_write_with_anothers_uid_is_a_conflict() {
    let server = server();
    let maps = "/api/v1/namespaces/default/configmaps";
    let (_, made) = create(&server, maps, json!({"metadata": {"name": "c"}})).await;
    let other = json!({"metadata": {"name": "c", "uid": "other"}});
    let (code, status) = send(
        &server,
        "PUT",
        &format!("{maps}/c"),
        JSON,
        other.to_string(),
    )
    .await;
    let uid = made["metadata"]["uid"].as_str().unwrap();
    assert_eq!(code, 409);
    assert_eq!(
        status["message"],
        format!(
            "Operation cannot be fulfilled on configmaps \"c\": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/c, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: other, UID in object meta: {uid}"
        )
    );
}

#[tokio::test]
async fn selectors_that_cannot_be_read_are_refused() {
    let server = server();
    let list = async |query: &str| {
        let path = format!("/api/v1/namespaces/default/pods?{query}");
        send(&server, "GET", &path, JSON, "").await.1["message"].clone()
    };
    assert_eq!(
        list("labelSelector=app+in+web").await,
        "unable to parse requirement: found 'web' expected: '('"
    );
    assert_eq!(
        list("fieldSelector=spec.color%3Dblue").await,
        "field label not supported: spec.color"
    );
}

#[tokio::test]
async fn what_people_get_wrong_is_refused_in_kubernetes_words() {
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        |container: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}});
    let cases = [
        (
            pods,
            pod(json!({"name": "a", "image": "x", "ports": [{"containerPort": 0}]})),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            pods,
            pod(
                json!({"name": "a", "image": "x", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}}),
            ),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1500m",
        ),
        (
            pods,
            pod(json!({"name": "a", "image": "x", "resources": {"requests": {"cpu": "lots"}}})),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 99999}], "from": [{"ipBlock": {"cidr": "x"}}]}]}}),
            "[spec.ingress[0].ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive, spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"x\"",
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls"}),
            "[data[tls.crt]: Required value, data[tls.key]: Required value]",
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": {"name": "c", "annotations": {"no te": "x"}}}),
            "metadata.annotations: Invalid value: \"no te\": name part must consist of alphanumeric characters",
        ),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({"metadata": {"name": "c"}, "spec": {"schedule": "often", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]}}}}}}),
            "spec.schedule: Invalid value: \"often\": expected exactly 5 fields, found 1: often",
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}}),
            "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"OnFailure\", \"Never\"",
        ),
    ];
    for (path, object, expected) in cases {
        let found = refusal(path, object).await;
        assert!(found.contains(expected), "{found}\n{expected}");
    }
}

#[tokio::test]
async fn what_may_not_change_does_not() {
    let server = server();
    let cases = [
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            json!({"metadata": {"name": "x"}, "roleRef": {"kind": "Role", "name": "a", "apiGroup": "rbac.authorization.k8s.io"}}),
            json!({"roleRef": {"name": "b"}}),
            r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"b"}: cannot change roleRef"#,
        ),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({"metadata": {"name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
            json!({"spec": {"storageClassName": "other"}}),
            "spec: Forbidden: spec is immutable after creation",
        ),
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            json!({"metadata": {"name": "x"}, "spec": {"serviceName": "a", "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}}}),
            json!({"spec": {"serviceName": "b"}}),
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'",
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]}}}}),
            json!({"spec": {"completions": 5}}),
            "spec.completions: Invalid value: 5: field is immutable",
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "x"}}),
            json!({"type": "other"}),
            "type: Invalid value: \"other\": field is immutable",
        ),
    ];
    for (path, object, change, expected) in cases {
        let (code, made) = create(&server, path, object).await;
        assert_eq!(code, 201, "{made}");
        let kind = "application/merge-patch+json";
        let (code, status) = send(
            &server,
            "PATCH",
            &format!("{path}/x"),
            kind,
            change.to_string(),
        )
        .await;
        let found = status["message"].as_str().unwrap_or_default();
        assert!(
            code == 422 && found.contains(expected),
            "{found}\n{expected}"
        );
    }
}

#[tokio::test]
async fn a_job_selects_its_own_pods() {
    let server = server();
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]}}}});
    let (_, made) = create(&server, "/apis/batch/v1/namespaces/default/jobs", job).await;
    let uid = &made["metadata"]["uid"];
    assert_eq!(
        &made["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"],
        uid
    );
    let labels = &made["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["job-name"], "j");
    assert_eq!(&labels["controller-uid"], uid);
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_named_as_go_names_it() {
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": "three", "selector": {}, "template": {}}});
    let found = refusal("/apis/apps/v1/namespaces/default/deployments", deployment).await;
    assert_eq!(
        found,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
}

#[tokio::test]
async fn who_is_impersonated_is_who_asks() {
    let server = server();
    let mut request = Request::builder()
        .method("POST")
        .uri("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("Impersonate-User", "system:serviceaccount:a:b")
        .body(Body::from("{}"))
        .unwrap();
    request.extensions_mut().insert(User::component("test"));
    let response = server.router.clone().oneshot(request).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&bytes).unwrap();
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:a:b", "{review}");
    assert_eq!(
        user["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:a",
            "system:authenticated"
        ])
    );
}

#[tokio::test]
async fn a_deletion_answers_with_the_object_or_a_status_as_the_kind_has_it() {
    let server = server();
    let core = "/api/v1/namespaces/default";
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}});
    for (plural, object, answer) in [
        ("services", service, "Service"),
        ("configmaps", map, "Status"),
    ] {
        create(&server, &format!("{core}/{plural}"), object).await;
        let (code, answered) =
            send(&server, "DELETE", &format!("{core}/{plural}/a"), JSON, "").await;
        assert_eq!((code, &answered["kind"]), (200, &json!(answer)), "{plural}");
    }
}
