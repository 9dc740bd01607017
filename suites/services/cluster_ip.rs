//! Traffic to a Service: which pods receive it, at which port, and from whom.
//!
//! Start from [`SUITE`]. Nothing here changes anything; the fixture's Services have one shape each.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use strata::verdict::bound;
use strata::verdict::chance::Test;
use strata::wire::{RequestSpec, TcpSpec, UdpSpec};
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite, expect_eq};

use super::datagrams::answered;
use super::{address, arrived, burst, explain, glance, names, refusal};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::reaches_every_ready_endpoint",
        claim: "A ClusterIP Service sends requests to every ready pod behind it, and to no other.",
        source: "sig-network: should function for pod-Service: http",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(reaches_every_ready_endpoint(scope)),
    },
    Check {
        id: "services::spreads_connections_evenly",
        claim: "A Service gives each of its endpoints the same share of new connections.",
        source: "Kubernetes: virtual IPs, kube-proxy chooses backends at random",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(spreads_connections_evenly(scope)),
    },
    Check {
        id: "services::keeps_the_source_address",
        claim: "A pod that is called by a cluster IP sees its client's pod IP.",
        source: "sig-network: should preserve source pod IP for traffic thru service cluster IP",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(keeps_the_source_address(scope)),
    },
    Check {
        id: "services::hairpin",
        claim: "A pod reaches itself through its own Service.",
        source: "sig-network: should allow pods to hairpin back to themselves through services",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(hairpin(scope)),
    },
    Check {
        id: "services::cluster_ip_is_the_default_type",
        claim: "A Service that names no type is of type ClusterIP and serves.",
        source: "tutorial, \"ClusterIP: The default type\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(cluster_ip_is_the_default_type(scope)),
    },
    Check {
        id: "services::two_services_share_pods",
        claim: "Two Services over the same pods lead to the same pods.",
        source: "sig-network: should function for multiple endpoint-Services with same selector",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(two_services_share_pods(scope)),
    },
    Check {
        id: "services::named_target_port_differs_per_pod",
        claim: "A targetPort that is a name leads to whichever port each pod calls so.",
        source: "Kubernetes: Services, \"a port name can have different numbers in different pods\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(named_target_port_differs_per_pod(scope)),
    },
    Check {
        id: "services::several_ports",
        claim: "Each port of a Service of several leads to its own target port.",
        source: "sig-network: should serve multiport endpoints from pods",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(several_ports(scope)),
    },
    Check {
        id: "services::udp_reaches_every_endpoint",
        claim: "A UDP port of a Service sends datagrams to every ready pod.",
        source: "sig-network: should function for pod-Service: udp",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(udp_reaches_every_endpoint(scope)),
    },
    Check {
        id: "services::tcp_and_udp_share_a_port_number",
        claim: "One port number of a Service serves TCP and UDP, each to its own target port.",
        source: "sig-network: should be able to update service type to NodePort listening on same port number but different protocols",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(tcp_and_udp_share_a_port_number(scope)),
    },
    Check {
        id: "services::client_ip_affinity",
        claim: "With sessionAffinity ClientIP all connections of a client go to one of the three pods; without it they go to all.",
        source: "sig-network: should have session affinity work for service with type clusterIP",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(client_ip_affinity(scope)),
    },
    Check {
        id: "services::nodes_reach_cluster_ips",
        claim: "Nodes reach cluster IPs as pods do.",
        source: "sig-network: should function for node-Service: http",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(nodes_reach_cluster_ips(scope)),
    },
    Check {
        id: "services::host_network_endpoints",
        claim: "Pods in their nodes' own network serve as endpoints.",
        source: "sig-network: should function for service endpoints using hostNetwork",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(host_network_endpoints(scope)),
    },
    Check {
        id: "services::no_endpoints_is_refused",
        claim: "Connections to a Service without endpoints are refused, rather than timing out.",
        source: "sig-network: should be rejected when no endpoints exist",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(no_endpoints_is_refused(scope)),
    },
    Check {
        id: "services::wrong_target_port_is_refused",
        claim: "Connections to a Service whose target port nobody listens on are refused.",
        source: "tutorial, \"targetPort: 8080\"; Kubernetes: debug Services, \"is the Service's targetPort correct\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(wrong_target_port_is_refused(scope)),
    },
];

async fn reaches_every_ready_endpoint(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    let requests = scope.enough(60, 3)?;
    let outcome = scope
        .eventually(Eventually {
            what: "the pods that answer 60 requests to http://backend/, and failures",
            expected: (names(&pods), BTreeMap::new()),
            observe: async || {
                let answers = client.request(&glance("http://backend/", requests)).await?;
                Ok((answers.served_by(), answers.failures()))
            },
            likely: "the client's node has not programmed an endpoint that the EndpointSlice lists",
        })
        .await;
    explain(scope, outcome, "backend", 80, &client).await
}

