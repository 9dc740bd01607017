//! What objects say of themselves: conditions, with reasons and generations.
//!
//! Start from [`SUITE`]. Types and reasons are the specification's; each invalid object of the fixture
//! is wrong in one respect, and what it does to traffic is judged beside it.

use std::collections::BTreeMap;

use gateway_api::gatewayclasses::GatewayClass;
use gateway_api::gateways::Gateway;
use gateway_api::httproutes::HttpRoute;
use serde_json::json;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::{TUTORIAL, entrance, explain, explain_gateway, of, parent_of, table};
use crate::refusal::refused;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::route_is_accepted",
        claim: "The tutorial's HTTPRoute is accepted by the controller of its Gateway's class, its references resolved, in its present generation.",
        source: "Gateway API: HTTPRoute status.parents; HTTPRouteObservedGenerationBump",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(route_is_accepted(scope)),
    },
    Check {
        id: "gateway::invalid_routes_say_why",
        claim: "A route with a missing backend, one of unknown kind, one that may not be referred to, a wrong section or no hostname in common says so in its conditions.",
        source: "HTTPRouteInvalidNonExistentBackendRef, HTTPRouteInvalidBackendRefUnknownKind, HTTPRouteInvalidCrossNamespaceBackendRef, HTTPRouteInvalidParentRefNotMatchingSectionName",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(invalid_routes_say_why(scope)),
    },
    Check {
        id: "gateway::invalid_backends_are_500",
        claim: "Requests for a backend that is missing, of unknown kind, not permitted or left out are answered with 500, for one without endpoints with 503, and other rules are served.",
        source: "HTTPRouteInvalidNonExistentBackendRef, HTTPRouteInvalidBackendRefUnknownKind, HTTPRouteInvalidCrossNamespaceBackendRef, HTTPRouteNoBackendRefs",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(invalid_backends_are_500(scope)),
    },
    Check {
        id: "gateway::listeners_say_what_is_wrong",
        claim: "A listener of an unknown protocol, with a missing certificate or for an unknown kind of route says so, and the others are programmed.",
        source: "GatewayListenerUnsupportedProtocol, GatewayInvalidTLSConfiguration, GatewayInvalidRouteKind",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(listeners_say_what_is_wrong(scope)),
    },
    Check {
        id: "gateway::attached_routes_are_counted",
        claim: "A listener counts the routes that are attached to it.",
        source: "GatewayWithAttachedRoutes",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(attached_routes_are_counted(scope)),
    },
    Check {
        id: "gateway::attached_routes_of_another_port_are_counted",
        claim: "A listener of port 8080 counts the routes that name it, and not those of the Gateway's other listeners.",
        source: "GatewayWithAttachedRoutesWithPort8080",
        needs: &[Need::GatewayFeature("GatewayPort8080")],
        manifest: None,
        run: |scope| Box::pin(attached_by_name(scope, "other-port")),
    },
    Check {
        id: "gateway::attached_routes_of_an_unprogrammed_listener_are_counted",
        claim: "A listener that is not programmed for want of a certificate counts the routes that name it all the same.",
        source: "GatewayWithAttachedRoutes",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(attached_by_name(scope, "no-certificate")),
    },
    Check {
        id: "gateway::kind_beside_an_unknown_one_is_taken",
        claim: "A listener that asks for a kind of route that nobody knows says so, and supports the other kind that it asks for.",
        source: "GatewayInvalidRouteKind",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(kind_beside_an_unknown_one_is_taken(scope)),
    },
    Check {
        id: "gateway::gateway_says_that_listeners_are_not_valid",
        claim: "A Gateway of which some listeners cannot be served says so in its own condition, and one of which all are does not.",
        source: "GatewayListenerUnsupportedProtocol; Gateway API: GatewayReasonListenersNotValid",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(gateway_says_that_listeners_are_not_valid(scope)),
    },
    Check {
        id: "gateway::unclaimed_class_stays_pending",
        claim: "A Gateway whose class nobody serves stays unknown and pending: no controller touches it.",
        source: "tutorial, gatewayClassName contour, which its manifest does not create; Gateway API: default conditions of Gateway",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(unclaimed_class_stays_pending(scope)),
    },
    Check {
        id: "gateway::api_refuses_what_is_invalid",
        claim: "The API refuses Gateways and HTTPRoutes that cannot be meant, and names the field.",
        source: "Gateway API: validation of the CRDs",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(api_refuses_what_is_invalid(scope)),
    },
];

