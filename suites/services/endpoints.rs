//! What is behind a Service, and what happens when that changes.
//!
//! Start from [`SUITE`]. Each check has pods of its own to change; a change is awaited first, and
//! only what settles is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use strata::wire::{ApiSpec, RequestSpec};
use strata::{
    Check, Eventually, Expect, Layer, Need, NoVerdict, Outcome, PodView, Scope, Suite, Vantage,
    expect, expect_eq,
};

use super::{address, at, explain, glance, node_port, only, refusal};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::endpoint_slices_list_the_ready_pods",
        claim: "The EndpointSlices of a Service list its ready pods, all of them, and nothing else.",
        source: "sig-network: should create Endpoints and EndpointSlices for Pods matching a Service",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(endpoint_slices_list_the_ready_pods(scope)),
    },
    Check {
        id: "services::api_endpoints",
        claim: "The EndpointSlices of default/kubernetes and its Endpoints list the same addresses and ports, and at each of them the API server answers a pod.",
        source: "sig-network: should have Endpoints and EndpointSlices pointing to API Server",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(api_endpoints(scope)),
    },
    Check {
        id: "services::hand_made_slice",
        claim: "A Service without a selector leads to the endpoint that a hand-made EndpointSlice gives it.",
        source: "Kubernetes: Services without selectors, EndpointSlices",
        needs: &[],
        manifest: Some("services/hand_made_slice.yaml"),
        run: |scope| Box::pin(hand_made_slice(scope)),
    },
    Check {
        id: "services::unready_pod_gets_nothing",
        claim: "A pod that is not ready receives nothing, and receives its share again when it is.",
        source: "sig-network: should update endpoints: http; Kubernetes: readiness probes",
        needs: &[],
        manifest: Some("services/unready_pod_gets_nothing.yaml"),
        run: |scope| Box::pin(unready_pod_gets_nothing(scope)),
    },
    Check {
        id: "services::publishes_not_ready_addresses",
        claim: "A Service with publishNotReadyAddresses serves by a pod that is not ready, in DNS too; another over the same pod does not.",
        source: "sig-network: should create endpoints for unready pods",
        needs: &[],
        manifest: Some("services/publishes_not_ready_addresses.yaml"),
        run: |scope| Box::pin(publishes_not_ready_addresses(scope)),
    },
    Check {
        id: "services::scales_to_zero_and_back",
        claim: "A Service refuses connections while its Deployment is scaled to zero, and serves again afterwards.",
        source: "sig-network: should be able to up and down services",
        needs: &[],
        manifest: Some("services/scales_to_zero_and_back.yaml"),
        run: |scope| Box::pin(scales_to_zero_and_back(scope)),
    },
    Check {
        id: "services::survives_its_pods",
        claim: "A Service keeps its name and cluster IP when the pod behind it is replaced, and leads to the new one.",
        source: "tutorial, \"providing a stable name for Pods\"",
        needs: &[],
        manifest: Some("services/survives_its_pods.yaml"),
        run: |scope| Box::pin(survives_its_pods(scope)),
    },
    Check {
        id: "services::affinity_is_switched_off",
        claim: "Switching sessionAffinity off spreads a client's connections over all endpoints again.",
        source: "sig-network: should be able to switch session affinity for service with type clusterIP",
        needs: &[],
        manifest: Some("services/affinity_is_switched_off.yaml"),
        run: |scope| Box::pin(affinity_is_switched_off(scope)),
    },
    Check {
        id: "services::internal_traffic_policy",
        claim: "With internalTrafficPolicy Local a client reaches only pods of its own node.",
        source: "Kubernetes: Service spec.internalTrafficPolicy (KEP-2086)",
        needs: &[Need::Version(22), Need::Nodes(2)],
        manifest: Some("services/internal_traffic_policy.yaml"),
        run: |scope| Box::pin(internal_traffic_policy(scope)),
    },
    Check {
        id: "services::changes_type",
        claim: "A Service is changed from ClusterIP to NodePort, ExternalName and back, and behaves as each.",
        source: "sig-network: should be able to change the type from ExternalName to ClusterIP; sig-network: should be able to change the type from NodePort to ExternalName",
        needs: &[],
        manifest: Some("services/changes_type.yaml"),
        run: |scope| Box::pin(changes_type(scope)),
    },
];

