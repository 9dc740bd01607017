//! What a rule does to requests and answers on their way.
//!
//! Start from [`SUITE`]. All rules are of the fixture's route `filtered`, a path each.

use std::collections::BTreeMap;

use strata::wire::{Reply, RequestSpec};
use strata::{Check, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::{entrance, explain};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::changes_request_headers",
        claim: "Request headers are set, added and removed before the backend sees them, for a rule or for one backend.",
        source: "HTTPRouteRequestHeaderModifier, HTTPRouteBackendRequestHeaderModifier",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(changes_request_headers(scope)),
    },
    Check {
        id: "gateway::changes_response_headers",
        claim: "Response headers are set and removed before the client sees them.",
        source: "HTTPRouteResponseHeaderModifier",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(changes_response_headers(scope)),
    },
    Check {
        id: "gateway::rewrites_paths",
        claim: "A prefix that matched is replaced element by element, or the whole path is; the query stays.",
        source: "HTTPRouteRewritePath",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(rewrites_paths(scope)),
    },
    Check {
        id: "gateway::rewrites_hosts",
        claim: "The backend is asked for the host that the rule says.",
        source: "HTTPRouteRewriteHost",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(rewrites_hosts(scope)),
    },
    Check {
        id: "gateway::redirects",
        claim: "Redirects change scheme, host, port and path as the rule says, keep what it does not name, and never reach a backend.",
        source: "HTTPRouteRedirectHostAndStatus, HTTPRouteRedirectScheme, HTTPRouteRedirectPort, HTTPRouteRedirectPath",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(redirects(scope)),
    },
    Check {
        id: "gateway::times_out",
        claim: "A request that takes longer than the rule's timeout is answered with 504, and a quick one is served.",
        source: "HTTPRouteTimeoutRequest",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(times_out(scope)),
    },
];

const HOST: &str = "filtered.gateway.example";

async fn changes_request_headers(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let mut seen = BTreeMap::new();
    for path in ["/request-headers", "/backend-headers"] {
        let spec = RequestSpec {
            headers: vec![
                "X-Set: client".into(),
                "X-Added: client".into(),
                "X-Removed: client".into(),
            ],
            ..entrance.request(HOST, path)
        };
        let reply = entrance.send(&spec).await?;
        seen.insert(
            path,
            ["x-set", "x-added", "x-removed"].map(|name| at_backend(&reply, name)),
        );
    }
    let expected = BTreeMap::from([
        (
            "/request-headers",
            ["gateway", "client, gateway", "absent"].map(str::to_owned),
        ),
        (
            "/backend-headers",
            ["backend", "client", "client"].map(str::to_owned),
        ),
    ]);
    let outcome = expect_eq(
        "X-Set, X-Added and X-Removed at the backend, by path",
        &expected,
        &seen,
        "the controller does not do RequestHeaderModifier",
    );
    explain(scope, outcome, "filtered", "/request-headers").await
}

async fn changes_response_headers(scope: &Scope) -> Outcome {
    let reply = get(scope, "/response-headers").await?;
    let outcome = expect_eq(
        "the answer, and X-From-Gateway, X-Strata-Pod and X-Strata-Node at the client",
        &("200".to_owned(), Some("yes"), Some("alpha"), None),
        &(
            said::status(&reply),
            reply.header("x-from-gateway"),
            reply.header("x-strata-pod"),
            reply.header("x-strata-node"),
        ),
        "the controller does not do ResponseHeaderModifier",
    );
    explain(scope, outcome, "filtered", "/response-headers").await
}

async fn rewrites_paths(scope: &Scope) -> Outcome {
    let mut seen = BTreeMap::new();
    for path in [
        "/rewrite/prefix",
        "/rewrite/prefix/more?q=1",
        "/rewrite/full",
        "/rewrite/full/more?q=1",
    ] {
        let answer = get(scope, path).await?.answer;
        seen.insert(
            path,
            answer.map(|answer| format!("{}?{}", answer.path, answer.query)),
        );
    }
    let expected = [
        ("/rewrite/prefix", "/new?"),
        ("/rewrite/prefix/more?q=1", "/new/more?q=1"),
        ("/rewrite/full", "/whole?"),
        ("/rewrite/full/more?q=1", "/whole?q=1"),
    ];
    let outcome = expect_eq(
        "path and query at the backend, by what was asked for",
        &expected
            .map(|(asked, arrived)| (asked, Some(arrived.to_owned())))
            .into(),
        &seen,
        "the controller replaces text, not path elements",
    );
    explain(scope, outcome, "filtered", "/rewrite/prefix").await
}

async fn rewrites_hosts(scope: &Scope) -> Outcome {
    let answer = get(scope, "/rewrite/host").await?.answer;
    let outcome = expect_eq(
        "the host at the backend, and the path",
        &Some(("inner.example.com".to_owned(), "/rewrite/host".to_owned())),
        &answer.map(|answer| (answer.host, answer.path)),
        "the controller does not do URLRewrite of the hostname",
    );
    explain(scope, outcome, "filtered", "/rewrite/host").await
}

async fn redirects(scope: &Scope) -> Outcome {
    let cases = [
        (
            "/redirect/host",
            "301",
            "http://other.example.com/redirect/host",
        ),
        (
            "/redirect/scheme",
            "302",
            "https://filtered.gateway.example/redirect/scheme",
        ),
        (
            "/redirect/port",
            "302",
            "http://filtered.gateway.example:8443/redirect/port",
        ),
        (
            "/redirect/prefix/more?q=1",
            "302",
            "http://filtered.gateway.example/new/more?q=1",
        ),
        (
            "/redirect/full/more?q=1",
            "302",
            "http://filtered.gateway.example/whole?q=1",
        ),
    ];
    let mut seen = BTreeMap::new();
    for (path, _, _) in cases {
        let reply = get(scope, path).await?;
        let location = reply.header("location").unwrap_or("none").to_owned();
        seen.insert(path, (said::said(&reply), without_known_port(location)));
    }
    let outcome = expect_eq(
        "status and location, by what was asked for",
        &cases
            .map(|(path, status, location)| (path, (status.to_owned(), location.to_owned())))
            .into(),
        &seen,
        "the controller fills in what the rule leaves out with something other than the request's own",
    );
    explain(scope, outcome, "filtered", "/redirect/host").await
}

async fn times_out(scope: &Scope) -> Outcome {
    let slow = said::said(&get(scope, "/timeout?delay_ms=3000").await?);
    let quick = said::said(&get(scope, "/timeout").await?);
    let outcome = expect_eq(
        "GET /timeout, where the backend waits for 3 s, and where it does not",
        &("504".to_owned(), "200 by alpha".to_owned()),
        &(slow, quick),
        "the controller does not do timeouts.request",
    );
    explain(scope, outcome, "filtered", "/timeout").await
}

async fn get(scope: &Scope, path: &str) -> Result<Reply, NoVerdict> {
    entrance(scope).await?.get(HOST, path).await
}

/// A header's values at the backend: several, or one with commas, mean the same (RFC 9110, 5.3).
fn at_backend(reply: &Reply, name: &str) -> String {
    let values = reply
        .answer
        .as_ref()
        .and_then(|answer| answer.headers.get(name));
    let values = values.map(|values| values.join(", ").replace(",", ", ").replace(",  ", ", "));
    values.unwrap_or_else(|| "absent".to_owned())
}

/// A location that names the scheme's own port is the same without it.
fn without_known_port(location: String) -> String {
    for (scheme, port) in [("http://", ":80/"), ("https://", ":443/")] {
        if location.starts_with(scheme) {
            return location.replacen(port, "/", 1);
        }
    }
    location
}
