//! Listeners side by side: which of them a request belongs to, and which of them cannot be served.
//!
//! Start from [`SUITE`]. All are of the fixture's Gateway `many`, apart from Gateways that checks make.

use std::collections::BTreeMap;

use gateway_api::gatewayclasses::GatewayClass;
use gateway_api::gateways::Gateway;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;
use strata::budget::PROVISION;
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite, expect_eq};

use super::{
    GATEWAY_NAME, TUTORIAL, authority, explain, explain_gateway, explain_own_gateway, listener_of,
    many, of,
};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::isolates_the_listener_of_any_host",
        claim: "A host that no other listener of the port names belongs to the listener without a hostname, and only its routes are served.",
        source: "GatewayHTTPListenerIsolation",
        needs: ISOLATION,
        manifest: None,
        run: |scope| Box::pin(isolates(scope, "other.gateway.example", "/any")),
    },
    Check {
        id: "gateway::isolates_a_wildcard_listener",
        claim: "A host below a listener's wildcard belongs to that listener, and routes of less specific ones are not served.",
        source: "GatewayHTTPListenerIsolation",
        needs: ISOLATION,
        manifest: None,
        run: |scope| Box::pin(isolates(scope, "other.isolated.example", "/wide")),
    },
    Check {
        id: "gateway::isolates_a_narrower_wildcard_listener",
        claim: "Of two wildcards that cover a host the longer one's listener has it, and routes of the other are not served.",
        source: "GatewayHTTPListenerIsolation",
        needs: ISOLATION,
        manifest: None,
        run: |scope| Box::pin(isolates(scope, "other.narrow.isolated.example", "/narrow")),
    },
    Check {
        id: "gateway::isolates_a_listener_of_one_host",
        claim: "A host that a listener names belongs to that listener, and routes of wildcards that cover it are not served.",
        source: "GatewayHTTPListenerIsolation",
        needs: ISOLATION,
        manifest: None,
        run: |scope| Box::pin(isolates(scope, "exact.narrow.isolated.example", "/exact")),
    },
    Check {
        id: "gateway::misdirected_requests_are_421",
        claim: "A request that came by one HTTPS listener's server name and asks for another one's host is answered with 421.",
        source: "HTTPRouteHTTPSListenerDetectMisdirectedRequests",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("GatewayHTTPSListenerDetectMisdirectedRequests"),
        ],
        manifest: None,
        run: |scope| Box::pin(misdirected_requests_are_421(scope)),
    },
    Check {
        id: "gateway::server_names_of_no_listener_are_refused",
        claim: "A server name that no HTTPS listener of the port has is shown no certificate.",
        source: "Gateway API: Listener hostname, \"TLS: the Listener Hostname MUST match the SNI\"",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(server_names_of_no_listener_are_refused(scope)),
    },
    Check {
        id: "gateway::listeners_of_one_host_conflict",
        claim: "Listeners of one port, protocol and hostname are conflicted, and none of them is programmed.",
        source: "Gateway API: ListenerConditionConflicted, HostnameConflict",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(conflict(
                scope,
                ["twin-one", "twin-two"],
                "HostnameConflict",
            ))
        },
    },
    Check {
        id: "gateway::listeners_of_two_protocols_conflict",
        claim: "Listeners of one port that speak HTTP and HTTPS are conflicted, and none of them is programmed.",
        source: "Gateway API: ListenerConditionConflicted, ProtocolConflict",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(conflict(
                scope,
                ["mixed-http", "mixed-https"],
                "ProtocolConflict",
            ))
        },
    },
    Check {
        id: "gateway::certificate_of_an_unknown_group",
        claim: "A listener whose certificateRef is of a group that nobody knows has unresolved references and is not programmed.",
        source: "GatewayInvalidTLSConfiguration",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(certificate(
                scope,
                "certificate-group",
                "InvalidCertificateRef",
            ))
        },
    },
    Check {
        id: "gateway::certificate_of_an_unknown_kind",
        claim: "A listener whose certificateRef is of a kind that nobody knows has unresolved references and is not programmed.",
        source: "GatewayInvalidTLSConfiguration",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(certificate(
                scope,
                "certificate-kind",
                "InvalidCertificateRef",
            ))
        },
    },
    Check {
        id: "gateway::certificate_that_is_malformed",
        claim: "A listener whose Secret holds no certificate has unresolved references and is not programmed.",
        source: "GatewayInvalidTLSConfiguration",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(certificate(
                scope,
                "certificate-malformed",
                "InvalidCertificateRef",
            ))
        },
    },
    Check {
        id: "gateway::certificate_of_another_namespace",
        claim: "A listener whose Secret is in another namespace, which no ReferenceGrant allows, is not permitted to refer to it.",
        source: "GatewaySecretMissingReferenceGrant",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(certificate(
                scope,
                "certificate-elsewhere",
                "RefNotPermitted",
            ))
        },
    },
    Check {
        id: "gateway::infrastructure_carries_labels_and_annotations",
        claim: "What a Gateway consists of carries the labels and annotations of its infrastructure.",
        source: "GatewayInfrastructure",
        needs: &[Need::GatewayFeature("GatewayInfrastructurePropagation")],
        manifest: None,
        run: |scope| Box::pin(infrastructure_carries_labels_and_annotations(scope)),
    },
    Check {
        id: "gateway::longest_name_is_served",
        claim: "A Gateway whose name is as long as may be is accepted and programmed.",
        source: "GatewayNameMaximumLength",
        needs: &[],
        manifest: Some("gateway/longest_name_is_served.yaml"),
        run: |scope| Box::pin(longest_name_is_served(scope)),
    },
    Check {
        id: "gateway::parameters_of_an_unknown_kind",
        claim: "A Gateway whose parametersRef leads nowhere is not accepted, with reason InvalidParameters.",
        source: "GatewayInvalidParametersRef",
        needs: &[],
        manifest: Some("gateway/parameters_of_an_unknown_kind.yaml"),
        run: |scope| Box::pin(parameters_of_an_unknown_kind(scope)),
    },
    Check {
        id: "gateway::class_follows_its_generation",
        claim: "The condition of a GatewayClass that is changed comes to be of its present generation.",
        source: "GatewayClassObservedGenerationBump",
        needs: &[],
        manifest: Some("gateway/class_follows_its_generation.yaml"),
        run: |scope| Box::pin(class_follows_its_generation(scope)),
    },
];

