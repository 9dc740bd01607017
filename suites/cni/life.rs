//! Pods that come and go, what they leave behind, and what lasts beside them.
//!
//! Start from [`SUITE`]. Each check has pods of its own to change; `traffic` judges those that stay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::future::{join, try_join_all};
use k8s_openapi::api::core::v1::Pod;
use strata::wire::{RequestSpec, TcpSpec, UdpSpec};
use strata::{
    Check, Eventually, Expect, Layer, Need, NoVerdict, NotPassed, Outcome, PodView, Scope, Subject,
    Suite, expect, expect_eq,
};

use super::paths::{ECHO_TCP, Path, across_nodes, at, judge, tcp};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Cni,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "cni::host_ports",
        claim: "A hostPort of a pod is reached at its node's address, from pods of every node and from itself; by TCP and by UDP the same number leads to different pods.",
        source: "Kubernetes: Pod spec.containers.ports.hostPort, and its e2e test that there is no conflict between pods with same hostPort but different hostIP and protocol",
        needs: &[Need::NodeNetwork],
        manifest: Some("cni/host_ports.yaml"),
        run: |scope| Box::pin(host_ports(scope)),
    },
    Check {
        id: "cni::connections_survive_their_neighbours",
        claim: "Connections between pods of two nodes go on while other pods of these nodes end and begin.",
        source: "Kubernetes: the network model, \"pods can communicate with all other pods\"",
        needs: &[Need::Nodes(2)],
        manifest: Some("cni/connections_survive_their_neighbours.yaml"),
        run: |scope| Box::pin(connections_survive_their_neighbours(scope)),
    },
    Check {
        id: "cni::host_port_is_closed",
        claim: "A hostPort is closed once the pod that had it is gone.",
        source: "CNI specification 1.0.0, DEL; Kubernetes: Pod spec.containers.ports.hostPort",
        needs: &[Need::NodeNetwork],
        manifest: Some("cni/host_port_is_closed.yaml"),
        run: |scope| Box::pin(host_port_is_closed(scope)),
    },
    Check {
        id: "cni::idle_connections_stay",
        claim: "A connection between pods of two nodes that is idle for half a minute is still one.",
        source: "RFC 9293, section 3.8.4; Kubernetes: the network model",
        needs: &[Need::Nodes(2), Need::Time],
        manifest: None,
        run: |scope| Box::pin(idle_connections_stay(scope)),
    },
    Check {
        id: "cni::connections_outlive_the_agent",
        claim: "Connections between pods of all nodes that are open while the CNI plugin's agents are replaced go on.",
        source: "cilium: no-interrupted-connections",
        needs: &[
            Need::Ours,
            Need::Plugin,
            Need::Nodes(2),
            Need::Time,
            Need::Alone,
        ],
        manifest: None,
        run: |scope| Box::pin(connections_outlive_the_agent(scope)),
    },
    Check {
        id: "cni::replaced_pod",
        claim: "A replaced pod is reached at its new address, and nobody answers at the old one.",
        source: "Kubernetes: Pod lifetime",
        needs: &[],
        manifest: Some("cni/replaced_pod.yaml"),
        run: |scope| Box::pin(replaced_pod(scope)),
    },
    Check {
        id: "cni::network_policy_is_all_or_nothing",
        claim: "A default-deny policy holds for every connection or, where the CNI plugin knows no policies, silently for none; the report says which.",
        source: "sig-network: should support a 'default-deny-ingress' policy; Kubernetes: NetworkPolicy prerequisites",
        needs: &[],
        manifest: Some("cni/network_policy_is_all_or_nothing.yaml"),
        run: |scope| Box::pin(network_policy_is_all_or_nothing(scope)),
    },
];

