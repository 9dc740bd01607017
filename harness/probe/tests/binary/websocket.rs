use strata_probe::{FailureKind, HttpVersion, RequestSpec, Spec, Stage, WebSocketSpec};

use crate::support::{Server, ask_one, nobody, probe};

#[test]
fn messages_come_back() {
    let server = Server::start(&["--http", "0"]);
    let spec = WebSocketSpec {
        messages: 5,
        bytes: 70_000,
        ..WebSocketSpec::new(RequestSpec::get(server.url("/chat")))
    };
    let reply = ask_one(&spec);
    assert_eq!(reply.error, None);
    assert_eq!((reply.status, reply.echoed), (Some(101), 5));
    assert_eq!(reply.pod(), Some("web-0"));
}

#[test]
fn whoever_does_not_open_one_is_told_by_status_or_kind() {
    let nobody = WebSocketSpec::new(RequestSpec::get(format!("http://{}/", nobody())));
    let failure = ask_one(&nobody).error.unwrap();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::Refused, Stage::Connect)
    );
    let server = Server::start(&["--http", "0"]);
    // Without the header it is a request as any other.
    let request = RequestSpec {
        method: "POST".into(),
        ..RequestSpec::get(server.url("/"))
    };
    assert_eq!(ask_one(&request).status, Some(200));
    let spec = WebSocketSpec::new(RequestSpec {
        http: HttpVersion::H2,
        ..RequestSpec::get(server.url("/"))
    });
    let output = probe().args(&spec.command()[1..]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn an_answer_that_is_held_comes_whole_when_its_beginning_is_passed_on() {
    let server = Server::start(&["--http", "0"]);
    let held = |release: Option<&str>| RequestSpec {
        timeout_ms: 2000,
        release: release.map(str::to_owned),
        ..RequestSpec::get(server.url("/?hold=once"))
    };
    let stuck = ask_one(&RequestSpec {
        timeout_ms: 100,
        ..held(None)
    });
    let failure = stuck.error.unwrap();
    assert_eq!(
        (failure.kind, failure.stage, stuck.status),
        (FailureKind::TimedOut, Stage::Body, Some(200))
    );
    let whole = ask_one(&held(Some("once")));
    assert_eq!(whole.error, None);
    assert_eq!(whole.body.unwrap().length, 2048);
}
