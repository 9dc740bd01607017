//! What is written for the tutorial's Gateway and route.

use super::*;
use crate::l7::envoy::validate::assert_accepted;

fn yaml() -> String {
    [GATEWAY, ROUTE, &service("frontend", &["10.244.1.5"])].concat()
}

#[test]
fn the_tutorials_configuration() {
    let input = input(&yaml());
    let translation = translate(&input);
    let snapshot = &translation.gateways[0].snapshot;
    assert_accepted(snapshot);
    let text = json!({
        "listeners": snapshot.listeners, "routes": snapshot.routes, "clusters": snapshot.clusters,
    });
    insta::assert_snapshot!(serde_yaml::to_string(&text).unwrap());
}

#[test]
fn the_tutorials_objects() {
    let input = input(&yaml());
    let translation = translate(&input);
    let objects = provision::objects(
        &translation.gateways[0],
        ("gateway-system", "gateway-controller", 8001),
    );
    let text = [
        serde_json::to_value(&objects.deployment).unwrap(),
        serde_json::to_value(&objects.service).unwrap(),
    ]
    .map(|object| serde_yaml::to_string(&object).unwrap());
    insta::assert_snapshot!(text.join("---\n"));
}

#[test]
fn ports_need_no_privilege_and_never_collide() {
    let gateway = |ports: &[u16]| {
        let listeners: Vec<_> = ports
            .iter()
            .map(|port| json!({ "name": format!("l{port}"), "protocol": "HTTP", "port": port }))
            .collect();
        format!(
            "kind: Gateway\nmetadata: {{name: g}}\nspec: {{gatewayClassName: contour, listeners: {}}}",
            json!(listeners)
        )
    };
    for (ports, expected) in [
        (&[80, 443][..], &[8080, 8443][..]),
        (&[80, 8080], &[8081, 8080]),
        (&[80, 8080, 8081], &[8082, 8080, 8081]),
        (&[15021], &[23021]),
        (&[65535], &[65535]),
    ] {
        let input = input(&gateway(ports));
        let translation = translate(&input);
        let targets: Vec<_> = translation.gateways[0]
            .ports
            .iter()
            .map(|port| port.target)
            .collect();
        assert_eq!(targets, expected, "{ports:?}");
    }
}
