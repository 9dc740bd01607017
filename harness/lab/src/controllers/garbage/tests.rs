//! The three ways to delete an owner, what several owners mean, and custom kinds.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::graph::{Graph, Item, Step};
use crate::controllers::tests::Cluster;

fn item(name: &str, owners: &[(&str, bool)], finalizers: &[&str], ending: bool) -> Item {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(uid, block)| json!({"apiVersion": "v1", "kind": "K", "name": uid, "uid": uid, "blockOwnerDeletion": block}))
        .collect();
    let mut object = json!({"metadata": {"name": name, "uid": name, "ownerReferences": owners, "finalizers": finalizers}});
    if ending {
        object["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z".into();
    }
    let kind = (String::new(), "ks".to_owned());
    Item::new(kind, crate::testing::shared(object))
}

fn told(items: &[Item], absent: &[&str]) -> Vec<String> {
    let plan = Graph::of(items).decide(|uid| absent.contains(&uid));
    plan.iter()
        .map(|(item, step)| {
            let what = match step {
                Step::Delete(policy) => format!("delete {policy:?}"),
                Step::Disown(owners) => {
                    let left: Vec<&str> = owners.iter().map(|owner| owner.uid.as_str()).collect();
                    format!("keep owners {left:?}")
                }
                Step::Finish(left) => format!("keep finalizers {left:?}"),
            };
            format!("{}: {what}", item.object.name_any())
        })
        .collect()
}

#[test]
fn what_happens_to_an_object_follows_from_its_owners() {
    type Case = (
        &'static str,
        Vec<Item>,
        &'static [&'static str],
        &'static [&'static str],
    );
    let table: Vec<Case> = vec![
        ("nobody owns it", vec![item("a", &[], &[], false)], &[], &[]),
        (
            "its owner is there",
            vec![
                item("o", &[], &[], false),
                item("a", &[("o", true)], &[], false),
            ],
            &[],
            &[],
        ),
        (
            "its owner is not known yet",
            vec![item("a", &[("o", true)], &[], false)],
            &[],
            &[],
        ),
        (
            "its owner is gone",
            vec![item("a", &[("o", true)], &[], false)],
            &["o"],
            &["a: delete Background"],
        ),
        (
            "one of two owners is gone",
            vec![
                item("o", &[], &[], false),
                item("a", &[("o", true), ("p", true)], &[], false),
            ],
            &["p"],
            &[r#"a: keep owners ["o"]"#],
        ),
        (
            "its owner waits for it",
            vec![
                item("o", &[], &["foregroundDeletion"], true),
                item("a", &[("o", true)], &[], false),
            ],
            &[],
            &["a: delete Background"],
        ),
        (
            "its owner waits for it, and it has dependents",
            vec![
                item("o", &[], &["foregroundDeletion"], true),
                item("a", &[("o", true)], &[], false),
                item("b", &[("a", true)], &[], false),
            ],
            &[],
            &["a: delete Foreground"],
        ),
        (
            "its owner waits for nothing more",
            vec![item("o", &[], &["foregroundDeletion", "x"], true)],
            &[],
            &[r#"o: keep finalizers ["x"]"#],
        ),
        (
            "its owner waits, but not for this one",
            vec![
                item("o", &[], &["foregroundDeletion"], true),
                item("a", &[("o", false)], &["x"], true),
            ],
            &[],
            &["o: keep finalizers []"],
        ),
        (
            "its owner lets go of it",
            vec![
                item("o", &[], &["orphan"], true),
                item("a", &[("o", true)], &[], false),
            ],
            &[],
            &["a: keep owners []"],
        ),
        (
            "its owner let go of all",
            vec![
                item("o", &[], &["orphan"], true),
                item("a", &[], &[], false),
            ],
            &[],
            &["o: keep finalizers []"],
        ),
        (
            "it is ending already",
            vec![item("a", &[("o", true)], &["x"], true)],
            &["o"],
            &[],
        ),
    ];
    for (what, items, absent, expected) in table {
        let mut found = told(&items, absent);
        // An owner that is let go of is still there for its dependents' own turn.
        found.dedup();
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn owners_that_nobody_has_seen_are_asked_about_once() {
    let items = [
        item("o", &[], &[], false),
        item("a", &[("o", true), ("p", true)], &[], false),
        item("b", &[("p", true)], &[], false),
    ];
    let unknown: Vec<String> = Graph::of(&items)
        .unknown_owners()
        .map(|(_, owner)| owner.uid.clone())
        .collect();
    assert_eq!(unknown, ["p"]);
}

async fn delete(cluster: &Cluster, policy: PropagationPolicy) {
    let parameters = DeleteParams {
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    };
    let api = cluster.api::<Deployment>();
    api.delete("web", &parameters).await.unwrap();
    cluster
        .until(api, "", "the Deployment's end", |found| found.is_empty())
        .await;
}

#[tokio::test]
async fn a_deployment_takes_its_pods_along() {
    for policy in [PropagationPolicy::Background, PropagationPolicy::Foreground] {
        let cluster = Cluster::with_nodes(&["a"]).await;
        cluster.deploy("web", json!({"replicas": 2})).await;
        cluster.rolled_out("web").await;
        let foreground = matches!(policy, PropagationPolicy::Foreground);
        delete(&cluster, policy).await;
        let sets = cluster.api::<ReplicaSet>();
        if foreground {
            let left = sets.list(&kube::api::ListParams::default()).await.unwrap();
            assert!(left.items.is_empty(), "they go first");
        }
        cluster
            .until(sets, "", "no ReplicaSet", |found| found.is_empty())
            .await;
        let pods = cluster.api::<Pod>();
        cluster
            .until(pods, "", "no pod", |found| found.is_empty())
            .await;
    }
}

#[tokio::test]
async fn orphans_stay() {
    let cluster = Cluster::with_nodes(&["a"]).await;
    cluster.deploy("web", json!({"replicas": 1})).await;
    cluster.rolled_out("web").await;
    delete(&cluster, PropagationPolicy::Orphan).await;
    let orphaned = |sets: &[ReplicaSet]| sets.len() == 1 && sets[0].owner_references().is_empty();
    cluster
        .until(cluster.api(), "", "an orphaned ReplicaSet", orphaned)
        .await;
}

#[tokio::test]
async fn custom_owners_and_their_objects_are_collected() {
    let cluster = Cluster::with_nodes(&[]).await;
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"}, "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    cluster.create(definitions, definition).await;
    let resource = ApiResource {
        group: "example.com".into(),
        version: "v1".into(),
        api_version: "example.com/v1".into(),
        kind: "Thing".into(),
        plural: "things".into(),
    };
    let things = Api::<DynamicObject>::default_namespaced_with(cluster.client.clone(), &resource);
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}});
    let thing: DynamicObject = crate::testing::object(thing);
    let thing = things.create(&PostParams::default(), &thing).await.unwrap();
    let owned = |uid: &str| {
        json!({"metadata": {"name": "owned", "ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": uid}]}})
    };
    let maps = cluster.api::<ConfigMap>();
    let uid = thing.uid().unwrap();
    cluster.create(maps.clone(), owned(&uid)).await;
    things.delete("t", &DeleteParams::default()).await.unwrap();
    let gone = |found: &[ConfigMap]| !found.iter().any(|map| map.name_any() == "owned");
    cluster.until(maps.clone(), "", "no map", gone).await;
    cluster.create(maps.clone(), owned("another-uid")).await;
    cluster
        .until(maps, "", "no map of an owner that never was", gone)
        .await;
}
