//! Calls of gRPC, as GRPCRoutes route them.
//!
//! Start from [`SUITE`]. The routes are in the fixture, at listener `grpc-only` of Gateway `many`. A call is
//! a request over HTTP/2 with the path and content type that gRPC gives it, and an empty message; the
//! backends answer it as a probe does, since what is judged is who is called. What a Gateway refuses it
//! answers with a status of gRPC's own, or one of HTTP that clients take for such a one.

use std::collections::BTreeMap;

use gateway_api::grpcroutes::GrpcRoute;
use gateway_api::httproutes::HttpRoute;
use serde_json::json;
use strata::wire::{HttpVersion, Reply, RequestSpec};
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite};

use super::{explain_gateway, explain_listener, many, of, parent_of};
use crate::entrance::Entrance;
use crate::said;
use crate::shares::{Shares, shares};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::calls_by_method",
        claim: "A call reaches the backend of the rule that names its method, else of the one that names its service alone.",
        source: "GRPCExactMethodMatching",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(calls_by_method(scope)),
    },
    Check {
        id: "gateway::calls_by_header",
        claim: "A call's metadata decides between rules of one method.",
        source: "GRPCRouteHeaderMatching",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(calls_by_header(scope)),
    },
    Check {
        id: "gateway::calls_by_hostname",
        claim: "A call for a host that no GRPCRoute has is refused as unimplemented, and so is one of a service that no rule names.",
        source: "GRPCRouteListenerHostnameMatching; Gateway API: GRPCRouteRule matches, \"a gRPC `UNIMPLEMENTED` response\"",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(calls_by_hostname(scope)),
    },
    Check {
        id: "gateway::calls_of_a_missing_backend",
        claim: "A call of a backend that does not exist is refused as unavailable, and other routes are served.",
        source: "Gateway API: GRPCRouteRule backendRefs, \"MUST return UNAVAILABLE\"",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(calls_of_a_missing_backend(scope)),
    },
    Check {
        id: "gateway::calls_have_their_headers_changed",
        claim: "Metadata is set, added and removed before the backend sees the call.",
        source: "GRPCRouteRequestHeaderModifier",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(calls_have_their_headers_changed(scope)),
    },
    Check {
        id: "gateway::calls_by_a_named_rule",
        claim: "A rule of a GRPCRoute that has a name is served like any other.",
        source: "GRPCRouteNamedRule",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("GRPCRouteNamedRouteRule"),
        ],
        manifest: None,
        run: |scope| Box::pin(calls_by_a_named_rule(scope)),
    },
    Check {
        id: "gateway::calls_split_by_weight",
        claim: "Weights of 70 and 30 send 70 % and 30 % of a rule's calls to its backends.",
        source: "GRPCRouteWeight",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(calls_split_by_weight(scope)),
    },
    Check {
        id: "gateway::calls_and_requests_share_a_listener",
        claim: "An HTTPRoute and a GRPCRoute of other hostnames at one listener are both served.",
        source: "istio: pilot/gateway_httproute_grpcroute_test.go, HTTPRouteAndGRPCRouteCoexistence",
        needs: NEEDS,
        manifest: None,
        run: |scope| Box::pin(calls_and_requests_share_a_listener(scope)),
    },
    Check {
        id: "gateway::calls_and_requests_of_one_host",
        claim: "Of an HTTPRoute and a GRPCRoute of one hostname at one listener the older alone is accepted, and the other once that is gone.",
        source: "Gateway API: GRPCRoute hostnames, \"the implementation MUST accept exactly one of these two routes\"",
        needs: &[Need::GatewayFeature("GRPCRoute")],
        manifest: Some("gateway/calls_and_requests_of_one_host.yaml"),
        run: |scope| Box::pin(calls_and_requests_of_one_host(scope)),
    },
];

const NEEDS: &[Need] = &[Need::Outside, Need::GatewayFeature("GRPCRoute")];
const HOST: &str = "grpc.gateway.example";
const ALPHA: &str = "200 by alpha";
const BETA: &str = "200 by beta";
/// The port of listener `both-kinds`.
const BOTH_KINDS: u16 = 8087;
/// A call that one rule alone takes.
const NAMED: (&str, &str, &str, &str) = (HOST, "/strata.Named/Say", "", BETA);
/// gRPC: "Status codes and their use in gRPC".
const UNIMPLEMENTED: &str = "status 12";
const UNAVAILABLE: &str = "status 14";

