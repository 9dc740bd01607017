//! What a rule does to requests and answers on their way.
//!
//! Start from [`SUITE`]. All rules are of the fixture's routes `filtered` and `filtered-more`, a path each.

use std::collections::BTreeMap;

use strata::wire::{Reply, RequestSpec};
use strata::{Check, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::{entrance, explain, reasons};
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
        id: "gateway::several_headers_are_changed",
        claim: "One filter sets, adds and removes several headers, whatever case their names are written in.",
        source: "HTTPRouteRequestHeaderModifier",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(several_headers_are_changed(scope)),
    },
    Check {
        id: "gateway::backend_headers_are_changed",
        claim: "A backend's own filter sets, adds and removes request headers.",
        source: "HTTPRouteBackendRequestHeaderModifier",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteBackendRequestHeaderModification"),
        ],
        manifest: None,
        run: |scope| Box::pin(backend_headers_are_changed(scope)),
    },
    Check {
        id: "gateway::response_headers_are_added",
        claim: "A response header that is added stands beside the backend's own of that name.",
        source: "HTTPRouteResponseHeaderModifier",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteResponseHeaderModification"),
        ],
        manifest: None,
        run: |scope| Box::pin(response_headers_are_added(scope)),
    },
    Check {
        id: "gateway::rewrites_a_prefix_away",
        claim: "A prefix that is replaced by / leaves the rest of the path, and headers are changed by the same rule.",
        source: "HTTPRouteRewritePath",
        needs: &[Need::Outside, Need::GatewayFeature("HTTPRoutePathRewrite")],
        manifest: None,
        run: |scope| Box::pin(rewrites_a_prefix_away(scope)),
    },
    Check {
        id: "gateway::rewrites_hosts_and_headers",
        claim: "One rule rewrites the host and changes headers.",
        source: "HTTPRouteRewriteHost",
        needs: &[Need::Outside, Need::GatewayFeature("HTTPRouteHostRewrite")],
        manifest: None,
        run: |scope| Box::pin(rewrites_hosts_and_headers(scope)),
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
        id: "gateway::times_out",
        claim: "A request that takes longer than the rule's timeout is answered with 504, and a quick one is served.",
        source: "HTTPRouteTimeoutRequest",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteRequestTimeout"),
        ],
        manifest: None,
        run: |scope| Box::pin(times_out(scope)),
    },
    Check {
        id: "gateway::times_out_attempts",
        claim: "An attempt that takes longer than the rule's timeout for the backend ends the request with 504, and a quick one is served.",
        source: "HTTPRouteTimeoutBackendRequest",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteBackendTimeout"),
        ],
        manifest: None,
        run: |scope| Box::pin(times_out_attempts(scope)),
    },
    Check {
        id: "gateway::timeout_of_zero_is_none",
        claim: "A rule whose timeout is 0s waits for its backend longer than a rule with a short one does.",
        source: "HTTPRouteTimeoutRequest; Gateway API: HTTPRouteTimeouts request, \"a zero-valued duration disables the timeout\" (GEP-1742)",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteRequestTimeout"),
        ],
        manifest: None,
        run: |scope| Box::pin(timeout_of_zero_is_none(scope)),
    },
    Check {
        id: "gateway::named_rules_are_served",
        claim: "A rule that has a name is served like any other.",
        source: "HTTPRouteNamedRule",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteNamedRouteRule"),
        ],
        manifest: None,
        run: |scope| Box::pin(named_rules_are_served(scope)),
    },
    Check {
        id: "gateway::unknown_filters_fail_their_requests",
        claim: "A rule with a filter that nobody knows answers with an error instead of passing requests by the filter, and its route says so.",
        source: "Gateway API: HTTPRouteRule filters, \"requests that would have been processed by that filter MUST receive a HTTP error response\"",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(unknown_filters_fail_their_requests(scope)),
    },
];

const HOST: &str = "filtered.gateway.example";
const MORE: &str = "more.gateway.example";

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

async fn several_headers_are_changed(scope: &Scope) -> Outcome {
    let reply = send_headers(
        scope,
        "/request-headers",
        &[
            "X-Set: client",
            "X-Other-Set: client",
            "X-Added: client",
            "X-Other-Added: client",
            "X-Removed: client",
            "X-Other-Removed: client",
        ],
    )
    .await?;
    let names = [
        "x-set",
        "x-other-set",
        "x-added",
        "x-other-added",
        "x-removed",
        "x-other-removed",
    ];
    let outcome = expect_eq(
        format!("at the backend: {}", names.join(", ")),
        &[
            "gateway",
            "gateway",
            "client, gateway",
            "client, gateway",
            "absent",
            "absent",
        ]
        .map(str::to_owned),
        &names.map(|name| at_backend(&reply, name)),
        "the controller does the first of several changes only, or compares names of headers by case",
    );
    explain(scope, outcome, "filtered-more", "/request-headers").await
}

async fn backend_headers_are_changed(scope: &Scope) -> Outcome {
    let headers = ["X-Set: client", "X-Added: client", "X-Removed: client"];
    let reply = send_headers(scope, "/backend-headers", &headers).await?;
    let outcome = expect_eq(
        "X-Set, X-Added and X-Removed at the backend",
        &["gateway", "client, gateway", "absent"].map(str::to_owned),
        &["x-set", "x-added", "x-removed"].map(|name| at_backend(&reply, name)),
        "the controller does a part of a backend's RequestHeaderModifier only",
    );
    explain(scope, outcome, "filtered-more", "/backend-headers").await
}

