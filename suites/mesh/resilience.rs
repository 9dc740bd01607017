//! What the sidecar does when a backend does not answer well, and copies of requests: both are counted where
//! they arrive.
//!
//! Start from [`SUITE`]. A backend counts requests by the name in their query, and answers only the first
//! of a name badly, as many as it is told.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use strata::budget::CONVERGE;
use strata::wait::{self, Progress};
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, NoVerdict, Outcome, Scope, Suite, Vantage, expect_eq};

use super::{by_address, client, explain_host, get};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::retries_until_it_is_served",
        claim: "A request that a rule retries is asked again until it is served, and no more.",
        source: "Istio: HTTPRetry; istio: virtualServiceCases, retry conditions",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(retried(scope, "/thrice", "first=2&status=503", "200", 3)),
    },
    Check {
        id: "mesh::retries_no_more_than_attempts",
        claim: "A request is retried as often as the rule says, and the last answer is the client's.",
        source: "Istio: HTTPRetry attempts",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(retried(scope, "/thrice", "first=9&status=503", "503", 4)),
    },
    Check {
        id: "mesh::zero_attempts_retry_nothing",
        claim: "A rule of no attempts asks the backend once.",
        source: "Istio: HTTPRetry attempts, \"if set to 0, retries are disabled\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(retried(scope, "/never", "first=1&status=503", "503", 1)),
    },
    Check {
        id: "mesh::retries_what_the_rule_names",
        claim: "A failure of the kind that the rule names is retried.",
        source: "Istio: HTTPRetry retryOn",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(retried(scope, "/gateway", "first=1&status=502", "200", 2)),
    },
    Check {
        id: "mesh::retries_nothing_that_no_rule_names",
        claim: "A failure of a kind that the rule does not name is the client's at once.",
        source: "Istio: HTTPRetry retryOn",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(retried(scope, "/gateway", "first=1&status=500", "500", 1)),
    },
    Check {
        id: "mesh::retries_by_status",
        claim: "A status that the rule names is retried.",
        source: "Istio: HTTPRetry retryOn, HTTP status codes",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(retried(scope, "/status", "first=1&status=418", "200", 2)),
    },
    Check {
        id: "mesh::tries_time_out_one_by_one",
        claim: "A try that takes longer than a try may take is given up, and the next one is served.",
        source: "Istio: HTTPRetry perTryTimeout",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(retried(scope, "/tries", "first=1&delay_ms=4000", "200", 2)),
    },
    Check {
        id: "mesh::mirrors_every_request",
        claim: "A copy of every request reaches the mirror, and the client is answered by the destination alone.",
        source: "istio: pilot/mirror_test.go, Mirroring",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(mirrors(scope, "/all", 20)),
    },
    Check {
        id: "mesh::mirrors_nothing_at_zero_percent",
        claim: "A mirror of 0 % gets no copy.",
        source: "istio: pilot/mirror_test.go, Mirroring",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(mirrors_nothing_at_zero_percent(scope)),
    },
    Check {
        id: "mesh::mirrors_by_percentage",
        claim: "A mirror of 30 % gets copies of 30 % of the requests.",
        source: "istio: pilot/mirror_test.go, Mirroring",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(mirrors_by_percentage(scope)),
    },
    Check {
        id: "mesh::lost_mirrors_are_no_harm",
        claim: "A mirror that is no Service does not keep a request from being served.",
        source: "Istio: HTTPRoute mirror, \"mirrored traffic is on a best effort basis\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(lost_mirrors_are_no_harm(scope)),
    },
    Check {
        id: "mesh::limits_what_is_under_way",
        claim: "Requests beyond the limits of a DestinationRule are refused by the sidecar with 503, and never reach the backend.",
        source: "Istio: ConnectionPoolSettings, circuit breaking task",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(limits_what_is_under_way(scope)),
    },
    Check {
        id: "mesh::ejects_failing_endpoints",
        claim: "An endpoint that fails as often in a row as the rule allows gets no more requests.",
        source: "Istio: OutlierDetection consecutive5xxErrors",
        needs: &[],
        manifest: Some("mesh/ejects_failing_endpoints.yaml"),
        run: |scope| Box::pin(ejects_failing_endpoints(scope)),
    },
];

/// Judges what the client is answered, and how often the backend was asked.
async fn retried(scope: &Scope, path: &str, how: &str, status: &str, times: u64) -> Outcome {
    let url = format!("http://retried{path}?count={}&{how}", scope.id());
    let reply = get(scope, &url).await?;
    let counted = reply.answer.as_ref().and_then(|answer| answer.count);
    let outcome = expect_eq(
        format!("GET {url}: the answer, and how often the backend was asked"),
        &(format!("{status} by backend-v1"), Some(times)),
        &(said::said(&reply), counted),
        "the rule's retries are not compiled into the client's sidecar",
    );
    explain_host(scope, outcome, "retried").await
}

/// How many requests of a name a backend of the fixture has been asked.
async fn counted(from: &Vantage, backend: &str, name: &str) -> Result<u64, NoVerdict> {
    let url = format!("http://{backend}/counted?count={name}");
    let reply = from.get(&url).await?;
    let count = reply.answer.as_ref().and_then(|answer| answer.count);
    count.ok_or_else(|| NoVerdict::new(format!("GET {url} tells no count: {}", said::said(&reply))))
}

