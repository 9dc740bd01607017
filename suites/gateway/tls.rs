//! TLS by its server name, as TLSRoutes route it.
//!
//! Start from [`SUITE`]. Listener `passthrough` of Gateway `many` hands TLS on as it is; at listener
//! `terminate` it ends, and what is in it is handed on. That somebody is shown no certificate is the
//! refusal: a server name is all that a client has said by then.

use gateway_api::gateways::Gateway;
use gateway_api::tlsroutes::TlsRoute;
use serde_json::{Value, json};
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite};

use super::{authority, explain_gateway, many, of};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::tls_passes_through",
        claim: "TLS of a server name that a TLSRoute has ends at its backend, and TLS of another name below the listener's is refused.",
        source: "TLSRouteSimpleSameNamespace, TLSRouteHostnameIntersection",
        needs: &[Need::Outside, Need::GatewayFeature("TLSRoute")],
        manifest: Some("gateway/tls_passes_through.yaml"),
        run: |scope| Box::pin(tls_passes_through(scope)),
    },
    Check {
        id: "gateway::tls_ends_at_the_listener",
        claim: "At a TLS listener of mode Terminate the listener's certificate is shown, and what is in the TLS reaches the backend in plain text.",
        source: "TLSRouteTerminateSimpleSameNamespace",
        needs: &[Need::Outside, Need::GatewayFeature("TLSRouteModeTerminate")],
        manifest: Some("gateway/tls_ends_at_the_listener.yaml"),
        run: |scope| Box::pin(tls_ends_at_the_listener(scope)),
    },
    Check {
        id: "gateway::tls_of_one_port_ends_or_passes",
        claim: "Of two TLS listeners of one port, TLS of the names of one is passed on and of the other's name ends at the listener.",
        source: "TLSRouteMixedTerminationSameNamespace",
        needs: &[Need::Outside, Need::GatewayFeature("TLSRouteModeMixed")],
        manifest: Some("gateway/tls_of_one_port_ends_or_passes.yaml"),
        run: |scope| Box::pin(tls_of_one_port_ends_or_passes(scope)),
    },
    Check {
        id: "gateway::tls_is_sealed_again",
        claim: "TLS that ends at a listener goes on in TLS of the Gateway's own to a backend under a BackendTLSPolicy, with the policy's hostname as server name.",
        source: "BackendTLSPolicyTLSRouteTerminate",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("TLSRouteModeTerminate"),
            Need::GatewayFeature("BackendTLSPolicy"),
        ],
        manifest: Some("gateway/tls_is_sealed_again.yaml"),
        run: |scope| Box::pin(tls_is_sealed_again(scope)),
    },
    Check {
        id: "gateway::tls_route_of_a_missing_backend",
        claim: "A TLSRoute whose backend does not exist says so, and its server name is shown no certificate.",
        source: "TLSRouteInvalidBackendRefNonexistent",
        needs: &[Need::Outside, Need::GatewayFeature("TLSRoute")],
        manifest: Some("gateway/tls_route_of_a_missing_backend.yaml"),
        run: |scope| {
            Box::pin(unresolved(
                scope,
                "missing.passed.gateway.example",
                json!({ "name": "missing", "port": 443 }),
                "BackendNotFound",
            ))
        },
    },
    Check {
        id: "gateway::tls_route_of_an_unknown_kind",
        claim: "A TLSRoute whose backend is of a kind that nobody knows says so, and its server name is shown no certificate.",
        source: "TLSRouteInvalidBackendRefUnknownKind",
        needs: &[Need::Outside, Need::GatewayFeature("TLSRoute")],
        manifest: Some("gateway/tls_route_of_an_unknown_kind.yaml"),
        run: |scope| {
            Box::pin(unresolved(
                scope,
                "unknown.passed.gateway.example",
                json!({ "group": "example.com", "kind": "Mystery", "name": "sealed", "port": 443 }),
                "InvalidKind",
            ))
        },
    },
    Check {
        id: "gateway::tls_route_without_a_grant",
        claim: "A TLSRoute whose backend is in another namespace, which no ReferenceGrant allows, says so, and its server name is shown no certificate.",
        source: "TLSRouteInvalidReferenceGrant",
        needs: &[Need::Outside, Need::GatewayFeature("TLSRoute")],
        manifest: Some("gateway/tls_route_without_a_grant.yaml"),
        run: |scope| {
            Box::pin(unresolved(
                scope,
                "foreign.passed.gateway.example",
                json!({ "name": "kube-dns", "namespace": "kube-system", "port": 53 }),
                "RefNotPermitted",
            ))
        },
    },
    Check {
        id: "gateway::tls_route_at_an_http_listener",
        claim: "A TLSRoute of a Gateway that has no TLS listener is not accepted, with reason NoMatchingParent or NotAllowedByListeners.",
        source: "TLSRouteInvalidNoMatchingListener",
        needs: &[Need::GatewayFeature("TLSRoute")],
        manifest: Some("gateway/tls_route_at_an_http_listener.yaml"),
        run: |scope| {
            Box::pin(refused(
                scope,
                json!({ "name": "plain" }),
                "one.plain.gateway.example",
                // The second since Gateway API 1.6.
                &["NoMatchingParent", "NotAllowedByListeners"],
            ))
        },
    },
    Check {
        id: "gateway::tls_route_of_another_host",
        claim: "A TLSRoute without a hostname of its listener's is not accepted, with reason NoMatchingListenerHostname.",
        source: "TLSRouteInvalidNoMatchingListenerHostname",
        needs: &[Need::GatewayFeature("TLSRoute")],
        manifest: Some("gateway/tls_route_of_another_host.yaml"),
        run: |scope| {
            Box::pin(refused(
                scope,
                listener(scope, "passthrough"),
                "stranger.example.net",
                &["NoMatchingListenerHostname"],
            ))
        },
    },
    Check {
        id: "gateway::tls_listener_supports_tls_routes",
        claim: "A TLS listener says that it takes TLSRoutes, and an HTTP listener that it takes HTTPRoutes but no TLSRoutes.",
        source: "TLSRouteListenerPassthroughSupportedKinds, TLSRouteListenerTerminateSupportedKinds",
        needs: &[Need::GatewayFeature("TLSRoute")],
        manifest: None,
        run: |scope| Box::pin(tls_listener_supports_tls_routes(scope)),
    },
];

