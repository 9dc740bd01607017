//! What a DestinationRule says of a destination, and for whom rules are.
//!
//! Start from [`SUITE`].

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use strata::wire::{HttpVersion, Protocol, RequestSpec, TcpSpec};
use strata::{Check, Eventually, Layer, NoVerdict, Outcome, Scope, Suite, Vantage, expect_eq};

use super::{ask, by_address, client, explain_host, get, identity, spiffe};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::hashes_by_header",
        claim: "Requests with one value of a header go to one endpoint, and those with many values to all.",
        source: "istio: consistentHashCases, http header",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(hashes(scope, "hashed-by-header", by_header)),
    },
    Check {
        id: "mesh::hashes_by_query",
        claim: "Requests with one value of a query parameter go to one endpoint, and those with many values to all.",
        source: "istio: consistentHashCases, query param",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(hashes(scope, "hashed-by-query", by_query)),
    },
    Check {
        id: "mesh::hashes_by_cookie",
        claim: "Requests of one cookie go to one pod, and those of others also to the other.",
        source: "istio: consistentHashCases, http cookie without ttl",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(hashes(scope, "hashed-by-cookie", by_cookie)),
    },
    Check {
        id: "mesh::hashes_by_a_cookie_that_is_given",
        claim: "A client without the cookie that a rule hashes by is given one that lives as long as the rule says, and goes to one pod with it.",
        source: "istio: consistentHashCases, http cookie with ttl",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(hashes_by_a_cookie_that_is_given(scope)),
    },
    Check {
        id: "mesh::hashes_connections_by_source",
        claim: "Connections of one client to a port for bytes go to one pod where the rule hashes by source.",
        source: "istio: consistentHashCases, tcp source ip",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(hashes_connections_by_source(scope)),
    },
    Check {
        id: "mesh::hashes_by_source",
        claim: "Requests of one client go to one endpoint, whatever connection they come by.",
        source: "istio: consistentHashCases, source ip",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(hashes_by_source(scope)),
    },
    Check {
        id: "mesh::plain_text_by_rule",
        claim: "A DestinationRule without TLS has its Service called in plain text, and any other is called by mutual TLS.",
        source: "istio: security/reachability_test.go, Reachability; Istio: ClientTLSSettings mode DISABLE",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(plain_text_by_rule(scope)),
    },
    Check {
        id: "mesh::speaks_the_clients_http2",
        claim: "A client that speaks HTTP/2 is passed on in it where the rule says so, and in HTTP/1.1 where none does.",
        source: "istio: useClientProtocolCases, use client protocol with h2",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(speaks(scope, HttpVersion::H2, [Protocol::H2, Protocol::H1])),
    },
    Check {
        id: "mesh::speaks_the_clients_http1",
        claim: "A client that speaks HTTP/1.1 is passed on in it where the rule says so.",
        source: "istio: useClientProtocolCases, use client protocol with h1",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(speaks(scope, HttpVersion::H1, [Protocol::H1, Protocol::H1])),
    },
    Check {
        id: "mesh::follows_labels",
        claim: "A pod whose label changes leaves the one subset and joins the other.",
        source: "istio: pilot/label_test.go, LabelChanges",
        needs: &[],
        manifest: Some("mesh/follows_labels.yaml"),
        run: |scope| Box::pin(follows_labels(scope)),
    },
    Check {
        id: "mesh::exported_to_its_namespace",
        claim: "A rule that is for its own namespace only is not in force in another, where one for all is.",
        source: "Istio: VirtualService exportTo",
        needs: &[],
        manifest: Some("mesh/exported_to_its_namespace.yaml"),
        run: |scope| Box::pin(exported_to_its_namespace(scope)),
    },
];

/// How many values are asked for, each twice: at random, they are all answered by one pod each with
/// probability 2⁻³², and all by the same with 2·2⁻³².
const VALUES: u64 = 32;

/// A request of a host with a value to be hashed.
type Hashed = fn(RequestSpec, &str) -> RequestSpec;

