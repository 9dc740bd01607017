//! What only trying tells of a Service: a node that keeps to itself, or has not programmed it.
//!
//! Start from [`programmed`]. Rule: a node is to blame only where every endpoint answers directly, from
//! the same place.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Service;

use super::judge::{Seen, object};
use crate::layer::tried::Tried;
use crate::verdict::cause::{Cause, CauseKind};

/// `internalTrafficPolicy: Local`, or `externalTrafficPolicy: Local` from outside, and no endpoint
/// on the node.
pub(super) fn local(seen: &Seen, service: &Service) -> Option<Cause> {
    let spec = service.spec.as_ref()?;
    let on = |node: &str| {
        let mut endpoints = seen.slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints.any(|endpoint| endpoint.node_name.as_deref() == Some(node))
    };
    let (field, node) = match &seen.from.node {
        Some(node) => {
            let failed = seen
                .at_cluster_ip
                .iter()
                .any(|(_, tried)| *tried != Tried::Answers);
            let local = spec.internal_traffic_policy.as_deref() == Some("Local");
            ("internalTrafficPolicy", (failed && local).then_some(node)?)
        }
        None => {
            let local = spec.external_traffic_policy.as_deref() == Some("Local");
            let mut failed = seen
                .at_nodes
                .iter()
                .filter(|(_, _, tried)| *tried != Tried::Answers);
            let (node, ..) = failed.find(|(node, ..)| local && !on(node))?;
            ("externalTrafficPolicy", node)
        }
    };
    if on(node) {
        return None;
    }
    let object = object(seen);
    Some(Cause {
        kind: CauseKind::NoLocalEndpoints,
        wrong: format!(
            "{object} keeps to the node (spec.{field} is Local), and node {node} has no endpoint of it"
        ),
        change: format!("set spec.{field} of {object} to Cluster, or run a pod of it on {node}"),
        see: object.see(),
    })
}

/// Endpoints answer directly, the Service does not.
pub(super) fn programmed(seen: &Seen) -> Option<Cause> {
    let object = object(seen);
    if let Some(node) = &seen.from.node {
        let (port, tried) = seen
            .at_cluster_ip
            .iter()
            .find(|(_, tried)| *tried != Tried::Answers)?;
        let answer = seen
            .direct
            .iter()
            .all(|direct| direct.tried == Tried::Answers);
        if seen.direct.is_empty() || !answer {
            return None;
        }
        let at = SocketAddr::new(seen.cluster_ip?, *port);
        let elsewhere = match &seen.elsewhere {
            Some((other, Tried::Answers)) => format!("; from node {other} it answers"),
            Some((other, tried)) => format!("; from node {other} it {tried} too"),
            None => String::new(),
        };
        return Some(not_programmed(
            node,
            format!(
                "node {node} has not programmed {object}: ClusterIP {at} {tried} from {}, while every \
                 endpoint answers directly{elsewhere}",
                seen.from.name
            ),
        ));
    }
    let answers = seen
        .at_nodes
        .iter()
        .find(|(.., tried)| *tried == Tried::Answers)?;
    let (node, port, tried) = seen
        .at_nodes
        .iter()
        .find(|(.., tried)| *tried != Tried::Answers)?;
    Some(not_programmed(
        node,
        format!(
            "node {node} has not programmed {object}: its node port {port} {tried}, while that of node {} \
             answers",
            answers.0
        ),
    ))
}

pub(super) fn not_programmed(node: &str, wrong: String) -> Cause {
    Cause {
        kind: CauseKind::ServiceNotProgrammed,
        wrong,
        change: format!(
            "nothing in the Service: look at the rules and the log of kube-proxy (or what stands for it) \
             on {node}; restarting it writes them anew"
        ),
        see: format!(
            "kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={node}"
        ),
    }
}
