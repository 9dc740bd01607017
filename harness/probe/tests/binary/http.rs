use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket,
};
use strata_probe::{
    ApiSpec, Connections, FailureKind, HttpVersion, Protocol, Reply, RequestSpec, Stage,
};

use crate::support::{Rude, Server, ask, ask_one, ask_with, nobody, probe, reset};

fn failure(spec: &RequestSpec) -> (FailureKind, Stage) {
    let failure = ask_one(spec).error.unwrap();
    (failure.kind, failure.stage)
}

fn impatient(url: impl Into<String>) -> RequestSpec {
    RequestSpec {
        timeout_ms: 150,
        ..RequestSpec::get(url)
    }
}

fn h2(url: impl Into<String>) -> RequestSpec {
    RequestSpec {
        http: HttpVersion::H2,
        ..RequestSpec::get(url)
    }
}

#[test]
fn an_answer_tells_who_and_what() {
    let server = Server::start(&["--http", "0"]);
    let spec = RequestSpec {
        host: Some("web.example".into()),
        headers: vec!["X-Two: a".into(), "x-two: b".into()],
        body_bytes: 1000,
        method: "POST".into(),
        ..RequestSpec::get(server.url("/a%20b?c=d"))
    };
    let reply = ask_one(&spec);
    assert_eq!(reply.error, None);
    assert_eq!(
        (reply.status, reply.protocol),
        (Some(200), Some(Protocol::H1))
    );
    assert_eq!(reply.pod(), Some("web-0"));
    assert_eq!(reply.header("x-strata-namespace"), Some("default"));
    assert_eq!(reply.header("x-strata-node"), Some("worker"));
    let answer = reply.answer.unwrap();
    assert_eq!(answer.pod_ip, Some(Ipv4Addr::new(10, 244, 1, 5).into()));
    assert_eq!(answer.host, "web.example");
    assert_eq!(
        (answer.path.as_str(), answer.query.as_str()),
        ("/a%20b", "c=d")
    );
    assert_eq!(answer.headers["x-two"], ["a", "b"]);
    assert_eq!(answer.body_length, 1000);
    assert_eq!(answer.pid, server.pid());
    assert_eq!(
        (Some(answer.client), Some(answer.local)),
        (reply.local, reply.remote)
    );
    let body = reply.body.unwrap();
    assert_eq!(body.snippet, "");
}

#[test]
fn h2_by_prior_knowledge_is_told_apart() {
    let server = Server::start(&["--http", "0"]);
    let spec = RequestSpec {
        host: Some("web.example".into()),
        body: Some("x".into()),
        ..h2(server.url("/"))
    };
    let reply = ask_one(&spec);
    assert_eq!(reply.protocol, Some(Protocol::H2));
    let answer = reply.answer.unwrap();
    assert_eq!(answer.protocol, Protocol::H2);
    assert_eq!(answer.host, "web.example");
    assert_eq!(answer.body_length, 1);
}

#[test]
fn tls_takes_the_name_and_the_certificate_seriously() {
    let server = Server::start(&["--tls", "0", "--tls-name", "web.example"]);
    let localhost = format!("localhost:{}", server.at.tls[0].port());
    let spec = |ca: Option<String>, version| RequestSpec {
        connect_to: Some(localhost.clone()),
        ca,
        http: version,
        ..RequestSpec::get("https://web.example/")
    };
    let tls = (FailureKind::Tls, Stage::Handshake);
    assert_eq!(failure(&spec(None, HttpVersion::H1)), tls);
    let insecure = RequestSpec {
        insecure: true,
        ..spec(None, HttpVersion::H1)
    };
    let certificate = ask_one(&insecure).tls.unwrap().certificate.unwrap();
    for (version, alpn) in [(HttpVersion::H1, "http/1.1"), (HttpVersion::H2, "h2")] {
        let reply = ask_one(&spec(Some(certificate.clone()), version));
        assert_eq!(reply.error, None);
        let (session, seen) = (reply.tls.unwrap(), reply.answer.unwrap().tls.unwrap());
        assert_eq!(session.version, "TLSv1.3");
        assert_eq!(session.alpn.as_deref(), Some(alpn));
        assert_eq!(seen.sni.as_deref(), Some("web.example"));
        assert_eq!((seen.version, seen.alpn), (session.version, session.alpn));
    }
    let other = RequestSpec {
        server_name: Some("other.example".into()),
        ..spec(Some(certificate), HttpVersion::H1)
    };
    assert_eq!(failure(&other), tls);
}

#[test]
fn tls_where_there_is_none_is_a_failure_of_tls() {
    let server = Server::start(&["--http", "0"]);
    let url = server.url("/").replace("http:", "https:");
    assert_eq!(
        failure(&RequestSpec::get(url)),
        (FailureKind::Tls, Stage::Handshake)
    );
}

