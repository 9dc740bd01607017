//! Hosts by all their names, and what rules say of hosts, ports, headers and pages.
//!
//! Start from [`SUITE`]. The rules are in the fixture, a host each.

use std::collections::BTreeSet;

use strata::wire::{HttpVersion, RequestSpec};
use strata::{Check, Layer, Outcome, Scope, Suite, expect_eq};

use super::{ask, client, explain_host, get};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::hosts_by_all_their_names",
        claim: "A Service's rule holds whichever of its names a request's Host header is, with the port and in other case too, at a port that says what it speaks and at one that does not.",
        source: "istio: hostCases, …",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(by_all_their_names(scope)),
    },
    Check {
        id: "mesh::redirects_to_the_requests_port",
        claim: "A redirect that takes its port from the request leads to the port that was asked.",
        source: "istio: virtualServiceCases, redirect request port",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(redirects_to_the_requests_port(scope)),
    },
    Check {
        id: "mesh::matches_headers_of_any_name",
        claim: "A header is matched whose name has every character that a name may have.",
        source: "istio: virtualServiceCases, weird header matches; RFC 9110, 5.6.2",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(matches_headers_of_any_name(scope)),
    },
    Check {
        id: "mesh::sets_hosts_by_several_destinations",
        claim: "Of several destinations each is asked for the host that it sets, and for the rule's if that sets one.",
        source: "istio: virtualServiceCases, set host header multi destination; istio: virtualServiceCases, set host header in route and multi destination",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(sets_hosts_by_several_destinations(scope)),
    },
    Check {
        id: "mesh::cors_by_origin",
        claim: "Pages of an allowed origin are told that they may ask and read, and pages of others nothing.",
        source: "istio: virtualServiceCases, cors",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(cors_by_origin(scope)),
    },
    Check {
        id: "mesh::aborts_with_a_status_of_grpc",
        claim: "An injected abort with a status of gRPC is what the caller is told, and the backend never sees the call.",
        source: "istio: virtualServiceCases, fault abort gRPC",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(aborts_with_a_status_of_grpc(scope)),
    },
];

async fn by_all_their_names(scope: &Scope) -> Outcome {
    let namespace = scope.fixture();
    let names = [
        "called".to_owned(),
        "CALLED".to_owned(),
        format!("called.{namespace}"),
        format!("called.{namespace}.svc"),
        format!("called.{namespace}.svc.cluster.local"),
    ];
    let client = client(scope).await?;
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    for port in [80, 81] {
        let with_port = names.iter().map(|name| format!("{name}:{port}"));
        for name in names.iter().cloned().chain(with_port) {
            let spec = RequestSpec {
                host: Some(name.clone()),
                // Both versions stand behind the name: by turns, without a rule, each answers half.
                count: 6,
                ..RequestSpec::get(format!("http://called:{port}/"))
            };
            let answers = client.request(&spec).await?.0;
            let said: BTreeSet<_> = answers.iter().map(said::said).collect();
            let case = format!("{name} at port {port}");
            expected.push((
                case.clone(),
                BTreeSet::from(["200 by backend-v2".to_owned()]),
            ));
            seen.push((case, said));
        }
    }
    let outcome = expect_eq(
        "who answers six requests of a Service whose rule leads to backend-v2, by Host header",
        &expected,
        &seen,
        "the sidecar knows a Service by some of its names only",
    );
    explain_host(scope, outcome, "called").await
}

async fn redirects_to_the_requests_port(scope: &Scope) -> Outcome {
    let mut seen = Vec::new();
    for port in [80, 81] {
        let reply = get(scope, &format!("http://called:{port}/derived")).await?;
        let location = reply
            .header("location")
            .unwrap_or("none")
            .replace(":80/", "/");
        seen.push((said::said(&reply), location));
    }
    let outcome = expect_eq(
        "GET http://called/derived and http://called:81/derived: the answer, and where it leads",
        &[
            "http://moved.example.com/derived",
            "http://moved.example.com:81/derived",
        ]
        .map(|location| ("301".to_owned(), location.to_owned()))
        .to_vec(),
        &seen,
        "the redirect's derivePort is not compiled into the client's sidecar",
    );
    explain_host(scope, outcome, "called").await
}

