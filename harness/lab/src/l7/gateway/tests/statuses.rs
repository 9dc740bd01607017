//! What is said of objects that are not right, in the specification's reasons.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;

/// Conditions as `Type=Status/Reason`, without the messages.
fn said(conditions: &[Condition]) -> Vec<String> {
    conditions
        .iter()
        .map(|condition| {
            assert_eq!(condition.observed_generation, Some(1), "{condition:?}");
            let Condition {
                type_,
                status,
                reason,
                ..
            } = condition;
            format!("{type_}={status}/{reason}")
        })
        .collect()
}

/// What is said of the first route, by parent.
fn route_says(yaml: &str) -> Vec<Vec<String>> {
    let input = input(yaml);
    let translation = translate(&input);
    let (route, parents) = &translation.routes[0];
    let status = status::of_route(CONTROLLER, route, parents);
    status
        .parents
        .iter()
        .map(|parent| said(&parent.conditions))
        .collect()
}

const FINE: [&str; 2] = ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"];

#[test]
fn routes_are_accepted_or_the_reason_is_named() {
    let frontend = service("frontend", &["10.0.0.1"]);
    let with = |from: &str, to: &str| ROUTE.replace(from, to);
    let parent = |more: &str| {
        with(
            "  - name: my-gateway",
            &format!("  - name: my-gateway\n    {more}"),
        )
    };
    let hostnames = |list: &str| with("spec:\n", &format!("spec:\n  hostnames: {list}\n"));
    let elsewhere = with("name: my-route", "name: my-route\n  namespace: other")
        .replace(
            "- name: my-gateway",
            "- name: my-gateway\n    namespace: default",
        )
        .replace(
            "- name: frontend",
            "- name: frontend\n      namespace: default",
        );
    let gateway = |from: &str, to: &str| GATEWAY.replace(from, to);
    let listener = |more: &str| gateway("    port: 80", &format!("    port: 80\n    {more}"));
    let plain = GATEWAY.to_owned();
    let all = listener("allowedRoutes: {namespaces: {from: All}}");
    let selector = listener(
        "allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}",
    );
    let grpc = listener("allowedRoutes: {kinds: [{kind: GRPCRoute}]}");
    let host = listener("hostname: '*.example.com'");
    let labelled = "\n---\nkind: Namespace\nmetadata: {name: other, labels: {team: a}}\n";
    let grant = "
---
kind: ReferenceGrant
metadata: {name: g}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}]
  to: [{group: '', kind: Service}]
";
    let wrong_grant = grant.replace("namespace: other", "namespace: another");
    let no = |reason: &str| vec![format!("Accepted=False/{reason}"), FINE[1].to_owned()];
    let unresolved =
        |reason: &str| vec![FINE[0].to_owned(), format!("ResolvedRefs=False/{reason}")];
    let fine = || FINE.map(str::to_owned).to_vec();
    for (what, gateway, route, more, expected) in [
        ("as it is", &plain, ROUTE.to_owned(), "", fine()),
        ("section", &plain, parent("sectionName: http"), "", fine()),
        (
            "no section",
            &plain,
            parent("sectionName: https"),
            "",
            no("NoMatchingParent"),
        ),
        ("port", &plain, parent("port: 80"), "", fine()),
        (
            "no port",
            &plain,
            parent("port: 81"),
            "",
            no("NoMatchingParent"),
        ),
        ("any host", &host, ROUTE.to_owned(), "", fine()),
        ("host", &host, hostnames("[a.example.com]"), "", fine()),
        (
            "no host",
            &host,
            hostnames("[a.example.org]"),
            "",
            no("NoMatchingListenerHostname"),
        ),
        (
            "namespace",
            &plain,
            elsewhere.clone(),
            grant,
            no("NotAllowedByListeners"),
        ),
        ("all", &all, elsewhere.clone(), grant, fine()),
        (
            "selected",
            &selector,
            elsewhere.clone(),
            &[labelled, grant].concat(),
            fine(),
        ),
        (
            "not selected",
            &selector,
            elsewhere.clone(),
            grant,
            no("NotAllowedByListeners"),
        ),
        (
            "kind",
            &grpc,
            ROUTE.to_owned(),
            "",
            no("NotAllowedByListeners"),
        ),
        (
            "no grant",
            &all,
            elsewhere.clone(),
            "",
            unresolved("RefNotPermitted"),
        ),
        (
            "other grant",
            &all,
            elsewhere,
            &wrong_grant,
            unresolved("RefNotPermitted"),
        ),
        (
            "no Service",
            &plain,
            with("name: frontend", "name: fronted"),
            "",
            unresolved("BackendNotFound"),
        ),
        (
            "no such port",
            &plain,
            with("port: 80", "port: 8080"),
            "",
            unresolved("BackendNotFound"),
        ),
        (
            "backend kind",
            &plain,
            with("name: frontend", "name: frontend\n      kind: Pod"),
            "",
            unresolved("InvalidKind"),
        ),
        (
            "regex",
            &plain,
            with("PathPrefix", "RegularExpression").replace("/frontend", "/("),
            "",
            no("UnsupportedValue"),
        ),
    ] {
        let yaml = [gateway.as_str(), &route, &frontend, more].concat();
        assert_eq!(route_says(&yaml), [expected], "{what}");
    }
}

