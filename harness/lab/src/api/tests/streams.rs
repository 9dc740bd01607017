//! The streaming subresources through the whole server, by their real clients' protocols.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{SinkExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::basics::configured;
use crate::api::channel::spdy::tests::{Client, EXEC, octets};
use crate::api::kubelet::{
    AttachRequest, ContainerRef, ExecRequest, Kubelet, KubeletError, LogOptions, PodRef,
    ProcessStreams,
};
use crate::api::{ApiServer, User, serve};

/// A kubelet whose processes say back what they hear and end with code 7, and whose pods are this
/// process: they listen where it does.
struct Echo;

fn echo() -> ProcessStreams {
    let (stdin, mut heard) = tokio::io::duplex(1 << 10);
    let (mut says, stdout) = tokio::io::duplex(1 << 10);
    let (resize, mut sizes) = mpsc::channel(1);
    ProcessStreams {
        stdin: Some(Box::new(stdin)),
        stdout: Box::new(stdout),
        stderr: Some(Box::new(&b"oops"[..])),
        resize: Some(resize),
        exit: Box::pin(async move {
            let mut text = String::new();
            tokio::select! {
                read = heard.read_to_string(&mut text) => drop(read?),
                Some((columns, rows)) = sizes.recv() => text = format!("{columns}x{rows}"),
            }
            says.write_all(text.as_bytes()).await?;
            Ok(7)
        }),
    }
}

#[async_trait::async_trait]
impl Kubelet for Echo {
    async fn exec(&self, _: &ContainerRef, _: ExecRequest) -> Result<ProcessStreams, KubeletError> {
        Ok(echo())
    }

    async fn attach(
        &self,
        _: &ContainerRef,
        _: AttachRequest,
    ) -> Result<ProcessStreams, KubeletError> {
        Ok(echo())
    }

    async fn logs(
        &self,
        _: &ContainerRef,
        options: LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, KubeletError> {
        let said = format!("{}\n", options.since.is_some());
        let lines = futures::stream::once(async { Ok(Bytes::from(said)) });
        // A container that goes on.
        Ok(lines.chain(futures::stream::pending()).boxed())
    }

    async fn connect(&self, _: &PodRef, port: u16) -> Result<TcpStream, KubeletError> {
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        connected.map_err(|error| KubeletError::Internal(error.kind().to_string()))
    }
}

/// A server with a pod `p`, whose address is this host's.
async fn server() -> ApiServer {
    let server = configured(Arc::new(Echo));
    let client = server.client("test");
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    let accounts = Api::<ServiceAccount>::default_namespaced(client.clone());
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let pods = Api::<Pod>::default_namespaced(client);
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i:1", "ports": []}]},
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let status = Patch::Merge(json!({"status": {"podIP": "127.0.0.1", "phase": "Running"}}));
    pods.patch_status("p", &PatchParams::default(), &status).await.unwrap();
    server
}

/// A connection of a client that is authenticated.
fn connection(server: &ApiServer) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let user = Some(User::component("test"));
    tokio::spawn(serve::http(server.router.clone(), user, theirs));
    ours
}

