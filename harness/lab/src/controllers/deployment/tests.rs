//! Sizes of ReplicaSets while a rollout is under way.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use super::Family;
use super::rolling::{Plan, first_size, grow_new, is_scaling, limits, scale, shrink_old};

/// A ReplicaSet: what is asked of it, and how many of its pods are available.
fn set(name: &str, size: i32, available: i32, noted: i32) -> Arc<ReplicaSet> {
    let object = json!({
        "metadata": {"name": name, "uid": name, "annotations": {
            "deployment.kubernetes.io/desired-replicas": noted.to_string(),
            "deployment.kubernetes.io/max-replicas": (noted + 1).to_string(),
        }},
        "spec": {"replicas": size, "selector": {}},
        "status": {"replicas": size, "availableReplicas": available},
    });
    crate::testing::shared(object)
}

fn family(replicas: i32, strategy: &Value, old: &[(i32, i32)], new: Option<(i32, i32)>) -> Family {
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "replicas": replicas, "selector": {}, "template": {}, "strategy": strategy}});
    let names = ["a", "b"];
    let old = old.iter().zip(names);
    Family {
        deployment: crate::testing::shared(deployment),
        old: old
            .map(|(one, name)| set(name, one.0, one.1, replicas))
            .collect(),
        new: new.map(|one| set("new", one.0, one.1, replicas)),
    }
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn sizes(plan: &Plan) -> Vec<(String, i32)> {
    plan.iter()
        .map(|(set, size)| (set.metadata.name.clone().unwrap(), *size))
        .collect()
}

#[test]
fn a_new_replica_set_grows_within_the_surge() {
    let one = rolling(json!(1), json!(0));
    let quarter = rolling(json!("25%"), json!("25%"));
    let table = [
        (family(3, &one, &[], None), 3),
        (family(3, &one, &[(3, 3)], None), 1),
        (family(4, &quarter, &[(4, 4)], None), 1),
        (family(4, &rolling(json!(0), json!(1)), &[(4, 4)], None), 0),
        (family(4, &json!({"type": "Recreate"}), &[], None), 4),
    ];
    for (at, (family, expected)) in table.into_iter().enumerate() {
        assert_eq!(first_size(&family), expected, "case {at}");
    }
    let grown = family(3, &one, &[(2, 2)], Some((1, 1)));
    assert_eq!(sizes(&grow_new(&grown)), [("new".to_owned(), 2)]);
    let surplus = family(1, &one, &[], Some((3, 3)));
    assert_eq!(sizes(&grow_new(&surplus)), [("new".to_owned(), 1)]);
}

#[test]
fn old_replica_sets_shrink_only_as_far_as_new_pods_serve() {
    let one = rolling(json!(1), json!(0));
    let shrunk = |family: Family| sizes(&shrink_old(&family));
    type Case = (&'static str, Family, Vec<(&'static str, i32)>);
    let table: Vec<Case> = vec![
        (
            "the new pod does not serve yet",
            family(3, &one, &[(3, 3)], Some((1, 0))),
            vec![],
        ),
        (
            "it does",
            family(3, &one, &[(3, 3)], Some((1, 1))),
            vec![("a", 2)],
        ),
        (
            "one may be missing",
            family(3, &rolling(json!(0), json!(1)), &[(3, 3)], Some((0, 0))),
            vec![("a", 2)],
        ),
        (
            "pods that do not serve go first",
            family(3, &one, &[(1, 0), (3, 3)], Some((1, 1))),
            vec![("a", 0), ("b", 2)],
        ),
        (
            "but not while a new pod does not serve either",
            family(3, &one, &[(1, 0), (2, 2)], Some((1, 0))),
            vec![],
        ),
        (
            "nothing is left",
            family(3, &one, &[(0, 0)], Some((3, 3))),
            vec![],
        ),
    ];
    for (what, family, expected) in table {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(name, size)| (name.to_owned(), size))
            .collect();
        assert_eq!(shrunk(family), expected, "{what}");
    }
}

#[test]
fn percentages_round_up_for_surge_and_down_for_unavailability() {
    let table = [
        (3, rolling(json!("25%"), json!("25%")), (1, 0)),
        (10, rolling(json!("25%"), json!("25%")), (3, 2)),
        (2, rolling(json!("0%"), json!("10%")), (0, 1)),
        (3, json!({"type": "Recreate"}), (0, 0)),
    ];
    for (replicas, strategy, expected) in table {
        let found = limits(&family(replicas, &strategy, &[], None).deployment);
        assert_eq!(
            (found.surge, found.unavailable),
            expected,
            "{replicas} {strategy}"
        );
    }
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared_out() {
    let strategy = rolling(json!(1), json!(1));
    let mut family = family(12, &strategy, &[(5, 5)], Some((1, 1)));
    family.old = vec![set("a", 4, 4, 5)];
    family.new = Some(set("new", 2, 2, 5));
    assert!(is_scaling(&family));
    let plan = sizes(&scale(&family));
    assert_eq!(
        plan.iter().map(|(_, size)| size).sum::<i32>(),
        13,
        "{plan:?}"
    );
    assert_eq!(plan[0].0, "a");
    assert!(plan[0].1 > plan[1].1 && plan[1].1 > 2, "{plan:?}");
    family.new = None;
    assert_eq!(sizes(&scale(&family)), [("a".to_owned(), 12)]);
}
