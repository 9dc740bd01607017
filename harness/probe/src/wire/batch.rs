//! Many requests that differ, in one run.

use serde::{Deserialize, Serialize};

use super::Spec;
use super::failure::Failure;
use super::http::{Connections, RequestSpec};

/// Requests that differ, to one place, over connections that they share. One run takes some hundreds:
/// as an argument, a specification has to be shorter than 128 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "bin", derive(clap::Args))]
pub struct RequestsSpec {
    /// `http://` or `https://`, with host and port only.
    #[cfg_attr(feature = "bin", arg(value_name = "URL"))]
    pub url: String,
    /// The requests, in the order of sending; as flags, each as JSON.
    #[cfg_attr(feature = "bin", arg(long = "request", value_name = "JSON", value_parser = one_request, required = true))]
    pub requests: Vec<OneRequest>,
    /// Over how many connections, each kept as long as the server keeps it.
    #[serde(default = "one")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 1))]
    pub concurrency: u64,
    /// For each request, in milliseconds.
    #[serde(default = "five_seconds")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 5000, value_name = "MS"))]
    pub timeout_ms: u64,
}

impl RequestsSpec {
    /// Requests over one connection, everything else by default.
    #[must_use]
    pub fn new(url: impl Into<String>, requests: Vec<OneRequest>) -> Self {
        Self {
            url: url.into(),
            requests,
            concurrency: one(),
            timeout_ms: five_seconds(),
        }
    }

    /// Each request, as it would be asked for alone.
    pub fn each(&self) -> impl Iterator<Item = RequestSpec> {
        self.requests.iter().map(|request| RequestSpec {
            method: request.method.clone(),
            host: request.host.clone(),
            headers: request.headers.clone(),
            connections: Connections::Reuse,
            timeout_ms: self.timeout_ms,
            ..RequestSpec::get(format!("{}{}", self.url, request.target))
        })
    }
}

impl Spec for RequestsSpec {
    const SUBCOMMAND: &'static str = "requests";
    type Reply = BriefReply;
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OneRequest {
    /// HTTP method.
    pub method: String,
    /// Path and query, as they stand.
    pub target: String,
    /// The Host header instead of the URL's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `Name: value`, each sent as it stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

/// What came of one of many requests: who answered, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BriefReply {
    /// Its place among the requests, from zero; lines come in the order of completion.
    pub sequence: u64,
    /// Present when there is no whole answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The status; present as soon as the head of the answer arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The pod that answered, if a probe did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

fn one() -> u64 {
    1
}

fn five_seconds() -> u64 {
    5000
}

#[cfg(feature = "bin")]
fn one_request(json: &str) -> Result<OneRequest, String> {
    serde_json::from_str(json)
        .map_err(|error| format!("{error}; write {{\"method\": \"GET\", \"target\": \"/\"}}"))
}