/// Sends a request and reads the head of its answer, no octet more.
async fn ask(stream: &mut DuplexStream, request: &str, headers: &[&str]) -> String {
    let headers = headers.iter().map(|header| format!("{header}\r\n"));
    let headers: String = headers.collect();
    let request = format!("{request} HTTP/1.1\r\nHost: lab\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

type Spdy = Client<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// Changes to SPDY; says the version that was chosen.
async fn spdy(server: &ApiServer, path: &str, versions: &[&str]) -> (DuplexStream, String) {
    let mut stream = connection(server);
    let versions = versions.iter();
    let versions = versions.map(|version| format!("X-Stream-Protocol-Version: {version}"));
    let versions: Vec<String> = versions.collect();
    let mut headers = vec!["Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0"];
    headers.extend(versions.iter().map(String::as_str));
    let request = format!("POST /api/v1/namespaces/default/pods/p/{path}");
    let head = ask(&mut stream, &request, &headers).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("upgrade: spdy/3.1\r\n"), "{head}");
    let chosen = head.split("x-stream-protocol-version: ").nth(1).unwrap();
    let chosen = chosen.split('\r').next().unwrap().to_owned();
    (stream, chosen)
}

fn client(stream: DuplexStream) -> Spdy {
    let (from, to) = tokio::io::split(stream);
    Client::new(from, to)
}

const ALL: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
const ENDED: &str = "command terminated with non-zero exit code: exit status 7";

#[tokio::test]
async fn what_kubectl_1_20_sent_is_answered_to_the_end() {
    let server = server().await;
    let path = "exec?command=cat&container=c&stdin=true&stdout=true&stderr=true";
    let (mut stream, chosen) = spdy(&server, path, &ALL[1..]).await;
    assert_eq!(chosen, "v4.channel.k8s.io");
    // Without its farewell, which was the answer to another server's.
    stream.write_all(&octets(EXEC)[..164]).await.unwrap();
    let mut client = client(stream);
    let [error, stdout, stderr] = client.hear([1, 5, 7]).await;
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!((stdout.as_str(), stderr.as_str()), ("hello\n", "oops"));
    assert_eq!(error["details"]["causes"][0]["message"], "7");
    assert_eq!(error["message"], ENDED);
    client.ended().await;
}

#[tokio::test]
async fn every_version_of_a_client_is_spoken_to_in_its_own() {
    let server = server().await;
    for (versions, expected) in [(&ALL[..], 1), (&ALL[2..], 2), (&ALL[3..], 3), (&ALL[4..], 4)] {
        let path = "exec?command=cat&stdin=true&stdout=true&tty=true";
        let (stream, chosen) = spdy(&server, path, versions).await;
        assert_eq!(chosen, ALL[expected]);
        let mut client = client(stream);
        client.open(1, &[("streamtype", "error")]).await;
        client.open(3, &[("streamtype", "stdin")]).await;
        client.open(5, &[("streamtype", "stdout")]).await;
        // From the third version on, there are sizes.
        let sizes = expected <= 2;
        if sizes {
            client.open(7, &[("streamtype", "resize")]).await;
            client.say(7, "{\"Width\":80,\"Height\":24}\n").await;
        } else {
            client.say(3, "hello").await;
        }
        let [error, stdout] = client.hear([1, 5]).await;
        assert_eq!(stdout, if sizes { "80x24" } else { "hello" });
        if expected == 1 {
            assert!(error.starts_with('{') && error.contains(ENDED), "{error}");
        } else {
            assert_eq!(error, ENDED);
        }
    }
}

#[tokio::test]
async fn requests_that_ask_for_no_stream_are_refused_in_words() {
    let server = server().await;
    let exec = "GET /api/v1/namespaces/default/pods/p/exec?command=cat";
    let upgrade = ["Connection: Upgrade", "Upgrade: SPDY/3.1"];
    let unknown = [upgrade[0], upgrade[1], "X-Stream-Protocol-Version: v9.channel.k8s.io"];
    for (request, headers, code, expected) in [
        (format!("{exec}&stdout=true"), &[][..], 400, "Upgrade request required"),
        (exec.to_owned(), &upgrade[..], 400, "you must specify at least 1 of stdin, stdout, stderr"),
        (
            format!("{exec}&stdout=true"),
            &upgrade[..],
            400,
            "unable to upgrade: X-Stream-Protocol-Version is required",
        ),
        (
            format!("{exec}&stdout=true"),
            &unknown[..],
            403,
            "client supports [v9.channel.k8s.io], server accepts [v4.channel.k8s.io",
        ),
    ] {
        let mut stream = connection(&server);
        let mut headers = headers.to_vec();
        headers.push("Connection: close");
        let head = ask(&mut stream, &request, &headers).await;
        assert!(head.starts_with(&format!("http/1.1 {code}")), "{head}");
        let mut body = String::new();
        stream.read_to_string(&mut body).await.unwrap();
        assert!(body.contains(expected), "{body}");
    }
}

/// A port on which what comes is sent back.
async fn listener() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    port
}

/// A port on which nobody listens.
async fn silent() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Opens a pair of streams, the one for data second.
async fn pair<R, W>(client: &mut Client<R, W>, first: u32, port: u16, request: &str)
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let port = port.to_string();
    for (stream, kind) in [(first, "error"), (first + 2, "data")] {
        let mut labels = vec![("streamtype", kind), ("port", port.as_str())];
        if !request.is_empty() {
            labels.push(("requestid", request));
        }
        client.open(stream, &labels).await;
    }
}

