//! Attempts after the first, counted at the backend.
//!
//! Start from [`SUITE`]. The backend of each check answers the first so many requests of a name badly, and
//! those after them well; it says with each answer how many there were.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::{explain, many};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::retries_by_status",
        claim: "A request that is answered with a status that the rule retries is sent again, until it is answered well.",
        source: "HTTPRouteRetry",
        needs: NEEDS,
        manifest: Some("gateway/retries_by_status.yaml"),
        run: |scope| Box::pin(by_status(scope)),
    },
    Check {
        id: "gateway::retries_are_bounded",
        claim: "A request that is never answered well is sent as many times again as the rule says, and the last answer is the client's.",
        source: "HTTPRouteRetry",
        needs: NEEDS,
        manifest: Some("gateway/retries_are_bounded.yaml"),
        run: |scope| Box::pin(are_bounded(scope)),
    },
    Check {
        id: "gateway::retries_no_other_status",
        claim: "A request that is answered with a status that the rule does not retry is not sent again.",
        source: "HTTPRouteRetry",
        needs: NEEDS,
        manifest: Some("gateway/retries_no_other_status.yaml"),
        run: |scope| Box::pin(no_other_status(scope)),
    },
    Check {
        id: "gateway::retries_attempts_that_take_too_long",
        claim: "An attempt that takes longer than the rule's timeout for the backend is given up, and the request is sent again.",
        source: "HTTPRouteRetryWithTimeouts",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteRetry"),
            Need::GatewayFeature("HTTPRouteRetryBackendTimeout"),
        ],
        manifest: Some("gateway/retries_attempts_that_take_too_long.yaml"),
        run: |scope| Box::pin(attempts_that_take_too_long(scope)),
    },
    Check {
        id: "gateway::retries_connections_that_fail",
        claim: "A request whose connection to one endpoint is refused is sent to another, as often as the rule retries.",
        source: "HTTPRouteRetryConnectionError",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteRetry"),
            Need::GatewayFeature("HTTPRouteRetryConnectionError"),
        ],
        manifest: Some("gateway/retries_connections_that_fail.yaml"),
        run: |scope| Box::pin(connections_that_fail(scope)),
    },
];

const NEEDS: &[Need] = &[Need::Outside, Need::GatewayFeature("HTTPRouteRetry")];

async fn by_status(scope: &Scope) -> Outcome {
    let seen = asked(scope, json!({}), "first=2&status=503").await?;
    let outcome = expect_eq(
        "the answer to a request of which the first two attempts are answered with 503, and the attempts that the backend has seen",
        &("200 by web".to_owned(), 3),
        &seen,
        "the controller does not do retry.codes, or gives up sooner than retry.attempts says",
    );
    explain(scope, outcome, "retried", "/").await
}

async fn are_bounded(scope: &Scope) -> Outcome {
    let seen = asked(scope, json!({}), "first=100&status=503").await?;
    let outcome = expect_eq(
        "the answer to a request of which all attempts are answered with 503, and the attempts that the backend has seen",
        &("503 by web".to_owned(), 4),
        &seen,
        "the controller counts the first attempt among retry.attempts, or has a number of its own",
    );
    explain(scope, outcome, "retried", "/").await
}

async fn no_other_status(scope: &Scope) -> Outcome {
    let seen = asked(scope, json!({}), "first=100&status=500").await?;
    let outcome = expect_eq(
        "the answer to a request that is answered with 500, and the attempts that the backend has seen",
        &("500 by web".to_owned(), 1),
        &seen,
        "the controller retries statuses that retry.codes does not name",
    );
    explain(scope, outcome, "retried", "/").await
}

async fn attempts_that_take_too_long(scope: &Scope) -> Outcome {
    let timeouts = json!({ "backendRequest": "2s" });
    let seen = asked(scope, timeouts, "first=1&delay_ms=4000").await?;
    let outcome = expect_eq(
        "the answer to a request of which the first attempt is not answered for 4 s, and the attempts that the backend has seen",
        &("200 by web".to_owned(), 2),
        &seen,
        "the controller ends the request when an attempt takes too long",
    );
    explain(scope, outcome, "retried", "/").await
}

async fn connections_that_fail(scope: &Scope) -> Outcome {
    let pods = scope.ready_pods("app=web").await?;
    let pod = pods
        .first()
        .ok_or_else(|| NoVerdict::new("web is not ready"))?;
    // The same pod, at the port where it serves and at one where nobody does.
    for (name, port) in [("served", 8080), ("refusing", 8099)] {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "half" } },
            "addressType": if pod.ip.is_ipv4() { "IPv4" } else { "IPv6" },
            "ports": [{ "port": port }],
            "endpoints": [{ "addresses": [pod.ip], "conditions": { "ready": true } }],
        });
        scope.apply(&slice.to_string()).await?;
    }
    let host = format!("{}.all.gateway.example", scope.namespace());
    scope
        .apply(&retried(scope, &host, json!({}), "half"))
        .await?;
    let entrance = many(scope).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "whether web answers any of ten requests",
            expected: true,
            observe: async || {
                let spec = RequestSpec {
                    count: 10,
                    ..entrance.request(&host, "/")
                };
                let answers = entrance.outside().request(&spec).await?;
                Ok(answers.counts().contains_key("web"))
            },
            likely: "the controller does not take a Service without a selector",
        })
        .await;
    explain(scope, outcome, "retried", "/").await?;
    // Chosen by turns or at random, of forty some are refused first.
    let spec = RequestSpec {
        count: 40,
        ..entrance.request(&host, "/")
    };
    let answers = entrance.outside().request(&spec).await?;
    let outcome = expect_eq(
        "the pods that answer 40 requests for a Service of whose two endpoints one refuses connections, with counts, and failures",
        &(BTreeMap::from([("web".to_owned(), 40)]), BTreeMap::new()),
        &(answers.counts(), answers.failures()),
        "the controller retries answers only",
    );
    explain(scope, outcome, "retried", "/").await
}

/// What comes of a request that the backend answers in this way, by a rule that retries 503 three times,
/// and how many attempts the backend has seen.
async fn asked(scope: &Scope, timeouts: Value, control: &str) -> Result<(String, u64), NoVerdict> {
    let host = format!("{}.all.gateway.example", scope.namespace());
    scope.apply(&retried(scope, &host, timeouts, "web")).await?;
    let entrance = many(scope).await?;
    entrance.settles(&host).await?;
    let path = format!("/?count={}&{control}", scope.id());
    let answer = said::said(&entrance.get(&host, &path).await?);
    let web = scope.pod("app=web").await?;
    let url = format!("http://localhost:8080/counted?count={}", scope.id());
    let counted = web.get(url).await?.answer.and_then(|answer| answer.count);
    let counted = counted.ok_or_else(|| NoVerdict::new("web does not tell what it has counted"))?;
    Ok((answer, counted))
}

/// A route of the check's own namespace whose rule retries 503, and what fails, three times.
fn retried(scope: &Scope, host: &str, timeouts: Value, backend: &str) -> String {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "retried" },
        "spec": {
            "parentRefs": [{ "name": "many", "namespace": scope.fixture(), "sectionName": "all" }],
            "hostnames": [host],
            "rules": [{
                "retry": { "attempts": 3, "codes": [503], "backoff": "10ms" },
                "timeouts": timeouts,
                "backendRefs": [{ "name": backend, "port": 80 }],
            }],
        },
    })
    .to_string()
}
