//! Which backend a request reaches, asked of the routes in the order in which Envoy tries them.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use crate::l7::envoy::validate::assert_accepted;

fn parse<T: serde::de::DeserializeOwned>(yaml: &str) -> Arc<T> {
    Arc::new(crate::testing::object_of_yaml(yaml))
}

fn class(default: bool) -> Arc<IngressClass> {
    parse(&format!(
        "metadata: {{name: envoy, annotations: {{{DEFAULT_CLASS}: '{default}'}}}}\nspec: {{controller: {CONTROLLER}}}"
    ))
}

fn service(name: &str) -> Arc<Service> {
    parse(&format!(
        "metadata: {{name: {name}, namespace: default}}\n\
         spec: {{ports: [{{name: web, port: 80, targetPort: 8080}}]}}"
    ))
}

fn slice(service: &str, address: &str) -> Arc<EndpointSlice> {
    parse(&format!(
        "metadata: {{name: {service}-x, namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\n\
         ports: [{{name: web, port: 8080}}]\n\
         endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}, {{addresses: [10.9.9.9], conditions: {{ready: false}}}}]"
    ))
}

/// An Ingress of (host, path, type, service) rules.
fn ingress(name: &str, rules: &[(&str, &str, &str, &str)]) -> Arc<Ingress> {
    let rules: Vec<_> = rules
        .iter()
        .map(|(host, path, kind, service)| {
            let mut rule = json!({ "http": { "paths": [{
                "path": path, "pathType": kind,
                "backend": { "service": { "name": service, "port": { "number": 80 } } },
            }] } });
            if !host.is_empty() {
                rule["host"] = json!(host);
            }
            rule
        })
        .collect();
    crate::testing::shared(json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "ingressClassName": "envoy", "rules": rules },
    }))
}

fn input(ingresses: Vec<Arc<Ingress>>) -> Input {
    let names = ["one", "two", "three"];
    Input {
        classes: vec![class(true)],
        ingresses,
        services: Services::new(
            names.map(service),
            names.map(|name| slice(name, "10.244.1.7")),
        ),
        fallback: super::super::fallback_certificate().unwrap(),
        ..Input::default()
    }
}

/// What Envoy does with a request, by its documented rules: the most specific domain, then the
/// first route that matches.
fn served_by(snapshot: &Snapshot, host: &str, path: &str) -> Option<String> {
    let hosts = snapshot.routes[0]["virtual_hosts"].as_array().unwrap();
    let domain_of = |host: &Value| host["domains"][0].as_str().unwrap().to_owned();
    let rank = |domain: &str| match domain.strip_prefix('*') {
        None if domain == host => Some(usize::MAX),
        Some(suffix) if host.ends_with(suffix) => Some(suffix.len()),
        _ => None,
    };
    let best = hosts
        .iter()
        .filter(|entry| rank(&domain_of(entry)).is_some());
    let best = best.max_by_key(|entry| rank(&domain_of(entry)))?;
    let taken = best["routes"].as_array().unwrap().iter().find(|route| {
        let matching = &route["match"];
        let path_matches = if let Some(exact) = matching["path"].as_str() {
            path == exact
        } else if let Some(prefix) = matching["path_separated_prefix"].as_str() {
            path == prefix || path.starts_with(&format!("{prefix}/"))
        } else {
            path.starts_with(matching["prefix"].as_str().unwrap())
        };
        let headers = matching["headers"].as_array();
        path_matches
            && headers.into_iter().flatten().all(|header| {
                let pattern = header["string_match"]["safe_regex"]["regex"]
                    .as_str()
                    .unwrap();
                let matched = regex::Regex::new(&format!("^(?:{pattern})$"))
                    .unwrap()
                    .is_match(host);
                matched != header["invert_match"].as_bool().unwrap_or_default()
            })
    })?;
    taken["route"]["cluster"].as_str().map(str::to_owned)
}

