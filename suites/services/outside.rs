//! Ways in and out of the cluster: node ports, load balancers, names of elsewhere.
//!
//! Start from [`SUITE`]. Requests start at the vantage outside the cluster wherever the claim is
//! about the outside.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Service};
use strata::wire::{RequestSpec, UdpSpec};
use strata::{
    Check, Eventually, Expect, Layer, Need, NoVerdict, Outcome, Scope, Subject, Suite, expect,
    expect_eq,
};

use super::{address, explain, glance, names, node_port, only};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::node_port",
        claim: "A NodePort Service is reached at a port of 30000–32767 of every node, also where no endpoint runs, from outside and from pods.",
        source: "tutorial, \"NodePort: Exposes the service on each node's IP\"; sig-network: should be able to create a functioning NodePort service",
        needs: &[Need::Outside, Need::Nodes(2)],
        manifest: Some("services/node_port.yaml"),
        run: |scope| Box::pin(node_port_everywhere(scope)),
    },
    Check {
        id: "services::node_port_out_of_range_or_taken_is_refused",
        claim: "The API refuses a node port outside the range, and one that another Service has.",
        source: "sig-network: should check NodePort out-of-range; sig-network: should prevent NodePort collisions",
        needs: &[],
        manifest: Some("services/node_port_out_of_range_or_taken_is_refused.yaml"),
        run: |scope| Box::pin(node_port_out_of_range_or_taken_is_refused(scope)),
    },
    Check {
        id: "services::node_port_is_released_on_deletion",
        claim: "A node port is free again once its Service is deleted.",
        source: "sig-network: should release NodePorts on delete",
        needs: &[],
        manifest: Some("services/node_port_is_released_on_deletion.yaml"),
        run: |scope| Box::pin(node_port_is_released_on_deletion(scope)),
    },
    Check {
        id: "services::node_port_udp",
        claim: "A node port takes datagrams on every node.",
        source: "sig-network: should support basic nodePort: udp functionality",
        needs: &[Need::Outside],
        manifest: Some("services/node_port_udp.yaml"),
        run: |scope| Box::pin(node_port_udp(scope)),
    },
    Check {
        id: "services::local_traffic_policy",
        claim: "With externalTrafficPolicy Local a node port keeps the client's address, and a node without an endpoint answers nothing.",
        source: "sig-network: should work for type=NodePort (ESIPP); sig-network: should only target nodes with endpoints (ESIPP)",
        needs: &[Need::Outside, Need::Nodes(2)],
        manifest: Some("services/local_traffic_policy.yaml"),
        run: |scope| Box::pin(local_traffic_policy(scope)),
    },
    Check {
        id: "services::load_balancer",
        claim: "A LoadBalancer Service is given an address, and is reached by it from outside.",
        source: "tutorial, \"LoadBalancer: Exposes the service externally\"; sig-network: should work for type=LoadBalancer (ESIPP)",
        needs: &[Need::LoadBalancer, Need::Outside],
        manifest: Some("services/load_balancer.yaml"),
        run: |scope| Box::pin(load_balancer(scope)),
    },
    Check {
        id: "services::load_balancer_without_implementation",
        claim: "A LoadBalancer Service that nobody implements stays without an address, its cluster IP and node port work, and the cause can be named.",
        source: "tutorial, \"forgot to enable Minikube's tunnel, so nothing worked\"",
        needs: &[Need::Version(22)],
        manifest: Some("services/load_balancer_without_implementation.yaml"),
        run: |scope| Box::pin(load_balancer_without_implementation(scope)),
    },
    Check {
        id: "services::external_name",
        claim: "An ExternalName Service is a CNAME in DNS, and has no cluster IP.",
        source: "tutorial, \"ExternalName: Maps a service to an external DNS name\"; sig-network: should provide DNS for ExternalName services",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(external_name(scope)),
    },
    Check {
        id: "services::external_name_is_followed",
        claim: "An ExternalName Service that names a Service of the cluster is resolved to its address.",
        source: "Kubernetes DNS specification, 2.5",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(external_name_is_followed(scope)),
    },
    Check {
        id: "services::external_name_takes_no_cluster_ip",
        claim: "The API refuses a cluster IP for an ExternalName Service.",
        source: "tutorial, \"No cluster IP is assigned\"; Kubernetes: ValidateService",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(external_name_takes_no_cluster_ip(scope)),
    },
];

