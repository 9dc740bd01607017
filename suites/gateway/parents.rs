//! Which listeners a route names as its parents, and what comes of it.
//!
//! Start from [`SUITE`]. The routes are in the fixture; listener `any` of Gateway `many` is at port 8081,
//! where it takes whatever host no other listener has.

use std::collections::BTreeMap;

use gateway_api::httproutes::HttpRoute;
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite, expect_eq};

use super::{TUTORIAL, entrance, explain, many, of, reasons};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::parent_by_port",
        claim: "A route that names a port of its Gateway is served at that port and at no other.",
        source: "HTTPRouteListenerPortMatching",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteParentRefPort"),
        ],
        manifest: None,
        run: |scope| Box::pin(served_at(scope, "by-port")),
    },
    Check {
        id: "gateway::parent_by_name_and_port",
        claim: "A route that names a listener and its port is served there and nowhere else.",
        source: "HTTPRouteListenerPortMatching; Gateway API: ParentReference port",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteParentRefPort"),
        ],
        manifest: None,
        run: |scope| Box::pin(served_at(scope, "by-name-and-port")),
    },
    Check {
        id: "gateway::parent_port_that_no_listener_has",
        claim: "A route that names a port that no listener has is not accepted, with reason NoMatchingParent.",
        source: "HTTPRouteInvalidParentRefNotMatchingListenerPort",
        needs: &[Need::GatewayFeature("HTTPRouteParentRefPort")],
        manifest: None,
        run: |scope| Box::pin(refused(scope, "no-such-port", "NoMatchingParent")),
    },
    Check {
        id: "gateway::parent_port_of_another_listener",
        claim: "A route that names a listener and another one's port is not accepted, with reason NoMatchingParent.",
        source: "HTTPRouteInvalidParentRefSectionNameNotMatchingPort",
        needs: &[Need::GatewayFeature("HTTPRouteParentRefPort")],
        manifest: None,
        run: |scope| Box::pin(refused(scope, "another-ports-section", "NoMatchingParent")),
    },
    Check {
        id: "gateway::route_of_a_disallowed_kind",
        claim: "A listener that allows another kind of route accepts no HTTPRoute, with reason NotAllowedByListeners.",
        source: "HTTPRouteDisallowedKind",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(refused(scope, "disallowed-kind", "NotAllowedByListeners")),
    },
    Check {
        id: "gateway::route_of_two_gateways",
        claim: "A route of two Gateways is served by both, and says of each that it is accepted.",
        source: "HTTPRouteMultipleGateways",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(route_of_two_gateways(scope)),
    },
    Check {
        id: "gateway::hostnames_intersect",
        claim: "Of a route's hostnames those are served that its listener takes too, exact or by wildcard, and no others.",
        source: "HTTPRouteHostnameIntersection",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(hostnames_intersect(scope)),
    },
];

async fn served_at(scope: &Scope, route: &str) -> Outcome {
    let entrance = many(scope).await?;
    let host = format!("{route}.gateway.example");
    let mut seen = BTreeMap::new();
    for port in [80, 8080, 8081] {
        let reply = entrance
            .send(&entrance.request_at(port, &host, "/"))
            .await?;
        seen.insert(port, said::said(&reply));
    }
    let outcome = expect_eq(
        format!("who answers for {host}, by port"),
        &[(80, "404"), (8080, "404"), (8081, "200 by beta")]
            .map(|(port, who)| (port, who.to_owned()))
            .into(),
        &seen,
        "the controller ignores parentRefs.port",
    );
    explain(scope, outcome, route, "/").await
}

async fn refused(scope: &Scope, route: &str, reason: &str) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: &format!("the reason of condition Accepted of {route}, and of a route that names its parent rightly"),
            expected: [reason, "Accepted"].map(str::to_owned),
            observe: async || {
                let [refused, _] = reasons(scope, route).await?;
                let [accepted, _] = reasons(scope, "on-any").await?;
                Ok([refused, accepted])
            },
            likely: "the controller attaches a route to any listener of its Gateway, or has a reason of its own",
        })
        .await;
    explain(scope, outcome, route, "/").await
}

async fn route_of_two_gateways(scope: &Scope) -> Outcome {
    const HOST: &str = "two.gateway.example";
    let (first, second) = (entrance(scope).await?, many(scope).await?);
    let accepted = |name: &str| (name.to_owned(), "True".to_owned());
    let outcome = scope
        .eventually(Eventually {
            what: "condition Accepted by parent, and who answers at either Gateway",
            expected: (
                BTreeMap::from([accepted(TUTORIAL), accepted("many")]),
                ["200 by beta"; 2].map(str::to_owned),
            ),
            observe: async || {
                let route: HttpRoute = scope.get("of-two-gateways").await?;
                let parents = route.status.into_iter().flat_map(|status| status.parents);
                let parents =
                    parents.map(|it| (it.parent_ref.name, of(&it.conditions, "Accepted").0));
                let one = said::said(&first.get(HOST, "/").await?);
                let other = second.send(&second.request_at(8081, HOST, "/")).await?;
                Ok((parents.collect(), [one, said::said(&other)]))
            },
            likely: "the controller serves a route at the first of its parents only",
        })
        .await;
    explain(scope, outcome, "of-two-gateways", "/").await
}

async fn hostnames_intersect(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let cases = [
        ("one.isolated.example", "200 by beta"),
        ("two.isolated.example", "404"),
        ("a.deep.isolated.example", "200 by beta"),
        ("deep.isolated.example", "404"),
        // The listener's wildcard covers no name of no label.
        ("isolated.example", "404"),
        ("foreign.example", "404"),
    ];
    let mut seen = Vec::new();
    for (host, _) in cases {
        let spec = entrance.request_at(8081, host, "/intersected");
        seen.push((host, said::said(&entrance.send(&spec).await?)));
    }
    let outcome = expect_eq(
        "who answers at port 8081, by host",
        &cases.map(|(host, who)| (host, who.to_owned())).to_vec(),
        &seen,
        "a route is served for hosts that its listener does not take",
    );
    explain(scope, outcome, "intersected", "/intersected").await
}