async fn host_ports(scope: &Scope) -> Outcome {
    const PORT: u16 = 24080;
    let web = first(scope.ready_pods("app=web").await?)?;
    let mut clients = scope.ready_pods("app=client").await?;
    clients.push(web.clone());
    let expected: BTreeMap<_, _> = clients
        .iter()
        .map(|pod| {
            let answers = ("200 by web".to_owned(), "datagrams".to_owned());
            (pod.name.clone(), answers)
        })
        .collect();
    let node = at(web.host_ip, PORT);
    let ask = async |pod: &PodView| {
        let client = scope.from_pod(pod);
        let reply = client.get(format!("http://{node}/")).await?;
        let datagrams = client.udp(&UdpSpec::new(at(web.host_ip, PORT))).await?;
        let answers = (said::said(&reply), said::udp(&datagrams));
        Ok::<_, NoVerdict>((pod.name.clone(), answers))
    };
    let outcome = scope
        .eventually(Eventually {
            what: &format!("GET http://{node}/ and a datagram to {node}, by client"),
            expected,
            observe: async || {
                let seen = try_join_all(clients.iter().map(ask)).await?;
                Ok(seen.into_iter().collect::<BTreeMap<_, _>>())
            },
            likely: "the CNI configuration does not chain the portmap plugin, or its rules on the node are gone",
        })
        .await;
    let client = scope.from_pod(&clients[0]);
    let subject = Subject::PodPath {
        from: &client,
        to: &web,
    };
    scope.explain(outcome, subject).await
}

async fn host_port_is_closed(scope: &Scope) -> Outcome {
    const PORT: u16 = 24081;
    let client = scope.pod("app=client").await?;
    let web = first(scope.ready_pods("app=web").await?)?;
    let node = at(web.host_ip, PORT);
    let spec = RequestSpec {
        timeout_ms: 1000,
        ..RequestSpec::get(format!("http://{node}/"))
    };
    for (when, expected) in [
        ("while the pod is there", "200 by web"),
        ("once it is gone", "refused"),
    ] {
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET http://{node}/ {when}"),
                expected: expected.to_owned(),
                observe: async || {
                    let answers = client.request(&spec).await?;
                    Ok(answers.0.first().map(said::said).unwrap_or_default())
                },
                likely: "the portmap plugin did not put the port's rules up, or was not asked to take them away",
            })
            .await;
        let subject = Subject::PodPath {
            from: &client,
            to: &web,
        };
        scope.explain(outcome, subject).await?;
        if expected == "200 by web" {
            scope.delete::<Pod>("web").await?;
        }
    }
    Ok(())
}

async fn replaced_pod(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let old = first(scope.ready_pods("app=server").await?)?;
    scope.delete::<Pod>(&old.name).await?;
    let new = first(scope.ready_pods("app=server").await?)?;
    if new.ip == old.ip {
        return Err(
            NoVerdict::new(format!("the new pod was given the old address, {}", old.ip)).into(),
        );
    }
    let ask = async |ip: IpAddr| {
        let spec = TcpSpec {
            timeout_ms: 1000,
            ..TcpSpec::new(at(ip, ECHO_TCP))
        };
        Ok::<_, NoVerdict>(said::nobody(said::tcp(&client.tcp(&spec).await?)))
    };
    let outcome = scope
        .eventually(Eventually {
            what: "who answers at the new pod's address, and at the old pod's",
            expected: (new.name.clone(), "nobody".to_owned()),
            observe: async || Ok((ask(new.ip).await?, ask(old.ip).await?)),
            likely: "a node still has the deleted pod's route, or has none for the new pod yet",
        })
        .await;
    let subject = Subject::PodPath {
        from: &client,
        to: &new,
    };
    scope.explain(outcome, subject).await
}

async fn connections_survive_their_neighbours(scope: &Scope) -> Outcome {
    let pods = scope.ready_pods_in(scope.fixture(), "app=echo").await?;
    let neighbours = scope.ready_pods("app=neighbour").await?;
    let beside = |pod: &&PodView| neighbours.iter().any(|one| one.node == pod.node);
    let ends: Vec<_> = pods.iter().filter(beside).collect();
    let (Some(from), Some(to)) = (ends.first(), ends.last()) else {
        return Err(NoVerdict::new("no pod of the fixture has a neighbour").into());
    };
    let path = Path::new(scope, from, to);
    // Held while the neighbours are replaced, and used after that.
    let spec = TcpSpec {
        count: 20,
        concurrency: 20,
        hold_ms: 3000,
        bytes: 64,
        ..TcpSpec::new(at(to.ip, ECHO_TCP))
    };
    let replaced = async {
        for neighbour in &neighbours {
            scope.delete::<Pod>(&neighbour.name).await?;
        }
        scope.ready_pods("app=neighbour").await
    };
    let (replies, replaced) = join(path.from.tcp(&spec), replaced).await;
    replaced?;
    let seen: BTreeSet<_> = replies?
        .iter()
        .map(|reply| said::who(reply.error.as_ref(), reply.answer.as_ref()))
        .collect();
    let outcome = expect_eq(
        format!(
            "what becomes of 20 connections {} while other pods of both nodes are replaced",
            path.name()
        ),
        &BTreeSet::from([to.name.clone()]),
        &seen,
        "the CNI plugin rewrites the rules of the whole node when a pod comes or goes, or forgets its connections",
    );
    scope.explain(outcome, path.subject()).await
}

