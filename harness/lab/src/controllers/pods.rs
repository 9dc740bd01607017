//! What workload controllers ask of pods.
//!
//! Start from [`from_template`], [`is_ready`] and [`is_available`]; [`by_deletion_order`] says which
//! pods go first when there are too many.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::world::Next;

/// The characters of a hash: no vowels, so no words (apimachinery's `SafeEncodeString`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The label that tells of which revision of its controller's template a pod is
/// (`ControllerRevisionHashLabelKey`).
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";

/// A condition of a pod.
pub(super) fn condition<'a>(pod: &'a Pod, name: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|one| one.type_ == name)
}

/// Whether the pod's condition Ready is true.
pub(super) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|one| one.status == "True")
}

/// Since when a pod is ready.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|one| one.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// How long until a ready pod counts as available; none where it is not ready.
pub(super) fn until_available(pod: &Pod, min_ready_seconds: i32) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let since = ready_since(pod)?;
    let ready = Timestamp::now().duration_since(since);
    let ready = Duration::try_from(ready).unwrap_or_default();
    let wanted = Duration::from_secs(min_ready_seconds.unsigned_abs().into());
    Some(wanted.saturating_sub(ready))
}

/// When the first of these pods that are not available yet will be, unless one changes before.
pub(super) fn next_available(pods: &[Arc<Pod>], min_ready_seconds: i32) -> Next {
    pods.iter()
        .filter_map(|pod| until_available(pod, min_ready_seconds))
        .filter(|wait| !wait.is_zero())
        .map(Next::After)
        .fold(Next::Change, Next::or)
}

/// Whether a pod has been ready for `minReadySeconds`.
pub(super) fn is_available(pod: &Pod, min_ready_seconds: i32) -> bool {
    until_available(pod, min_ready_seconds) == Some(Duration::ZERO)
}

/// The pod's phase.
pub(super) fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

/// Whether all that the pod was to run has ended.
pub(super) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether a pod runs or will run: it has not ended and is not being deleted.
pub(super) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The node that a pod is bound to.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let node = pod.spec.as_ref()?.node_name.as_deref();
    node.filter(|node| !node.is_empty())
}

/// A pod as a template describes it, with a generated name.
pub(super) fn from_template(
    template: &PodTemplateSpec,
    owner: OwnerReference,
    namespace: &str,
) -> Pod {
    let metadata = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: Some(namespace.to_owned()),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod
        .annotations()
        .get("controller.kubernetes.io/pod-deletion-cost");
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref());
    let counts = containers.unwrap_or_default().iter();
    counts.map(|one| one.restart_count).max().unwrap_or(0)
}

/// Sorts pods so that those come first that are to be deleted first (Kubernetes'
/// `ActivePodsWithRanks`): unassigned, pending, not ready, cheap, doubled up on their node, ready or
/// made most recently.
pub(super) fn by_deletion_order<P: std::borrow::Borrow<Pod>>(pods: &mut [P]) {
    let mut on_node: HashMap<String, usize> = HashMap::new();
    for node in pods.iter().filter_map(|pod| node_of(pod.borrow())) {
        *on_node.entry(node.to_owned()).or_default() += 1;
    }
    let rank = |pod: &Pod| node_of(pod).and_then(|node| on_node.get(node)).copied();
    let stage = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    pods.sort_by(|one, two| {
        let (one, two) = (one.borrow(), two.borrow());
        node_of(one)
            .is_some()
            .cmp(&node_of(two).is_some())
            .then_with(|| stage(one).cmp(&stage(two)))
            .then_with(|| is_ready(one).cmp(&is_ready(two)))
            .then_with(|| deletion_cost(one).cmp(&deletion_cost(two)))
            .then_with(|| rank(two).cmp(&rank(one)))
            .then_with(|| ready_since(two).cmp(&ready_since(one)))
            .then_with(|| restarts(two).cmp(&restarts(one)))
            .then_with(|| created(two).cmp(&created(one)))
            .then_with(|| one.name_any().cmp(&two.name_any()))
    });
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The number that an `IntOrString` means of a total; percentages are rounded up or down.
pub(super) fn scaled(
    value: Option<&k8s_openapi::apimachinery::pkg::util::intstr::IntOrString>,
    default: i32,
    total: i32,
    up: bool,
) -> i32 {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    match value {
        None => default,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%');
            let Some(percent) = percent.and_then(|text| text.parse::<i32>().ok()) else {
                return default;
            };
            let hundredths = i64::from(total) * i64::from(percent);
            let rounded = if up {
                (hundredths + 99).div_euclid(100)
            } else {
                hundredths.div_euclid(100)
            };
            i32::try_from(rounded).unwrap_or(default)
        }
    }
}

/// Compares by age, the oldest first, and by name.
pub(super) fn by_age<K: kube::Resource>(one: &K, two: &K) -> Ordering {
    let age = |object: &K| object.creation_timestamp().map(|time| time.0);
    age(one)
        .cmp(&age(two))
        .then_with(|| one.name_any().cmp(&two.name_any()))
}

/// The hash that tells the pods of one template from those of another; collisions are told apart
/// by their count. Its text is not the one that Kubernetes would make, which nobody may rely on.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut digest = Sha256::new();
    // A template that came from JSON can be written as JSON.
    digest.update(serde_json::to_vec(template).unwrap_or_default());
    digest.update(collisions.unwrap_or(0).to_be_bytes());
    let bytes = digest.finalize();
    let characters = bytes.iter().take(10);
    characters
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}
