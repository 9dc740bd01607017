//! Identities: who is who in the mesh, and who may call whom.
//!
//! Start from [`SUITE`]. Every refusal has a control that is served at the same time, and is of the
//! kind that the policy makes: a cut connection for plain text, 403 for a request.

use strata::wire::RequestSpec;
use strata::{
    Check, Eventually, Layer, NoVerdict, Outcome, Scope, Subject, Suite, Vantage, expect_eq,
};

use super::{identity, of_fixture, spiffe};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::identity_is_the_accounts",
        claim: "The identity that a server is told is that of the caller's ServiceAccount.",
        source: "SPIFFE ID, section 2; istio: pilot/headers_test.go, XfccHeaders",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(identity_is_the_accounts(scope)),
    },
    Check {
        id: "mesh::permissive_takes_plain_text",
        claim: "Without a policy a pod with a sidecar takes plain text too, and tells its server no identity for it.",
        source: "istio: security/reachability_test.go, Reachability",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(permissive_takes_plain_text(scope)),
    },
    Check {
        id: "mesh::pods_without_a_sidecar_are_called_in_plain_text",
        claim: "A pod with a sidecar reaches one without.",
        source: "istio: security/reachability_test.go, Reachability",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(pods_without_a_sidecar_are_called_in_plain_text(scope)),
    },
    Check {
        id: "mesh::forged_identity_is_dropped",
        claim: "An identity header that a client makes up does not reach the server.",
        source: "istio: pilot/headers_test.go, XfccHeaders",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(forged_identity_is_dropped(scope)),
    },
    Check {
        id: "mesh::strict_refuses_plain_text",
        claim: "Under mTLS STRICT plain text is cut off, while a client of the mesh is served.",
        source: "istio: security/reachability_test.go, Reachability; istio: security/ecc_signature_algorithm/mtls_strict_test.go, StrictMTLS",
        needs: &[],
        manifest: Some("mesh/strict_refuses_plain_text.yaml"),
        run: |scope| Box::pin(strict_refuses_plain_text(scope)),
    },
    Check {
        id: "mesh::authorizes_by_identity",
        claim: "An ALLOW policy serves the identity that it names, and answers every other with 403.",
        source: "istio: security/authz_test.go, Authz_Principal",
        needs: &[],
        manifest: Some("mesh/authorizes_by_identity.yaml"),
        run: |scope| Box::pin(authorizes_by_identity(scope)),
    },
    Check {
        id: "mesh::denies_by_request",
        claim: "A DENY policy answers the paths and methods that it names with 403, and no other.",
        source: "istio: security/authz_test.go, Authz_PathPrecedence; Istio: AuthorizationPolicy, action DENY",
        needs: &[],
        manifest: Some("mesh/denies_by_request.yaml"),
        run: |scope| Box::pin(denies_by_request(scope)),
    },
    Check {
        id: "mesh::allows_nothing",
        claim: "A policy without rules answers everybody with 403, and once it is gone everybody is served.",
        source: "Istio: AuthorizationPolicy, allow-nothing",
        needs: &[],
        manifest: Some("mesh/allows_nothing.yaml"),
        run: |scope| Box::pin(allows_nothing(scope)),
    },
];

async fn identity_is_the_accounts(scope: &Scope) -> Outcome {
    let mut seen = Vec::new();
    for caller in ["app=client", "version=v1"] {
        let reply = scope.pod(caller).await?.get("http://backend-v2/").await?;
        seen.push((said::said(&reply), identity(&reply)));
    }
    let served = "200 by backend-v2".to_owned();
    let expected = vec![
        (served.clone(), spiffe(scope, "client")),
        (served, spiffe(scope, "backend")),
    ];
    let outcome = expect_eq(
        "GET http://backend-v2/ from Pods client and backend-v1: the answer and the identity told",
        &expected,
        &seen,
        "certificates are issued for another account than the pod's",
    );
    explain(scope, outcome).await
}

async fn permissive_takes_plain_text(scope: &Scope) -> Outcome {
    let outsider = scope.pod("app=outsider").await?;
    let reply = outsider.get("http://backend-v1/").await?;
    let outcome = expect_eq(
        "GET http://backend-v1/ from a pod without a sidecar: the answer and the identity told",
        &("200 by backend-v1".to_owned(), "none".to_owned()),
        &(said::said(&reply), identity(&reply)),
        "a PeerAuthentication demands mutual TLS of the whole mesh",
    );
    explain(scope, outcome).await
}

async fn pods_without_a_sidecar_are_called_in_plain_text(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let reply = client.get("http://legacy/").await?;
    let outcome = expect_eq(
        "GET http://legacy/, whose pod has no sidecar, from one that has",
        &("200 by legacy".to_owned(), "none".to_owned()),
        &(said::said(&reply), identity(&reply)),
        "the client's sidecar uses mutual TLS with a server that knows none",
    );
    explain(scope, outcome).await
}