fn by_header(spec: RequestSpec, value: &str) -> RequestSpec {
    RequestSpec {
        headers: vec![format!("x-user: {value}")],
        ..spec
    }
}

fn by_query(spec: RequestSpec, value: &str) -> RequestSpec {
    RequestSpec {
        url: format!("{}?user={value}", spec.url),
        ..spec
    }
}

fn by_cookie(spec: RequestSpec, value: &str) -> RequestSpec {
    RequestSpec {
        headers: vec![format!("cookie: session={value}")],
        ..spec
    }
}

async fn hashes_by_a_cookie_that_is_given(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let host = "hashed-by-given-cookie";
    let base = by_address(scope, host, "/").await?;
    let first = client.request(&base).await?.0.into_iter().next();
    let given = first.as_ref().and_then(|reply| reply.header("set-cookie"));
    let given = given.unwrap_or("none").replace('"', "");
    let (cookie, rest) = given.split_once(';').unwrap_or((&given, ""));
    let lives = rest.to_ascii_lowercase().contains("max-age=600");
    let spec = RequestSpec {
        headers: vec![format!("cookie: {cookie}")],
        count: 20,
        ..base
    };
    // At random, 20 requests all go to the pod of the first with probability 2⁻²⁰.
    let answers = client.request(&spec).await?;
    let pod = first.as_ref().and_then(strata::wire::Reply::pod);
    let outcome = expect_eq(
        "whether a cookie `given` is given, whether it lives for 600 s, and whether the pod that gave it alone answers 20 requests with it",
        &(true, true, true),
        &(
            cookie.starts_with("given="),
            lives,
            answers.failures().is_empty() && answers.served_by().iter().map(String::as_str).eq(pod),
        ),
        "the DestinationRule's httpCookie is not compiled into the client's sidecar",
    );
    explain(scope, outcome, host, &client).await
}

async fn hashes_connections_by_source(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let mut seen = Vec::new();
    for host in ["bytes", "bytes-hashed"] {
        let spec = TcpSpec {
            count: 40,
            concurrency: 8,
            ..TcpSpec::new(format!("{host}:9000"))
        };
        let replies = client.tcp(&spec).await?.into_iter();
        let who =
            |reply: strata::wire::TcpReply| said::who(reply.error.as_ref(), reply.answer.as_ref());
        seen.push(replies.map(who).collect::<BTreeSet<_>>().len());
    }
    // At random, 40 connections all go to one of two endpoints with probability 2·2⁻⁴⁰.
    let outcome = expect_eq(
        "how many pods answer 40 connections of one client to port 9000 of hosts bytes, which has no rule, and bytes-hashed",
        &vec![2, 1],
        &seen,
        "the DestinationRule's consistentHash is not compiled into the client's listener for bytes",
    );
    explain(scope, outcome, "bytes-hashed", &client).await
}

async fn hashes(scope: &Scope, host: &str, hashed: Hashed) -> Outcome {
    let client = client(scope).await?;
    let base = RequestSpec {
        count: 2,
        ..by_address(scope, host, "/").await?
    };
    let mut all = BTreeSet::new();
    let mut torn = BTreeMap::new();
    for value in (0..scope.enough(VALUES, 2)?).map(|number| format!("user-{number}")) {
        let answers = client.request(&hashed(base.clone(), &value)).await?;
        let pods = answers.served_by();
        if pods.len() != 1 || !answers.failures().is_empty() {
            torn.insert(value, (pods.clone(), answers.failures()));
        }
        all.extend(pods);
    }
    let outcome = expect_eq(
        format!(
            "the pods that answer {VALUES} values for host {host}, each twice, and the values that are not answered by one alone"
        ),
        &(
            ["backend-v1", "backend-v2"].map(str::to_owned).into(),
            BTreeMap::new(),
        ),
        &(all, torn),
        "the DestinationRule's consistentHash is not compiled into the client's sidecar",
    );
    explain(scope, outcome, host, &client).await
}

