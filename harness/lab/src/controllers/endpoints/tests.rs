//! Pods and their Service, and the endpoints that follow.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::slices::{Plan, SERVICE, plan, plan_all};
use super::{backends, legacy, mirror};
use crate::topology::IpFamily;

fn service(spec: Value) -> Service {
    let metadata = json!({"name": "web", "namespace": "ns", "uid": "u", "labels": {"team": "a"}});
    let mut object = json!({"metadata": metadata, "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.80", "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    crate::testing::object(object)
}

/// A ready pod, changed by a patch.
fn pod(number: u8, patch: Value) -> Arc<Pod> {
    let mut object = json!({
        "metadata": {"name": format!("p{number}"), "namespace": "ns", "uid": format!("u{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": format!("10.244.1.{number}"), "conditions": [{"type": "Ready", "status": "True"}]},
    });
    json_patch::merge(&mut object, &patch);
    crate::testing::shared(object)
}

fn nodes() -> Vec<Arc<Node>> {
    let node = json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}});
    vec![crate::testing::shared(node)]
}

/// `address ready serving terminating` of every endpoint, by port.
fn told(service: &Service, pods: &[Arc<Pod>]) -> Vec<String> {
    let found = backends::of(service, pods, &nodes(), IpFamily::V4);
    let mut told = Vec::new();
    for slice in plan(service, IpFamily::V4, found, Vec::new()).create {
        let ports: Vec<_> = slice
            .ports
            .iter()
            .flatten()
            .map(|port| port.port.unwrap())
            .collect();
        for endpoint in slice.endpoints {
            let state = endpoint.conditions.unwrap();
            let word = |state: Option<bool>, word: &'static str| {
                if state == Some(true) { word } else { "-" }
            };
            told.push(format!(
                "{} {ports:?} {} {} {}",
                endpoint.addresses[0],
                word(state.ready, "ready"),
                word(state.serving, "serving"),
                word(state.terminating, "terminating")
            ));
        }
    }
    told
}

#[test]
fn a_pods_state_is_its_endpoints_state() {
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let ending = json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:00Z"}});
    let plain = service(json!({}));
    let published = service(json!({"publishNotReadyAddresses": true}));
    let table: [(&Service, Value, &[&str]); 9] = [
        (&plain, json!({}), &["10.244.1.1 [8080] ready serving -"]),
        (&plain, not_ready.clone(), &["10.244.1.1 [8080] - - -"]),
        (&published, not_ready, &["10.244.1.1 [8080] ready - -"]),
        (
            &plain,
            ending.clone(),
            &["10.244.1.1 [8080] - serving terminating"],
        ),
        (
            &published,
            ending,
            &["10.244.1.1 [8080] ready serving terminating"],
        ),
        (&plain, json!({"status": {"podIP": null}}), &[]),
        (&plain, json!({"status": {"phase": "Succeeded"}}), &[]),
        (
            &plain,
            json!({"metadata": {"labels": {"app": "other"}}}),
            &[],
        ),
        (
            &plain,
            json!({"spec": {"containers": []}}),
            &["10.244.1.1 [] ready serving -"],
        ),
    ];
    for (service, patch, expected) in table {
        assert_eq!(told(service, &[pod(1, patch.clone())]), expected, "{patch}");
    }
}

#[test]
fn who_prefers_an_endpoint_is_what_traffic_distribution_says() {
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    for (distribution, patch, expected) in [
        (json!(null), json!({}), json!(null)),
        (
            json!("PreferClose"),
            json!({}),
            json!({"forZones": [{"name": "z"}]}),
        ),
        (
            json!("PreferSameZone"),
            json!({}),
            json!({"forZones": [{"name": "z"}]}),
        ),
        (
            json!("PreferSameNode"),
            json!({}),
            json!({"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]}),
        ),
        (
            json!("PreferSameNode"),
            json!({"spec": {"nodeName": "unknown"}}),
            json!({"forNodes": [{"name": "unknown"}]}),
        ),
        (json!("PreferSameNode"), not_ready, json!(null)),
    ] {
        let service = service(json!({"trafficDistribution": distribution}));
        let found = backends::of(&service, &[pod(1, patch)], &nodes(), IpFamily::V4);
        let plan = plan(&service, IpFamily::V4, found, Vec::new());
        let hints = serde_json::to_value(&plan.create[0].endpoints[0].hints).unwrap();
        assert_eq!(hints, expected, "{distribution}");
    }
}

#[test]
fn pods_that_name_a_port_differently_are_in_slices_of_their_own() {
    let other = json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9090}]}]}});
    let pods = [pod(1, json!({})), pod(2, other), pod(3, json!({}))];
    assert_eq!(
        told(&service(json!({})), &pods),
        [
            "10.244.1.1 [8080] ready serving -",
            "10.244.1.3 [8080] ready serving -",
            "10.244.1.2 [9090] ready serving -"
        ]
    );
    let by_number =
        service(json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 7070}]}));
    assert!(
        told(&by_number, &pods)
            .iter()
            .all(|one| one.contains("[7070]"))
    );
}

