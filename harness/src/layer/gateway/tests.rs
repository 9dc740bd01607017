//! The tutorial's Gateway and HTTPRoute, and everything that can be wrong with them.

use gateway_api::gateways::Gateway;
use gateway_api::httproutes::HttpRoute;

use super::{judge, route};
use crate::layer::labels::terms;
use crate::layer::tests::{Case, case, read, service, yaml};

pub(in crate::layer) fn cases() -> Vec<Case> {
    [of_gateways(), of_routes()].concat()
}

const GATEWAY: &str = "
metadata: {name: web, namespace: shop, generation: 2}
spec:
  gatewayClassName: contour
  listeners:
    - {name: http, port: 80, protocol: HTTP, hostname: '*.example.local'}
status:
  addresses: [{value: 172.30.1.2}]
  conditions:
    - {type: Accepted, status: 'True', reason: Accepted, message: '', observedGeneration: 2,
       lastTransitionTime: '2026-01-01T00:00:00Z'}
    - {type: Programmed, status: 'True', reason: Programmed, message: '', observedGeneration: 2,
       lastTransitionTime: '2026-01-01T00:00:00Z'}
  listeners:
    - name: http
      attachedRoutes: 1
      supportedKinds: []
      conditions:
        - {type: ResolvedRefs, status: 'True', reason: ResolvedRefs, message: '', observedGeneration: 2,
           lastTransitionTime: '2026-01-01T00:00:00Z'}
";

const CLASS: &str = "
metadata: {name: contour}
spec: {controllerName: projectcontour.io/gateway-controller}
status:
  conditions:
    - {type: Accepted, status: 'True', reason: Accepted, message: '',
       lastTransitionTime: '2026-01-01T00:00:00Z'}
";

fn served() -> judge::Seen {
    judge::Seen {
        namespace: "shop".into(),
        name: "web".into(),
        gateways: vec![yaml(GATEWAY)],
        listener: None,
        classes: vec![yaml(CLASS)],
    }
}

/// The same with a listener whose certificate is not there beside the other.
fn beside_a_listener_without_a_certificate(seen: &mut judge::Seen) {
    let spec = "'*.example.local'}";
    let two = GATEWAY
        .replace(
            spec,
            &format!("{spec}\n    - {{name: tls, port: 443, protocol: HTTPS}}"),
        )
        .replace(
            "    - name: http\n",
            "    - name: tls
      attachedRoutes: 0
      supportedKinds: []
      conditions:
        - {type: ResolvedRefs, status: 'False', reason: InvalidCertificateRef, message: no Secret,
           lastTransitionTime: '2026-01-01T00:00:00Z'}
    - name: http\n",
        );
    seen.gateways = vec![yaml::<Gateway>(&two)];
}

fn gateway(seen: &mut judge::Seen, from: &str, to: &str) {
    assert!(GATEWAY.contains(from), "{from}");
    seen.gateways = vec![yaml::<Gateway>(&GATEWAY.replace(from, to))];
}

fn of_gateways() -> Vec<Case> {
    let case = |name, change: fn(&mut judge::Seen)| case(name, served(), change, judge::cause);
    vec![
        case("the Gateway serves", |_| {}),
        case("another name", |seen| seen.name = "wbe".into()),
        case("its class is mistyped", |seen| {
            gateway(seen, "Name: contour", "Name: contuor")
        }),
        case("there is no class at all", |seen| seen.classes.clear()),
        case("nobody accepts its class", |seen| {
            seen.classes = vec![yaml(CLASS.split("status:").next().unwrap())];
        }),
        case("its class is refused", |seen| {
            let text = CLASS.replace(
                "'True', reason: Accepted, message: ''",
                "'False', \
                reason: InvalidParameters, message: ContourDeployment default/x not found",
            );
            seen.classes = vec![yaml(&text)];
        }),
        case("the controller has not seen the change", |seen| {
            gateway(seen, "generation: 2}", "generation: 3}")
        }),
        case("nobody says anything of it", |seen| {
            seen.gateways = vec![yaml(GATEWAY.split("status:").next().unwrap())];
        }),
        case("a listener's certificate is not there", |seen| {
            gateway(
                seen,
                "{type: ResolvedRefs, status: 'True', reason: ResolvedRefs, message: ''",
                "{type: ResolvedRefs, status: 'False', reason: InvalidCertificateRef, message: Secret \
                 web-tls not found.",
            );
        }),
        case("a certificate of another listener is not there", |seen| {
            beside_a_listener_without_a_certificate(seen);
            seen.listener = Some("http".into());
        }),
        case(
            "a certificate of one of several listeners is not there",
            |seen| {
                beside_a_listener_without_a_certificate(seen);
            },
        ),
        case(
            "the certificate of the listener that was used is not there",
            |seen| {
                beside_a_listener_without_a_certificate(seen);
                seen.listener = Some("tls".into());
            },
        ),
        case("it is not programmed", |seen| {
            gateway(
                seen,
                "{type: Programmed, status: 'True', reason: Programmed, message: ''",
                "{type: Programmed, status: 'False', reason: NoResources, message: no proxy is ready",
            );
        }),
        case("it has no address", |seen| {
            gateway(seen, "[{value: 172.30.1.2}]", "[]")
        }),
    ]
}

