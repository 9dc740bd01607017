//! JWTs: whose tokens are believed, and what a server is told of them.
//!
//! Start from [`SUITE`]. The fixture's `guarded` believes four issuers, each by a rule of its own. What a
//! token allows is `claims`' matter: paths below `/open` are open to everybody, with a token or without.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use strata::wire::{Reply, RequestSpec};
use strata::{Check, Eventually, Layer, NoVerdict, Outcome, Scope, Suite, expect_eq, token};

use super::authorization::{DENIED, SERVED};
use super::security::{callers, explain};
use super::{ask, client};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::takes_good_tokens",
        claim: "A request with a token of an issuer that is believed is served, whichever RequestAuthentication names it, and so is one without a token.",
        source: "istio: security/jwt_test.go, RequestAuthentication",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                ("no token", Nothing, SERVED),
                ("a token", Bearer(PLAIN), SERVED),
                ("one of another rule's issuer", Bearer(FORWARDING), SERVED),
                ("one as a parameter", Param("access_token", PLAIN), SERVED),
            ];
            Box::pin(judged(scope, "/open", CASES))
        },
    },
    Check {
        id: "mesh::refuses_forged_tokens",
        claim: "A token that is not signed with its issuer's key is answered with 401, as is one without a signature and what is no token.",
        source: "istio: security/jwt_test.go, RequestAuthentication; RFC 7515, 5.2",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                ("a token", Bearer(PLAIN), SERVED),
                ("one by another key", Bearer(PLAIN.by(Key::Other)), REFUSED),
                ("one by no key", Bearer(PLAIN.by(Key::None)), REFUSED),
                (
                    "no token's text",
                    Header("Authorization: Bearer a.b.c"),
                    REFUSED,
                ),
            ];
            Box::pin(judged(scope, "/open", CASES))
        },
    },
    Check {
        id: "mesh::refuses_strangers_tokens",
        claim: "A token of an issuer that no rule names is answered with 401, though it is signed with a key that is known.",
        source: "istio: security/jwt_test.go, RequestAuthentication; Istio: JWTRule issuer",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                ("a token", Bearer(PLAIN), SERVED),
                (
                    "a stranger's",
                    Bearer(Token::of("stranger.example")),
                    REFUSED,
                ),
            ];
            Box::pin(judged(scope, "/open", CASES))
        },
    },
    Check {
        id: "mesh::refuses_tokens_out_of_their_time",
        claim: "A token that has expired is answered with 401, and so is one that is not yet valid.",
        source: "istio: security/jwt_test.go, RequestAuthentication; RFC 7519, 4.1.4 and 4.1.5",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                ("a token", Bearer(PLAIN), SERVED),
                (
                    "one of 2001",
                    Bearer(PLAIN.claiming(r#"{"exp": 1000000000}"#)),
                    REFUSED,
                ),
                (
                    "one for 2099",
                    Bearer(PLAIN.claiming(r#"{"nbf": 4070908800}"#)),
                    REFUSED,
                ),
            ];
            Box::pin(judged(scope, "/open", CASES))
        },
    },
    Check {
        id: "mesh::refuses_tokens_for_others",
        claim: "A token that is for none of the audiences that its issuer's rule names is answered with 403, and one for any of them is served.",
        source: "istio: security/jwt_test.go, RequestAuthentication; Istio: JWTRule audiences",
        needs: &[],
        manifest: None,
        run: |scope| {
            const ONE: Token = AUDIENCE.claiming(r#"{"aud": "one.example"}"#);
            const SEVERAL: Token = AUDIENCE.claiming(r#"{"aud": ["x.example", "other.example"]}"#);
            const CASES: Cases = &[
                ("a token for one", Bearer(ONE), SERVED),
                ("one for several", Bearer(SEVERAL), SERVED),
                (
                    "one for another",
                    Bearer(AUDIENCE.claiming(r#"{"aud": "x.example"}"#)),
                    DENIED,
                ),
                ("one for nobody", Bearer(AUDIENCE), DENIED),
            ];
            Box::pin(judged(scope, "/open", CASES))
        },
    },
    Check {
        id: "mesh::finds_tokens_in_their_places",
        claim: "A token is looked for in the headers, parameters and cookies that its rule names, and anywhere else it is none.",
        source: "istio: security/jwt_test.go, RequestAuthentication; Istio: JWTRule fromHeaders, fromParams and fromCookies",
        needs: &[],
        manifest: None,
        run: |scope| {
            const CASES: Cases = &[
                ("no token", Nothing, DENIED),
                (
                    "one in a header",
                    Prefixed("x-placed: Token ", PLACING),
                    SERVED,
                ),
                ("one in a parameter", Param("placed", PLACING), SERVED),
                (
                    "one in a cookie",
                    Prefixed("cookie: placed=", PLACING),
                    SERVED,
                ),
                (
                    "one in another header",
                    Prefixed("x-other: Token ", PLACING),
                    DENIED,
                ),
                ("one in another parameter", Param("other", PLACING), DENIED),
                (
                    "one in another cookie",
                    Prefixed("cookie: other=", PLACING),
                    DENIED,
                ),
                (
                    "a forged one in a header",
                    Prefixed("x-placed: Token ", PLACING.by(Key::Other)),
                    REFUSED,
                ),
            ];
            Box::pin(judged(scope, ONLY_TOKENS, CASES))
        },
    },
    Check {
        id: "mesh::preflights_need_no_good_token",
        claim: "A CORS preflight is served with a token that has expired, and what only looks like one is answered with 401.",
        source: "istio: security/jwt_test.go, RequestAuthentication",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(preflights_need_no_good_token(scope)),
    },
    Check {
        id: "mesh::tokens_are_taken_off",
        claim: "A server is not given the token of a request, unless the issuer's rule says so.",
        source: "istio: security/jwt_test.go, RequestAuthentication; Istio: JWTRule forwardOriginalToken",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(tokens_are_taken_off(scope)),
    },
    Check {
        id: "mesh::tells_what_a_token_claims",
        claim: "A server is told the claims of a token in the headers that its issuer's rule names, and no others.",
        source: "istio: security/jwt_test.go, RequestAuthentication; Istio: JWTRule outputPayloadToHeader and outputClaimToHeaders",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(tells_what_a_token_claims(scope)),
    },
    Check {
        id: "mesh::made_up_claims_are_dropped",
        claim: "What a client writes into the headers that tell a server of tokens does not reach it.",
        source: "Istio: JWTRule outputClaimToHeaders",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(made_up_claims_are_dropped(scope)),
    },
    Check {
        id: "mesh::keys_are_fetched",
        claim: "Tokens are believed by keys that a server of the cluster gives, and none is where it gives none, while requests without a token are served.",
        source: "istio: security/jwt_test.go, RequestAuthentication; istio: security/remote_jwks/remote_jwks_test.go, RemoteJwks; Istio: JWTRule jwksUri",
        needs: &[],
        manifest: Some("mesh/keys_are_fetched.yaml"),
        run: |scope| Box::pin(keys_are_fetched(scope)),
    },
];

/// A token that is not believed.
pub(super) const REFUSED: &str = "401";
/// What is denied to who has no token.
pub(super) const ONLY_TOKENS: &str = "/open/only-token";

/// The issuers that `guarded` believes.
pub(super) const PLAIN: Token = Token::of("plain.issuer.example");
pub(super) const AUDIENCE: Token = Token::of("audience.issuer.example");
const FORWARDING: Token = Token::of("forwarding.issuer.example");
const PLACING: Token = Token::of("placing.issuer.example");

/// Whose key signs a token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    Known,
    Other,
    None,
}

/// A token: of subject alice, and valid for decades, unless it claims otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    issuer: &'static str,
    /// A JSON object.
    claims: &'static str,
    key: Key,
}

impl Token {
    const fn of(issuer: &'static str) -> Self {
        let (claims, key) = ("{}", Key::Known);
        Self {
            issuer,
            claims,
            key,
        }
    }

    pub(super) const fn claiming(self, claims: &'static str) -> Self {
        Self { claims, ..self }
    }

    pub(super) const fn by(self, key: Key) -> Self {
        Self { key, ..self }
    }

    fn written(self) -> Result<String, NoVerdict> {
        // 2100.
        let mut all = json!({ "iss": self.issuer, "sub": "alice", "exp": 4_102_444_800_u64 });
        let own: BTreeMap<String, Value> = serde_json::from_str(self.claims)
            .map_err(|error| NoVerdict::new(format!("{}: {error}", self.claims)))?;
        for (name, value) in own {
            all[name] = value;
        }
        match self.key {
            Key::Known => token::signed(&all),
            Key::Other => token::forged(&all),
            Key::None => Ok(token::unsigned(&all)),
        }
    }
}

/// What a request carries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Carried {
    Nothing,
    /// A token where one is looked for unless a rule says otherwise.
    Bearer(Token),
    /// A token behind the beginning of a header, name and all.
    Prefixed(&'static str, Token),
    /// A token in a parameter of the query.
    Param(&'static str, Token),
    /// A header, name and all.
    Header(&'static str),
}
use Carried::{Bearer, Header, Nothing, Param, Prefixed};

/// The GET of a path of host guarded that carries this.
fn request(path: &str, carried: Carried) -> Result<RequestSpec, NoVerdict> {
    let url = format!("http://guarded{path}");
    let header = match carried {
        Nothing => None,
        Bearer(token) => Some(format!("Authorization: Bearer {}", token.written()?)),
        Prefixed(start, token) => Some(format!("{start}{}", token.written()?)),
        Header(header) => Some(header.to_owned()),
        Param(name, token) => {
            return Ok(RequestSpec::get(format!(
                "{url}?{name}={}",
                token.written()?
            )));
        }
    };
    Ok(RequestSpec {
        headers: header.into_iter().collect(),
        ..RequestSpec::get(url)
    })
}

/// What requests carry, in words and in fact, and what they are answered.
pub(super) type Cases = &'static [(&'static str, Carried, &'static str)];

/// Judges requests for a path of host guarded, by what they carry.
pub(super) async fn judged(scope: &Scope, path: &str, cases: &[(&str, Carried, &str)]) -> Outcome {
    let client = client(scope).await?;
    let mut expected = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (what, carried, answer) in cases {
        let replies = client.request(&request(path, *carried)?).await?.0;
        expected.insert(*what, (*answer).to_owned());
        seen.insert(*what, replies.iter().map(said::said).collect::<String>());
    }
    let outcome = expect_eq(
        format!("the answers to GET http://guarded{path}, by what the request carries"),
        &expected,
        &seen,
        "the RequestAuthentications or AuthorizationPolicies are not compiled into the server's sidecar",
    );
    explain(scope, outcome).await
}

async fn preflights_need_no_good_token(scope: &Scope) -> Outcome {
    const EXPIRED: Token = PLAIN.claiming(r#"{"exp": 1000000000}"#);
    let mut seen = Vec::new();
    for origin in [Some("Origin: https://app.example.com"), None] {
        let mut spec = RequestSpec {
            method: "OPTIONS".to_owned(),
            ..request("/open", Bearer(EXPIRED))?
        };
        spec.headers
            .push("Access-Control-Request-Method: POST".to_owned());
        spec.headers.extend(origin.map(str::to_owned));
        seen.push(said::said(&ask(scope, &spec).await?));
    }
    let outcome = expect_eq(
        "OPTIONS http://guarded/open with an expired token, for a page's origin and for none",
        &[SERVED, REFUSED].map(str::to_owned).to_vec(),
        &seen,
        "the sidecar looks at the tokens of preflights, or of no OPTIONS at all",
    );
    explain(scope, outcome).await
}

/// The answer, and headers as the server got them.
fn told<const N: usize>(reply: &Reply, headers: [&str; N]) -> (String, [String; N]) {
    let answer = reply.answer.as_ref();
    let header = |name| answer.and_then(|answer| answer.header(name));
    let headers = headers.map(|name| header(name).unwrap_or("absent").to_owned());
    (said::said(reply), headers)
}

async fn tokens_are_taken_off(scope: &Scope) -> Outcome {
    let forwarded = request("/open", Bearer(FORWARDING))?;
    let token = forwarded.headers.concat().replace("Authorization: ", "");
    let mut seen = Vec::new();
    for spec in [request("/open", Bearer(PLAIN))?, forwarded] {
        seen.push(told(&ask(scope, &spec).await?, ["authorization"]));
    }
    let outcome = expect_eq(
        "the answers to a token, and to one whose issuer's rule has it forwarded, and the header Authorization that the server got",
        &vec![
            (SERVED.to_owned(), ["absent".to_owned()]),
            (SERVED.to_owned(), [token]),
        ],
        &seen,
        "the rule's forwardOriginalToken is not compiled into the server's sidecar",
    );
    explain(scope, outcome).await
}

const TELLING: [&str; 3] = ["x-token-subject", "x-token-role", "x-token-payload"];

async fn tells_what_a_token_claims(scope: &Scope) -> Outcome {
    const CLAIMS: &str = r#"{"sub": "carol", "realm": {"role": "editor"}}"#;
    let telling = request("/open", Bearer(PLAIN.claiming(CLAIMS)))?;
    let payload = telling.headers.concat();
    let payload = payload.split('.').nth(1).unwrap_or_default().to_owned();
    let silent = request("/open", Bearer(FORWARDING.claiming(CLAIMS)))?;
    let mut seen = Vec::new();
    for spec in [telling, silent] {
        seen.push(told(&ask(scope, &spec).await?, TELLING));
    }
    let outcome = expect_eq(
        format!(
            "the answers to a token whose issuer's rule tells its claims, and to one whose rule tells none, and the headers {TELLING:?} that the server got"
        ),
        &vec![
            (
                SERVED.to_owned(),
                ["carol", "editor", &payload].map(str::to_owned),
            ),
            (SERVED.to_owned(), ["absent"; 3].map(str::to_owned)),
        ],
        &seen,
        "the rule's outputClaimToHeaders or outputPayloadToHeader is not compiled into the server's sidecar",
    );
    explain(scope, outcome).await
}

async fn made_up_claims_are_dropped(scope: &Scope) -> Outcome {
    let mut seen = Vec::new();
    for carried in [Nothing, Bearer(PLAIN)] {
        let mut spec = request("/open", carried)?;
        spec.headers.push("x-token-subject: mallory".to_owned());
        spec.headers.push("x-unknown: mallory".to_owned());
        seen.push(told(
            &ask(scope, &spec).await?,
            ["x-token-subject", "x-unknown"],
        ));
    }
    let outcome = expect_eq(
        "requests without a token and with alice's whose header x-token-subject says mallory: the answers, and the headers x-token-subject and x-unknown that the server got",
        &vec![
            (SERVED.to_owned(), ["absent", "mallory"].map(str::to_owned)),
            (SERVED.to_owned(), ["alice", "mallory"].map(str::to_owned)),
        ],
        &seen,
        "the server's sidecar lets through what it alone should write",
    );
    explain(scope, outcome).await
}

async fn keys_are_fetched(scope: &Scope) -> Outcome {
    let (client, _) = callers(scope).await?;
    let url = format!("http://web.{}/", scope.namespace());
    let settled = async |path: &str, expected: &str| {
        // A server without a sidecar gives what it is asked for.
        let uri = format!("http://legacy.{}.svc.cluster.local{path}", scope.fixture());
        let policy = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": { "name": "fetched" },
            "spec": { "jwtRules": [{ "issuer": PLAIN.issuer, "jwksUri": uri }] },
        });
        scope.apply(&policy.to_string()).await?;
        let with = RequestSpec {
            url: url.clone(),
            ..request("", Bearer(PLAIN))?
        };
        let forged = RequestSpec {
            url: url.clone(),
            ..request("", Bearer(PLAIN.by(Key::Other)))?
        };
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET {url} with a token, a forged one and none, where keys are fetched from legacy{path}"),
                expected: [expected, REFUSED, "200 by web"].map(str::to_owned),
                observe: async || {
                    let mut seen = Vec::new();
                    for spec in [&with, &forged, &RequestSpec::get(&url)] {
                        seen.extend(client.request(spec).await?.0.iter().map(said::said));
                    }
                    seen.try_into().map_err(|_| NoVerdict::new("not three answers"))
                },
                likely: "who fetches keys cannot reach their server, or does not look at what it gives",
            })
            .await;
        explain(scope, outcome).await
    };
    // As a query is written, RFC 3986.
    let keys: String = token::KEYS
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    settled(&format!("/keys?body={keys}"), "200 by web").await?;
    settled("/status/404", REFUSED).await
}
