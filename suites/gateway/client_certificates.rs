//! Certificates of clients: those that a Gateway asks for, and the one that it shows its backends.
//!
//! Start from [`SUITE`]. In the fixture `visitor` is certified by whom Gateway `guarded` trusts, and `stranger`
//! by somebody else. Its listeners have no routes: whoever is let in is answered with 404, and nobody else is
//! answered at all.

use gateway_api::gateways::Gateway;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite};

use super::{authority, explain_gateway, explain_own_gateway, of};
use crate::entrance::Entrance;
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::clients_show_a_certificate",
        claim: "Where a Gateway validates its clients, one with a certificate of an authority that it trusts is let in, and one with another's or with none is not.",
        source: "GatewayFrontendClientCertificateValidation",
        needs: FRONTEND,
        manifest: None,
        run: |scope| Box::pin(let_in(scope, GUARDED, 443, [true, false, false])),
    },
    Check {
        id: "gateway::clients_of_one_port_show_another_certificate",
        claim: "What a Gateway says of the clients of one port goes before what it says of all.",
        source: "GatewayFrontendClientCertificateValidation",
        needs: FRONTEND,
        manifest: None,
        run: |scope| Box::pin(let_in(scope, GUARDED, 8443, [false, true, false])),
    },
    Check {
        id: "gateway::clients_without_a_valid_certificate_are_let_in",
        claim: "Where a Gateway allows insecure fallback, clients are let in with any certificate or none, and the Gateway says so of itself.",
        source: "GatewayFrontendClientCertificateValidationInsecureFallback",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("GatewayFrontendClientCertificateValidationInsecureFallback"),
        ],
        manifest: None,
        run: |scope| Box::pin(insecure(scope)),
    },
    Check {
        id: "gateway::client_authorities_that_cannot_be_had",
        claim: "A listener whose clients' authority is missing, of an unknown kind or in a namespace without a grant says which, is not accepted, and lets nobody in.",
        source: "GatewayInvalidFrontendClientCertificateValidation",
        needs: FRONTEND,
        manifest: None,
        run: |scope| Box::pin(cannot_be_had(scope)),
    },
    Check {
        id: "gateway::client_authority_of_all_ports_that_is_missing",
        claim: "Where the authority of all ports is missing, their listeners are not accepted, and a port with an authority of its own is served.",
        source: "GatewayFrontendInvalidDefaultClientCertificateValidation",
        needs: FRONTEND,
        manifest: None,
        run: |scope| Box::pin(default_is_missing(scope)),
    },
    Check {
        id: "gateway::backends_are_shown_a_certificate",
        claim: "A backend in TLS that asks for a certificate is shown the one that its Gateway names.",
        source: "GatewayTLSBackendClientCertificate",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("GatewayBackendClientCertificate"),
            Need::GatewayFeature("BackendTLSPolicy"),
        ],
        manifest: Some("gateway/backends_are_shown_a_certificate.yaml"),
        run: |scope| Box::pin(backends_are_shown_a_certificate(scope)),
    },
    Check {
        id: "gateway::certificates_for_backends_that_cannot_be_had",
        claim: "A Gateway whose certificate for backends is missing, malformed, of an unknown kind or in a namespace without a grant says which.",
        source: "GatewayInvalidTLSBackendConfiguration",
        needs: &[Need::GatewayFeature("GatewayBackendClientCertificate")],
        manifest: Some("gateway/certificates_for_backends_that_cannot_be_had.yaml"),
        run: |scope| Box::pin(certificates_that_cannot_be_had(scope)),
    },
];

const FRONTEND: &[Need] = &[
    Need::Outside,
    Need::GatewayFeature("GatewayFrontendClientCertificateValidation"),
];
const GUARDED: &str = "guarded";
const HOST: &str = "tls.gateway.example";

/// The certificate and key of one of the fixture's clients.
async fn identity(scope: &Scope, name: &str) -> Result<String, NoVerdict> {
    let secret: Secret = scope.get_in(scope.fixture(), name).await?;
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| {
        let bytes = data.get(key).map(|bytes| bytes.0.clone());
        bytes.ok_or_else(|| NoVerdict::new(format!("Secret {name} has no {key}")))
    };
    let both = [text("tls.crt")?, text("tls.key")?].concat();
    Ok(String::from_utf8(both)?)
}

