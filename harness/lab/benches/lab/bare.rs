//! The least that things can take on this machine: an HTTPS server that only answers, and `nft` alone.
//!
//! Start from [`Server`], which runs [`serve`] in a process of its own, as the lab is one. It speaks
//! through the same crates as the lab's API server and answers what it is told to.

use std::io::{BufRead as _, Read as _, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Router, routing::any};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use kube::Config;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Child;
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

use crate::cluster::{nft, role};

/// The roles of this program here.
pub(crate) const SERVER: &str = "bare-server";
pub(crate) const RULES: &str = "bare-rules";
/// How many times `nft` is timed.
const ROUNDS: usize = 40;

/// What it answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// To a request for one object, and to every write.
    pub(crate) object: String,
    /// To a request for a list.
    pub(crate) list: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Where {
    port: u16,
    certificate: Vec<u8>,
}

/// The server's process, which ends when it is dropped.
pub(crate) struct Server {
    pub(crate) config: Config,
    _child: Child,
}

impl Server {
    pub(crate) async fn start(answers: &Answers) -> anyhow::Result<Self> {
        let mut command = role(SERVER)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let line = serde_json::to_string(answers)? + "\n";
        stdin.write_all(line.as_bytes()).await?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said).await?;
        let Where { port, certificate } = serde_json::from_str(&said).context("the bare server")?;
        let mut config = Config::new(format!("https://127.0.0.1:{port}").parse()?);
        config.root_cert = Some(vec![certificate]);
        // Its end is the end of its standard input.
        child.stdin = Some(stdin);
        Ok(Self {
            config,
            _child: child,
        })
    }
}

#[derive(Clone)]
struct Served {
    answers: Arc<Answers>,
    news: broadcast::Sender<Bytes>,
}

/// The server's role: reads the answers, says where it is, and serves until its standard input ends.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let answers = Arc::new(serde_json::from_str(&line)?);
    tokio::runtime::Runtime::new()?.block_on(async {
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let certificate = key.cert.der().clone();
        let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], private.into())?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let told = Where {
            port: listener.local_addr()?.port(),
            certificate: certificate.to_vec(),
        };
        println!("{}", serde_json::to_string(&told)?);
        let served = Served {
            answers,
            news: broadcast::Sender::new(1024),
        };
        let router = Router::new().fallback(any(answer)).with_state(served);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), router));
        let end = || std::io::stdin().lock().read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(end).await??;
        anyhow::Ok(())
    })?;
    // Not by returning, which would wait for every connection.
    std::process::exit(0)
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let router = TowerToHyperService::new(router);
            let server = auto::Builder::new(TokioExecutor::new());
            // A client that goes away is no trouble.
            let _ = server
                .serve_connection_with_upgrades(TokioIo::new(stream), router)
                .await;
        });
    }
}

async fn answer(State(served): State<Served>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    if query.contains("watch") {
        let news = served.news.subscribe();
        let lines = futures::stream::unfold(news, async |mut news| Some((news.recv().await, news)));
        return Response::new(Body::from_stream(lines.boxed()));
    }
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let answer = if parts.method == Method::GET && parts.uri.path().ends_with("s") {
        served.answers.list.clone()
    } else {
        served.answers.object.clone()
    };
    if parts.method == Method::PUT {
        let line = [b"{\"type\":\"MODIFIED\",\"object\":", &*body, b"}\n"].concat();
        // Without a watcher nobody minds.
        let _ = served.news.send(line.into());
    }
    ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
}

/// The role that times `nft` in the network that it is started in: two scripts, of which each undoes the
/// other. In milliseconds.
pub(crate) fn rules() -> anyhow::Result<()> {
    let scripts: [String; 2] = serde_json::from_reader(std::io::stdin().lock())?;
    let times = (0..ROUNDS).map(|round| apply(&scripts[round % 2]));
    let times = times.collect::<anyhow::Result<Vec<_>>>()?;
    println!("{}", serde_json::to_string(&times)?);
    Ok(())
}

fn apply(script: &str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut child = std::process::Command::new(nft())
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(script.as_bytes())?;
    drop(stdin);
    ensure!(
        child.wait()?.success(),
        "nft refuses what the lab had told it"
    );
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}
