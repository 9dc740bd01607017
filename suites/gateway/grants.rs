//! References across namespaces, which whoever is referred to has to grant.
//!
//! Start from [`SUITE`]. The check's own namespace has what is referred to, and the grants; the routes and
//! Gateways that refer to it are in a namespace beside it. Grants are of v1beta1, which every release of
//! the Gateway API serves.

use std::collections::BTreeMap;

use gateway_api::gateways::Gateway;
use gateway_api::httproutes::HttpRoute;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use strata::budget::PROVISION;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Subject, Suite};

use super::{authority, many, of, parent_of};
use crate::entrance::{Entrance, gateway_address};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::reference_grant_given_and_withdrawn",
        claim: "A route reaches a backend of another namespace as long as a ReferenceGrant there allows it, and says RefNotPermitted before and after.",
        source: "HTTPRouteReferenceGrant, HTTPRouteInvalidCrossNamespaceBackendRef",
        needs: &[Need::Outside, Need::GatewayFeature("ReferenceGrant")],
        manifest: Some("gateway/reference_grant_given_and_withdrawn.yaml"),
        run: |scope| Box::pin(given_and_withdrawn(scope)),
    },
    Check {
        id: "gateway::reference_grants_of_others",
        claim: "A ReferenceGrant for another namespace, kind, group, target or name grants nothing, and what another one grants in the same route is served.",
        source: "HTTPRouteInvalidReferenceGrant, HTTPRoutePartiallyInvalidViaInvalidReferenceGrant",
        needs: &[Need::Outside, Need::GatewayFeature("ReferenceGrant")],
        manifest: Some("gateway/reference_grants_of_others.yaml"),
        run: |scope| Box::pin(grants_of_others(scope)),
    },
    Check {
        id: "gateway::certificate_by_grant_of_its_name",
        claim: "A Gateway shows a certificate of another namespace that a ReferenceGrant names, and none that it does not name.",
        source: "GatewaySecretReferenceGrantSpecific",
        needs: &[Need::Outside, Need::GatewayFeature("ReferenceGrant")],
        manifest: Some("gateway/certificate_by_grant_of_its_name.yaml"),
        run: |scope| Box::pin(certificate_by_grant(scope, Some("shown"), NOT_PERMITTED)),
    },
    Check {
        id: "gateway::certificate_by_grant_of_its_kind",
        claim: "A Gateway shows every certificate of a namespace whose ReferenceGrant names none.",
        source: "GatewaySecretReferenceGrantAllInNamespace",
        needs: &[Need::Outside, Need::GatewayFeature("ReferenceGrant")],
        manifest: Some("gateway/certificate_by_grant_of_its_kind.yaml"),
        run: |scope| Box::pin(certificate_by_grant(scope, None, RESOLVED)),
    },
    Check {
        id: "gateway::certificate_by_grants_of_others",
        claim: "ReferenceGrants for other namespaces, kinds and names let no Gateway show a certificate.",
        source: "GatewaySecretInvalidReferenceGrant",
        needs: &[Need::GatewayFeature("ReferenceGrant")],
        manifest: Some("gateway/certificate_by_grants_of_others.yaml"),
        run: |scope| Box::pin(certificate_by_grants_of_others(scope)),
    },
];

const GROUP: &str = "gateway.networking.k8s.io";
const VERSION: &str = "gateway.networking.k8s.io/v1beta1";
const NOT_PERMITTED: &str = "RefNotPermitted";
const RESOLVED: &str = "ResolvedRefs";

async fn given_and_withdrawn(scope: &Scope) -> Outcome {
    const HOST: &str = "granted.all.gateway.example";
    let entrance = many(scope).await?;
    let guest = scope.neighbour(&route(scope, HOST, &["web"])).await?;
    let settled = async |answer: &str, reason: &str| {
        let outcome = scope
            .eventually(Eventually {
                what: "who answers, and the reason of condition ResolvedRefs",
                expected: [answer, reason].map(str::to_owned),
                observe: async || {
                    let answer = said::said(&entrance.get(HOST, "/web").await?);
                    Ok([answer, resolved(scope, &guest).await?])
                },
                likely: "the controller does not look at ReferenceGrants, or not again when they change",
            })
            .await;
        explain(scope, outcome, &guest, "/web").await
    };
    settled("500", NOT_PERMITTED).await?;
    let from = source(GROUP, "HTTPRoute", &guest);
    scope
        .apply(&grant("given", from, "Service", Some("web")))
        .await?;
    settled("200 by web", RESOLVED).await?;
    scope
        .delete_kind(VERSION, "ReferenceGrant", "given")
        .await?;
    settled("500", NOT_PERMITTED).await
}

