//! Names of Services with addresses of both families.

use std::str::FromStr as _;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};

use super::{answer, data};
use crate::net::dns::zone::{Objects, Zone};

/// Of a server at these addresses.
fn zone() -> Zone {
    let mut zone = Zone::served_at(vec![
        "10.244.0.2".parse().unwrap(),
        "fd00:10:244::2".parse().unwrap(),
    ]);
    zone.update(&objects());
    zone
}

fn objects() -> Objects {
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let service = |name: &str, ips: &[&str]| {
        let spec = json!({"clusterIP": ips[0], "clusterIPs": ips, "ports": ports});
        let object = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        crate::testing::shared(object)
    };
    let slice = |service: &str, family: &str, endpoint: Value| {
        let object = json!({
            "metadata": {"namespace": "ns", "name": format!("{service}-{family}"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": family, "ports": ports, "endpoints": [endpoint],
        });
        crate::testing::shared(object)
    };
    let namespace = json!({"metadata": {"name": "ns"}});
    Objects {
        services: vec![
            service("both", &["10.96.0.80", "fd00:10:96::80"]),
            service("new", &["fd00:10:96::81"]),
            service("db", &["None"]),
        ],
        slices: vec![
            slice("both", "IPv4", json!({"addresses": ["10.244.1.1"]})),
            slice("both", "IPv6", json!({"addresses": ["fd00:10:244:1::1"]})),
            slice(
                "db",
                "IPv4",
                json!({"addresses": ["10.244.1.2"], "hostname": "db-0"}),
            ),
            slice(
                "db",
                "IPv6",
                json!({"addresses": ["fd00:10:244:1::2"], "hostname": "db-0"}),
            ),
        ],
        namespaces: vec![crate::testing::shared(namespace)],
        serial: 7,
    }
}

/// The name of fd00:10:96::80, and of fd00:10:244:1::1, by their last digits.
fn of_service(digits: &str) -> String {
    format!("{digits}.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.")
}

#[test]
fn both_families_are_answered_by_the_specification() {
    use RecordType::{A, AAAA, PTR, SRV};
    let zone = zone();
    let both = "both.ns.svc.cluster.local.";
    let (by_service, by_endpoint) = (
        of_service("0.8"),
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa.",
    );
    let elsewhere = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
    let unknown = of_service("9.9");
    let (found, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
    for (name, kind, code, expected) in [
        (both, A, found, &["5 10.96.0.80"][..]),
        (both, AAAA, found, &["5 fd00:10:96::80"]),
        (both, SRV, found, &["5 0 100 80 both.ns.svc.cluster.local."]),
        (
            "new.ns.svc.cluster.local.",
            AAAA,
            found,
            &["5 fd00:10:96::81"],
        ),
        ("new.ns.svc.cluster.local.", A, found, &[]),
        ("db.ns.svc.cluster.local.", A, found, &["5 10.244.1.2"]),
        (
            "db.ns.svc.cluster.local.",
            AAAA,
            found,
            &["5 fd00:10:244:1::2"],
        ),
        (
            "db-0.db.ns.svc.cluster.local.",
            AAAA,
            found,
            &["5 fd00:10:244:1::2"],
        ),
        (
            "_http._tcp.db.ns.svc.cluster.local.",
            SRV,
            found,
            &["5 0 100 80 db-0.db.ns.svc.cluster.local."],
        ),
        (
            "fd00-10-244-1--1.both.ns.svc.cluster.local.",
            AAAA,
            found,
            &["5 fd00:10:244:1::1"],
        ),
        (
            "fd00-10-244-1--9.ns.pod.cluster.local.",
            AAAA,
            found,
            &["5 fd00:10:244:1::9"],
        ),
        (
            by_service.as_str(),
            PTR,
            found,
            &["5 both.ns.svc.cluster.local."],
        ),
        (
            by_endpoint,
            PTR,
            found,
            &["5 fd00-10-244-1--1.both.ns.svc.cluster.local."],
        ),
        (unknown.as_str(), PTR, none, &[]),
        (elsewhere, PTR, none, &[]),
    ] {
        let answer = answer(&zone, &Name::from_str(name).unwrap(), kind);
        assert_eq!(answer.is_none(), name == elsewhere, "{name}");
        let Some(answer) = answer else { continue };
        let expected: Vec<_> = expected
            .iter()
            .map(|rest| format!("{name} {rest}"))
            .collect();
        assert_eq!(
            (answer.code, data(&answer.answers)),
            (code, expected),
            "{name} {kind}"
        );
    }
}

#[test]
fn the_addresses_of_a_name_come_along_in_both_families() {
    let zone = zone();
    let name = Name::from_str("both.ns.svc.cluster.local.").unwrap();
    let along = data(&answer(&zone, &name, RecordType::SRV).unwrap().additionals);
    assert_eq!(along.len(), 2, "{along:?}");
}
