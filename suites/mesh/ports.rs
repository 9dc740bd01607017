//! Ports: several Services before one pod, servers at one of its addresses alone, and servers that speak first.
//!
//! Start from [`SUITE`]. The server is the fixture's `guarded`, whose path `/open` is open to everybody.

use strata::wire::TcpSpec;
use strata::{Check, Eventually, Layer, Outcome, Scope, Suite, expect_eq};

use super::authorization::SERVED;
use super::client;
use super::security::{callers, explain};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::services_may_share_ports",
        claim: "A pod behind several Services is reached by each at the port that it means, whether they share their own ports, the pod's, both or none, and whatever each says is spoken there.",
        source: "istio: serviceCases, …",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(services_may_share_ports(scope)),
    },
    Check {
        id: "mesh::serves_who_listens_at_the_pods_address",
        claim: "A server that listens at its pod's address alone is served through the sidecar.",
        source: "istio: instanceIPTests, by port",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(bound(scope, 80, SERVED)),
    },
    Check {
        id: "mesh::serves_nobody_who_listens_at_localhost",
        claim: "A server that listens at localhost alone is not reached from outside its pod: the sidecar answers with 503.",
        source: "istio: instanceIPTests, by port; Istio: Sidecar ingress defaultEndpoint",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(bound(scope, 81, "503")),
    },
    Check {
        id: "mesh::servers_may_speak_first",
        claim: "A server that speaks first is heard at a port that is said to be for bytes, by mutual TLS and, where neither side has any, without.",
        source: "istio: serverFirstTestCases, by port, mode and policy",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(servers_may_speak_first(scope)),
    },
];

async fn services_may_share_ports(scope: &Scope) -> Outcome {
    const OWN: &str = "own-port-again:80";
    let client = client(scope).await?;
    let ask = async || {
        let mut seen = Vec::new();
        for host in [
            "guarded",
            "both-ports-again",
            "pods-port-again:12345",
            "no-port-again:12346",
        ] {
            let reply = client.get(format!("http://{host}/open")).await?;
            let port = reply.answer.as_ref().map(|answer| answer.local.port());
            seen.push((host, said::said(&reply), port));
        }
        let replies = client.tcp(&TcpSpec::new(OWN)).await?;
        let answer = replies.first().and_then(|reply| reply.answer.as_ref());
        let port = answer.map(|answer| answer.local.port());
        seen.push((OWN, said::tcp(&replies), port));
        Ok(seen)
    };
    let served = SERVED.to_owned();
    let outcome = scope
        .eventually(Eventually {
            what: "what Services before one pod answer, and at which port the pod was reached",
            expected: vec![
                ("guarded", served.clone(), Some(8080)),
                ("both-ports-again", served.clone(), Some(8080)),
                ("pods-port-again:12345", served.clone(), Some(8080)),
                ("no-port-again:12346", served, Some(8086)),
                (OWN, "guarded".to_owned(), Some(9001)),
            ],
            observe: ask,
            likely: "a sidecar takes one Service's port for another's",
        })
        .await;
    explain(scope, outcome).await
}

/// Judges a port of Service bound, and a port where the pod listens at every address.
async fn bound(scope: &Scope, port: u16, expected: &str) -> Outcome {
    let (_, outsider) = callers(scope).await?;
    let client = client(scope).await?;
    let url = format!("http://bound:{port}/open");
    let outcome = scope
        .eventually(Eventually {
            what: &format!("GET {url} from inside the mesh and from outside it, and http://guarded/open"),
            expected: [expected, expected, SERVED].map(str::to_owned),
            observe: async || {
                Ok([
                    said::said(&client.get(&url).await?),
                    said::said(&outsider.get(&url).await?),
                    said::said(&client.get("http://guarded/open").await?),
                ])
            },
            likely: "the sidecar hands connections to another address of its pod than they were for",
        })
        .await;
    explain(scope, outcome).await
}

async fn servers_may_speak_first(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let mut seen = Vec::new();
    for port in [9002, 9003] {
        let spec = TcpSpec {
            silent: true,
            ..TcpSpec::new(format!("guarded:{port}"))
        };
        seen.push(said::tcp(&client.tcp(&spec).await?));
    }
    let outcome = expect_eq(
        "who is heard by a client that says nothing, at guarded:9002, where there is mutual TLS, and guarded:9003, where there is none",
        &vec!["guarded".to_owned(); 2],
        &seen,
        "a sidecar waits for the client's first bytes to find out what is spoken",
    );
    explain(scope, outcome).await
}