async fn idle_connections_stay(scope: &Scope) -> Outcome {
    let paths = across_nodes(scope).await?;
    judge(scope, "TCP, after half a minute of silence,", &paths, held).await
}

/// How long a connection is held before it is used.
const HELD: Duration = Duration::from_secs(30);

/// Over a connection that has been open for so long.
async fn held(path: &Path) -> Result<String, NoVerdict> {
    let spec = TcpSpec {
        hold_ms: u64::try_from(HELD.as_millis()).unwrap_or(u64::MAX),
        bytes: 64,
        ..TcpSpec::new(at(path.to.ip, ECHO_TCP))
    };
    Ok(said::tcp(&path.from.tcp(&spec).await?))
}

async fn connections_outlive_the_agent(scope: &Scope) -> Outcome {
    let plugin = scope.cluster().plugin().await?;
    let plugin = plugin.ok_or_else(|| NoVerdict::new("the CNI plugin's DaemonSet is gone"))?;
    let paths = across_nodes(scope).await?;
    let began = Instant::now();
    let replaced = async {
        // By then those that are held are open: they were begun first, the same way.
        judge(scope, "TCP", &paths, tcp).await?;
        scope
            .replace_pods_in(plugin.namespace, plugin.selector)
            .await?;
        Ok::<_, NotPassed>(began.elapsed())
    };
    let what = "TCP, by connections that were open while the CNI plugin's agents were replaced,";
    let (outcome, replaced) = join(judge(scope, what, &paths, held), replaced).await;
    let took = replaced?;
    if took > HELD {
        let took = took.as_secs();
        return Err(NoVerdict::new(format!(
            "the connections were used before the agents were replaced, which took {took} s"
        ))
        .into());
    }
    outcome
}

async fn network_policy_is_all_or_nothing(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let open = first(scope.ready_pods("app=open").await?)?;
    let denied = first(scope.ready_pods("app=denied").await?)?;
    let ask = async |pod: &PodView| {
        let spec = RequestSpec {
            count: 10,
            concurrency: 10,
            timeout_ms: 1000,
            ..RequestSpec::get(format!("http://{}/", at(pod.ip, 8080)))
        };
        let answers = client.request(&spec).await?;
        Ok::<_, NoVerdict>(answers.0.iter().map(said::said).collect::<BTreeSet<_>>())
    };
    let mut policy = BTreeSet::new();
    scope
        .eventually(Eventually {
            what: "what comes of ten connections to the pod without a policy, and in how many ways ten to the denied one end",
            expected: (BTreeSet::from(["200 by open".to_owned()]), 1),
            observe: async || {
                policy = ask(&denied).await?;
                Ok((ask(&open).await?, policy.len()))
            },
            likely: "the policy is in force on some nodes or for some connections only",
        })
        .await?;
    let enforced = policy.contains("timed out");
    let ignored = policy.contains("200 by denied");
    scope.record(
        "networkPolicy",
        if enforced {
            "enforced"
        } else {
            "ignored: the CNI plugin knows no policies, and nothing says so"
        },
    );
    expect(enforced != ignored, || Expect {
        what: "connections to a pod that a default-deny policy selects".to_owned(),
        expected: "all time out, or all are answered".to_owned(),
        observed: format!("{policy:?}"),
        likely: "something other than the policy keeps the client from the pod".to_owned(),
    })
}

fn first(pods: Vec<PodView>) -> Result<PodView, NoVerdict> {
    pods.into_iter()
        .next()
        .ok_or_else(|| NoVerdict::new("the manifest made no such pod"))
}
