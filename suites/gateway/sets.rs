//! Listeners that others bring to a Gateway, as ListenerSets.
//!
//! Start from [`SUITE`]. In the fixture Gateway `many` takes them from everywhere and `my-gateway` from nowhere;
//! `lent` is the oldest, and `lent-late` and `lent-too-late` ask for what others have. Who may bring some is
//! judged by `lending`.

use std::collections::BTreeMap;

use gateway_api::httproutes::HttpRoute;
use gateway_api::listenersets::{ListenerSet, ListenerSetStatus};
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite};

use super::{explain, explain_gateway, listener_of, many, of, table};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::lent_listeners_are_served",
        claim: "A route is served at the listeners of the ListenerSet that it names, or at the one that it names of it, and at no listener of the Gateway's.",
        source: "ListenerSetHTTPRouting",
        needs: SERVED,
        manifest: None,
        run: |scope| Box::pin(lent_listeners_are_served(scope)),
    },
    Check {
        id: "gateway::lent_listeners_count_their_routes",
        claim: "A listener of a ListenerSet counts the routes that name it, and a route that names only ListenerSets is told of by no Gateway.",
        source: "ListenerSetRouteStatusScopedToParentRef",
        needs: SAID,
        manifest: None,
        run: |scope| Box::pin(lent_listeners_count_their_routes(scope)),
    },
    Check {
        id: "gateway::lent_listeners_are_none_of_the_gateways",
        claim: "A route that names a Gateway and a listener that only a ListenerSet has is not accepted there, with reason NoMatchingParent, and is served where it names the ListenerSet.",
        source: "ListenerSetGatewayParentSectionNameNotFound, ListenerSetDualParentRefIndependence",
        needs: SERVED,
        manifest: None,
        run: |scope| {
            Box::pin(parents(
                scope,
                "on-lent-of-two",
                ["NoMatchingParent", "Accepted"],
                &[
                    ("two.lent.example", "/half", "200 by alpha"),
                    ("one.lent.example", "/half", "404"),
                ],
            ))
        },
    },
    Check {
        id: "gateway::own_and_lent_listeners_of_one_route",
        claim: "A route of a Gateway's listener and of a ListenerSet's is accepted by each for itself.",
        source: "ListenerSetDualParentRefIndependence",
        needs: SERVED,
        manifest: None,
        run: |scope| {
            Box::pin(parents(
                scope,
                "on-own-and-lent",
                ["Accepted", "Accepted"],
                &[
                    ("two.lent.example", "/both", "200 by beta"),
                    ("one.lent.example", "/both", "404"),
                ],
            ))
        },
    },
    Check {
        id: "gateway::lent_listeners_of_a_taken_host",
        claim: "Of listeners of one port and hostname the Gateway's is served, then the oldest ListenerSet's, and the others say HostnameConflict.",
        source: "ListenerSetHostnameConflict",
        needs: SERVED,
        manifest: None,
        run: |scope| {
            Box::pin(conflicts(
                scope,
                "HostnameConflict",
                ["host-of-the-gateway", "host-of-a-set"],
            ))
        },
    },
    Check {
        id: "gateway::lent_listeners_of_a_taken_port",
        claim: "Of listeners of one port and other protocols the Gateway's is served, then the oldest ListenerSet's, and the others say ProtocolConflict.",
        source: "ListenerSetProtocolConflict",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("ListenerSet"),
            Need::GatewayFeature("TCPRoute"),
        ],
        manifest: None,
        run: |scope| {
            Box::pin(conflicts(
                scope,
                "ProtocolConflict",
                ["protocol-of-the-gateway", "protocol-of-a-set"],
            ))
        },
    },
    Check {
        id: "gateway::lent_listeners_tell_their_kinds",
        claim: "A listener of a ListenerSet supports the kinds of routes that it asks for, and says so if it asks for one that nobody knows.",
        source: "ListenerSetAllowedRoutesSupportedKinds",
        needs: SAID,
        manifest: None,
        run: |scope| Box::pin(lent_listeners_tell_their_kinds(scope)),
    },
];

pub(super) const SAID: &[Need] = &[Need::GatewayFeature("ListenerSet")];
pub(super) const SERVED: &[Need] = &[Need::Outside, Need::GatewayFeature("ListenerSet")];

async fn lent_listeners_are_served(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let cases = [
        ("one.lent.example", "/all", "200 by beta"),
        ("two.lent.example", "/all", "200 by beta"),
        ("one.lent.example", "/one", "200 by beta"),
        ("two.lent.example", "/one", "404"),
        ("own.gateway.example", "/one", "200 by alpha"),
        ("none.lent.example", "/all", "404"),
    ];
    table(scope, &entrance, "on-lent", &cases).await
}

async fn lent_listeners_count_their_routes(scope: &Scope) -> Outcome {
    let expected = BTreeMap::from([("one", 2), ("port-of-its-own", 1), ("two", 3)]);
    let expected = expected
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count));
    let outcome = scope
        .eventually(Eventually {
            what: "attachedRoutes of the listeners of ListenerSet lent, and the kinds of parents that tell of route on-lent-one",
            expected: (expected.collect(), vec!["ListenerSet".to_owned()]),
            observe: async || {
                let status = status(scope, scope.namespace(), "lent").await?;
                let listeners = status.listeners.unwrap_or_default().into_iter();
                let counts = listeners.map(|it| (it.name, it.attached_routes));
                let route: HttpRoute = scope.get("on-lent-one").await?;
                let parents = route.status.into_iter().flat_map(|status| status.parents);
                let kinds = parents.map(|parent| parent.parent_ref.kind.unwrap_or_default());
                Ok((counts.collect::<BTreeMap<_, _>>(), kinds.collect()))
            },
            likely: "the controller takes a route of a ListenerSet for one of its Gateway",
        })
        .await;
    explain(scope, outcome, "on-lent-one", "/one").await
}

