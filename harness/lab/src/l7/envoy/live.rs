//! A real Envoy that serves a snapshot in a test, over Unix sockets: no port is taken.
//!
//! Start from [`Live::serve`]. Endpoints are servers of the test that answer with what they were
//! asked and who they are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::Snapshot;
use super::validate::{find_envoy, static_bootstrap};

/// Longer than Envoy takes to listen: a test must end even if it never does.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer, and what the backend that gave it was asked.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    /// The endpoint that answered: `address:port`.
    pub(crate) served_by: Option<String>,
    /// The request as the endpoint saw it: `method`, `path`, `headers`.
    pub(crate) seen: Value,
}

impl Reply {
    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The Envoy, until it is dropped.
pub(crate) struct Live {
    directory: tempfile::TempDir,
    _envoy: Child,
    _tasks: JoinSet<()>,
}

impl Live {
    /// Serves a snapshot; none where there is no Envoy.
    pub(crate) async fn serve(snapshot: &Snapshot) -> Option<Self> {
        let Some(envoy) = find_envoy() else {
            eprintln!("not run: no Envoy found (set STRATA_ENVOY, or run scripts/setup)");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let mut bootstrap = static_bootstrap(snapshot);
        bootstrap["admin"]["address"] = pipe(directory.path(), "admin");
        let resources = &mut bootstrap["static_resources"];
        for listener in resources["listeners"].as_array_mut().unwrap() {
            let name = listener["name"].as_str().unwrap().to_owned();
            listener["address"] = pipe(directory.path(), &name);
        }
        let mut backends = BTreeSet::new();
        for cluster in resources["clusters"].as_array_mut().unwrap() {
            let all = &mut cluster["load_assignment"]["endpoints"];
            for endpoint in all
                .as_array_mut()
                .into_iter()
                .flatten()
                .flat_map(|group| group["lb_endpoints"].as_array_mut().unwrap())
            {
                let address = &mut endpoint["endpoint"]["address"];
                let socket = &address["socket_address"];
                let name = format!(
                    "{}:{}",
                    socket["address"].as_str().unwrap(),
                    socket["port_value"]
                );
                *address = pipe(directory.path(), &name);
                backends.insert(name);
            }
        }
        for name in backends {
            let listener = UnixListener::bind(directory.path().join(&name)).unwrap();
            tasks.spawn(async move { axum::serve(listener, backend(&name)).await.unwrap() });
        }
        let file = directory.path().join("envoy.json");
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let child = start(envoy, &file, &mut tasks).await;
        Some(Self {
            directory,
            _envoy: child,
            _tasks: tasks,
        })
    }

    /// Sends a request to a listener.
    pub(crate) async fn ask(&self, listener: &str, request: http::Request<String>) -> Reply {
        send(self.connect(listener).await, request).await
    }

    /// The same through TLS, naming a server; the certificate must be of this authority.
    pub(crate) async fn ask_tls(
        &self,
        listener: &str,
        (server, root): (&str, &str),
        request: http::Request<String>,
    ) -> Reply {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = server.to_owned().try_into().unwrap();
        let stream = self.connect(listener).await;
        send(connector.connect(name, stream).await.unwrap(), request).await
    }

    /// Envoy has bound its sockets when it says that it starts, and listens on them a moment later.
    async fn connect(&self, listener: &str) -> UnixStream {
        let path = self.directory.path().join(listener);
        let listening = async {
            loop {
                match UnixStream::connect(&path).await {
                    Ok(stream) => return stream,
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                        tokio::task::yield_now().await;
                    }
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.unwrap()
    }
}

fn pipe(directory: &Path, name: &str) -> Value {
    json!({ "pipe": { "path": directory.join(name) } })
}

/// Starts Envoy and waits until it says that it serves.
async fn start(envoy: PathBuf, file: &Path, tasks: &mut JoinSet<()>) -> Child {
    let mut child = Command::new(envoy)
        .args(["--disable-hot-restart", "--concurrency", "1", "-l", "info"])
        .args(["-c".as_ref(), file.as_os_str()])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    loop {
        let Some(line) = lines.next_line().await.unwrap() else {
            panic!("Envoy did not start:\n{said}")
        };
        if line.contains("starting workers") {
            break;
        }
        said.push_str(&line);
        said.push('\n');
    }
    // Envoy must not find its pipe full.
    tasks.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

fn backend(name: &str) -> Router {
    let name = name.to_owned();
    Router::new().fallback(async move |request: Request| {
        let headers: Value = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let seen = json!({
            "method": request.method().as_str(), "path": request.uri().to_string(), "headers": headers,
        });
        ([("x-served-by", name), ("x-backend", "yes".to_owned())], seen.to_string()).into_response()
    })
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<String>,
) -> Reply {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let request = request.map(|body| Full::new(Bytes::from(body)));
    let (response, _) = tokio::join!(
        async {
            let response = sender.send_request(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            // The connection ends with its sender.
            drop(sender);
            (parts, body)
        },
        connection
    );
    let (parts, body) = response;
    let served_by = parts.headers.get("x-served-by");
    Reply {
        status: parts.status.as_u16(),
        served_by: served_by.map(|name| name.to_str().unwrap().to_owned()),
        seen: serde_json::from_slice(&body).unwrap_or_default(),
        headers: parts.headers,
    }
}