#[test]
fn refused() {
    let url = format!("http://{}/", nobody());
    assert_eq!(
        failure(&RequestSpec::get(url)),
        (FailureKind::Refused, Stage::Connect)
    );
}

#[test]
fn timed_out_connecting() {
    let flags = SockFlag::SOCK_CLOEXEC;
    let full = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(full.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&full, Backlog::new(0).unwrap()).unwrap();
    let full = TcpListener::from(full);
    let at = full.local_addr().unwrap();
    // Nobody accepts: once the queue is full, the kernel drops what comes.
    let wait = Duration::from_millis(100);
    let waiting: Vec<TcpStream> = std::iter::repeat_with(|| TcpStream::connect_timeout(&at, wait))
        .map_while(Result::ok)
        .collect();
    assert!(!waiting.is_empty());
    let failed = failure(&impatient(format!("http://{at}/")));
    assert_eq!(failed, (FailureKind::TimedOut, Stage::Connect));
}

#[test]
fn timed_out_waiting() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    for (url, stage) in [("http", Stage::Exchange), ("https", Stage::Handshake)] {
        let failed = failure(&impatient(format!("{url}://{at}/")));
        assert_eq!(failed, (FailureKind::TimedOut, stage));
    }
    let server = Server::start(&["--http", "0"]);
    let late = failure(&impatient(server.url("/?delay_ms=60000")));
    assert_eq!(late, (FailureKind::TimedOut, Stage::Exchange));
}

#[test]
fn reset_before_and_within_the_answer() {
    for spec in [RequestSpec::get, h2] {
        let rude = Rude::resets(b"");
        let failed = failure(&spec(format!("http://{}/", rude.at)));
        assert_eq!(failed, (FailureKind::Reset, Stage::Exchange));
    }
    let rude = Rude::to_one(|mut stream| {
        use std::io::{Read, Write};
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .unwrap();
        // An RST throws away what was not read yet: wait until the client has the head.
        drained(&stream);
        reset(stream);
    });
    let reply = ask_one(&RequestSpec::get(format!("http://{}/", rude.at)));
    assert_eq!(reply.status, Some(200));
    assert_eq!(reply.error.unwrap().kind, FailureKind::Reset);
}

/// Until the other end's kernel has acknowledged all that was sent.
fn drained(stream: &TcpStream) {
    let mut left = 1;
    while left > 0 {
        // SAFETY: SIOCOUTQ writes one int (tcp(7)).
        let done = unsafe { nix::libc::ioctl(stream.as_raw_fd(), nix::libc::TIOCOUTQ, &mut left) };
        assert_eq!(done, 0);
        std::thread::yield_now();
    }
}

#[test]
fn closed_before_and_within_the_answer() {
    for (said, stage) in [
        (&b""[..], Stage::Exchange),
        (b"HTTP/1.1 200", Stage::Exchange),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            Stage::Body,
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            Stage::Body,
        ),
    ] {
        let rude = Rude::says(said);
        let failed = failure(&RequestSpec::get(format!("http://{}/", rude.at)));
        assert_eq!(failed, (FailureKind::Closed, stage), "{said:?}");
    }
    let rude = Rude::says(b"");
    let failed = failure(&h2(format!("http://{}/", rude.at)));
    assert_eq!(failed, (FailureKind::Closed, Stage::Exchange));
}

#[test]
fn what_is_not_http_is_not_the_protocol() {
    for spec in [RequestSpec::get, h2] {
        let rude = Rude::says(b"SSH-2.0-nobody and so on and so forth\r\n");
        let failed = failure(&spec(format!("http://{}/", rude.at)));
        assert_eq!(failed, (FailureKind::Protocol, Stage::Exchange));
    }
}

#[test]
fn a_stranger_is_told_by_the_beginning_of_what_it_says() {
    let rude = Rude::says(b"HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\nno such");
    let reply = ask_one(&RequestSpec::get(format!("http://{}/", rude.at)));
    assert_eq!((reply.error.as_ref(), reply.status), (None, Some(404)));
    assert_eq!(
        (reply.pod(), reply.body.as_ref().unwrap().snippet.as_str()),
        (None, "no such")
    );
}

#[test]
fn controls_shape_the_answer() {
    let server = Server::start(&["--http", "0"]);
    for spec in [RequestSpec::get, h2] {
        let get = |path: &str| ask_one(&spec(server.url(path)));
        assert_eq!(get("/status/503").status, Some(503));
        assert_eq!(get("/?status=418").answer.unwrap().query, "status=418");
        assert_eq!(get("/?status=5").status, Some(400));
        assert_eq!(get("/?header=x-a:b").header("x-a"), Some("b"));
        assert_eq!(get("/?delay_ms=1").status, Some(200));
        let large = get("/?size=1048577");
        assert_eq!(large.body.unwrap().length, 1_048_577);
        assert_eq!(large.answer, None);
        let none = get("/status/204");
        assert_eq!((none.status, none.body.unwrap().length), (Some(204), 0));
        let head = RequestSpec {
            method: "HEAD".into(),
            ..spec(server.url("/?size=77"))
        };
        let head = ask_one(&head);
        assert_eq!(
            (head.error.as_ref(), head.header("content-length")),
            (None, Some("77"))
        );
    }
}

