//! Which backend a request reaches and how, asked of a real Envoy.

use std::collections::BTreeMap;

use super::*;
use crate::l7::envoy::live::{Live, Reply};

/// Serves the first Gateway of a cluster.
async fn serve(yaml: &str) -> Option<Live> {
    let input = input(yaml);
    let translation = translate(&input);
    Live::serve(&translation.gateways[0].snapshot).await
}

/// A request in one line: `GET host/path header=value…`.
fn request(line: &str) -> http::Request<String> {
    let mut words = line.split(' ');
    let method = words.next().unwrap();
    let target = words.next().unwrap();
    let (host, path) = target.split_at(target.find('/').unwrap());
    let mut request = http::Request::builder().method(method).uri(path);
    request = request.header("host", host);
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        request = request.header(name, value);
    }
    request.body(String::new()).unwrap()
}

async fn ask(live: &Live, line: &str) -> Reply {
    live.ask("http-80", request(line)).await
}

/// Who answers: the last number of the endpoint's address, or the status.
async fn answer(live: &Live, line: &str) -> String {
    let reply = ask(live, line).await;
    match &reply.served_by {
        Some(name) => name.split(['.', ':']).nth(3).unwrap().to_owned(),
        None => reply.status.to_string(),
    }
}

async fn assert_answers(live: &Live, expected: &[(&str, &str)]) {
    for (line, expected) in expected {
        assert_eq!(answer(live, line).await, *expected, "{line}");
    }
}

/// Services `s1` to `s9`, whose endpoints are 10.0.0.1 to 10.0.0.9.
fn services() -> String {
    (1..10)
        .map(|number| service(&format!("s{number}"), &[&format!("10.0.0.{number}")]))
        .collect()
}

#[tokio::test]
async fn the_tutorials_route_is_served_unmodified() {
    let yaml = [GATEWAY, ROUTE, &service("frontend", &["10.0.0.1"])].concat();
    let Some(live) = serve(&yaml).await else {
        return;
    };
    assert_answers(
        &live,
        &[
            ("GET 192.0.2.1/frontend", "1"),
            ("GET anything/frontend/x?y=z", "1"),
            ("GET 192.0.2.1/frontendx", "404"),
            ("GET 192.0.2.1/", "404"),
        ],
    )
    .await;
    let reply = ask(&live, "GET a:8080/frontend/x?y=z").await;
    assert_eq!(reply.seen["path"], "/frontend/x?y=z");
    assert_eq!(reply.seen["headers"]["host"], "a:8080");
    assert_eq!(reply.header("server"), Some("envoy"));
    assert_eq!(reply.header("via"), Some("1.1 my-gateway.default"));
    assert_eq!(reply.seen["headers"]["via"], "1.1 my-gateway.default");
}

#[tokio::test]
async fn matches_are_taken_by_the_rules_of_the_specification() {
    let routes = route(
        "matches",
        "
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{name: s1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /a/}}]
    backendRefs: [{name: s2, port: 80}]
  - matches: [{path: {type: Exact, value: /a/exact}}]
    backendRefs: [{name: s3, port: 80}]
  - matches: [{path: {type: RegularExpression, value: '/a/[0-9]+'}}]
    backendRefs: [{name: s4, port: 80}]
  - matches: [{path: {value: /a}, method: POST}]
    backendRefs: [{name: s5, port: 80}]
  - matches: [{path: {value: /h}, headers: [{name: Version, value: two}]}]
    backendRefs: [{name: s6, port: 80}]
  - matches:
    - path: {value: /h}
      headers: [{name: version, value: two}, {name: colour, type: RegularExpression, value: 'r.*d'}]
    backendRefs: [{name: s7, port: 80}]
  - matches:
    - {path: {value: /q}, queryParams: [{name: animal, value: whale}]}
    - {path: {value: /q}, queryParams: [{name: animal, type: RegularExpression, value: 'dol.*'}]}
    backendRefs: [{name: s8, port: 80}]
  - matches: [{path: {value: /q}, headers: [{name: version, value: two}]}]
    backendRefs: [{name: s9, port: 80}]
