//! DaemonSets: one pod on every node that fits.
//!
//! Start from [`run`]. Each pod is tied to its node by node affinity and bound by the scheduler.
//! [`plan`] decides for one DaemonSet which pods to make and which to delete, as a pure function.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorTerm, Pod, PodSpec, Toleration};
use kube::{Api, Client, ResourceExt as _};

use super::fit::{selects, taints, tolerations, untolerated};
use super::informer::Informers;
use super::owner::{self, Owner, forgiving};
use super::pod_control::PodControl;
use super::pods::{self, REVISION_LABEL};
use super::world::{Cache, Controller, Next, Steps, World, drive};
use crate::event::Recorder;

/// Runs the controller.
pub(super) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = DaemonSets {
        sets: world.watch(),
        pods: world.watch(),
        nodes: world.watch(),
        events: Recorder::new(client.clone(), "daemonset-controller"),
        client,
    };
    drive(world, controller).await;
}

struct DaemonSets {
    client: Client,
    sets: Cache<DaemonSet>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    events: Recorder,
}

impl Controller for DaemonSets {
    async fn reconcile(&mut self, namespace: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        let mut next = Next::Change;
        // A node is of no namespace, and concerns all.
        let sets = if namespace.is_empty() {
            self.sets.all()
        } else {
            self.sets.of(namespace)
        };
        for set in sets {
            next = next.or(self.reconcile_one(&set, &mut steps).await);
        }
        steps.end(next)
    }
}

impl DaemonSets {
    async fn reconcile_one(&self, set: &DaemonSet, steps: &mut Steps) -> Next {
        let namespace = set.namespace().unwrap_or_default();
        let Some(spec) = &set.spec else {
            return Next::Change;
        };
        let Some(owner) = Owner::new(set, &spec.selector) else {
            return Next::Change;
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let found = self.pods.of(&namespace);
        let mut owned = owner.claim(&api, &self.pods, found, steps).await;
        let nodes = self.nodes.all();
        if !owner.deleting {
            let plan = plan(set, &nodes, &owned);
            let control = PodControl {
                api: &api,
                pods: &self.pods,
                events: &self.events,
            };
            for pod in plan.delete {
                steps.take(control.delete(set, &pod).await);
            }
            for node in plan.create {
                match control.create(set, &pod_for(set, &namespace, &node)).await {
                    Ok(pod) => owned.push(Arc::new(pod)),
                    Err(error) => {
                        steps.take(forgiving::<()>(error));
                        break;
                    }
                }
            }
        }
        let (status, wait) = status(set, &nodes, &owned);
        if set.status.as_ref() != Some(&status) {
            let sets = Api::<DaemonSet>::namespaced(self.client.clone(), &namespace);
            let mut changed = set.clone();
            changed.status = Some(status);
            steps.take(owner::replace_status(&sets, &self.sets, &changed).await);
        }
        wait.map_or(Next::Change, Next::After)
    }
}

/// The hash of the current template.
fn hash(set: &DaemonSet) -> String {
    let spec = set.spec.clone().unwrap_or_default();
    let collisions = set
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    pods::template_hash(&spec.template, collisions)
}

/// The tolerations that every daemon pod has (`AddOrUpdateDaemonPodTolerations`).
fn daemon_tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = vec![
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        all.push(("network-unavailable", "NoSchedule"));
    }
    let all = all.into_iter().map(|(key, effect)| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    });
    let own = tolerations(spec).iter().cloned();
    let mut joined: Vec<Toleration> = own.collect();
    for one in all {
        if !joined.contains(&one) {
            joined.push(one);
        }
    }
    joined
}

/// A pod of the current template for a node.
fn pod_for(set: &DaemonSet, namespace: &str, node: &str) -> Pod {
    let template = set.spec.clone().unwrap_or_default().template;
    let mut pod = pods::from_template(&template, owner::controller_ref(set), namespace);
    pod.labels_mut()
        .insert(REVISION_LABEL.to_owned(), hash(set));
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(daemon_tolerations(spec));
    let affinity = spec.affinity.get_or_insert_default();
    let affinity = affinity.node_affinity.get_or_insert_default();
    let fields = serde_json::json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let fields = serde_json::from_value(fields).unwrap_or_default();
    let required = &mut affinity.required_during_scheduling_ignored_during_execution;
    match required {
        Some(required) if !required.node_selector_terms.is_empty() => {
            for term in &mut required.node_selector_terms {
                term.match_fields.clone_from(&fields);
            }
        }
        _ => {
            *required = Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_fields: fields,
                    ..NodeSelectorTerm::default()
                }],
            });
        }
    }
    pod
}

/// The node that a daemon pod is bound to, or will be.
fn target(pod: &Pod) -> Option<String> {
    if let Some(node) = pods::node_of(pod) {
        return Some(node.to_owned());
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?;
    let required = affinity.node_affinity.as_ref()?;
    let required = required
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let mut fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == "metadata.name")?;
    field.values.as_ref()?.first().cloned()
}

/// Whether a node is to run the DaemonSet's pod, and whether it may keep one that it has.
fn wanted(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let template = set.spec.as_ref().map(|spec| &spec.template);
    let Some(spec) = template.and_then(|template| template.spec.as_ref()) else {
        return (false, false);
    };
    if !selects(spec, node) {
        return (false, false);
    }
    let tolerations = daemon_tolerations(spec);
    let free = |effects: &[&str]| untolerated(&tolerations, taints(node), effects).is_none();
    (free(&["NoSchedule", "NoExecute"]), free(&["NoExecute"]))
}