async fn node_port_everywhere(scope: &Scope) -> Outcome {
    let service: Service = scope.get("web").await?;
    let port = node_port(&service);
    expect((30000..=32767).contains(&port), || Expect {
        what: "the node port that Service web was given".to_owned(),
        expected: "one of 30000–32767".to_owned(),
        observed: port.to_string(),
        likely: "the API server runs with another --service-node-port-range".to_owned(),
    })?;
    let nodes = addresses(&scope.nodes().await?)?;
    let expected: BTreeMap<_, _> = nodes
        .iter()
        .map(|(node, _)| (node.clone(), "200 by web".to_owned()))
        .collect();
    for vantage in [scope.outside()?, scope.pod("app=client").await?] {
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET http://NODE:{port}/ from {}, by node", vantage.name()),
                expected: expected.clone(),
                observe: async || {
                    let mut seen = BTreeMap::new();
                    for (node, ip) in &nodes {
                        let spec = quick(format!("http://{ip}:{port}/"));
                        let answers = vantage.request(&spec).await?;
                        seen.insert(node.clone(), answers.0.iter().map(said::said).collect());
                    }
                    Ok(seen)
                },
                likely: "the proxy of the node that does not answer has no rule for the node port, or does not masquerade what it sends on",
            })
            .await;
        explain(scope, outcome, "web", 80, &vantage).await?;
    }
    Ok(())
}

async fn node_port_out_of_range_or_taken_is_refused(scope: &Scope) -> Outcome {
    // The control: the same Service with a port of the API's choice was accepted, as the manifest.
    let first: Service = scope.get("first").await?;
    for (port, why) in [
        (29999, "not in the valid range"),
        (32768, "not in the valid range"),
        (node_port(&first), "already allocated"),
    ] {
        let answer = scope.attempt(&asks_for("second", port)).await?;
        let refusal = answer.err().map(|refusal| (refusal.code, refusal.message));
        let refused = refusal
            .as_ref()
            .is_some_and(|(code, message)| *code == 422 && message.contains(why));
        expect(refused, || Expect {
            what: format!("creating a Service that asks for node port {port}"),
            expected: format!("422, … {why} …"),
            observed: refusal.map_or_else(
                || "accepted".to_owned(),
                |(code, message)| format!("{code}, {message}"),
            ),
            likely: "the API server's node port allocator is off, or runs with another range"
                .to_owned(),
        })?;
    }
    Ok(())
}

async fn node_port_is_released_on_deletion(scope: &Scope) -> Outcome {
    let first: Service = scope.get("first").await?;
    let second = asks_for("second", node_port(&first));
    let while_taken = scope
        .attempt(&second)
        .await?
        .err()
        .map(|refusal| refusal.code);
    scope.delete::<Service>("first").await?;
    let afterwards = scope
        .attempt(&second)
        .await?
        .err()
        .map(|refusal| refusal.message);
    expect_eq(
        "the refusal of a Service that asks for another's node port, while that is there and afterwards",
        &(Some(422), None),
        &(while_taken, afterwards),
        "the allocator does not free the ports of deleted Services",
    )
}