/// What comes of requests to a port by a visitor, by a stranger and by somebody without a certificate: the
/// status, where there is an answer.
async fn answers(
    scope: &Scope,
    entrance: &Entrance,
    port: u16,
) -> Result<[Option<u16>; 3], NoVerdict> {
    let ca = authority(scope).await?;
    let spec = entrance.secure_at(port, HOST, "/", &ca);
    let by = async |identity: Option<String>| {
        let spec = RequestSpec {
            identity,
            timeout_ms: 2000,
            ..spec.clone()
        };
        let reply = entrance.send(&spec).await?;
        Ok::<_, NoVerdict>(reply.status)
    };
    Ok([
        by(Some(identity(scope, "visitor").await?)).await?,
        by(Some(identity(scope, "stranger").await?)).await?,
        by(None).await?,
    ])
}

async fn let_in(scope: &Scope, gateway: &str, port: u16, who: [bool; 3]) -> Outcome {
    let entrance = Entrance::of_gateway(scope, gateway).await?;
    let outcome = scope
        .eventually(Eventually {
            what: &format!("the answers to a visitor, a stranger and somebody without a certificate at port {port} of Gateway {gateway}"),
            expected: who.map(|one| one.then_some(404)),
            observe: async || answers(scope, &entrance, port).await,
            likely: "the controller does not validate clients, or by another authority",
        })
        .await;
    explain_gateway(scope, outcome, gateway).await
}

async fn insecure(scope: &Scope) -> Outcome {
    let_in(scope, GUARDED, 8444, [true; 3]).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "condition InsecureFrontendValidationMode of Gateway guarded, and whether Gateway guarded-in-vain has it",
            expected: ("True".to_owned(), false),
            observe: async || {
                const KIND: &str = "InsecureFrontendValidationMode";
                let told = of(&conditions(scope, GUARDED).await?, KIND).0;
                let other = of(&conditions(scope, "guarded-in-vain").await?, KIND).0;
                Ok((told, other == "True"))
            },
            likely: "the controller lets anybody in and does not say so",
        })
        .await;
    explain_gateway(scope, outcome, GUARDED).await
}

async fn conditions(scope: &Scope, gateway: &str) -> Result<Vec<Condition>, NoVerdict> {
    let gateway: Gateway = scope.get(gateway).await?;
    let status = gateway.status.unwrap_or_default();
    Ok(status.conditions.unwrap_or_default())
}

/// Condition ResolvedRefs of a listener with its reason, and the reason of condition Accepted.
async fn listener(scope: &Scope, gateway: &str, name: &str) -> Result<[String; 3], NoVerdict> {
    let conditions = super::listener_of(scope, gateway, name).await?;
    let (resolved, why, _) = of(&conditions, "ResolvedRefs");
    Ok([resolved, why, of(&conditions, "Accepted").1])
}

async fn cannot_be_had(scope: &Scope) -> Outcome {
    let entrance = Entrance::of_gateway(scope, GUARDED).await?;
    let cases = [
        ("missing", 8445, "InvalidCACertificateRef"),
        ("unknown-kind", 8446, "InvalidCACertificateKind"),
        ("foreign", 8447, "RefNotPermitted"),
    ];
    let visitor = identity(scope, "visitor").await?;
    let ca = authority(scope).await?;
    let said = |reason: &str| ["False", reason, "NoValidCACertificate"].map(str::to_owned);
    let outcome = scope
        .eventually(Eventually {
            what: "condition ResolvedRefs with its reason and the reason of condition Accepted, and the answer to a visitor, by listener of Gateway guarded",
            expected: cases.map(|(_, _, reason)| (said(reason), None)).to_vec(),
            observe: async || {
                let mut seen = Vec::new();
                for (name, port, _) in cases {
                    let spec = RequestSpec {
                        identity: Some(visitor.clone()),
                        // Where nobody listens nothing comes: this is a tenth of the usual time.
                        timeout_ms: 500,
                        ..entrance.secure_at(port, HOST, "/", &ca)
                    };
                    let answer = entrance.send(&spec).await?.status;
                    seen.push((listener(scope, GUARDED, name).await?, answer));
                }
                Ok(seen)
            },
            likely: "the controller serves a listener whose clients it cannot validate",
        })
        .await;
    explain_gateway(scope, outcome, GUARDED).await
}