async fn calls_by_method(scope: &Scope) -> Outcome {
    let cases = [
        (HOST, "/strata.Echo/Say", "", BETA),
        (HOST, "/strata.Echo/Hear", "", ALPHA),
        (HOST, "/strata.Echo/SayMore", "", ALPHA),
        (HOST, "/strata.EchoMore/Say", "", UNIMPLEMENTED),
        (HOST, "/strata.echo/Say", "", UNIMPLEMENTED),
    ];
    judge(
        scope,
        &cases,
        "the controller matches methods by their beginnings, or in any case",
    )
    .await
}

async fn calls_by_header(scope: &Scope) -> Outcome {
    let cases = [
        (HOST, "/strata.Echo/Hear", "version: two", BETA),
        (HOST, "/strata.Echo/Hear", "version: one", ALPHA),
        (HOST, "/strata.Echo/Hear", "other: two", ALPHA),
    ];
    judge(
        scope,
        &cases,
        "the controller does not match a GRPCRoute's headers",
    )
    .await
}

async fn calls_by_hostname(scope: &Scope) -> Outcome {
    let cases = [
        NAMED,
        ("nobody.gateway.example", NAMED.1, "", UNIMPLEMENTED),
        (HOST, "/strata.Nobody/Say", "", UNIMPLEMENTED),
    ];
    judge(
        scope,
        &cases,
        "the controller ignores the hostnames of GRPCRoutes",
    )
    .await
}

async fn calls_of_a_missing_backend(scope: &Scope) -> Outcome {
    let cases = [(HOST, "/strata.Missing/Say", "", UNAVAILABLE), NAMED];
    judge(
        scope,
        &cases,
        "the controller leaves the rule out, or answers as HTTP does",
    )
    .await
}

async fn calls_by_a_named_rule(scope: &Scope) -> Outcome {
    let cases = [NAMED];
    judge(
        scope,
        &cases,
        "the controller does not take rules with a name",
    )
    .await
}

