//! The streaming subresources through the whole server, by their real clients' protocols.

mod exec;
mod forward;
mod proxy;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{SinkExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;

use super::fixture::configured;
use crate::channel::spdy::tests::Client;
use crate::kubelet::{
    AttachRequest, ContainerRef, ExecRequest, Kubelet, KubeletError, LogOptions, PodRef,
    ProcessStreams,
};
use crate::{ApiServer, User, serve};

/// A kubelet whose processes say back what they hear and end with code 7, and whose pods are this
/// process: they listen where it does. A process named `deaf` neither hears nor ends.
#[derive(Default)]
struct Echo {
    /// A deaf one was ended.
    ended: CancellationToken,
}

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
    async fn exec(
        &self,
        _: &ContainerRef,
        request: ExecRequest,
    ) -> Result<ProcessStreams, KubeletError> {
        if request.command == ["deaf"] {
            let (stdin, unheard) = tokio::io::duplex(1);
            let ended = self.ended.clone().drop_guard();
            return Ok(ProcessStreams {
                stdin: Some(Box::new(stdin)),
                exit: Box::pin(async move {
                    let _held = (unheard, ended);
                    std::future::pending().await
                }),
                ..echo()
            });
        }
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

async fn server() -> ApiServer {
    server_with(Echo::default()).await
}

/// A server with a pod `p`, whose address is this host's.
async fn server_with(kubelet: Echo) -> ApiServer {
    let server = configured(Arc::new(kubelet));
    let client = server.client("test");
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    let accounts = Api::<ServiceAccount>::default_namespaced(client.clone());
    accounts
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    let pods = Api::<Pod>::default_namespaced(client);
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i:1", "ports": []}]},
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let status = Patch::Merge(json!({"status": {"podIP": "127.0.0.1", "phase": "Running"}}));
    pods.patch_status("p", &PatchParams::default(), &status)
        .await
        .unwrap();
    server
}

/// A connection of a client that is authenticated.
fn connection(server: &ApiServer) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let user = Some(User::component("test"));
    tokio::spawn(serve::http(
        server.router.clone(),
        user,
        theirs,
        serve::Peer::default(),
    ));
    ours
}

/// Sends a request and reads the head of its answer, no octet more.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
    headers: &[&str],
) -> String {
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
    let mut headers = vec![
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        "Content-Length: 0",
    ];
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

async fn websocket(
    server: &ApiServer,
    path: &str,
    protocol: &str,
) -> WebSocketStream<DuplexStream> {
    let url = format!("ws://lab/api/v1/namespaces/default/pods/p/{path}");
    let mut request = url.into_client_request().unwrap();
    let protocol = protocol.parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let opened = tokio_tungstenite::client_async(request, connection(server)).await;
    opened.unwrap().0
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
    (
        code,
        if head.contains("location: ") {
            head
        } else {
            body
        },
    )
}
