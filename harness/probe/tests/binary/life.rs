use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strata_probe::RequestSpec;

use crate::support::{Server, ask_one, until};

fn status(server: &Server, path: &str) -> Option<u16> {
    ask_one(&RequestSpec::get(server.url(path))).status
}

#[test]
fn what_is_in_flight_is_finished_and_nothing_new_begun() {
    let server = Server::start(&["--http", "0", "--tcp", "0"]);
    let at = ("127.0.0.1", server.at.http[0].port());
    let mut request = TcpStream::connect(at).unwrap();
    request
        .write_all(
            b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n",
        )
        .unwrap();
    // The server says so when the request is in its hands.
    let mut head = [0; 25];
    request.read_exact(&mut head).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 100 "));
    let mut echo = TcpStream::connect(server.tcp()).unwrap();
    echo.write_all(b"ping").unwrap();
    echo.read_exact(&mut [0; 4]).unwrap();

    server.signal(Signal::SIGTERM);
    until("nothing new is accepted", || {
        TcpStream::connect(at).is_err()
    });
    request.write_all(b"body").unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(r#""bodyLength":4"#));
    echo.shutdown(std::net::Shutdown::Write).unwrap();
    let mut line = String::new();
    echo.read_to_string(&mut line).unwrap();
    assert!(line.contains(r#""bodyLength":4"#));
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let server = Server::start(&["--http", "0"]);
    let at = ("127.0.0.1", server.at.http[0].port());
    let mut kept = TcpStream::connect(at).unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert!(kept.read(&mut [0; 8192]).unwrap() > 0);
    let mut silent = TcpStream::connect(at).unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    let _ = (kept.read(&mut [0; 1]), silent.read(&mut [0; 1]));
}

#[test]
fn while_draining_it_serves_but_is_not_ready() {
    let server = Server::start(&["--http", "0", "--drain-ms", "3600000"]);
    assert_eq!(status(&server, "/healthz"), Some(200));
    drains_until_it_is_asked_twice(server);
}

fn drains_until_it_is_asked_twice(server: Server) {
    server.signal(Signal::SIGTERM);
    until("it is not ready", || {
        status(&server, "/healthz") == Some(503)
    });
    assert_eq!(status(&server, "/"), Some(200));
    // Then it does not linger.
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn it_drains_no_longer_than_it_is_asked_and_health_is_nothing_asked() {
    let drain = ["--http", "0", "--drain-ms", "3600000", "--drain-idle-ms"];
    let server = Server::start(&[&drain[..], &["300"]].concat());
    server.signal(Signal::SIGTERM);
    // Asked for its health all the time, it ends all the same.
    until("it has ended", || status(&server, "/healthz").is_none());
    assert_eq!(server.wait(), Some(0));
    drains_until_it_is_asked_twice(Server::start(&[&drain[..], &["3600000"]].concat()));
}

#[test]
fn it_ends_by_itself_when_its_time_is_over() {
    let server = Server::start(&["--tcp", "0", "--for-ms", "10"]);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn pausing_ends_at_sigterm_and_reaps_orphans() {
    // The shell's child is ours once the shell has become the probe.
    let mut child = std::process::Command::new("/bin/sh")
        .args([
            "-c",
            r#"exec 3<&0; (read line <&3) & exec "$0" "$1" 3<&- </dev/null"#,
        ])
        .args([env!("CARGO_BIN_EXE_strata-probe"), "pause"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let program = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let binary = env!("CARGO_BIN_EXE_strata-probe").as_bytes();
    until("the shell has become the probe", || {
        program().starts_with(binary) && !children().trim().is_empty()
    });
    drop(child.stdin.take());
    // Only one that handles its signals reaps: SIGTERM comes to no bare process.
    until("the orphan is reaped", || children().trim().is_empty());
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