",
    );
    let Some(live) = serve(&[GATEWAY, &routes, &services()].concat()).await else {
        return;
    };
    assert_answers(
        &live,
        &[
            ("GET h/", "1"),
            ("GET h/ab", "1"),
            ("GET h/a", "2"),
            ("GET h/a/", "2"),
            ("GET h/a/b", "2"),
            ("GET h/a/exact", "3"),
            ("POST h/a/exact", "3"),
            ("GET h/a/exact/", "2"),
            ("GET h/a/12", "4"),
            ("GET h/a/12/x", "2"),
            // `/a/` has more characters than `/a`, and that is asked before the method is.
            ("POST h/a/x", "2"),
            ("GET h/h version=two", "6"),
            ("GET h/h VERSION=two colour=red", "7"),
            ("GET h/h version=two colour=blue", "6"),
            ("GET h/h version=Two", "1"),
            ("GET h/h", "1"),
            ("GET h/q?animal=whale", "8"),
            ("GET h/q?animal=dolphin&x=y", "8"),
            ("GET h/q?animal=shark", "1"),
            // A header counts for more than a query parameter.
            ("GET h/q?animal=whale version=two", "9"),
        ],
    )
    .await;
}

#[tokio::test]
async fn ties_are_decided_by_age_then_name_then_order() {
    let rule =
        |service: &str| format!("  rules:\n  - backendRefs: [{{name: {service}, port: 80}}]\n");
    let younger = route("a-younger", &rule("s1")).replace(
        "{name: a-younger}",
        "{name: a-younger, creationTimestamp: '2026-01-02T00:00:00Z'}",
    );
    let old = |name: &str, service: &str| {
        let dated = format!("{{name: {name}, creationTimestamp: '2026-01-01T00:00:00Z'}}");
        route(name, &rule(service)).replace(&format!("{{name: {name}}}"), &dated)
    };
    let cases = [
        (vec![younger.clone(), old("z-older", "s2")], "2"),
        (vec![old("z", "s3"), old("b", "s4")], "4"),
        (
            vec![route(
                "order",
                "
  rules:
  - matches: [{path: {value: /}}]
    backendRefs: [{name: s5, port: 80}]
  - matches: [{path: {value: /}}]
    backendRefs: [{name: s6, port: 80}]
",
            )],
            "5",
        ),
    ];
    for (routes, expected) in cases {
        let yaml = [GATEWAY, &routes.concat(), &services()].concat();
        let Some(live) = serve(&yaml).await else {
            return;
        };
        assert_answers(&live, &[("GET h/", expected)]).await;
    }
}

#[tokio::test]
async fn hosts_are_matched_most_specific_first_and_listeners_are_isolated() {
    let gateway = "
---
kind: Gateway
metadata: {name: my-gateway}
spec:
  gatewayClassName: contour
  listeners:
  - {name: any, protocol: HTTP, port: 80}
  - {name: wild, protocol: HTTP, port: 80, hostname: '*.example.com'}
  - {name: wilder, protocol: HTTP, port: 80, hostname: '*.foo.example.com'}
  - {name: exact, protocol: HTTP, port: 80, hostname: abc.foo.example.com}
";
    let at = |section: &str, service: &str, hostnames: &str| {
        route(section, &format!("  hostnames: {hostnames}\n  rules:\n  - matches: [{{path: {{value: /{section}}}}}]\n    backendRefs: [{{name: {service}, port: 80}}]\n"))
            .replace("{name: my-gateway}", &format!("{{name: my-gateway, sectionName: {section}}}"))
    };
    let routes = [
        at("any", "s1", "[]"),
        at("wild", "s2", "[]"),
        at("wilder", "s3", "[]"),
        at("exact", "s4", "['*.example.com']"),
        at("wild", "s5", "[one.example.com]").replace("{name: wild}", "{name: one}"),
    ]
    .concat();
    let Some(live) = serve(&[gateway, &routes, &services()].concat()).await else {
        return;
    };
    assert_answers(
        &live,
        &[
            ("GET bar.com/any", "1"),
            ("GET bar.com/wild", "404"),
            ("GET bar.example.com/wild", "2"),
            ("GET BAR.example.com:8080/wild", "2"),
            ("GET a.b.example.com/wild", "2"),
            ("GET bar.example.com/any", "404"),
            ("GET example.com/any", "1"),
            ("GET bar.foo.example.com/wilder", "3"),
            ("GET bar.foo.example.com/wild", "404"),
            ("GET abc.foo.example.com/exact", "4"),
            ("GET abc.foo.example.com/wilder", "404"),
            // The more specific hostname has the request, whether or not its rules match.
            ("GET one.example.com/wild", "5"),
            ("GET one.example.com/other", "404"),
        ],
    )
    .await;
}

