//! The decisions, without a kernel: tables of cases, and the whole script for a person to read.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::load_balancers::LoadBalancers;
use super::model::{Endpoint, Endpoints, service_ports};
use super::{LocalCounts, NodeFacts, Ruleset, count_local, rules};
use crate::testing::object;
use crate::testing::shared;
use crate::topology::IpFamily::{V4, V6};

fn service(name: &str, spec: Value) -> Arc<Service> {
    let mut all = json!({
        "type": "ClusterIP",
        "clusterIP": "10.96.7.1",
        "ports": [{ "port": 80, "protocol": "TCP" }],
    });
    json_patch::merge(&mut all, &spec);
    shared(json!({
        "metadata": { "namespace": "default", "name": name },
        "spec": all,
        "status": { "loadBalancer": { "ingress": [{ "ip": "172.30.1.1", "ipMode": "VIP" }] } },
    }))
}

/// The last octet of an endpoint's address.
fn last(endpoint: &Endpoint) -> u8 {
    match endpoint.ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

/// Endpoints `(last octet, node, state)`; the state is `ready`, `draining` or `unready`.
fn slice(service: &str, endpoints: &[(u8, &str, &str)]) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(last, node, state)| {
            json!({
                "addresses": [format!("10.244.1.{last}")],
                "nodeName": node,
                "conditions": {
                    "ready": *state == "ready",
                    "serving": *state != "unready",
                    "terminating": *state == "draining",
                },
            })
        })
        .collect();
    shared(json!({
        "metadata": {
            "namespace": "default",
            "name": format!("{service}-1"),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints,
    }))
}

fn node(name: &str) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        ips: vec!["172.30.0.3".parse().unwrap()],
        zone: None,
    }
}

fn elements(table: &Ruleset, map: &str) -> Vec<String> {
    let elements = table.maps.get(map).unwrap().elements.iter();
    elements
        .map(|(key, element)| {
            let verdict = element.verdict.clone().unwrap();
            // Which chain, without its hash.
            let verdict = verdict.split('-').next().unwrap().to_owned();
            format!("{key} : {verdict}")
        })
        .collect()
}