async fn matches_headers_of_any_name(scope: &Scope) -> Outcome {
    let mut seen = Vec::new();
    for value in ["yes", "no"] {
        let spec = RequestSpec {
            headers: vec![format!("x-odd!#$%&'*+.^_`|~9: {value}")],
            ..RequestSpec::get("http://conditions/")
        };
        seen.push(said::said(&ask(scope, &spec).await?));
    }
    let outcome = expect_eq(
        "who answers a request whose oddly named header has the value of a rule, and another value",
        &["200 by backend-v2", "200 by backend-v1"]
            .map(str::to_owned)
            .to_vec(),
        &seen,
        "the sidecar matches headers of usual names only",
    );
    explain_host(scope, outcome, "conditions").await
}

async fn sets_hosts_by_several_destinations(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let count = scope.enough(40, 2)?;
    let mut seen = Vec::new();
    for path in ["/hosts-of-arms", "/hosts-of-both"] {
        let answers = client
            .get_many(format!("http://remade{path}"), count)
            .await?;
        let told = answers.0.iter().map(|reply| {
            let host = reply.answer.as_ref().map(|answer| answer.host.clone());
            (said::said(reply), host.unwrap_or_default())
        });
        seen.push(told.collect::<BTreeSet<_>>());
    }
    let both = |hosts: [&str; 2]| {
        let pods = ["200 by backend-v1", "200 by backend-v2"].map(str::to_owned);
        BTreeSet::from_iter(pods.into_iter().zip(hosts.map(str::to_owned)))
    };
    let outcome = expect_eq(
        "who answers 40 requests whose rule has two destinations that each set the host, and for which host; and the same where the rule sets one, too",
        &vec![
            both(["v1.example.com", "v2.example.com"]),
            both(["rule.example.com"; 2]),
        ],
        &seen,
        "the sidecar sets one destination's host for all",
    );
    explain_host(scope, outcome, "remade").await
}

async fn cors_by_origin(scope: &Scope) -> Outcome {
    const HEADERS: [&str; 5] = [
        "access-control-allow-origin",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-max-age",
        "access-control-allow-credentials",
    ];
    let asked = async |method: &str, origin: &str| {
        let spec = RequestSpec {
            method: method.to_owned(),
            headers: vec![
                format!("Origin: {origin}"),
                "Access-Control-Request-Method: PUT".to_owned(),
            ],
            ..RequestSpec::get("http://shared/")
        };
        ask(scope, &spec).await
    };
    let told = async |origin: &str| {
        let preflight = asked("OPTIONS", origin).await?;
        let told = HEADERS.map(|name| preflight.header(name).unwrap_or("absent").to_owned());
        let answer = asked("GET", origin).await?;
        let readable = answer.header(HEADERS[0]).unwrap_or("absent").to_owned();
        Ok::<_, strata::NoVerdict>((told, readable))
    };
    let allowed = |origin: &str| {
        let told = [origin, "GET,PUT", "x-wanted", "600", "true"].map(str::to_owned);
        (told, origin.to_owned())
    };
    let nothing = (HEADERS.map(|_| "absent".to_owned()), "absent".to_owned());
    let seen = vec![
        told("https://app.example.com").await?,
        told("https://one.apps.example.com").await?,
        told("https://other.example.com").await?,
    ];
    let outcome = expect_eq(
        "what a preflight request tells of origin, methods, headers, age and credentials, and what an answer tells of the origin, for pages of two origins that are allowed and of one that is not",
        &vec![
            allowed("https://app.example.com"),
            allowed("https://one.apps.example.com"),
            nothing,
        ],
        &seen,
        "the VirtualService's corsPolicy is not compiled into the client's sidecar",
    );
    explain_host(scope, outcome, "shared").await
}

async fn aborts_with_a_status_of_grpc(scope: &Scope) -> Outcome {
    let spec = RequestSpec {
        method: "POST".to_owned(),
        headers: vec![
            "content-type: application/grpc".to_owned(),
            "te: trailers".to_owned(),
        ],
        http: HttpVersion::H2,
        ..RequestSpec::get("http://faulty/strata.Faulty/Do")
    };
    let reply = ask(scope, &spec).await?;
    let outcome = expect_eq(
        "a call of strata.Faulty/Do: the answer, and its status of gRPC",
        &("200".to_owned(), "14".to_owned()),
        &(
            said::said(&reply),
            reply.header("grpc-status").unwrap_or("absent").to_owned(),
        ),
        "the fault's grpcStatus is not compiled into the client's sidecar",
    );
    explain_host(scope, outcome, "faulty").await
}
