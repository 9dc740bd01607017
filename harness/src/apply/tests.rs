//! Applying what may be there already, and be somebody else's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::{Applier, Fit, RUN_LABEL};

/// A cluster in which Namespace `ours` is there with these labels, or not at all; and what was patched.
fn cluster(there: Option<Value>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let patched = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&patched);
    let api = tower::service_fn(move |request: http::Request<Body>| {
        let path = request.uri().path().to_owned();
        let labels = there.clone();
        let noted = Arc::clone(&noted);
        async move {
            let (status, answer) = match (request.method().as_str(), path.as_str()) {
                ("GET", "/api/v1") => (
                    200,
                    json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [{
                        "name": "namespaces", "singularName": "", "namespaced": false,
                        "kind": "Namespace", "verbs": ["get", "patch"],
                    }]}),
                ),
                ("PATCH", path) => {
                    noted.lock().unwrap().push(path.to_owned());
                    (
                        200,
                        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ours"}}),
                    )
                }
                _ => match labels {
                    Some(labels) => (
                        200,
                        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                            "metadata": {"name": "ours", "labels": labels}}),
                    ),
                    None => (
                        404,
                        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                            "code": 404, "message": "not found", "reason": "NotFound"}),
                    ),
                },
            };
            let response = http::Response::builder().status(status);
            response.body(Body::from(answer.to_string().into_bytes()))
        }
    });
    (Client::new(api, "default"), patched)
}

#[tokio::test]
async fn a_namespace_of_others_is_not_taken_over() {
    for (there, taken) in [
        (None, true),
        (Some(json!({RUN_LABEL: "abc123"})), true),
        (Some(json!({RUN_LABEL: "zzzzzz"})), false),
        (Some(json!({})), false),
    ] {
        let (client, patched) = cluster(there.clone());
        let applier = Applier::new(client, Fit::default(), "abc123");
        let made = applier.namespace("ours", &BTreeMap::new(), None).await;
        assert_eq!(made.is_ok(), taken, "{there:?}: {made:?}");
        assert_eq!(
            patched.lock().unwrap().len(),
            usize::from(taken),
            "{there:?}"
        );
        if let Err(no_verdict) = made {
            assert_eq!(
                no_verdict.because(),
                "Namespace ours is there already, and not of this run: it has no label \
                 strata.dev/run=abc123"
            );
        }
    }
}
