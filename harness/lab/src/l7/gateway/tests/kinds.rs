//! Routes of other kinds, and policies: what is served for them and what is said of them.

use gateway_api::backendtlspolicies::BackendTlsPolicy;

use super::*;
use crate::l7::envoy::validate::assert_accepted;
use crate::l7::gateway::route::Kind;

/// The reasons of the conditions of the first parent of every route, by name.
fn reasons(yaml: &str) -> BTreeMap<String, Vec<String>> {
    let input = input(yaml);
    let translation = translate(&input);
    assert_accepted(&translation.gateways[0].snapshot);
    let of = |(route, parents): &(&Route, Vec<_>)| {
        let status = status::of_route(CONTROLLER, route, parents);
        let conditions = status.parents.first().map(|it| it.conditions.clone());
        let reasons = conditions.unwrap_or_default().into_iter();
        (route.name_any(), reasons.map(|it| it.reason).collect())
    };
    translation.routes.iter().map(of).collect()
}

fn grpc(name: &str, backend: &str) -> String {
    format!(
        "
---
kind: GRPCRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: my-gateway}}]
  rules:
  - matches: [{{method: {{service: a.B, method: Do}}}}]
    backendRefs: [{{name: {backend}, port: 80}}]
"
    )
}

#[test]
fn grpc_is_matched_by_content_and_spoken_in_http2_to_backends() {
    let yaml = [
        GATEWAY,
        &grpc("called", "frontend"),
        &grpc("in-vain", "missing"),
        &service("frontend", &["10.0.0.1"]),
    ]
    .concat();
    let expected = [
        ("called", vec!["Accepted", "ResolvedRefs"]),
        ("in-vain", vec!["Accepted", "BackendNotFound"]),
    ];
    let expected = expected.map(|(name, all)| {
        let all = all.into_iter().map(str::to_owned).collect::<Vec<_>>();
        (name.to_owned(), all)
    });
    assert_eq!(reasons(&yaml), expected.into());

    let input = input(&yaml);
    let translation = translate(&input);
    let snapshot = &translation.gateways[0].snapshot;
    let routes = &snapshot.routes[0]["virtual_hosts"][0]["routes"];
    assert_eq!(routes[0]["match"], json!({ "path": "/a.B/Do", "grpc": {} }));
    assert_eq!(routes[0]["route"]["cluster"], "default/frontend/80/grpc");
    assert_eq!(routes[1]["direct_response"]["status"], 503);
    let cluster = json!(snapshot.clusters).to_string();
    assert!(cluster.contains("http2_protocol_options"), "{cluster}");
    let (listener, attached) = &translation.gateways[0].listeners[0];
    assert_eq!(*attached, 2);
    assert!(listener.carries(Kind::Grpc) && !listener.carries(Kind::Tls));
}

#[test]
fn a_host_of_a_listener_is_one_kind_of_route_s() {
    let of = |kind: &str, name: &str, hosts: &str, created: &str| {
        format!(
            "
---
kind: {kind}
metadata: {{name: {name}, creationTimestamp: '2026-01-01T00:00:{created}Z'}}
spec:
  parentRefs: [{{name: my-gateway}}]
  hostnames: [{hosts}]
  rules: [{{backendRefs: [{{name: frontend, port: 80}}]}}]
"
        )
    };
    let yaml = [
        GATEWAY,
        &of("HTTPRoute", "younger", "'*.example.com'", "02"),
        &of("GRPCRoute", "older", "calls.example.com", "01"),
        &of(
            "GRPCRoute",
            "meets-a-refused-one",
            "other.example.com",
            "03",
        ),
        &of("HTTPRoute", "apart", "calls.example.net", "04"),
        &service("frontend", &["10.0.0.1"]),
    ]
    .concat();
    let reasons = reasons(&yaml);
    let accepted = |name: &str| reasons[name][0].as_str();
    assert_eq!(accepted("older"), "Accepted");
    assert_eq!(accepted("younger"), "HostnameConflict");
    assert_eq!(accepted("meets-a-refused-one"), "Accepted");
    assert_eq!(accepted("apart"), "Accepted");
}

const PASSING: &str = "
---
kind: Gateway
metadata: {name: my-gateway}
spec:
  gatewayClassName: contour
  listeners:
  - {name: tls, protocol: TLS, port: 443, hostname: '*.example.com', tls: {mode: Passthrough}}
  - {name: http, protocol: HTTP, port: 80}
";

fn tls(name: &str, section: &str, host: &str, backends: &str) -> String {
    format!(
        "
---
kind: TLSRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: my-gateway, sectionName: {section}}}]
  hostnames: [{host}]
  rules: [{{backendRefs: [{backends}]}}]
"
    )
}

