//! Pages of which origins may read the answers (CORS): what the Gateway says to a browser, and to whom.
//!
//! Start from [`SUITE`]. A browser refuses what it is not told that it may do, so a denial here is an
//! answer without the header that would allow it.

use strata::wire::{Reply, RequestSpec};
use strata::{Check, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::{entrance, explain};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::cors_tells_an_allowed_origin_what_it_may",
        claim: "A preflight request of an allowed origin is told the methods, headers, age and credentials that the rule allows.",
        source: "HTTPRouteCORS",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(tells_an_allowed_origin_what_it_may(scope)),
    },
    Check {
        id: "gateway::cors_tells_other_origins_nothing",
        claim: "A preflight request of an origin that the rule does not allow is told of none that is.",
        source: "HTTPRouteCORS",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(tells_other_origins_nothing(scope)),
    },
    Check {
        id: "gateway::cors_answers_are_readable_by_allowed_origins",
        claim: "An answer to an allowed origin names it and the headers that it may read, and one to another origin does not.",
        source: "HTTPRouteCORS",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(answers_are_readable_by_allowed_origins(scope)),
    },
    Check {
        id: "gateway::cors_origins_by_wildcard",
        claim: "A wildcard in an allowed origin covers names below its domain, not the domain itself, another scheme or a longer one.",
        source: "HTTPRouteCORS; Gateway API: HTTPCORSFilter allowOrigins",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(origins_by_wildcard(scope)),
    },
];

const NEEDS: &[Need] = &[Need::Outside, Need::GatewayFeature("HTTPRouteCORS")];
const HOST: &str = "shared.gateway.example";
const ALLOWED: &str = "https://app.example.com";
const STRANGER: &str = "https://stranger.example.net";
const ALLOW_ORIGIN: &str = "access-control-allow-origin";

async fn tells_an_allowed_origin_what_it_may(scope: &Scope) -> Outcome {
    let reply = preflight(scope, ALLOWED).await?;
    let list = |name: &str| {
        let value = reply.header(name).unwrap_or_default().to_ascii_lowercase();
        let mut items: Vec<_> = value
            .split(',')
            .map(|item| item.trim().to_owned())
            .collect();
        items.sort();
        items.join(" ")
    };
    let outcome = expect_eq(
        "origin, methods, headers, age and credentials that a preflight request of an allowed origin is told",
        &[ALLOWED, "get put", "content-type x-wanted", "600", "true"].map(str::to_owned),
        &[
            told(&reply, ALLOW_ORIGIN),
            list("access-control-allow-methods"),
            list("access-control-allow-headers"),
            told(&reply, "access-control-max-age"),
            told(&reply, "access-control-allow-credentials"),
        ],
        "the controller does not do filter CORS",
    );
    explain(scope, outcome, "shared", "/origins").await
}

async fn tells_other_origins_nothing(scope: &Scope) -> Outcome {
    let allowed = told(&preflight(scope, ALLOWED).await?, ALLOW_ORIGIN);
    let stranger = told(&preflight(scope, STRANGER).await?, ALLOW_ORIGIN);
    let outcome = expect_eq(
        "the origins that preflight requests of an allowed one and of a stranger are told",
        &(ALLOWED.to_owned(), "absent".to_owned()),
        &(allowed, stranger),
        "the controller allows every origin",
    );
    explain(scope, outcome, "shared", "/origins").await
}

async fn answers_are_readable_by_allowed_origins(scope: &Scope) -> Outcome {
    let mut seen = Vec::new();
    for (path, origin) in [
        ("/origins", ALLOWED),
        ("/origins", STRANGER),
        ("/others", ALLOWED),
    ] {
        let reply = send(scope, "GET", path, origin, &[]).await?;
        let exposed = told(&reply, "access-control-expose-headers").to_ascii_lowercase();
        let pod = reply.pod().unwrap_or("nobody").to_owned();
        seen.push([pod, told(&reply, ALLOW_ORIGIN), exposed]);
    }
    let outcome = expect_eq(
        "who answers, and the origin and headers told: an allowed origin, a stranger, and where no rule allows any",
        &vec![
            ["alpha", ALLOWED, "x-strata-pod"].map(str::to_owned),
            ["alpha", "absent", "absent"].map(str::to_owned),
            ["alpha", "absent", "absent"].map(str::to_owned),
        ],
        &seen,
        "the controller does CORS for preflight requests only, or for routes that do not ask for it",
    );
    explain(scope, outcome, "shared", "/origins").await
}

async fn origins_by_wildcard(scope: &Scope) -> Outcome {
    let cases = [
        ("https://one.apps.example.com", true),
        ("https://two.one.apps.example.com", true),
        ("https://apps.example.com", false),
        ("http://one.apps.example.com", false),
        ("https://one.apps.example.com.evil.example", false),
        ("https://one-apps.example.com", false),
    ];
    let mut seen = Vec::new();
    for (origin, _) in cases {
        let told = told(&preflight(scope, origin).await?, ALLOW_ORIGIN);
        seen.push((origin, told == origin));
    }
    let outcome = expect_eq(
        "whether an origin is allowed, by what it is",
        &cases.to_vec(),
        &seen,
        "the controller compares origins as text, or takes a dot for any character",
    );
    explain(scope, outcome, "shared", "/origins").await
}

async fn preflight(scope: &Scope, origin: &str) -> Result<Reply, NoVerdict> {
    let asked = [
        "Access-Control-Request-Method: PUT",
        "Access-Control-Request-Headers: x-wanted",
    ];
    send(scope, "OPTIONS", "/origins", origin, &asked).await
}

async fn send(
    scope: &Scope,
    method: &str,
    path: &str,
    origin: &str,
    headers: &[&str],
) -> Result<Reply, NoVerdict> {
    let entrance = entrance(scope).await?;
    let mut headers: Vec<_> = headers.iter().map(ToString::to_string).collect();
    headers.push(format!("Origin: {origin}"));
    let spec = RequestSpec {
        method: method.to_owned(),
        headers,
        ..entrance.request(HOST, path)
    };
    entrance.send(&spec).await
}

fn told(reply: &Reply, header: &str) -> String {
    reply.header(header).unwrap_or("absent").to_owned()
}