const ISOLATION: &[Need] = &[
    Need::Outside,
    Need::GatewayFeature("GatewayHTTPListenerIsolation"),
];

async fn isolates(scope: &Scope, host: &str, own: &str) -> Outcome {
    let entrance = many(scope).await?;
    let mut expected = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for path in ["/any", "/wide", "/narrow", "/exact"] {
        let answer = if path == own { "200 by alpha" } else { "404" };
        expected.insert(path, answer.to_owned());
        let reply = entrance
            .send(&entrance.request_at(8081, host, path))
            .await?;
        seen.insert(path, said::said(&reply));
    }
    let outcome = expect_eq(
        format!(
            "who answers for {host} at port 8081, by the path that only one listener's route has"
        ),
        &expected,
        &seen,
        "routes of all listeners of a port are served together",
    );
    explain(
        scope,
        outcome,
        &format!("on-{}", own.trim_start_matches('/')),
        own,
    )
    .await
}

async fn misdirected_requests_are_421(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let (first, second) = ("tls.gateway.example", "second.gateway.example");
    // Server name, host, and who answers.
    let cases = [
        (first, first, "200 by alpha"),
        (second, second, "200 by beta"),
        (first, second, "421"),
        (second, first, "421"),
        (first, "nobody.gateway.example", "404"),
    ];
    let request = |server: &str, host: &str| RequestSpec {
        host: Some(host.to_owned()),
        server_name: Some(server.to_owned()),
        // The certificate is of one of the names only, and not what is judged.
        insecure: true,
        ca: None,
        ..entrance.secure(server, "/", "")
    };
    let outcome = scope
        .eventually(Eventually {
            what: "who answers over HTTPS, by server name and host",
            expected: cases.map(|(_, _, who)| who.to_owned()).to_vec(),
            observe: async || {
                let mut seen = Vec::new();
                for (server, host, _) in cases {
                    seen.push(said::said(&entrance.send(&request(server, host)).await?));
                }
                Ok(seen)
            },
            likely: "all HTTPS listeners of a port share their routes, whatever the server name was",
        })
        .await;
    explain(scope, outcome, "on-tls-second", "/").await
}