async fn hashes_by_source(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let host = "hashed-by-source";
    let spec = RequestSpec {
        count: 40,
        ..by_address(scope, host, "/").await?
    };
    // At random, 40 requests all go to one of two endpoints with probability 2·2⁻⁴⁰.
    let answers = client.request(&spec).await?;
    let outcome = expect_eq(
        "how many pods answer 40 requests of one client for host hashed-by-source, and failures",
        &(1, BTreeMap::new()),
        &(answers.served_by().len(), answers.failures()),
        "the DestinationRule's consistentHash is not compiled into the client's sidecar",
    );
    explain(scope, outcome, host, &client).await
}

async fn explain(scope: &Scope, outcome: Outcome, host: &str, from: &Vantage) -> Outcome {
    let subject = strata::Subject::Service {
        namespace: scope.fixture(),
        name: host,
        port: Some(80),
        from,
    };
    scope.explain(outcome, subject).await
}

async fn plain_text_by_rule(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let plain = get(scope, "http://plain/").await?;
    let secure = get(scope, "http://backend-v1/").await?;
    let served = "200 by backend-v1".to_owned();
    let outcome = expect_eq(
        "GET http://plain/ and http://backend-v1/, which are one pod: the answers, and the identities that it is told",
        &[
            (served.clone(), "none".to_owned()),
            (served, spiffe(scope, "client")),
        ],
        &[&plain, &secure].map(|reply| (said::said(reply), identity(reply))),
        "the DestinationRule's tls is not compiled into the client's sidecar",
    );
    explain(scope, outcome, "plain", &client).await
}

/// Judges the versions in which hosts as-client and backend-v1, which are one pod, are asked.
async fn speaks(scope: &Scope, http: HttpVersion, expected: [Protocol; 2]) -> Outcome {
    let mut seen = Vec::new();
    for host in ["as-client", "backend-v1"] {
        let spec = RequestSpec {
            http,
            ..RequestSpec::get(format!("http://{host}/"))
        };
        let reply = ask(scope, &spec).await?;
        let arrived = reply.answer.as_ref().map(|answer| answer.protocol);
        seen.push((said::said(&reply), arrived));
    }
    let outcome = expect_eq(
        "the answers of hosts as-client, which has a rule, and backend-v1, and the versions of HTTP that arrived",
        &expected
            .map(|protocol| ("200 by backend-v1".to_owned(), Some(protocol)))
            .to_vec(),
        &seen,
        "the DestinationRule's useClientProtocol is not compiled into the client's sidecar",
    );
    let client = client(scope).await?;
    explain(scope, outcome, "as-client", &client).await
}

async fn follows_labels(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let base = format!("http://web.{}", scope.namespace());
    for (version, expected) in [
        ("first", ["200 by web", "503"]),
        ("second", ["503", "200 by web"]),
    ] {
        let patch = json!({ "metadata": { "labels": { "version": version } } });
        scope.merge::<Pod>("web", patch).await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET {base}/first and /second, each led to the subset of its name, where the one pod is {version}"),
                expected: expected.map(str::to_owned),
                observe: async || {
                    let first = client.get(format!("{base}/first")).await?;
                    let second = client.get(format!("{base}/second")).await?;
                    Ok([said::said(&first), said::said(&second)])
                },
                likely: "the client's sidecar is not told when a pod's labels change",
            })
            .await;
        explain_host(scope, outcome, "web").await?;
    }
    Ok(())
}

async fn exported_to_its_namespace(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let ask = async |host: &str| -> Result<String, NoVerdict> {
        let url = format!("http://{host}.{}/", scope.namespace());
        Ok(said::said(&client.get(url).await?))
    };
    let outcome = scope
        .eventually(Eventually {
            what: "GET of hosts everywhere and here, whose rules answer with 299, from a pod of another namespace",
            expected: ["299", "200 by web"].map(str::to_owned),
            observe: async || Ok([ask("everywhere").await?, ask("here").await?]),
            likely: "the rule's exportTo is read in another way than Istio's",
        })
        .await;
    explain_host(scope, outcome, "here").await
}
