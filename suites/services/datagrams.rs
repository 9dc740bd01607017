//! UDP through Services, whose flows nobody ends: which of them outlive what they lead to.
//!
//! Start from [`SUITE`]. Rule: a flow is what comes from one port, so whoever goes on with one says
//! which ([`UdpSpec::source_port`]).

use std::collections::BTreeSet;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;
use strata::wire::{FailureKind, TcpSpec, UdpSpec};
use strata::{
    Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, Vantage, expect_eq,
};

use super::outside::addresses;
use super::{address, client, explain, names, node_port, only};
use crate::load::datagrams;
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::udp_flow_follows_its_backend",
        claim: "A flow of datagrams to a cluster IP leads to the new pod once the one that it led to is replaced.",
        source: "sig-network: should be able to preserve UDP traffic when server pod cycles for a ClusterIP service",
        needs: &[],
        manifest: Some("services/replaced_server.yaml"),
        run: |scope| Box::pin(follows_its_backend(scope)),
    },
    Check {
        id: "services::udp_flow_at_a_node_port_follows_its_backend",
        claim: "A flow of datagrams to a node port leads to the new pod once the one that it led to is replaced.",
        source: "sig-network: should be able to preserve UDP traffic when server pod cycles for a NodePort service",
        needs: &[Need::Outside],
        manifest: Some("services/replaced_server.yaml"),
        run: |scope| Box::pin(at_a_node_port_follows_its_backend(scope)),
    },
    Check {
        id: "services::udp_node_port_is_gone_with_its_service",
        claim: "Datagrams to the node port of a Service that has been deleted are refused.",
        source: "sig-network: should update nodePort: udp",
        needs: &[Need::Outside],
        manifest: Some("services/replaced_server.yaml"),
        run: |scope| Box::pin(node_port_is_gone(scope)),
    },
    Check {
        id: "services::udp_flow_is_older_than_its_endpoint",
        claim: "A flow of datagrams that begins while a Service has no endpoint is served once there is one, at its cluster IP and at its node port.",
        source: "Kubernetes: pkg/proxy/conntrack, stale entries of a Service whose first endpoint appears",
        needs: &[Need::Outside],
        manifest: Some("services/udp_flow_is_older_than_its_endpoint.yaml"),
        run: |scope| Box::pin(is_older_than_its_endpoint(scope)),
    },
    Check {
        id: "services::node_port_reaches_every_endpoint",
        claim: "Datagrams from outside to a node port reach every pod, by every node.",
        source: "Kubernetes: Services of type NodePort",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(node_port_reaches_every_endpoint(scope)),
    },
    Check {
        id: "services::nodes_send_datagrams_to_cluster_ips",
        claim: "Datagrams of nodes to a cluster IP reach every pod.",
        source: "sig-network: should function for node-Service: udp",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(nodes_send_datagrams(scope)),
    },
    Check {
        id: "services::endpoints_send_datagrams_to_their_service",
        claim: "Datagrams of a pod to its own Service reach every pod of it, itself too.",
        source: "sig-network: should function for endpoint-Service: udp",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(endpoints_send_datagrams(scope)),
    },
    Check {
        id: "services::host_network_endpoints_take_datagrams",
        claim: "Pods in their nodes' own network serve datagrams as endpoints.",
        source: "sig-network: should function for pod-Service(hostNetwork): udp",
        needs: &[Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(host_network_endpoints(scope)),
    },
    Check {
        id: "services::large_datagrams_arrive_whole",
        claim: "A datagram of several MTUs arrives whole at a pod behind a cluster IP.",
        source: "sig-network: should be able to handle large requests: udp",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(large_datagrams(scope)),
    },
    Check {
        id: "services::large_streams_arrive_whole",
        claim: "1 MiB over TCP arrives whole at every pod behind a cluster IP, and comes back whole.",
        source: "sig-network: should be able to handle large requests: http",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(large_streams(scope)),
    },
];

/// Who answers the next datagram of the flow from this port; one that is lost is noticed soon.
async fn next(from: &Vantage, to: &str, port: u16) -> Result<String, NoVerdict> {
    Ok(said::udp(&from.udp(&flow(to, port)).await?))
}

/// The next datagram of the flow from this port.
fn flow(to: &str, port: u16) -> UdpSpec {
    UdpSpec {
        source_port: Some(port),
        timeout_ms: 500,
        ..UdpSpec::new(to)
    }
}

/// What comes of datagrams where nobody is to answer. A host tells each address of what it refuses no more
/// often than once a second (RFC 1812 §4.3.2.8; `icmp_ratelimit` of Linux), so one that is lost says nothing
/// until those of the next two seconds are lost, too.
async fn refusal(from: &Vantage, datagram: &UdpSpec) -> Result<String, NoVerdict> {
    let lost = FailureKind::TimedOut.to_string();
    for _ in 0..2000 / datagram.timeout_ms {
        let said = said::udp(&from.udp(datagram).await?);
        if said != lost {
            return Ok(said);
        }
    }
    Ok(lost)
}

