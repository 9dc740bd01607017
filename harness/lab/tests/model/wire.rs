//! Requests as bytes: the same for the server in this process and for a cluster.

use anyhow::{Context as _, Result};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use crate::plan::Request;

/// How long anything may take. Nothing is measured by it: it only ends what would hang.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A request's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

pub(crate) async fn ask(client: &kube::Client, request: &Request) -> Result<Answer> {
    let response = tokio::time::timeout(PATIENCE, client.send(message(request)?)).await??;
    let code = response.status().as_u16();
    let bytes = tokio::time::timeout(PATIENCE, response.into_body().collect())
        .await??
        .to_bytes();
    let body =
        serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
    Ok(Answer { code, body })
}

fn message(request: &Request) -> Result<http::Request<Body>> {
    let body = if request.body.is_null() {
        Vec::new()
    } else {
        request.body.to_string().into_bytes()
    };
    let message = http::Request::builder()
        .method(request.method)
        .uri(&request.path)
        .header("content-type", request.media)
        .header("accept", "application/json")
        .header("user-agent", "model");
    Ok(message.body(Body::from(body))?)
}

/// An open watch.
pub(crate) struct Watch(BoxStream<'static, Result<Value>>);

impl Watch {
    pub(crate) async fn open(client: &kube::Client, request: &Request) -> Result<Self> {
        let response = tokio::time::timeout(PATIENCE, client.send(message(request)?)).await??;
        anyhow::ensure!(
            response.status().is_success(),
            "the watch is refused: {}",
            response.status()
        );
        let body = response.into_body().into_data_stream();
        let lines = body.map_err(std::io::Error::other).into_async_read();
        let lines = futures::io::AsyncBufReadExt::lines(lines);
        Ok(Self(
            lines.map(|line| Ok(serde_json::from_str(&line?)?)).boxed(),
        ))
    }

    /// The next event: its type and its object.
    pub(crate) async fn next(&mut self) -> Result<(String, Value)> {
        let line = tokio::time::timeout(PATIENCE, self.0.next())
            .await
            .context("no event came")?;
        let mut event = line.context("the watch ended")??;
        let name = event["type"].as_str().unwrap_or_default().to_owned();
        Ok((name, event["object"].take()))
    }
}