async fn endpoint_slices_list_the_ready_pods(scope: &Scope) -> Outcome {
    let pods = scope.ready_pods("app=backend").await?;
    let expected = pods
        .iter()
        .map(|pod| (pod.ip.to_string(), true, 8080))
        .collect();
    let slices: Vec<EndpointSlice> = scope.list("kubernetes.io/service-name=backend").await?;
    let mut listed = BTreeSet::new();
    for slice in &slices {
        let port = slice
            .ports
            .iter()
            .flatten()
            .find_map(|port| port.port)
            .unwrap_or_default();
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|it| it.ready) != Some(false);
            let address = endpoint.addresses.first().cloned().unwrap_or_default();
            listed.insert((address, ready, port));
        }
    }
    expect_eq(
        "addresses, readiness and port in the EndpointSlices of Service backend",
        &expected,
        &listed,
        "the EndpointSlice controller lags behind, or the Service's selector matches other pods",
    )
}

async fn api_endpoints(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let slices: Vec<EndpointSlice> = scope
        .list_in("default", "kubernetes.io/service-name=kubernetes")
        .await?;
    let listed: BTreeSet<_> = slices.iter().flat_map(in_slice).collect();
    let endpoints: Endpoints = scope.get_in("default", "kubernetes").await?;
    let subsets = endpoints.subsets.into_iter().flatten();
    let legacy: BTreeSet<_> = subsets.flat_map(|subset| in_subset(&subset)).collect();
    expect_eq(
        "whether the EndpointSlices of default/kubernetes list any address and port, and those that they list",
        &(true, &legacy),
        &(!listed.is_empty(), &listed),
        "nobody keeps one of the two up to date: the API server does (--endpoint-reconciler-type), unless it is told not to",
    )?;
    for endpoint in listed {
        let spec = ApiSpec {
            connect_to: Some(endpoint.clone()),
            ..ApiSpec::default()
        };
        let replies = client.ask(&spec).await?;
        let seen = replies
            .first()
            .map(|api| (said::status(&api.reply), api.version.is_some()));
        expect_eq(
            format!(
                "GET https://kubernetes.default/version of {endpoint}: the answer, and whether it tells a version"
            ),
            &Some(("200".to_owned(), true)),
            &seen,
            "an API server that is gone is still listed, or pods do not reach the node that it runs on",
        )?;
    }
    Ok(())
}

/// The addresses of a slice, each with each of its ports.
fn in_slice(slice: &EndpointSlice) -> Vec<String> {
    let ports = slice.ports.iter().flatten().filter_map(|port| port.port);
    let ports: Vec<_> = ports.collect();
    let addresses = slice.endpoints.iter().flat_map(|one| &one.addresses);
    each(addresses, &ports)
}

/// The same of a subset of legacy Endpoints.
fn in_subset(subset: &EndpointSubset) -> Vec<String> {
    let ports: Vec<_> = subset.ports.iter().flatten().map(|it| it.port).collect();
    let addresses = subset.addresses.iter().flatten().map(|one| &one.ip);
    each(addresses, &ports)
}

fn each<'a>(addresses: impl Iterator<Item = &'a String>, ports: &[i32]) -> Vec<String> {
    let ips = addresses.filter_map(|address| address.parse::<IpAddr>().ok());
    let each = ips.flat_map(|ip| {
        let ports = ports.iter().filter_map(|port| u16::try_from(*port).ok());
        ports.map(move |port| at(ip, port))
    });
    each.collect()
}

async fn hand_made_slice(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let web = only(scope.ready_pods("app=web").await?)?;
    // Its name is told by cluster DNS and its refusal by the nodes, each as soon as they know of it.
    scope
        .eventually(Eventually {
            what: "GET http://by-hand/ before the Service has an endpoint",
            expected: "refused".to_owned(),
            observe: async || refusal(&client, "http://by-hand/").await,
            likely: "something gives endpoints to a Service without a selector",
        })
        .await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": "by-hand", "labels": { "kubernetes.io/service-name": "by-hand" } },
        "addressType": if web.ip.is_ipv4() { "IPv4" } else { "IPv6" },
        // A Service's unnamed port takes its endpoints from a slice's unnamed port.
        "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [web.ip], "conditions": { "ready": true } }],
    });
    scope.apply(&slice.to_string()).await?;
    let outcome = answers(scope, &client, "by-hand", 5, [&web]).await;
    explain(scope, outcome, "by-hand", 80, &client).await
}

