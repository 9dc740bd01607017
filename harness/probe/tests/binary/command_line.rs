use std::io::Write;
use std::process::Stdio;

use strata_probe::{Network, RequestSpec, Spec};

use crate::support::{Server, probe, read};

fn refused(arguments: &[&str]) -> String {
    let output = probe().args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
    assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    said
}

#[test]
fn what_makes_no_sense_is_refused_in_one_sentence() {
    for (arguments, word) in [
        (&[][..], "subcommand"),
        (&["frobnicate"], "frobnicate"),
        (&["request"], "URL"),
        (&["request", "ftp://web/"], "http://"),
        (&["request", "http://"], "http://"),
        (&["request", "http://user@web/"], "user"),
        (&["request", "http://web/", "--count", "0"], "count"),
        (
            &["request", "http://web/", "--concurrency", "0"],
            "concurrency",
        ),
        (&["request", "http://web/", "--rate", "0"], "rate"),
        (
            &["request", "http://web/", "--header", "nonsense"],
            "nonsense",
        ),
        (&["request", "http://web/", "--method", "G T"], "G T"),
        (&["request", "http://web/", "--source", "here"], "here"),
        (
            &["request", "https://web/", "--ca", "/nowhere.pem"],
            "/nowhere.pem",
        ),
        (&["request", "--spec", "{"], "request"),
        (
            &["request", "--spec", r#"{"url":"http://web/","retries":3}"#],
            "retries",
        ),
        (&["request", "--spec"], "--spec"),
        (&["request", "--spec", "{}", "--count", "1"], "--spec"),
        (&["routes", "--spec", "{}"], "routes"),
        (&["requests", "http://web/"], "--request"),
        (
            &[
                "requests",
                "--spec",
                r#"{"url":"http://web","requests":[]}"#,
            ],
            "requests",
        ),
        (
            &["requests", "http://web", "--request", "GET /"],
            "\"target\"",
        ),
        (&["dns", "web", "--type", "NONSENSE"], "NONSENSE"),
        (&["dns", "web..default"], "web..default"),
        (&["dns", "web", "--server", "dns"], "dns"),
        (&["tcp", "web"], "web"),
        (&["tcp", "web:http"], "web:http"),
        (&["udp", "web:53", "--bytes", "65528"], "65528"),
        (&["serve", "--http", "80a"], "80a"),
        (&["serve", "--tls-cert", "/nowhere.pem"], "--tls-key"),
        (
            &[
                "serve",
                "--tls",
                "0",
                "--tls-cert",
                "/nowhere.pem",
                "--tls-key",
                "/x",
            ],
            "/nowhere.pem",
        ),
    ] {
        let said = refused(arguments);
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_apart_from_a_wrong_command_line() {
    let taken = std::net::TcpListener::bind("[::]:0")
        .or_else(|_| std::net::TcpListener::bind("0.0.0.0:0"))
        .unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = probe().args(["serve", "--http", &port]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&port));
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["request", "--help"], &["--version"]] {
        let output = probe().args(arguments).output().unwrap();
        assert!(output.status.success());
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn a_specification_comes_as_json_from_standard_input_or_as_flags() {
    let server = Server::start(&["--http", "0"]);
    let url = server.url("/x?y=z");
    let spec = RequestSpec {
        method: "PUT".into(),
        count: 2,
        headers: vec!["x-one: 1".into()],
        body: Some("text".into()),
        ..RequestSpec::get(&url)
    };
    let json = serde_json::to_string(&spec).unwrap();
    let by_json = probe().args(&spec.command()[1..]).output().unwrap();
    let by_equals = probe()
        .args(["request", &format!("--spec={json}")])
        .output()
        .unwrap();
    let by_flags = probe()
        .args(["request", &url, "--method", "PUT", "--count", "2"])
        .args(["--header", "x-one: 1", "--body", "text"])
        .output()
        .unwrap();
    let mut child = probe()
        .args(["request", "--spec", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(json.as_bytes())
        .unwrap();
    let by_input = child.wait_with_output().unwrap();
    for output in [by_json, by_equals, by_flags, by_input] {
        let replies = read::<RequestSpec>(&output);
        assert_eq!(replies.len(), 2);
        for reply in replies {
            let answer = reply.answer.unwrap();
            assert_eq!((answer.method.as_str(), answer.body_length), ("PUT", 4));
            assert_eq!(answer.header("x-one"), Some("1"));
            assert_eq!((answer.path.as_str(), answer.query.as_str()), ("/x", "y=z"));
        }
    }
}

#[test]
fn routes_tells_loopback() {
    let output = probe().arg("routes").output().unwrap();
    assert!(output.status.success());
    let network: Network = serde_json::from_slice(&output.stdout).unwrap();
    let loopback = network
        .interfaces
        .iter()
        .find(|interface| interface.name == "lo")
        .unwrap();
    assert!(loopback.up);
    assert!(loopback.mtu.is_some());
    assert!(loopback.addresses.contains(&"127.0.0.1/8".to_owned()));
}