/// What a route's first parent says: its controller, Accepted and ResolvedRefs with their reasons, and
/// whether both are of the present generation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    controller: String,
    accepted: (String, String),
    resolved: (String, String),
    present: bool,
}

async fn parent(scope: &Scope, name: &str) -> Result<Said, NoVerdict> {
    let route: HttpRoute = scope.get(name).await?;
    let first = parent_of(&route);
    let (accepted, why_accepted, one) = of(&first.conditions, "Accepted");
    let (resolved, why_resolved, other) = of(&first.conditions, "ResolvedRefs");
    let present = route.metadata.generation;
    Ok(Said {
        controller: first.controller_name,
        accepted: (accepted, why_accepted),
        resolved: (resolved, why_resolved),
        present: one == present && other == present,
    })
}

async fn route_is_accepted(scope: &Scope) -> Outcome {
    let gateway: Gateway = scope.get(TUTORIAL).await?;
    let class: GatewayClass = scope.get_cluster(&gateway.spec.gateway_class_name).await?;
    let yes = |why: &str| ("True".to_owned(), why.to_owned());
    let outcome = scope
        .eventually(Eventually {
            what: "what the status of HTTPRoute my-route says",
            expected: Said {
                controller: class.spec.controller_name,
                accepted: yes("Accepted"),
                resolved: yes("ResolvedRefs"),
                present: true,
            },
            observe: async || parent(scope, "my-route").await,
            likely: "the route's parentRef or backendRef has a typo",
        })
        .await;
    explain(scope, outcome, "my-route", "/frontend").await
}

async fn invalid_routes_say_why(scope: &Scope) -> Outcome {
    // Route, the condition that is false, and its reason.
    let cases = [
        ("missing-backend", "ResolvedRefs", "BackendNotFound"),
        ("unknown-kind", "ResolvedRefs", "InvalidKind"),
        ("not-permitted", "ResolvedRefs", "RefNotPermitted"),
        ("no-such-section", "Accepted", "NoMatchingParent"),
        ("no-common-host", "Accepted", "NoMatchingListenerHostname"),
    ];
    let outcome = scope
        .eventually(Eventually {
            what: "the condition that is false, its reason, and whether it is of the present generation, by route",
            expected: cases
                .map(|(route, kind, why)| (route, (kind.to_owned(), why.to_owned(), true)))
                .into(),
            observe: async || {
                let mut seen = BTreeMap::new();
                for (route, kind, _) in cases {
                    let said = parent(scope, route).await?;
                    let (status, why) = if kind == "Accepted" { said.accepted } else { said.resolved };
                    let kind = if status == "False" { kind.to_owned() } else { format!("{kind} is {status}") };
                    seen.insert(route, (kind, why, said.present));
                }
                Ok(seen)
            },
            likely: "the controller does not check this reference, or uses a reason of its own",
        })
        .await;
    explain(scope, outcome, "missing-backend", "/missing").await
}

async fn invalid_backends_are_500(scope: &Scope) -> Outcome {
    const HOST: &str = "invalid.gateway.example";
    let cases = [
        (HOST, "/missing", "500"),
        (HOST, "/kind", "500"),
        (HOST, "/permit", "500"),
        (HOST, "/none", "500"),
        (HOST, "/empty", "503"),
        (HOST, "/fine", "200 by alpha"),
    ];
    table(scope, &entrance(scope).await?, "missing-backend", &cases).await
}

