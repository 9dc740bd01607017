//! TLS from the Gateway to a backend, as a BackendTLSPolicy asks for it.
//!
//! Start from [`SUITE`]. The backend of each check speaks TLS only, with a certificate that it made when
//! it started, for `sealed.example.com`: that certificate is its own authority. Every refusal is seen
//! after the same request was served under the right policy.

use gateway_api::backendtlspolicies::BackendTlsPolicy;
use serde_json::{Value, json};
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite};

use super::{authority, explain, many, of};
use crate::entrance::Entrance;
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::backend_tls_is_spoken",
        claim: "A backend under a BackendTLSPolicy is spoken to in TLS, with the policy's hostname as server name, and without the policy it is not.",
        source: "BackendTLSPolicy",
        needs: NEEDS,
        manifest: Some("gateway/backend_tls_is_spoken.yaml"),
        run: |scope| Box::pin(is_spoken(scope)),
    },
    Check {
        id: "gateway::backend_tls_of_another_authority",
        claim: "A backend whose certificate is of another authority than its policy's is sent nothing: its requests are answered with an error.",
        source: "BackendTLSPolicy",
        needs: NEEDS,
        manifest: Some("gateway/backend_tls_of_another_authority.yaml"),
        run: |scope| Box::pin(of_another_authority(scope)),
    },
    Check {
        id: "gateway::backend_tls_of_another_name",
        claim: "A backend whose certificate is for another name than its policy's hostname is sent nothing.",
        source: "BackendTLSPolicy",
        needs: NEEDS,
        manifest: Some("gateway/backend_tls_of_another_name.yaml"),
        run: |scope| Box::pin(of_another_name(scope)),
    },
    Check {
        id: "gateway::backend_tls_by_alternative_name",
        claim: "Where a policy names subject alternative names, the certificate has to have one of these, and the hostname is the server name only.",
        source: "BackendTLSPolicySANValidation",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("BackendTLSPolicySANValidation"),
        ],
        manifest: Some("gateway/backend_tls_by_alternative_name.yaml"),
        run: |scope| Box::pin(by_alternative_name(scope)),
    },
    Check {
        id: "gateway::backend_tls_without_an_authority",
        claim: "A policy whose authority does not exist is not accepted, and its backend is sent nothing, not even in plain text.",
        source: "BackendTLSPolicyInvalidCACertificateRef, BackendTLSPolicyObservedGenerationBump",
        needs: NEEDS,
        manifest: Some("gateway/backend_tls_without_an_authority.yaml"),
        run: |scope| {
            Box::pin(refused(
                scope,
                json!({ "group": "", "kind": "ConfigMap", "name": "missing" }),
                "InvalidCACertificateRef",
            ))
        },
    },
    Check {
        id: "gateway::backend_tls_with_an_authority_of_an_unknown_kind",
        claim: "A policy whose authority is of a kind that nobody knows is not accepted, and its backend is sent nothing.",
        source: "BackendTLSPolicyInvalidKind",
        needs: NEEDS,
        manifest: Some("gateway/backend_tls_with_an_authority_of_an_unknown_kind.yaml"),
        run: |scope| {
            Box::pin(refused(
                scope,
                json!({ "group": "example.com", "kind": "Mystery", "name": "authority" }),
                "InvalidKind",
            ))
        },
    },
    Check {
        id: "gateway::backend_tls_of_two_policies",
        claim: "Of two policies of one Service the older is in force, and the other says Conflicted; one for a port goes before one for all.",
        source: "BackendTLSPolicyConflictResolution",
        needs: NEEDS,
        manifest: Some("gateway/backend_tls_of_two_policies.yaml"),
        run: |scope| Box::pin(of_two_policies(scope)),
    },
    Check {
        id: "gateway::backend_tls_of_calls",
        claim: "A GRPCRoute's backend under a BackendTLSPolicy is spoken to in TLS, in which HTTP/2 is agreed on.",
        source: "BackendTLSPolicyGRPCRoute",
        needs: CALLS,
        manifest: Some("gateway/backend_tls_of_calls.yaml"),
        run: |scope| Box::pin(of_calls(scope)),
    },
];

const NEEDS: &[Need] = &[Need::Outside, Need::GatewayFeature("BackendTLSPolicy")];
const CALLS: &[Need] = &[
    Need::Outside,
    Need::GatewayFeature("BackendTLSPolicy"),
    Need::GatewayFeature("GRPCRoute"),
];
/// What the backend's certificate is for.
const NAME: &str = "sealed.example.com";
const OTHER: &str = "other.example.com";

/// What came of a request: the server name that the backend was told in TLS, or that it was sent nothing.
fn served(name: &str) -> String {
    format!("200 by sealed, in TLS for {name}")
}

const NOTHING: &str = "an error, and not by the backend";

