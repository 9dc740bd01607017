//! Which route takes a request.
//!
//! Start from [`SUITE`]. The yardstick is the text of the fields `matches` and `hostnames` of HTTPRoute
//! (Gateway API v1), with its order of precedence.

use std::collections::BTreeMap;

use strata::wire::RequestSpec;
use strata::{Check, Layer, Need, Outcome, Scope, Suite, expect_eq};

use super::{entrance, explain, many, table};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::unmatched_is_not_found",
        claim: "A request that no route matches is answered with 404 by the Gateway.",
        source: "Gateway API: HTTPRouteRule matches, \"an HTTP 404 status code MUST be returned\"",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(unmatched_is_not_found(scope)),
    },
    Check {
        id: "gateway::matches_paths",
        claim: "Exact paths match to the letter, prefixes by whole elements.",
        source: "HTTPRouteExactPathMatching, HTTPRouteMatching",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(matches_paths(scope)),
    },
    Check {
        id: "gateway::matches_headers_queries_and_methods",
        claim: "Headers, query parameters and methods match by value, and all conditions of a match together.",
        source: "HTTPRouteHeaderMatching, HTTPRouteQueryParamMatching, HTTPRouteMethodMatching",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(matches_headers_queries_and_methods(scope)),
    },
    Check {
        id: "gateway::matches_paths_by_expression",
        claim: "A path matches by a regular expression, and one that the expression does not describe does not.",
        source: "Gateway API: PathMatchRegularExpression",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(matches_paths_by_expression(scope)),
    },
    Check {
        id: "gateway::matches_headers_by_expression",
        claim: "A header matches by a regular expression, and one that the expression does not describe does not.",
        source: "Gateway API: HeaderMatchRegularExpression",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(matches_headers_by_expression(scope)),
    },
    Check {
        id: "gateway::matches_queries_by_expression",
        claim: "A query parameter matches by a regular expression, and one that the expression does not describe does not.",
        source: "Gateway API: QueryParamMatchRegularExpression",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(matches_queries_by_expression(scope)),
    },
    Check {
        id: "gateway::most_specific_match_wins",
        claim: "Exact wins over prefix, the longer prefix over the shorter, and more headers over fewer, in whatever order they are written.",
        source: "HTTPRoutePathMatchOrder, HTTPRouteHeaderMatching",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(most_specific_match_wins(scope)),
    },
    Check {
        id: "gateway::method_decides_before_headers",
        claim: "Of two rules of one path the one that asks for a method wins over one that asks for more headers.",
        source: "HTTPRouteMethodMatching; Gateway API: HTTPRouteRule matches, precedence",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteMethodMatching"),
        ],
        manifest: None,
        run: |scope| {
            Box::pin(precedes(
                scope,
                [
                    ("/method", "X-One: 1, X-Two: 2", BETA),
                    ("/method", "X-One: 1", BETA),
                ],
            ))
        },
    },
    Check {
        id: "gateway::more_query_parameters_win",
        claim: "Of two rules of one path the one that asks for more query parameters wins.",
        source: "HTTPRouteQueryParamMatching; Gateway API: HTTPRouteRule matches, precedence",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteQueryParamMatching"),
        ],
        manifest: None,
        run: |scope| {
            Box::pin(precedes(
                scope,
                [
                    ("/query?one=1&two=2", "", BETA),
                    ("/query?one=1", "", ALPHA),
                ],
            ))
        },
    },
    Check {
        id: "gateway::headers_decide_before_queries",
        claim: "Of two rules of one path the one that asks for a header wins over one that asks for more query parameters.",
        source: "Gateway API: HTTPRouteRule matches, precedence",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteQueryParamMatching"),
        ],
        manifest: None,
        run: |scope| {
            Box::pin(precedes(
                scope,
                [
                    ("/both?one=1&two=2", "X-One: 1", BETA),
                    ("/both?one=1&two=2", "", ALPHA),
                ],
            ))
        },
    },
    Check {
        id: "gateway::precedence_holds_across_routes",
        claim: "The same precedence holds across routes of one host, and of two equal matches the older route's wins.",
        source: "HTTPRouteMatchingAcrossRoutes; Gateway API: HTTPRouteRule matches, ties",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(precedence_holds_across_routes(scope)),
    },
    Check {
        id: "gateway::hostnames_match",
        claim: "An exact hostname wins over a wildcard, which covers any number of labels but not none.",
        source: "HTTPRouteHostnameIntersection; Gateway API: HTTPRoute spec.hostnames",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(hostnames_match(scope)),
    },
    Check {
        id: "gateway::listeners_are_told_apart",
        claim: "A route is served at the listener it attaches to, for that listener's hostname and port, and at no other.",
        source: "HTTPRouteListenerHostnameMatching, HTTPRouteListenerPortMatching",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(listeners_are_told_apart(scope)),
    },
];