async fn node_port_udp(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let port = node_port(&scope.get("web").await?);
    for (node, ip) in addresses(&scope.nodes().await?)? {
        let outcome = scope
            .eventually(Eventually {
                what: &format!("who answers a datagram from outside to {ip}:{port} ({node})"),
                expected: "web".to_owned(),
                observe: async || {
                    let spec = UdpSpec {
                        timeout_ms: 1000,
                        ..UdpSpec::new(format!("{ip}:{port}"))
                    };
                    Ok(said::udp(&outside.udp(&spec).await?))
                },
                likely: "the node's rule for the node port is for TCP only, or the answer comes back from another address",
            })
            .await;
        explain(scope, outcome, "web", 80, &outside).await?;
    }
    Ok(())
}

async fn local_traffic_policy(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let web = only(scope.ready_pods("app=web").await?)?;
    let port = node_port(&scope.get("web").await?);
    // Side by side, since silence takes its time.
    let nodes = addresses(&scope.nodes().await?)?;
    let judged = join_all(nodes.iter().map(async |(node, ip)| {
        let expected = if *node == web.node {
            "200 by web, its client's address kept"
        } else {
            "nobody"
        };
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET http://{ip}:{port}/ ({node}) from outside, where the pod is on {}", web.node),
                expected: expected.to_owned(),
                observe: async || {
                    let answers = outside.request(&quick(format!("http://{ip}:{port}/"))).await?;
                    let reply = answers.0.into_iter().next().unwrap_or_default();
                    let client = reply.answer.as_ref().map(|answer| answer.client.ip());
                    let kept = client.is_some() && client == reply.local.map(|local| local.ip());
                    let kept = if kept { ", its client's address kept" } else { "" };
                    Ok(said::nobody(said::said(&reply)) + kept)
                },
                likely: "the proxy ignores externalTrafficPolicy, and sends connections on to other nodes as its own",
            })
            .await;
        explain(scope, outcome, "web", 80, &outside).await
    }));
    judged.await.into_iter().collect()
}

async fn load_balancer(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let pods = scope.ready_pods("app=web").await?;
    let subject = Subject::LoadBalancer {
        namespace: scope.namespace(),
        name: "web",
    };
    let requests = scope.enough(40, 2)?;
    let outcome = scope
        .eventually(Eventually {
            what: "the pods that answer 40 requests from outside to the address of Service web, and failures",
            expected: (names(&pods), BTreeMap::new()),
            observe: async || {
                let Some(address) = given(&scope.get("web").await?) else {
                    let none = BTreeMap::from([("no address yet".to_owned(), requests)]);
                    return Ok((names(&[]), none));
                };
                let answers = outside.request(&glance(format!("http://{address}/"), requests)).await?;
                Ok((answers.served_by(), answers.failures()))
            },
            likely: "the load balancer's controller does not run, or nobody routes its addresses to the nodes",
        })
        .await;
    scope.explain(outcome, subject).await
}

async fn load_balancer_without_implementation(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let web: Service = scope.get("web").await?;
    let port = node_port(&web);
    let (_, node) = addresses(&scope.nodes().await?)?.remove(0);
    let outcome = scope
        .eventually(Eventually {
            what: "Service web: its address outside, GET by its cluster IP, and GET by its node port",
            expected: ("none".to_owned(), "200 by web".to_owned(), "200 by web".to_owned()),
            observe: async || {
                let outside = given(&scope.get("web").await?);
                let inside = client.get(format!("http://{}/", address(&web))).await?;
                let by_node = client.get(format!("http://{node}:{port}/")).await?;
                Ok((outside.unwrap_or_else(|| "none".to_owned()), said::said(&inside), said::said(&by_node)))
            },
            likely: "an implementation takes classes that are not its own, or a Service without an address is not programmed",
        })
        .await;
    explain(scope, outcome, "web", 80, &client).await?;
    let pending = expect(given(&web).is_some(), || Expect {
        what: "the address of Service web".to_owned(),
        expected: "any".to_owned(),
        observed: "none".to_owned(),
        likely: "to be named".to_owned(),
    });
    let subject = Subject::LoadBalancer {
        namespace: scope.namespace(),
        name: "web",
    };
    let cause = said::cause(&scope.explain(pending, subject).await);
    scope.record("pending because", &cause);
    expect(cause.contains("strata.dev/nobody"), || Expect {
        what: "the cause that strata names for the missing address".to_owned(),
        expected: "one that names the class, strata.dev/nobody".to_owned(),
        observed: cause,
        likely: "the diagnosis of load balancers does not look at spec.loadBalancerClass"
            .to_owned(),
    })
}

