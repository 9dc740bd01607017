//! Many requests that differ.

use std::collections::BTreeSet;

use strata_probe::{BriefReply, FailureKind, OneRequest, RequestsSpec};

use crate::support::{Server, ask, nobody, probe, read};

fn one(method: &str, target: &str) -> OneRequest {
    OneRequest {
        method: method.into(),
        target: target.into(),
        host: None,
        headers: Vec::new(),
    }
}

fn in_order(spec: &RequestsSpec) -> Vec<BriefReply> {
    let mut replies = ask(spec);
    replies.sort_by_key(|reply| reply.sequence);
    replies
}

#[test]
fn each_has_its_own_method_target_host_and_headers() {
    let server = Server::start(&["--http", "0"]);
    // What a control of the server answers tells that the target arrived.
    let requests = vec![
        one("GET", "/a//b"),
        one("HEAD", "/"),
        one("GET", "/status/418"),
        one("POST", "/x?status=503"),
    ];
    for concurrency in [1, 3, 9] {
        let spec = RequestsSpec {
            concurrency,
            ..RequestsSpec::new(server.url(""), requests.clone())
        };
        let replies = in_order(&spec);
        let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [200, 200, 418, 503].map(Some));
        assert!(
            replies
                .iter()
                .all(|reply| reply.pod.as_deref() == Some("web-0"))
        );
        assert!(replies.iter().all(|reply| reply.error.is_none()));
    }
    let named = OneRequest {
        host: Some("web.example".into()),
        headers: vec!["X-One: a b".into()],
        ..one("PUT", "/c?d=e")
    };
    let spec = RequestsSpec::new("http://192.0.2.1", vec![named]);
    let alone = spec.each().next().unwrap();
    assert_eq!(alone.url, "http://192.0.2.1/c?d=e");
    assert_eq!(
        (alone.method.as_str(), alone.host.as_deref()),
        ("PUT", Some("web.example"))
    );
    assert_eq!(alone.headers, ["X-One: a b"]);
}

#[test]
fn what_fails_is_told_of_each() {
    let requests = vec![one("GET", "/"); 3];
    let replies = in_order(&RequestsSpec::new(format!("http://{}", nobody()), requests));
    let kinds: BTreeSet<_> = replies
        .iter()
        .map(|reply| reply.error.as_ref().unwrap().kind)
        .collect();
    assert_eq!(replies.len(), 3);
    assert_eq!(kinds, [FailureKind::Refused].into());
}

#[test]
fn as_flags_each_is_json() {
    let server = Server::start(&["--http", "0"]);
    let json = r#"{"method":"GET","target":"/"}"#;
    let output = probe()
        .args([
            "requests",
            &server.url(""),
            "--request",
            json,
            "--request",
            json,
        ])
        .output()
        .unwrap();
    assert_eq!(read::<RequestsSpec>(&output).len(), 2);
}
