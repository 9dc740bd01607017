//! Listeners that others bring, and datagrams.

use gateway_api::listenersets::ListenerSetStatus;

use super::*;
use crate::l7::envoy::validate::assert_accepted;
use crate::l7::gateway::status::Observed;

const LENDING: &str = "
---
kind: Gateway
metadata: {name: my-gateway}
spec:
  gatewayClassName: contour
  allowedListeners: {namespaces: {from: Same}}
  listeners:
  - {name: own, protocol: HTTP, port: 80, hostname: own.example.com}
";

fn set(metadata: &str, listeners: &str) -> String {
    format!(
        "
---
kind: ListenerSet
metadata: {{{metadata}}}
spec:
  parentRef: {{name: my-gateway, namespace: default}}
  listeners: [{listeners}]
"
    )
}

fn listener(name: &str, host: &str) -> String {
    format!("{{name: {name}, protocol: HTTP, port: 80, hostname: {host}.example.com}}")
}

/// What is said of every ListenerSet of the first Gateway, by name.
fn said(yaml: &str) -> (BTreeMap<String, ListenerSetStatus>, Option<i32>) {
    let input = input(yaml);
    let translation = translate(&input);
    let translated = &translation.gateways[0];
    assert_accepted(&translated.snapshot);
    let observed = Observed {
        addresses: vec![("IPAddress", "10.0.0.1".to_owned())],
        waits_for: None,
    };
    let of = |(set, refused): &(&ListenerSet, Option<input::Problem>)| {
        let status = sets::of_set(translated, (set, refused.as_ref()), &observed);
        (set.name_any(), status)
    };
    let statuses = translated.sets.iter().map(of).collect();
    let gateway = status::of_gateway(translated, &observed);
    (statuses, gateway.attached_listener_sets)
}

fn reasons(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
) -> Vec<String> {
    let said = |it: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        format!("{} {} {}", it.type_, it.status, it.reason)
    };
    conditions.iter().map(said).collect()
}

#[test]
fn the_first_of_listeners_that_conflict_is_served() {
    let yaml = [
        LENDING,
        // By name, since none has an age.
        &set(
            "name: a",
            &[listener("one", "one"), listener("two", "two")].join(", "),
        ),
        &set(
            "name: b",
            &[
                listener("taken", "one"),
                "{name: bytes, protocol: TCP, port: 80}".to_owned(),
                listener("free", "free"),
            ]
            .join(", "),
        ),
        &set("name: c", &listener("own", "own")),
        &set("name: d, namespace: other", &listener("far", "far")),
        "
---
kind: HTTPRoute
metadata: {name: on-a}
spec:
  parentRefs: [{kind: ListenerSet, name: a}]
  rules: [{backendRefs: [{name: frontend, port: 80}]}]
",
        &service("frontend", &["10.0.0.1"]),
    ]
    .concat();
    let (said, attached) = said(&yaml);
    assert_eq!(attached, Some(2));
    for (name, accepted) in [
        ("a", "Accepted True Accepted"),
        ("b", "Accepted True ListenersNotValid"),
        ("c", "Accepted False ListenersNotValid"),
        ("d", "Accepted False NotAllowed"),
    ] {
        let conditions = said[name].conditions.clone().unwrap();
        assert_eq!(reasons(&conditions)[0], accepted, "{name}");
    }
    let listeners = said["b"].listeners.clone().unwrap();
    let conflicts: Vec<_> = listeners
        .iter()
        .map(|it| reasons(&it.conditions)[3].clone())
        .collect();
    assert_eq!(
        conflicts,
        [
            "Conflicted True HostnameConflict",
            "Conflicted True ProtocolConflict",
            "Conflicted False NoConflicts"
        ]
    );
    let counts = said["a"].listeners.clone().unwrap();
    let counts: Vec<_> = counts.iter().map(|it| it.attached_routes).collect();
    assert_eq!(counts, [1, 1]);
}

#[test]
fn datagrams_have_ports_of_their_own_and_shares_of_backends() {
    let yaml = ["
---
kind: Gateway
metadata: {name: my-gateway}
spec:
  gatewayClassName: contour
  listeners:
  - {name: bytes, protocol: TCP, port: 53}
  - {name: datagrams, protocol: UDP, port: 53}
  - {name: idle, protocol: UDP, port: 54}
---
kind: UDPRoute
metadata: {name: shared}
spec:
  parentRefs: [{name: my-gateway, sectionName: datagrams}]
  rules: [{backendRefs: [{name: one, port: 53, weight: 3}, {name: missing, port: 53}]}]
---
kind: Service
metadata: {name: one}
spec: {ports: [{name: tcp, port: 53}, {name: udp, port: 53, protocol: UDP}]}
---
kind: EndpointSlice
metadata: {name: one-x, labels: {kubernetes.io/service-name: one}}
addressType: IPv4
ports: [{name: tcp, port: 5353}, {name: udp, port: 5354}]
endpoints: [{addresses: [10.0.0.1]}]
"]
    .concat();
    let input = input(&yaml);
    let translation = translate(&input);
    let translated = &translation.gateways[0];
    assert_accepted(&translated.snapshot);
    let ports: Vec<_> = translated
        .ports
        .iter()
        .map(|it| (it.port, it.datagrams))
        .collect();
    assert_eq!(ports, [(53, false), (53, true), (54, true)]);
    let clusters = &translated.snapshot.clusters;
    let shared = clusters.iter().find(|it| it["name"] == "udp-53").unwrap();
    let shares = shared["load_assignment"]["endpoints"].as_array().unwrap();
    let weights: Vec<_> = shares
        .iter()
        .map(|it| {
            let address = &it["lb_endpoints"][0]["endpoint"]["address"]["socket_address"];
            (
                it["load_balancing_weight"].as_u64(),
                address["port_value"].as_u64(),
            )
        })
        .collect();
    assert_eq!(weights, [(Some(3), Some(5354)), (Some(1), Some(9))]);
}