#[test]
fn tls_is_passed_on_by_server_name() {
    let yaml = [
        PASSING,
        &tls(
            "one",
            "tls",
            "one.example.com",
            "{name: frontend, port: 80}",
        ),
        &tls(
            "shared",
            "tls",
            "'*.shared.example.com'",
            "{name: frontend, port: 80, weight: 3}, {name: missing, port: 80}",
        ),
        &tls(
            "lost",
            "tls",
            "lost.example.com",
            "{name: missing, port: 80}",
        ),
        &tls("late", "tls", "one.example.com", "{name: other, port: 80}"),
        &tls(
            "plain",
            "http",
            "one.example.com",
            "{name: frontend, port: 80}",
        ),
        &tls(
            "strange",
            "tls",
            "one.example.net",
            "{name: frontend, port: 80}",
        ),
        &service("frontend", &["10.0.0.1"]),
        &service("other", &["10.0.0.2"]),
    ]
    .concat();
    let said = reasons(&yaml);
    for (name, expected) in [
        ("one", ["Accepted", "ResolvedRefs"]),
        ("shared", ["Accepted", "BackendNotFound"]),
        ("lost", ["Accepted", "BackendNotFound"]),
        ("plain", ["NotAllowedByListeners", "ResolvedRefs"]),
        ("strange", ["NoMatchingListenerHostname", "ResolvedRefs"]),
    ] {
        assert_eq!(said[name], expected, "{name}");
    }
    let input = input(&yaml);
    let translation = translate(&input);
    let listener = &translation.gateways[0].snapshot.listeners;
    let listener = listener.iter().find(|it| it["name"] == "tls-443").unwrap();
    let chains: BTreeMap<_, _> = listener["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chain| {
            let host = chain["filter_chain_match"]["server_names"][0].as_str();
            let to = &chain["filters"][0]["typed_config"];
            let to = to["cluster"].as_str().map_or_else(
                || to["weighted_clusters"]["clusters"].to_string(),
                str::to_owned,
            );
            (host.unwrap(), to)
        })
        .collect();
    // By age, then by name: `late` comes before `one`, and has the host that both ask for.
    let shares = json!([
        { "name": "default/frontend/80/bytes", "weight": 3 },
        { "name": "invalid-backend", "weight": 1 },
    ]);
    assert_eq!(
        chains,
        BTreeMap::from([
            ("one.example.com", "default/other/80/bytes".to_owned()),
            ("*.shared.example.com", shares.to_string()),
            ("lost.example.com", "invalid-backend".to_owned()),
        ])
    );
}

fn policy(name: &str, more: &str) -> String {
    format!(
        "
---
kind: BackendTLSPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: '', kind: Service, name: frontend}}]
  validation: {{hostname: a.example.com, {more}}}
"
    )
}

fn authority(name: &str, pem: &str) -> String {
    let data = json!({ "ca.crt": pem });
    format!("\n---\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {data}\n")
}

#[test]
fn backends_are_spoken_to_as_their_policy_says_or_not_at_all() {
    let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).unwrap();
    let pem = made.cert.pem();
    let reference =
        |name: &str| format!("caCertificateRefs: [{{group: '', kind: ConfigMap, name: {name}}}]");
    for (what, policies, expected, spoken) in [
        ("none", String::new(), vec![], true),
        (
            "right",
            policy("p", &reference("good")),
            vec!["Accepted ResolvedRefs"],
            true,
        ),
        (
            "missing",
            policy("p", &reference("missing")),
            vec!["NoValidCACertificate InvalidCACertificateRef"],
            false,
        ),
        (
            "malformed",
            policy("p", &reference("bad")),
            vec!["NoValidCACertificate InvalidCACertificateRef"],
            false,
        ),
        (
            "kind",
            policy(
                "p",
                "caCertificateRefs: [{group: '', kind: Bucket, name: good}]",
            ),
            vec!["NoValidCACertificate InvalidKind"],
            false,
        ),
        (
            "system",
            policy("p", "wellKnownCACertificates: System"),
            vec!["Invalid ResolvedRefs"],
            false,
        ),
        (
            "two",
            [
                policy("p", &reference("good")),
                policy("q", &reference("good")),
            ]
            .concat(),
            vec!["Accepted ResolvedRefs", "Conflicted ResolvedRefs"],
            true,
        ),
    ] {
        let yaml = [
            GATEWAY,
            ROUTE,
            &service("frontend", &["10.0.0.1"]),
            &authority("good", &pem),
            &authority("bad", "nothing"),
            &policies,
        ]
        .concat();
        let input = input(&yaml);
        let translation = translate(&input);
        let translated = &translation.gateways[0];
        assert_accepted(&translated.snapshot);
        let says = |policy: &BackendTlsPolicy| {
            let key = ("default".to_owned(), policy.name_any());
            let in_force = translated.policies.in_force.contains(&key);
            let judged = policy::judge(&input, policy);
            let status = policy::status(policy, &judged, &[(translated.gateway, in_force)]);
            let conditions = &status.ancestors[0].conditions;
            let reasons: Vec<_> = conditions.iter().map(|it| it.reason.as_str()).collect();
            reasons.join(" ")
        };
        let said: Vec<_> = input.policies.iter().map(|policy| says(policy)).collect();
        assert_eq!(said, expected, "{what}");
        let clusters = json!(translated.snapshot.clusters).to_string();
        assert_eq!(clusters.contains("10.0.0.1"), spoken, "{what}");
        let sealed = spoken && !policies.is_empty();
        assert_eq!(
            clusters.contains("trusted_ca"),
            sealed,
            "{what}: {clusters}"
        );
    }
}
