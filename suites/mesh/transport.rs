//! How connections get to a pod and into it: by mutual TLS or without, past the sidecar or through it.
//!
//! Start from [`SUITE`].

use std::collections::BTreeSet;

use strata::wire::TcpSpec;
use strata::{Check, Eventually, Layer, NoVerdict, Outcome, Scope, Suite, Vantage, expect_eq};

use super::security::{callers, cut_off, explain};
use super::{client, get, identity, of_fixture, spiffe};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::a_pod_calls_its_own_service",
        claim: "A pod that calls the Service that it alone is behind gets there through its own sidecar, out and in.",
        source: "istio: selfCallsCases, to service",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(calls_itself(scope, Itself::Service)),
    },
    Check {
        id: "mesh::a_pod_calls_itself_by_localhost",
        claim: "A pod that calls itself by localhost does so past its sidecar.",
        source: "istio: selfCallsCases, to localhost",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(calls_itself(scope, Itself::Localhost)),
    },
    Check {
        id: "mesh::a_pod_calls_itself_by_its_address",
        claim: "A pod that calls itself by its own address does so past its sidecar.",
        source: "istio: selfCallsCases, to podIP",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(calls_itself(scope, Itself::Address)),
    },
    Check {
        id: "mesh::port_15001_is_closed_to_others",
        claim: "A connection to the port where a pod's own connections go out ends without an answer, and the pod serves on.",
        source: "istio: trafficLoopCases, by port",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(own_port_is_closed(scope, 15001)),
    },
    Check {
        id: "mesh::port_15006_is_closed_to_others",
        claim: "A connection to the port where redirected connections come in ends without an answer, and the pod serves on.",
        source: "istio: trafficLoopCases, by port",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(own_port_is_closed(scope, 15006)),
    },
    Check {
        id: "mesh::headless_services_are_called_by_mutual_tls",
        claim: "A headless Service is served over HTTP, and its pod is told who asks.",
        source: "istio: security/reachability_test.go, Reachability",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(headless_services_are_called_by_mutual_tls(scope)),
    },
    Check {
        id: "mesh::bytes_of_headless_services_pass",
        claim: "A TCP port of a headless Service is served through the sidecars.",
        source: "Istio: protocol selection",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(bytes_of_headless_services_pass(scope)),
    },
    Check {
        id: "mesh::routes_connections_by_rule",
        claim: "A rule for connections leads those of the clients that it is for to its destination, and others elsewhere.",
        source: "Istio: TCPRoute, L4MatchAttributes port and sourceLabels",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(routes_connections_by_rule(scope)),
    },
    Check {
        id: "mesh::strict_at_one_port",
        claim: "A port that takes mutual TLS only cuts plain text off, while another port of the pod takes both.",
        source: "istio: security/reachability_test.go, Reachability; Istio: PeerAuthentication portLevelMtls",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(strict_at_one_port(scope)),
    },
    Check {
        id: "mesh::no_mutual_tls_at_one_port",
        claim: "A port that takes no mutual TLS is served in plain text, also by a client of the mesh.",
        source: "istio: security/reachability_test.go, Reachability; Istio: PeerAuthentication portLevelMtls, DISABLE",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(no_mutual_tls_at_one_port(scope)),
    },
    Check {
        id: "mesh::workload_overrides_namespace",
        claim: "A workload's own PeerAuthentication goes before its namespace's.",
        source: "istio: security/reachability_test.go, Reachability; Istio: PeerAuthentication, selector",
        needs: &[],
        manifest: Some("mesh/workload_overrides_namespace.yaml"),
        run: |scope| Box::pin(workload_overrides_namespace(scope)),
    },
];

/// The ways in which a pod calls itself.
#[derive(Debug, Clone, Copy)]
enum Itself {
    Service,
    Localhost,
    Address,
}

async fn calls_itself(scope: &Scope, way: Itself) -> Outcome {
    let own = of_fixture(scope, "version=v1").await?;
    // A sidecar that took the request would tell who it is from.
    let (url, told) = match way {
        // Its short name is the pod's own, which leads to it past the Service.
        Itself::Service => {
            let url = format!("http://backend-v1.{}/", scope.fixture());
            (url, spiffe(scope, "backend"))
        }
        Itself::Localhost => ("http://127.0.0.1:8080/".to_owned(), "none".to_owned()),
        Itself::Address => (
            format!("http://{}:8080/", address(&own)?),
            "none".to_owned(),
        ),
    };
    let reply = own.get(&url).await?;
    let outcome = expect_eq(
        format!("GET {url} from the pod itself: the answer, and the identity that it is told"),
        &("200 by backend-v1".to_owned(), told),
        &(said::said(&reply), identity(&reply)),
        "the redirection to the sidecar takes a pod's calls to itself otherwise than Istio's",
    );
    explain(scope, outcome).await
}

fn address(pod: &Vantage) -> Result<std::net::IpAddr, NoVerdict> {
    let view = pod
        .pod()
        .ok_or_else(|| NoVerdict::new("the vantage is no pod"))?;
    Ok(view.ip)
}

