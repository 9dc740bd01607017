//! Names and their answers, as a table over one small cluster.

mod families;
mod forwarding;
mod protocol;

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::{Value, json};

use super::answer::{answer, leaves};
use super::zone::{Objects, Zone};

/// Of a server at these addresses.
fn zone() -> Zone {
    let mut zone = Zone::served_at(vec![IpAddr::from([10, 244, 0, 2])]);
    zone.update(&objects());
    zone
}

fn objects() -> Objects {
    let service = |namespace: &str, name: &str, spec: Value| {
        let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        crate::testing::shared(object)
    };
    let slice = |namespace: &str, service: &str, ports: Value, endpoints: Value| {
        let object = json!({
            "metadata": {"namespace": namespace, "name": format!("{service}-x"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        });
        crate::testing::shared(object)
    };
    let namespace = |name: &str| crate::testing::shared(json!({"metadata": {"name": name}}));
    let http = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let two = json!([
        {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    let many: Vec<Value> = (1..=60)
        .map(|number| json!({"addresses": [format!("10.244.9.{number}")], "conditions": {"ready": true}}))
        .collect();
    Objects {
        services: vec![
            service(
                "ns",
                "web",
                json!({"clusterIP": "10.96.0.80", "ports": two}),
            ),
            service(
                "ns",
                "plain",
                json!({"clusterIP": "10.96.0.81", "ports": [{"port": 80, "protocol": "TCP"}]}),
            ),
            service("ns", "db", json!({"clusterIP": "None", "ports": http})),
            service("ns", "empty", json!({"clusterIP": "None", "ports": http})),
            service("ns", "many", json!({"clusterIP": "None", "ports": http})),
            service(
                "ns",
                "out",
                json!({"type": "ExternalName", "externalName": "Example.COM"}),
            ),
            service(
                "ns",
                "alias",
                json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local"}),
            ),
            service(
                "ns",
                "broken",
                json!({"type": "ExternalName", "externalName": "gone.ns.svc.cluster.local"}),
            ),
            service(
                "ns",
                "loop",
                json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local"}),
            ),
            service(
                "ns",
                "number",
                json!({"type": "ExternalName", "externalName": "1.2.3.4"}),
            ),
            service(
                "kube-system",
                "kube-dns",
                json!({"clusterIP": "10.96.0.10", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}),
            ),
        ],
        slices: vec![
            slice(
                "ns",
                "web",
                http.clone(),
                json!([{"addresses": ["10.244.1.1"], "conditions": {"ready": true}}]),
            ),
            slice(
                "ns",
                "db",
                http.clone(),
                json!([
                    {"addresses": ["10.244.1.2"], "hostname": "db-0", "conditions": {"ready": true}},
                    {"addresses": ["10.244.1.3"], "conditions": {}},
                    {"addresses": ["10.244.1.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                ]),
            ),
            slice(
                "ns",
                "empty",
                http.clone(),
                json!([{"addresses": ["10.244.1.5"], "conditions": {"ready": false}}]),
            ),
            slice("ns", "many", http, json!(many)),
            slice(
                "kube-system",
                "kube-dns",
                json!([]),
                json!([{"addresses": ["10.244.0.2"], "conditions": {"ready": true}}]),
            ),
        ],
        namespaces: vec![namespace("ns"), namespace("kube-system"), namespace("bare")],
        serial: 7,
    }
}

fn data(records: &[Record]) -> Vec<String> {
    let mut texts: Vec<String> = records
        .iter()
        .map(|record| format!("{} {} {}", record.name, record.ttl, record.data))
        .collect();
    texts.sort();
    texts
}

#[test]
fn names_are_answered_by_the_specification() {
    use RecordType::{A, AAAA, ANY, CNAME, NS, PTR, SOA, SRV, TXT};
    let zone = zone();
    let table: &[(&str, RecordType, ResponseCode, &[&str])] = &[
        // ClusterIP
        (
            "web.ns.svc.cluster.local.",
            A,
            ResponseCode::NoError,
            &["web.ns.svc.cluster.local. 5 10.96.0.80"],
        ),
        (
            "WEB.ns.Svc.cluster.LOCAL.",
            A,
            ResponseCode::NoError,
            &["WEB.ns.Svc.cluster.LOCAL. 5 10.96.0.80"],
        ),
        (
            "web.ns.svc.cluster.local.",
            AAAA,
            ResponseCode::NoError,
            &[],
        ),
        ("web.ns.svc.cluster.local.", TXT, ResponseCode::NoError, &[]),
        (
            "web.other.svc.cluster.local.",
            A,
            ResponseCode::NXDomain,
            &[],
        ),
        ("gone.ns.svc.cluster.local.", A, ResponseCode::NXDomain, &[]),
        (
            "a.b.web.ns.svc.cluster.local.",
            A,
            ResponseCode::NXDomain,
            &[],
        ),
        (
            "_http._tcp.web.ns.svc.cluster.local.",
            SRV,
            ResponseCode::NoError,
            &["_http._tcp.web.ns.svc.cluster.local. 5 0 100 80 web.ns.svc.cluster.local."],
        ),
        (
            "_dns._udp.web.ns.svc.cluster.local.",
            SRV,
            ResponseCode::NoError,
            &["_dns._udp.web.ns.svc.cluster.local. 5 0 100 53 web.ns.svc.cluster.local."],
        ),
        (
            "_http._udp.web.ns.svc.cluster.local.",
            SRV,
            ResponseCode::NXDomain,
            &[],
        ),
        (
            "_tcp.web.ns.svc.cluster.local.",
            SRV,
            ResponseCode::NoError,
            &[],
        ),
        (
            "_http._tcp.web.ns.svc.cluster.local.",
            TXT,
            ResponseCode::NoError,
            &[],
        ),
        (
            "plain.ns.svc.cluster.local.",
            SRV,
            ResponseCode::NoError,
            &["plain.ns.svc.cluster.local. 5 0 100 80 plain.ns.svc.cluster.local."],
        ),
        (
            "10-244-1-1.web.ns.svc.cluster.local.",
            A,
            ResponseCode::NoError,
            &["10-244-1-1.web.ns.svc.cluster.local. 5 10.244.1.1"],
        ),
        // Headless
        (
            "db.ns.svc.cluster.local.",
            A,
            ResponseCode::NoError,
            &[
                "db.ns.svc.cluster.local. 5 10.244.1.2",
                "db.ns.svc.cluster.local. 5 10.244.1.3",
            ],
        ),
        (
            "db-0.db.ns.svc.cluster.local.",
            A,
            ResponseCode::NoError,
            &["db-0.db.ns.svc.cluster.local. 5 10.244.1.2"],
        ),
        (
            "10-244-1-3.db.ns.svc.cluster.local.",
            A,
            ResponseCode::NoError,
            &["10-244-1-3.db.ns.svc.cluster.local. 5 10.244.1.3"],
        ),
        (
            "10-244-1-4.db.ns.svc.cluster.local.",
            A,
            ResponseCode::NXDomain,
            &[],
        ),
        (
            "_http._tcp.db.ns.svc.cluster.local.",
            SRV,
            ResponseCode::NoError,
            &[
                "_http._tcp.db.ns.svc.cluster.local. 5 0 50 80 10-244-1-3.db.ns.svc.cluster.local.",
                "_http._tcp.db.ns.svc.cluster.local. 5 0 50 80 db-0.db.ns.svc.cluster.local.",
            ],
        ),
        (
            "empty.ns.svc.cluster.local.",
            A,
            ResponseCode::NXDomain,
            &[],
        ),
        // ExternalName
        (
            "out.ns.svc.cluster.local.",
            A,
            ResponseCode::NoError,
            &["out.ns.svc.cluster.local. 5 Example.COM."],
        ),
        (
            "out.ns.svc.cluster.local.",
            CNAME,
            ResponseCode::NoError,
            &["out.ns.svc.cluster.local. 5 Example.COM."],
        ),
        (
            "alias.ns.svc.cluster.local.",
            A,
            ResponseCode::NoError,
            &[
                "alias.ns.svc.cluster.local. 5 web.ns.svc.cluster.local.",
                "web.ns.svc.cluster.local. 5 10.96.0.80",
            ],
        ),
        (
            "alias.ns.svc.cluster.local.",
            AAAA,
            ResponseCode::NoError,
            &["alias.ns.svc.cluster.local. 5 web.ns.svc.cluster.local."],
        ),
        (
            "broken.ns.svc.cluster.local.",
            A,
            ResponseCode::NXDomain,
            &["broken.ns.svc.cluster.local. 5 gone.ns.svc.cluster.local."],
        ),
        (
            "number.ns.svc.cluster.local.",
            A,
            ResponseCode::NXDomain,
            &[],
        ),
        // The names between
        ("cluster.local.", A, ResponseCode::NoError, &[]),
        ("svc.cluster.local.", A, ResponseCode::NoError, &[]),
        ("ns.svc.cluster.local.", A, ResponseCode::NoError, &[]),
        ("bare.svc.cluster.local.", A, ResponseCode::NoError, &[]),
        ("other.svc.cluster.local.", A, ResponseCode::NXDomain, &[]),
        ("pod.cluster.local.", A, ResponseCode::NoError, &[]),
        ("other.cluster.local.", A, ResponseCode::NXDomain, &[]),
        // Pods
        (
            "10-244-1-1.ns.pod.cluster.local.",
            A,
            ResponseCode::NoError,
            &["10-244-1-1.ns.pod.cluster.local. 5 10.244.1.1"],
        ),
        (
            "10-244-1-1.ns.pod.cluster.local.",
            AAAA,
            ResponseCode::NoError,
            &[],
        ),
        (
            "10-244-1-1.other.pod.cluster.local.",
            A,
            ResponseCode::NXDomain,
            &[],
        ),
        ("web.ns.pod.cluster.local.", A, ResponseCode::NXDomain, &[]),
        // Addresses
        (
            "80.0.96.10.in-addr.arpa.",
            PTR,
            ResponseCode::NoError,
            &["80.0.96.10.in-addr.arpa. 5 web.ns.svc.cluster.local."],
        ),
        (
            "2.1.244.10.in-addr.arpa.",
            PTR,
            ResponseCode::NoError,
            &["2.1.244.10.in-addr.arpa. 5 db-0.db.ns.svc.cluster.local."],
        ),
        ("80.0.96.10.in-addr.arpa.", A, ResponseCode::NoError, &[]),
        ("244.10.in-addr.arpa.", PTR, ResponseCode::NoError, &[]),
        (
            "9.9.244.10.in-addr.arpa.",
            PTR,
            ResponseCode::NoError,
            &["9.9.244.10.in-addr.arpa. 5 10-244-9-9.many.ns.svc.cluster.local."],
        ),
        (
            "99.9.244.10.in-addr.arpa.",
            PTR,
            ResponseCode::NXDomain,
            &[],
        ),
        // The zone itself
        (
            "dns-version.cluster.local.",
            TXT,
            ResponseCode::NoError,
            &["dns-version.cluster.local. 28800 1.1.0"],
        ),
        (
            "cluster.local.",
            SOA,
            ResponseCode::NoError,
            &[
                "cluster.local. 5 ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5",
            ],
        ),
        (
            "cluster.local.",
            NS,
            ResponseCode::NoError,
            &["cluster.local. 5 kube-dns.kube-system.svc.cluster.local."],
        ),
        (
            "ns.dns.cluster.local.",
            A,
            ResponseCode::NoError,
            &["ns.dns.cluster.local. 5 10.96.0.10"],
        ),
        ("dns.cluster.local.", A, ResponseCode::NoError, &[]),
        (
            "plain.ns.svc.cluster.local.",
            ANY,
            ResponseCode::NoError,
            &[
                "plain.ns.svc.cluster.local. 5 0 100 80 plain.ns.svc.cluster.local.",
                "plain.ns.svc.cluster.local. 5 10.96.0.81",
            ],
        ),
    ];
    for (name, kind, code, expected) in table {
        let found = answer(&zone, &Name::from_ascii(name).unwrap(), *kind);
        let found = found.unwrap_or_else(|| panic!("{name} {kind} is ours"));
        assert_eq!(found.code, *code, "{name} {kind}");
        assert_eq!(data(&found.answers), *expected, "{name} {kind}");
        assert!(found.authoritative, "{name} {kind}");
        let nothing = found
            .answers
            .iter()
            .all(|record| record.record_type() == CNAME)
            && *kind != CNAME;
        let outside = name.starts_with("out.");
        assert_eq!(
            leaves(&found, *kind).is_some(),
            outside && nothing,
            "{name} {kind}"
        );
        let soa = found.authorities.first().map(|record| &record.data);
        assert_eq!(
            matches!(soa, Some(RData::SOA(_))),
            nothing && !outside,
            "{name} {kind}"
        );
    }
}

#[test]
fn other_names_are_for_others_to_answer() {
    let zone = zone();
    for name in [
        "example.com.",
        "web.",
        "notcluster.local.",
        "8.8.8.8.in-addr.arpa.",
    ] {
        let found = answer(&zone, &Name::from_ascii(name).unwrap(), RecordType::ANY);
        assert!(found.is_none(), "{name}");
    }
}

#[test]
fn targets_come_with_their_addresses_and_loops_end() {
    let zone = zone();
    let ask = |name: &str, kind| answer(&zone, &Name::from_ascii(name).unwrap(), kind).unwrap();
    let found = ask("_http._tcp.db.ns.svc.cluster.local.", RecordType::SRV);
    assert_eq!(
        data(&found.additionals),
        [
            "10-244-1-3.db.ns.svc.cluster.local. 5 10.244.1.3",
            "db-0.db.ns.svc.cluster.local. 5 10.244.1.2"
        ]
    );
    let found = ask("loop.ns.svc.cluster.local.", RecordType::A);
    assert!(
        found
            .answers
            .iter()
            .all(|one| one.record_type() == RecordType::CNAME)
    );
}
