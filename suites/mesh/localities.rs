//! Localities: whom a client is served by where some endpoints are near and others far.
//!
//! Start from [`SUITE`]. Pods say where they are by a label of Istio's, since nodes may be all in one place:
//! the fixture's `client` and `backend-v1` are in one zone, `backend-v2` is in the next, and `legacy` in another
//! region.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use strata::wire::{Reply, RequestSpec};
use strata::{
    Answers, Check, Eventually, Layer, Need, NoVerdict, Outcome, PodView, Scope, Suite, Vantage,
    expect_eq,
};

use super::security::explain;
use super::{by_address, client};
use crate::said;
use crate::shares::{Shares, shares};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::near_endpoints_come_first",
        claim: "Of a Service whose failing endpoints are ejected a client is served by those of its own zone alone, and by all where the rule switches localities off.",
        source: "istio: pilot/locality_test.go, Locality; Istio: LocalityLoadBalancerSetting",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(near_endpoints_come_first(scope)),
    },
    Check {
        id: "mesh::fails_over_by_distance",
        claim: "While no endpoint of its own zone is ready a client is served by its region's, without those by the region that the rule names, and then by any other's.",
        source: "istio: pilot/locality_test.go, Locality; Istio: LocalityLoadBalancerSetting failover",
        needs: &[],
        manifest: Some("mesh/fails_over_by_distance.yaml"),
        run: |scope| Box::pin(fails_over_by_distance(scope)),
    },
    Check {
        id: "mesh::nodes_say_where_pods_are",
        claim: "A pod that says nothing of its locality is where its node is: a client is served by the endpoints of its node's zone first, and by others' when there are none.",
        source: "Istio: locality load balancing, labels topology.kubernetes.io/region and topology.kubernetes.io/zone",
        needs: &[Need::Zones(2)],
        manifest: Some("mesh/nodes_say_where_pods_are.yaml"),
        run: |scope| Box::pin(nodes_say_where_pods_are(scope)),
    },
    Check {
        id: "mesh::shares_by_locality",
        claim: "Places receive the shares that a rule gives them for the client's own, and one that it does not name nothing.",
        source: "istio: pilot/locality_test.go, Locality; Istio: LocalityLoadBalancerSetting distribute",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(shares_by_locality(scope)),
    },
];

async fn near_endpoints_come_first(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let count = scope.enough(100, 3)?;
    let mut seen = Vec::new();
    for host in ["placed", "unplaced"] {
        let spec = RequestSpec {
            count,
            ..by_address(scope, host, "/").await?
        };
        let answers = client.request(&spec).await?;
        seen.push((answers.served_by(), answers.failures()));
    }
    let pods = |pods: &[&str]| {
        let pods: BTreeSet<String> = pods.iter().map(|pod| (*pod).to_owned()).collect();
        (pods, BTreeMap::new())
    };
    let outcome = expect_eq(
        "the pods that answer 100 requests for host placed, and for unplaced, which is the same pods without localities; and failures",
        &vec![
            pods(&["backend-v1"]),
            pods(&["backend-v1", "backend-v2", "legacy"]),
        ],
        &seen,
        "the client's sidecar is not told where endpoints are, or where it is itself",
    );
    explain(scope, outcome).await
}

/// Requests of the check's own Service, whose address they know already.
async fn to_web(scope: &Scope) -> Result<RequestSpec, NoVerdict> {
    let service: Service = scope.get("web").await?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip);
    let ip = ip.ok_or_else(|| NoVerdict::new("Service web has no cluster IP"))?;
    Ok(RequestSpec {
        connect_to: Some(format!("{ip}:80")),
        concurrency: 8,
        count: 40,
        ..RequestSpec::get(format!("http://web.{}/", scope.namespace()))
    })
}

/// Has a server say that it is ready, or that it is not.
async fn turn(server: &Vantage, ready: bool) -> Result<Answers, NoVerdict> {
    let spec = RequestSpec {
        method: "POST".to_owned(),
        ..RequestSpec::get(format!("http://127.0.0.1:8080/ready/{ready}"))
    };
    server.request(&spec).await
}

