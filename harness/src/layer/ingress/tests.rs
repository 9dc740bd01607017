//! The tutorial's Ingress, and everything that can be wrong with it.

use k8s_openapi::api::networking::v1::Ingress;

use super::judge::{Backend, Seen, backend, cause};
use crate::layer::tests::{Case, case, read, service, yaml};

const INGRESS: &str = "
metadata: {name: shop, namespace: shop}
spec:
  ingressClassName: envoy
  rules:
    - host: app.example.local
      http:
        paths:
          - {path: /frontend, pathType: Prefix, backend: {service: {name: frontend, port: {number: 80}}}}
          - {path: /api, pathType: Exact, backend: {service: {name: api, port: {name: http}}}}
status: {loadBalancer: {ingress: [{ip: 172.30.1.1}]}}
";

fn well() -> Seen {
    let ports = "{ports: [{name: http, port: 80}]}";
    Seen {
        namespace: "shop".into(),
        name: "shop".into(),
        host: Some("app.example.local".into()),
        path: "/frontend".into(),
        ingresses: vec![yaml(INGRESS)],
        classes: vec![yaml(
            "{metadata: {name: envoy}, spec: {controller: lab.strata.dev/ingress}}",
        )],
        services: vec![service("frontend", ports), service("api", ports)],
        ..Seen::default()
    }
}

fn with(seen: &mut Seen, from: &str, to: &str) {
    assert!(INGRESS.contains(from), "{from}");
    seen.ingresses = vec![yaml::<Ingress>(&INGRESS.replace(from, to))];
}

pub(in crate::layer) fn cases() -> Vec<Case> {
    let case = |name, change: fn(&mut Seen)| case(name, well(), change, cause);
    vec![
        case("all is well", |_| {}),
        case("another name", |seen| seen.name = "shp".into()),
        case("its class is mistyped", |seen| {
            with(seen, "Name: envoy", "Name: envy")
        }),
        case("its class is another's", |seen| {
            with(seen, "Name: envoy", "Name: nginx")
        }),
        case("it has no class, and there is no default", |seen| {
            with(seen, "  ingressClassName: envoy\n", "");
        }),
        case("it has no class, and there is a default", |seen| {
            with(seen, "  ingressClassName: envoy\n", "");
            seen.classes = vec![yaml(
                "{metadata: {name: envoy, annotations: \
                 {ingressclass.kubernetes.io/is-default-class: 'true'}}}",
            )];
        }),
        case("its host is mistyped", |seen| {
            with(seen, "app.example", "ap.example")
        }),
        case("no host was asked for", |seen| seen.host = None),
        case("a host with a port, in other case", |seen| {
            seen.host = Some("App.example.local:80".into())
        }),
        case("its path is mistyped", |seen| {
            with(seen, "/frontend,", "/frontnd,")
        }),
        case("a path below the mistyped one", |seen| {
            with(seen, "/frontend,", "/fronted,");
            seen.path = "/frontend/cart".into();
        }),
        case("an Exact path is no prefix", |seen| {
            seen.path = "/api/v1".into()
        }),
        case("a prefix ends at a whole element", |seen| {
            seen.path = "/frontends".into()
        }),
        case("another path altogether", |seen| {
            seen.path = "/checkout".into()
        }),
        case("its Service is mistyped", |seen| {
            with(seen, "name: frontend,", "name: fronted,")
        }),
        case("its Service is another's", |seen| {
            with(seen, "name: frontend,", "name: shop-web,")
        }),
        case("its port is another's", |seen| {
            with(seen, "number: 80}", "number: 8080}")
        }),
        case("its port by name is another's", |seen| {
            seen.path = "/api".into();
            with(seen, "port: {name: http}", "port: {name: web}");
        }),
        case("its certificate is missing", |seen| {
            with(
                seen,
                "  rules:",
                "  tls: [{hosts: [app.example.local], secretName: app-tls}]\n  rules:",
            );
            seen.secrets = vec![yaml("{metadata: {name: app-tl}, type: kubernetes.io/tls}")];
        }),
        case("its certificate is an ordinary Secret", |seen| {
            with(
                seen,
                "  rules:",
                "  tls: [{hosts: [app.example.local], secretName: app-tls}]\n  rules:",
            );
            seen.secrets = vec![yaml("{metadata: {name: app-tls}, type: Opaque}")];
        }),
        case("nobody gave it an address", |seen| {
            with(
                seen,
                "status: {loadBalancer: {ingress: [{ip: 172.30.1.1}]}}",
                "",
            );
        }),
    ]
}

#[test]
fn causes_read_as_they_should() {
    insta::assert_snapshot!("ingress", read(&cases()));
}

/// Path asked for, the Service it leads to.
#[test]
fn what_stands_behind_a_path() {
    let cases = [
        ("/frontend", Some("frontend")),
        ("/frontend/cart", Some("frontend")),
        ("/api", Some("api")),
        ("/api/v1", None),
    ];
    for (path, service) in cases {
        let seen = Seen {
            path: path.into(),
            ..well()
        };
        let expected = service.map(|service| Backend {
            service: service.into(),
            port: 80,
        });
        assert_eq!(backend(&seen), expected, "{path}");
    }
}
