//! AuthorizationPolicies: who may ask for what.
//!
//! Start from [`SUITE`]. The fixture's `guarded` has one policy that denies and one that allows, each rule
//! for a path of its own; of every case some requests are served, and some answered with 403.

use std::collections::BTreeMap;

use strata::wire::{RequestSpec, TcpSpec};
use strata::{Check, Layer, Outcome, Scope, Suite, expect_eq};

use super::security::{cut_off, explain};
use super::{client, of_fixture, taken};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::denies_by_identity",
        claim: "A DENY policy answers the identity that it names with 403, and no other.",
        source: "istio: security/authz_test.go, Authz_DenyPrincipal",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/not-backend", SERVED),
                    (Backend, "GET /open/not-backend", DENIED),
                    (Outsider, "GET /open/not-backend", SERVED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_all_but_an_identity",
        claim: "A DENY policy for all but an identity answers everybody else with 403, those without one included.",
        source: "istio: security/authz_test.go, Authz_DenyPrincipal; Istio: Source notPrincipals",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/only-client", SERVED),
                    (Backend, "GET /open/only-client", DENIED),
                    (Outsider, "GET /open/only-client", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_by_namespace",
        claim: "A DENY policy answers the namespace that it names with 403, and who has none is served.",
        source: "istio: security/authz_test.go, Authz_DenyNamespace",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/not-namespace", DENIED),
                    (Outsider, "GET /open/not-namespace", SERVED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_all_but_a_namespace",
        claim: "A DENY policy for all but a namespace answers who has none with 403.",
        source: "istio: security/authz_test.go, Authz_NotNamespace",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/only-namespace", SERVED),
                    (Outsider, "GET /open/only-namespace", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_by_method",
        claim: "A DENY policy answers the method that it names with 403, and no other.",
        source: "Istio: Operation methods",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "DELETE /open/no-delete", DENIED),
                    (Client, "GET /open/no-delete", SERVED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_all_but_methods",
        claim: "A DENY policy for all but some methods serves these.",
        source: "istio: security/authz_test.go, Authz_NotMethod",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/read-only", SERVED),
                    (Client, "HEAD /open/read-only", SERVED),
                    (Client, "PUT /open/read-only", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_all_but_paths",
        claim: "A DENY policy for all but some paths serves these.",
        source: "Istio: Operation notPaths",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/tree/leaf", DENIED),
                    (Client, "GET /open/tree/public/leaf", SERVED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_by_host",
        claim: "A DENY policy answers requests for the host that it names with 403, in whatever case it is written.",
        source: "Istio: Operation hosts",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (
                        Outsider,
                        "GET /open/not-host Host: forbidden.example.com",
                        DENIED,
                    ),
                    (
                        Outsider,
                        "GET /open/not-host Host: FORBIDDEN.example.com",
                        DENIED,
                    ),
                    (
                        Outsider,
                        "GET /open/not-host Host: other.example.com",
                        SERVED,
                    ),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_all_but_a_host",
        claim: "A DENY policy for all but a host serves requests for this one.",
        source: "istio: security/authz_test.go, Authz_NotHost",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (
                        Outsider,
                        "GET /open/only-host Host: allowed.example.com",
                        SERVED,
                    ),
                    (
                        Outsider,
                        "GET /open/only-host Host: other.example.com",
                        DENIED,
                    ),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_by_header",
        claim: "A DENY policy answers requests whose header has the value that it names with 403.",
        source: "Istio: Condition request.headers, values; istio: security/authz_test.go, Authz_Conditions",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/not-header x-denied: yes", DENIED),
                    (Client, "GET /open/not-header x-denied: no", SERVED),
                    (Client, "GET /open/not-header", SERVED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_all_but_a_header",
        claim: "A DENY policy for all but a value of a header serves requests that have it.",
        source: "Istio: Condition request.headers, notValues; istio: security/authz_test.go, Authz_Conditions",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/only-header x-token: secret", SERVED),
                    (Client, "GET /open/only-header x-token: other", DENIED),
                    (Client, "GET /open/only-header", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_by_port",
        claim: "A DENY policy for a port answers at that port with 403, and at no other.",
        source: "Istio: Operation ports",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(at_ports(scope, "/open/not-port", [SERVED, DENIED])),
    },
    Check {
        id: "mesh::denies_who_has_no_identity",
        claim: "A DENY policy for whoever has no identity answers plain text with 403, and every identity is served.",
        source: "istio: security/authz_test.go, Authz_DenyPlaintext",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /open/not-nobody", SERVED),
                    (Backend, "GET /open/not-nobody", SERVED),
                    (Outsider, "GET /open/not-nobody", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::denies_all_but_a_port",
        claim: "A DENY policy for all but a port serves at this one, and answers at others with 403.",
        source: "istio: security/authz_test.go, Authz_NotPort",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(at_ports(scope, "/open/only-port", [SERVED, DENIED])),
    },
    Check {
        id: "mesh::denies_paths_written_otherwise",
        claim: "A path that leads to a denied one by a detour is denied as that is.",
        source: "istio: security/normalization_test.go, Normalization; istio: security/authz_test.go, Authz_PathNormalization",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "DELETE /open/no-delete", DENIED),
                    (Client, "DELETE /open/./no-delete", DENIED),
                    (Client, "DELETE /open/else/../no-delete", DENIED),
                    (Client, "DELETE /open/else", SERVED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::allows_by_identity",
        claim: "An ALLOW policy serves the identity that it names, and answers others and those without one with 403.",
        source: "istio: security/authz_test.go, Authz_Principal",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /client/home", SERVED),
                    (Backend, "GET /client/home", DENIED),
                    (Outsider, "GET /client/home", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::allows_by_namespace",
        claim: "An ALLOW policy serves the namespace that it names, and answers who has none with 403.",
        source: "istio: security/authz_test.go, Authz_Namespace",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /namespace", SERVED),
                    (Backend, "GET /namespace", SERVED),
                    (Outsider, "GET /namespace", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::allows_by_method",
        claim: "An ALLOW policy serves the method that it names, and answers others with 403.",
        source: "Istio: Operation methods",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Outsider, "GET /read", SERVED),
                    (Outsider, "POST /read", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::allows_by_path",
        claim: "An ALLOW policy serves the paths that it names, and answers others with 403.",
        source: "Istio: Operation paths",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Outsider, "GET /open", SERVED),
                    (Outsider, "GET /open/whatever", SERVED),
                    (Outsider, "GET /closed", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::allows_by_header",
        claim: "An ALLOW policy serves requests whose header has the value that it names, and answers others with 403.",
        source: "Istio: Condition request.headers; istio: security/authz_test.go, Authz_Conditions",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Outsider, "GET /token x-token: secret", SERVED),
                    (Outsider, "GET /token x-token: guess", DENIED),
                    (Outsider, "GET /token", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::deny_goes_before_allow",
        claim: "What one policy denies is denied though another allows it.",
        source: "istio: security/authz_test.go, Authz_PathPrecedence; Istio: AuthorizationPolicy, \"If there are any DENY policies that match the request, deny the request\"",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(judged(
                scope,
                &[
                    (Client, "GET /client/home", SERVED),
                    (Client, "GET /client/never", DENIED),
                ],
            ))
        },
    },
    Check {
        id: "mesh::authorizes_connections",
        claim: "A TCP port that a policy allows is served, and one that none does is cut off.",
        source: "Istio: AuthorizationPolicy, at TCP ports",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(authorizes_connections(scope)),
    },
];

pub(super) const SERVED: &str = "200 by guarded";
pub(super) const DENIED: &str = "403";

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// The fixture's client, of the account of its name.
    Client,
    /// A pod of the account `backend`.
    Backend,
    /// A pod without a sidecar, so without an identity.
    Outsider,
}
use Caller::{Backend, Client, Outsider};

/// Judges requests, written as `METHOD PATH Header: value`, by who asks.
pub(super) async fn judged(scope: &Scope, cases: &[(Caller, &str, &str)]) -> Outcome {
    let mut expected = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (caller, asked, answer) in cases {
        let from = match caller {
            Client => client(scope).await?,
            Backend => of_fixture(scope, "version=v1").await?,
            Outsider => of_fixture(scope, "app=outsider").await?,
        };
        let mut words = asked.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, path, header) = (word(), word(), word());
        let spec = RequestSpec {
            method,
            headers: Some(header)
                .filter(|header| !header.is_empty())
                .into_iter()
                .collect(),
            ..RequestSpec::get(format!("http://guarded{path}"))
        };
        let case = format!("{asked} by {caller:?}");
        let reply = taken(&from, &spec).await?;
        expected.insert(case.clone(), (*answer).to_owned());
        seen.insert(case, said::said(&reply));
    }
    let outcome = expect_eq(
        "the answers of host guarded, by request and by who asks",
        &expected,
        &seen,
        "an AuthorizationPolicy's rule is read in another way than Istio's",
    );
    explain(scope, outcome).await
}

/// Judges a path at two ports of the Service, 80 and 82, which lead to two of the workload; another path
/// is served at both.
async fn at_ports(scope: &Scope, path: &str, expected: [&str; 2]) -> Outcome {
    let client = client(scope).await?;
    let mut seen = Vec::new();
    for (port, path) in [(80, path), (82, path), (82, "/open")] {
        let reply = client.get(format!("http://guarded:{port}{path}")).await?;
        seen.push(said::said(&reply));
    }
    let outcome = expect_eq(
        format!("GET http://guarded:80{path}, :82{path} and :82/open"),
        &[expected[0], expected[1], SERVED]
            .map(str::to_owned)
            .to_vec(),
        &seen,
        "the policy's ports are read as the Service's, or not at all",
    );
    explain(scope, outcome).await
}

async fn authorizes_connections(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let mut seen = Vec::new();
    for port in [9001, 9000] {
        let spec = TcpSpec {
            bytes: 16,
            ..TcpSpec::new(format!("guarded:{port}"))
        };
        let replies = client.tcp(&spec).await?;
        seen.push(cut_off(said::tcp(&replies)));
    }
    let outcome = expect_eq(
        "connections to guarded:9001, which is allowed, and guarded:9000, which is not",
        &["guarded", "cut off"].map(str::to_owned).to_vec(),
        &seen,
        "the AuthorizationPolicy is not compiled into the server's sidecar for bytes",
    );
    explain(scope, outcome).await
}
