//! What a VirtualService's rules do with the requests that they take.
//!
//! Start from [`SUITE`]. The rules are in the fixture, a host each.

use std::collections::BTreeMap;

use strata::wire::{RequestSpec, TcpSpec};
use strata::{Check, Eventually, Expect, Layer, Outcome, Scope, Subject, Suite, expect, expect_eq};

use super::{ask, by_address, client, explain_host, get};
use crate::said;
use crate::shares::{Shares, shares};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::routes_to_subsets",
        claim: "Subsets of a DestinationRule divide one Service by its pods' labels.",
        source: "Istio: DestinationRule subsets",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(routes_to_subsets(scope)),
    },
    Check {
        id: "mesh::rewrites_the_path",
        claim: "A rewrite replaces the prefix that was matched, and the rest of the path stays.",
        source: "istio: virtualServiceCases, rewrite uri; Istio: HTTPRewrite",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(rewrites_the_path(scope)),
    },
    Check {
        id: "mesh::redirects",
        claim: "A redirect is answered by the sidecar, with the status, host and path that the rule says.",
        source: "istio: virtualServiceCases, redirect; Istio: HTTPRedirect",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(redirects(scope)),
    },
    Check {
        id: "mesh::changes_headers",
        claim: "Headers are set, added and removed on requests, and set and removed on answers.",
        source: "istio: virtualServiceCases, added header; istio: virtualServiceCases, set header; Istio: Headers",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(changes_headers(scope)),
    },
    Check {
        id: "mesh::aborts_on_purpose",
        claim: "An injected abort is answered with its status and never reaches the backend; other paths do.",
        source: "istio: virtualServiceCases, fault abort; Istio: HTTPFaultInjection",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(aborts_on_purpose(scope)),
    },
    Check {
        id: "mesh::aborts_by_percentage",
        claim: "An abort of 30 % hits 30 % of the requests.",
        source: "Istio: HTTPFaultInjection.Abort percentage",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(aborts_by_percentage(scope)),
    },
    Check {
        id: "mesh::delays_on_purpose",
        claim: "An injected delay holds each request back for at least that long, and it is served.",
        source: "Istio: HTTPFaultInjection.Delay",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(delays_on_purpose(scope)),
    },
    Check {
        id: "mesh::times_out",
        claim: "A request that takes longer than the rule's timeout is answered with 504, and a quick one is served.",
        source: "Istio: HTTPRoute timeout",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(times_out(scope)),
    },
    Check {
        id: "mesh::missing_destination_is_503",
        claim: "A rule whose destination is no Service is answered with 503, other rules are served, and the missing host can be named.",
        source: "tutorial, hosts backend-v1 and backend-v2 that it never creates; istioctl analyze: IST0101",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(missing_destination_is_503(scope)),
    },
    Check {
        id: "mesh::removal_restores_the_service",
        claim: "A host whose VirtualService is taken away leads to its own Service again.",
        source: "Istio: traffic management, \"requests are distributed with no VirtualService as by the Service\"",
        needs: &[],
        manifest: Some("mesh/removal_restores_the_service.yaml"),
        run: |scope| Box::pin(removal_restores_the_service(scope)),
    },
    Check {
        id: "mesh::bytes_pass",
        claim: "A TCP port of a Service is served through the sidecars, byte for byte.",
        source: "Istio: protocol selection",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(bytes_pass(scope)),
    },
    Check {
        id: "mesh::foreign_hosts_are_passed_through",
        claim: "Connections that are no business of the mesh pass through it: the API server's certificate is its own.",
        source: "istio: telemetry/policy/traffic_allow_any_test.go, OutboundTrafficPolicy_AllowAny",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(foreign_hosts_are_passed_through(scope)),
    },
];

async fn routes_to_subsets(scope: &Scope) -> Outcome {
    let mut seen = BTreeMap::new();
    for path in ["/", "/second"] {
        let answers = client(scope)
            .await?
            .get_many(format!("http://subsets{path}"), 20)
            .await?;
        seen.insert(path, (answers.served_by(), answers.failures()));
    }
    let only = |pod: &str| ([pod.to_owned()].into(), BTreeMap::new());
    let expected = BTreeMap::from([("/", only("backend-v1")), ("/second", only("backend-v2"))]);
    let outcome = expect_eq(
        "the pods that answer 20 requests for host subsets, by path, and failures",
        &expected,
        &seen,
        "the DestinationRule's labels match other pods than the versions'",
    );
    explain_host(scope, outcome, "subsets").await
}

