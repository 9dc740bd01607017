//! A real Envoy: what is published is served, what is refused is got over, and a new control plane is found. It runs
//! where there is an Envoy (STRATA_ENVOY, PATH, or the workspace's `.tools`), over Unix sockets: no port is taken.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use strata_xds::{Parts, Shared, Xds};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Longer than anything here takes: a test must end even if Envoy does not do as it should.
const PATIENCE: Duration = Duration::from_secs(30);

fn find_envoy() -> Option<PathBuf> {
    let named = std::env::var_os("STRATA_ENVOY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("envoy"));
    let tools = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../.tools/envoy"
    ));
    let all = named.into_iter().chain(on_path).chain([tools]);
    all.into_iter().find(|candidate| candidate.is_file())
}

fn pipe(path: &Path) -> Value {
    json!({ "pipe": { "path": path } })
}

fn bootstrap(directory: &Path) -> Value {
    let source = json!({ "resource_api_version": "V3", "initial_fetch_timeout": "0s", "ads": {} });
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    let endpoint = json!({ "endpoint": { "address": pipe(&directory.join("xds")) } });
    json!({
        "node": { "id": "proxy", "cluster": "group" },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": {
                    "cluster_name": "xds",
                    "retry_policy": { "retry_back_off": { "base_interval": "0.01s", "max_interval": "0.1s" } },
                } }],
            },
            "lds_config": source,
            "cds_config": source,
        },
        "static_resources": { "clusters": [{
            "name": "xds",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 },
            "load_assignment": { "cluster_name": "xds", "endpoints": [{ "lb_endpoints": [endpoint] }] },
        }] },
    })
}

/// A listener whose one route answers with a text. Envoy refuses a listener without an address.
fn answering(text: &str, address: Option<Value>) -> Parts {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "rds": { "route_config_name": "routes", "config_source": { "resource_api_version": "V3", "ads": {} } },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    let filter =
        json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    let mut listener = json!({ "name": "http", "filter_chains": [{ "filters": [filter] }] });
    if let Some(address) = address {
        listener["address"] = address;
    }
    let answer = json!({ "status": 200, "body": { "inline_string": text } });
    let route = json!({ "match": { "prefix": "/" }, "direct_response": answer });
    let host = json!({ "name": "all", "domains": ["*"], "routes": [route] });
    Parts {
        listeners: vec![Arc::new(listener)],
        routes: vec![Arc::new(
            json!({ "name": "routes", "virtual_hosts": [host] }),
        )],
        clusters: vec![Arc::new(
            json!({ "name": "unused", "connect_timeout": "1s" }),
        )],
    }
}

/// A control plane at a socket, until it is dropped, and what it says of itself.
fn serve(socket: &Path) -> (Xds, Arc<Mutex<Vec<String>>>, AbortOnDropHandle<()>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = {
        let lines = lines.clone();
        Arc::new(move |line: &str| lines.lock().unwrap().push(line.to_owned()))
    };
    let xds = Xds::new(log);
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    let router = xds.router();
    let server = tokio::spawn(async move {
        // Not axum's own server, whose connections outlive it.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            connections.spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (xds, lines, AbortOnDropHandle::new(server))
}

fn start(envoy: &Path, directory: &Path) -> Child {
    let file = directory.join("envoy.json");
    std::fs::write(&file, bootstrap(directory).to_string()).unwrap();
    Command::new(envoy)
        .args([
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "-l",
            "error",
            "-c",
        ])
        .arg(file)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// What the proxy answers, if it does.
async fn ask(socket: &Path) -> Option<String> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::builder().header("host", "any");
    let request = request.body(String::new()).ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    String::from_utf8(body.to_vec()).ok()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let held = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, held).await;
    assert!(held.is_ok(), "{what}");
}

#[tokio::test]
async fn envoy_is_told_what_is_published_and_finds_a_new_control_plane() {
    let Some(envoy) = find_envoy() else {
        eprintln!("not run: no Envoy found (set STRATA_ENVOY, or run scripts/setup)");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("http");
    let shared = Shared::default();
    let publish = |xds: &Xds, text| {
        xds.publish("group", &shared, answering(text, Some(pipe(&socket))));
    };
    let served = async |text: &str| {
        let is = async || ask(&socket).await.as_deref() == Some(text);
        until(text, is).await;
    };
    let (xds, lines, server) = serve(&directory.path().join("xds"));
    let _envoy = start(&envoy, directory.path());
    // Asked for before anybody has published anything.
    for text in ["one", "two"] {
        publish(&xds, text);
        served(text).await;
    }
    xds.publish("group", &shared, answering("two", None));
    until("the refusal is said", async || {
        let said = lines.lock().unwrap().concat();
        said.contains("does not take its listeners") && said.contains("address")
    })
    .await;
    served("two").await;
    publish(&xds, "three");
    served("three").await;

    drop(server);
    let (xds, lines, _server) = serve(&directory.path().join("xds"));
    publish(&xds, "four");
    served("four").await;
    assert_eq!(*lines.lock().unwrap(), Vec::<String>::new());
}