#[tokio::test]
async fn backends_get_their_shares_and_missing_ones_answer_500() {
    let routes = route(
        "shares",
        "
  rules:
  - matches: [{path: {value: /zero}}]
    backendRefs: [{name: s1, port: 80, weight: 0}, {name: s2, port: 80, weight: 3}]
  - matches: [{path: {value: /none}}]
    backendRefs: [{name: s1, port: 80, weight: 0}]
  - matches: [{path: {value: /absent}}]
    backendRefs: [{name: absent, port: 80}]
  - matches: [{path: {value: /port}}]
    backendRefs: [{name: s1, port: 81}]
  - matches: [{path: {value: /kind}}]
    backendRefs: [{name: s1, kind: Bucket, group: example.org}]
  - matches: [{path: {value: /nothing}}]
  - matches: [{path: {value: /empty}}]
    backendRefs: [{name: empty, port: 80}]
  - matches: [{path: {value: /half}}]
    backendRefs: [{name: s3, port: 80, weight: 1}, {name: absent, port: 80, weight: 1}]
",
    );
    let yaml = [GATEWAY, &routes, &services(), &service("empty", &[])].concat();
    let Some(live) = serve(&yaml).await else {
        return;
    };
    assert_answers(
        &live,
        &[
            ("GET h/zero", "2"),
            ("GET h/none", "500"),
            ("GET h/absent", "500"),
            ("GET h/port", "500"),
            ("GET h/kind", "500"),
            ("GET h/nothing", "500"),
            ("GET h/empty", "503"),
        ],
    )
    .await;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        *counts.entry(answer(&live, "GET h/half").await).or_default() += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["3", "500"]);
    // Of 200 fair coins fewer than 60 heads come up less than once in ten million times.
    assert!(counts.values().all(|count| *count >= 60), "{counts:?}");
}

#[tokio::test]
async fn filters_change_headers_paths_and_hosts() {
    let routes = route(
        "filters",
        "
  rules:
  - matches: [{path: {value: /headers}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{name: X-Set, value: '100%'}]
        add: [{name: X-Add, value: more}]
        remove: [X-Remove]
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        set: [{name: X-Backend, value: 'no'}]
        remove: [X-Powered-By]
    backendRefs: [{name: s1, port: 80}]
  - matches: [{path: {value: /host}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: host, value: other.org}]}}
    backendRefs: [{name: s1, port: 80}]
  - matches: [{path: {value: /full}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: rewritten.org, path: {type: ReplaceFullPath, replaceFullPath: /whole}}
    backendRefs: [{name: s1, port: 80}]
  - matches: [{path: {value: /prefix}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    backendRefs: [{name: s1, port: 80}]
  - matches: [{path: {value: /share}}]
    backendRefs:
    - name: s2
      port: 80
      filters:
      - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: share}]}}
  - matches: [{path: {value: /mirror}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: s9, port: 80}}}]
    backendRefs: [{name: s3, port: 80}]
  - matches: [{path: {value: /cors}}]
    filters:
    - type: CORS
      cors: {allowOrigins: ['https://*.example.com'], allowMethods: [GET, PUT], maxAge: 60}
    backendRefs: [{name: s3, port: 80}]