async fn fails_over_by_distance(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let spec = to_web(scope).await?;
    let url = &spec.url;
    let settled = async |away: &str, pod: &str| {
        let outcome = scope
            .eventually(Eventually {
                what: &format!("the answers to 40 GET {url} while {away}"),
                expected: BTreeSet::from([format!("200 by {pod}")]),
                observe: async || Ok(client.request(&spec).await?.0.iter().map(said::said).collect()),
                likely: "the client's sidecar is not told where endpoints are, or takes them in another order",
            })
            .await;
        explain(scope, outcome).await
    };
    let near = scope.pod("place=near").await?;
    settled("all are ready", "near").await?;
    turn(&near, false).await?;
    settled("near is not ready", "next-zone").await?;
    turn(&scope.pod("place=next-zone").await?, false).await?;
    settled("near and next-zone are not", "named-region").await?;
    turn(&scope.pod("place=named-region").await?, false).await?;
    settled("far alone is", "far").await?;
    turn(&near, true).await?;
    settled("near and far are", "near").await
}

/// How many of region, zone and part of a zone two nodes share, from the largest.
fn nearness(nodes: &BTreeMap<String, [String; 3]>, one: &str, other: &str) -> usize {
    let places = nodes.get(one).into_iter().flatten();
    let places = places.zip(nodes.get(other).into_iter().flatten());
    places.take_while(|(one, other)| one == other).count()
}

async fn nodes_say_where_pods_are(scope: &Scope) -> Outcome {
    let nodes = scope.nodes().await?.into_iter().map(|node| {
        let labels = node.metadata.labels.unwrap_or_default();
        let label = |name| labels.get(name).cloned().unwrap_or_default();
        let place = [
            "topology.kubernetes.io/region",
            "topology.kubernetes.io/zone",
            "topology.istio.io/subzone",
        ];
        (node.metadata.name.unwrap_or_default(), place.map(label))
    });
    let nodes: BTreeMap<_, _> = nodes.collect();
    let caller = scope.pod("app=caller").await?;
    let home = caller.pod().map(|pod| pod.node.clone()).unwrap_or_default();
    let servers = scope.ready_pods("app=outside-the-mesh").await?;
    let near = |pod: &PodView| nearness(&nodes, &home, &pod.node);
    let nearest = servers.iter().map(near).max().unwrap_or_default();
    let (near, far): (Vec<_>, Vec<_>) = servers.iter().partition(|pod| near(pod) == nearest);
    if far.is_empty() {
        return Err(NoVerdict::new("the servers are all in one zone").into());
    }
    let spec = to_web(scope).await?;
    let settled = async |what: &str, allowed: &[&PodView]| {
        let allowed: BTreeSet<String> = allowed.iter().map(|pod| pod.name.clone()).collect();
        let outcome = scope
            .eventually(Eventually {
                what: &format!("failures, and who answers of those that should not, while {what}"),
                expected: (BTreeMap::new(), BTreeSet::new()),
                observe: async || {
                    let answers = caller.request(&spec).await?;
                    let others = answers.served_by().difference(&allowed).cloned().collect();
                    Ok((answers.failures(), others))
                },
                likely: "the client's sidecar is not told the localities of nodes, or not its own",
            })
            .await;
        explain(scope, outcome).await
    };
    settled("all are ready", &near).await?;
    for pod in &near {
        turn(&scope.from_pod(pod), false).await?;
    }
    settled("those of the client's zone are not", &far).await
}

async fn shares_by_locality(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let spec = by_address(scope, "shared-out", "/").await?;
    let outcome = shares(
        scope,
        &client,
        &spec,
        Shares {
            what: "who answers http://shared-out/, whose rule gives the client's zone 30 % and another region 70 %",
            arms: &[("backend-v1", 30.0), ("legacy", 70.0), ("backend-v2", 0.0)],
            arm_of,
            tolerance: 0.1,
            likely: "the rule's distribute is not compiled into the client's sidecar",
        },
    )
    .await;
    explain(scope, outcome).await
}

fn arm_of(reply: &Reply) -> String {
    reply.pod().map_or_else(|| said::said(reply), str::to_owned)
}