#[test]
fn slices_are_kept_filled_and_used_up() {
    let service = service(json!({"clusterIP": "None"}));
    let found = |pods: &[Arc<Pod>]| backends::of(&service, pods, &nodes(), IpFamily::V4);
    let stored = |slice: EndpointSlice| {
        let mut slice = slice;
        slice.metadata.name = Some("web-x".to_owned());
        Arc::new(slice)
    };
    let empty = plan(&service, IpFamily::V4, found(&[]), Vec::new()).create;
    assert_eq!(empty.len(), 1, "a Service without pods has a slice, too");
    let labels = empty[0].metadata.labels.clone().unwrap();
    assert_eq!(labels[SERVICE], "web");
    assert_eq!(
        (
            labels["team"].as_str(),
            labels["service.kubernetes.io/headless"].as_str()
        ),
        ("a", "")
    );
    let filled = plan(
        &service,
        IpFamily::V4,
        found(&[pod(1, json!({}))]),
        vec![stored(empty[0].clone())],
    );
    assert_eq!(
        (
            filled.create.len(),
            filled.change.len(),
            filled.delete.len()
        ),
        (0, 1, 0)
    );
    let endpoint = &filled.change[0].endpoints[0];
    assert_eq!(
        (endpoint.zone.as_deref(), endpoint.node_name.as_deref()),
        (Some("z"), Some("n"))
    );
    let again = plan(
        &service,
        IpFamily::V4,
        found(&[pod(1, json!({}))]),
        vec![stored(filled.change[0].clone())],
    );
    assert_eq!(
        (again.create.len(), again.change.len(), again.delete.len()),
        (0, 0, 0)
    );
    let many: Vec<_> = (1..=150).map(|number| pod(number, json!({}))).collect();
    let more = plan(
        &service,
        IpFamily::V4,
        found(&many),
        vec![stored(filled.change[0].clone())],
    );
    let sizes = (
        more.change[0].endpoints.len(),
        more.create[0].endpoints.len(),
    );
    assert_eq!(sizes, (100, 50));
}

#[test]
fn each_family_has_slices_of_its_own() {
    let with = |families: &[&str]| service(json!({"ipFamilies": families}));
    let both = json!({"status": {"podIPs": [{"ip": "10.244.1.1"}, {"ip": "fd00:10:244:1::1"}]}});
    let pods = [pod(1, both), pod(2, json!({}))];
    let planned = |service: &Service, existing: &[EndpointSlice]| {
        let existing = existing.iter().cloned().map(Arc::new).collect();
        plan_all(service, &pods, &nodes(), existing)
    };
    let shown = |plan: &Plan| {
        let slices = plan.create.iter().map(|slice| {
            let endpoints = slice
                .endpoints
                .iter()
                .map(|endpoint| endpoint.addresses[0].as_str());
            format!(
                "{} {}",
                slice.address_type,
                endpoints.collect::<Vec<_>>().join(" ")
            )
        });
        slices.collect::<Vec<_>>()
    };
    let one = planned(&with(&["IPv4"]), &[]);
    assert_eq!(shown(&one), ["IPv4 10.244.1.1 10.244.1.2"]);
    let two = planned(&with(&["IPv6", "IPv4"]), &[]);
    let of_two = ["IPv6 fd00:10:244:1::1", "IPv4 10.244.1.1 10.244.1.2"];
    assert_eq!(shown(&two), of_two);
    let more = planned(&with(&["IPv4", "IPv6"]), &one.create);
    assert_eq!(shown(&more), of_two[..1]);
    assert_eq!((more.change.len(), more.delete.len()), (0, 0));
    let less = planned(&with(&["IPv4"]), &two.create);
    assert_eq!((less.create.len(), less.change.len()), (0, 0));
    let types: Vec<_> = less
        .delete
        .iter()
        .map(|slice| slice.address_type.as_str())
        .collect();
    assert_eq!(types, ["IPv6"]);
    // Endpoints have a place for one family only.
    let subsets = legacy::wanted(&with(&["IPv6", "IPv4"]), &pods, &nodes())
        .subsets
        .unwrap();
    let ips: Vec<_> = subsets[0]
        .addresses
        .iter()
        .flatten()
        .map(|one| one.ip.as_str())
        .collect();
    assert_eq!(ips, ["fd00:10:244:1::1"]);
}

