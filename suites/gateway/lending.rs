//! Who may bring listeners to a Gateway, and whose routes and certificates these may have.
//!
//! Start from [`SUITE`]. In the fixture Gateway `many` takes ListenerSets from everywhere and `my-gateway` from
//! nowhere. Routes here redirect, so that no namespace needs a backend.

use gateway_api::gateways::Gateway;
use gateway_api::httproutes::HttpRoute;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use strata::budget::PROVISION;
use strata::{Check, Eventually, Layer, Outcome, Scope, Suite};

use super::sets::{SAID, SERVED, accepted, entry, status};
use super::{authority, explain_gateway, many, of};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::listener_sets_are_not_allowed_by_default",
        claim: "A Gateway that does not say whose ListenerSets it allows takes none, and the ListenerSet says NotAllowed.",
        source: "ListenerSetDefaultNotAllowed",
        needs: SAID,
        manifest: None,
        run: |scope| Box::pin(uninvited(scope)),
    },
    Check {
        id: "gateway::listener_sets_of_no_namespace",
        claim: "A Gateway that allows ListenerSets of no namespace takes none, not even of its own.",
        source: "ListenerSetAllowedNamespaceNone",
        needs: SAID,
        manifest: Some(LENDING),
        run: |scope| Box::pin(allowed(scope, json!({ "from": "None" }), [false; 3])),
    },
    Check {
        id: "gateway::listener_sets_of_the_same_namespace",
        claim: "A Gateway that allows ListenerSets of its own namespace takes those and no others.",
        source: "ListenerSetAllowedNamespaceSame",
        needs: SAID,
        manifest: Some(LENDING),
        run: |scope| {
            Box::pin(allowed(
                scope,
                json!({ "from": "Same" }),
                [true, false, false],
            ))
        },
    },
    Check {
        id: "gateway::listener_sets_of_selected_namespaces",
        claim: "A Gateway that allows ListenerSets of labelled namespaces takes those and no others.",
        source: "ListenerSetAllowedNamespaceSelector",
        needs: SAID,
        manifest: Some(LENDING),
        run: |scope| {
            let labels = json!({ "strata.dev/invited": "yes" });
            let selector = json!({ "from": "Selector", "selector": { "matchLabels": labels } });
            Box::pin(allowed(scope, selector, [false, true, false]))
        },
    },
    Check {
        id: "gateway::lent_listeners_allow_namespaces",
        claim: "A listener of a ListenerSet takes routes of the ListenerSet's own namespace, of all or of selected ones, as it says.",
        source: "ListenerSetAllowedRoutesNamespaces",
        needs: SERVED,
        manifest: Some("gateway/lent_listeners_allow_namespaces.yaml"),
        run: |scope| Box::pin(lent_listeners_allow_namespaces(scope)),
    },
    Check {
        id: "gateway::lent_certificate_by_grant",
        claim: "A ListenerSet may show a certificate of another namespace when a ReferenceGrant there says so of ListenerSets, and not when it says so of Gateways.",
        source: "ListenerSetReferenceGrant",
        needs: SERVED,
        manifest: Some("gateway/lent_certificate_by_grant.yaml"),
        run: |scope| Box::pin(lent_certificate_by_grant(scope)),
    },
];

/// A Gateway that says nothing of ListenerSets until its check does.
const LENDING: &str = "gateway/lending.yaml";
const GROUP: &str = "gateway.networking.k8s.io";

async fn uninvited(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually_within(PROVISION, Eventually {
            what: "conditions Accepted and Programmed of ListenerSet lent-uninvited, with the reason of the first, and how many ListenerSets Gateway my-gateway has attached",
            expected: (["False", "NotAllowed", "False"].map(str::to_owned), 0),
            observe: async || {
                let status = status(scope, scope.namespace(), "lent-uninvited").await?;
                let [accepted, why] = accepted(&status);
                let programmed = of(&status.conditions.unwrap_or_default(), "Programmed").0;
                let gateway: Gateway = scope.get("my-gateway").await?;
                let attached = gateway.status.and_then(|status| status.attached_listener_sets);
                Ok(([accepted, why, programmed], attached.unwrap_or_default()))
            },
            likely: "the controller takes ListenerSets without being told to",
        })
        .await;
    explain_gateway(scope, outcome, "my-gateway").await
}