#[test]
fn which_endpoints_a_policy_leaves() {
    type Case = (
        &'static str,
        Value,
        &'static [(u8, &'static str, &'static str)],
        &'static [u8],
        &'static [u8],
    );
    let external = json!({ "type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{ "port": 80, "nodePort": 30080 }] });
    let internal = json!({ "internalTrafficPolicy": "Local" });
    let cases: [Case; 8] = [
        (
            "ready ones only",
            json!({}),
            &[(2, "a", "ready"), (3, "b", "unready")],
            &[2],
            &[],
        ),
        (
            "draining ones wait for need",
            json!({}),
            &[(2, "b", "ready"), (3, "b", "draining")],
            &[2],
            &[],
        ),
        (
            "draining ones in need",
            json!({}),
            &[(2, "b", "unready"), (3, "b", "draining")],
            &[3],
            &[],
        ),
        (
            "local for the outside",
            external.clone(),
            &[(2, "a", "ready"), (3, "b", "ready")],
            &[2, 3],
            &[2],
        ),
        (
            "local draining ones, though others are ready elsewhere",
            external,
            &[(2, "a", "draining"), (3, "b", "ready")],
            &[3],
            &[2],
        ),
        (
            "local inside",
            internal.clone(),
            &[(2, "a", "ready"), (3, "b", "ready")],
            &[],
            &[2],
        ),
        (
            "none local inside",
            internal,
            &[(3, "b", "ready")],
            &[],
            &[],
        ),
        ("nobody", json!({}), &[], &[], &[]),
    ];
    for (what, spec, endpoints, cluster, local) in cases {
        let ports = service_ports(&[service("web", spec)], &[slice("web", endpoints)], V4);
        let node = node("a");
        let chosen = Endpoints::choose(&ports[0], &node);
        let lasts = |of: &[&Endpoint]| of.iter().map(|one| last(one)).collect::<Vec<_>>();
        assert_eq!(lasts(&chosen.cluster), cluster, "{what}");
        assert_eq!(lasts(&chosen.local), local, "{what}");
    }
}

#[test]
fn hints_are_followed_when_every_endpoint_has_one() {
    let endpoint = |last: u8, hints: Value| json!({ "addresses": [format!("10.244.1.{last}")], "hints": hints });
    let zone = |name: &str| json!({ "forZones": [{ "name": name }] });
    let both = json!({ "forZones": [{ "name": "z1" }], "forNodes": [{ "name": "a" }] });
    for (what, endpoints, expected) in [
        (
            "own zone",
            vec![endpoint(2, zone("z1")), endpoint(3, zone("z2"))],
            vec![2],
        ),
        (
            "no hint somewhere",
            vec![endpoint(2, zone("z1")), endpoint(3, json!({}))],
            vec![2, 3],
        ),
        ("another zone only", vec![endpoint(3, zone("z2"))], vec![3]),
        (
            "own node before own zone",
            vec![
                endpoint(2, both),
                endpoint(
                    3,
                    json!({ "forZones": [{ "name": "z1" }], "forNodes": [{ "name": "b" }] }),
                ),
            ],
            vec![2],
        ),
    ] {
        let mut slice: EndpointSlice = (*slice("web", &[])).clone();
        slice.endpoints = object(json!(endpoints));
        let ports = service_ports(&[service("web", json!({}))], &[Arc::new(slice)], V4);
        let node = NodeFacts {
            zone: Some("z1".to_owned()),
            ..node("a")
        };
        let chosen = Endpoints::choose(&ports[0], &node);
        let last: Vec<_> = chosen.cluster.iter().map(|e| last(e)).collect();
        assert_eq!(last, expected, "{what}");
    }
}

#[test]
fn services_that_are_not_ours_are_left_alone() {
    for spec in [
        json!({ "clusterIP": "None" }),
        json!({ "clusterIP": null }),
        json!({ "type": "ExternalName", "clusterIP": null, "externalName": "example.com" }),
        json!({ "clusterIP": "fd00::1" }),
        json!({ "ports": null }),
    ] {
        let ports = service_ports(&[service("web", spec.clone())], &[], V4);
        assert_eq!(ports, [], "{spec}");
    }
    let mut others: Service = (*service("web", json!({}))).clone();
    let label = (
        "service.kubernetes.io/service-proxy-name".to_owned(),
        "x".to_owned(),
    );
    others.metadata.labels = Some([label].into());
    assert_eq!(service_ports(&[Arc::new(others)], &[], V4), []);
}

#[test]
fn what_happens_where_there_is_no_endpoint() {
    let balancer = |policy: &str| {
        json!({ "type": "LoadBalancer", "externalTrafficPolicy": policy,
            "ports": [{ "port": 80, "nodePort": 30080 }] })
    };
    let elsewhere: &[_] = &[(2, "b", "ready")];
    for (what, spec, endpoints, services, nodeports) in [
        (
            "nobody at all: refused",
            balancer("Cluster"),
            &[][..],
            &[
                "10.96.7.1 . tcp . 80 : goto reject",
                "172.30.1.1 . tcp . 80 : goto reject",
            ][..],
            &["tcp . 30080 : goto reject"][..],
        ),
        (
            "another node has one: the outside is to go there",
            balancer("Local"),
            elsewhere,
            &["172.30.1.1 . tcp . 80 : drop"],
            &["tcp . 30080 : drop"],
        ),
        (
            "another node will do",
            balancer("Cluster"),
            elsewhere,
            &[],
            &[],
        ),
        (
            "policy inside",
            json!({ "internalTrafficPolicy": "Local" }),
            elsewhere,
            &["10.96.7.1 . tcp . 80 : drop"],
            &[],
        ),
    ] {
        let table = rules(
            &[service("web", spec)],
            &[slice("web", endpoints)],
            &node("a"),
            V4,
        );
        assert_eq!(elements(&table, "no-endpoint-services"), services, "{what}");
        assert_eq!(
            elements(&table, "no-endpoint-nodeports"),
            nodeports,
            "{what}"
        );
    }
}

#[test]
fn source_ranges_guard_the_load_balancers_address() {
    let guard = |ranges: Value| {
        let spec = json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ranges });
        let table = rules(
            &[service("web", spec)],
            &[slice("web", &[(2, "b", "ready")])],
            &node("a"),
            V4,
        );
        let chain = table
            .chains
            .iter()
            .find(|(name, _)| name.starts_with("firewall-") && name.contains('/'));
        chain.map(|(_, chain)| chain.rules.join("; "))
    };
    for (ranges, rule) in [
        (json!(null), None),
        (json!(["0.0.0.0/0"]), None),
        (
            json!(["192.0.2.0/24", "192.0.2.7/32"]),
            Some("ip saddr != { 192.0.2.0/24 } drop"),
        ),
        (
            json!(["172.30.0.0/24"]),
            Some("ip saddr != { 172.30.0.0/24, 172.30.1.1 } drop"),
        ),
        (json!(["fd00::/8"]), None),
    ] {
        assert_eq!(guard(ranges.clone()).as_deref(), rule, "{ranges}");
    }
}

#[test]
fn a_change_says_only_what_changed() {
    let both = [
        service("web", json!({})),
        service("other", json!({ "clusterIP": "10.96.7.2" })),
    ];
    let before = rules(&both, &[slice("web", &[(2, "b", "ready")])], &node("a"), V4);
    assert_eq!(before.change(&before), None);
    let slices = [
        slice("web", &[(2, "b", "ready")]),
        slice("other", &[(3, "b", "ready")]),
    ];
    let after = rules(&both, &slices, &node("a"), V4);
    let change = after.change(&before).unwrap();
    insta::assert_snapshot!(change);
    assert!(!change.contains("default/web"), "{change}");
    let back = before.change(&after).unwrap();
    insta::assert_snapshot!(back);
}