async fn rewrites_the_path(scope: &Scope) -> Outcome {
    let mut seen = BTreeMap::new();
    for path in ["/old", "/old/er?q=1", "/kept/old"] {
        let reply = get(scope, &format!("http://changed{path}")).await?;
        let arrived = reply
            .answer
            .map(|answer| format!("{}?{}", answer.path, answer.query));
        seen.insert(path, arrived.unwrap_or_default());
    }
    let expected = [
        ("/old", "/new?"),
        ("/old/er?q=1", "/new/er?q=1"),
        ("/kept/old", "/kept/old?"),
    ];
    let outcome = expect_eq(
        "the paths and queries at the backend, by what was asked for",
        &expected
            .map(|(asked, arrived)| (asked, arrived.to_owned()))
            .into(),
        &seen,
        "the sidecar replaces the whole path, or nothing",
    );
    explain_host(scope, outcome, "changed").await
}

async fn redirects(scope: &Scope) -> Outcome {
    let reply = get(scope, "http://changed/elsewhere").await?;
    let outcome = expect_eq(
        "GET http://changed/elsewhere: its answer and where it leads",
        &("302".to_owned(), Some("http://other.example.com/there")),
        &(said::said(&reply), reply.header("location")),
        "the sidecar passes the request on instead",
    );
    explain_host(scope, outcome, "changed").await
}

