//! `kubernetes-api`: whether the cluster's API server is reached as a pod reaches it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use strata_probe::{ApiReply, ApiSpec, Failure, FailureKind, Reply, RequestSpec, Stage};

use super::http::Plan;
use super::resolve::Resolver;
use super::{at_least_one, write};
use crate::Trouble;

/// Where the kubelet mounts a pod's token and the cluster's CA.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Asks and writes what came of it.
pub(crate) async fn run(spec: ApiSpec) -> Result<(), Trouble> {
    at_least_one("timeoutMs", spec.timeout_ms)?;
    let url = format!("https://{}:{}{}", spec.host, spec.port, spec.path);
    let directory =
        env::var_os("PROBE_SERVICE_ACCOUNT").map_or_else(|| SERVICE_ACCOUNT.into(), PathBuf::from);
    let (reply, version) = match request(&spec, &url, &directory) {
        Ok(request) => {
            let resolver = Arc::new(Resolver::from_system());
            let plan = Plan::new(request, resolver).map_err(Trouble::CommandLine)?;
            let (reply, body) = plan.fetch(0, Instant::now(), &mut None).await;
            let version: Option<Version> = serde_json::from_slice(&body).ok();
            (reply, version.map(|version| version.git_version))
        }
        Err(text) => {
            let error = Some(Failure::new(FailureKind::Other, Stage::Local, text));
            let reply = Reply {
                error,
                ..Reply::default()
            };
            (reply, None)
        }
    };
    write(&ApiReply {
        url,
        version,
        reply,
    })
}

/// That a pod has no token is a finding about the pod, not about the command line.
fn request(spec: &ApiSpec, url: &str, directory: &Path) -> Result<RequestSpec, String> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|error| format!("reading {}: {error}", path.display()))
    };
    Ok(RequestSpec {
        headers: vec![
            format!("authorization: Bearer {}", read("token")?.trim()),
            "accept: application/json".into(),
        ],
        ca: Some(read("ca.crt")?),
        connect_to: spec.connect_to.clone(),
        timeout_ms: spec.timeout_ms,
        ..RequestSpec::get(url)
    })
}

/// `GET /version`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}