async fn response_headers_are_added(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let path = "/response-headers?header=x-own:backend";
    let reply = entrance.get(MORE, path).await?;
    let told = |name: &str| {
        let values = reply.headers.get(name).map(|values| values.join(","));
        let values = values.unwrap_or_default();
        let mut values: Vec<_> = values.split(',').map(|it| it.trim().to_owned()).collect();
        values.sort();
        values.join(" ")
    };
    let outcome = expect_eq(
        "X-Own, which the backend sends too, and X-New at the client",
        &["backend gateway", "gateway"].map(str::to_owned),
        &["x-own", "x-new"].map(told),
        "the controller puts the header that is added in place of the backend's",
    );
    explain(scope, outcome, "filtered-more", "/response-headers").await
}

async fn rewrites_a_prefix_away(scope: &Scope) -> Outcome {
    let mut seen = Vec::new();
    for path in ["/root", "/root/", "/root/more?q=1"] {
        let reply = send_headers(scope, path, &[]).await?;
        let answer = reply.answer.as_ref();
        let arrived = answer.map(|answer| format!("{}?{}", answer.path, answer.query));
        seen.push((arrived, at_backend(&reply, "x-set")));
    }
    let outcome = expect_eq(
        "path and query, and X-Set, at the backend of /root, /root/ and /root/more?q=1",
        &["/?", "/?", "/more?q=1"]
            .map(|path| (Some(path.to_owned()), "gateway".to_owned()))
            .to_vec(),
        &seen,
        "the controller leaves two slashes, or none, where a prefix becomes /",
    );
    explain(scope, outcome, "filtered-more", "/root").await
}

async fn rewrites_hosts_and_headers(scope: &Scope) -> Outcome {
    let reply = send_headers(scope, "/host", &[]).await?;
    let host = reply.answer.as_ref().map(|answer| answer.host.as_str());
    let outcome = expect_eq(
        "the host and X-Set at the backend",
        &(Some("inner.example.com"), "gateway".to_owned()),
        &(host, at_backend(&reply, "x-set")),
        "the controller does one filter of a rule only",
    );
    explain(scope, outcome, "filtered-more", "/host").await
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

async fn times_out(scope: &Scope) -> Outcome {
    let slow = said::said(&get(scope, "/timeout?delay_ms=4000").await?);
    let quick = said::said(&get(scope, "/timeout").await?);
    let outcome = expect_eq(
        "GET /timeout, where the backend waits for 4 s, and where it does not",
        &("504".to_owned(), "200 by alpha".to_owned()),
        &(slow, quick),
        "the controller does not do timeouts.request",
    );
    explain(scope, outcome, "filtered", "/timeout").await
}

async fn times_out_attempts(scope: &Scope) -> Outcome {
    let slow = said::said(&get(scope, "/timeout-attempt?delay_ms=4000").await?);
    let quick = said::said(&get(scope, "/timeout-attempt").await?);
    let outcome = expect_eq(
        "GET /timeout-attempt, where the backend waits for 4 s, and where it does not",
        &("504".to_owned(), "200 by alpha".to_owned()),
        &(slow, quick),
        "the controller does not do timeouts.backendRequest",
    );
    explain(scope, outcome, "filtered", "/timeout-attempt").await
}

async fn timeout_of_zero_is_none(scope: &Scope) -> Outcome {
    let limited = said::said(&get(scope, "/timeout?delay_ms=4000").await?);
    let unlimited = said::said(&get(scope, "/timeout-none?delay_ms=2500").await?);
    let outcome = expect_eq(
        "a backend that waits for 4 s, by a rule with a timeout of 2 s, and one that waits for 2.5 s, by one of 0s",
        &("504".to_owned(), "200 by alpha".to_owned()),
        &(limited, unlimited),
        "the controller takes 0s for no time at all",
    );
    explain(scope, outcome, "filtered", "/timeout-none").await
}

async fn named_rules_are_served(scope: &Scope) -> Outcome {
    let answer = said::said(&get(scope, "/named").await?);
    let outcome = expect_eq(
        "who answers /named",
        &"200 by beta".to_owned(),
        &answer,
        "the controller does not take rules with a name",
    );
    explain(scope, outcome, "filtered", "/named").await
}

async fn unknown_filters_fail_their_requests(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let reply = entrance.get("invalid.gateway.example", "/filter").await?;
    let control = entrance.get("invalid.gateway.example", "/fine").await?;
    let failed = reply.status.is_some_and(|status| status >= 400);
    // An extension that is not known is a reference that leads nowhere, or a value not supported.
    let [accepted, resolved] = reasons(scope, "unknown-filter").await?;
    let said_so = accepted != "Accepted" || resolved != "ResolvedRefs";
    let outcome = expect_eq(
        "whether /filter is answered with an error, not by a backend, who answers /fine, and whether the route says that something is wrong",
        &(true, None, "200 by alpha".to_owned(), true),
        &(failed, reply.pod(), said::said(&control), said_so),
        "the controller passes requests by a filter that it does not know",
    );
    explain(scope, outcome, "unknown-filter", "/filter").await
}

async fn get(scope: &Scope, path: &str) -> Result<Reply, NoVerdict> {
    entrance(scope).await?.get(HOST, path).await
}

/// The reply to a GET with headers, by a rule of the fixture's route `filtered-more`.
async fn send_headers(scope: &Scope, path: &str, headers: &[&str]) -> Result<Reply, NoVerdict> {
    let entrance = entrance(scope).await?;
    let spec = RequestSpec {
        headers: headers.iter().map(ToString::to_string).collect(),
        ..entrance.request(MORE, path)
    };
    entrance.send(&spec).await
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
