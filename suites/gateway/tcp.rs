//! Bytes by the port alone, as TCPRoutes route them.
//!
//! Start from [`SUITE`]. Listeners of Gateway `many` that begin with `tcp` take TCPRoutes; each check has one
//! of them to itself.

use std::collections::BTreeMap;

use gateway_api::experimental::tcproutes::TcpRoute;
use serde_json::{Value, json};
use strata::wire::TcpSpec;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::{explain_gateway, many, of};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::tcp_is_passed_on",
        claim: "What is sent to the port of a TCPRoute's listener reaches its backend whole, and what that sends the client.",
        source: "TCPRouteParentRefPortAndSectionName",
        needs: &[Need::Outside, Need::GatewayFeature("TCPRoute")],
        manifest: Some("gateway/tcp_is_passed_on.yaml"),
        run: |scope| Box::pin(tcp_is_passed_on(scope)),
    },
    Check {
        id: "gateway::tcp_route_of_a_missing_backend",
        claim: "A TCPRoute whose backend does not exist says so, and its connections are ended without an answer.",
        source: "TCPRouteInvalidBackendRefNonexistent",
        needs: &[Need::Outside, Need::GatewayFeature("TCPRoute")],
        manifest: Some("gateway/tcp_route_of_a_missing_backend.yaml"),
        run: |scope| {
            Box::pin(unresolved(
                scope,
                ("tcp-in-vain", 9001),
                json!({ "name": "missing", "port": 9000 }),
                "BackendNotFound",
            ))
        },
    },
    Check {
        id: "gateway::tcp_route_without_a_grant",
        claim: "A TCPRoute whose backend is in another namespace, which no ReferenceGrant allows, says so, and its connections are ended without an answer.",
        source: "TCPRouteInvalidCrossNamespaceBackendRef",
        needs: &[Need::Outside, Need::GatewayFeature("TCPRoute")],
        manifest: Some("gateway/tcp_route_without_a_grant.yaml"),
        run: |scope| {
            Box::pin(unresolved(
                scope,
                ("tcp-foreign", 9003),
                json!({ "name": "kube-dns", "namespace": "kube-system", "port": 53 }),
                "RefNotPermitted",
            ))
        },
    },
    Check {
        id: "gateway::tcp_splits_by_weight",
        claim: "Weights of 3 and 1 send three quarters and one quarter of a TCPRoute's connections to its backends.",
        source: "TCPRouteWeightedRouting",
        needs: &[Need::Outside, Need::GatewayFeature("TCPRoute")],
        manifest: Some("gateway/tcp_splits_by_weight.yaml"),
        run: |scope| Box::pin(tcp_splits_by_weight(scope)),
    },
    Check {
        id: "gateway::tcp_route_at_an_http_listener",
        claim: "A TCPRoute that names a listener of another protocol is not accepted, with reason NotAllowedByListeners.",
        source: "TCPRouteInvalidNonTCPListener",
        needs: &[Need::GatewayFeature("TCPRoute")],
        manifest: Some("gateway/tcp_route_at_an_http_listener.yaml"),
        run: |scope| Box::pin(tcp_route_at_an_http_listener(scope)),
    },
];