#[test]
fn names_are_as_kube_proxy_makes_them() {
    let spec = json!({ "ports": [{ "name": "p80", "port": 80 }] });
    let table = rules(
        &[service("web", spec)],
        &[{
            let mut slice: EndpointSlice = (*slice("web", &[(2, "b", "ready")])).clone();
            slice.ports = object(json!([{ "name": "p80", "port": 80 }]));
            Arc::new(slice)
        }],
        &node("a"),
        V4,
    );
    let names: Vec<_> = table
        .chains
        .keys()
        .filter(|name| name.contains('/'))
        .collect();
    // sha256sum | base32 | cut -c1-8, of what follows.
    assert_eq!(
        names,
        [
            "endpoint-A264EB6E-default/web/tcp/p80__10.244.1.2/80",
            "service-CLLS5CZR-default/web/tcp/p80",
        ]
    );
}

#[test]
fn the_table_of_a_node() {
    let web = service(
        "web",
        json!({
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "externalIPs": ["192.0.2.80"],
            "loadBalancerSourceRanges": ["172.30.0.0/24"],
            "sessionAffinity": "ClientIP",
            "ports": [{ "port": 80, "nodePort": 30080 }],
        }),
    );
    let none = service(
        "none",
        json!({
            "clusterIP": "10.96.0.10",
            "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }],
        }),
    );
    let slices = [slice("web", &[(2, "a", "ready"), (3, "b", "ready")])];
    let table = rules(&[web, none], &slices, &node("a"), V4);
    insta::assert_snapshot!(table.replace());
}

#[test]
fn the_table_of_a_node_in_the_other_family() {
    let web = service(
        "web",
        json!({
            "type": "NodePort",
            "clusterIPs": ["10.96.7.1", "fd00:10:96::7:1"],
            "externalTrafficPolicy": "Cluster",
            "externalIPs": ["192.0.2.80", "2001:db8::80"],
            "sessionAffinity": "ClientIP",
            "ports": [{ "port": 80, "nodePort": 30080 }],
        }),
    );
    let only_v4 = service("old", json!({ "clusterIP": "10.96.7.2" }));
    let mut v6: EndpointSlice = (*slice("web", &[(2, "a", "ready")])).clone();
    v6.metadata.name = Some("web-2".to_owned());
    v6.address_type = "IPv6".to_owned();
    v6.endpoints[0].addresses = vec!["fd00:10:244:1::2".to_owned()];
    let slices = [
        slice("web", &[(2, "a", "ready")]),
        slice("old", &[(3, "a", "ready")]),
        Arc::new(v6),
    ];
    let services = [web, only_v4];
    let node = node("a");
    let table = rules(&services, &slices, &node, V6);
    insta::assert_snapshot!(table.replace());
    let v4 = rules(&services, &slices, &node, V4).replace();
    assert!(!v4.contains("fd00:") && !v4.contains("2001:"), "{v4}");
}

#[test]
fn load_balancers_learn_which_nodes_have_an_endpoint() {
    let web = [service(
        "web",
        json!({
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
            "ports": [{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }],
        }),
    )];
    let mut slice: EndpointSlice = (*slice(
        "web",
        &[(2, "a", "ready"), (3, "b", "unready"), (4, "a", "ready")],
    ))
    .clone();
    let ports = json!([{ "name": "a", "port": 8080 }, { "name": "b", "port": 8081 }]);
    slice.ports = object(ports);
    let slices = [Arc::new(slice)];
    let ports = service_ports(&web, &slices, V4);
    for (name, count) in [("a", 2), ("b", 0)] {
        let expected = ("default".to_owned(), "web".to_owned(), count);
        let mut counts = LocalCounts::new();
        count_local(&ports, &node(name), &mut counts);
        // The same pods, in their other family.
        count_local(&ports, &node(name), &mut counts);
        assert_eq!(counts, [(31000, expected)].into());
    }
    let expected = [("172.30.1.1".parse().unwrap(), ["a".to_owned()].into())].into();
    assert_eq!(LoadBalancers::of(&web[0], &slices).local, expected);
}

#[test]
fn services_with_a_label_for_somebody_else_are_left_alone() {
    for (label, expected) in [
        ("example.com/other", 1),
        ("service.kubernetes.io/service-proxy-name", 0),
        ("service.kubernetes.io/headless", 0),
    ] {
        let mut labelled = (*service("web", json!({}))).clone();
        labelled.metadata.labels = Some([(label.to_owned(), String::new())].into());
        let ports = service_ports(&[Arc::new(labelled)], &[], V4);
        assert_eq!(ports.len(), expected, "{label}");
    }
}

#[test]
fn load_balancers_are_sticky_by_their_services_affinity() {
    let balanced = |affinity: &str, type_: &str| {
        let spec = json!({ "type": type_, "sessionAffinity": affinity });
        LoadBalancers::of(&service("web", spec), &[]).sticky.len()
    };
    assert_eq!(balanced("ClientIP", "LoadBalancer"), 1);
    assert_eq!(balanced("None", "LoadBalancer"), 0);
    assert_eq!(balanced("ClientIP", "ClusterIP"), 0);
}
