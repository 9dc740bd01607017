//! Copies of requests: counted where they arrive.
//!
//! Start from [`SUITE`]. A request is counted under its check's name by every pod that it reaches, so
//! that a copy is told from the request itself. Alpha answers; beta and gamma only see copies.

use strata::budget::CONVERGE;
use strata::wait::{self, Progress};
use strata::wire::{Reply, RequestSpec};
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::{entrance, explain, reasons};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::mirrors_requests",
        claim: "Of each request one copy reaches the mirror, and the answer is the backend's.",
        source: "HTTPRouteRequestMirror",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteRequestMirror"),
        ],
        manifest: None,
        run: |scope| Box::pin(mirrors(scope, "/one", (20, 0))),
    },
    Check {
        id: "gateway::mirrors_to_several",
        claim: "Of each request one copy reaches each of several mirrors.",
        source: "HTTPRouteRequestMultipleMirrors",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteRequestMultipleMirrors"),
        ],
        manifest: None,
        run: |scope| Box::pin(mirrors(scope, "/two", (20, 20))),
    },
    Check {
        id: "gateway::mirrors_a_percentage",
        claim: "Of a rule's requests as many percent are copied as its mirror says.",
        source: "HTTPRouteRequestPercentageMirror",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteRequestPercentageMirror"),
        ],
        manifest: None,
        run: |scope| Box::pin(mirrors_a_quarter(scope, "/percent")),
    },
    Check {
        id: "gateway::mirrors_a_fraction",
        claim: "Of a rule's requests the fraction is copied that its mirror says.",
        source: "HTTPRouteRequestPercentageMirror",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteRequestPercentageMirror"),
        ],
        manifest: None,
        run: |scope| Box::pin(mirrors_a_quarter(scope, "/fraction")),
    },
    Check {
        id: "gateway::mirror_that_is_missing_is_left_out",
        claim: "A mirror that does not exist is named in condition ResolvedRefs, and requests are served without it.",
        source: "Gateway API: HTTPRequestMirrorFilter backendRef, \"this BackendRef is invalid and must be dropped\"",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteRequestMirror"),
        ],
        manifest: None,
        run: |scope| Box::pin(mirror_that_is_missing_is_left_out(scope)),
    },
];

const HOST: &str = "mirrored.gateway.example";

async fn mirrors(scope: &Scope, path: &str, copies: (u64, u64)) -> Outcome {
    let answers = send(scope, path, 20).await?;
    let outcome = expect_eq(
        format!("who answers 20 requests for {path}"),
        &vec!["200 by alpha".to_owned(); 20],
        &answers.iter().map(said::said).collect(),
        "the mirror answers in the backend's place, or its failures are the client's",
    );
    explain(scope, outcome, "mirrored", path).await?;
    let outcome = scope
        .eventually(Eventually {
            what: &format!(
                "how many of the 20 requests for {path} alpha, beta and gamma have seen"
            ),
            expected: [20, copies.0, copies.1],
            observe: async || {
                let (alpha, beta) = (seen(scope, "alpha").await?, seen(scope, "beta").await?);
                Ok([alpha, beta, seen(scope, "gamma").await?])
            },
            likely: "the controller does the first RequestMirror of a rule only, or none",
        })
        .await;
    explain(scope, outcome, "mirrored", path).await
}

async fn mirrors_a_quarter(scope: &Scope, path: &str) -> Outcome {
    // All, or none, or a half: fifteen points tell these from a quarter.
    let share = scope.fixed_share(0.25, 0.15)?;
    let answers = send(scope, path, share.requests()).await?;
    let failed = answers
        .iter()
        .map(said::said)
        .find(|it| it != "200 by alpha");
    let outcome = expect_eq(
        format!("an answer to one of the requests for {path} that is not alpha's"),
        &None,
        &failed,
        "the mirror answers in the backend's place",
    );
    explain(scope, outcome, "mirrored", path).await?;
    let mut before = None;
    // Copies go their own way, and may arrive later than the answer.
    let copied = wait::until("no more copies arrive", CONVERGE, async || {
        let now = seen(scope, "beta").await?;
        Ok(match before.replace(now) == Some(now) {
            true => Progress::Ready(now),
            false => Progress::NotYet(format!("{now} have, and it was another number before")),
        })
    })
    .await?;
    for (key, value) in share.records(copied) {
        scope.record(key, value);
    }
    let outcome = share.judge(
        &format!("the requests for {path} of which beta has seen a copy"),
        copied,
        "the controller mirrors all requests, or takes percent and fraction for something else",
    );
    explain(scope, outcome, "mirrored", path).await
}

async fn mirror_that_is_missing_is_left_out(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let answer = said::said(&entrance.get(HOST, "/nobody").await?);
    let [accepted, resolved] = reasons(scope, "mirrored-to-nobody").await?;
    let outcome = expect_eq(
        "who answers, and the reasons of conditions Accepted and ResolvedRefs",
        &["200 by alpha", "Accepted", "BackendNotFound"].map(str::to_owned),
        &[answer, accepted, resolved],
        "the controller fails requests for a mirror that is missing, or does not look whether it is",
    );
    explain(scope, outcome, "mirrored-to-nobody", "/nobody").await
}

/// Sends requests that are counted under the check's name.
async fn send(scope: &Scope, path: &str, count: u64) -> Result<Vec<Reply>, NoVerdict> {
    let entrance = entrance(scope).await?;
    let path = format!("{path}?count={}", scope.id());
    let spec = RequestSpec {
        count,
        concurrency: 8,
        ..entrance.request(HOST, &path)
    };
    Ok(entrance.outside().request(&spec).await?.0)
}

/// How many requests of the check a pod of the fixture has seen.
async fn seen(scope: &Scope, pod: &str) -> Result<u64, NoVerdict> {
    let vantage = scope.pod(&format!("app={pod}")).await?;
    let url = format!("http://localhost:8080/counted?count={}", scope.id());
    let answer = vantage.get(url).await?.answer;
    let count = answer.and_then(|answer| answer.count);
    count.ok_or_else(|| NoVerdict::new(format!("{pod} does not tell what it has counted")))
}