async fn tcp_is_passed_on(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    scope
        .apply(&route(
            scope,
            "tcp",
            json!([{ "name": "web", "port": 9000 }]),
        ))
        .await?;
    let spec = TcpSpec {
        bytes: 100_000,
        ..TcpSpec::new(entrance.port(9000))
    };
    let outcome = scope
        .eventually(Eventually {
            what: "who answers at port 9000, and how much of 100000 bytes comes back",
            expected: ("web".to_owned(), 100_000),
            observe: async || {
                let replies = entrance.outside().tcp(&spec).await?;
                let received = replies.first().map_or(0, |reply| reply.received);
                Ok((said::tcp(&replies), received))
            },
            likely: "the controller does not do TCPRoutes",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn unresolved(
    scope: &Scope,
    (listener, port): (&str, u16),
    backend: Value,
    reason: &str,
) -> Outcome {
    let entrance = many(scope).await?;
    scope
        .apply(&route(scope, listener, json!([backend])))
        .await?;
    let spec = TcpSpec::new(entrance.port(port));
    let outcome = scope
        .eventually(Eventually {
            what: "the reasons of conditions Accepted and ResolvedRefs, and whether anybody answers at the listener's port",
            expected: (["Accepted", reason].map(str::to_owned), false),
            observe: async || {
                let replies = entrance.outside().tcp(&spec).await?;
                let answered = replies.iter().any(|reply| reply.answer.is_some());
                Ok((reasons(scope).await?, answered))
            },
            likely: "the controller does not check where a TCPRoute leads to",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn tcp_splits_by_weight(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let backends = json!([
        { "name": "web", "port": 9000, "weight": 3 },
        { "name": "other", "port": 9000, "weight": 1 },
    ]);
    scope.apply(&route(scope, "tcp-shared", backends)).await?;
    let one = TcpSpec::new(entrance.port(9002));
    let outcome = scope
        .eventually(Eventually {
            what: "whether anybody answers at port 9002",
            expected: true,
            observe: async || {
                let replies = entrance.outside().tcp(&one).await?;
                Ok(replies.iter().any(|reply| reply.answer.is_some()))
            },
            likely: "the controller does not do TCPRoutes",
        })
        .await;
    explain_gateway(scope, outcome, "many").await?;
    // All, or none, or a half: fifteen points tell these from a quarter.
    let share = scope.fixed_share(0.25, 0.15)?;
    let spec = TcpSpec {
        count: share.requests(),
        concurrency: 8,
        ..one
    };
    let mut counts = BTreeMap::<String, u64>::new();
    for reply in entrance.outside().tcp(&spec).await? {
        let who = said::who(reply.error.as_ref(), reply.answer.as_ref());
        *counts.entry(who).or_default() += 1;
    }
    let other = counts.remove("other").unwrap_or_default();
    let web = counts.remove("web").unwrap_or_default();
    for (key, value) in share.records(other) {
        scope.record(key, value);
    }
    let outcome = expect_eq(
        "what else comes of connections to port 9002 than answers of web and other, and all of them",
        &(BTreeMap::new(), share.requests()),
        &(counts, web + other),
        "the proxy loses connections",
    );
    explain_gateway(scope, outcome, "many").await?;
    let outcome = share.judge(
        "the connections to port 9002 that other answers, of weight 1 beside 3",
        other,
        "the controller ignores the weights of TCPRoutes",
    );
    explain_gateway(scope, outcome, "many").await
}

async fn tcp_route_at_an_http_listener(scope: &Scope) -> Outcome {
    let backends = json!([{ "name": "web", "port": 9000 }]);
    scope.apply(&route(scope, "all", backends)).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "the reason of condition Accepted of a TCPRoute at an HTTP listener",
            expected: "NotAllowedByListeners".to_owned(),
            observe: async || {
                let [accepted, _] = reasons(scope).await?;
                Ok(accepted)
            },
            likely: "the controller attaches a TCPRoute to any listener that is named",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

/// A TCPRoute of the check's own namespace at a listener of the fixture's Gateway `many`.
fn route(scope: &Scope, section: &str, backends: Value) -> String {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1alpha2",
        "kind": "TCPRoute",
        "metadata": { "name": "bytes" },
        "spec": {
            "parentRefs": [{ "name": "many", "namespace": scope.fixture(), "sectionName": section }],
            "rules": [{ "backendRefs": backends }],
        },
    })
    .to_string()
}

/// The reasons of conditions Accepted and ResolvedRefs of the check's TCPRoute.
async fn reasons(scope: &Scope) -> Result<[String; 2], NoVerdict> {
    let route: TcpRoute = scope.get("bytes").await?;
    let mut parents = route.status.into_iter().flat_map(|status| status.parents);
    let conditions = parents.next().map(|parent| parent.conditions);
    let conditions = conditions.unwrap_or_default();
    Ok(["Accepted", "ResolvedRefs"].map(|kind| of(&conditions, kind).1))
}
