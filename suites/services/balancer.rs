//! What a load balancer in front of the nodes builds on: which nodes it may send to, from whom, and what
//! becomes of the client's address.
//!
//! Start from [`SUITE`]. Requests start at the vantage outside the cluster, where such a load balancer is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use strata::wire::Reply;
use strata::{
    Check, Eventually, Layer, Need, NoVerdict, NotPassed, Outcome, PodView, Scope, Subject, Suite,
    Vantage,
};

use super::endpoints::turn;
use super::outside::{addresses, given, quick};
use super::{address, client, explain, glance, names, node_port, only};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::external_traffic_policy_is_changed",
        claim: "A node without an endpoint answers at the node port while externalTrafficPolicy is Cluster, and not while it is Local, as often as that is changed.",
        source: "sig-network: should handle updates to ExternalTrafficPolicy field (ESIPP)",
        needs: &[Need::Outside, Need::Nodes(2)],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(external_traffic_policy_is_changed(scope)),
    },
    Check {
        id: "services::local_policy_lets_pods_in",
        claim: "With externalTrafficPolicy Local a pod reaches the node port at its own node, where no endpoint runs, and at the endpoint's.",
        source: "Kubernetes: virtual IPs, traffic policies, \"traffic from within the cluster\"",
        needs: &[Need::Nodes(2)],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(local_policy_lets_pods_in(scope)),
    },
    Check {
        id: "services::local_load_balancer_keeps_the_client",
        claim: "Through a load balancer with externalTrafficPolicy Local a pod sees its client's own address.",
        source: "sig-network: should work for type=LoadBalancer (ESIPP)",
        needs: &[Need::BalancerAddress, Need::Outside],
        manifest: Some("services/two_pods.yaml"),
        run: |scope| Box::pin(local_load_balancer_keeps_the_client(scope)),
    },
    Check {
        id: "services::health_check_node_port",
        claim: "With externalTrafficPolicy Local the health-check node port answers 200 on nodes with an endpoint and 503 on others, and it is closed once the policy is Cluster.",
        source: "sig-network: should only target nodes with endpoints (ESIPP); sig-network: should handle updates to ExternalTrafficPolicy field (ESIPP)",
        needs: &[Need::LoadBalancer, Need::Outside, Need::Nodes(2)],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(health_check_node_port(scope)),
    },
    Check {
        id: "services::health_check_follows_the_endpoints",
        claim: "The health-check node port of a node answers 503 while the node's only endpoint is not ready, and 200 once it is again.",
        source: "Kubernetes: Service spec.healthCheckNodePort; pkg/proxy/healthcheck",
        needs: &[Need::LoadBalancer, Need::Outside],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(health_check_follows_the_endpoints(scope)),
    },
    Check {
        id: "services::load_balancer_source_ranges",
        claim: "A load balancer's address answers clients of loadBalancerSourceRanges, and nobody else.",
        source: "sig-network: should only allow access from service loadbalancer source ranges",
        needs: &[Need::BalancerAddress, Need::Outside],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(load_balancer_source_ranges(scope)),
    },
    Check {
        id: "services::pods_reach_load_balancers",
        claim: "Pods reach a load balancer's address from inside the cluster, with externalTrafficPolicy Cluster and Local.",
        source: "sig-network: should work from pods (ESIPP)",
        needs: &[Need::LoadBalancer, Need::Nodes(2)],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(pods_reach_load_balancers(scope)),
    },
    Check {
        id: "services::load_balancer_is_given_back",
        claim: "A LoadBalancer Service that is changed to ClusterIP loses its address, where nobody answers any more, and goes on at its cluster IP.",
        source: "sig-network: should be able to change the type and ports of a service",
        needs: &[Need::BalancerAddress, Need::Outside],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(load_balancer_is_given_back(scope)),
    },
    Check {
        id: "services::external_ips",
        claim: "Pods reach a Service by an address of its externalIPs, which is nobody's but by that.",
        source: "Kubernetes: Service spec.externalIPs",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(external_ips(scope)),
    },
    Check {
        id: "services::nodes_reach_node_ports",
        claim: "Every node reaches the node port of every node, its own too.",
        source: "sig-network: should function for node-Service: http",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(nodes_reach_node_ports(scope)),
    },
];

async fn change(scope: &Scope, spec: Value) -> Result<Service, NoVerdict> {
    scope.merge("web", json!({ "spec": spec })).await
}