const EXPRESSIONS: &str = "expressions.gateway.example";
const ALPHA: &str = "200 by alpha";
const BETA: &str = "200 by beta";

async fn unmatched_is_not_found(scope: &Scope) -> Outcome {
    let cases = [
        ("", "/", "404"),
        ("", "/frontends", "404"),
        ("matched.gateway.example", "/", ALPHA),
    ];
    table(scope, &entrance(scope).await?, "my-route", &cases).await
}

async fn matches_paths(scope: &Scope) -> Outcome {
    const HOST: &str = "matched.gateway.example";
    let cases = [
        (HOST, "/exact", BETA),
        (HOST, "/exact/", ALPHA),
        (HOST, "/exact/more", ALPHA),
        (HOST, "/EXACT", ALPHA),
        (HOST, "/prefix", BETA),
        (HOST, "/prefix/", BETA),
        (HOST, "/prefix/more", BETA),
        (HOST, "/prefixes", ALPHA),
        (HOST, "/trail", BETA),
        (HOST, "/trail/er", BETA),
        (HOST, "/trailer", ALPHA),
    ];
    table(scope, &entrance(scope).await?, "matched", &cases).await
}

async fn matches_headers_queries_and_methods(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    // Method, path, header, who answers.
    let cases = [
        ("GET", "/", "X-Version: two", BETA),
        ("GET", "/", "x-version: two", BETA),
        ("GET", "/", "X-Version: TWO", ALPHA),
        ("GET", "/", "X-Version: one", ALPHA),
        ("GET", "/?version=two", "", BETA),
        ("GET", "/?other=1&version=two", "", BETA),
        ("GET", "/?version=twofold", "", ALPHA),
        ("DELETE", "/", "", BETA),
        ("PUT", "/", "", ALPHA),
        ("POST", "/all?all=yes", "X-All: yes", BETA),
        ("GET", "/all?all=yes", "X-All: yes", ALPHA),
        ("POST", "/all?all=no", "X-All: yes", ALPHA),
        ("POST", "/all?all=yes", "", ALPHA),
        ("POST", "/other?all=yes", "X-All: yes", ALPHA),
    ];
    let mut expected = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (method, path, header, who) in cases {
        let spec = RequestSpec {
            method: method.to_owned(),
            headers: Some(header.to_owned())
                .filter(|it| !it.is_empty())
                .into_iter()
                .collect(),
            ..entrance.request("matched.gateway.example", path)
        };
        let case = format!("{method} {path} {header}").trim_end().to_owned();
        expected.insert(case.clone(), who.to_owned());
        seen.insert(case, said::said(&entrance.send(&spec).await?));
    }
    let outcome = expect_eq(
        "who answers for matched.gateway.example",
        &expected,
        &seen,
        "the controller reads a condition in another way than the specification",
    );
    explain(scope, outcome, "matched", "/").await
}

// Whether an expression has to describe all of a value, or a part, is left to implementations: these
// values are described as a whole, or have no part that is.
async fn matches_paths_by_expression(scope: &Scope) -> Outcome {
    let cases = [
        (EXPRESSIONS, "/v1/items", BETA),
        (EXPRESSIONS, "/v12/items/7", BETA),
        (EXPRESSIONS, "/v/items", ALPHA),
        (EXPRESSIONS, "/v1/goods", ALPHA),
        (EXPRESSIONS, "/", ALPHA),
    ];
    table(scope, &entrance(scope).await?, "expressions", &cases).await
}

async fn matches_headers_by_expression(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let cases = [
        ("X-Colour: red", BETA),
        ("X-Colour: reeed", BETA),
        ("x-colour: blue", BETA),
        ("X-Colour: rd", ALPHA),
        ("X-Colour: green", ALPHA),
        ("X-Other: red", ALPHA),
    ];
    let mut seen = Vec::new();
    for (header, _) in cases {
        let spec = RequestSpec {
            headers: vec![header.to_owned()],
            ..entrance.request(EXPRESSIONS, "/")
        };
        seen.push((header, said::said(&entrance.send(&spec).await?)));
    }
    let outcome = expect_eq(
        "who answers, by header",
        &cases.map(|(header, who)| (header, who.to_owned())).to_vec(),
        &seen,
        "the controller compares headers as text",
    );
    explain(scope, outcome, "expressions", "/").await
}

async fn matches_queries_by_expression(scope: &Scope) -> Outcome {
    let cases = [
        (EXPRESSIONS, "/?page=7", BETA),
        (EXPRESSIONS, "/?other=x&page=12", BETA),
        (EXPRESSIONS, "/?page=last", ALPHA),
        (EXPRESSIONS, "/?page=", ALPHA),
        (EXPRESSIONS, "/?other=7", ALPHA),
    ];
    table(scope, &entrance(scope).await?, "expressions", &cases).await
}

