//! Who may ask, by account and trust domain; paths by template; and how far a policy reaches.
//!
//! Start from [`SUITE`]. As `authorization`, with rules of the fixture's `guarded`; its ports 8083 to 8085 are
//! no Service's, and are asked by the pod's address.

use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Outcome, Scope, Suite, expect_eq};

use super::authorization::Caller::{Backend, Client, Outsider};
use super::authorization::{DENIED, SERVED, judged};
use super::security::{cut_off, explain};
use super::{client, of_fixture};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::denies_by_account",
        claim: "A DENY policy answers the account that it names with 403, and no other.",
        source: "istio: security/authz_test.go, Authz_ServiceAccount",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Backend, "GET /open/not-account", DENIED),
                    (Client, "GET /open/not-account", SERVED),
                    (Outsider, "GET /open/not-account", SERVED),
                    (Backend, "GET /open/only-account", DENIED),
                    (Client, "GET /open/only-account", SERVED),
                    (Outsider, "GET /open/only-account", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_by_trust_domain",
        claim: "A DENY policy for identities of a trust domain answers those of the mesh's own with 403 if it is that one, and nobody if it is another.",
        source: "istio: security/authz_test.go, Authz_TrustDomain",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/not-domain", DENIED),
                    (Outsider, "GET /open/not-domain", SERVED),
                    (Client, "GET /open/not-other-domain", SERVED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_by_path_template",
        claim: "In a policy's path one placeholder stands for one element, and the other for any number of them.",
        source: "istio: security/authz_test.go, Authz_PathTemplating",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/items/one/secret", DENIED),
                    (Client, "GET /open/items/one/two/secret", SERVED),
                    (Client, "GET /open/items/one/secrets", SERVED),
                    (Client, "GET /open/items/secret", SERVED),
                    (Client, "GET /open/deep/one/secret", DENIED),
                    (Client, "GET /open/deep/one/two/secret", DENIED),
                    (Client, "GET /open/deep/one/public", SERVED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::ports_of_no_service",
        claim: "A port that no Service names is reached by the pod's address in plain text, not where mutual TLS is demanded of it, and under the pod's policies.",
        source: "istio: security/pass_through_filter_chain_test.go, PassThroughFilterChain",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(ports_of_no_service(scope)),
    },
    Check {
        id: "mesh::policies_of_a_workload_and_of_a_namespace",
        claim: "A policy with a selector holds for the pods that it selects, also when they are labelled anew, one without for all of its namespace, and neither for another.",
        source: "istio: security/authz_test.go, Authz_WorkloadSelector",
        needs: &[],
        manifest: Some("mesh/policies_of_a_workload_and_of_a_namespace.yaml"),
        run: |scope| Box::pin(of_a_workload_and_of_a_namespace(scope)),
    },
];

async fn ports_of_no_service(scope: &Scope) -> Outcome {
    let callers = [
        client(scope).await?,
        of_fixture(scope, "app=outsider").await?,
    ];
    let pods = scope.ready_pods_in(scope.fixture(), "app=guarded").await?;
    let address = pods.first().map(|pod| match pod.ip.is_ipv6() {
        true => format!("[{}]", pod.ip),
        false => pod.ip.to_string(),
    });
    let address = address.ok_or_else(|| strata::NoVerdict::new("guarded is not ready"))?;
    let cases = [
        (8083, "/open", SERVED),
        (8083, "/open/not-unnamed-port", DENIED),
        (8083, "/closed", DENIED),
        (8084, "/open", "cut off"),
        (8085, "/open", SERVED),
    ];
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    for (port, path, answer) in cases {
        let spec = RequestSpec::get(format!("http://{address}:{port}{path}"));
        let mut said = Vec::new();
        for caller in &callers {
            let replies = caller.request(&spec).await?.0;
            said.push(cut_off(replies.iter().map(said::said).collect()));
        }
        expected.push((format!(":{port}{path}"), vec![answer.to_owned(); 2]));
        seen.push((format!(":{port}{path}"), said));
    }
    let outcome = expect_eq(
        "the answers to client and outsider at ports of guarded that no Service names: 8083, 8084 where mutual TLS is demanded, and 8085 where it is off",
        &expected,
        &seen,
        "the sidecar knows only the ports that Services name",
    );
    explain(scope, outcome).await
}

async fn of_a_workload_and_of_a_namespace(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let ask = async |host: &str, path: &str| {
        let url = format!("http://{host}.{}{path}", scope.namespace());
        Ok::<_, strata::NoVerdict>(said::said(&client.get(url).await?))
    };
    let settled = async |picked: &str| {
        let mut expected = Vec::new();
        for host in ["one", "two"] {
            let served = format!("200 by {host}");
            let workload = if host == picked {
                DENIED.to_owned()
            } else {
                served.clone()
            };
            expected.push([workload, DENIED.to_owned(), served]);
        }
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET /workload, which is denied to pods labelled as {picked} is, /namespace and / of hosts one and two"),
                expected,
                observe: async || {
                    let mut seen = Vec::new();
                    for host in ["one", "two"] {
                        seen.push([
                            ask(host, "/workload").await?,
                            ask(host, "/namespace").await?,
                            ask(host, "/").await?,
                        ]);
                    }
                    Ok(seen)
                },
                likely: "a policy's selector is not compared with the labels of pods as they are",
            })
            .await;
        explain(scope, outcome).await
    };
    settled("one").await?;
    for (name, picked) in [("one", "no"), ("two", "yes")] {
        let patch = serde_json::json!({ "metadata": { "labels": { "picked": picked } } });
        scope
            .merge::<k8s_openapi::api::core::v1::Pod>(name, patch)
            .await?;
    }
    settled("two").await?;
    let elsewhere = client.get("http://backend-v1/namespace").await?;
    let outcome = expect_eq(
        "GET /namespace of a Service of another namespace",
        &"200 by backend-v1".to_owned(),
        &said::said(&elsewhere),
        "the policy of one namespace holds in another",
    );
    explain(scope, outcome).await
}
