//! What a rule makes of a request before the backend sees it, and answers that need no backend.
//!
//! Start from [`SUITE`]. All rules are of the fixture's host `remade`.

use std::collections::BTreeMap;

use strata::wire::{Answer, Reply};
use strata::{Check, Layer, Outcome, Scope, Suite, expect_eq};

use super::{client, explain_host, get};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::rewrites_the_authority",
        claim: "A rewrite of the authority is the host that the backend is asked for.",
        source: "Istio: HTTPRewrite authority; istio: virtualServiceCases, rewrite authority",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(arrives(scope, "/authority", host, "rewritten.example.com")),
    },
    Check {
        id: "mesh::rewrites_exact_paths_whole",
        claim: "A rewrite of a path that was matched as a whole replaces all of it.",
        source: "Istio: HTTPRewrite uri",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(arrives(scope, "/exact?q=1", path, "/whole?q=1")),
    },
    Check {
        id: "mesh::rewrites_paths_by_pattern",
        claim: "A rewrite by a pattern puts the pattern's groups where they belong.",
        source: "Istio: HTTPRewrite uriRegexRewrite",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(arrives(
                scope,
                "/pattern/one/two/three?q=1",
                path,
                "/two/three/one?q=1",
            ))
        },
    },
    Check {
        id: "mesh::sets_the_host_by_a_rules_headers",
        claim: "A Host header that a rule sets is the host that the backend is asked for.",
        source: "istio: virtualServiceCases, set authority header",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(arrives(scope, "/host-of-rule", host, "rule.example.com")),
    },
    Check {
        id: "mesh::sets_the_host_by_a_destinations_headers",
        claim: "A Host header that a destination sets is the host that the backend is asked for.",
        source: "istio: virtualServiceCases, set host header in destination",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(arrives(
                scope,
                "/host-of-destination",
                host,
                "destination.example.com",
            ))
        },
    },
    Check {
        id: "mesh::a_rules_host_goes_before_a_destinations",
        claim: "Of a host that a rule sets and one that its destination does the backend is asked for the rule's.",
        source: "istio: virtualServiceCases, set host header in route and destination",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(arrives(scope, "/host-of-both", host, "rule.example.com")),
    },
    Check {
        id: "mesh::changes_headers_by_destination",
        claim: "Headers that a destination sets on requests and answers are set on its share, and on no other.",
        source: "Istio: HTTPRouteDestination headers",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(changes_headers_by_destination(scope)),
    },
    Check {
        id: "mesh::redirects_scheme_and_port",
        claim: "A redirect changes scheme, host and port, keeps path and query, and is of status 301 where the rule says none.",
        source: "istio: virtualServiceCases, redirect port and scheme; Istio: HTTPRedirect",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(redirects_scheme_and_port(scope)),
    },
    Check {
        id: "mesh::answers_by_itself",
        claim: "A direct response is given by the sidecar, with the status and body that the rule says.",
        source: "Istio: HTTPDirectResponse",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(answers_by_itself(scope)),
    },
];

/// Judges what arrives at the backend of a request.
async fn arrives(scope: &Scope, asked: &str, of: fn(&Answer) -> String, expected: &str) -> Outcome {
    let reply = get(scope, &format!("http://remade{asked}")).await?;
    let arrived = reply.answer.as_ref().map(of);
    let outcome = expect_eq(
        format!("GET http://remade{asked}: the answer, and what arrived"),
        &("200 by backend-v1".to_owned(), Some(expected.to_owned())),
        &(said::said(&reply), arrived),
        "the sidecar does not make of the request what the rule says",
    );
    explain_host(scope, outcome, "remade").await
}

fn host(answer: &Answer) -> String {
    answer.host.clone()
}

fn path(answer: &Answer) -> String {
    format!("{}?{}", answer.path, answer.query)
}

async fn changes_headers_by_destination(scope: &Scope) -> Outcome {
    let count = scope.enough(40, 2)?;
    let client = client(scope).await?;
    let answers = client.get_many("http://remade/arms", count).await?;
    let arms = |reply: &Reply| {
        let answer = reply.answer.as_ref();
        let at_backend = answer.and_then(|answer| answer.header("x-arm"));
        let at_client = reply.header("x-arm");
        let pod = reply.pod().unwrap_or("nobody").to_owned();
        (
            pod,
            (at_backend.map(str::to_owned), at_client.map(str::to_owned)),
        )
    };
    let expected = ["backend-v1", "backend-v2"].map(|arm| {
        let own = Some(arm.to_owned());
        (arm.to_owned(), (own.clone(), own))
    });
    let seen: BTreeMap<_, _> = answers.0.iter().map(arms).collect();
    let wrong = answers.0.iter().map(arms).filter(|(pod, arms)| {
        let own = Some(pod.clone());
        *arms != (own.clone(), own)
    });
    let outcome = expect_eq(
        "x-arm at the backend and at the client of 40 requests, by who answered, and how often another than its own",
        &(BTreeMap::from(expected), 0),
        &(seen, wrong.count()),
        "the sidecar applies a destination's headers to the whole rule, or not at all",
    );
    explain_host(scope, outcome, "remade").await
}

async fn redirects_scheme_and_port(scope: &Scope) -> Outcome {
    let reply = get(scope, "http://remade/moved/on?q=1").await?;
    let outcome = expect_eq(
        "GET http://remade/moved/on?q=1: its answer and where it leads",
        &(
            "301".to_owned(),
            Some("https://moved.example.com:8443/moved/on?q=1"),
        ),
        &(said::said(&reply), reply.header("location")),
        "the sidecar passes the request on instead, or changes what the rule does not name",
    );
    explain_host(scope, outcome, "remade").await
}

async fn answers_by_itself(scope: &Scope) -> Outcome {
    let reply = get(scope, "http://remade/said").await?;
    let body = reply.body.as_ref().map(|body| body.snippet.as_str());
    let outcome = expect_eq(
        "GET http://remade/said: its answer and the body",
        &("418".to_owned(), Some("said by the sidecar")),
        &(said::said(&reply), body),
        "the sidecar passes the request on instead",
    );
    explain_host(scope, outcome, "remade").await
}