async fn grants_of_others(scope: &Scope) -> Outcome {
    const HOST: &str = "others.all.gateway.example";
    let entrance = many(scope).await?;
    let own = |guest: &str| source(GROUP, "HTTPRoute", guest);
    let (other, web) = ("of-another-namespace", "web");
    let services = [
        other,
        "of-another-kind",
        "of-another-group",
        "to-another-kind",
        "to-another-name",
        web,
    ];
    let guest = scope.neighbour(&route(scope, HOST, &services)).await?;
    // The right one last: when that is in force, so would the others be.
    for (service, from, kind, name) in [
        (other, own(scope.fixture()), "Service", other),
        (
            "of-another-kind",
            source(GROUP, "GRPCRoute", &guest),
            "Service",
            "of-another-kind",
        ),
        (
            "of-another-group",
            source("example.com", "HTTPRoute", &guest),
            "Service",
            "of-another-group",
        ),
        ("to-another-kind", own(&guest), "Secret", "to-another-kind"),
        ("to-another-name", own(&guest), "Service", "nobody"),
        (web, own(&guest), "Service", web),
    ] {
        scope.apply(&grant(service, from, kind, Some(name))).await?;
    }
    let answer = |service| if service == web { "200 by web" } else { "500" };
    let outcome = scope
        .eventually(Eventually {
            what: "who answers by Service, of which only web has a grant that is right, and the reason of condition ResolvedRefs",
            expected: (
                services.map(|service| (service, answer(service).to_owned())).into(),
                NOT_PERMITTED.to_owned(),
            ),
            observe: async || {
                let mut seen = BTreeMap::new();
                for service in services {
                    let reply = entrance.get(HOST, &format!("/{service}")).await?;
                    seen.insert(service, said::said(&reply));
                }
                Ok((seen, resolved(scope, &guest).await?))
            },
            likely: "the controller looks at a part of a ReferenceGrant only",
        })
        .await;
    explain(scope, outcome, &guest, "/of-another-namespace").await
}

async fn certificate_by_grant(scope: &Scope, named: Option<&str>, hidden: &str) -> Outcome {
    copy_certificate(scope).await?;
    let guest = scope.neighbour(&gateway(scope)).await?;
    let from = source(GROUP, "Gateway", &guest);
    scope.apply(&grant("given", from, "Secret", named)).await?;
    let ca = authority(scope).await?;
    let outcome = scope
        .eventually_within(PROVISION, Eventually {
            what: "the reasons of condition ResolvedRefs of the listeners of Secrets shown and hidden, and whether there is an answer over HTTPS, with the certificate of Secret shown verified",
            expected: ([RESOLVED, hidden].map(str::to_owned), "an answer".to_owned()),
            observe: async || {
                let gateway: Gateway = scope.get_in(&guest, "guest").await?;
                let reasons = listeners(&gateway);
                let Some(address) = gateway_address(&gateway) else {
                    return Ok((reasons, "no address yet".to_owned()));
                };
                let entrance = Entrance::at(scope, address)?;
                // It has no route: what is shown is what counts.
                let secure = entrance.secure("tls.gateway.example", "/", &ca);
                let reply = entrance.send(&secure).await?;
                let shown = match reply.status {
                    Some(_) => "an answer".to_owned(),
                    None => said::said(&reply),
                };
                Ok((reasons, shown))
            },
            likely: "the controller does not look at ReferenceGrants for certificates",
        })
        .await;
    explain_gateway(scope, outcome, &guest).await
}