async fn calls_have_their_headers_changed(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let spec = RequestSpec {
        headers: call(&entrance, HOST, "", "")
            .headers
            .into_iter()
            .chain(["x-set: client", "x-added: client", "x-removed: client"].map(str::to_owned))
            .collect(),
        ..call(&entrance, HOST, "/strata.Changed/Say", "")
    };
    let outcome = scope
        .eventually(Eventually {
            what: "x-set, x-added and x-removed at the backend of a call",
            expected: ["gateway", "client gateway", "absent"].map(str::to_owned),
            observe: async || {
                let answer = entrance.send(&spec).await?.answer;
                let headers = answer.map(|answer| answer.headers).unwrap_or_default();
                // Several values, or one with commas, mean the same (RFC 9110, 5.3).
                let told = |name: &str| {
                    let values = headers.get(name).map(|values| values.join(","));
                    let values = values.unwrap_or_else(|| "absent".to_owned());
                    let values: Vec<_> = values.split(',').map(str::trim).collect();
                    values.join(" ")
                };
                Ok(["x-set", "x-added", "x-removed"].map(told))
            },
            likely: "the controller does not do RequestHeaderModifier in GRPCRoutes",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn calls_and_requests_share_a_listener(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let called = "calls.gateway.example";
    let spec = call(&entrance, called, "/strata.Echo/Say", "");
    let call = RequestSpec {
        url: entrance
            .request_at(BOTH_KINDS, called, "/strata.Echo/Say")
            .url,
        ..spec
    };
    let request = entrance.request_at(BOTH_KINDS, "requests.gateway.example", "/");
    let outcome = scope
        .eventually(Eventually {
            what: "who answers a request and a call at one port, each by the hostname of its route",
            expected: [ALPHA, BETA].map(str::to_owned),
            observe: async || {
                let request = said(&entrance.send(&request).await?);
                Ok([request, said(&entrance.send(&call).await?)])
            },
            likely: "the controller takes routes of one kind only at a listener",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn calls_and_requests_of_one_host(scope: &Scope) -> Outcome {
    let route = |kind: &str, name: &str| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": kind,
            "metadata": { "name": name },
            "spec": {
                "parentRefs": [{ "name": "many", "namespace": scope.fixture(), "sectionName": "both-kinds" }],
                "hostnames": ["one.kinds.gateway.example"],
                "rules": [{ "backendRefs": [{ "name": "web", "port": 80 }] }],
            },
        })
        .to_string()
    };
    let settled = async |requests: &str, calls: &str| {
        let outcome = scope
            .eventually(Eventually {
                what: "condition Accepted of HTTPRoute a-older, and of GRPCRoute b-younger",
                expected: [requests, calls].map(str::to_owned),
                observe: async || {
                    let older: Vec<HttpRoute> = scope.list("").await?;
                    let older = older.first().map(|route| parent_of(route).conditions);
                    let younger: Vec<GrpcRoute> = scope.list("").await?;
                    let younger = younger.first().and_then(|route| {
                        let parent = route.status.as_ref()?.parents.first()?;
                        Some(parent.conditions.clone())
                    });
                    Ok([older, younger].map(|it| of(&it.unwrap_or_default(), "Accepted").0))
                },
                likely: "the controller serves both kinds of route for one host, and which one a request meets is chance",
            })
            .await;
        explain_listener(scope, outcome, "both-kinds").await
    };
    // Where both are made within a second, their names decide as their age would.
    scope.apply(&route("HTTPRoute", "a-older")).await?;
    settled("True", "absent").await?;
    scope.apply(&route("GRPCRoute", "b-younger")).await?;
    settled("True", "False").await?;
    scope.delete::<HttpRoute>("a-older").await?;
    settled("absent", "True").await
}

async fn calls_split_by_weight(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    // Convergence first, so that chance is all that the split is judged on.
    judge(scope, &[NAMED], "no GRPCRoute is served").await?;
    let outcome = shares(
        scope,
        entrance.outside(),
        &call(&entrance, HOST, "/strata.Split/Say", ""),
        Shares {
            what: "who answers calls of a method of weights 70 and 30",
            arms: &[(ALPHA, 70.0), (BETA, 30.0)],
            arm_of: said,
            // All, or none, or a half.
            tolerance: 0.1,
            likely: "the controller ignores the weights of GRPCRoutes",
        },
    )
    .await;
    explain_gateway(scope, outcome, "many").await
}

/// Judges a table of hosts, methods and metadata.
async fn judge(
    scope: &Scope,
    cases: &[(&'static str, &'static str, &'static str, &'static str)],
    likely: &str,
) -> Outcome {
    let entrance = many(scope).await?;
    let name = |(host, method, header, _): &(&str, &str, &str, &str)| {
        format!("{host}{method} {header}").trim_end().to_owned()
    };
    let expected: BTreeMap<_, _> = cases
        .iter()
        .map(|case| (name(case), case.3.to_owned()))
        .collect();
    let outcome = scope
        .eventually(Eventually {
            what: "who answers calls at port 8082, or with which status they are refused",
            expected,
            observe: async || {
                let mut seen = BTreeMap::new();
                for case in cases {
                    let (host, method, header, _) = case;
                    let spec = call(&entrance, host, method, header);
                    seen.insert(name(case), said(&entrance.send(&spec).await?));
                }
                Ok(seen)
            },
            likely,
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

/// A call with an empty message (gRPC over HTTP2: "Requests").
pub(super) fn call(entrance: &Entrance, host: &str, method: &str, header: &str) -> RequestSpec {
    let mut headers = vec![
        "content-type: application/grpc".to_owned(),
        "te: trailers".to_owned(),
    ];
    headers.extend((!header.is_empty()).then(|| header.to_owned()));
    RequestSpec {
        method: "POST".to_owned(),
        http: HttpVersion::H2,
        headers,
        body: Some("\0\0\0\0\0".to_owned()),
        ..entrance.request_at(8082, host, method)
    }
}

/// Who answered, or gRPC's status of the refusal.
fn said(reply: &Reply) -> String {
    match (reply.pod(), reply.grpc_status()) {
        (None, Some(status)) if reply.error.is_none() => format!("status {status}"),
        _ => said::said(reply),
    }
}
