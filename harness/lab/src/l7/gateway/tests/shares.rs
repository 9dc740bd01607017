//! Rules whose backends are treated each in its own way, asked of a real Envoy.

use super::*;
use crate::l7::envoy::live::Live;

#[tokio::test]
async fn each_backend_has_its_own_filters_and_its_share() {
    let rules = "
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-rule, value: all}]}}]
    backendRefs:
    - name: one
      port: 80
      weight: 3
      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /of-one}}}]
    - name: two
      port: 80
      weight: 1
    - name: three
      port: 80
      weight: 1
      filters: [{type: RequestRedirect, requestRedirect: {hostname: three.example.com, statusCode: 301}}]
    - {name: missing, port: 80, weight: 1}
    - {name: two, port: 80, weight: 0}
";
    let yaml = [
        GATEWAY,
        &route("shared", rules),
        &service("one", &["10.0.0.1"]),
        &service("two", &["10.0.0.2"]),
        &service("three", &["10.0.0.3"]),
    ]
    .concat();
    let input = input(&yaml);
    let translation = translate(&input);
    let Some(live) = Live::serve(&translation.gateways[0].snapshot).await else {
        return;
    };
    let mut counts = BTreeMap::new();
    // Of 600 requests a part of a sixth is off by more than 80 with a probability below 1e-9.
    for _ in 0..600 {
        let request = http::Request::get("/asked").header("host", "a.example.com");
        let reply = live
            .ask("http-80", request.body(String::new()).unwrap())
            .await;
        let path = reply.seen["path"].as_str().unwrap_or_default().to_owned();
        let said = match (reply.status, reply.header("x-rule")) {
            (200, Some("all")) => path,
            (301, _) => reply.header("location").unwrap_or_default().to_owned(),
            (status, _) => status.to_string(),
        };
        *counts.entry(said).or_insert(0_i32) += 1;
    }
    for (said, expected) in [
        ("/of-one", 300),
        ("/asked", 100),
        ("http://three.example.com/asked", 100),
        ("500", 100),
    ] {
        let seen = counts.remove(said).unwrap_or_default();
        assert!((seen - expected).abs() < 80, "{said}: {seen}, {counts:?}");
    }
    assert!(counts.is_empty(), "{counts:?}");
}