/// The one reply to a GET whose silence is noticed soon.
async fn get(from: &Vantage, at: &str) -> Result<Reply, NoVerdict> {
    let answers = from.request(&quick(format!("http://{at}/"))).await?;
    let reply = answers.0.into_iter().next();
    reply.ok_or_else(|| NoVerdict::new("the probe gave no reply"))
}

/// Whether a server saw its client's own address.
fn kept(reply: &Reply) -> bool {
    let client = reply.answer.as_ref().map(|answer| answer.client.ip());
    client.is_some() && client == reply.local.map(|local| local.ip())
}

/// What a GET of a port of each node comes to, side by side, since silence takes its time.
async fn by_node(
    scope: &Scope,
    from: &Vantage,
    port: u16,
) -> Result<BTreeMap<String, Reply>, NoVerdict> {
    let nodes = addresses(&scope.nodes().await?)?;
    let all = nodes.iter().map(async |(node, ip)| {
        let reply = get(from, &format!("{ip}:{port}")).await?;
        Ok::<_, NoVerdict>((node.clone(), reply))
    });
    Ok(try_join_all(all).await?.into_iter().collect())
}

/// What is expected of each node, by whether it has the pod.
async fn expected(
    scope: &Scope,
    pod: &PodView,
    here: &str,
    elsewhere: &str,
) -> Result<BTreeMap<String, String>, NoVerdict> {
    let nodes = addresses(&scope.nodes().await?)?.into_iter();
    let word = |node: &str| if node == pod.node { here } else { elsewhere };
    Ok(nodes
        .map(|(node, _)| (node.clone(), word(&node).to_owned()))
        .collect())
}

async fn external_traffic_policy_is_changed(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let web = only(scope.ready_pods("app=web").await?)?;
    for (policy, elsewhere) in [
        ("Cluster", "200 by web"),
        ("Local", "nobody"),
        ("Cluster", "200 by web"),
    ] {
        let spec = json!({ "type": "NodePort", "externalTrafficPolicy": policy });
        let port = node_port(&change(scope, spec).await?);
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET of node port {port} from outside with externalTrafficPolicy {policy}, by node"),
                expected: expected(scope, &web, "200 by web", elsewhere).await?,
                observe: async || {
                    let replies = by_node(scope, &outside, port).await?.into_iter();
                    let words = replies.map(|(node, reply)| (node, said::nobody(said::said(&reply))));
                    Ok(words.collect())
                },
                likely: "the nodes' rules follow the former policy",
            })
            .await;
        explain(scope, outcome, "web", 80, &outside).await?;
    }
    Ok(())
}

async fn local_policy_lets_pods_in(scope: &Scope) -> Outcome {
    let web = only(scope.ready_pods("app=web").await?)?;
    let pod = elsewhere(scope, &web).await?;
    let client = scope.from_pod(&pod);
    let local = json!({ "type": "NodePort", "externalTrafficPolicy": "Local" });
    let port = node_port(&change(scope, local).await?);
    // What a pod sends to a third node may arrive there from its own node's address, by the pod
    // network's choice, and is then subject to the policy.
    for (ip, which) in [
        (pod.host_ip, "the client's node"),
        (web.host_ip, "the endpoint's node"),
    ] {
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET of node port {port} of {which} from a pod on {}, where the endpoint is on {}", pod.node, web.node),
                expected: "200 by web".to_owned(),
                observe: async || Ok(said::said(&get(&client, &format!("{ip}:{port}")).await?)),
                likely: "the proxy subjects pods to externalTrafficPolicy",
            })
            .await;
        explain(scope, outcome, "web", 80, &client).await?;
    }
    Ok(())
}

/// A pod of the fixture on another node than this one.
async fn elsewhere(scope: &Scope, pod: &PodView) -> Result<PodView, NoVerdict> {
    let pods = scope.ready_pods_in(scope.fixture(), "app=backend").await?;
    let other = pods.into_iter().find(|other| other.node != pod.node);
    other.ok_or_else(|| NoVerdict::new(format!("all pods of the fixture are on {}", pod.node)))
}

/// Makes Service web what it should be, and waits until it has a load balancer's address.
async fn balanced(scope: &Scope, spec: Value) -> Result<String, NotPassed> {
    change(scope, spec).await?;
    let mut found = String::new();
    let outcome = scope
        .eventually(Eventually {
            what: "whether Service web has an address of a load balancer",
            expected: true,
            observe: async || {
                let address = given(&scope.get("web").await?);
                found = address.unwrap_or_default();
                Ok(!found.is_empty())
            },
            likely: "the load balancer's controller does not run",
        })
        .await;
    let subject = Subject::LoadBalancer {
        namespace: scope.namespace(),
        name: "web",
    };
    scope.explain(outcome, subject).await?;
    Ok(found)
}

