//! Which node a pod goes to: filters, then scores.
//!
//! Start from [`place`]. The filters and their words are kube-scheduler's, in its order. The score
//! spreads the pods of one controller or Service, then evens out the nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm, PodSpec, Service, Taint};
use kube::ResourceExt as _;
use kube::core::SelectorExt as _;

use crate::controllers::fit::{is_tolerated, selects, taints, tolerations, untolerated};
use crate::controllers::owner::{controller_of, selector};
use crate::controllers::pods::{is_terminal, node_of};

/// What became of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It goes to this node.
    On(String),
    /// No node is one for it, and why, as people read it.
    Nowhere(String),
}

/// Why a node is not one for a pod.
struct Refusal {
    why: String,
    /// Whether other pods' going away could change it.
    occupied: bool,
}

fn never(why: impl Into<String>) -> Refusal {
    Refusal {
        why: why.into(),
        occupied: false,
    }
}

fn occupied(why: impl Into<String>) -> Refusal {
    Refusal {
        why: why.into(),
        occupied: true,
    }
}

/// Decides.
pub(super) fn place(
    pod: &Pod,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    services: &[Arc<Service>],
) -> Placed {
    let Some(spec) = &pod.spec else {
        return Placed::Nowhere("the pod has no spec".to_owned());
    };
    if nodes.is_empty() {
        return Placed::Nowhere("no nodes available to schedule pods".to_owned());
    }
    let placed: Vec<&Pod> = pods
        .iter()
        .map(|other| &**other)
        .filter(|other| node_of(other).is_some() && !is_terminal(other))
        .collect();
    let kin = Kin::of(pod, services);
    let mut best: Option<((i64, usize, usize), String)> = None;
    let mut refusals: Vec<Refusal> = Vec::new();
    for node in nodes {
        let here: Vec<&Pod> = placed
            .iter()
            .copied()
            .filter(|other| node_of(other) == node.metadata.name.as_deref())
            .collect();
        if let Some(refusal) = refuse(pod, spec, node, nodes, &here, &placed) {
            refusals.push(refusal);
            continue;
        }
        let related = here.iter().filter(|other| kin.includes(other)).count();
        let score = (-preference(spec, node), related, here.len());
        if best.as_ref().is_none_or(|(least, _)| score < *least) {
            best = Some((score, node.name_any()));
        }
    }
    match best {
        Some((_, node)) => Placed::On(node),
        None => Placed::Nowhere(explain(&refusals)),
    }
}

/// The words of kube-scheduler's `FitError`.
fn explain(refusals: &[Refusal]) -> String {
    let total = refusals.len();
    let listed = |texts: &mut dyn Iterator<Item = &str>| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for text in texts {
            *counts.entry(text).or_default() += 1;
        }
        let mut lines: Vec<String> = counts
            .into_iter()
            .map(|(text, count)| format!("{count} {text}"))
            .collect();
        lines.sort();
        lines.join(", ")
    };
    let why = listed(&mut refusals.iter().map(|one| one.why.as_str()));
    let preemption = listed(&mut refusals.iter().map(|one| {
        if one.occupied {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        }
    }));
    format!(
        "0/{total} nodes are available: {why}. preemption: 0/{total} nodes are available: {preemption}."
    )
}

fn taint(key: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    }
}

fn is_ready(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    conditions.any(|one| one.type_ == "Ready" && one.status == "True")
}

fn refuse(
    pod: &Pod,
    spec: &PodSpec,
    node: &Node,
    nodes: &[Arc<Node>],
    here: &[&Pod],
    placed: &[&Pod],
) -> Option<Refusal> {
    let tolerations = tolerations(spec);
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    if cordoned && !is_tolerated(tolerations, &taint("node.kubernetes.io/unschedulable")) {
        return Some(never("node(s) were unschedulable"));
    }
    // The node lifecycle controller's taint says the same a moment later.
    let mut all = taints(node).to_vec();
    let not_ready = taint("node.kubernetes.io/not-ready");
    let said = |taint: &Taint| {
        matches!(
            taint.key.as_str(),
            "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
        )
    };
    if !is_ready(node) && !all.iter().any(said) {
        all.push(not_ready);
    }
    if let Some(taint) = untolerated(tolerations, &all, &["NoSchedule", "NoExecute"]) {
        let value = taint.value.as_deref().unwrap_or_default();
        let why = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
        return Some(never(why));
    }
    if !selects(spec, node) {
        return Some(never("node(s) didn't match Pod's node affinity/selector"));
    }
    let wanted = host_ports(spec);
    let taken = here.iter().filter_map(|other| other.spec.as_ref());
    if taken
        .flat_map(host_ports)
        .any(|one| wanted.iter().any(|two| conflict(&one, two)))
    {
        return Some(occupied(
            "node(s) didn't have free ports for the requested pod ports",
        ));
    }
    if here.len() >= most_pods(node) {
        return Some(occupied("Too many pods"));
    }
    against(pod, spec, node, nodes, placed)
}

fn most_pods(node: &Node) -> usize {
    let status = node.status.as_ref();
    let allocatable = status.and_then(|status| status.allocatable.as_ref());
    let pods = allocatable.and_then(|allocatable| allocatable.get("pods"));
    pods.and_then(|pods| pods.0.parse().ok())
        .unwrap_or(usize::MAX)
}

