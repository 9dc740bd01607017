//! Whether a node is one for a pod: selectors, affinity, taints and tolerations.
//!
//! Start from [`selects`] and [`untolerated`]. Pure; the scheduler and the DaemonSet controller ask.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use kube::ResourceExt as _;

/// Whether a toleration is for a taint (core/v1 `ToleratesTaint`).
pub(super) fn is_tolerating(toleration: &Toleration, taint: &Taint) -> bool {
    fn given(text: &Option<String>) -> Option<&str> {
        text.as_deref().filter(|text| !text.is_empty())
    }
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect)
        || given(&toleration.key).is_some_and(|key| key != taint.key)
    {
        return false;
    }
    match given(&toleration.operator) {
        Some("Exists") => true,
        None | Some("Equal") => {
            // Without a key only Exists is meant.
            given(&toleration.key).is_some()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}

/// The tolerations of a pod.
pub(super) fn tolerations(spec: &PodSpec) -> &[Toleration] {
    spec.tolerations.as_deref().unwrap_or_default()
}

/// Whether one of the tolerations is for a taint.
pub(super) fn is_tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|one| is_tolerating(one, taint))
}

/// The taints of a node.
pub(super) fn taints(node: &Node) -> &[Taint] {
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref());
    taints.unwrap_or_default()
}

/// The first taint with one of the effects that is not tolerated.
pub(super) fn untolerated<'a>(
    tolerations: &[Toleration],
    taints: &'a [Taint],
    effects: &[&str],
) -> Option<&'a Taint> {
    let mut taints = taints.iter();
    taints
        .find(|taint| effects.contains(&taint.effect.as_str()) && !is_tolerated(tolerations, taint))
}

/// Whether `nodeSelector` and the required node affinity select a node.
pub(super) fn selects(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    let selector = spec.node_selector.iter().flatten();
    if !selector
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value))
    {
        return false;
    }
    let affinity = spec.affinity.as_ref();
    let affinity = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    required.is_none_or(|required| {
        let mut terms = required.node_selector_terms.iter();
        terms.any(|term| term_selects(term, node))
    })
}

/// Whether a term of a node selector is about a node.
pub(super) fn term_selects(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        // An empty term selects nothing.
        return false;
    }
    let names = BTreeMap::from([("metadata.name".to_owned(), node.name_any())]);
    expressions.iter().all(|one| holds(one, node.labels()))
        && fields.iter().all(|one| holds(one, &names))
}

fn holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let found = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let compared = |test: fn(i64, i64) -> bool| {
        let found = found.and_then(|found| found.parse().ok());
        let wanted = values.first().and_then(|value| value.parse().ok());
        found.zip(wanted).is_some_and(|(one, two)| test(one, two))
    };
    match requirement.operator.as_str() {
        "In" => found.is_some_and(|found| values.contains(found)),
        "NotIn" => !found.is_some_and(|found| values.contains(found)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared(|found, wanted| found > wanted),
        "Lt" => compared(|found, wanted| found < wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, PodSpec, Taint};
    use serde_json::{Value, json};

    use super::{is_tolerated, selects, tolerations};
    use crate::testing::object;

    fn spec(value: Value) -> PodSpec {
        let mut value = value;
        value["containers"] = json!([]);
        object(value)
    }

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint: Taint = object(json!({"key": "k", "value": "v", "effect": "NoSchedule"}));
        let table = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k"}), false),
            (json!({"key": "l", "operator": "Exists"}), false),
            (
                json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}),
                false,
            ),
            (
                json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}),
                true,
            ),
            (json!({"value": "v"}), false),
        ];
        for (toleration, expected) in table {
            let spec = spec(json!({"tolerations": [toleration]}));
            assert_eq!(
                is_tolerated(tolerations(&spec), &taint),
                expected,
                "{spec:?}"
            );
        }
    }

    #[test]
    fn nodes_are_selected_by_labels_and_affinity() {
        let node: Node =
            object(json!({"metadata": {"name": "n", "labels": {"zone": "a", "size": "3"}}}));
        let affinity = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        let expression = |key: &str, operator: &str, values: Value| {
            affinity(
                json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]),
            )
        };
        let table = [
            (json!({}), true),
            (json!({"nodeSelector": {"zone": "a"}}), true),
            (json!({"nodeSelector": {"zone": "b"}}), false),
            (expression("zone", "In", json!(["a", "b"])), true),
            (expression("zone", "NotIn", json!(["a"])), false),
            (expression("missing", "NotIn", json!(["a"])), true),
            (expression("missing", "Exists", json!([])), false),
            (expression("missing", "DoesNotExist", json!([])), true),
            (expression("size", "Gt", json!(["2"])), true),
            (expression("size", "Lt", json!(["2"])), false),
            (affinity(json!([{}])), false),
            (
                affinity(
                    json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]),
                ),
                true,
            ),
            (
                affinity(
                    json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}]),
                ),
                false,
            ),
            (
                affinity(
                    json!([{}, {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]),
                ),
                true,
            ),
        ];
        for (pod, expected) in table {
            assert_eq!(selects(&spec(pod.clone()), &node), expected, "{pod}");
        }
    }
}