async fn tls_passes_through(scope: &Scope) -> Outcome {
    const HOST: &str = "one.passed.gateway.example";
    let entrance = many(scope).await?;
    let backend = json!({ "name": "sealed", "port": 443 });
    scope
        .apply(&route(listener(scope, "passthrough"), HOST, backend))
        .await?;
    let anybodys = |host: &str| anybodys(entrance.secure_at(8449, host, "/", ""));
    let outcome = scope
        .eventually(Eventually {
            what: "who answers over TLS, the server name that the backend was told, and whether another name is shown a certificate",
            expected: (
                "200 by sealed".to_owned(),
                Some(HOST.to_owned()),
                false,
            ),
            observe: async || {
                let reply = entrance.send(&anybodys(HOST)).await?;
                let other = anybodys("other.passed.gateway.example");
                let other = entrance.send(&other).await?.tls.is_some();
                let tls = reply.answer.as_ref().and_then(|answer| answer.tls.clone());
                Ok((said::said(&reply), tls.and_then(|tls| tls.sni), other))
            },
            likely: "the controller does not do TLSRoutes, or ends the TLS itself",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn tls_ends_at_the_listener(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let ca = authority(scope).await?;
    let backend = json!({ "name": "open", "port": 80 });
    scope
        .apply(&route(
            listener(scope, "terminate"),
            "tls.gateway.example",
            backend,
        ))
        .await?;
    let spec = entrance.secure_at(8450, "tls.gateway.example", "/", &ca);
    let outcome = scope
        .eventually(Eventually {
            what: "who answers over TLS, the listener's certificate verified, and whether the backend was spoken to in TLS",
            expected: ("200 by sealed".to_owned(), Some(false)),
            observe: async || {
                let reply = entrance.send(&spec).await?;
                let sealed = reply.answer.as_ref().map(|answer| answer.tls.is_some());
                Ok((said::said(&reply), sealed))
            },
            likely: "the controller passes TLS through whatever the listener's mode is",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn tls_of_one_port_ends_or_passes(scope: &Scope) -> Outcome {
    const PASSED: &str = "one.mixed.gateway.example";
    const ENDED: &str = "tls.gateway.example";
    let entrance = many(scope).await?;
    for (name, section, host, backend) in [
        (
            "passed",
            "mixed-passthrough",
            PASSED,
            json!({ "name": "sealed", "port": 443 }),
        ),
        (
            "ended",
            "mixed-terminate",
            ENDED,
            json!({ "name": "open", "port": 80 }),
        ),
    ] {
        let route = named(name, listener(scope, section), host, backend);
        scope.apply(&route).await?;
    }
    let outcome = scope
        .eventually(Eventually {
            what: "who answers over TLS at port 8452, and the server name that the backend was told, by a name that is passed on and by one whose TLS ends",
            expected: [
                ("200 by sealed".to_owned(), Some(PASSED.to_owned())),
                ("200 by sealed".to_owned(), None),
            ],
            observe: async || {
                let told = async |host: &str| {
                    let spec = anybodys(entrance.secure_at(8452, host, "/", ""));
                    let reply = entrance.send(&spec).await?;
                    let tls = reply.answer.as_ref().and_then(|answer| answer.tls.clone());
                    Ok::<_, NoVerdict>((said::said(&reply), tls.and_then(|tls| tls.sni)))
                };
                Ok([told(PASSED).await?, told(ENDED).await?])
            },
            likely: "the controller does the same with all TLS of a port",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn tls_is_sealed_again(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let ca = authority(scope).await?;
    super::backend_tls::right(scope).await?;
    let backend = json!({ "name": "sealed", "port": 443 });
    scope
        .apply(&route(
            listener(scope, "terminate-sealed"),
            "tls.gateway.example",
            backend,
        ))
        .await?;
    let spec = entrance.secure_at(8451, "tls.gateway.example", "/", &ca);
    let outcome = scope
        .eventually(Eventually {
            what: "who answers over TLS, the listener's certificate verified, and the server name that the backend was told",
            expected: ("200 by sealed".to_owned(), Some("sealed.example.com".to_owned())),
            observe: async || {
                let reply = entrance.send(&spec).await?;
                let tls = reply.answer.as_ref().and_then(|answer| answer.tls.clone());
                Ok((said::said(&reply), tls.and_then(|tls| tls.sni)))
            },
            likely: "the controller does not look at BackendTLSPolicies for TLSRoutes",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn unresolved(scope: &Scope, host: &str, backend: Value, reason: &str) -> Outcome {
    let entrance = many(scope).await?;
    scope
        .apply(&route(listener(scope, "passthrough"), host, backend))
        .await?;
    let spec = anybodys(entrance.secure_at(8449, host, "/", ""));
    let outcome = scope
        .eventually(Eventually {
            what: "the reasons of conditions Accepted and ResolvedRefs, and whether a certificate is shown",
            expected: (["Accepted", reason].map(str::to_owned), false),
            observe: async || {
                let shown = entrance.send(&spec).await?.tls.is_some();
                Ok((reasons(scope).await?, shown))
            },
            likely: "the controller does not check where a TLSRoute leads to",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

/// Any of the reasons will do.
async fn refused(scope: &Scope, parent: Value, host: &str, any_of: &[&str]) -> Outcome {
    let backend = json!({ "name": "sealed", "port": 443 });
    scope.apply(&route(parent, host, backend)).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "the reason of condition Accepted of a TLSRoute",
            expected: any_of.join(" or "),
            observe: async || {
                let [accepted, _] = reasons(scope).await?;
                Ok(match any_of.contains(&accepted.as_str()) {
                    true => any_of.join(" or "),
                    false => accepted,
                })
            },
            likely: "the controller attaches a TLSRoute to any listener of its Gateway",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn tls_listener_supports_tls_routes(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: "whether TLSRoute and HTTPRoute are among the supportedKinds of listeners passthrough, terminate and all",
            expected: vec![(true, false), (true, false), (false, true)],
            observe: async || {
                let gateway: Gateway = scope.get("many").await?;
                let listeners = gateway.status.and_then(|status| status.listeners);
                let listeners = listeners.unwrap_or_default();
                let supports = |name: &str| {
                    let found = listeners.iter().find(|listener| listener.name == name);
                    let kinds = found.and_then(|listener| listener.supported_kinds.as_ref());
                    let has = |kind: &str| kinds.into_iter().flatten().any(|it| it.kind == kind);
                    (has("TLSRoute"), has("HTTPRoute"))
                };
                Ok(["passthrough", "terminate", "all"].map(supports).to_vec())
            },
            likely: "the controller says the same of listeners whatever they speak",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

/// A request that takes whatever certificate it is shown.
fn anybodys(spec: RequestSpec) -> RequestSpec {
    RequestSpec {
        insecure: true,
        ca: None,
        ..spec
    }
}

/// A listener of the fixture's Gateway `many`, as a parent.
fn listener(scope: &Scope, name: &str) -> Value {
    json!({ "name": "many", "namespace": scope.fixture(), "sectionName": name })
}

/// A TLSRoute of the check's own namespace.
fn route(parent: Value, host: &str, backend: Value) -> String {
    named("sealed", parent, host, backend)
}

/// One of several.
fn named(name: &str, parent: Value, host: &str, backend: Value) -> String {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "TLSRoute",
        "metadata": { "name": name },
        "spec": {
            "parentRefs": [parent],
            "hostnames": [host],
            "rules": [{ "backendRefs": [backend] }],
        },
    })
    .to_string()
}

/// The reasons of conditions Accepted and ResolvedRefs of the check's TLSRoute.
async fn reasons(scope: &Scope) -> Result<[String; 2], NoVerdict> {
    let route: TlsRoute = scope.get("sealed").await?;
    let mut parents = route.status.into_iter().flat_map(|status| status.parents);
    let conditions = parents.next().map(|parent| parent.conditions);
    let conditions = conditions.unwrap_or_default();
    Ok(["Accepted", "ResolvedRefs"].map(|kind| of(&conditions, kind).1))
}