async fn external_name(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let service: Service = scope.get("elsewhere").await?;
    let reply = client.dns("elsewhere", "CNAME").await?;
    let outcome = expect_eq(
        "the cluster IP of Service elsewhere, and its CNAME",
        &("none".to_owned(), vec!["api.example.com.".to_owned()]),
        &(
            address(&service),
            reply.data("CNAME").map(str::to_owned).collect(),
        ),
        "cluster DNS does not know Services of type ExternalName",
    );
    scope.explain(outcome, Subject::Dns { from: &client }).await
}

async fn external_name_is_followed(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let api: Service = scope.get_in("default", "kubernetes").await?;
    let reply = client.dns("alias", "A").await?;
    let addresses: Vec<_> = reply.addresses.iter().map(ToString::to_string).collect();
    let outcome = expect_eq(
        "the canonical name of alias, and its addresses",
        &(
            Some("kubernetes.default.svc.cluster.local."),
            vec![address(&api)],
        ),
        &(reply.cname_chain.last().map(String::as_str), addresses),
        "cluster DNS answers with the CNAME alone, and the resolver does not ask again",
    );
    scope.explain(outcome, Subject::Dns { from: &client }).await
}

async fn external_name_takes_no_cluster_ip(scope: &Scope) -> Outcome {
    // The control is Service elsewhere of the fixture, the same without a cluster IP.
    let answer = scope
        .attempt(
            "apiVersion: v1
kind: Service
metadata: {name: impossible}
spec: {type: ExternalName, externalName: api.example.com, clusterIP: 10.96.200.200}",
        )
        .await?;
    let refusal = answer.err().map(|refusal| {
        (
            refusal.code,
            refusal
                .message
                .contains("may not be set for ExternalName services"),
        )
    });
    expect_eq(
        "the refusal's code, and whether it says that a cluster IP may not be set",
        &Some((422, true)),
        &refusal,
        "the API server accepts what Kubernetes refuses",
    )
}

fn asks_for(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: NodePort
  selector: {{app: nobody}}
  ports:
    - {{port: 80, nodePort: {port}}}"
    )
}

/// The address that a load balancer gave.
pub(super) fn given(service: &Service) -> Option<String> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    let first = balancer.ingress.as_ref()?.first()?;
    first.ip.clone().or_else(|| first.hostname.clone())
}

/// Nodes with their internal addresses.
pub(super) fn addresses(nodes: &[Node]) -> Result<Vec<(String, String)>, NoVerdict> {
    let internal = |node: &Node| {
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let internal = addresses
            .iter()
            .find(|address| address.type_ == "InternalIP")?;
        Some((node.metadata.name.clone()?, internal.address.clone()))
    };
    let found: Vec<_> = nodes.iter().filter_map(internal).collect();
    if found.is_empty() {
        return Err(NoVerdict::new("no node has an address of type InternalIP"));
    }
    Ok(found)
}

/// All internal addresses of a node.
pub(super) fn internal_ips(node: &Node) -> Vec<IpAddr> {
    let status = node.status.iter();
    let addresses = status.flat_map(|status| status.addresses.iter().flatten());
    let internal = addresses.filter(|address| address.type_ == "InternalIP");
    internal
        .filter_map(|one| one.address.parse().ok())
        .collect()
}

/// A request whose silence is noticed soon.
pub(super) fn quick(url: String) -> RequestSpec {
    RequestSpec {
        timeout_ms: 1000,
        ..RequestSpec::get(url)
    }
}