async fn unready_pod_gets_nothing(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=web").await?;
    let [first, second] = pods.as_slice() else {
        return Err(NoVerdict::new(format!(
            "the manifest asks for two pods, and there are {}",
            pods.len()
        ))
        .into());
    };
    let requests = scope.enough(40, 2)?;
    answers(scope, &client, "web", requests, [first, second]).await?;
    turn(&client, first, false).await?;
    let outcome = answers(scope, &client, "web", 40, [second]).await;
    explain(scope, outcome, "web", 80, &client).await?;
    turn(&client, first, true).await?;
    let requests = scope.enough(40, 2)?;
    let outcome = answers(scope, &client, "web", requests, [first, second]).await;
    explain(scope, outcome, "web", 80, &client).await
}

async fn publishes_not_ready_addresses(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let web = only(scope.ready_pods("app=web").await?)?;
    turn(&client, &web, false).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "GET http://web/ and http://early/, and the addresses of early-names, while the only pod is not ready",
            expected: ("refused".to_owned(), "200 by web".to_owned(), vec![web.ip]),
            observe: async || {
                let web = said::said(&client.get("http://web/").await?);
                let early = said::said(&client.get("http://early/").await?);
                Ok((web, early, client.dns("early-names", "A").await?.addresses))
            },
            likely: "the EndpointSlice controller does not look at publishNotReadyAddresses",
        })
        .await;
    explain(scope, outcome, "early", 80, &client).await
}

async fn scales_to_zero_and_back(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let scale = async |replicas: u32| {
        let patch = json!({ "spec": { "replicas": replicas } });
        scope.merge::<Deployment>("web", patch).await.map(|_| ())
    };
    // A refusal is asked for once at a time: it is an ICMP message, of which the kernel sends one a
    // second after the first few (icmp_ratelimit).
    for (replicas, requests, expected) in [
        (0, 1, (0, BTreeMap::from([("refused".to_owned(), 1)]))),
        (2, scope.enough(40, 2)?, (2, BTreeMap::new())),
    ] {
        scale(replicas).await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!(
                    "how many pods answer {requests} requests to http://web/ at {replicas} replicas, and failures"
                ),
                expected,
                observe: async || {
                    let answers = client.request(&glance("http://web/", requests)).await?;
                    Ok((answers.served_by().len(), answers.failures()))
                },
                likely: "EndpointSlices or the node's rules do not follow the Deployment",
            })
            .await;
        explain(scope, outcome, "web", 80, &client).await?;
    }
    Ok(())
}

async fn survives_its_pods(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let before: Service = scope.get("web").await?;
    let old = only(scope.ready_pods("app=web").await?)?;
    scope.delete::<Pod>(&old.name).await?;
    let new = only(scope.ready_pods("app=web").await?)?;
    let outcome = answers(scope, &client, "web", 10, [&new]).await;
    explain(scope, outcome, "web", 80, &client).await?;
    expect_eq(
        "the cluster IP before and after, and whether the pod is another",
        &(address(&before), true),
        &(address(&scope.get("web").await?), old.name != new.name),
        "the Service was made anew",
    )
}

async fn affinity_is_switched_off(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    // Two pods: connections that all go to one of them are no chance, nor is it when they do not.
    let requests = scope.enough(40, 2)?;
    let pods = async || {
        Ok(client
            .request(&glance("http://web/", requests))
            .await?
            .served_by()
            .len())
    };
    for (affinity, expected) in [("ClientIP", 1), ("None", 2)] {
        let patch = json!({ "spec": { "sessionAffinity": affinity } });
        scope.merge::<Service>("web", patch).await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!(
                    "how many pods answer 40 connections with sessionAffinity {affinity}"
                ),
                expected,
                observe: pods,
                likely: "the node goes on by the affinities that it remembers",
            })
            .await;
        explain(scope, outcome, "web", 80, &client).await?;
    }
    Ok(())
}