async fn listeners_say_what_is_wrong(scope: &Scope) -> Outcome {
    const IN_ORDER: &str = "in order";
    let expected = BTreeMap::from(
        [
            ("own", IN_ORDER),
            ("tls", IN_ORDER),
            ("no-certificate", "InvalidCertificateRef"),
            ("odd-protocol", "UnsupportedProtocol"),
            ("odd-kind", "InvalidRouteKinds"),
        ]
        .map(|(name, said)| (name.to_owned(), said.to_owned())),
    );
    // What is not false of a listener with something wrong need not be said.
    let said = |conditions: &[_]| {
        let both = ["Accepted", "ResolvedRefs"].map(|kind| of(conditions, kind));
        let wrong = both.iter().filter(|(status, ..)| status == "False");
        let wrong: Vec<_> = wrong.map(|(_, why, _)| why.as_str()).collect();
        match wrong.is_empty() {
            true if both.iter().all(|(status, ..)| status == "True") => IN_ORDER.to_owned(),
            true => "neither in order nor wrong".to_owned(),
            false => wrong.join(", "),
        }
    };
    let outcome = scope
        .eventually(Eventually {
            what: "whether listeners of Gateway many are accepted with their references resolved, or the reasons why not",
            expected: expected.clone(),
            observe: async || {
                let gateway: Gateway = scope.get("many").await?;
                let listeners = gateway.status.and_then(|status| status.listeners);
                let listeners = listeners.into_iter().flatten();
                let judged = listeners.filter(|it| expected.contains_key(&it.name));
                Ok(judged.map(|it| (it.name, said(&it.conditions))).collect())
            },
            likely: "the controller does not check listeners one by one",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn attached_routes_are_counted(scope: &Scope) -> Outcome {
    let routes: Vec<HttpRoute> = scope.list("").await?;
    let to_tutorial = |route: &&HttpRoute| {
        let parents = route.spec.parent_refs.iter().flatten();
        // One names a section that there is not.
        parents
            .into_iter()
            .any(|parent| parent.name == TUTORIAL && parent.section_name.is_none())
    };
    let expected = i32::try_from(routes.iter().filter(to_tutorial).count()).unwrap_or(i32::MAX);
    let outcome = scope
        .eventually(Eventually {
            what: "attachedRoutes of listener http of Gateway my-gateway",
            expected: Some(expected),
            observe: async || {
                let gateway: Gateway = scope.get(TUTORIAL).await?;
                let listeners = gateway
                    .status
                    .and_then(|status| status.listeners)
                    .unwrap_or_default();
                Ok(listeners.first().map(|listener| listener.attached_routes))
            },
            likely: "the controller counts routes that it refused, or counts late",
        })
        .await;
    explain_gateway(scope, outcome, TUTORIAL).await
}

async fn attached_by_name(scope: &Scope, listener: &str) -> Outcome {
    let routes: Vec<HttpRoute> = scope.list("").await?;
    let names = |route: &&HttpRoute| {
        let parents = route.spec.parent_refs.iter().flatten();
        parents
            .into_iter()
            .any(|parent| parent.name == "many" && parent.section_name.as_deref() == Some(listener))
    };
    let expected = i32::try_from(routes.iter().filter(names).count()).unwrap_or(i32::MAX);
    let outcome = scope
        .eventually(Eventually {
            what: &format!("attachedRoutes of listener {listener} of Gateway many"),
            expected: Some(expected),
            observe: async || {
                let gateway: Gateway = scope.get("many").await?;
                let listeners = gateway.status.and_then(|status| status.listeners);
                let mut listeners = listeners.into_iter().flatten();
                let found = listeners.find(|it| it.name == listener);
                Ok(found.map(|it| it.attached_routes))
            },
            likely: "the controller counts by Gateway, or only where it serves",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn kind_beside_an_unknown_one_is_taken(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: "condition ResolvedRefs of listener kind-beside and its reason, and its supportedKinds",
            expected: (
                ["False", "InvalidRouteKinds"].map(str::to_owned),
                vec!["HTTPRoute".to_owned()],
            ),
            observe: async || {
                let gateway: Gateway = scope.get("many").await?;
                let listeners = gateway.status.and_then(|status| status.listeners);
                let mut listeners = listeners.into_iter().flatten();
                let found = listeners.find(|it| it.name == "kind-beside");
                let conditions = found.as_ref().map(|it| it.conditions.clone());
                let (resolved, why, _) = of(&conditions.unwrap_or_default(), "ResolvedRefs");
                let kinds = found.and_then(|it| it.supported_kinds).unwrap_or_default();
                let kinds: Vec<_> = kinds.into_iter().map(|it| it.kind).collect();
                Ok(([resolved, why], kinds))
            },
            likely: "the controller refuses a listener for one kind that it does not know",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn gateway_says_that_listeners_are_not_valid(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: "the reasons of condition Accepted of Gateways many and my-gateway",
            expected: ["ListenersNotValid", "Accepted"].map(str::to_owned),
            observe: async || {
                let reason = async |name: &str| {
                    let gateway: Gateway = scope.get(name).await?;
                    let conditions = gateway.status.and_then(|status| status.conditions);
                    Ok::<_, NoVerdict>(of(&conditions.unwrap_or_default(), "Accepted").1)
                };
                Ok([reason("many").await?, reason(TUTORIAL).await?])
            },
            likely: "the controller leaves it to listeners to say what is wrong with them",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn unclaimed_class_stays_pending(scope: &Scope) -> Outcome {
    // The control is my-gateway, which the gates have seen accepted by now.
    let gateway: Gateway = scope.get("unclaimed").await?;
    let status = gateway.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let (accepted, why, _) = of(&conditions, "Accepted");
    expect_eq(
        "condition Accepted of Gateway unclaimed, its reason, and its addresses",
        &("Unknown".to_owned(), "Pending".to_owned(), 0),
        &(accepted, why, status.addresses.unwrap_or_default().len()),
        "a controller serves classes that are not its own, or the CRD lacks the conditions' defaults",
    )
}

async fn api_refuses_what_is_invalid(scope: &Scope) -> Outcome {
    // The controls are the fixture's own objects, which differ from these in the one field.
    let listener = |port: u32| json!([{ "name": "http", "protocol": "HTTP", "port": port }]);
    let rule = |rule| json!({ "parentRefs": [{ "name": TUTORIAL }], "rules": [rule] });
    let path = |kind: &str, value: &str| {
        rule(json!({ "matches": [{ "path": { "type": kind, "value": value } }] }))
    };
    for (kind, field, spec) in [
        (
            "Gateway",
            "listeners",
            json!({ "gatewayClassName": "contour", "listeners": [] }),
        ),
        (
            "Gateway",
            "port",
            json!({ "gatewayClassName": "contour", "listeners": listener(65536) }),
        ),
        ("HTTPRoute", "type", path("Glob", "/a*")),
        (
            "HTTPRoute",
            "hostnames",
            json!({ "parentRefs": [{ "name": TUTORIAL }], "hostnames": ["under_score.example"] }),
        ),
        (
            "HTTPRoute",
            "weight",
            rule(json!({ "backendRefs": [{ "name": "alpha", "port": 80, "weight": -1 }] })),
        ),
        (
            "HTTPRoute",
            "method",
            rule(json!({ "matches": [{ "method": "FETCH" }] })),
        ),
    ] {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": kind,
            "metadata": { "name": "invalid" },
            "spec": spec,
        });
        refused(scope, &[422], field, &object.to_string()).await?;
    }
    Ok(())
}