/// Sends requests that a rule mirrors, all of which have to be served by its destination.
async fn send(scope: &Scope, client: &Vantage, path: &str, count: u64) -> Outcome {
    let spec = RequestSpec {
        count,
        ..by_address(scope, "mirrored", path).await?
    };
    let answers = client.request(&spec).await?;
    expect_eq(
        format!("who answers {count} requests for http://mirrored{path}, and failures"),
        &([("backend-v1".to_owned(), count)].into(), BTreeMap::new()),
        &(answers.counts(), answers.failures()),
        "the client is given the mirror's answers, or waits for them",
    )
}

/// Judges how many copies reach the mirror in the end.
async fn mirrors(scope: &Scope, path: &str, copies: u64) -> Outcome {
    let client = client(scope).await?;
    let name = scope.id();
    send(scope, &client, &format!("{path}?count={name}"), 20).await?;
    let outcome = scope
        .eventually(Eventually {
            what: &format!("how many of 20 requests for http://mirrored{path} reached backend-v1, and as copies backend-v2"),
            expected: (20, copies),
            observe: async || {
                let own = counted(&client, "backend-v1", name).await?;
                Ok((own, counted(&client, "backend-v2", name).await?))
            },
            likely: "the rule's mirror is not compiled into the client's sidecar",
        })
        .await;
    explain_host(scope, outcome, "mirrored").await
}

async fn mirrors_nothing_at_zero_percent(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let none = format!("{}-none", scope.id());
    send(scope, &client, &format!("/none?count={none}"), 20).await?;
    // Copies of what is sent later have arrived: so would those before them.
    mirrors(scope, "/all", 20).await?;
    let copies = counted(&client, "backend-v2", &none).await?;
    let own = counted(&client, "backend-v1", &none).await?;
    let outcome = expect_eq(
        "how many of 20 requests for http://mirrored/none reached backend-v1, and as copies backend-v2",
        &(20, 0),
        &(own, copies),
        "the mirror's percentage is ignored",
    );
    explain_host(scope, outcome, "mirrored").await
}

async fn mirrors_by_percentage(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    // Ignored, or of everything, or rounded to a half: twenty points tell these from 30 %.
    let share = scope.fixed_share(0.3, 0.2)?;
    let path = format!("/some?count={}", scope.id());
    send(scope, &client, &path, share.requests()).await?;
    let copies = settled(&client, scope.id()).await?;
    for (key, value) in share.records(copies) {
        scope.record(key, value);
    }
    let outcome = share.judge(
        "the requests for http://mirrored/some that reach backend-v2 as copies, which are 30 %",
        copies,
        "the mirror's percentage is ignored or rounded",
    );
    explain_host(scope, outcome, "mirrored").await
}

/// How many copies of a name there are, when there come no more.
async fn settled(client: &Vantage, name: &str) -> Result<u64, NoVerdict> {
    let mut before = None;
    wait::until("no more copies come", CONVERGE, async || {
        let now = counted(client, "backend-v2", name).await?;
        Ok(match before.replace(now) {
            Some(before) if before == now => Progress::Ready(now),
            _ => Progress::NotYet(format!("{now} by now")),
        })
    })
    .await
}

async fn lost_mirrors_are_no_harm(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let outcome = send(scope, &client, "/lost", 20).await;
    explain_host(scope, outcome, "mirrored").await
}

async fn limits_what_is_under_way(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    // Ten at once, each of which takes long enough for the others to come meanwhile; DNS is not asked.
    let burst = async |host: &str, name: &str| {
        let spec = RequestSpec {
            count: 10,
            concurrency: 10,
            ..by_address(scope, host, &format!("/?delay_ms=500&count={name}")).await?
        };
        client.request(&spec).await
    };
    let (free, name) = (format!("{}-free", scope.id()), scope.id());
    let control = burst("backend-v1", &free).await?;
    let limited = burst("limited", name).await?;
    let refused = limited.0.iter().filter(|reply| {
        reply.status == Some(503) && reply.header("x-envoy-overloaded") == Some("true")
    });
    let refused = refused.count() as u64;
    let served = limited.statuses().get(&200).copied().unwrap_or_default();
    let reached = counted(&client, "backend-v1", name).await?;
    scope.record("limits.refused", refused);
    let outcome = expect_eq(
        "failures of ten requests at once without limits; with limits: whether some are served, some refused as too many, what else, and whether only those that are served reach the backend",
        &(BTreeMap::new(), true, true, 0, true),
        &(
            control.failures(),
            served > 0,
            refused > 0,
            10 - served - refused,
            reached == served,
        ),
        "the DestinationRule's connectionPool is not compiled into the client's sidecar",
    );
    explain_host(scope, outcome, "limited").await
}

async fn ejects_failing_endpoints(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let service: Service = scope.get("web").await?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip);
    let ip = ip.ok_or_else(|| NoVerdict::new("Service web has no cluster IP"))?;
    let spec = RequestSpec {
        count: scope.enough(40, 2)?,
        concurrency: 8,
        connect_to: Some(format!("{ip}:80")),
        ..RequestSpec::get(format!("http://web.{}/healthz", scope.namespace()))
    };
    let settled = async |pods: [&str; 2]| {
        let outcome = scope
            .eventually(Eventually {
                what: &format!("the pods that answer 40 times GET {}", spec.url),
                expected: pods.map(str::to_owned).into_iter().collect(),
                observe: async || Ok(client.request(&spec).await?.served_by()),
                likely: "the DestinationRule's outlierDetection is not compiled into the client's sidecar",
            })
            .await;
        explain_host(scope, outcome, "web").await
    };
    settled(["good", "bad"]).await?;
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web},
        spec: {host: web, trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false}}, outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 10m, maxEjectionPercent: 100}}}}";
    scope.apply(rule).await?;
    settled(["good", "good"]).await
}