async fn internal_traffic_policy(scope: &Scope) -> Outcome {
    let web = only(scope.ready_pods("app=web").await?)?;
    let clients = scope.ready_pods("app=client").await?;
    let spec = RequestSpec {
        timeout_ms: 1000,
        ..RequestSpec::get("http://web/")
    };
    // Side by side, since silence takes its time.
    let judged = join_all(clients.iter().map(async |pod| {
        let client = scope.from_pod(pod);
        let beside = pod.node == web.node;
        let expected = if beside { "200 by web" } else { "nobody" };
        let outcome = scope
            .eventually(Eventually {
                what: &format!(
                    "GET http://web/ from {}, where the pod is on {}",
                    pod.node, web.node
                ),
                expected: expected.to_owned(),
                observe: async || {
                    let answers = client.request(&spec).await?;
                    Ok(said::nobody(answers.0.iter().map(said::said).collect()))
                },
                likely: "the proxy ignores internalTrafficPolicy",
            })
            .await;
        explain(scope, outcome, "web", 80, &client).await
    }));
    judged.await.into_iter().collect::<Outcome>()?;
    let elsewhere = clients.iter().any(|pod| pod.node != web.node);
    expect(elsewhere, || Expect {
        what: "clients on other nodes than the pod's".to_owned(),
        expected: "at least one".to_owned(),
        observed: "none".to_owned(),
        likely: "the DaemonSet does not run on every node".to_owned(),
    })
}

async fn changes_type(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let clear = json!({ "type": "ExternalName", "externalName": "api.example.com", "clusterIP": null, "clusterIPs": null });
    let steps: [(&str, Value, Seen); 3] = [
        (
            "NodePort",
            json!({ "type": "NodePort" }),
            seen(true, true, "200", "none"),
        ),
        (
            "ExternalName",
            clear,
            seen(false, false, "elsewhere", "api.example.com."),
        ),
        (
            "ClusterIP",
            json!({ "type": "ClusterIP", "externalName": null }),
            seen(true, false, "200", "none"),
        ),
    ];
    for (kind, patch, expected) in steps {
        scope
            .merge::<Service>("web", json!({ "spec": patch }))
            .await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!("Service web as {kind}: whether it has a cluster IP and a node port, its answer, and its CNAME"),
                expected,
                observe: async || {
                    let service: Service = scope.get("web").await?;
                    let cname = client.dns("web", "CNAME").await?;
                    let ports = (address(&service) != "none", node_port(&service) != 0);
                    let reply = client.get("http://web/").await?;
                    // As an ExternalName it leads to a name of somebody else's: that it is not our pod
                    // that answers is all that can be said.
                    let ours = reply.pod() == Some("web");
                    let answer = if ours { said::status(&reply) } else { "elsewhere".to_owned() };
                    let cname = cname.data("CNAME").next().unwrap_or("none").to_owned();
                    Ok((ports.0, ports.1, answer, cname))
                },
                likely: "cluster DNS or the node's rules still follow the former type",
            })
            .await;
        explain(scope, outcome, "web", 80, &client).await?;
    }
    Ok(())
}

type Seen = (bool, bool, String, String);

fn seen(cluster_ip: bool, node_port: bool, answer: &str, cname: &str) -> Seen {
    (cluster_ip, node_port, answer.to_owned(), cname.to_owned())
}

/// Waits until exactly these pods answer for a Service, and no request fails.
pub(super) async fn answers(
    scope: &Scope,
    client: &Vantage,
    name: &str,
    requests: u64,
    pods: impl IntoIterator<Item = &PodView>,
) -> Outcome {
    let expected: BTreeSet<_> = pods.into_iter().map(|pod| pod.name.clone()).collect();
    scope
        .eventually(Eventually {
            what: &format!(
                "the pods that answer {requests} requests to http://{name}/, and failures"
            ),
            expected: (expected, BTreeMap::new()),
            observe: async || {
                let answers = client
                    .request(&glance(format!("http://{name}/"), requests))
                    .await?;
                Ok((answers.served_by(), answers.failures()))
            },
            likely: "the client's node still follows an older EndpointSlice",
        })
        .await
}

/// Turns a pod's readiness on or off, by its own address.
pub(super) async fn turn(client: &Vantage, pod: &PodView, ready: bool) -> Result<(), NoVerdict> {
    let spec = RequestSpec {
        method: "POST".to_owned(),
        ..RequestSpec::get(format!("http://{}/ready/{ready}", at(pod.ip, 8080)))
    };
    let answers = client.request(&spec).await?;
    match answers.0.first().map(said::status) {
        Some(status) if status == "200" => Ok(()),
        other => Err(NoVerdict::new(format!(
            "Pod {} was asked to change its readiness and said {other:?}",
            pod.name
        ))),
    }
}
