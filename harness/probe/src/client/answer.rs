//! What is told of an answer: its head, its body in short, its trailers.
//!
//! Start from [`head`] and [`read`], which write into the reply.

use std::collections::BTreeMap;
use std::time::Instant;

use http::{HeaderMap, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use strata_probe::{Body, POD_HEADER, Protocol, Reply};

use super::hex;
use super::http::Plan;

/// How much of a body is kept to be read as an answer.
const KEPT: usize = 256 * 1024;
/// How much of a stranger's body is told.
const SNIPPET: usize = 512;

/// Writes down everything but the body.
pub(super) fn head(reply: &mut Reply, response: &Response<Incoming>) {
    reply.status = Some(response.status().as_u16());
    reply.protocol = Some(match response.version() {
        Version::HTTP_2 => Protocol::H2,
        _ => Protocol::H1,
    });
    reply.headers = told(response.headers());
}

/// Headers as the wire types have them.
pub(crate) fn told(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        told.entry(name.as_str().to_owned())
            .or_default()
            .push(value);
    }
    told
}

/// Reads the body to its end; gives its beginning. `release` is asked for when the first of it is there.
pub(super) async fn read(
    reply: &mut Reply,
    response: Response<Incoming>,
    mut release: Option<&Plan>,
) -> hyper::Result<Vec<u8>> {
    let mut incoming = response.into_body();
    let mut digest = Sha256::new();
    let mut length = 0;
    let mut beginning = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let data = match frame?.into_data() {
            Ok(data) => data,
            Err(other) => {
                reply.trailers = other.trailers_ref().map(told).unwrap_or_default();
                continue;
            }
        };
        if let Some(plan) = release.take() {
            // What comes of it shows in whether the rest of this answer comes.
            Box::pin(plan.fetch(0, Instant::now(), &mut None)).await;
        }
        digest.update(&data);
        length += data.len() as u64;
        let room = KEPT - beginning.len();
        beginning.extend_from_slice(data.get(..room).unwrap_or(&data));
    }
    reply.answer = serde_json::from_slice(&beginning).ok();
    let known = reply.answer.is_some() || reply.headers.contains_key(POD_HEADER);
    let snippet = match known {
        true => &[],
        false => beginning.get(..SNIPPET).unwrap_or(&beginning),
    };
    reply.body = Some(Body {
        length,
        sha256: hex(&digest.finalize()),
        snippet: String::from_utf8_lossy(snippet).into_owned(),
    });
    Ok(beginning)
}