#[test]
fn readiness_is_turned_by_a_post() {
    let server = Server::start(&["--http", "0", "--not-ready"]);
    let status = |path: &str, method: &str| {
        let spec = RequestSpec {
            method: method.into(),
            ..RequestSpec::get(server.url(path))
        };
        ask_one(&spec).status.unwrap()
    };
    assert_eq!(status("/healthz", "GET"), 503);
    assert_eq!(status("/livez", "GET"), 200);
    assert_eq!(status("/ready/true", "POST"), 200);
    assert_eq!(status("/healthz", "GET"), 200);
    assert_eq!(status("/ready/false", "POST"), 200);
    assert_eq!(status("/healthz", "GET"), 503);
}

#[test]
fn a_burst_is_numbered_and_counted() {
    let server = Server::start(&["--http", "0"]);
    for (connections, version) in [
        (Connections::New, HttpVersion::H1),
        (Connections::Reuse, HttpVersion::H1),
        (Connections::Reuse, HttpVersion::H2),
    ] {
        let replies = ask(&RequestSpec {
            count: 50,
            concurrency: 5,
            connections,
            http: version,
            ..RequestSpec::get(server.url("/"))
        });
        let mut sequence: Vec<u64> = replies.iter().map(|reply| reply.sequence).collect();
        sequence.sort_unstable();
        assert_eq!(sequence, (0..50).collect::<Vec<_>>());
        assert!(replies.iter().all(|reply| reply.status == Some(200)));
        let mut ports: BTreeMap<u16, Vec<&Reply>> = BTreeMap::new();
        for reply in &replies {
            let port = reply.local.unwrap().port();
            ports.entry(port).or_default().push(reply);
        }
        let fresh = replies.iter().filter(|reply| !reply.reused).count();
        assert_eq!(fresh, ports.len());
        assert_eq!(
            fresh,
            if connections == Connections::New {
                50
            } else {
                5
            }
        );
    }
}

#[test]
fn replies_are_written_as_they_come() {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let accept = || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream
        };
        let (mut first, mut second) = (accept(), accept());
        second
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        wait.recv().unwrap();
        first
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    });
    let mut child = probe()
        .args(["request", &url, "--count", "2", "--concurrency", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut status = || {
        let reply: Reply = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        reply.status
    };
    assert_eq!(status(), Some(200));
    go_on.send(()).unwrap();
    assert_eq!(status(), Some(404));
    server.join().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_kept_connection_that_the_server_ends_is_opened_anew() {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .unwrap();
        }
    });
    let replies = ask(&RequestSpec {
        count: 3,
        connections: Connections::Reuse,
        ..RequestSpec::get(url)
    });
    server.join().unwrap();
    assert!(
        replies
            .iter()
            .all(|reply| reply.status == Some(200) && !reply.reused)
    );
}

#[test]
fn the_source_is_chosen() {
    let server = Server::start(&["--http", "0"]);
    let spec = |source: &str| RequestSpec {
        source: Some(source.parse().unwrap()),
        ..RequestSpec::get(server.url("/"))
    };
    let reply = ask_one(&spec("127.0.0.9"));
    assert_eq!(
        reply.answer.unwrap().client.ip(),
        Ipv4Addr::new(127, 0, 0, 9)
    );
    assert_eq!(
        failure(&spec("192.0.2.1")),
        (FailureKind::Other, Stage::Local)
    );
}

#[test]
fn the_api_is_asked_with_the_pods_token() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let made = rcgen::generate_simple_self_signed(vec!["kubernetes.default".into()]).unwrap();
    let certificate = file("ca.crt", &made.cert.pem());
    let key = file("key", &made.signing_key.serialize_pem());
    let server = Server::start(&["--tls", "0", "--tls-cert", &certificate, "--tls-key", &key]);
    let spec = ApiSpec {
        port: server.at.tls[0].port(),
        ..ApiSpec::default()
    };
    let hosts = file("hosts", "127.0.0.1 kubernetes.default\n");
    let ask = || {
        let directory = directory.path();
        ask_with(
            &spec,
            &[
                ("PROBE_SERVICE_ACCOUNT", &directory),
                ("PROBE_HOSTS", &hosts),
            ],
        )
        .remove(0)
    };
    let without = ask().reply.error.unwrap();
    assert_eq!(
        (without.kind, without.stage),
        (FailureKind::Other, Stage::Local)
    );
    file("token", "secret\n");
    let reply = ask().reply;
    assert_eq!(reply.error, None);
    let answer = reply.answer.unwrap();
    assert_eq!(answer.path, "/version");
    assert_eq!(answer.header("authorization"), Some("Bearer secret"));
}