async fn default_is_missing(scope: &Scope) -> Outcome {
    const GATEWAY: &str = "guarded-in-vain";
    let outcome = scope
        .eventually(Eventually {
            what: "condition ResolvedRefs with its reason and the reason of condition Accepted, of a listener of Gateway guarded-in-vain whose port has no authority of its own, and of one whose port has",
            expected: [
                ["False", "InvalidCACertificateRef", "NoValidCACertificate"],
                ["True", "ResolvedRefs", "Accepted"],
            ].map(|it| it.map(str::to_owned)),
            observe: async || Ok([
                listener(scope, GATEWAY, "of-all").await?,
                listener(scope, GATEWAY, "of-its-own").await?,
            ]),
            likely: "the controller judges all listeners by the default, or none",
        })
        .await;
    explain_gateway(scope, outcome, GATEWAY).await?;
    let_in(scope, GATEWAY, 8443, [true, false, false]).await
}

async fn backends_are_shown_a_certificate(scope: &Scope) -> Outcome {
    let entrance = Entrance::of_gateway(scope, GUARDED).await?;
    let host = format!("{}.guarded.example", scope.namespace());
    super::backend_tls::right(scope).await?;
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "sealed" },
        "spec": {
            "parentRefs": [{ "name": GUARDED, "namespace": scope.fixture(), "sectionName": "plain" }],
            "hostnames": [host],
            "rules": [{ "backendRefs": [{ "name": "sealed", "port": 443 }] }],
        },
    });
    scope.apply(&route.to_string()).await?;
    let visitor: Secret = scope.get_in(scope.fixture(), "visitor").await?;
    let own = visitor.data.and_then(|mut data| data.remove("tls.crt"));
    let own = String::from_utf8(own.map(|bytes| bytes.0).unwrap_or_default())?;
    let outcome = scope
        .eventually(Eventually {
            what: "who answers, and whether it was shown the Gateway's certificate",
            expected: ("200 by sealed".to_owned(), true),
            observe: async || {
                let reply = entrance.get(&host, "/").await?;
                let tls = reply.answer.as_ref().and_then(|answer| answer.tls.as_ref());
                let shown = tls
                    .and_then(|tls| tls.client.as_deref())
                    .unwrap_or_default();
                Ok((said::said(&reply), shown.trim() == own.trim()))
            },
            likely: "the controller does not show backends the Gateway's certificate",
        })
        .await;
    explain_gateway(scope, outcome, GUARDED).await
}

async fn certificates_that_cannot_be_had(scope: &Scope) -> Outcome {
    let cases: [(Value, &str); 5] = [
        (json!({ "name": "good" }), "ResolvedRefs"),
        (json!({ "name": "nowhere" }), "InvalidClientCertificateRef"),
        (
            json!({ "name": "malformed" }),
            "InvalidClientCertificateRef",
        ),
        (
            json!({ "group": "example.com", "kind": "Mystery", "name": "good" }),
            "InvalidClientCertificateRef",
        ),
        (
            json!({ "name": "good", "namespace": scope.fixture() }),
            "RefNotPermitted",
        ),
    ];
    let visitor: Secret = scope.get_in(scope.fixture(), "visitor").await?;
    let good = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "good" },
        "type": "kubernetes.io/tls",
        "data": serde_json::to_value(&visitor.data)?,
    });
    scope.apply(&good.to_string()).await?;
    for (reference, reason) in cases {
        let all = json!({ "group": "", "kind": "Secret", "namespace": null });
        let mut patch = all;
        if let (Value::Object(patch), Value::Object(own)) = (&mut patch, reference.clone()) {
            patch.extend(own);
        }
        let patch = json!({ "spec": { "tls": { "backend": { "clientCertificateRef": patch } } } });
        scope.merge::<Gateway>("showing", patch).await?;
        let status = if reason == "ResolvedRefs" {
            "True"
        } else {
            "False"
        };
        let outcome = scope
            .eventually(Eventually {
                what: &format!("condition ResolvedRefs of Gateway showing, its reason, and whether it is of the present generation, with clientCertificateRef {reference}"),
                expected: (status.to_owned(), reason.to_owned(), true),
                observe: async || {
                    let gateway: Gateway = scope.get("showing").await?;
                    let present = gateway.metadata.generation;
                    let conditions = gateway.status.and_then(|status| status.conditions);
                    let (resolved, why, observed) = of(&conditions.unwrap_or_default(), "ResolvedRefs");
                    Ok((resolved, why, observed == present))
                },
                likely: "the controller does not check what clientCertificateRef leads to",
            })
            .await;
        explain_own_gateway(scope, outcome, "showing").await?;
    }
    Ok(())
}
