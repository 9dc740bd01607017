//! Probes: asking a container whether it has started, lives, and is ready.
//!
//! Start from [`run`]. HTTP, TCP and gRPC are asked from the node's network namespace, as a kubelet asks.
//! A probe that has not yet succeeded is also tried between its periods, so that a pod is ready as
//! soon as it can be; only tries at the period's beat count as failures. What follows from a result
//! is the container's affair.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::time::{Instant, sleep_until, timeout};

use super::health;
use crate::node::process::Process;
use crate::os::dial;
use crate::os::netns::NetNs;

/// Between tries of what has not succeeded yet, at first and at most.
const EAGER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// Whom a probe asks.
#[derive(Clone)]
pub(super) struct Target {
    /// Where requests come from.
    pub(super) node: NetNs,
    /// The pod's address.
    pub(super) address: IpAddr,
    /// The container, for its ports' names.
    pub(super) container: Container,
    /// Where commands run; a task of the lab has none.
    pub(super) process: Option<Arc<Process>>,
}

/// Whether a first success is waited for eagerly: not where the initial state is success.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Eager {
    Yes,
    No,
}

/// What a probe reports.
pub(super) enum Report<'a> {
    /// A try failed.
    Failed(&'a str),
    /// The result is now this one.
    Is(bool),
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let given = value.and_then(|value| u64::try_from(value).ok());
    Duration::from_secs(given.unwrap_or(default))
}

fn count(value: Option<i32>, default: u32) -> u32 {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|&value| value > 0)
        .unwrap_or(default)
}

/// Probes until dropped.
pub(super) async fn run(
    probe: &Probe,
    eager: Eager,
    target: &Target,
    mut report: impl FnMut(Report<'_>),
) {
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let (needed, allowed) = (
        count(probe.success_threshold, 1),
        count(probe.failure_threshold, 3),
    );
    let mut beat = Instant::now() + seconds(probe.initial_delay_seconds, 0);
    let mut step = EAGER.0;
    let mut next = beat;
    let (mut successes, mut failures, mut result) = (0, 0, None);
    loop {
        sleep_until(next).await;
        let on_beat = next == beat;
        if on_beat {
            beat += period;
        }
        let outcome = match timeout(limit, ask(probe, target)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!(
                "context deadline exceeded: no answer within {limit:?}"
            )),
        };
        match outcome {
            Ok(()) => {
                (successes, failures) = (successes + 1, 0);
                if successes >= needed && result != Some(true) {
                    result = Some(true);
                    report(Report::Is(true));
                }
            }
            Err(_) if !on_beat => {}
            Err(reason) => {
                (successes, failures) = (0, failures + 1);
                report(Report::Failed(&reason));
                if failures >= allowed && result != Some(false) {
                    result = Some(false);
                    report(Report::Is(false));
                }
            }
        }
        let hopeful = eager == Eager::Yes && result != Some(true) && needed == 1;
        next = if hopeful {
            beat.min(Instant::now() + step)
        } else {
            beat
        };
        step = (step * 3 / 2).min(EAGER.1);
    }
}

/// One try.
async fn ask(probe: &Probe, target: &Target) -> Result<(), String> {
    if let Some(get) = &probe.http_get {
        return http_get(get, target).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let address = address(tcp.host.as_deref(), &tcp.port, target)?;
        return dial::tcp(&target.node, address).await.map(drop);
    }
    if let Some(exec) = &probe.exec {
        return command(&exec.command.clone().unwrap_or_default(), target).await;
    }
    if let Some(grpc) = &probe.grpc {
        let address = address(None, &IntOrString::Int(grpc.port), target)?;
        let stream = dial::tcp(&target.node, address).await?;
        let service = grpc.service.as_deref().unwrap_or_default();
        return health::check(stream, address, service).await;
    }
    Err("a probe that asks nothing".to_owned())
}

/// Runs a command in the container; its output is the reason for failing.
pub(super) async fn command(command: &[String], target: &Target) -> Result<(), String> {
    let Some(process) = &target.process else {
        return Err("the container is a task of the lab and runs no commands".to_owned());
    };
    let exec = process
        .exec(command, false, false)
        .await
        .map_err(|error| error.to_string())?;
    let mut child = exec.child;
    child.stdout = exec.streams.stdout;
    child.stderr = exec.streams.stderr;
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&said).trim().to_owned())
}