async fn changes_headers(scope: &Scope) -> Outcome {
    let spec = RequestSpec {
        headers: vec![
            "x-set: client".into(),
            "x-added: client".into(),
            "x-removed: client".into(),
        ],
        ..RequestSpec::get("http://changed/")
    };
    let reply = ask(scope, &spec).await?;
    let at_backend = |name: &str| {
        reply
            .answer
            .as_ref()
            .and_then(|answer| answer.headers.get(name).cloned())
    };
    let words = |words: &[&str]| {
        Some(
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    };
    let outcome = expect_eq(
        "x-set, x-added and x-removed at the backend; x-from-mesh and x-strata-node at the client",
        &(
            words(&["mesh"]),
            words(&["client", "mesh"]),
            None,
            Some("yes"),
            None,
        ),
        &(
            at_backend("x-set"),
            at_backend("x-added"),
            at_backend("x-removed"),
            reply.header("x-from-mesh"),
            reply.header("x-strata-node"),
        ),
        "the sidecar does not apply the rule's headers",
    );
    explain_host(scope, outcome, "changed").await
}

async fn aborts_on_purpose(scope: &Scope) -> Outcome {
    let aborted = said::said(&get(scope, "http://faulty/abort").await?);
    let served = said::said(&get(scope, "http://faulty/").await?);
    let outcome = expect_eq(
        "GET /abort and / of host faulty",
        &("418".to_owned(), "200 by backend-v1".to_owned()),
        &(aborted, served),
        "the fault is not compiled into the client's sidecar",
    );
    explain_host(scope, outcome, "faulty").await
}

async fn aborts_by_percentage(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let outcome = shares(
        scope,
        &client,
        &by_address(scope, "faulty", "/sometimes").await?,
        Shares {
            what: "the answers of a rule that aborts 30 % of its requests with status 299",
            arms: &[("299", 30.0), ("200 by backend-v1", 70.0)],
            arm_of: said::said,
            // Ignored, or of everything: ten points tell these from 30 %.
            tolerance: 0.1,
            likely: "the fault's percentage is ignored or rounded",
        },
    )
    .await;
    explain_host(scope, outcome, "faulty").await
}

async fn delays_on_purpose(scope: &Scope) -> Outcome {
    let answers = client(scope)
        .await?
        .get_many("http://faulty/delay", 3)
        .await?;
    let fastest = answers
        .0
        .iter()
        .map(|reply| reply.latency_us)
        .min()
        .unwrap_or_default();
    scope.record("delay.fastest_us", fastest);
    let outcome = expect_eq(
        "failures among three delayed requests, and whether even the fastest took the 300 ms of the rule",
        &(BTreeMap::new(), true),
        &(answers.failures(), fastest >= 300_000),
        "the fault is not compiled into the client's sidecar",
    );
    explain_host(scope, outcome, "faulty").await
}

async fn times_out(scope: &Scope) -> Outcome {
    let slow = said::said(&get(scope, "http://faulty/timeout?delay_ms=4000").await?);
    let quick = said::said(&get(scope, "http://faulty/timeout").await?);
    let outcome = expect_eq(
        "GET /timeout of host faulty, where the backend waits for 4 s, and where it does not",
        &("504".to_owned(), "200 by backend-v1".to_owned()),
        &(slow, quick),
        "the rule's timeout is not compiled into the client's sidecar",
    );
    explain_host(scope, outcome, "faulty").await
}

async fn missing_destination_is_503(scope: &Scope) -> Outcome {
    let lost = get(scope, "http://lost/lost").await?;
    let served = said::said(&get(scope, "http://lost/").await?);
    let outcome = expect_eq(
        "GET /lost of host lost, whose destination is no Service, and / beside it",
        &("503".to_owned(), "200 by backend-v1".to_owned()),
        &(said::said(&lost), served),
        "requests to a destination that does not exist go somewhere after all",
    );
    explain_host(scope, outcome, "lost").await?;
    let broken = expect_eq(
        "GET http://lost/lost",
        &"200".to_owned(),
        &said::status(&lost),
        "to be named",
    );
    let cause = said::cause(&explain_host(scope, broken, "lost").await);
    scope.record("503 because", &cause);
    expect(cause.contains("backend-v3"), || Expect {
        what: "the cause that strata names for the 503".to_owned(),
        expected: "one that names the missing host, backend-v3".to_owned(),
        observed: cause,
        likely: "the diagnosis of mesh hosts does not look at destinations".to_owned(),
    })
}

async fn removal_restores_the_service(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let url = format!("http://web.{}/", scope.namespace());
    for (taken_away, expected) in [(false, "200 by other"), (true, "200 by web")] {
        if taken_away {
            scope
                .delete_kind("networking.istio.io/v1", "VirtualService", "web")
                .await?;
        }
        let outcome = scope
            .eventually(Eventually {
                what: &format!(
                    "GET {url}, its VirtualService {}",
                    if taken_away { "taken away" } else { "there" }
                ),
                expected: expected.to_owned(),
                observe: async || Ok(said::said(&client.get(&url).await?)),
                likely: "the client's sidecar keeps routes that are gone",
            })
            .await;
        explain_host(scope, outcome, "web").await?;
    }
    Ok(())
}

async fn bytes_pass(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let spec = TcpSpec {
        bytes: 100_000,
        ..TcpSpec::new("bytes:9000")
    };
    let replies = client.tcp(&spec).await?;
    let who = said::tcp(&replies);
    let received = replies.first().map(|reply| reply.received);
    let outcome = expect_eq(
        "an echo of 100,000 bytes through bytes:9000: whether a backend answers, and how much came back",
        &(true, Some(100_000)),
        &(who.starts_with("backend-v"), received),
        "the sidecar takes the port for HTTP",
    );
    let subject = Subject::Service {
        namespace: scope.namespace(),
        name: "bytes",
        port: Some(9000),
        from: &client,
    };
    scope.explain(outcome, subject).await
}

async fn foreign_hosts_are_passed_through(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let reply = client.kubernetes_api().await?;
    let outcome = expect_eq(
        "GET https://kubernetes.default/version from a pod with a sidecar, the certificate verified",
        &("200".to_owned(), true),
        &(said::status(&reply.reply), reply.version.is_some()),
        "the sidecar ends TLS that is not its own, or sends it to nobody",
    );
    let subject = Subject::Sidecar {
        namespace: scope.namespace(),
        apps: &["client"],
    };
    scope.explain(outcome, subject).await
}