#[test]
fn a_pod_has_a_name_below_the_service_that_governs_it() {
    let named = json!({"spec": {"hostname": "db-0", "subdomain": "web"}});
    let elsewhere = json!({"spec": {"hostname": "db-1", "subdomain": "other"}});
    let pods = [pod(1, named), pod(2, elsewhere)];
    let found = backends::of(&service(json!({})), &pods, &nodes(), IpFamily::V4);
    let names: Vec<_> = found
        .values()
        .flatten()
        .map(|one| one.hostname.as_deref())
        .collect();
    assert_eq!(names, [Some("db-0"), None]);
}

#[test]
fn endpoints_of_old_leave_out_what_is_ending() {
    let not_ready = json!({"status": {"conditions": []}});
    let ending = json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:00Z"}});
    let pods = [pod(1, json!({})), pod(2, not_ready), pod(3, ending)];
    let subsets = legacy::wanted(&service(json!({})), &pods, &[])
        .subsets
        .unwrap();
    let addresses = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        list.iter()
            .flatten()
            .map(|one| one.ip.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(subsets.len(), 1);
    assert_eq!(addresses(&subsets[0].addresses), ["10.244.1.1"]);
    assert_eq!(addresses(&subsets[0].not_ready_addresses), ["10.244.1.2"]);
}

fn by_hand(metadata: Value) -> Endpoints {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "e", "labels": {"team": "a"}},
        "subsets": [{
            "addresses": [{"ip": "192.0.2.1", "nodeName": "n"}, {"ip": "2001:db8::1"}],
            "notReadyAddresses": [{"ip": "192.0.2.2"}],
            "ports": [{"port": 8080}],
        }],
    });
    json_patch::merge(&mut object["metadata"], &metadata);
    crate::testing::object(object)
}

#[test]
fn endpoints_by_hand_have_a_slice_of_each_family() {
    let slices = mirror::wanted(&by_hand(json!({})));
    let told: Vec<_> = slices
        .iter()
        .map(|slice| {
            let endpoints = slice.endpoints.iter().map(|endpoint| {
                let ready = endpoint.conditions.as_ref().and_then(|is| is.ready);
                (endpoint.addresses[0].as_str(), ready == Some(true))
            });
            (slice.address_type.as_str(), endpoints.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("IPv4", vec![("192.0.2.1", true), ("192.0.2.2", false)]),
            ("IPv6", vec![("2001:db8::1", true)]),
        ]
    );
    let labels = slices[0].metadata.labels.as_ref().unwrap();
    assert_eq!(
        (labels[SERVICE].as_str(), labels["team"].as_str()),
        ("web", "a")
    );
    let port = &slices[0].ports.as_ref().unwrap()[0];
    assert_eq!(
        (port.name.as_deref(), port.protocol.as_deref()),
        (Some(""), Some("TCP"))
    );
}

#[test]
fn only_endpoints_of_somebodys_own_are_mirrored() {
    let none = service(json!({"selector": null}));
    let skipped = json!({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}});
    let lock = json!({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}});
    for (service, metadata, expected) in [
        (&none, json!({}), true),
        (&none, skipped, false),
        (&none, lock, false),
        (&service(json!({})), json!({}), false),
    ] {
        let endpoints = by_hand(metadata.clone());
        assert_eq!(
            mirror::is_mirrored(&endpoints, service),
            expected,
            "{metadata}"
        );
    }
}