#[test]
fn paths_are_taken_by_the_rules_of_the_specification() {
    let snapshot = translate(&input(vec![ingress(
        "paths",
        &[
            ("h", "/foo", "Prefix", "one"),
            ("h", "/foo/bar", "Prefix", "two"),
            ("h", "/foo", "Exact", "three"),
            ("h", "/tail/", "Prefix", "two"),
            ("h", "/own", "ImplementationSpecific", "three"),
        ],
    )]));
    for (path, expected) in [
        ("/foo", Some("three")),
        ("/foo/", Some("one")),
        ("/foo/x", Some("one")),
        ("/foo/bar", Some("two")),
        ("/foo/bar/x", Some("two")),
        ("/foo/barx", Some("one")),
        ("/foobar", None),
        ("/tail", Some("two")),
        ("/tail/x", Some("two")),
        ("/own/x", Some("three")),
        ("/", None),
    ] {
        let expected = expected.map(|name| format!("default/{name}/80"));
        assert_eq!(served_by(&snapshot, "h", path), expected, "{path}");
    }
    assert_accepted(&snapshot);
}

#[test]
fn hosts_are_taken_by_the_rules_of_the_specification() {
    let snapshot = translate(&input(vec![
        ingress("exact", &[("a.example.com", "/", "Prefix", "one")]),
        ingress("wildcard", &[("*.example.com", "/", "Prefix", "two")]),
        ingress("any", &[("", "/any", "Prefix", "three")]),
    ]));
    for (host, path, expected) in [
        ("a.example.com", "/", Some("one")),
        ("a.example.com", "/any", Some("one")),
        ("b.example.com", "/", Some("two")),
        ("b.c.example.com", "/", None),
        ("b.c.example.com", "/any", Some("three")),
        ("other.org", "/any", Some("three")),
        ("other.org", "/", None),
    ] {
        let expected = expected.map(|name| format!("default/{name}/80"));
        assert_eq!(served_by(&snapshot, host, path), expected, "{host}{path}");
    }
    assert_accepted(&snapshot);
}

#[test]
fn ingresses_of_one_host_merge_and_the_older_wins() {
    let older = ingress("older", &[("h", "/x", "Prefix", "one")]);
    let mut younger = ingress(
        "a-younger",
        &[("h", "/x", "Prefix", "two"), ("h", "/y", "Prefix", "two")],
    );
    let stamped = |seconds| {
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            jiff::Timestamp::from_second(seconds).unwrap(),
        ))
    };
    let mut older = Arc::unwrap_or_clone(older);
    older.metadata.creation_timestamp = stamped(1);
    Arc::make_mut(&mut younger).metadata.creation_timestamp = stamped(2);
    let snapshot = translate(&input(vec![younger, Arc::new(older)]));
    assert_eq!(
        served_by(&snapshot, "h", "/x").as_deref(),
        Some("default/one/80")
    );
    assert_eq!(
        served_by(&snapshot, "h", "/y").as_deref(),
        Some("default/two/80")
    );
}

#[test]
fn the_class_decides_who_serves() {
    let with_class = |class: Option<&str>| {
        let mut object = Arc::unwrap_or_clone(ingress("x", &[("h", "/", "Prefix", "one")]));
        if let Some(spec) = &mut object.spec {
            spec.ingress_class_name = class.map(str::to_owned);
        }
        Arc::new(object)
    };
    for (named, default, expected) in [
        (Some("envoy"), false, true),
        (Some("nginx"), true, false),
        (None, true, true),
        (None, false, false),
    ] {
        let mut input = input(vec![with_class(named)]);
        input.classes = vec![class(default)];
        assert_eq!(
            input.served().len() == 1,
            expected,
            "class {named:?}, default {default}"
        );
    }
}

#[test]
fn routes_lead_to_ready_endpoints_by_target_port() {
    let snapshot = translate(&input(vec![ingress("x", &[("h", "/", "Prefix", "one")])]));
    let [cluster] = snapshot.clusters.as_slice() else {
        panic!("one cluster was expected")
    };
    let endpoints = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
    assert_eq!(endpoints.as_array().unwrap().len(), 1);
    let socket = &endpoints[0]["endpoint"]["address"]["socket_address"];
    assert_eq!(
        socket,
        &json!({ "address": "10.244.1.7", "port_value": 8080 })
    );
}

