//! The decisions, without a kernel: tables of cases, and the whole script for a person to read.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::{Ruleset, rules};
use crate::testing::shared;
use crate::topology::IpFamily;

fn namespace(name: &str, labels: &Value) -> Arc<Namespace> {
    shared(json!({ "metadata": { "name": name, "labels": labels } }))
}

/// A pod `namespace/name` of a node, with the label `app` as its name and one named port.
fn pod(path: &str, node: &str, last: u8, port: u16) -> Arc<Pod> {
    let (namespace, name) = path.split_once('/').unwrap();
    shared(json!({
        "metadata": { "namespace": namespace, "name": name, "labels": { "app": name } },
        "spec": {
            "nodeName": node,
            "containers": [{ "name": "c", "ports": [
                { "name": "http", "containerPort": port },
                { "name": "dns", "containerPort": port, "protocol": "UDP" },
            ] }],
        },
        "status": { "phase": "Running", "podIP": format!("10.244.1.{last}") },
    }))
}

fn policy(path: &str, spec: &Value) -> Arc<NetworkPolicy> {
    let (namespace, name) = path.split_once('/').unwrap();
    shared(json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec }))
}

fn table(policies: &[Arc<NetworkPolicy>], more: &[Arc<Pod>]) -> Ruleset {
    let mut pods = vec![
        pod("shop/web", "here", 1, 8080),
        pod("shop/db", "here", 2, 5432),
        pod("shop/far", "there", 3, 8081),
        pod("ops/probe", "there", 4, 9000),
    ];
    pods.extend_from_slice(more);
    let namespaces = [
        namespace("shop", &json!({ "team": "shop" })),
        namespace("ops", &json!({ "team": "ops" })),
    ];
    rules(policies, &pods, &namespaces, "here", IpFamily::V4)
}

/// The rules that one policy's chain of a kind has; nothing without such a chain.
fn chain(table: &Ruleset, kind: &str) -> Option<Vec<String>> {
    let mut chains = table.chains.iter();
    let found = chains.find(|(name, _)| name.starts_with(kind));
    found.map(|(_, chain)| chain.rules.clone())
}

fn isolated(table: &Ruleset, map: &str) -> Vec<String> {
    table.maps[map].elements.keys().cloned().collect()
}

#[test]
fn the_table_of_a_node() {
    let policies = [
        policy(
            "shop/default-deny",
            &json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }),
        ),
        policy(
            "shop/web",
            &json!({
                "podSelector": { "matchLabels": { "app": "web" } },
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {
                        "from": [
                            { "podSelector": { "matchLabels": { "app": "far" } } },
                            { "namespaceSelector": { "matchLabels": { "team": "ops" } } },
                            { "ipBlock": { "cidr": "172.30.0.0/24", "except": ["172.30.0.2/32", "172.30.0.3/32"] } },
                        ],
                        "ports": [
                            { "port": "http" },
                            { "port": 8443, "protocol": "TCP" },
                            { "port": 9000, "endPort": 9010, "protocol": "UDP" },
                        ],
                    },
                ],
                "egress": [{ "to": [{ "podSelector": { "matchLabels": { "app": "db" } } }] }],
            }),
        ),
    ];
    insta::assert_snapshot!(table(&policies, &[]).replace());
}

/// A policy of `shop` that selects `web` with one rule of each way.
fn of_web(spec: Value) -> Ruleset {
    let mut all = json!({ "podSelector": { "matchLabels": { "app": "web" } } });
    json_patch::merge(&mut all, &spec);
    table(&[policy("shop/web", &all)], &[])
}

#[test]
fn the_types_of_a_policy_are_those_it_names_or_has() {
    let rule = json!([{}]);
    for (spec, ingress, egress) in [
        (json!({}), true, false),
        (json!({ "ingress": rule }), true, false),
        (json!({ "egress": rule }), true, true),
        (json!({ "egress": [] }), true, false),
        (
            json!({ "policyTypes": ["Egress"], "ingress": rule }),
            false,
            true,
        ),
        (
            json!({ "policyTypes": ["Ingress"], "egress": rule }),
            true,
            false,
        ),
    ] {
        let table = of_web(spec.clone());
        let has = |map| isolated(&table, map) == ["10.244.1.1"];
        assert_eq!(
            (has("to-workloads"), has("from-workloads")),
            (ingress, egress),
            "{spec}"
        );
    }
}

