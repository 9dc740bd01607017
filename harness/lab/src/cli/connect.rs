//! A client of a lab's API server.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::ConfigExt as _;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use super::record::Running;

/// How long a lab may take to accept a connection: it is on this machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The administrator's access, by the kubeconfig that the lab has itself: the user's may say
/// anything by now.
async fn config(lab: &Running) -> anyhow::Result<Config> {
    let kubeconfig = Kubeconfig::read_from(&lab.own_kubeconfig).with_context(|| {
        let path = lab.own_kubeconfig.display();
        format!("cannot read the lab's kubeconfig {path}")
    })?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(PATIENCE);
    // Following takes as long as it takes.
    config.read_timeout = None;
    config.write_timeout = None;
    Ok(config)
}

/// The administrator's client.
pub(super) async fn client(lab: &Running) -> anyhow::Result<Client> {
    Ok(Client::try_from(config(lab).await?)?)
}

/// A body that is sent as it comes.
pub(super) type Stream = UnsyncBoxBody<Bytes, std::io::Error>;

/// Sends a request whose body `kube` would want in memory; its URI is a path.
pub(super) async fn send(
    lab: &Running,
    mut request: Request<Stream>,
) -> anyhow::Result<Response<Bytes>> {
    let config = config(lab).await?;
    let path = request.uri().to_string();
    let base = config.cluster_url.to_string();
    *request.uri_mut() = format!("{}{path}", base.trim_end_matches('/')).parse()?;
    let connector = config.rustls_https_connector()?;
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let failed = "the lab's API server did not answer";
    let (parts, body) = client.request(request).await.context(failed)?.into_parts();
    let body = body.collect().await.context(failed)?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

/// What an answer says, without the client's own words around it.
pub(super) fn said(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!(status.message.clone()),
        error => anyhow::Error::new(error).context("the lab's API server did not answer"),
    }
}