",
    );
    let Some(live) = serve(&[GATEWAY, &routes, &services()].concat()).await else {
        return;
    };
    let reply = ask(&live, "GET h/headers x-set=old x-add=one x-remove=x").await;
    let headers = &reply.seen["headers"];
    assert_eq!(headers["x-set"], "100%");
    assert_eq!(headers["x-add"], "more", "the last of its values");
    assert!(headers["x-remove"].is_null());
    assert_eq!(reply.header("x-backend"), Some("no"));
    for (line, host, path) in [
        ("GET h/host/x", "other.org", "/host/x"),
        ("GET h/full/x?a=b", "rewritten.org", "/whole?a=b"),
        ("GET h/prefix", "h", "/"),
        ("GET h/prefix/x?a=b", "h", "/x?a=b"),
    ] {
        let reply = ask(&live, line).await;
        assert_eq!(reply.seen["headers"]["host"], host, "{line}");
        assert_eq!(reply.seen["path"], path, "{line}");
    }
    let reply = ask(&live, "GET h/share").await;
    assert_eq!(reply.seen["headers"]["x-set"], "share");
    assert_answers(&live, &[("GET h/mirror", "3")]).await;
    let preflight = "OPTIONS h/cors origin=https://a.example.com access-control-request-method=PUT";
    let reply = ask(&live, preflight).await;
    let allowed = reply.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://a.example.com"));
    assert_eq!(
        reply.header("access-control-allow-methods"),
        Some("GET,PUT")
    );
    let elsewhere = preflight.replace("a.example.com", "example.org");
    let reply = ask(&live, &elsewhere).await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn redirects_lead_where_the_specification_says() {
    let redirect = |path: &str, filter: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{{type: RequestRedirect, requestRedirect: {filter}}}]\n"
        )
    };
    let rules = [
        "  rules:\n".to_owned(),
        redirect("/host", "{hostname: example.org}"),
        redirect("/https", "{scheme: https, statusCode: 301}"),
        redirect("/both", "{scheme: https, port: 8443}"),
        redirect("/port", "{port: 8083}"),
        redirect("/eighty", "{port: 80, hostname: example.org}"),
        redirect(
            "/full",
            "{path: {type: ReplaceFullPath, replaceFullPath: /x}}",
        ),
        redirect(
            "/prefix",
            "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /y}, statusCode: 307}",
        ),
    ]
    .concat();
    let gateway = GATEWAY.replace(
        "  - name: http\n",
        "  - {name: high, protocol: HTTP, port: 8080}\n  - name: http\n",
    );
    let Some(live) = serve(
        &[&gateway, &route("redirects", &rules)]
            .map(String::as_str)
            .concat(),
    )
    .await
    else {
        return;
    };
    for (listener, line, status, location) in [
        (
            "http-80",
            "GET h/host/x?a=b",
            302,
            "http://example.org/host/x?a=b",
        ),
        ("http-80", "GET h/https", 301, "https://h/https"),
        ("http-80", "GET h/both", 302, "https://h:8443/both"),
        ("http-80", "GET h/port", 302, "http://h:8083/port"),
        ("http-80", "GET h/eighty", 302, "http://example.org/eighty"),
        ("http-80", "GET h/full/z?a=b", 302, "http://h/x?a=b"),
        ("http-80", "GET h/prefix/z?a=b", 307, "http://h/y/z?a=b"),
        (
            "http-8080",
            "GET h:8080/host",
            302,
            "http://example.org:8080/host",
        ),
        ("http-8080", "GET h:8080/https", 301, "https://h:443/https"),
        ("http-8080", "GET h:8080/port", 302, "http://h:8083/port"),
        (
            "http-8080",
            "GET h:8080/eighty",
            302,
            "http://example.org/eighty",
        ),
    ] {
        let reply = live.ask(listener, request(line)).await;
        assert_eq!(reply.status, status, "{listener} {line}");
        assert_eq!(
            reply.header("location"),
            Some(location),
            "{listener} {line}"
        );
    }
}

#[tokio::test]
async fn rules_that_cannot_be_done_are_dropped_and_leave_the_others() {
    let routes = route(
        "partly",
        "
  rules:
  - matches: [{path: {type: RegularExpression, value: '/(unclosed'}}]
    backendRefs: [{name: s1, port: 80}]
  - matches: [{path: {value: '/has?query'}}]
    backendRefs: [{name: s1, port: 80}]
  - matches: [{path: {value: /extension}}]
    filters: [{type: ExtensionRef, extensionRef: {group: example.org, kind: Filter, name: x}}]
    backendRefs: [{name: s1, port: 80}]
  - matches: [{path: {value: /}}]
    backendRefs: [{name: s2, port: 80}]
",
    );
    let Some(live) = serve(&[GATEWAY, &routes, &services()].concat()).await else {
        return;
    };
    assert_answers(&live, &[("GET h/x", "2"), ("GET h/extension", "500")]).await;
}