async fn most_specific_match_wins(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    const HOST: &str = "precedence.gateway.example";
    let cases = [
        (HOST, "/", ALPHA),
        (HOST, "/long", BETA),
        (HOST, "/long/", ALPHA),
        (HOST, "/long/er", BETA),
        (HOST, "/long/er/still", BETA),
        (HOST, "/head", ALPHA),
    ];
    table(scope, &entrance, "precedence", &cases).await?;
    let mut seen = Vec::new();
    for headers in [
        vec!["X-One: 1"],
        vec!["X-One: 1", "X-Two: 2"],
        vec!["X-Two: 2"],
    ] {
        let spec = RequestSpec {
            headers: headers.into_iter().map(str::to_owned).collect(),
            ..entrance.request(HOST, "/head")
        };
        seen.push(said::said(&entrance.send(&spec).await?));
    }
    let outcome = expect_eq(
        "who answers /head with X-One, with X-One and X-Two, and with X-Two",
        &[BETA, ALPHA, ALPHA].map(str::to_owned).to_vec(),
        &seen,
        "the controller does not count headers, or takes rules in the order that they are written",
    );
    explain(scope, outcome, "precedence", "/head").await
}

/// Judges who answers requests that two rules of the fixture's route `precedence` match.
async fn precedes(scope: &Scope, cases: [(&str, &str, &str); 2]) -> Outcome {
    let entrance = entrance(scope).await?;
    let mut seen = Vec::new();
    for (path, headers, _) in cases {
        let headers = headers.split(", ").filter(|header| !header.is_empty());
        let spec = RequestSpec {
            headers: headers.map(str::to_owned).collect(),
            ..entrance.request("precedence.gateway.example", path)
        };
        seen.push(said::said(&entrance.send(&spec).await?));
    }
    let outcome = expect_eq(
        format!("who answers, by path and headers: {cases:?}"),
        &cases.map(|(_, _, who)| who.to_owned()).to_vec(),
        &seen,
        "the controller takes rules in the order that they are written, or has an order of its own",
    );
    explain(scope, outcome, "precedence", cases[0].0).await
}

async fn precedence_holds_across_routes(scope: &Scope) -> Outcome {
    const HOST: &str = "across.gateway.example";
    // The tie goes to across-short: created first, or in the same second, and then by its name
    // behind. Its match of /same says who won.
    let cases = [
        (HOST, "/", ALPHA),
        (HOST, "/long", BETA),
        (HOST, "/long/er", BETA),
    ];
    let entrance = entrance(scope).await?;
    table(scope, &entrance, "across-long", &cases).await?;
    let first = older(scope).await?;
    let cases = [(HOST, "/same", first)];
    table(scope, &entrance, "across-short", &cases).await
}

/// Who serves the tie: the older of the two routes, or the first by name.
async fn older(scope: &Scope) -> Result<&'static str, strata::NoVerdict> {
    use gateway_api::httproutes::HttpRoute;
    let created = async |name: &str| {
        let route: HttpRoute = scope.get(name).await?;
        Ok::<_, strata::NoVerdict>(route.metadata.creation_timestamp.map(|time| time.0))
    };
    let (short, long) = (
        created("across-short").await?,
        created("across-long").await?,
    );
    Ok(if short < long { ALPHA } else { BETA })
}

async fn hostnames_match(scope: &Scope) -> Outcome {
    let cases = [
        ("exact.wild.example", "/", ALPHA),
        ("EXACT.wild.example", "/", ALPHA),
        ("any.wild.example", "/", BETA),
        ("two.labels.wild.example", "/", BETA),
        ("wild.example", "/", "404"),
    ];
    table(scope, &entrance(scope).await?, "host-wildcard", &cases).await
}

async fn listeners_are_told_apart(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let cases = [
        ("own.gateway.example", "/", ALPHA),
        // Of the listener on port 8080 only, which has no hostname of its own.
        ("port.gateway.example", "/", "404"),
        ("stranger.gateway.example", "/", "404"),
    ];
    table(scope, &entrance, "on-own", &cases).await?;
    let mut seen = Vec::new();
    for host in [
        "own.gateway.example",
        "port.gateway.example",
        "stranger.gateway.example",
    ] {
        let spec = entrance.request_at(8080, host, "/");
        seen.push(said::said(&entrance.send(&spec).await?));
    }
    let outcome = expect_eq(
        "who answers at port 8080 for the hosts own, port and stranger",
        &[BETA, BETA, "404"].map(str::to_owned).to_vec(),
        &seen,
        "routes are attached to listeners other than the one that sectionName names",
    );
    explain(scope, outcome, "on-other-port", "/").await
}