async fn server_names_of_no_listener_are_refused(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let ca = authority(scope).await?;
    let known = entrance.secure("tls.gateway.example", "/", &ca);
    let stranger = RequestSpec {
        insecure: true,
        ca: None,
        ..entrance.secure("stranger.gateway.example", "/", &ca)
    };
    let outcome = scope
        .eventually(Eventually {
            what: "whether a certificate is shown to a server name that a listener has, and to one that none has",
            expected: (true, false),
            observe: async || {
                let known = entrance.send(&known).await?.tls.is_some();
                Ok((known, entrance.send(&stranger).await?.tls.is_some()))
            },
            likely: "the first listener's certificate is shown to everybody",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn conflict(scope: &Scope, listeners: [&'static str; 2], reason: &str) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: "condition Conflicted with its reason, and condition Programmed, by listener",
            expected: listeners
                .map(|name| (name, ["True", reason, "False"].map(str::to_owned)))
                .to_vec(),
            observe: async || {
                let mut seen = Vec::new();
                for name in listeners {
                    let conditions = listener_of(scope, "many", name).await?;
                    let (conflicted, why, _) = of(&conditions, "Conflicted");
                    let (programmed, _, _) = of(&conditions, "Programmed");
                    seen.push((name, [conflicted, why, programmed]));
                }
                Ok(seen)
            },
            likely: "the controller picks one of the listeners that cannot be told apart",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn certificate(scope: &Scope, listener: &str, reason: &str) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: &format!("condition ResolvedRefs of listener {listener}, its reason, and condition Programmed; the same of listener tls"),
            expected: (
                ["False", reason, "False"].map(str::to_owned),
                ["True", "ResolvedRefs", "True"].map(str::to_owned),
            ),
            observe: async || {
                let said = async |name: &str| {
                    let conditions = listener_of(scope, "many", name).await?;
                    let (resolved, why, _) = of(&conditions, "ResolvedRefs");
                    let (programmed, _, _) = of(&conditions, "Programmed");
                    Ok::<_, strata::NoVerdict>([resolved, why, programmed])
                };
                Ok((said(listener).await?, said("tls").await?))
            },
            likely: "the controller does not check what certificateRefs lead to",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn infrastructure_carries_labels_and_annotations(scope: &Scope) -> Outcome {
    const KEY: &str = "strata.dev/propagated";
    let selector = format!("{GATEWAY_NAME}=many");
    let carries = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        let value = |map: &Option<BTreeMap<String, String>>| {
            let found = map.as_ref().and_then(|map| map.get(KEY)).cloned();
            found.unwrap_or_else(|| "absent".to_owned())
        };
        (value(&metadata.labels), value(&metadata.annotations))
    };
    let outcome = scope
        .eventually(Eventually {
            what: "the label and the annotation of Services and pods of Gateway many",
            expected: vec![("as-label".to_owned(), "as-annotation".to_owned()); 2],
            observe: async || {
                let services: Vec<Service> = scope.list(&selector).await?;
                let pods: Vec<Pod> = scope.list(&selector).await?;
                let mut seen: Vec<_> = services.iter().map(|it| carries(&it.metadata)).collect();
                seen.extend(pods.iter().map(|it| carries(&it.metadata)));
                Ok(seen)
            },
            likely: "the controller does not pass spec.infrastructure on to what it makes",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

async fn longest_name_is_served(scope: &Scope) -> Outcome {
    const NAME: &str = "a-gateway-whose-name-is-as-long-as-the-name-of-a-gateway-may-be";
    let outcome = scope
        .eventually_within(PROVISION, Eventually {
            what: "the length of the Gateway's name, and its conditions Accepted and Programmed",
            expected: (63, ["True", "True"].map(str::to_owned)),
            observe: async || {
                let gateway: Gateway = scope.get(NAME).await?;
                let status = gateway.status.unwrap_or_default();
                let conditions = status.conditions.unwrap_or_default();
                let [accepted, programmed] =
                    ["Accepted", "Programmed"].map(|kind| of(&conditions, kind).0);
                Ok((NAME.len(), [accepted, programmed]))
            },
            likely: "the controller makes names of the Gateway's that are too long, and are refused",
        })
        .await;
    explain_own_gateway(scope, outcome, NAME).await
}

async fn parameters_of_an_unknown_kind(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: "condition Accepted of Gateway parametrised with its reason, and whether it is programmed",
            expected: (["False", "InvalidParameters"].map(str::to_owned), false),
            observe: async || {
                let gateway: Gateway = scope.get("parametrised").await?;
                let status = gateway.status.unwrap_or_default();
                let conditions = status.conditions.unwrap_or_default();
                let (accepted, why, _) = of(&conditions, "Accepted");
                Ok(([accepted, why], of(&conditions, "Programmed").0 == "True"))
            },
            likely: "the controller ignores spec.infrastructure.parametersRef",
        })
        .await;
    explain_own_gateway(scope, outcome, "parametrised").await
}

async fn class_follows_its_generation(scope: &Scope) -> Outcome {
    let gateway: Gateway = scope.get_in(scope.fixture(), TUTORIAL).await?;
    let class: GatewayClass = scope.get_cluster(&gateway.spec.gateway_class_name).await?;
    let mut latest = None;
    for description in ["as it was made", "as it was changed"] {
        let class = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": { "name": scope.namespace() },
            "spec": { "controllerName": class.spec.controller_name, "description": description },
        });
        scope.apply(&class.to_string()).await?;
        let outcome = scope
            .eventually(Eventually {
                what: "condition Accepted of a GatewayClass, whether it is of the present generation, and whether that is a new one",
                expected: ("True".to_owned(), true, true),
                observe: async || {
                    let class: GatewayClass = scope.get_cluster(scope.namespace()).await?;
                    let status = class.status.unwrap_or_default();
                    let (accepted, _, observed) =
                        of(&status.conditions.unwrap_or_default(), "Accepted");
                    let present = class.metadata.generation;
                    Ok((accepted, observed == present, present != latest))
                },
                likely: "the controller looks at a class once, or writes the generation that it knew",
            })
            .await;
        explain_gateway(scope, outcome, TUTORIAL).await?;
        let class: GatewayClass = scope.get_cluster(scope.namespace()).await?;
        latest = class.metadata.generation;
    }
    Ok(())
}