async fn follows_its_backend(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let ip = address(&scope.get("web").await?);
    goes_on(scope, &client, &format!("{ip}:7001"), 21001).await
}

async fn at_a_node_port_follows_its_backend(scope: &Scope) -> Outcome {
    let port = node_port(&scope.get("web").await?);
    let (_, node) = addresses(&scope.nodes().await?)?.remove(0);
    goes_on(scope, &scope.outside()?, &format!("{node}:{port}"), 21002).await
}

/// A flow that leads to the old pod, and goes on, leads to the new one. Each look refreshes what the
/// kernel remembers of it, so that nothing but forgetting it helps.
async fn goes_on(scope: &Scope, from: &Vantage, to: &str, port: u16) -> Outcome {
    let old = only(scope.ready_pods("app=web").await?)?;
    leads(scope, from, to, port, &old.name).await?;
    scope.delete::<Pod>(&old.name).await?;
    let new = only(scope.ready_pods("app=web").await?)?;
    leads(scope, from, to, port, &new.name).await
}

async fn leads(scope: &Scope, from: &Vantage, to: &str, port: u16, pod: &str) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: &format!("who answers the next datagram from port {port} of {} to {to}", from.name()),
            expected: pod.to_owned(),
            observe: async || next(from, to, port).await,
            likely: "the node's connection tracking goes on to translate the flow as it did its first packet: kube-proxy does not delete such entries",
        })
        .await;
    explain(scope, outcome, "web", 7001, from).await
}

async fn node_port_is_gone(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let pod = only(scope.ready_pods("app=web").await?)?;
    let port = node_port(&scope.get("web").await?);
    let (_, node) = addresses(&scope.nodes().await?)?.remove(0);
    // A flow of its own each time: whether one that is there already ends is another question.
    let spec = UdpSpec {
        timeout_ms: 500,
        ..UdpSpec::new(format!("{node}:{port}"))
    };
    let comes_to = async |when: &str, expected: &str| {
        let what = format!(
            "who answers a datagram from outside to {node}:{port}, the node port of Service web, {when}"
        );
        scope
            .eventually(Eventually {
                what: &what,
                expected: expected.to_owned(),
                observe: async || refusal(&outside, &spec).await,
                likely: "the node's rules still lead the port to the pods of the Service that had it",
            })
            .await
    };
    let outcome = comes_to("while it is there", &pod.name).await;
    explain(scope, outcome, "web", 7001, &outside).await?;
    scope.delete::<Service>("web").await?;
    comes_to("once it is deleted", "refused").await
}

async fn is_older_than_its_endpoint(scope: &Scope) -> Outcome {
    let (client, outside) = (scope.pod("app=client").await?, scope.outside()?);
    let web = scope.get("web").await?;
    let (_, node) = addresses(&scope.nodes().await?)?.remove(0);
    let ways = [
        (&client, format!("{}:7001", address(&web)), 21003),
        (&outside, format!("{node}:{}", node_port(&web)), 21004),
    ];
    for (from, to, port) in &ways {
        scope
            .eventually(Eventually {
                what: &format!("what comes of datagrams from port {port} of {} to {to}, without an endpoint", from.name()),
                expected: "refused".to_owned(),
                observe: async || refusal(from, &flow(to, *port)).await,
                likely: "the node drops what is for a Service without endpoints, or still sends it to the pod that was one",
            })
            .await?;
    }
    let one = json!({ "spec": { "replicas": 1 } });
    scope.merge::<Deployment>("web", one).await?;
    let new = only(scope.ready_pods("app=web").await?)?;
    for (from, to, port) in &ways {
        leads(scope, from, to, *port, &new.name).await?;
    }
    Ok(())
}

/// Who answers so many datagrams, a socket each, since a proxy chooses once for each flow. In six bursts
/// side by side: all of them one after the other, if they are lost, would take too long.
pub(super) async fn answered(
    from: &Vantage,
    to: &str,
    count: u64,
) -> Result<BTreeSet<String>, NoVerdict> {
    let spec = UdpSpec {
        count: count / 6,
        new_socket: true,
        ..UdpSpec::new(to)
    };
    let replies = try_join_all((0..6).map(|_| datagrams(from, &spec))).await?;
    let seen = replies
        .iter()
        .flatten()
        .map(|reply| said::who(reply.error.as_ref(), reply.answer.as_ref()));
    Ok(seen.collect())
}