#[test]
fn a_route_of_nobodys_gateway_has_no_status_from_us() {
    let other_class = GATEWAY.replace("contour", "somebody-elses");
    for gateway in ["", other_class.as_str()] {
        assert_eq!(route_says(&[gateway, ROUTE].concat()).len(), 0);
    }
}

#[test]
fn rules_that_were_dropped_are_named() {
    let rules = "
  rules:
  - matches: [{path: {type: RegularExpression, value: '/('}}]
  - matches: [{path: {value: /}}]
    backendRefs: [{name: frontend, port: 80}]
";
    let yaml = [GATEWAY, &route("partly", rules), &service("frontend", &[])].concat();
    let expected = [FINE[0], FINE[1], "PartiallyInvalid=True/UnsupportedValue"];
    assert_eq!(route_says(&yaml), [expected]);
}

#[test]
fn parents_of_other_controllers_and_unchanged_times_are_kept() {
    let status = "
status:
  parents:
  - controllerName: example.org/other
    parentRef: {name: my-gateway}
    conditions: []
  - controllerName: lab.strata.dev/gateway-controller
    parentRef: {group: gateway.networking.k8s.io, kind: Gateway, namespace: default, name: my-gateway}
    conditions:
    - {type: Accepted, status: 'True', reason: Accepted, message: '', lastTransitionTime: '2020-01-01T00:00:00Z'}
    - {type: ResolvedRefs, status: 'True', reason: ResolvedRefs, message: '', lastTransitionTime: '2020-01-01T00:00:00Z'}
  - controllerName: lab.strata.dev/gateway-controller
    parentRef: {name: no-longer-named}
    conditions: []
";
    let input = input(&[GATEWAY, ROUTE, status].concat());
    let translation = translate(&input);
    let (route, parents) = &translation.routes[0];
    let status = status::of_route(CONTROLLER, route, parents);
    let names: Vec<_> = status
        .parents
        .iter()
        .map(|parent| parent.controller_name.as_str())
        .collect();
    assert_eq!(names, ["example.org/other", CONTROLLER]);
    let years: Vec<_> = status.parents[1]
        .conditions
        .iter()
        .map(|condition| condition.last_transition_time.0.to_string()[..4] == *"2020")
        .collect();
    assert_eq!(
        years,
        [true, false],
        "the Service is gone, the acceptance stays"
    );
}

/// What is said of the first Gateway and of its listeners, where Envoy serves what it can.
fn gateway_says(yaml: &str) -> (Vec<String>, Vec<(String, i32, usize)>) {
    let input = input(yaml);
    let translation = translate(&input);
    let observed = Observed {
        addresses: vec![("IPAddress", "172.30.1.1".to_owned())],
        waits_for: None,
    };
    let status = status::of_gateway(&translation.gateways[0], &observed);
    let listeners = status.listeners.unwrap().into_iter().map(|listener| {
        let kinds = listener.supported_kinds.unwrap_or_default().len();
        let said = said(&listener.conditions).join(" ");
        (said, listener.attached_routes, kinds)
    });
    (said(&status.conditions.unwrap()), listeners.collect())
}

const SERVED: &str = "Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=True/ResolvedRefs Conflicted=False/NoConflicts";