async fn own_port_is_closed(scope: &Scope, port: u16) -> Outcome {
    let (client, outsider) = callers(scope).await?;
    let pod = of_fixture(scope, "version=v1").await?;
    let url = format!("http://{}:{port}/", address(&pod)?);
    let asked = [
        cut_off(said::said(&outsider.get(&url).await?)),
        cut_off(said::said(&client.get(&url).await?)),
        // Were the connection led round in the sidecar, this would not be answered any more.
        said::said(&client.get("http://backend-v1/").await?),
    ];
    let outcome = expect_eq(
        format!("GET {url} from outside the mesh and from inside it, and then http://backend-v1/"),
        &["cut off", "cut off", "200 by backend-v1"].map(str::to_owned),
        &asked,
        "the sidecar passes connections to its own ports on, which is a loop",
    );
    explain(scope, outcome).await
}

async fn headless_services_are_called_by_mutual_tls(scope: &Scope) -> Outcome {
    let reply = get(scope, "http://headless:8080/").await?;
    let outcome = expect_eq(
        "GET http://headless:8080/: the answer, and the identity told",
        &("200 by backend-v1".to_owned(), spiffe(scope, "client")),
        &(said::said(&reply), identity(&reply)),
        "the client's sidecar takes the pod's address for nobody's of the mesh",
    );
    explain(scope, outcome).await
}

async fn bytes_of_headless_services_pass(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let spec = TcpSpec {
        bytes: 10_000,
        ..TcpSpec::new("headless:9000")
    };
    let replies = client.tcp(&spec).await?;
    let received = replies.first().map(|reply| reply.received);
    let outcome = expect_eq(
        "an echo of 10,000 bytes through headless:9000: who answers, and how much came back",
        &("backend-v1".to_owned(), Some(10_000)),
        &(said::tcp(&replies), received),
        "the sidecar takes the port for HTTP, or the pod's address for nobody's",
    );
    explain(scope, outcome).await
}

async fn routes_connections_by_rule(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let other = of_fixture(scope, "version=v1").await?;
    let mut seen = Vec::new();
    for from in [&client, &other] {
        let spec = TcpSpec {
            count: 20,
            ..TcpSpec::new("bytes-routed:9000")
        };
        let replies = from.tcp(&spec).await?;
        let each = replies
            .iter()
            .map(|reply| said::who(reply.error.as_ref(), reply.answer.as_ref()));
        seen.push(each.collect::<BTreeSet<_>>());
    }
    let only = |pod: &str| BTreeSet::from([pod.to_owned()]);
    let outcome = expect_eq(
        "who answers 20 connections to bytes-routed:9000 of the client that the rule is for, and of another",
        &vec![only("backend-v2"), only("backend-v1")],
        &seen,
        "the VirtualService's tcp rules are not compiled into the clients' sidecars",
    );
    super::explain_host(scope, outcome, "bytes-routed").await
}

async fn strict_at_one_port(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let (_, outsider) = callers(scope).await?;
    let seen = [
        said::said(&client.get("http://guarded:81/open").await?),
        cut_off(said::said(&outsider.get("http://guarded:81/open").await?)),
        said::said(&outsider.get("http://guarded:80/open").await?),
    ];
    let outcome = expect_eq(
        "GET http://guarded:81/open from inside the mesh and from outside it, and from outside at port 80",
        &["200 by guarded", "cut off", "200 by guarded"].map(str::to_owned),
        &seen,
        "the PeerAuthentication's portLevelMtls is not compiled into the server's sidecar",
    );
    explain(scope, outcome).await
}

async fn no_mutual_tls_at_one_port(scope: &Scope) -> Outcome {
    let plain = get(scope, "http://guarded:82/open").await?;
    let secure = get(scope, "http://guarded:80/open").await?;
    let served = "200 by guarded".to_owned();
    let outcome = expect_eq(
        "GET http://guarded:82/open and :80/open: the answers, and the identities told",
        &[
            (served.clone(), "none".to_owned()),
            (served, spiffe(scope, "client")),
        ],
        &[&plain, &secure].map(|reply| (said::said(reply), identity(reply))),
        "the client's sidecar does not heed the server's PeerAuthentication",
    );
    explain(scope, outcome).await
}

async fn workload_overrides_namespace(scope: &Scope) -> Outcome {
    let (client, outsider) = callers(scope).await?;
    let url = |host: &str| format!("http://{host}.{}/", scope.namespace());
    let outcome = scope
        .eventually(Eventually {
            what: "GET of hosts strict and lenient from inside the mesh, and of both from outside it",
            expected: ["200 by strict", "200 by lenient", "cut off", "200 by lenient"].map(str::to_owned),
            observe: async || {
                let mut seen = Vec::new();
                for from in [&client, &outsider] {
                    for host in ["strict", "lenient"] {
                        seen.push(cut_off(said::said(&from.get(url(host)).await?)));
                    }
                }
                seen.try_into().map_err(|_| NoVerdict::new("not four answers"))
            },
            likely: "the PeerAuthentication with a selector does not go before the namespace's",
        })
        .await;
    explain(scope, outcome).await
}
