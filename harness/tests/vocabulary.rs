//! A check as suites write it: that it compiles is the test.

use k8s_openapi::api::core::v1::Service;
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Outcome, Scope, Subject, expect_eq};

const CHECK: Check = Check {
    id: "services::reaches_every_ready_pod",
    claim: "A ClusterIP Service sends requests to every ready pod behind it.",
    source: "",
    needs: &[],
    manifest: None,
    run: |scope| Box::pin(reaches_every_ready_pod(scope)),
};

async fn reaches_every_ready_pod(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=web").await?;
    let service: Service = scope.get("web").await?;
    let url = format!("http://{}/", service.metadata.name.unwrap_or_default());
    let outcome = scope
        .eventually(Eventually {
            what: "30 requests to http://web/ are answered by exactly the ready pods",
            expected: pods.iter().map(|pod| pod.name.clone()).collect(),
            observe: async || Ok(client.get_many(&url, 30).await?.served_by()),
            likely: "a node has not programmed an endpoint that the EndpointSlice lists",
        })
        .await;
    let about = Subject::Service {
        namespace: scope.namespace(),
        name: "web",
        port: Some(80),
        from: &client,
    };
    scope.explain(outcome, about).await?;
    let arms = [("web-v1", 90.0), ("web-v2", 10.0)];
    let outcome = scope
        .split(
            &client,
            &RequestSpec::get(&url),
            &arms,
            |reply| reply.pod().unwrap_or_default().to_owned(),
            "the weights of the VirtualService",
        )
        .await;
    let about = Subject::Split {
        namespace: scope.namespace(),
        virtual_service: "web",
        expected: &arms,
        observed: &scope.shares(),
    };
    scope.explain(outcome, about).await?;
    expect_eq("the status", &Some(200), &client.get(url).await?.status, "")
}

#[test]
fn a_check_as_suites_write_it() {
    assert!(CHECK.id.starts_with("services::"));
}