#[test]
fn listeners_are_served_or_the_reason_is_named() {
    let gateway = |listeners: &str| {
        let start = GATEWAY.find("  listeners:").unwrap();
        [&GATEWAY[..start], "  listeners:\n", listeners, ROUTE].concat()
    };
    let http = "  - {name: http, protocol: HTTP, port: 80}\n";
    let (fine, partly) = ("Accepted=True/Accepted", "Accepted=True/ListenersNotValid");
    let programmed = "Programmed=True/Programmed";
    for (listeners, expected, last) in [
        (String::new(), [fine, programmed], (SERVED, 1, 2)),
        (
            "  - {name: sctp, protocol: SCTP, port: 53}\n".to_owned(),
            [partly, programmed],
            (
                "Accepted=False/UnsupportedProtocol Programmed=False/Invalid ResolvedRefs=True/ResolvedRefs Conflicted=False/NoConflicts",
                0,
                0,
            ),
        ),
        (
            "  - {name: kinds, protocol: HTTP, port: 81, allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: TCPRoute}]}}\n".to_owned(),
            [fine, programmed],
            (
                "Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=False/InvalidRouteKinds Conflicted=False/NoConflicts",
                1,
                1,
            ),
        ),
        (
            "  - {name: kinds, protocol: HTTP, port: 81, allowedRoutes: {kinds: [{kind: TCPRoute}]}}\n".to_owned(),
            [fine, programmed],
            (
                "Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=False/InvalidRouteKinds Conflicted=False/NoConflicts",
                0,
                0,
            ),
        ),
        (
            "  - {name: tls, protocol: HTTPS, port: 443}\n".to_owned(),
            [partly, programmed],
            (
                "Accepted=True/Accepted Programmed=False/Invalid ResolvedRefs=False/InvalidCertificateRef Conflicted=False/NoConflicts",
                1,
                2,
            ),
        ),
        (
            "  - {name: a, protocol: HTTP, port: 81}\n  - {name: b, protocol: HTTP, port: 81}\n".to_owned(),
            [partly, programmed],
            (
                "Accepted=False/HostnameConflict Programmed=False/Invalid ResolvedRefs=True/ResolvedRefs Conflicted=True/HostnameConflict",
                1,
                2,
            ),
        ),
        (
            "  - {name: a, protocol: HTTPS, port: 81, hostname: a.b}\n  - {name: b, protocol: HTTP, port: 81}\n".to_owned(),
            [partly, programmed],
            (
                "Accepted=False/ProtocolConflict Programmed=False/Invalid ResolvedRefs=True/ResolvedRefs Conflicted=True/ProtocolConflict",
                1,
                2,
            ),
        ),
    ] {
        let (conditions, found) = gateway_says(&gateway(&[http, &listeners].concat()));
        assert_eq!(conditions, expected, "{listeners}");
        let found = found.last().unwrap();
        assert_eq!((found.0.as_str(), found.1, found.2), last, "{listeners}");
    }
}

#[test]
fn gateways_are_programmed_or_the_reason_is_named() {
    let input = input(GATEWAY);
    let translation = translate(&input);
    let address = || vec![("IPAddress", "172.30.1.1".to_owned())];
    for (addresses, waits_for, expected) in [
        (vec![], None, "Programmed=False/AddressNotAssigned"),
        (
            address(),
            Some("no pod is ready".to_owned()),
            "Programmed=False/Pending",
        ),
        (address(), None, "Programmed=True/Programmed"),
    ] {
        let observed = Observed {
            addresses,
            waits_for,
        };
        let status = status::of_gateway(&translation.gateways[0], &observed);
        assert_eq!(said(&status.conditions.unwrap())[1], expected);
    }
    for (more, expected) in [
        (
            "  addresses: [{type: Hostname, value: a.b}]\n",
            [
                "Accepted=False/UnsupportedAddress",
                "Programmed=False/Invalid",
            ],
        ),
        (
            "  addresses: [{type: IPAddress, value: 192.0.2.1}]\n",
            [
                "Accepted=True/Accepted",
                "Programmed=False/AddressNotUsable",
            ],
        ),
        (
            "  infrastructure: {parametersRef: {group: a, kind: b, name: c}}\n",
            [
                "Accepted=False/InvalidParameters",
                "Programmed=False/Invalid",
            ],
        ),
    ] {
        let (conditions, _) = gateway_says(&[GATEWAY, more].concat());
        assert_eq!(conditions, expected, "{more}");
    }
}
