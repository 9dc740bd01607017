//! AuthorizationPolicies that look at tokens: who may ask for what, by whom a token is of and what it claims.
//!
//! Start from [`SUITE`]. As `authorization`, with rules of the fixture's `guarded`; the tokens are `tokens`'.

use strata::{Check, Layer, Suite};

use super::authorization::{DENIED, SERVED};
use super::tokens::Carried::{Bearer, Nothing};
use super::tokens::{AUDIENCE, Cases, Key, ONLY_TOKENS, PLAIN, REFUSED, Token, judged};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const BOB: Token = PLAIN.claiming(r#"{"sub": "bob"}"#);

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::allows_by_token",
        claim: "An ALLOW policy for any token answers who has none with 403.",
        source: "istio: security/authz_test.go, Authz_JWT; istio: security/jwt_test.go, RequestAuthentication",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                ("no token", Nothing, DENIED),
                ("a token", Bearer(PLAIN), SERVED),
                ("a forged one", Bearer(PLAIN.by(Key::Other)), REFUSED),
            ];
            Box::pin(judged(scope, "/of/anybody", CASES))
        },
    },
    Check {
        id: "mesh::allows_by_issuer_and_subject",
        claim: "An ALLOW policy for an issuer's subject serves its token, and answers those of others with 403.",
        source: "istio: security/authz_test.go, Authz_JWT; Istio: Source requestPrincipals",
        needs: &[],
        manifest: None,
        run: |scope| {
            const OTHERS: Token = AUDIENCE.claiming(r#"{"aud": "one.example"}"#);
            const CASES: Cases = &[
                ("no token", Nothing, DENIED),
                ("alice's", Bearer(PLAIN), SERVED),
                ("bob's", Bearer(BOB), DENIED),
                ("another issuer's alice's", Bearer(OTHERS), DENIED),
            ];
            Box::pin(judged(scope, "/of/alice", CASES))
        },
    },
    Check {
        id: "mesh::allows_by_issuer",
        claim: "An ALLOW policy for an issuer serves the tokens of all its subjects, and answers those of others with 403.",
        source: "istio: security/authz_test.go, Authz_JWT; Istio: Source requestPrincipals, with * behind the issuer",
        needs: &[],
        manifest: None,
        run: |scope| {
            const ALICE: Token = AUDIENCE.claiming(r#"{"aud": "one.example"}"#);
            const BOB: Token = AUDIENCE.claiming(r#"{"aud": "one.example", "sub": "bob"}"#);
            const CASES: Cases = &[
                ("alice's", Bearer(ALICE), SERVED),
                ("bob's", Bearer(BOB), SERVED),
                ("another issuer's", Bearer(PLAIN), DENIED),
            ];
            Box::pin(judged(scope, "/of/issuer", CASES))
        },
    },
    Check {
        id: "mesh::allows_by_subject",
        claim: "An ALLOW policy for a subject of whatever issuer serves its tokens, and answers those of others with 403.",
        source: "Istio: Source requestPrincipals, with * for the issuer",
        needs: &[],
        manifest: None,
        run: |scope| {
            const OTHERS: Token = AUDIENCE.claiming(r#"{"aud": "one.example", "sub": "bob"}"#);
            const CASES: Cases = &[
                ("bob's", Bearer(BOB), SERVED),
                ("another issuer's bob's", Bearer(OTHERS), SERVED),
                ("alice's", Bearer(PLAIN), DENIED),
            ];
            Box::pin(judged(scope, "/of/bob", CASES))
        },
    },
    Check {
        id: "mesh::denies_who_has_no_token",
        claim: "A DENY policy for all but who has a token answers requests without one with 403.",
        source: "istio: security/authz_test.go, Authz_JWT; Istio: Source notRequestPrincipals",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                ("no token", Nothing, DENIED),
                ("a token", Bearer(PLAIN), SERVED),
            ];
            Box::pin(judged(scope, ONLY_TOKENS, CASES))
        },
    },
    Check {
        id: "mesh::denies_by_subject",
        claim: "A DENY policy answers the subject that it names with 403, and no other.",
        source: "istio: security/authz_test.go, Authz_JWT",
        needs: &[],
        manifest: None,
        run: |scope| {
            const MALLORY: Token = PLAIN.claiming(r#"{"sub": "mallory"}"#);
            const CASES: Cases = &[
                ("mallory's", Bearer(MALLORY), DENIED),
                ("alice's", Bearer(PLAIN), SERVED),
                ("no token", Nothing, SERVED),
            ];
            Box::pin(judged(scope, "/open/not-mallory", CASES))
        },
    },
    Check {
        id: "mesh::allows_by_claim",
        claim: "An ALLOW policy for values of a claim serves tokens that claim one of them, alone or among others, and answers all others with 403.",
        source: "istio: security/authz_test.go, Authz_JWT; Istio: conditions, request.auth.claims",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                ("no token", Nothing, DENIED),
                ("one without the claim", Bearer(PLAIN), DENIED),
                (
                    "another value",
                    Bearer(PLAIN.claiming(r#"{"group": "guests"}"#)),
                    DENIED,
                ),
                (
                    "the value",
                    Bearer(PLAIN.claiming(r#"{"group": "admin"}"#)),
                    SERVED,
                ),
                (
                    "the value among others",
                    Bearer(PLAIN.claiming(r#"{"group": ["guests", "admin"]}"#)),
                    SERVED,
                ),
                (
                    "a value by its beginning",
                    Bearer(PLAIN.claiming(r#"{"group": "lead-cooks"}"#)),
                    SERVED,
                ),
            ];
            Box::pin(judged(scope, "/claim", CASES))
        },
    },
    Check {
        id: "mesh::denies_by_claim",
        claim: "A DENY policy answers tokens that claim what it names with 403, and all else is served.",
        source: "istio: security/authz_test.go, Authz_JWT; Istio: conditions, request.auth.claims",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                (
                    "the value",
                    Bearer(PLAIN.claiming(r#"{"group": "banned"}"#)),
                    DENIED,
                ),
                (
                    "another value",
                    Bearer(PLAIN.claiming(r#"{"group": "guests"}"#)),
                    SERVED,
                ),
                ("no token", Nothing, SERVED),
            ];
            Box::pin(judged(scope, "/open/not-banned", CASES))
        },
    },
    Check {
        id: "mesh::denies_all_but_a_claim",
        claim: "A DENY policy for all but a value of a claim answers everybody else with 403, those without a token included.",
        source: "istio: security/authz_test.go, Authz_JWT; Istio: Condition notValues",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                (
                    "the value",
                    Bearer(PLAIN.claiming(r#"{"group": "admin"}"#)),
                    SERVED,
                ),
                (
                    "another value",
                    Bearer(PLAIN.claiming(r#"{"group": "guests"}"#)),
                    DENIED,
                ),
                ("no token", Nothing, DENIED),
            ];
            Box::pin(judged(scope, "/open/only-admins", CASES))
        },
    },
    Check {
        id: "mesh::allows_by_a_claim_in_a_claim",
        claim: "An ALLOW policy looks into claims that are objects.",
        source: "istio: security/authz_test.go, Authz_JWT; Istio: conditions, request.auth.claims",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                (
                    "the value",
                    Bearer(PLAIN.claiming(r#"{"realm": {"role": "admin"}}"#)),
                    SERVED,
                ),
                (
                    "another value",
                    Bearer(PLAIN.claiming(r#"{"realm": {"role": "guest"}}"#)),
                    DENIED,
                ),
                (
                    "the value elsewhere",
                    Bearer(PLAIN.claiming(r#"{"role": "admin"}"#)),
                    DENIED,
                ),
            ];
            Box::pin(judged(scope, "/claim-in-claim", CASES))
        },
    },
    Check {
        id: "mesh::allows_by_a_word_of_a_scope",
        claim: "Each word of claim scope is a value of it.",
        source: "istio: security/authz_test.go, Authz_JWT; RFC 8693, 4.2",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                (
                    "the word",
                    Bearer(PLAIN.claiming(r#"{"scope": "read write"}"#)),
                    SERVED,
                ),
                (
                    "other words",
                    Bearer(PLAIN.claiming(r#"{"scope": "read rewrite"}"#)),
                    DENIED,
                ),
            ];
            Box::pin(judged(scope, "/word", CASES))
        },
    },
    Check {
        id: "mesh::allows_by_all_of_a_token",
        claim: "An ALLOW policy that asks who a token is of, for whom, and who shows it serves a token of which all of it is so, and no other.",
        source: "istio: security/authz_test.go, Authz_JWT; Istio: conditions, request.auth.principal, request.auth.audiences and request.auth.presenter",
        needs: &[],
        manifest: None,
        run: |scope| {
            const ALL: &str = r#"{"aud": ["one.example"], "azp": "app.example"}"#;
            const CASES: Cases = &[
                ("all of it", Bearer(PLAIN.claiming(ALL)), SERVED),
                (
                    "another audience",
                    Bearer(PLAIN.claiming(r#"{"aud": "x", "azp": "app.example"}"#)),
                    DENIED,
                ),
                (
                    "another presenter",
                    Bearer(PLAIN.claiming(r#"{"aud": "one.example", "azp": "x"}"#)),
                    DENIED,
                ),
                ("another issuer's", Bearer(AUDIENCE.claiming(ALL)), DENIED),
            ];
            Box::pin(judged(scope, "/attributes", CASES))
        },
    },
];