#[test]
fn a_missing_service_leads_to_a_cluster_that_is_not_there() {
    let snapshot = translate(&input(vec![ingress(
        "x",
        &[("h", "/", "Prefix", "absent")],
    )]));
    assert_eq!(
        served_by(&snapshot, "h", "/").as_deref(),
        Some("default/absent/80")
    );
    assert!(snapshot.clusters.is_empty());
    assert_accepted(&snapshot);
}

fn with_default(name: &str, rules: &[(&str, &str, &str, &str)], backend: &str) -> Arc<Ingress> {
    let mut object = Arc::unwrap_or_clone(ingress(name, rules));
    if let Some(spec) = &mut object.spec {
        let backend = json!({ "service": { "name": backend, "port": { "name": "web" } } });
        spec.default_backend = Some(crate::testing::object(backend));
    }
    Arc::new(object)
}

#[test]
fn default_backends_come_last_on_the_hosts_of_their_rules_or_everywhere() {
    let own = with_default("x", &[("h", "/one", "Prefix", "one")], "two");
    let wild = with_default("w", &[("*.wild", "/one", "Prefix", "one")], "two");
    let other = ingress("y", &[("other", "/one", "Prefix", "one")]);
    let anywhere = with_default("z", &[], "one");
    for (ingresses, host, path, expected) in [
        (vec![&own], "h", "/one", Some("default/one/80")),
        (vec![&own], "h", "/else", Some("default/two/web")),
        (vec![&own], "nobody", "/", None),
        (vec![&own, &other], "other", "/else", None),
        (vec![&own, &anywhere], "h", "/else", Some("default/two/web")),
        (
            vec![&own, &anywhere],
            "nobody",
            "/",
            Some("default/one/web"),
        ),
        (
            vec![&other, &anywhere],
            "other",
            "/one",
            Some("default/one/80"),
        ),
        (
            vec![&other, &anywhere],
            "other",
            "/else",
            Some("default/one/web"),
        ),
        (vec![&wild], "a.wild", "/else", Some("default/two/web")),
        (vec![&wild], "a.b.wild", "/else", None),
        (
            vec![&wild, &anywhere],
            "a.b.wild",
            "/else",
            Some("default/one/web"),
        ),
    ] {
        let snapshot = translate(&input(ingresses.into_iter().cloned().collect()));
        assert_accepted(&snapshot);
        assert_eq!(
            served_by(&snapshot, host, path).as_deref(),
            expected,
            "{host}{path}"
        );
    }
}

#[test]
fn certificates_are_chosen_by_server_name() {
    let mut object = Arc::unwrap_or_clone(ingress("x", &[("*.example.com", "/", "Prefix", "one")]));
    if let Some(spec) = &mut object.spec {
        spec.tls = Some(vec![
            crate::testing::object(json!({ "hosts": ["a.example.com"], "secretName": "a" })),
            crate::testing::object(json!({ "secretName": "wild" })),
            crate::testing::object(json!({ "hosts": ["z.example.com"], "secretName": "absent" })),
        ]);
    }
    let mut input = input(vec![Arc::new(object)]);
    for name in ["a", "wild"] {
        let made = super::super::fallback_certificate().unwrap();
        input
            .certificates
            .insert(("default".to_owned(), name.to_owned()), made);
    }
    let snapshot = translate(&input);
    let chains = snapshot.listeners[1]["filter_chains"].as_array().unwrap();
    let names: Vec<_> = chains
        .iter()
        .map(|chain| chain["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["*.example.com", "a.example.com"]);
    assert!(!snapshot.listeners[1].to_string().contains("PRIVATE KEY"));
    assert_eq!(snapshot.secrets.len(), 3);
    assert_accepted(&snapshot);
}
