//! Whether this machine reaches a cluster's nodes, so that it can be the vantage outside.
//!
//! Start from [`nodes`]. A connection alone proves little: a proxy between may take it, whatever the
//! address. So every node's kubelet is asked, in plain HTTP, and has to complain as a server of HTTPS
//! written in Go does; nothing is sent that it would act upon.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Nobody on the way to a node takes longer, or nobody will answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The kubelet's port where a node does not tell.
const KUBELET: u16 = 10250;
/// Go's `net/http`, asked in plain where it serves TLS.
const COMPLAINT: &str = "HTTP request to an HTTPS server";

/// Whether every node is reached; or which one is not, and why.
pub(super) async fn nodes(nodes: &[Node]) -> Result<(), String> {
    let asked = nodes.iter().map(|node| async move {
        let name = node.name_any();
        let Some(at) = kubelet(node) else {
            return Err(format!("node {name} tells no InternalIP"));
        };
        let answer = tokio::time::timeout(PATIENCE, ask(at)).await;
        let within = || format!("nobody answered within {} s", PATIENCE.as_secs());
        let because = match answer {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => within(),
        };
        Err(format!(
            "this machine does not reach the kubelet of {name} at {at}: {because}"
        ))
    });
    let answers = join_all(asked).await;
    if answers.is_empty() {
        return Err("there is no node".to_owned());
    }
    answers.into_iter().collect()
}

fn kubelet(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let mut addresses = status.addresses.iter().flatten();
    let internal = addresses.find(|address| address.type_ == "InternalIP")?;
    let ip: IpAddr = internal.address.parse().ok()?;
    let endpoints = status.daemon_endpoints.as_ref();
    let told = endpoints.and_then(|all| all.kubelet_endpoint.as_ref());
    let port = told.and_then(|endpoint| u16::try_from(endpoint.port).ok());
    Some(SocketAddr::new(
        ip,
        port.filter(|port| *port != 0).unwrap_or(KUBELET),
    ))
}

async fn ask(at: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(at).await.context("cannot connect")?;
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .context("cannot ask")?;
    let mut answer = Vec::new();
    let _ = stream.take(4096).read_to_end(&mut answer).await;
    if !String::from_utf8_lossy(&answer).contains(COMPLAINT) {
        bail!("whoever answered is no kubelet");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    /// Answers one connection, and tells its port.
    fn server(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        });
        port
    }

    fn node(port: u16) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "one"},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "one"},
                    {"type": "InternalIP", "address": "127.0.0.1"},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_kubelet_is_told_from_whoever_else_takes_the_connection() {
        let kubelet =
            "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(nodes(&[node(server(kubelet))]).await, Ok(()));
        let proxy = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let why = nodes(&[node(server(kubelet)), node(server(proxy))])
            .await
            .unwrap_err();
        assert!(why.ends_with("whoever answered is no kubelet"), "{why}");
        let nobody = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let why = nodes(&[node(nobody.port())]).await.unwrap_err();
        assert!(why.contains("does not reach the kubelet of one"), "{why}");
        assert_eq!(nodes(&[]).await, Err("there is no node".to_owned()));
    }
}