/// Judges who answers from each of these places, to each of which something leads.
pub(super) async fn reach_every_pod(
    scope: &Scope,
    ways: &[(Vantage, String)],
    (service, selector): (&str, &str),
    likely: &str,
) -> Outcome {
    let pods = names(&scope.ready_pods(selector).await?);
    // Half as many again, so that all the ways together miss one no more often than one draw allows.
    let datagrams = scope.enough(60, pods.len() as u64)? + 30;
    for (from, to) in ways {
        let outcome = expect_eq(
            format!(
                "who answers {datagrams} datagrams from {} to {to}",
                from.name()
            ),
            &pods,
            &answered(from, to, datagrams).await?,
            likely,
        );
        explain(scope, outcome, service, 7001, from).await?;
    }
    Ok(())
}

async fn node_port_reaches_every_endpoint(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let port = datagrams_port(&scope.get("public").await?);
    let nodes = addresses(&scope.nodes().await?)?.into_iter();
    let ways: Vec<_> = nodes
        .map(|(_, ip)| (outside.clone(), format!("{ip}:{port}")))
        .collect();
    let likely = "the node's rules for the UDP node port lack an endpoint, or do not masquerade what they send to other nodes";
    reach_every_pod(scope, &ways, ("public", "app=backend"), likely).await
}

/// The node port of a Service that takes datagrams; 0 without.
pub(super) fn datagrams_port(service: &Service) -> i32 {
    let spec = service.spec.iter();
    let ports = spec.flat_map(|spec| spec.ports.iter().flatten());
    let mut udp = ports.filter(|port| port.protocol.as_deref() == Some("UDP"));
    udp.find_map(|port| port.node_port).unwrap_or_default()
}

async fn nodes_send_datagrams(scope: &Scope) -> Outcome {
    let hosts = scope.ready_pods("app=host").await?;
    let ways: Vec<_> = hosts
        .iter()
        .map(|host| (scope.from_pod(host), "many-ports:7001".to_owned()))
        .collect();
    let likely = "the node's rules for UDP are for forwarded packets only, not for its own";
    reach_every_pod(scope, &ways, ("many-ports", "app=backend"), likely).await
}

async fn endpoints_send_datagrams(scope: &Scope) -> Outcome {
    let ways = [(
        scope.pod("app=backend").await?,
        "many-ports:7001".to_owned(),
    )];
    let likely = "the pod's own datagram comes back with its own source address: hairpin mode or masquerading is off";
    reach_every_pod(scope, &ways, ("many-ports", "app=backend"), likely).await
}

async fn host_network_endpoints(scope: &Scope) -> Outcome {
    let ways = [(scope.pod("app=client").await?, "on-nodes:7001".to_owned())];
    let likely =
        "datagrams from a pod to its own node's address are not translated on their way back";
    reach_every_pod(scope, &ways, ("on-nodes", "app=host"), likely).await
}

async fn large_datagrams(scope: &Scope) -> Outcome {
    large_datagrams_arrive(scope, "many-ports", "many-ports:7001").await
}

/// Judges that datagrams of several MTUs arrive whole at this address of a Service over the fixture's pods.
pub(super) async fn large_datagrams_arrive(scope: &Scope, service: &str, to: &str) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    // Three fragments at the usual MTUs, of which only the first has the ports; the probe counts the bytes.
    let spec = UdpSpec {
        bytes: 4000,
        count: 12,
        new_socket: true,
        ..UdpSpec::new(to)
    };
    let replies = datagrams(&client, &spec).await?;
    let seen: BTreeSet<_> = replies
        .iter()
        .map(|reply| said::who(reply.error.as_ref(), reply.answer.as_ref()))
        .collect();
    let outcome = expect_eq(
        format!(
            "who else than pods of the Service answers 12 datagrams of 4000 bytes to {to}, and what is lost"
        ),
        &BTreeSet::new(),
        &seen.difference(&names(&pods)).cloned().collect(),
        "fragments after the first, which have no ports, are not translated with it",
    );
    explain(scope, outcome, service, 7001, &client).await
}

async fn large_streams(scope: &Scope) -> Outcome {
    large_streams_arrive(scope, "many-ports", "many-ports:7000").await
}

/// Judges that 1 MiB arrives whole, and comes back, at this address of a Service over the fixture's pods.
pub(super) async fn large_streams_arrive(scope: &Scope, service: &str, to: &str) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    // Who answers is for others to judge; that what is sent comes back whole is the probe's comparison.
    let spec = TcpSpec {
        bytes: 1 << 20,
        count: 24,
        concurrency: 8,
        ..TcpSpec::new(to)
    };
    let replies = client.tcp(&spec).await?;
    let seen: BTreeSet<_> = replies
        .iter()
        .map(|reply| said::who(reply.error.as_ref(), reply.answer.as_ref()))
        .collect();
    let outcome = expect_eq(
        format!(
            "who else than pods of the Service answers 24 streams of 1 MiB to {to}, and what is lost"
        ),
        &BTreeSet::new(),
        &seen.difference(&names(&pods)).cloned().collect(),
        "a packet that fits its pod's MTU does not fit the way that its translated address leads",
    );
    explain(scope, outcome, service, 7000, &client).await
}