async fn local_load_balancer_keeps_the_client(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let pods = scope.ready_pods("app=web").await?;
    let local = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" });
    let at = balanced(scope, local).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "40 requests from outside: who else than pods of the Service answers, whether each sees its client's own address, and failures",
            expected: (BTreeSet::new(), true, BTreeMap::new()),
            observe: async || {
                let answers = outside.request(&glance(format!("http://{at}/"), 40)).await?;
                let others = answers.served_by().difference(&names(&pods)).cloned().collect::<BTreeSet<_>>();
                Ok((others, answers.0.iter().all(kept), answers.failures()))
            },
            likely: "the nodes masquerade what comes for the load balancer's address, or it sends to nodes without an endpoint",
        })
        .await;
    explain(scope, outcome, "web", 80, &outside).await
}

async fn health_check_node_port(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let web = only(scope.ready_pods("app=web").await?)?;
    let local = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" });
    let port = health_port(&change(scope, local).await?)?;
    let observe = async || {
        let replies = by_node(scope, &outside, port).await?.into_iter();
        let words = replies.map(|(node, reply)| (node, said::status(&reply)));
        Ok::<_, NoVerdict>(words.collect::<BTreeMap<_, _>>())
    };
    let outcome = scope
        .eventually(Eventually {
            what: &format!("GET of the health-check node port {port} from outside, by node, where the pod is on {}", web.node),
            expected: expected(scope, &web, "200", "503").await?,
            observe: &observe,
            likely: "the node's proxy does not serve spec.healthCheckNodePort, or counts endpoints of other nodes",
        })
        .await;
    explain(scope, outcome, "web", 80, &outside).await?;
    change(scope, json!({ "externalTrafficPolicy": "Cluster" })).await?;
    let outcome = scope
        .eventually(Eventually {
            what: &format!("the same of port {port} with externalTrafficPolicy Cluster"),
            expected: expected(scope, &web, "refused", "refused").await?,
            observe: &observe,
            likely: "the node's proxy goes on serving a health-check node port that the Service has no more",
        })
        .await;
    explain(scope, outcome, "web", 80, &outside).await
}

async fn health_check_follows_the_endpoints(scope: &Scope) -> Outcome {
    let (client, outside) = (client(scope).await?, scope.outside()?);
    let web = only(scope.ready_pods("app=web").await?)?;
    let local = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" });
    let port = health_port(&change(scope, local).await?)?;
    for (ready, expected) in [(true, "200"), (false, "503"), (true, "200")] {
        turn(&client, &web, ready).await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET of the health-check node port {port} of {} while the readiness of its only endpoint is {ready}", web.node),
                expected: expected.to_owned(),
                observe: async || Ok(said::status(&get(&outside, &format!("{}:{port}", web.host_ip)).await?)),
                likely: "the node's proxy counts endpoints that are not ready, or has stopped following them",
            })
            .await;
        explain(scope, outcome, "web", 80, &outside).await?;
    }
    Ok(())
}

fn health_port(service: &Service) -> Result<u16, NoVerdict> {
    let spec = service.spec.as_ref();
    let port = spec.and_then(|spec| u16::try_from(spec.health_check_node_port?).ok());
    port.ok_or_else(|| NoVerdict::new("Service web was given no healthCheckNodePort"))
}

async fn load_balancer_source_ranges(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let at = balanced(scope, json!({ "type": "LoadBalancer" })).await?;
    let mut own = None;
    answers_as(
        scope,
        &outside,
        &at,
        "without source ranges",
        "200 by web",
        &mut own,
    )
    .await?;
    let own = own.ok_or_else(|| NoVerdict::new("the probe does not tell where it sent from"))?;
    let one = if own.is_ipv4() { 32 } else { 128 };
    // RFC 5737: nobody's.
    for (ranges, when, expected) in [
        (json!(["192.0.2.0/24"]), "for others only", "nobody"),
        (
            json!(["192.0.2.0/24", format!("{own}/{one}")]),
            "for others and this client",
            "200 by web",
        ),
        (json!(["192.0.2.0/24"]), "for others only again", "nobody"),
    ] {
        change(scope, json!({ "loadBalancerSourceRanges": ranges })).await?;
        answers_as(scope, &outside, &at, when, expected, &mut None).await?;
    }
    Ok(())
}