async fn certificate_by_grants_of_others(scope: &Scope) -> Outcome {
    copy_certificate(scope).await?;
    let guest = scope.neighbour(&gateway(scope)).await?;
    let own = || source(GROUP, "Gateway", &guest);
    for (name, from, kind, target) in [
        (
            "of-another-namespace",
            source(GROUP, "Gateway", scope.fixture()),
            "Secret",
            None,
        ),
        (
            "of-another-kind",
            source(GROUP, "HTTPRoute", &guest),
            "Secret",
            None,
        ),
        (
            "of-another-group",
            source("example.com", "Gateway", &guest),
            "Secret",
            None,
        ),
        ("to-another-kind", own(), "Service", None),
        ("to-another-name", own(), "Secret", Some("nobody")),
    ] {
        scope.apply(&grant(name, from, kind, target)).await?;
    }
    let settled = async |expected: [&str; 2]| {
        let outcome = scope
            .eventually_within(PROVISION, Eventually {
                what: "the reasons of condition ResolvedRefs of the listeners of Secrets shown and hidden",
                expected: expected.map(str::to_owned),
                observe: async || Ok(listeners(&scope.get_in(&guest, "guest").await?)),
                likely: "the controller looks at a part of a ReferenceGrant only",
            })
            .await;
        explain_gateway(scope, outcome, &guest).await
    };
    settled([NOT_PERMITTED; 2]).await?;
    // When the right one is in force, so would the others be.
    scope
        .apply(&grant("right", own(), "Secret", Some("shown")))
        .await?;
    settled([RESOLVED, NOT_PERMITTED]).await
}

/// A route to Services of the check's own namespace, by a path each.
fn route(scope: &Scope, host: &str, services: &[&str]) -> String {
    let rule = |service: &&str| {
        json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": format!("/{service}") } }],
            "backendRefs": [{ "name": service, "namespace": scope.namespace(), "port": 80 }],
        })
    };
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "HTTPRoute",
        "metadata": { "name": "guest" },
        "spec": {
            "parentRefs": [{ "name": "many", "namespace": scope.fixture(), "sectionName": "all" }],
            "hostnames": [host],
            "rules": services.iter().map(rule).collect::<Vec<_>>(),
        },
    })
    .to_string()
}

/// A Gateway with a listener for each of two Secrets of the check's own namespace.
fn gateway(scope: &Scope) -> String {
    let listener = |secret: &str, port: u16| {
        let reference = json!({ "name": secret, "namespace": scope.namespace() });
        json!({
            "name": secret, "protocol": "HTTPS", "port": port,
            "tls": { "certificateRefs": [reference] },
        })
    };
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "Gateway",
        "metadata": { "name": "guest" },
        "spec": {
            "gatewayClassName": "contour",
            "listeners": [listener("shown", 443), listener("hidden", 8443)],
        },
    })
    .to_string()
}

fn source(group: &str, kind: &str, namespace: &str) -> Value {
    json!({ "group": group, "kind": kind, "namespace": namespace })
}

fn grant(name: &str, from: Value, kind: &str, target: Option<&str>) -> String {
    let mut to = json!({ "group": "", "kind": kind });
    if let Some(target) = target {
        to["name"] = json!(target);
    }
    json!({
        "apiVersion": VERSION,
        "kind": "ReferenceGrant",
        "metadata": { "name": name },
        "spec": { "from": [from], "to": [to] },
    })
    .to_string()
}

/// The fixture's certificate, as two Secrets of the check's own namespace.
async fn copy_certificate(scope: &Scope) -> Result<(), NoVerdict> {
    let secret: Secret = scope.get_in(scope.fixture(), "tls").await?;
    for name in ["shown", "hidden"] {
        let copy = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name },
            "type": "kubernetes.io/tls",
            "data": serde_json::to_value(&secret.data)?,
        });
        scope.apply(&copy.to_string()).await?;
    }
    Ok(())
}

async fn resolved(scope: &Scope, guest: &str) -> Result<String, NoVerdict> {
    let route: HttpRoute = scope.get_in(guest, "guest").await?;
    Ok(of(&parent_of(&route).conditions, RESOLVED).1)
}

/// The reasons of condition ResolvedRefs of a Gateway's listeners shown and hidden.
fn listeners(gateway: &Gateway) -> [String; 2] {
    let status = gateway.status.as_ref();
    let listeners = status.and_then(|status| status.listeners.as_deref());
    ["shown", "hidden"].map(|name| {
        let mut all = listeners.unwrap_or_default().iter();
        let found = all.find(|listener| listener.name == name);
        found.map_or_else(String::new, |it| of(&it.conditions, RESOLVED).1)
    })
}

async fn explain(scope: &Scope, outcome: Outcome, guest: &str, path: &str) -> Outcome {
    let subject = Subject::HttpRoute {
        namespace: guest,
        name: "guest",
        path,
    };
    scope.explain(outcome, subject).await
}

async fn explain_gateway(scope: &Scope, outcome: Outcome, guest: &str) -> Outcome {
    let subject = Subject::Gateway {
        namespace: guest,
        name: "guest",
        listener: None,
    };
    scope.explain(outcome, subject).await
}