/// What to do: the nodes to make a pod for, and the pods to delete.
#[derive(Default)]
struct Plan {
    create: Vec<String>,
    delete: Vec<Arc<Pod>>,
}

fn by_node(owned: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut found: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in owned {
        if let Some(node) = target(pod) {
            found.entry(node).or_default().push(pod.clone());
        }
    }
    for pods in found.values_mut() {
        pods.sort_by(|one, two| pods::by_age(&**one, &**two));
    }
    found
}

fn plan(set: &DaemonSet, nodes: &[Arc<Node>], owned: &[Arc<Pod>]) -> Plan {
    let spec = set.spec.clone().unwrap_or_default();
    let seconds = spec.min_ready_seconds.unwrap_or(0);
    let current = hash(set);
    let by_node = by_node(owned);
    let is_new = |pod: &Pod| pod.labels().get(REVISION_LABEL) == Some(&current);
    let available = |pod: &Pod| pods::is_available(pod, seconds);
    let mut plan = Plan::default();
    let mut desired = 0;
    let mut unavailable = 0;
    let mut surging = 0;
    // Nodes whose one pod is old and serves: they wait for their turn.
    let mut outdated = Vec::new();
    for node in nodes {
        let name = node.name_any();
        let (should, may) = wanted(set, node);
        desired += i32::from(should);
        let here = by_node.get(&name).map(Vec::as_slice).unwrap_or_default();
        let (failed, here): (Vec<_>, Vec<_>) = here
            .iter()
            .cloned()
            .partition(|pod| pods::is_terminal(pod) && pods::phase(pod) == "Failed");
        let ending = here
            .iter()
            .chain(&failed)
            .any(|pod| pod.metadata.deletion_timestamp.is_some());
        plan.delete.extend(
            failed
                .iter()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                .cloned(),
        );
        let live: Vec<Arc<Pod>> = here
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect();
        if !may || (!should && live.is_empty()) {
            plan.delete.extend(live);
            continue;
        }
        let (new, old): (Vec<_>, Vec<_>) = live.into_iter().partition(|pod| is_new(pod));
        match (new.as_slice(), old.as_slice()) {
            ([], []) => {
                unavailable += i32::from(should);
                if should && !ending && failed.is_empty() {
                    plan.create.push(name);
                }
            }
            ([new, surplus @ ..], old) => {
                plan.delete.extend(surplus.iter().cloned());
                if available(new) {
                    plan.delete.extend(old.iter().cloned());
                } else if old.is_empty() {
                    unavailable += 1;
                } else {
                    surging += 1;
                }
            }
            ([], [old, surplus @ ..]) => {
                plan.delete.extend(surplus.iter().cloned());
                if !available(old) {
                    unavailable += 1;
                }
                outdated.push((name, old.clone()));
            }
        }
    }
    let strategy = spec.update_strategy.unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return plan;
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let surge = pods::scaled(rolling.max_surge.as_ref(), 0, desired, true);
    let most = pods::scaled(rolling.max_unavailable.as_ref(), 1, desired, true);
    let mut room = (if surge > 0 {
        surge - surging
    } else {
        most - unavailable
    })
    .max(0);
    for (node, old) in outdated {
        // A pod that does not serve costs nothing to replace.
        if available(&old) {
            if room == 0 {
                continue;
            }
            room -= 1;
        }
        if surge > 0 {
            plan.create.push(node);
        } else {
            plan.delete.push(old);
        }
    }
    plan
}

/// The status, and when `minReadySeconds` make it change by themselves.
fn status(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    owned: &[Arc<Pod>],
) -> (DaemonSetStatus, Option<Duration>) {
    let spec = set.spec.clone().unwrap_or_default();
    let seconds = spec.min_ready_seconds.unwrap_or(0);
    let current = hash(set);
    let by_node = by_node(owned);
    let old = set.status.as_ref();
    let mut new = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: old.and_then(|old| old.collision_count),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    let mut wait: Option<Duration> = None;
    for node in nodes {
        let (should, _) = wanted(set, node);
        let here = by_node.get(&node.name_any());
        if !should {
            new.number_misscheduled += i32::from(here.is_some());
            continue;
        }
        new.desired_number_scheduled += 1;
        let Some(here) = here else { continue };
        new.current_number_scheduled += 1;
        // Of two pods on a node, as while surging, the one that serves counts.
        let ready = here
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .find(|pod| pods::is_ready(pod));
        if let Some(pod) = ready {
            new.number_ready += 1;
            match pods::until_available(pod, seconds) {
                Some(Duration::ZERO) => available += 1,
                Some(left) => wait = Some(wait.map_or(left, |wait| wait.min(left))),
                None => {}
            }
        }
        let newest = here.iter().rev().find(|pod| pods::is_active(pod));
        updated +=
            i32::from(newest.is_some_and(|pod| pod.labels().get(REVISION_LABEL) == Some(&current)));
    }
    let some = |number: i32| Some(number).filter(|number| *number > 0);
    new.updated_number_scheduled = some(updated);
    new.number_available = some(available);
    new.number_unavailable = some(new.desired_number_scheduled - available);
    (new, wait)
}