async fn parents(
    scope: &Scope,
    route: &str,
    reasons: [&str; 2],
    cases: &[(&'static str, &'static str, &'static str)],
) -> Outcome {
    let entrance = many(scope).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "the reasons of condition Accepted by the route's parents, a Gateway and a ListenerSet",
            expected: ["Gateway", "ListenerSet"].map(str::to_owned).into_iter().zip(reasons.map(str::to_owned)).collect(),
            observe: async || {
                let route: HttpRoute = scope.get(route).await?;
                let parents = route.status.into_iter().flat_map(|status| status.parents);
                let said = parents.map(|parent| {
                    let kind = parent.parent_ref.kind.unwrap_or_default();
                    (kind, of(&parent.conditions, "Accepted").1)
                });
                Ok(said.collect::<BTreeMap<_, _>>())
            },
            likely: "the controller looks for a Gateway's listeners among those of its ListenerSets",
        })
        .await;
    explain(scope, outcome, route, "/").await?;
    table(scope, &entrance, route, cases).await
}

async fn conflicts(scope: &Scope, reason: &str, names: [&str; 2]) -> Outcome {
    let entrance = many(scope).await?;
    let refused = ["False", "True", reason, "False"].map(str::to_owned);
    let served = ["True", "False", "True"].map(str::to_owned);
    let outcome = scope
        .eventually(Eventually {
            what: "conditions Accepted, Conflicted with its reason, and Programmed of the late listeners; Accepted and its reason of the ListenerSets lent-late and lent-too-late; and Accepted, Conflicted and Programmed of the listeners that came first",
            expected: (
                [refused.clone(), refused],
                [["True", "ListenersNotValid"], ["False", "ListenersNotValid"]].map(|it| it.map(str::to_owned)),
                [served.clone(), served],
            ),
            observe: async || {
                let late = status(scope, scope.namespace(), "lent-late").await?;
                let refused = names.map(|name| {
                    let conditions = entry(&late, name);
                    let (conflicted, why, _) = of(&conditions, "Conflicted");
                    [of(&conditions, "Accepted").0, conflicted, why, of(&conditions, "Programmed").0]
                });
                let too_late = status(scope, scope.namespace(), "lent-too-late").await?;
                let sets = [&late, &too_late].map(accepted);
                let own = listener_of(scope, "many", "own").await?;
                let first = status(scope, scope.namespace(), "lent").await?;
                let first = [own, entry(&first, "one")].map(|conditions| {
                    ["Accepted", "Conflicted", "Programmed"].map(|kind| of(&conditions, kind).0)
                });
                Ok((refused, sets, first))
            },
            likely: "the controller takes listeners in another order, or none of those that conflict",
        })
        .await;
    explain_gateway(scope, outcome, "many").await?;
    let cases = [
        ("free.lent.example", "/late", "200 by beta"),
        ("own.gateway.example", "/late", "200 by alpha"),
        ("one.lent.example", "/late", "404"),
        ("one.lent.example", "/all", "200 by beta"),
    ];
    table(scope, &entrance, "on-lent-late", &cases).await
}

async fn lent_listeners_tell_their_kinds(scope: &Scope) -> Outcome {
    let expected = [
        ("any", "ResolvedRefs", "GRPCRoute HTTPRoute"),
        ("grpc-only", "ResolvedRefs", "GRPCRoute"),
        ("beside", "InvalidRouteKinds", "HTTPRoute"),
        ("unknown", "InvalidRouteKinds", ""),
    ];
    let outcome = scope
        .eventually(Eventually {
            what: "the reason of condition ResolvedRefs and the supportedKinds of HTTP and gRPC, by listener of ListenerSet lent-kinds",
            expected: expected.map(|(name, why, kinds)| [name, why, kinds].map(str::to_owned)).to_vec(),
            observe: async || {
                let status = status(scope, scope.namespace(), "lent-kinds").await?;
                let listeners = status.listeners.unwrap_or_default().into_iter();
                let told = listeners.map(|listener| {
                    let kinds = listener.supported_kinds.unwrap_or_default();
                    let mut kinds: Vec<_> = kinds.into_iter().map(|it| it.kind).collect();
                    kinds.sort();
                    let why = of(&listener.conditions, "ResolvedRefs").1;
                    [listener.name, why, kinds.join(" ")]
                });
                Ok(told.collect())
            },
            likely: "the controller does not look at allowedRoutes of a ListenerSet's listeners",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

/// What is said of a ListenerSet.
pub(super) async fn status(
    scope: &Scope,
    namespace: &str,
    name: &str,
) -> Result<ListenerSetStatus, NoVerdict> {
    let set: ListenerSet = scope.get_in(namespace, name).await?;
    Ok(set.status.unwrap_or_default())
}

/// Condition Accepted of a ListenerSet, and its reason.
pub(super) fn accepted(status: &ListenerSetStatus) -> [String; 2] {
    let (accepted, why, _) = of(status.conditions.as_deref().unwrap_or_default(), "Accepted");
    [accepted, why]
}

/// The conditions of one of its listeners.
pub(super) fn entry(
    status: &ListenerSetStatus,
    name: &str,
) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let mut listeners = status.listeners.iter().flatten();
    let found = listeners.find(|it| it.name == name);
    found.map(|it| it.conditions.clone()).unwrap_or_default()
}