/// Address, protocol and number of the ports that a pod takes of its node.
fn host_ports(spec: &PodSpec) -> Vec<(String, String, i32)> {
    let containers = spec.containers.iter();
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let address = port.host_ip.clone().filter(|address| !address.is_empty());
            let address = address.unwrap_or_else(|| "0.0.0.0".to_owned());
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((address, protocol, number))
        })
        .collect()
}

fn conflict(one: &(String, String, i32), two: &(String, String, i32)) -> bool {
    let any = |address: &str| address == "0.0.0.0";
    one.1 == two.1 && one.2 == two.2 && (one.0 == two.0 || any(&one.0) || any(&two.0))
}

/// Required pod affinity and anti-affinity (the filter InterPodAffinity).
fn against(
    pod: &Pod,
    spec: &PodSpec,
    node: &Node,
    nodes: &[Arc<Node>],
    placed: &[&Pod],
) -> Option<Refusal> {
    let affinity = spec.affinity.as_ref();
    let near = affinity.and_then(|one| one.pod_affinity.as_ref());
    let near = near.and_then(|one| {
        one.required_during_scheduling_ignored_during_execution
            .as_deref()
    });
    let matched = |owner: &Pod, term: &PodAffinityTerm| {
        let mut others = placed.iter();
        others.any(|other| term_selects(owner, term, other) && together(term, node, other, nodes))
    };
    for term in near.unwrap_or_default() {
        // The first of a group that wants to be together may go anywhere.
        let first = term_selects(pod, term, pod)
            && !placed.iter().any(|other| term_selects(pod, term, other));
        if !first && !matched(pod, term) {
            return Some(never("node(s) didn't match pod affinity rules"));
        }
    }
    if apart(pod).iter().any(|term| matched(pod, term)) {
        return Some(occupied("node(s) didn't match pod anti-affinity rules"));
    }
    let refused = placed.iter().any(|other| {
        apart(other)
            .iter()
            .any(|term| term_selects(other, term, pod) && together(term, node, other, nodes))
    });
    refused.then(|| occupied("node(s) didn't satisfy existing pods anti-affinity rules"))
}

fn apart(pod: &Pod) -> &[PodAffinityTerm] {
    let spec = pod.spec.as_ref();
    let affinity = spec.and_then(|spec| spec.affinity.as_ref());
    let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let required = apart.and_then(|apart| {
        apart
            .required_during_scheduling_ignored_during_execution
            .as_deref()
    });
    required.unwrap_or_default()
}

/// Whether a term of one pod is about another.
fn term_selects(owner: &Pod, term: &PodAffinityTerm, other: &Pod) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    let namespace = other.namespace();
    let everywhere = term.namespace_selector.as_ref().is_some_and(|selector| {
        selector
            .match_labels
            .as_ref()
            .is_none_or(BTreeMap::is_empty)
            && selector
                .match_expressions
                .as_ref()
                .is_none_or(Vec::is_empty)
    });
    let in_namespace = everywhere
        || if named.is_empty() {
            namespace == owner.namespace()
        } else {
            named.iter().any(|name| Some(name) == namespace.as_ref())
        };
    let labels = term.label_selector.as_ref().and_then(selector);
    in_namespace && labels.is_some_and(|labels| labels.matches(other.labels()))
}

/// Whether a node and another pod's node are the same place, as a term sees it.
fn together(term: &PodAffinityTerm, node: &Node, other: &Pod, nodes: &[Arc<Node>]) -> bool {
    let place = node.labels().get(&term.topology_key);
    let mut others = nodes.iter();
    let other = others.find(|node| node.metadata.name.as_deref() == node_of(other));
    let other = other.and_then(|node| node.labels().get(&term.topology_key));
    place.is_some() && place == other
}

/// How much a pod would like a node.
fn preference(spec: &PodSpec, node: &Node) -> i64 {
    let affinity = spec.affinity.as_ref();
    let affinity = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
    let preferred = affinity.and_then(|affinity| {
        affinity
            .preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let preferred = preferred.into_iter().flatten();
    let liked: i64 = preferred
        .filter(|one| crate::controllers::fit::term_selects(&one.preference, node))
        .map(|one| i64::from(one.weight))
        .sum();
    let disliked = taints(node).iter().filter(|taint| {
        taint.effect == "PreferNoSchedule" && !is_tolerated(tolerations(spec), taint)
    });
    liked - 100 * i64::try_from(disliked.count()).unwrap_or(0)
}

/// The pods that a pod is spread against: those of its controller, and of its Services.
struct Kin<'a> {
    namespace: Option<String>,
    controller: Option<&'a str>,
    selectors: Vec<&'a BTreeMap<String, String>>,
}

impl<'a> Kin<'a> {
    fn of(pod: &'a Pod, services: &'a [Arc<Service>]) -> Self {
        let selectors = services
            .iter()
            .filter_map(|service| service.spec.as_ref()?.selector.as_ref());
        Self {
            namespace: pod.namespace(),
            controller: controller_of(pod).map(|owner| owner.uid.as_str()),
            selectors: selectors
                .filter(|selector| !selector.is_empty() && contains(pod, selector))
                .collect(),
        }
    }

    fn includes(&self, other: &Pod) -> bool {
        let controller = controller_of(other).map(|owner| owner.uid.as_str());
        other.namespace() == self.namespace
            && ((self.controller.is_some() && controller == self.controller)
                || self
                    .selectors
                    .iter()
                    .any(|selector| contains(other, selector)))
    }
}

fn contains(pod: &Pod, selector: &BTreeMap<String, String>) -> bool {
    let labels = pod.labels();
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