async fn spreads_connections_evenly(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    let url = format!("http://{}/", address(&scope.get("backend").await?));
    // A pod that gets 20 % instead of a third of 1200 connections is missed with a probability of less
    // than 1e-3; a test beside the judgement computes it. Shares say nothing where nobody or somebody
    // else answers, so that comes first, after each burst. That no request fails is for
    // `reaches_every_ready_endpoint`.
    const BURSTS: u64 = 12;
    let spec = RequestSpec {
        concurrency: 16,
        ..burst(&url, scope.enough(100, 3)?)
    };
    let outcome = scope
        .eventually(Eventually {
            what: "the pods that answer 100 connections to Service backend, before any is counted",
            expected: names(&pods),
            observe: async || Ok(client.request(&spec).await?.served_by()),
            likely: "the client's node has not programmed an endpoint that the EndpointSlice lists",
        })
        .await;
    explain(scope, outcome, "backend", 80, &client).await?;
    let mut counts = BTreeMap::<String, u64>::new();
    for _ in 0..BURSTS {
        let answers = client.request(&spec).await?;
        let outcome = expect_eq(
            "the pods that answer 100 connections to Service backend",
            &names(&pods),
            &answers.served_by(),
            "the client's node leads connections to one of the endpoints nowhere, or elsewhere",
        );
        explain(scope, outcome, "backend", 80, &client).await?;
        for (pod, count) in answers.counts() {
            *counts.entry(pod).or_default() += count;
        }
    }
    let alpha = scope.draw(Test::Even)?;
    scope.record("spread.counts", format!("{counts:?}"));
    scope.record("spread.alpha", format!("{alpha:e}"));
    let outcome = bound::judge_even(
        &counts.into_iter().collect::<Vec<_>>(),
        alpha,
        "the proxy does not choose at random, or hands out connections by a stale list",
    );
    explain(scope, outcome, "backend", 80, &client).await
}

async fn keeps_the_source_address(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let spec = RequestSpec {
        count: 20,
        concurrency: 8,
        ..RequestSpec::get("http://backend/")
    };
    let answers = client.request(&spec).await?;
    let own = client.pod().map(|pod| pod.ip);
    let seen = answers
        .0
        .iter()
        .map(|reply| reply.answer.as_ref().map(|answer| answer.client.ip()));
    let outcome = expect_eq(
        "the clients that the pods behind http://backend/ see",
        &BTreeSet::from([own]),
        &seen.collect(),
        "traffic inside the cluster is masqueraded: kube-proxy's clusterCIDR does not cover the pods",
    );
    explain(scope, outcome, "backend", 80, &client).await
}

async fn hairpin(scope: &Scope) -> Outcome {
    let alone = scope.pod("app=alone").await?;
    let answers = alone.get_many("http://mirror/", 5).await?;
    let outcome = expect_eq(
        "who answers a pod that calls the Service of which it is the only endpoint",
        &BTreeSet::from(["200 by alone".to_owned()]),
        &answers.0.iter().map(said::said).collect(),
        "the pod's own packet comes back with its own source address, and is dropped: hairpin mode or masquerading is off",
    );
    explain(scope, outcome, "mirror", 80, &alone).await
}

async fn cluster_ip_is_the_default_type(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let twin: Service = scope.get("twin").await?;
    let reply = client.get("http://twin:8000/").await?;
    let kind = twin.spec.and_then(|spec| spec.type_).unwrap_or_default();
    let outcome = expect_eq(
        "the type of Service twin, which names none, and its answer",
        &("ClusterIP".to_owned(), "200".to_owned()),
        &(kind, said::status(&reply)),
        "the API server does not fill in defaults",
    );
    explain(scope, outcome, "twin", 8000, &client).await
}

async fn two_services_share_pods(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let backend = client
        .request(&burst("http://backend/", scope.enough(60, 3)?))
        .await?
        .served_by();
    let twin = client
        .request(&burst("http://twin:8000/", scope.enough(60, 3)?))
        .await?
        .served_by();
    let pods = names(&scope.ready_pods("app=backend").await?);
    let outcome = expect_eq(
        "the pods behind http://backend/ and behind http://twin:8000/",
        &(pods.clone(), pods),
        &(backend, twin),
        "one of the two Services' EndpointSlices is not up to date",
    );
    explain(scope, outcome, "twin", 8000, &client).await
}

async fn named_target_port_differs_per_pod(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let requests = scope.enough(40, 2)?;
    let answers = client.request(&burst("http://named/", requests)).await?;
    let seen = answers
        .0
        .iter()
        .map(|reply| (said::said(reply), arrived(reply)));
    let expected = [("200 by named-8080", 8080), ("200 by named-8081", 8081)];
    let outcome = expect_eq(
        "who answers for Service named, and at which of its ports",
        &expected.map(|(who, port)| (who.to_owned(), port)).into(),
        &seen.collect::<BTreeSet<_>>(),
        "the EndpointSlice resolves the port's name once, not for each pod",
    );
    explain(scope, outcome, "named", 80, &client).await
}