/// Whether ListenerSets are taken of the Gateway's namespace, of a labelled one and of another.
async fn allowed(scope: &Scope, namespaces: Value, taken: [bool; 3]) -> Outcome {
    let allowed = json!({ "spec": { "allowedListeners": { "namespaces": namespaces } } });
    scope.merge::<Gateway>("lending", allowed).await?;
    let parent = json!({ "name": "lending", "namespace": scope.namespace() });
    let set = |host: &str| {
        lent(
            &parent,
            json!([{ "name": "guest", "protocol": "HTTP", "port": 80, "hostname": host }]),
        )
    };
    scope.apply(&set("own.lent.example")).await?;
    let invited = scope
        .neighbour(&labelled(&set("invited.lent.example")))
        .await?;
    let other = scope.neighbour(&set("other.lent.example")).await?;
    let said = |taken| match taken {
        true => ["True", "Accepted", "True"],
        false => ["False", "NotAllowed", "False"],
    };
    let count = i32::try_from(taken.iter().filter(|it| **it).count()).unwrap_or(i32::MAX);
    let outcome = scope
        .eventually_within(PROVISION, Eventually {
            what: "conditions Accepted, with its reason, and Programmed of the ListenerSets of the Gateway's namespace, of a labelled one and of another, and how many the Gateway has attached",
            expected: (taken.map(|taken| said(taken).map(str::to_owned)).to_vec(), count),
            observe: async || {
                let mut seen = Vec::new();
                for namespace in [scope.namespace(), &invited, &other] {
                    let status = status(scope, namespace, "guest").await?;
                    let [accepted, why] = accepted(&status);
                    let programmed = of(&status.conditions.unwrap_or_default(), "Programmed").0;
                    seen.push([accepted, why, programmed]);
                }
                let gateway: Gateway = scope.get("lending").await?;
                let attached = gateway.status.and_then(|status| status.attached_listener_sets);
                Ok((seen, attached.unwrap_or_default()))
            },
            likely: "the controller does not look at allowedListeners, or at the labels of namespaces",
        })
        .await;
    super::explain_own_gateway(scope, outcome, "lending").await
}