async fn is_spoken(scope: &Scope) -> Outcome {
    let way = Way::new(scope).await?;
    way.settles(
        scope,
        NOTHING,
        "the controller speaks TLS without being asked to",
    )
    .await?;
    right(scope).await?;
    way.settles(
        scope,
        &served(NAME),
        "the controller does not do BackendTLSPolicies",
    )
    .await?;
    let outcome = scope
        .eventually(Eventually {
            what: "the reasons of conditions Accepted and ResolvedRefs of the policy, and whether they are of its present generation",
            expected: (["Accepted", "ResolvedRefs"].map(str::to_owned), true),
            observe: async || reasons(scope).await,
            likely: "the controller does not write the status of BackendTLSPolicies",
        })
        .await;
    explain(scope, outcome, "sealed", "/").await
}

async fn of_another_authority(scope: &Scope) -> Outcome {
    let way = Way::new(scope).await?;
    right(scope).await?;
    way.settles(scope, &served(NAME), RIGHT).await?;
    trust(scope, &authority(scope).await?).await?;
    way.settles(
        scope,
        NOTHING,
        "the controller does not verify the backend's certificate",
    )
    .await
}

async fn of_another_name(scope: &Scope) -> Outcome {
    let way = Way::new(scope).await?;
    right(scope).await?;
    way.settles(scope, &served(NAME), RIGHT).await?;
    scope.apply(&policy(OTHER, trusted(), &[])).await?;
    way.settles(
        scope,
        NOTHING,
        "the controller does not compare the names of certificates",
    )
    .await
}

async fn by_alternative_name(scope: &Scope) -> Outcome {
    let way = Way::new(scope).await?;
    trust(scope, &own_certificate(scope).await?).await?;
    scope.apply(&policy(OTHER, trusted(), &[NAME])).await?;
    way.settles(
        scope,
        &served(OTHER),
        "the controller compares with the hostname all the same",
    )
    .await?;
    scope.apply(&policy(OTHER, trusted(), &[OTHER])).await?;
    way.settles(scope, NOTHING, "the controller ignores subjectAltNames")
        .await
}

async fn refused(scope: &Scope, authority: Value, reason: &str) -> Outcome {
    let way = Way::new(scope).await?;
    right(scope).await?;
    way.settles(scope, &served(NAME), RIGHT).await?;
    scope.apply(&policy(NAME, authority, &[])).await?;
    way.settles(
        scope,
        NOTHING,
        "the controller falls back to an earlier policy, or to none",
    )
    .await?;
    let outcome = scope
        .eventually(Eventually {
            what: "the reasons of conditions Accepted and ResolvedRefs of the policy, and whether they are of its present generation",
            expected: (["NoValidCACertificate", reason].map(str::to_owned), true),
            observe: async || reasons(scope).await,
            likely: "the controller does not say what is wrong with a BackendTLSPolicy",
        })
        .await;
    explain(scope, outcome, "sealed", "/").await
}

async fn of_two_policies(scope: &Scope) -> Outcome {
    let way = Way::new(scope).await?;
    trust(scope, &own_certificate(scope).await?).await?;
    // Where both are made within a second, their names decide as their age would.
    let first = named("a-first", NAME, trusted(), &[]);
    let second = named("b-second", OTHER, trusted(), &[]);
    scope.apply(&first.to_string()).await?;
    way.settles(scope, &served(NAME), RIGHT).await?;
    scope.apply(&second.to_string()).await?;
    told(scope, [Some("Accepted"), Some("Conflicted")]).await?;
    way.settles(
        scope,
        &served(NAME),
        "the controller goes by the newer of two policies",
    )
    .await?;
    let mut of_a_port = second;
    of_a_port["spec"]["targetRefs"][0]["sectionName"] = json!("tls");
    scope.apply(&of_a_port.to_string()).await?;
    // They select the same target, but not the same sectionName; of what is left to the other nothing is said.
    told(scope, [None, Some("Accepted")]).await?;
    way.settles(
        scope,
        NOTHING,
        "the controller does not look at sectionName of a policy's target",
    )
    .await
}

/// Waits for the reasons of condition Accepted of the two policies; nothing of one whose may be any.
async fn told(scope: &Scope, expected: [Option<&str>; 2]) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: "the reasons of condition Accepted of policies a-first and b-second",
            expected: expected.map(|it| it.unwrap_or("any").to_owned()),
            observe: async || {
                let ([first, _], _) = reasons_of(scope, "a-first").await?;
                let ([second, _], _) = reasons_of(scope, "b-second").await?;
                let judged = |wanted: Option<&str>, seen| wanted.map_or("any".to_owned(), |_| seen);
                Ok([judged(expected[0], first), judged(expected[1], second)])
            },
            likely: "the controller takes the newer of two policies, or both",
        })
        .await;
    explain(scope, outcome, "sealed", "/").await
}