async fn several_ports(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let http = client.get("http://many-ports/").await?;
    let tcp = client.tcp(&TcpSpec::new("many-ports:7000")).await?;
    let udp = client.udp(&UdpSpec::new("many-ports:7001")).await?;
    let tcp = tcp.first().and_then(|reply| reply.answer.as_ref());
    let udp = udp.first().and_then(|reply| reply.answer.as_ref());
    let port = |answer: &strata::wire::Answer| answer.local.port();
    let outcome = expect_eq(
        "the pods' ports at which 80, 7000 (TCP) and 7001 (UDP) of Service many-ports arrive",
        &[Some(8080), Some(9000), Some(9001)],
        &[http.answer.as_ref().map(port), tcp.map(port), udp.map(port)],
        "the EndpointSlice lacks a port, or the node's rules mix them up",
    );
    explain(scope, outcome, "many-ports", 80, &client).await
}

async fn udp_reaches_every_endpoint(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    let seen = answered(&client, "many-ports:7001", scope.enough(60, 3)?).await?;
    let outcome = expect_eq(
        "who answers 60 datagrams to many-ports:7001",
        &names(&pods),
        &seen,
        "the client's node has not programmed a UDP endpoint that the EndpointSlice lists",
    );
    explain(scope, outcome, "many-ports", 7001, &client).await
}

async fn tcp_and_udp_share_a_port_number(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let tcp = client.tcp(&TcpSpec::new("both:7000")).await?;
    let udp = client.udp(&UdpSpec::new("both:7000")).await?;
    let tcp = tcp.first().and_then(|reply| reply.answer.as_ref());
    let udp = udp.first().and_then(|reply| reply.answer.as_ref());
    let port = |answer: &strata::wire::Answer| answer.local.port();
    let outcome = expect_eq(
        "the pods' ports at which 7000 of Service both arrives over TCP, and over UDP",
        &(Some(9000), Some(9001)),
        &(tcp.map(port), udp.map(port)),
        "ports are told apart by number alone, not by number and protocol",
    );
    explain(scope, outcome, "both", 7000, &client).await
}

async fn client_ip_affinity(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    // Without affinity, 60 connections all go to one of three pods with probability 3·(1/3)⁶⁰; the
    // control shows that there are three to choose from.
    let requests = scope.enough(60, 3)?;
    // The first alone: of connections opened at once, each might be the first that is remembered.
    let mut sticky = client.request(&burst("http://sticky/", 1)).await?;
    let others = client.request(&burst("http://sticky/", 59)).await?;
    sticky.0.extend(others.0);
    let control = client.request(&burst("http://backend/", requests)).await?;
    let outcome = expect_eq(
        "how many pods answer 60 connections with affinity and 60 without, and failures",
        &(1, 3, BTreeMap::new()),
        &(
            sticky.served_by().len(),
            control.served_by().len(),
            sticky.failures(),
        ),
        "the node's proxy does not remember clients",
    );
    explain(scope, outcome, "sticky", 80, &client).await
}

async fn nodes_reach_cluster_ips(scope: &Scope) -> Outcome {
    for pod in scope.ready_pods("app=host").await? {
        let node = scope.from_pod(&pod);
        let reply = node.get("http://backend/").await?;
        let outcome = expect_eq(
            format!("GET http://backend/ from node {}", pod.node),
            &"200".to_owned(),
            &said::status(&reply),
            "the node's rules are for forwarded packets only, not for its own",
        );
        explain(scope, outcome, "backend", 80, &node).await?;
    }
    Ok(())
}

async fn host_network_endpoints(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=host").await?;
    let requests = scope.enough(60, 2)?;
    let answers = client.request(&burst("http://on-nodes/", requests)).await?;
    let outcome = expect_eq(
        "the pods that answer for Service on-nodes, and failures",
        &(names(&pods), BTreeMap::new()),
        &(answers.served_by(), answers.failures()),
        "packets from a pod to its own node's address are not translated on their way back",
    );
    explain(scope, outcome, "on-nodes", 80, &client).await
}

async fn no_endpoints_is_refused(scope: &Scope) -> Outcome {
    refused(
        scope,
        "nobody",
        "the node drops packets to a Service without endpoints, instead of rejecting them",
    )
    .await
}

async fn wrong_target_port_is_refused(scope: &Scope) -> Outcome {
    refused(
        scope,
        "wrong-port",
        "something keeps the pod's own refusal from coming back",
    )
    .await
}

/// Refused it is only if the same client is answered by another Service.
async fn refused(scope: &Scope, name: &str, likely: &str) -> Outcome {
    let client = scope.pod("app=client").await?;
    let url = format!("http://{name}/");
    let outcome = scope
        .eventually(Eventually {
            what: &format!("GET {url}, and GET http://backend/ as the control"),
            expected: ("refused".to_owned(), "200".to_owned()),
            observe: async || {
                let seen = refusal(&client, &url).await?;
                let control = client.get("http://backend/").await?;
                Ok((seen, said::status(&control)))
            },
            likely,
        })
        .await;
    explain(scope, outcome, name, 80, &client).await
}
