//! Diagnosing pod to pod: both ends' own networks, their policies, and attempts by their peers.
//!
//! Start from [`diagnose`]. What follows from what is seen is in [`judge`]. Rule: peers are asked
//! over the API, so that a path that is broken does not hide why.

mod between;
pub(super) mod judge;
mod policy;

#[cfg(test)]
pub(super) mod tests;

use futures::future::{join, join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use self::judge::{Crossing, End, Seen};
use super::look::{Look, attempt, tcp_ports};
use super::workload;
use crate::pod::PodView;
use crate::probe::Vantage;
use crate::verdict::{Cause, NoVerdict};

/// As many peers of each node are asked, and as many in the node's own network.
const PEERS: usize = 2;
const IN_NODES_NETWORK: usize = 1;

/// Names the cause why traffic does not pass.
pub(super) async fn diagnose(
    look: Look<'_>,
    from: &Vantage,
    to: &PodView,
) -> Result<Option<Cause>, NoVerdict> {
    let mut pods: Vec<Pod> = look.within(&to.namespace).await?;
    if let Some(from) = from.pod().filter(|from| from.namespace != to.namespace) {
        pods.extend(look.within(&from.namespace).await?);
    }
    // By their addresses of the family that is asked for.
    let of_family = |pod: Pod| {
        let view = PodView::of(&pod).and_then(|view| view.in_family(to.ip));
        view.map_or(pod, |view| view.pod)
    };
    let pods: Vec<Pod> = pods.into_iter().map(of_family).collect();
    // As they are now: what is wrong may have become so since the check looked.
    let now = |view: &PodView| {
        let same = |pod: &&Pod| {
            pod.name_any() == view.name && pod.namespace().as_deref() == Some(&view.namespace)
        };
        pods.iter()
            .find(same)
            .cloned()
            .unwrap_or_else(|| view.pod.clone())
    };
    let to_pod = now(to);
    let peers: Vec<_> = look
        .askable(&pods)
        .into_iter()
        .filter(|(peer, _)| {
            let is = |end: &PodView| end.name == peer.name && end.namespace == peer.namespace;
            !is(to) && !from.pod().is_some_and(is)
        })
        .collect();
    let peers = some_a_node(peers);
    let to_vantage = look.scope.from_pod(to);
    let (to_network, from_network) = join(to_vantage.network(), from.network()).await;
    let networks = join_all(peers.iter().map(|(_, vantage)| vantage.network())).await;
    let tried = join_all(
        tcp_ports(&to_pod)
            .into_iter()
            .map(|port| async move { Some((port, attempt(from, to.ip, port).await?)) }),
    )
    .await;
    let mut seen = Seen {
        from: from.pod().map(|view| End {
            pod: now(view),
            network: from_network.ok(),
        }),
        to: End {
            pod: to_pod,
            network: to_network.ok(),
        },
        tried: tried.into_iter().flatten().collect(),
        peers: peers
            .iter()
            .zip(networks)
            .map(|((view, _), network)| End {
                pod: view.pod.clone(),
                network: network.ok(),
            })
            .collect(),
        policies: look.all().await?,
        namespaces: look.namespaces().await?,
        workload: look.workload(&to.namespace, to.labels.clone()).await?,
        ..Seen::default()
    };
    if let Some(cause) = judge::cause(&seen) {
        return Ok(Some(cause));
    }
    seen.nodes = look.all().await?;
    seen.agents = look.all::<Pod>().await?;
    seen.agents.retain(agent);
    let silent = |(_, tried): &(u16, super::tried::Tried)| !tried.arrives();
    if seen.tried.iter().all(silent) {
        seen.across = crossings(&peers).await;
        let port = tcp_ports(&seen.to.pod)[0];
        let others = peers
            .iter()
            .map(|(_, vantage)| attempt(vantage, to.ip, port));
        seen.others_at_to = join_all(others).await.into_iter().flatten().collect();
    }
    Ok(judge::cause(&seen))
}

/// A few of each node.
fn some_a_node(peers: Vec<(PodView, Vantage)>) -> Vec<(PodView, Vantage)> {
    let mut some: Vec<(PodView, Vantage)> = Vec::new();
    for peer in peers {
        let in_nodes_network = workload::on_host_network(&peer.0.pod);
        let alike = some.iter().filter(|(has, _)| {
            has.node == peer.0.node && workload::on_host_network(&has.pod) == in_nodes_network
        });
        let enough = match in_nodes_network {
            true => IN_NODES_NETWORK,
            false => PEERS,
        };
        if alike.count() < enough {
            some.push(peer);
        }
    }
    some
}

/// A DaemonSet's pod on the node's own network.
fn agent(pod: &Pod) -> bool {
    let daemon = pod
        .owner_references()
        .iter()
        .any(|owner| owner.kind == "DaemonSet");
    workload::on_host_network(pod) && daemon && !workload::leaving(pod)
}

/// Attempts from every peer at every other that has a network of its own.
async fn crossings(peers: &[(PodView, Vantage)]) -> Vec<Crossing> {
    let pairs = peers
        .iter()
        .flat_map(|from| peers.iter().map(move |to| (from, to)));
    let tried = pairs
        .filter(|(from, to)| from.0.ip != to.0.ip && !workload::on_host_network(&to.0.pod))
        .map(|(from, to)| async move {
            let port = *tcp_ports(&to.0.pod).first()?;
            Some(Crossing {
                from: from.0.node.clone(),
                by_node: workload::on_host_network(&from.0.pod),
                to: to.0.node.clone(),
                tried: attempt(&from.1, to.0.ip, port).await?,
            })
        });
    join_all(tried).await.into_iter().flatten().collect()
}