#[tokio::test]
async fn ports_are_forwarded_side_by_side() {
    let server = server().await;
    let (stream, chosen) = spdy(&server, "portforward", &["portforward.k8s.io"]).await;
    assert_eq!(chosen, "portforward.k8s.io");
    let mut client = client(stream);
    let (port, silent) = (listener().await, silent().await);
    pair(&mut client, 1, port, "0").await;
    pair(&mut client, 5, port, "1").await;
    // Of a client that does not say which belong together.
    pair(&mut client, 9, port, "").await;
    client.say(11, "third").await;
    client.say(7, "second").await;
    client.say(3, "first").await;
    let said = client.hear([1, 3, 5, 7, 9, 11]).await;
    assert_eq!(said, ["", "first", "", "second", "", "third"]);

    pair(&mut client, 13, silent, "3").await;
    let [error, data] = client.hear([13, 15]).await;
    let expected = format!("error forwarding port {silent} to pod ");
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.ends_with("uid : connection refused"), "{error}");
    assert_eq!(data, "");

    // One that is taken back has an end, though its server has more to hear.
    pair(&mut client, 17, port, "4").await;
    client.reset(19).await;
    assert_eq!(client.hear([17, 19]).await, ["", ""]);
}

async fn websocket(
    server: &ApiServer,
    path: &str,
    protocol: &str,
) -> WebSocketStream<DuplexStream> {
    let url = format!("ws://lab/api/v1/namespaces/default/pods/p/{path}");
    let mut request = url.into_client_request().unwrap();
    let protocol = protocol.parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let opened = tokio_tungstenite::client_async(request, connection(server)).await;
    opened.unwrap().0
}

#[tokio::test]
async fn ports_are_forwarded_by_spdy_inside_a_websocket() {
    let server = server().await;
    let socket = websocket(&server, "portforward", "SPDY/3.1+portforward.k8s.io").await;
    let (mut sink, mut source) = socket.split();
    let (ours, inner) = tokio::io::duplex(64 << 10);
    let (mut from, mut to) = tokio::io::split(inner);
    tokio::spawn(async move {
        while let Some(Ok(Message::Binary(data))) = source.next().await {
            to.write_all(&data).await.unwrap();
        }
    });
    tokio::spawn(async move {
        let mut piece = [0; 100];
        while let Ok(read @ 1..) = from.read(&mut piece).await {
            let message = Message::Binary(Bytes::copy_from_slice(&piece[..read]));
            sink.send(message).await.unwrap();
        }
    });
    let mut client = client(ours);
    pair(&mut client, 1, listener().await, "0").await;
    client.say(3, &"x".repeat(100_000)).await;
    let [error, data] = client.hear([1, 3]).await;
    assert_eq!((error.as_str(), data.len()), ("", 100_000));
}

#[tokio::test]
async fn ports_of_the_request_are_forwarded_by_number() {
    let server = server().await;
    let (port, silent) = (listener().await, silent().await);
    let path = format!("portforward?ports={port},{silent}");
    let mut socket = websocket(&server, &path, "v4.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\0hello"))).await.unwrap();
    let mut said = [const { Vec::new() }; 4];
    while said[0].len() < 7 || said[3].len() < 20 {
        let Message::Binary(data) = socket.next().await.unwrap().unwrap() else {
            panic!("no data")
        };
        said[usize::from(data[0])].extend_from_slice(&data[1..]);
    }
    let prefix = |port: u16| port.to_le_bytes().to_vec();
    assert_eq!(said[0], [prefix(port), b"hello".to_vec()].concat());
    assert_eq!(said[1], prefix(port));
    assert_eq!(said[2], prefix(silent));
    let error = String::from_utf8_lossy(&said[3][2..]).into_owned();
    assert!(error.ends_with("connection refused"), "{error}");
}

#[tokio::test]
async fn attach_over_a_websocket_is_the_same_session() {
    let server = server().await;
    let size = STANDARD.encode("{\"Width\":80,\"Height\":24}");
    let binary = |message: &'static [u8]| Message::Binary(Bytes::from_static(message));
    for (protocol, query, messages, expected) in [
        (
            "v5.channel.k8s.io",
            "",
            vec![binary(b"\0hello"), binary(&[255, 0])],
            "hello",
        ),
        (
            "v4.base64.channel.k8s.io",
            "&tty=true",
            vec![Message::Text(format!("4{size}").into())],
            "80x24",
        ),
    ] {
        let path = format!("attach?stdin=true&stdout=true{query}");
        let mut socket = websocket(&server, &path, protocol).await;
        for message in messages {
            socket.send(message).await.unwrap();
        }
        let (mut said, mut code) = ([const { Vec::new() }; 5], None);
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(data) => said[usize::from(data[0])].extend_from_slice(&data[1..]),
                Message::Text(text) => {
                    let (number, data) = text.split_at(1);
                    let data = STANDARD.decode(data).unwrap();
                    said[number.parse::<usize>().unwrap()].extend(data);
                }
                Message::Close(frame) => code = frame.map(|frame| u16::from(frame.code)),
                _ => {}
            }
        }
        assert_eq!(String::from_utf8_lossy(&said[1]), expected);
        assert!(String::from_utf8_lossy(&said[3]).contains(ENDED));
        assert_eq!(code, Some(1000));
    }
}

