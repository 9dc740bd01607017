//! Which pods of a StatefulSet to make and which to delete (Kubernetes' `stateful_set_control.go`).
//!
//! Start from [`plan`]. In order, each step takes one pod and waits until it serves; in parallel,
//! only an update does.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{REVISION_LABEL, pods};

/// The number of the first pod.
pub(super) fn first(set: &StatefulSet) -> u64 {
    let ordinals = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref());
    let start = ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0);
    u64::try_from(start).unwrap_or(0)
}

/// The name of the pod in a place, the first of which is 0.
pub(super) fn name(set: &StatefulSet, index: usize) -> String {
    let number = first(set).saturating_add(index as u64);
    format!("{}-{number}", set.name_any())
}

/// The number in a pod's name, if it is a name that the StatefulSet gives.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<u64> {
    let name = pod.metadata.name.as_deref()?;
    let (parent, number) = name.rsplit_once('-')?;
    let number = number.parse().ok()?;
    (parent == set.name_any() && name == format!("{parent}-{number}")).then_some(number)
}

/// The name of the revision that a pod was made of.
pub(super) fn revision_of(pod: &Pod) -> Option<&str> {
    pod.labels().get(REVISION_LABEL).map(String::as_str)
}

/// Whether an update replaces pods by itself.
pub(super) fn rolls(set: &StatefulSet) -> bool {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref());
    strategy.is_none_or(|strategy| strategy.type_.as_deref() != Some("OnDelete"))
}

fn partition(set: &StatefulSet) -> usize {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
    usize::try_from(partition).unwrap_or(0)
}

/// Whether the pod in a place is still to be of the current revision while there is a newer one.
pub(super) fn keeps_current(set: &StatefulSet, index: usize) -> bool {
    rolls(set) && index < partition(set)
}

/// The pods of a StatefulSet by their places.
pub(super) struct Slots {
    /// What is in each wanted place.
    wanted: Vec<Option<Arc<Pod>>>,
    /// Those outside, the highest first.
    condemned: Vec<Arc<Pod>>,
}

impl Slots {
    pub(super) fn new(set: &StatefulSet, owned: &[Arc<Pod>]) -> Self {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
        let replicas = usize::try_from(replicas.unwrap_or(1)).unwrap_or(0);
        let mut wanted = vec![None; replicas];
        let mut condemned = Vec::new();
        for pod in owned {
            let Some(number) = ordinal(set, pod) else {
                continue;
            };
            let index = number.checked_sub(first(set));
            let index = index.and_then(|index| usize::try_from(index).ok());
            match index.and_then(|index| wanted.get_mut(index)) {
                Some(place) => *place = Some(pod.clone()),
                None => condemned.push((number, pod.clone())),
            }
        }
        condemned.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Self {
            wanted,
            condemned: condemned.into_iter().map(|(_, pod)| pod).collect(),
        }
    }
}

/// What to do: the places to make a pod for, and the pods to delete.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) create: Vec<usize>,
    pub(super) delete: Vec<Arc<Pod>>,
}

/// The next steps towards the pods that are wanted, of the newest revision.
pub(super) fn plan(set: &StatefulSet, newest: &str, slots: &Slots) -> Plan {
    let spec = set.spec.clone().unwrap_or_default();
    let in_order = spec.pod_management_policy.as_deref() != Some("Parallel");
    let seconds = spec.min_ready_seconds.unwrap_or(0);
    let ending = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let serves = |pod: &Pod| !ending(pod) && pods::is_available(pod, seconds);
    let mut plan = Plan::default();
    for (index, place) in slots.wanted.iter().enumerate() {
        let waits = match place {
            None => {
                plan.create.push(index);
                true
            }
            // It comes back under its name once it is gone, however it ended.
            Some(pod) if pods::is_terminal(pod) => {
                if !ending(pod) {
                    plan.delete.push(pod.clone());
                }
                true
            }
            Some(pod) => !serves(pod),
        };
        if in_order && waits {
            return plan;
        }
    }
    // Scaling down goes before updating. One that does not serve stops it, but for the lowest such.
    let lowest = slots.condemned.iter().rfind(|pod| !serves(pod));
    for pod in &slots.condemned {
        let lowest = lowest.is_some_and(|lowest| Arc::ptr_eq(lowest, pod));
        if in_order && (ending(pod) || !serves(pod) && !lowest) {
            return plan;
        }
        if !ending(pod) {
            plan.delete.push(pod.clone());
        }
        if in_order {
            return plan;
        }
    }
    if !rolls(set) {
        return plan;
    }
    for place in slots.wanted.iter().skip(partition(set)).rev() {
        match place {
            Some(pod) if revision_of(pod) != Some(newest) && !ending(pod) => {
                if !pods::is_terminal(pod) {
                    plan.delete.push(pod.clone());
                }
                return plan;
            }
            Some(pod) if serves(pod) => {}
            _ => return plan,
        }
    }
    plan
}
