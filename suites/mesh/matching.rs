//! Which requests a rule takes: each sort of condition by itself.
//!
//! Start from [`SUITE`]. Of the two hosts of the fixture, rules send what holds to `backend-v2` and what is
//! left to `backend-v1`. Each case has a request that the condition takes, and one that it all but takes.

use std::collections::BTreeMap;

use strata::wire::RequestSpec;
use strata::{Check, Layer, Outcome, Scope, Suite, Vantage, expect_eq};

use super::{client, explain_host, of_fixture};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::matches_exact_paths",
        claim: "An exact path is matched to its last letter.",
        source: "Istio: StringMatch exact",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "matched",
                &[
                    ("GET", "/exact", "", V2),
                    ("GET", "/exact/more", "", V1),
                    ("GET", "/", "", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_path_prefixes",
        claim: "A path is matched by its first characters.",
        source: "Istio: StringMatch prefix",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "matched",
                &[
                    ("GET", "/prefix/more", "", V2),
                    ("GET", "/prefixed", "", V2),
                    ("GET", "/more/prefix", "", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_path_patterns",
        claim: "A pattern matches the path as a whole.",
        source: "Istio: StringMatch regex",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "matched",
                &[
                    ("GET", "/item/42", "", V2),
                    ("GET", "/item/42/more", "", V1),
                    ("GET", "/item/x", "", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_paths_in_any_case",
        claim: "A path is matched in any case where the rule says so.",
        source: "Istio: HTTPMatchRequest ignoreUriCase",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "conditions",
                &[
                    ("GET", "/any/CASE", "", V2),
                    ("GET", "/any/case/more", "", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_methods",
        claim: "A method is matched, and no other.",
        source: "Istio: HTTPMatchRequest method",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "matched",
                &[
                    ("DELETE", "/", "", V2),
                    ("POST", "/", "", V1),
                    ("GET", "/", "", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_queries",
        claim: "A query parameter is matched by its whole value.",
        source: "Istio: HTTPMatchRequest queryParams",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "matched",
                &[
                    ("GET", "/?version=2", "", V2),
                    ("GET", "/?version=22", "", V1),
                    ("GET", "/?other=2", "", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_query_patterns",
        claim: "A query parameter is matched by a pattern.",
        source: "Istio: HTTPMatchRequest queryParams, regex",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "conditions",
                &[
                    ("GET", "/?page=17", "", V2),
                    ("GET", "/?page=x", "", V1),
                    ("GET", "/", "", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_headers",
        claim: "A header is matched by its whole value.",
        source: "Istio: HTTPMatchRequest headers, exact",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "matched",
                &[
                    ("GET", "/", "x-canary: yes", V2),
                    ("GET", "/", "x-canary: no", V1),
                    ("GET", "/", "x-canary: yes and no", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_header_prefixes",
        claim: "A header is matched by its first characters.",
        source: "Istio: HTTPMatchRequest headers, prefix",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "conditions",
                &[
                    ("GET", "/", "x-prefix: canary-7", V2),
                    ("GET", "/", "x-prefix: a canary-", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_header_patterns",
        claim: "A pattern matches a header's value as a whole.",
        source: "Istio: HTTPMatchRequest headers, regex",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "conditions",
                &[
                    ("GET", "/", "x-pattern: v12", V2),
                    ("GET", "/", "x-pattern: v12-beta", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_the_presence_of_headers",
        claim: "A header without a value in the rule is matched by being there.",
        source: "Istio: HTTPMatchRequest headers, presence",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "conditions",
                &[
                    ("GET", "/", "x-present: whatever", V2),
                    ("GET", "/", "x-absent: whatever", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_without_headers",
        claim: "A request is matched that lacks a header, or has another value.",
        source: "Istio: HTTPMatchRequest withoutHeaders",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "conditions",
                &[
                    ("GET", "/without", "", V2),
                    ("GET", "/without", "x-stay: no", V2),
                    ("GET", "/without", "x-stay: yes", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_without_any_value",
        claim: "A request is matched that lacks a header, where the rule names any value.",
        source: "istio: virtualServiceCases, without headers regex convert to present_match",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "conditions",
                &[
                    ("GET", "/bare", "", V2),
                    ("GET", "/bare", "x-any: whatever", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_pseudo_headers",
        claim: "A condition on a pseudo-header is one on what it stands for.",
        source: "istio: virtualServiceCases, pseudo header matches",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "conditions",
                &[("OPTIONS", "/", "", V2), ("GET", "/", "", V1)],
            ))
        },
    },
    Check {
        id: "mesh::the_first_rule_that_holds_is_taken",
        claim: "A rule that takes everything keeps requests from those behind it.",
        source: "istio: virtualServiceCases, catch all route short circuit the other routes",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "caught",
                &[("GET", "/", "", V1), ("GET", "/later", "", V1)],
            ))
        },
    },
    Check {
        id: "mesh::matches_all_conditions_together",
        claim: "All conditions of a match have to hold.",
        source: "Istio: HTTPMatchRequest, \"all conditions inside a single match block have AND semantics\"",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(taken(
                scope,
                "matched",
                &[
                    ("GET", "/together", "x-both: yes", V2),
                    ("GET", "/together", "", V1),
                    ("GET", "/", "x-both: yes", V1),
                ],
            ))
        },
    },
    Check {
        id: "mesh::matches_authorities",
        claim: "A request is matched by the name that it calls the host.",
        source: "Istio: HTTPMatchRequest authority",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(matches_authorities(scope)),
    },
    Check {
        id: "mesh::matches_ports",
        claim: "A request is matched by the Service's port that it is for.",
        source: "Istio: HTTPMatchRequest port",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(matches_ports(scope)),
    },
    Check {
        id: "mesh::matches_labels_of_the_client",
        claim: "A rule for clients of a label is in force in their sidecars, and in no others.",
        source: "Istio: HTTPMatchRequest sourceLabels",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(matches_labels_of_the_client(scope)),
    },
];

const V1: &str = "200 by backend-v1";
const V2: &str = "200 by backend-v2";

/// Method, path, header if any, who answers.
type Case = (&'static str, &'static str, &'static str, &'static str);

/// Judges requests for a host by the fixture's client.
async fn taken(scope: &Scope, host: &str, cases: &[Case]) -> Outcome {
    let client = client(scope).await?;
    let mut expected = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (method, path, header, who) in cases {
        let header = Some((*header).to_owned()).filter(|header| !header.is_empty());
        let spec = RequestSpec {
            method: (*method).to_owned(),
            headers: header.clone().into_iter().collect(),
            ..RequestSpec::get(format!("http://{host}{path}"))
        };
        let case = format!("{method} {path} {}", header.unwrap_or_default());
        let replies = client.request(&spec).await?.0;
        expected.insert(case.clone(), (*who).to_owned());
        seen.insert(case, replies.iter().map(said::said).collect::<String>());
    }
    judge(scope, host, &expected, &seen).await
}

async fn judge(
    scope: &Scope,
    host: &str,
    expected: &BTreeMap<String, String>,
    seen: &BTreeMap<String, String>,
) -> Outcome {
    let outcome = expect_eq(
        format!("who answers for host {host}"),
        expected,
        seen,
        "a condition of the rule is read in another way than Istio's",
    );
    explain_host(scope, outcome, host).await
}

/// Judges GETs, each from a place and of a URL.
async fn asked(scope: &Scope, cases: &[(&Vantage, String, &str)]) -> Outcome {
    let mut expected = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (from, url, who) in cases {
        let case = format!("{url} from {}", from.name());
        expected.insert(case.clone(), (*who).to_owned());
        seen.insert(case, said::said(&from.get(url).await?));
    }
    judge(scope, "conditions", &expected, &seen).await
}

async fn matches_authorities(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let long = format!("http://conditions.{}/", scope.fixture());
    let short = "http://conditions/".to_owned();
    asked(scope, &[(&client, long, V2), (&client, short, V1)]).await
}

async fn matches_ports(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let other = "http://conditions:81/".to_owned();
    let first = "http://conditions:80/".to_owned();
    asked(scope, &[(&client, other, V2), (&client, first, V1)]).await
}

async fn matches_labels_of_the_client(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let other = of_fixture(scope, "version=v1").await?;
    let url = "http://conditions/from-client".to_owned();
    asked(scope, &[(&client, url.clone(), V2), (&other, url, V1)]).await
}