#[test]
fn a_rule_allows_what_its_peers_and_ports_add_up_to() {
    let web = |labels: &str| json!({ "matchLabels": { "app": labels } });
    for (from, ports, expected) in [
        // Nothing said is everything.
        (json!(null), json!(null), vec!["accept"]),
        (json!([]), json!([]), vec!["accept"]),
        // An empty selector is every pod of the policy's namespace, or of every namespace.
        (
            json!([{ "podSelector": {} }]),
            json!(null),
            vec!["ip saddr { 10.244.1.1, 10.244.1.2, 10.244.1.3 } accept"],
        ),
        (
            json!([{ "namespaceSelector": {} }]),
            json!(null),
            vec!["ip saddr { 10.244.1.1, 10.244.1.2, 10.244.1.3, 10.244.1.4 } accept"],
        ),
        // Selectors of one peer are both to be satisfied; of two peers, either.
        (
            json!([{ "namespaceSelector": { "matchLabels": { "team": "ops" } }, "podSelector": web("db") }]),
            json!(null),
            vec![],
        ),
        (
            json!([{ "namespaceSelector": { "matchLabels": { "team": "ops" } } }, { "podSelector": web("db") }]),
            json!(null),
            vec!["ip saddr { 10.244.1.2, 10.244.1.4 } accept"],
        ),
        (
            json!([{ "podSelector": { "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["web", "db"] }] } }]),
            json!(null),
            vec!["ip saddr { 10.244.1.3 } accept"],
        ),
        // Blocks, with overlapping exceptions, and of a family that the lab has not.
        (
            json!([{ "ipBlock": { "cidr": "0.0.0.0/0" } }]),
            json!(null),
            vec!["accept"],
        ),
        (
            json!([{ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.1.0.0/16"] } }]),
            json!(null),
            vec!["ip saddr != { 10.0.0.0/8 } accept"],
        ),
        (
            json!([{ "ipBlock": { "cidr": "172.30.0.9/24" } }, { "ipBlock": { "cidr": "fd00::/8" } }]),
            json!(null),
            vec!["ip saddr 172.30.0.0/24 accept"],
        ),
        // Ports: TCP unless another is said; overlapping ones; a protocol alone; a name.
        (
            json!(null),
            json!([{ "port": 80 }, { "port": 79, "endPort": 81 }, { "port": 90 }]),
            vec!["tcp dport { 79-81, 90 } accept"],
        ),
        (
            json!(null),
            json!([{ "protocol": "SCTP" }, { "port": 53, "protocol": "UDP" }, { "port": 53 }]),
            vec![
                "meta l4proto sctp accept",
                "tcp dport { 53 } accept",
                "udp dport { 53 } accept",
            ],
        ),
        (
            json!(null),
            json!([{ "port": "dns", "protocol": "UDP" }]),
            vec![
                "ip daddr . udp dport { 10.244.1.1 . 8080, 10.244.1.2 . 5432, 10.244.1.3 . 8081, 10.244.1.4 . 9000 } accept",
            ],
        ),
        (json!(null), json!([{ "port": "nobody" }]), vec![]),
        // Every peer with every port.
        (
            json!([{ "podSelector": web("db") }, { "ipBlock": { "cidr": "10.9.0.0/16" } }]),
            json!([{ "port": 80 }, { "port": 53, "protocol": "UDP" }]),
            vec![
                "ip saddr { 10.244.1.2 } tcp dport { 80 } accept",
                "ip saddr { 10.244.1.2 } udp dport { 53 } accept",
                "ip saddr 10.9.0.0/16 tcp dport { 80 } accept",
                "ip saddr 10.9.0.0/16 udp dport { 53 } accept",
            ],
        ),
    ] {
        let rule = json!({ "from": from, "ports": ports });
        let table = of_web(json!({ "ingress": [rule] }));
        assert_eq!(chain(&table, "cali-pi").unwrap(), expected, "{rule}");
        let rule = json!({ "to": from, "ports": ports });
        let table = of_web(json!({ "policyTypes": ["Egress"], "egress": [rule] }));
        let expected: Vec<_> = expected
            .iter()
            .map(|rule| rule.replace("ip saddr", "ip daddr"))
            .collect();
        assert_eq!(chain(&table, "cali-po").unwrap(), expected, "{rule}");
    }
}

#[test]
fn only_pods_with_an_address_of_their_own_are_seen() {
    let with = |path: &str, last: u8, change: Value| {
        let mut changed = serde_json::to_value(&*pod(path, "here", last, 80)).unwrap();
        json_patch::merge(&mut changed, &change);
        shared(changed)
    };
    let more = [
        with("shop/host", 5, json!({ "spec": { "hostNetwork": true } })),
        with(
            "shop/done",
            6,
            json!({ "status": { "phase": "Succeeded" } }),
        ),
        with("shop/new", 7, json!({ "status": { "podIP": null } })),
        with("shop/waits", 8, json!({ "spec": { "nodeName": null } })),
    ];
    let all = json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] });
    let table = table(&[policy("shop/all", &all)], &more);
    assert_eq!(
        isolated(&table, "to-workloads"),
        ["10.244.1.1", "10.244.1.2"]
    );
    assert_eq!(
        chain(&table, "cali-pi").unwrap(),
        ["ip saddr { 10.244.1.1, 10.244.1.2, 10.244.1.3 } accept"]
    );
}

#[test]
fn policies_hold_in_their_own_namespace_and_add_up() {
    let all = json!({ "podSelector": {} });
    let of_ops = table(&[policy("ops/deny", &all)], &[]);
    assert!(isolated(&of_ops, "to-workloads").is_empty());
    let both = table(&[policy("shop/b", &all), policy("shop/a", &all)], &[]);
    let rules = chain(&both, "cali-tw").unwrap();
    assert_eq!(rules.len(), 4, "{rules:?}");
    assert!(
        rules[0].ends_with("accept") && rules[3] == "drop",
        "{rules:?}"
    );
    assert!(rules[1].starts_with("jump cali-pi-") && rules[1].ends_with("shop/a"));
    assert!(rules[2].starts_with("jump cali-pi-") && rules[2].ends_with("shop/b"));
}

#[test]
fn a_change_says_only_what_changed() {
    let deny = policy("shop/deny", &json!({ "podSelector": {} }));
    let allow = |peer: &str| {
        policy(
            "shop/web",
            &json!({
                "podSelector": { "matchLabels": { "app": "web" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": peer } } }] }],
            }),
        )
    };
    let before = table(&[deny.clone(), allow("db")], &[]);
    assert_eq!(before.change(&before), None);
    let other = table(&[deny.clone(), allow("far")], &[]);
    insta::assert_snapshot!(other.change(&before).unwrap());
    let fewer = table(&[deny], &[]);
    insta::assert_snapshot!(fewer.change(&before).unwrap());
}