async fn of_calls(scope: &Scope) -> Outcome {
    let host = format!("{}.all.gateway.example", scope.namespace());
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": { "name": "sealed" },
        "spec": {
            "parentRefs": [{ "name": "many", "namespace": scope.fixture(), "sectionName": "all" }],
            "hostnames": [host],
            "rules": [{ "backendRefs": [{ "name": "sealed", "port": 443 }] }],
        },
    });
    scope.apply(&route.to_string()).await?;
    right(scope).await?;
    let entrance = many(scope).await?;
    let call = RequestSpec {
        url: format!("{}/strata.Echo/Say", entrance.url()),
        ..super::calls::call(&entrance, &host, "/strata.Echo/Say", "")
    };
    let outcome = scope
        .eventually(Eventually {
            what: "the server name and the protocol that the backend of a call was told in TLS",
            expected: Some((Some(NAME.to_owned()), Some("h2".to_owned()))),
            observe: async || {
                let answer = entrance.send(&call).await?.answer;
                let tls = answer.and_then(|answer| answer.tls);
                Ok(tls.map(|tls| (tls.sni, tls.alpn)))
            },
            likely: "the controller does not look at BackendTLSPolicies for GRPCRoutes",
        })
        .await;
    super::explain_gateway(scope, outcome, "many").await
}

const RIGHT: &str = "the controller does not do BackendTLSPolicies";

/// The way to the check's backend.
struct Way {
    entrance: Entrance,
    host: String,
}

impl Way {
    async fn new(scope: &Scope) -> Result<Self, NoVerdict> {
        let host = format!("{}.all.gateway.example", scope.namespace());
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": { "name": "sealed" },
            "spec": {
                "parentRefs": [{ "name": "many", "namespace": scope.fixture(), "sectionName": "all" }],
                "hostnames": [host],
                "rules": [{ "backendRefs": [{ "name": "sealed", "port": 443 }] }],
            },
        });
        scope.apply(&route.to_string()).await?;
        let entrance = many(scope).await?;
        Ok(Self { entrance, host })
    }

    async fn settles(&self, scope: &Scope, expected: &str, likely: &str) -> Outcome {
        let outcome = scope
            .eventually(Eventually {
                what: "what comes of a request for a backend that speaks TLS only",
                expected: expected.to_owned(),
                observe: async || {
                    let reply = self.entrance.get(&self.host, "/").await?;
                    let failed = reply.status.is_some_and(|status| status >= 500);
                    let told = reply.answer.as_ref().and_then(|answer| answer.tls.as_ref());
                    Ok(match (reply.pod(), told) {
                        (None, _) if failed => NOTHING.to_owned(),
                        (Some(_), Some(tls)) => {
                            let name = tls.sni.as_deref().unwrap_or("nobody");
                            format!("{}, in TLS for {name}", said::said(&reply))
                        }
                        _ => said::said(&reply),
                    })
                },
                likely,
            })
            .await;
        explain(scope, outcome, "sealed", "/").await
    }
}

/// The policy that the backend's certificate fulfils.
pub(super) async fn right(scope: &Scope) -> Result<(), NoVerdict> {
    trust(scope, &own_certificate(scope).await?).await?;
    scope.apply(&policy(NAME, trusted(), &[])).await
}

/// The certificate that the backend shows.
async fn own_certificate(scope: &Scope) -> Result<String, NoVerdict> {
    let spec = RequestSpec {
        insecure: true,
        ..RequestSpec::get("https://localhost:8443/")
    };
    let reply = scope.pod("app=sealed").await?.request(&spec).await?.0.pop();
    let tls = reply.and_then(|reply| reply.tls);
    let certificate = tls.and_then(|tls| tls.certificate);
    certificate.ok_or_else(|| NoVerdict::new("Pod sealed shows no certificate to itself"))
}

async fn trust(scope: &Scope, authority: &str) -> Result<(), NoVerdict> {
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "authority" },
        "data": { "ca.crt": authority },
    });
    scope.apply(&map.to_string()).await
}

fn trusted() -> Value {
    json!({ "group": "", "kind": "ConfigMap", "name": "authority" })
}

fn policy(hostname: &str, authority: Value, names: &[&str]) -> String {
    named("sealed", hostname, authority, names).to_string()
}

/// One of several.
fn named(name: &str, hostname: &str, authority: Value, names: &[&str]) -> Value {
    let mut validation = json!({ "hostname": hostname, "caCertificateRefs": [authority] });
    if !names.is_empty() {
        let host = |name: &&str| json!({ "type": "Hostname", "hostname": name });
        validation["subjectAltNames"] = names.iter().map(host).collect();
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": { "name": name },
        "spec": {
            "targetRefs": [{ "group": "", "kind": "Service", "name": "sealed" }],
            "validation": validation,
        },
    })
}

/// The reasons of conditions Accepted and ResolvedRefs of the check's policy, and whether both are of its
/// present generation.
async fn reasons(scope: &Scope) -> Result<([String; 2], bool), NoVerdict> {
    reasons_of(scope, "sealed").await
}

/// The same of one of several.
async fn reasons_of(scope: &Scope, name: &str) -> Result<([String; 2], bool), NoVerdict> {
    let policy: BackendTlsPolicy = scope.get(name).await?;
    let mut ancestors = policy
        .status
        .into_iter()
        .flat_map(|status| status.ancestors);
    let conditions = ancestors.next().map(|ancestor| ancestor.conditions);
    let conditions = conditions.unwrap_or_default();
    let (_, accepted, one) = of(&conditions, "Accepted");
    let (_, resolved, other) = of(&conditions, "ResolvedRefs");
    let present = policy.metadata.generation;
    Ok(([accepted, resolved], one == present && other == present))
}