async fn forged_identity_is_dropped(scope: &Scope) -> Outcome {
    let forged = "By=spiffe://cluster.local/ns/a/sa/b;Hash=0;URI=spiffe://cluster.local/ns/kube-system/sa/admin";
    let spec = RequestSpec {
        headers: vec![format!("X-Forwarded-Client-Cert: {forged}")],
        ..RequestSpec::get("http://backend-v1/")
    };
    let outsider = scope.pod("app=outsider").await?.request(&spec).await?;
    let client = scope.pod("app=client").await?.request(&spec).await?;
    let seen = outsider.0.iter().chain(&client.0).map(identity);
    let outcome = expect_eq(
        "the identities told for a made-up header, sent from outside the mesh and from inside it",
        &vec!["none".to_owned(), spiffe(scope, "client")],
        &seen.collect(),
        "the server's sidecar passes identities on that it has not verified",
    );
    explain(scope, outcome).await
}

async fn strict_refuses_plain_text(scope: &Scope) -> Outcome {
    let (client, outsider) = callers(scope).await?;
    let url = format!("http://web.{}/", scope.namespace());
    let outcome = scope
        .eventually(Eventually {
            what: &format!("GET {url} from inside the mesh and from outside it, and from outside to a server that is not strict"),
            expected: ["200 by web", "cut off", "200 by backend-v1"].map(str::to_owned),
            observe: async || {
                let control = format!("http://backend-v1.{}/", scope.fixture());
                Ok([
                    said::said(&client.get(&url).await?),
                    cut_off(said::said(&outsider.get(&url).await?)),
                    said::said(&outsider.get(control).await?),
                ])
            },
            likely: "PeerAuthentication default of the namespace is not compiled into the server's sidecar",
        })
        .await;
    explain(scope, outcome).await
}

async fn authorizes_by_identity(scope: &Scope) -> Outcome {
    let (client, outsider) = callers(scope).await?;
    let other = of_fixture(scope, "version=v1").await?;
    let url = format!("http://web.{}/", scope.namespace());
    let outcome = scope
        .eventually(Eventually {
            what: &format!("GET {url} as client, as another account of the mesh, and as nobody"),
            expected: ["200 by web", "403", "403"].map(str::to_owned),
            observe: async || {
                Ok([
                    said::said(&client.get(&url).await?),
                    said::said(&other.get(&url).await?),
                    said::said(&outsider.get(&url).await?),
                ])
            },
            likely: "the AuthorizationPolicy's principal or selector is read in another way than Istio's",
        })
        .await;
    explain(scope, outcome).await
}

async fn denies_by_request(scope: &Scope) -> Outcome {
    let (client, _) = callers(scope).await?;
    let base = format!("http://web.{}", scope.namespace());
    let cases = [
        ("GET", "/", "200 by web"),
        ("GET", "/admin", "403"),
        ("GET", "/admin/users", "403"),
        ("GET", "/users/admin", "200 by web"),
        ("DELETE", "/", "403"),
        ("POST", "/", "200 by web"),
    ];
    let outcome = scope
        .eventually(Eventually {
            what: "the answers by method and path, where /admin* and DELETE are denied",
            expected: cases.map(|(_, _, expected)| expected.to_owned()).to_vec(),
            observe: async || {
                let mut seen = Vec::new();
                for (method, path, _) in cases {
                    let spec = RequestSpec {
                        method: method.to_owned(),
                        ..RequestSpec::get(format!("{base}{path}"))
                    };
                    seen.extend(client.request(&spec).await?.0.iter().map(said::said));
                }
                Ok(seen)
            },
            likely: "the AuthorizationPolicy's operations are read in another way than Istio's",
        })
        .await;
    explain(scope, outcome).await
}

async fn allows_nothing(scope: &Scope) -> Outcome {
    let (client, outsider) = callers(scope).await?;
    let url = format!("http://web.{}/", scope.namespace());
    let settled = async |expected: &str| {
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET {url} from inside the mesh, and from outside it"),
                expected: [expected, expected].map(str::to_owned),
                observe: async || {
                    let inside = said::said(&client.get(&url).await?);
                    Ok([inside, said::said(&outsider.get(&url).await?)])
                },
                likely: "a policy without rules is read as one that does not matter",
            })
            .await;
        explain(scope, outcome).await
    };
    settled("403").await?;
    scope
        .delete_kind("security.istio.io/v1", "AuthorizationPolicy", "nothing")
        .await?;
    settled("200 by web").await
}

/// The fixture's callers with and without a sidecar.
pub(super) async fn callers(scope: &Scope) -> Result<(Vantage, Vantage), NoVerdict> {
    Ok((
        of_fixture(scope, "app=client").await?,
        of_fixture(scope, "app=outsider").await?,
    ))
}

/// A connection that is closed or reset before there is an answer; which of the two is a race.
pub(super) fn cut_off(word: String) -> String {
    match word.as_str() {
        "reset" | "closed early" => "cut off".to_owned(),
        _ => word,
    }
}

pub(super) async fn explain(scope: &Scope, outcome: Outcome) -> Outcome {
    let subject = Subject::Sidecar {
        namespace: scope.namespace(),
        apps: &["backend", "caller", "client", "guarded", "web"],
    };
    scope.explain(outcome, subject).await
}