/// Waits for what comes of a GET from outside; notes where it was sent from.
async fn answers_as(
    scope: &Scope,
    outside: &Vantage,
    at: &str,
    when: &str,
    expected: &str,
    own: &mut Option<IpAddr>,
) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: &format!("GET http://{at}/ from outside, {when}"),
            expected: expected.to_owned(),
            observe: async || {
                let reply = get(outside, at).await?;
                *own = reply.local.map(|local| local.ip());
                Ok(said::nobody(said::said(&reply)))
            },
            likely: "neither the load balancer nor the nodes look at loadBalancerSourceRanges",
        })
        .await;
    explain(scope, outcome, "web", 80, outside).await
}

async fn pods_reach_load_balancers(scope: &Scope) -> Outcome {
    let web = only(scope.ready_pods("app=web").await?)?;
    let client = scope.from_pod(&elsewhere(scope, &web).await?);
    for policy in ["Cluster", "Local"] {
        let spec = json!({ "type": "LoadBalancer", "externalTrafficPolicy": policy });
        let at = balanced(scope, spec).await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET http://{at}/ from a pod with externalTrafficPolicy {policy}"),
                expected: "200 by web".to_owned(),
                observe: async || Ok(said::said(&get(&client, &at).await?)),
                likely: "the client's node sends packets for a load balancer's address out of the cluster, or subjects pods to externalTrafficPolicy",
            })
            .await;
        explain(scope, outcome, "web", 80, &client).await?;
    }
    Ok(())
}

async fn load_balancer_is_given_back(scope: &Scope) -> Outcome {
    let (client, outside) = (client(scope).await?, scope.outside()?);
    let at = balanced(scope, json!({ "type": "LoadBalancer" })).await?;
    answers_as(
        scope,
        &outside,
        &at,
        "as LoadBalancer",
        "200 by web",
        &mut None,
    )
    .await?;
    let web = change(scope, json!({ "type": "ClusterIP" })).await?;
    let inside = address(&web);
    let outcome = scope
        .eventually(Eventually {
            what: &format!("Service web as ClusterIP: its address outside, GET http://{at}/ from there, and GET http://{inside}/ from a pod"),
            expected: ("none".to_owned(), "none".to_owned(), "200 by web".to_owned()),
            observe: async || {
                let address = given(&scope.get("web").await?).unwrap_or_else(|| "none".to_owned());
                let former = said::unserved(&get(&outside, &at).await?);
                Ok((address, former, said::said(&get(&client, &inside).await?)))
            },
            likely: "the load balancer's controller does not take back what it gave, or the nodes keep its rules",
        })
        .await;
    explain(scope, outcome, "web", 80, &outside).await
}

async fn external_ips(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    let external: Service = scope.get("external").await?;
    let ip = external
        .spec
        .and_then(|spec| spec.external_ips?.into_iter().next());
    let ip = ip.ok_or_else(|| NoVerdict::new("Service external has lost its externalIPs"))?;
    let requests = scope.enough(60, pods.len() as u64)?;
    let outcome = scope
        .eventually(Eventually {
            what: &format!("the pods that answer {requests} requests to http://{ip}/, and failures"),
            expected: (names(&pods), BTreeMap::new()),
            observe: async || {
                let answers = client.request(&glance(format!("http://{ip}/"), requests)).await?;
                Ok((answers.served_by(), answers.failures()))
            },
            likely: "the client's node has no rules for externalIPs, or an admission plugin (DenyServiceExternalIPs) has taken them away",
        })
        .await;
    explain(scope, outcome, "external", 80, &client).await
}

async fn nodes_reach_node_ports(scope: &Scope) -> Outcome {
    let port = node_port(&scope.get("public").await?);
    let pods = scope.ready_pods("app=backend").await?;
    let nodes = addresses(&scope.nodes().await?)?;
    let everywhere: BTreeMap<_, _> = nodes.iter().map(|(node, _)| (node.clone(), true)).collect();
    for host in scope.ready_pods("app=host").await? {
        let from = scope.from_pod(&host);
        let outcome = scope
            .eventually(Eventually {
                what: &format!(
                    "whether a pod of Service public answers node {} at port {port}, by node",
                    host.node
                ),
                expected: everywhere.clone(),
                observe: async || {
                    let replies = by_node(scope, &from, port).await?.into_iter();
                    let ours =
                        |reply: &Reply| reply.pod().is_some_and(|pod| names(&pods).contains(pod));
                    Ok(replies.map(|(node, reply)| (node, ours(&reply))).collect())
                },
                likely: "the node's own packets to a node port are not translated on their way out",
            })
            .await;
        explain(scope, outcome, "public", 80, &from).await?;
    }
    Ok(())
}
