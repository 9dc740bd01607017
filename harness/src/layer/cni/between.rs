//! Why traffic does not pass between two nodes, though the pods themselves are well.
//!
//! Start from [`cause`]. Rule: what bears a node's address and what bears a pod's are told apart, since packet filters do.

use std::collections::BTreeSet;

use kube::ResourceExt as _;

use super::judge::{End, Seen};
use crate::layer::tried::Tried;
use crate::layer::workload;
use crate::verdict::cause::{Cause, CauseKind, Object};

/// The nodes under the two pods, and what is between them.
pub(super) fn cause(seen: &Seen) -> Option<Cause> {
    if seen.tried.iter().any(|(_, tried)| tried.arrives()) {
        return None;
    }
    let ends: Vec<_> = seen
        .from
        .iter()
        .chain([&seen.to])
        .filter_map(End::node)
        .collect();
    let unready = ends.iter().find_map(|name| {
        let node = seen.nodes.iter().find(|node| node.name_any() == *name)?;
        let conditions = node.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")?;
        (ready.status != "True").then(|| (*name, ready.message.clone().unwrap_or_default()))
    });
    if let Some((name, message)) = unready {
        let object = Object::of_cluster("Node", name);
        return Some(Cause {
            kind: CauseKind::NodeNotReady,
            wrong: workload::sentence(&format!("{object} is not ready"), &message),
            change: format!("what the conditions of {object} name"),
            see: object.describe(),
        });
    }
    let agent = seen.agents.iter().find(|agent| {
        let node = agent
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref());
        !workload::ready(agent) && node.is_some_and(|node| ends.contains(&node))
    });
    if let Some(agent) = agent {
        let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
        let object = Object::new("Pod", &namespace, &name);
        let node = agent
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref());
        return Some(Cause {
            kind: CauseKind::NodeAgentNotReady,
            wrong: format!(
                "{object}, the network agent of {}, is not ready",
                node.unwrap_or("its node")
            ),
            change: format!("what the events and the log of {object} name"),
            see: object.describe(),
        });
    }
    apart(seen)
}

/// Same node yes, across nodes no. A connection needs both ways, so a direction can be named only
/// where one way connects; a node can be named where a third node reaches the other one.
fn apart(seen: &Seen) -> Option<Cause> {
    let (a, b) = (seen.from.as_ref()?.node()?, seen.to.node()?);
    let arrives = |from: &str, to: &str| arrives(seen, false, from, to);
    let within = [arrives(a, a), arrives(b, b)];
    if a == b || arrives(a, b) != Some(false) || within.contains(&Some(false)) {
        return None;
    }
    let how = match arrives(b, a) {
        Some(true) => format!("{b} reaches {a}"),
        Some(false) => "nor back".to_owned(),
        None => "the way back was not tried".to_owned(),
    };
    if let Some(cause) = not_forwarded(seen, (a, b), &how) {
        return Some(cause);
    }
    let within = match within {
        [None, None] => "",
        _ => ", while pods of one node reach each other",
    };
    let others: BTreeSet<_> = seen
        .across
        .iter()
        .map(|crossing| crossing.from.as_str())
        .collect();
    let third = others
        .into_iter()
        .filter(|node| *node != a && *node != b)
        .find_map(|c| match (arrives(c, a), arrives(c, b)) {
            (Some(true), Some(false)) => Some((b, c)),
            (Some(false), Some(true)) => Some((a, c)),
            _ => None,
        });
    let (culprit, witness) = match third {
        Some((culprit, witness)) => (
            culprit,
            format!("; {witness} does not reach {culprit} either"),
        ),
        None => (b, String::new()),
    };
    Some(Cause {
        kind: CauseKind::NodesApart,
        wrong: format!("no pod of node {a} reaches a pod of node {b} ({how}){within}{witness}"),
        change: format!(
            "the CNI's routes or tunnel between {a} and {b} (for VXLAN: forwarding entries, and UDP \
             8472 or 4789 let through between the nodes)"
        ),
        see: format!("kubectl get pods -A -o wide --field-selector spec.nodeName={culprit}"),
    })
}

/// Nodes reach each other's pods, so their routes are right; pods do not, so what bears their addresses goes no further.
fn not_forwarded(seen: &Seen, (a, b): (&str, &str), how: &str) -> Option<Cause> {
    let both = [(a, b), (b, a)].map(|(from, to)| arrives(seen, true, from, to));
    (both == [Some(true); 2]).then(|| Cause {
        kind: CauseKind::PodsNotForwarded,
        wrong: format!(
            "no pod of node {a} reaches a pod of node {b} ({how}), while the nodes themselves reach each other's pods: \
             what bears a pod's address is not forwarded"
        ),
        change: format!(
            "what forwards between {a} and {b}: net.ipv4.ip_forward and the FORWARD chain of either, and a packet filter \
             between them (where nodes are containers, their machine's: Docker sets its FORWARD policy to DROP)"
        ),
        see: "kubectl get nodes -o custom-columns=NAME:.metadata.name,PODS:.spec.podCIDR".to_owned(),
    })
}

/// Whether anything arrived of what was tried from pods of one node, or from the node itself, at pods of another; nothing
/// if nothing was tried.
fn arrives(seen: &Seen, by_node: bool, from: &str, to: &str) -> Option<bool> {
    let crossings = seen.across.iter();
    let mut tried = crossings
        .filter(|it| it.by_node == by_node && it.from == from && it.to == to)
        .map(|crossing| crossing.tried.arrives())
        .peekable();
    tried.peek()?;
    Some(tried.any(|arrives| arrives))
}

/// Nobody reaches the destination, while its node's other pods are reached.
pub(super) fn alone(seen: &Seen) -> Option<Cause> {
    let silent = |tried: &Tried| !tried.arrives();
    let node = seen.to.node()?;
    let dead = !seen.tried.is_empty() && seen.tried.iter().all(|(_, tried)| silent(tried));
    let for_all = !seen.others_at_to.is_empty() && seen.others_at_to.iter().all(silent);
    let peers = seen
        .across
        .iter()
        .any(|crossing| crossing.to == node && crossing.tried.arrives());
    if !(dead && for_all && peers) {
        return None;
    }
    let said = seen.to.said();
    Some(Cause {
        kind: CauseKind::PodUnreachable,
        wrong: format!("nothing reaches {said}, while other pods of node {node} are reached"),
        change: format!(
            "the route of {node} to {}, which its CNI makes; delete {said} to have it made anew",
            seen.to.ip()?
        ),
        see: format!(
            "kubectl -n {} get pod {} -o wide",
            seen.to.namespace(),
            seen.to.name()
        ),
    })
}
