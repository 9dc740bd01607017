//! Services and cluster DNS: stable names and addresses for pods that come and go.
//!
//! Start from [`SUITE`], the gates; `cluster_ip` judges traffic to a Service, `datagrams` that of UDP, `endpoints`
//! what changes behind it and `changes` the Service itself, `conditions` what its EndpointSlices say, `affinity` who
//! stays with whom, `outside` node ports, load balancers and names of elsewhere, `balancer` what balances them, `dns`
//! names and `resolver` how pods find and keep them, `policies` NetworkPolicies, `proxied` the way by the API server, `families` which address families it has,
//! `dual_stack` what both are good for, `both_families` their datagrams, and `come_and_go` endpoints by either of them and by either protocol; `restarts` what outlives its proxies.

pub(crate) mod affinity;
pub(crate) mod balancer;
pub(crate) mod both_families;
pub(crate) mod changes;
pub(crate) mod cluster_ip;
pub(crate) mod come_and_go;
pub(crate) mod conditions;
pub(crate) mod datagrams;
pub(crate) mod dns;
pub(crate) mod dual_stack;
pub(crate) mod endpoints;
pub(crate) mod families;
pub(crate) mod outside;
pub(crate) mod policies;
pub(crate) mod proxied;
pub(crate) mod resolver;
pub(crate) mod restarts;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use strata::wire::{FailureKind, Reply, RequestSpec};
use strata::{
    Check, Eventually, Layer, NoVerdict, Outcome, PodView, Scope, Subject, Suite, Vantage,
};

use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: GATES,
    checks: &[],
};

const GATES: &[Check] = &[
    Check {
        id: "services::api_is_reachable",
        claim: "A pod reaches the API server by the name kubernetes.default, and its certificate is good.",
        source: "sig-network: should provide secure master service",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(api_is_reachable(scope)),
    },
    Check {
        id: "services::dns_answers",
        claim: "Cluster DNS gives the cluster IP of a Service of the own namespace, and of one of another.",
        source: "Kubernetes DNS specification, 2.3.1; sig-network: should provide DNS for the cluster",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(dns_answers(scope)),
    },
    Check {
        id: "services::cluster_ip",
        claim: "The tutorial's Service backend takes requests on port 80 of its cluster IP, by its short name, to port 8080 of a pod.",
        source: "tutorial, \"Test it from a Pod: curl backend\"; sig-network: should serve a basic endpoint from pods",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(cluster_ip(scope)),
    },
];

async fn api_is_reachable(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let outcome = scope
        .eventually(Eventually {
            what: "GET https://kubernetes.default/version with the pod's token: the answer, and whether it tells a version",
            expected: ("200".to_owned(), true),
            observe: async || {
                let reply = client.kubernetes_api().await?;
                Ok((said::status(&reply.reply), reply.version.is_some()))
            },
            likely: "Service default/kubernetes leads nowhere on the client's node, or its certificate lacks the name",
        })
        .await;
    let subject = Subject::Service {
        namespace: "default",
        name: "kubernetes",
        port: Some(443),
        from: &client,
    };
    scope.explain(outcome, subject).await
}

async fn dns_answers(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let api: Service = scope.get_in("default", "kubernetes").await?;
    let names = ["backend", "kubernetes.default"];
    let outcome = scope
        .eventually(Eventually {
            what: "the addresses of backend and of kubernetes.default",
            expected: vec![address(&scope.get("backend").await?), address(&api)],
            observe: async || {
                let mut seen = Vec::new();
                for name in names {
                    let reply = client.dns(name, "A").await?;
                    seen.push(match (&reply.error, reply.addresses.first()) {
                        (Some(error), _) => error.kind.to_string(),
                        (None, address) => address.map_or_else(|| "none".to_owned(), ToString::to_string),
                    });
                }
                Ok(seen)
            },
            likely: "the pods of kube-dns are not ready or not reached; or the pod's resolv.conf names another server",
        })
        .await;
    scope.explain(outcome, Subject::Dns { from: &client }).await
}

async fn cluster_ip(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let service: Service = scope.get("backend").await?;
    let outcome = scope
        .eventually(Eventually {
            what: "GET http://backend/: the answer, where it was sent, and the port that it arrived at",
            expected: ("200".to_owned(), format!("{}:80", address(&service)), 8080),
            observe: async || {
                let reply = client.get("http://backend/").await?;
                let sent = reply.remote.map_or_else(|| "nowhere".to_owned(), |to| to.to_string());
                Ok((said::status(&reply), sent, arrived(&reply)))
            },
            likely: "the selector matches no ready pod, or the client's node has no rule for the Service",
        })
        .await;
    explain(scope, outcome, "backend", 80, &client).await
}

/// So many GETs, a few at a time.
fn burst(url: impl Into<String>, count: u64) -> RequestSpec {
    RequestSpec {
        count,
        concurrency: 8,
        ..RequestSpec::get(url)
    }
}

/// The same for a look of several: silence is noticed soon, since what is looked at may still be changing.
fn glance(url: impl Into<String>, count: u64) -> RequestSpec {
    RequestSpec {
        timeout_ms: 2000,
        ..burst(url, count)
    }
}

/// The port at which a request arrived in its pod; 0 if it arrived at none.
fn arrived(reply: &Reply) -> u16 {
    reply
        .answer
        .as_ref()
        .map_or(0, |answer| answer.local.port())
}

/// The cluster IP; `none` without.
fn address(service: &Service) -> String {
    let ip = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.clone());
    ip.filter(|ip| !ip.is_empty())
        .unwrap_or_else(|| "none".to_owned())
}

/// The node port of the first port; 0 without.
fn node_port(service: &Service) -> u16 {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| u16::try_from(port.node_port?).ok())
        .next()
        .unwrap_or_default()
}

fn names(pods: &[PodView]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.name.clone()).collect()
}

fn at(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

fn only(pods: Vec<PodView>) -> Result<PodView, NoVerdict> {
    let first = pods.into_iter().next();
    first.ok_or_else(|| NoVerdict::new("the manifest made no such pod"))
}

/// The fixture's client, for checks whose own manifest has none.
async fn client(scope: &Scope) -> Result<Vantage, NoVerdict> {
    let pods = scope.ready_pods_in(scope.fixture(), "app=client").await?;
    Ok(scope.from_pod(&only(pods)?))
}

/// What comes of a request where nobody is to answer. One that is lost says nothing by itself: a node tells each
/// address of what it refuses no more often than about once a second, whichever check it is for (RFC 1812
/// §4.3.2.8; `icmp_ratelimit` of Linux). So it is asked again, twice: who drops it drops every one.
async fn refusal(from: &Vantage, url: &str) -> Result<String, NoVerdict> {
    let lost = FailureKind::TimedOut.to_string();
    for _ in 0..3 {
        let said = said::status(&from.get(url.to_owned()).await?);
        if said != lost {
            return Ok(said);
        }
    }
    Ok(lost)
}

/// A Service of the check's own namespace, as clients of another one call it.
fn named(scope: &Scope, name: &str) -> String {
    format!("{name}.{}", scope.namespace())
}

async fn explain(
    scope: &Scope,
    outcome: Outcome,
    name: &str,
    port: u16,
    from: &Vantage,
) -> Outcome {
    let subject = Subject::Service {
        namespace: scope.namespace(),
        name,
        port: Some(port),
        from,
    };
    scope.explain(outcome, subject).await
}