fn address(host: Option<&str>, port: &IntOrString, target: &Target) -> Result<SocketAddr, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = target.container.ports.iter().flatten();
            let mut named = ports.filter(|port| port.name.as_deref() == Some(name));
            match named.next() {
                Some(port) => port.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("couldn't find port: {name:?}"))?,
            }
        }
    };
    let port = u16::try_from(number).map_err(|_| format!("invalid port number: {number}"))?;
    let ip = match host.filter(|host| !host.is_empty()) {
        Some("localhost") => IpAddr::from([127, 0, 0, 1]),
        Some(host) => host
            .parse()
            .map_err(|_| format!("host {host:?} is not an IP address"))?,
        None => target.address,
    };
    Ok(SocketAddr::new(ip, port))
}

/// A GET that succeeds with a status from 200 to 399.
pub(super) async fn http_get(get: &HTTPGetAction, target: &Target) -> Result<(), String> {
    let address = address(get.host.as_deref(), &get.port, target)?;
    let secure = get.scheme.as_deref() == Some("HTTPS");
    let path = get
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let scheme = if secure { "https" } else { "http" };
    let failed = |reason: String| format!("Get \"{scheme}://{address}{path}\": {reason}");

    let stream = dial::tcp(&target.node, address).await.map_err(failed)?;
    let stream: Box<dyn dial::Stream> = if secure {
        let stream = dial::unverified_tls(stream, address.ip()).await;
        Box::new(stream.map_err(|error| failed(error.to_string()))?)
    } else {
        Box::new(stream)
    };
    let mut headers = BTreeMap::from([
        ("host".to_owned(), address.to_string()),
        ("user-agent".to_owned(), "kube-probe/1.34".to_owned()),
        ("accept".to_owned(), "*/*".to_owned()),
        ("connection".to_owned(), "close".to_owned()),
    ]);
    for header in get.http_headers.iter().flatten() {
        headers.insert(header.name.to_lowercase(), header.value.clone());
    }
    let mut request = Request::get(&path);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // The connection may end in the same moment in which the answer is there.
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    let answer = answer.map_err(|error| {
        if error.is_canceled() {
            "EOF".to_owned()
        } else {
            error.to_string()
        }
    });
    let status = answer.map_err(failed)?.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(format!(
        "HTTP probe failed with statuscode: {}",
        status.as_u16()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object_of_yaml;

    fn target(address: IpAddr) -> Target {
        let ports = "{name: a, ports: [{name: http, containerPort: 8080}]}";
        Target {
            node: NetNs::current().unwrap(),
            address,
            container: object_of_yaml(ports),
            process: None,
        }
    }

    #[test]
    fn ports_by_number_and_name() {
        let target = target([10, 0, 0, 1].into());
        let name = |name: &str| IntOrString::String(name.to_owned());
        let ask = |host, port: &IntOrString| address(host, port, &target).map(|a| a.to_string());
        assert_eq!(ask(None, &IntOrString::Int(80)).unwrap(), "10.0.0.1:80");
        assert_eq!(
            ask(Some("127.0.0.1"), &name("http")).unwrap(),
            "127.0.0.1:8080"
        );
        assert_eq!(
            ask(None, &name("nope")).unwrap_err(),
            "couldn't find port: \"nope\""
        );
    }

    #[tokio::test]
    async fn statuses_from_200_to_399_are_success() {
        use axum::http::StatusCode;
        use axum::routing::get;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let port = i32::from(listener.local_addr().unwrap().port());
        let router = axum::Router::new()
            .route("/ok", get(async || "ok"))
            .route(
                "/moved",
                get(async || (StatusCode::FOUND, [("location", "/ok")])),
            )
            .route("/bad", get(async || StatusCode::SERVICE_UNAVAILABLE));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let target = target([127, 0, 0, 1].into());
        for (path, expected) in [
            ("/ok", Ok(())),
            ("moved", Ok(())),
            (
                "/bad",
                Err("HTTP probe failed with statuscode: 503".to_owned()),
            ),
        ] {
            let get = HTTPGetAction {
                path: Some(path.to_owned()),
                port: IntOrString::Int(port),
                ..HTTPGetAction::default()
            };
            assert_eq!(http_get(&get, &target).await, expected, "{path}");
        }
        server.abort();
        let _ = server.await;
        let get = HTTPGetAction {
            port: IntOrString::Int(port),
            ..HTTPGetAction::default()
        };
        let refused = http_get(&get, &target).await.unwrap_err();
        assert!(
            refused.ends_with("connect: connection refused"),
            "{refused}"
        );
    }
}