async fn lent_listeners_allow_namespaces(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let host = |listener: &str| format!("{listener}.{}.example", scope.namespace());
    let listener = |from: &str| {
        let mut namespaces = json!({ "from": from });
        if from == "Selector" {
            namespaces["selector"] = json!({ "matchLabels": { "strata.dev/invited": "yes" } });
        }
        let name = from.to_lowercase();
        json!({
            "name": name, "protocol": "HTTP", "port": 80, "hostname": host(&name),
            "allowedRoutes": { "namespaces": namespaces },
        })
    };
    let parent = json!({ "name": "many", "namespace": scope.fixture() });
    let listeners = LISTENERS.map(listener);
    scope.apply(&lent(&parent, json!(listeners))).await?;
    scope.apply(&redirects(scope, "own")).await?;
    let invited = scope
        .neighbour(&labelled(&redirects(scope, "invited")))
        .await?;
    let other = scope.neighbour(&redirects(scope, "other")).await?;
    let namespaces = [
        ("own", scope.namespace(), [true, true, false]),
        ("invited", &invited, [false, true, true]),
        ("other", &other, [false, true, false]),
    ];
    let told = |taken| match taken {
        true => ["Accepted", "302"].map(str::to_owned),
        false => ["NotAllowedByListeners", "404"].map(str::to_owned),
    };
    let outcome = scope
        .eventually_within(PROVISION, Eventually {
            what: "the reason of condition Accepted, and the answer, by listener (Same, All, Selector) and then by the route's namespace (the ListenerSet's, a labelled one, another)",
            expected: namespaces.map(|(_, _, taken)| taken.map(told)).to_vec(),
            observe: async || {
                let mut seen = Vec::new();
                for (who, namespace, _) in namespaces {
                    let mut by_listener = [const { [String::new(), String::new()] }; 3];
                    for (place, from) in LISTENERS.into_iter().enumerate() {
                        let name = from.to_lowercase();
                        let route: HttpRoute = scope.get_in(namespace, &name).await?;
                        let why = of(&super::parent_of(&route).conditions, "Accepted").1;
                        let reply = entrance.get(&host(&name), &format!("/{who}")).await?;
                        by_listener[place] = [why, said::said(&reply)];
                    }
                    seen.push(by_listener);
                }
                Ok(seen)
            },
            likely: "the controller takes the Gateway's namespace for the ListenerSet's",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

const LISTENERS: [&str; 3] = ["Same", "All", "Selector"];

/// A route to each listener of the check's ListenerSet, that redirects what comes by a path.
fn redirects(scope: &Scope, path: &str) -> String {
    let route = |from: &str| {
        let filter = json!({ "type": "RequestRedirect", "requestRedirect": { "hostname": "elsewhere.example" } });
        let parent = json!({
            "group": GROUP, "kind": "ListenerSet", "name": "guest",
            "namespace": scope.namespace(), "sectionName": from.to_lowercase(),
        });
        let document = json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "HTTPRoute",
            "metadata": { "name": from.to_lowercase() },
            "spec": {
                "parentRefs": [parent],
                "rules": [{
                    "matches": [{ "path": { "type": "PathPrefix", "value": format!("/{path}") } }],
                    "filters": [filter],
                }],
            },
        });
        document.to_string()
    };
    LISTENERS.map(route).join("\n---\n")
}

async fn lent_certificate_by_grant(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let secret: Secret = scope.get_in(scope.fixture(), "tls").await?;
    let copy = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "shown" },
        "type": "kubernetes.io/tls",
        "data": serde_json::to_value(&secret.data)?,
    });
    scope.apply(&copy.to_string()).await?;
    let certificate = json!([{ "name": "shown", "namespace": scope.namespace() }]);
    let listener = json!([{
        "name": "guest", "protocol": "HTTPS", "port": 8448, "hostname": "tls.gateway.example",
        "tls": { "certificateRefs": certificate },
    }]);
    let parent = json!({ "name": "many", "namespace": scope.fixture() });
    let guest = scope.neighbour(&lent(&parent, listener)).await?;
    let grant = |name: &str, kind: &str| {
        let grant = json!({
            "apiVersion": format!("{GROUP}/v1beta1"),
            "kind": "ReferenceGrant",
            "metadata": { "name": name },
            "spec": {
                "from": [{ "group": GROUP, "kind": kind, "namespace": guest }],
                "to": [{ "group": "", "kind": "Secret" }],
            },
        });
        grant.to_string()
    };
    let ca = authority(scope).await?;
    // It has no route: what is shown is what counts.
    let spec = entrance.secure_at(8448, "tls.gateway.example", "/", &ca);
    let settled = async |why: &str, answer: Option<&str>| {
        let outcome = scope
            .eventually_within(PROVISION, Eventually {
                what: "the reason of condition ResolvedRefs of the listener, and an answer over HTTPS, its certificate verified",
                expected: (why.to_owned(), answer.map(str::to_owned)),
                observe: async || {
                    let status = status(scope, &guest, "guest").await?;
                    let said = of(&entry(&status, "guest"), "ResolvedRefs").1;
                    if said != why {
                        // Silence takes its time, and would say nothing yet.
                        return Ok((said, Some("not asked".to_owned())));
                    }
                    let reply = entrance.send(&spec).await?;
                    Ok((said, reply.status.map(|status| status.to_string())))
                },
                likely: "the controller looks for grants of the Gateway's, or for none",
            })
            .await;
        explain_gateway(scope, outcome, "many").await
    };
    scope.apply(&grant("of-gateways", "Gateway")).await?;
    settled("RefNotPermitted", None).await?;
    scope
        .apply(&grant("of-listener-sets", "ListenerSet"))
        .await?;
    settled("ResolvedRefs", Some("404")).await
}

/// The documents of a namespace with the label that selectors here ask for.
fn labelled(documents: &str) -> String {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": "strata-gateway", "labels": { "strata.dev/invited": "yes" } },
    });
    format!("{namespace}\n---\n{documents}")
}

/// A ListenerSet of a check's own.
fn lent(parent: &Value, listeners: Value) -> String {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "ListenerSet",
        "metadata": { "name": "guest" },
        "spec": { "parentRef": parent, "listeners": listeners },
    })
    .to_string()
}