/// The body of an answer, and its code.
async fn fetch(server: &ApiServer, method: &str, path: &str) -> (u16, String) {
    let mut stream = connection(server);
    let headers = ["Connection: close", "Authorization: Bearer secret"];
    let head = ask(&mut stream, &format!("{method} {path}"), &headers).await;
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = String::new();
    let reading = stream.read_to_string(&mut body);
    reading.await.unwrap();
    (code, if head.contains("location: ") { head } else { body })
}

#[tokio::test]
async fn logs_end_at_the_limit_though_the_container_goes_on() {
    let server = server().await;
    let log = "/api/v1/namespaces/default/pods/p/log?follow=true&limitBytes";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
    assert_eq!(fetch(&server, "GET", &format!("{log}=3")).await, (200, chunk("fal")));
    let since = format!("{log}=5&sinceSeconds=5");
    assert_eq!(fetch(&server, "GET", &since).await, (200, chunk("true\n")));
    for (query, code) in [
        ("sinceSeconds=0", 422),
        ("sinceTime=yesterday", 400),
        ("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z", 422),
    ] {
        let (found, said) = fetch(&server, "GET", &format!("{log}=5&{query}")).await;
        assert_eq!(found, code, "{said}");
    }
}

#[tokio::test]
async fn requests_are_proxied_to_a_pod() {
    let server = server().await;
    let router = axum::Router::new()
        .route("/moved", get(async || axum::response::Redirect::to("/here")))
        .fallback(async |request: axum::extract::Request| {
            let headers = request.headers();
            let forwarded = headers["x-forwarded-uri"].to_str().unwrap().to_owned();
            let secret = headers.contains_key("authorization");
            format!("{} {} {forwarded} {secret}", request.method(), request.uri())
        });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let pod = format!("/api/v1/namespaces/default/pods/p:{port}/proxy");
    let (code, body) = fetch(&server, "DELETE", &format!("{pod}/a%2Fb/?c=d")).await;
    assert_eq!(code, 200, "{body}");
    let expected = format!("DELETE /a%2Fb/?c=d {pod}/a%2Fb/ false");
    assert!(body.contains(&expected), "{body}");
    let (code, head) = fetch(&server, "GET", &format!("{pod}?c=d")).await;
    assert_eq!(code, 301, "{head}");
    assert!(head.contains(&format!("location: {pod}/?c=d")), "{head}");
    let (code, head) = fetch(&server, "GET", &format!("{pod}/moved")).await;
    assert_eq!(code, 303, "{head}");
    assert!(head.contains(&format!("location: {pod}/here")), "{head}");

    let silent = silent().await;
    let path = format!("/api/v1/namespaces/default/pods/p:{silent}/proxy/");
    let (code, body) = fetch(&server, "GET", &path).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, silent));
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &status["reason"]), (503, &json!("ServiceUnavailable")));
    let expected = format!("error trying to reach service: dial tcp {address}: connect: connection refused");
    assert_eq!(status["message"], expected);
    let (code, _) = fetch(&server, "GET", "/api/v1/namespaces/default/configmaps/p/proxy/").await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn websockets_are_proxied_too() {
    use axum::extract::ws::WebSocketUpgrade;
    let server = server().await;
    let router = axum::Router::new().route(
        "/echo",
        get(async |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async |mut socket| {
                while let Some(Ok(message)) = socket.next().await {
                    let _ = socket.send(message).await;
                }
            })
        }),
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let url = format!("ws://lab/api/v1/namespaces/default/pods/p:{port}/proxy/echo");
    let request = url.into_client_request().unwrap();
    let opened = tokio_tungstenite::client_async(request, connection(&server)).await;
    let mut socket = opened.unwrap().0;
    socket.send(Message::Text("hello".into())).await.unwrap();
    let said = socket.next().await.unwrap().unwrap();
    assert_eq!(said, Message::Text("hello".into()));
}