const ROUTE: &str = "
metadata: {name: frontend, namespace: shop, generation: 1}
spec:
  parentRefs: [{name: web}]
  hostnames: [app.example.local]
  rules:
    - matches: [{path: {type: PathPrefix, value: /frontend}}]
      backendRefs: [{name: frontend, port: 80}]
status:
  parents:
    - controllerName: projectcontour.io/gateway-controller
      parentRef: {name: web}
      conditions:
        - {type: Accepted, status: 'True', reason: Accepted, message: '', observedGeneration: 1,
           lastTransitionTime: '2026-01-01T00:00:00Z'}
        - {type: ResolvedRefs, status: 'True', reason: ResolvedRefs, message: '', observedGeneration: 1,
           lastTransitionTime: '2026-01-01T00:00:00Z'}
";

fn routed() -> route::Seen {
    let mut other = service("pay", "{ports: [{port: 80}]}");
    other.metadata.namespace = Some("bank".into());
    route::Seen {
        namespace: "shop".into(),
        name: "frontend".into(),
        path: "/frontend".into(),
        routes: vec![yaml(ROUTE)],
        gateways: served(),
        services: vec![service("frontend", "{ports: [{port: 80}]}"), other],
        grants: Vec::new(),
        namespaces: vec![("shop".into(), terms("team=shop"))],
    }
}

fn change(seen: &mut route::Seen, from: &str, to: &str) {
    assert!(ROUTE.contains(from), "{from}");
    seen.routes = vec![yaml::<HttpRoute>(&ROUTE.replace(from, to))];
}

fn of_routes() -> Vec<Case> {
    let case = |name, change: fn(&mut route::Seen)| case(name, routed(), change, route::cause);
    vec![
        case("the route is served", |_| {}),
        case("another name", |seen| seen.name = "fronted".into()),
        case("it names no Gateway", |seen| {
            change(seen, "[{name: web}]", "[]")
        }),
        case("its Gateway is mistyped", |seen| {
            change(seen, "[{name: web}]", "[{name: webb}]")
        }),
        case("its Gateway is of another namespace", |seen| {
            let text = GATEWAY.replace("namespace: shop", "namespace: infra");
            seen.gateways.gateways = vec![yaml(&text)];
        }),
        case("its section is mistyped", |seen| {
            change(seen, "[{name: web}]", "[{name: web, sectionName: htpp}]");
        }),
        case("its port is another's", |seen| {
            change(seen, "[{name: web}]", "[{name: web, port: 8080}]")
        }),
        case("its hostname is of no listener", |seen| {
            change(seen, "app.example.local", "app.example.locl")
        }),
        case("its namespace is not taken", |seen| {
            let text = GATEWAY.replace("namespace: shop", "namespace: infra");
            seen.gateways.gateways = vec![yaml(&text)];
            change(seen, "[{name: web}]", "[{name: web, namespace: infra}]");
        }),
        case("its namespace is taken by a selector", |seen| {
            let text = GATEWAY.replace("namespace: shop", "namespace: infra").replace(
                "protocol: HTTP,",
                "protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: \
                 {team: shop}}}},",
            );
            seen.gateways.gateways = vec![yaml(&text)];
            change(seen, "[{name: web}]", "[{name: web, namespace: infra}]");
        }),
        case("its Gateway is not served", |seen| {
            seen.gateways.classes.clear()
        }),
        case("its path is mistyped", |seen| {
            change(seen, "value: /frontend", "value: /frontnd")
        }),
        case("its path ends within an element", |seen| {
            seen.path = "/frontends".into()
        }),
        case("another path altogether", |seen| {
            seen.path = "/checkout".into()
        }),
        case("its Service is mistyped", |seen| {
            change(seen, "[{name: frontend,", "[{name: fronted,")
        }),
        case("its Service is not there", |seen| {
            change(seen, "[{name: frontend,", "[{name: nowhere,")
        }),
        case("its port is not the Service's", |seen| {
            change(seen, "port: 80}]\nstatus", "port: 81}]\nstatus")
        }),
        case("another namespace does not let it", |seen| {
            change(seen, "[{name: frontend,", "[{name: pay, namespace: bank,");
        }),
        case("another namespace lets it", |seen| {
            change(seen, "[{name: frontend,", "[{name: pay, namespace: bank,");
            let grant = "{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], \
                to: [{group: '', kind: Service}]}";
            seen.grants.push(("bank".into(), yaml(grant)));
        }),
        case("the controller has not seen the route's change", |seen| {
            change(seen, "generation: 1}\nspec", "generation: 2}\nspec");
        }),
        case("nobody says anything of the route", |seen| {
            seen.routes = vec![yaml(ROUTE.split("status:").next().unwrap())];
        }),
        case("the route is not accepted", |seen| {
            change(
                seen,
                "{type: Accepted, status: 'True', reason: Accepted, message: ''",
                "{type: Accepted, status: 'False', reason: UnsupportedValue, message: duplicate match",
            );
        }),
    ]
}

#[test]
fn causes_read_as_they_should() {
    insta::assert_snapshot!("gateway", read(&cases()));
}
