//! A WebSocket and what came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Spec;
use super::answer::POD_HEADER;
use super::failure::Failure;
use super::http::RequestSpec;

/// A WebSocket (RFC 6455): opened, messages sent and their echoes compared, closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "bin", derive(clap::Args))]
pub struct WebSocketSpec {
    /// Where and how it is opened: `http://` or `https://`, by HTTP/1.1.
    #[cfg_attr(feature = "bin", command(flatten))]
    pub request: RequestSpec,
    /// How many messages, each sent when the one before it came back.
    #[serde(default = "three")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 3))]
    pub messages: u64,
    /// The size of each.
    #[serde(default = "sixteen")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 16, value_name = "BYTES"))]
    pub bytes: u32,
}

impl WebSocketSpec {
    /// Three small messages.
    #[must_use]
    pub fn new(request: RequestSpec) -> Self {
        Self {
            request,
            messages: three(),
            bytes: sixteen(),
        }
    }
}

impl Spec for WebSocketSpec {
    const SUBCOMMAND: &'static str = "websocket";
    type Reply = WebSocketReply;
}

/// What came of a WebSocket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketReply {
    /// Present unless it was opened, every message came back and it was closed in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The status of the answer to the handshake: 101 if it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The answer's headers, names in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Messages that came back as they were sent.
    #[serde(default)]
    pub echoed: u64,
    /// From the beginning to the end.
    pub latency_us: u64,
}

impl WebSocketReply {
    /// The pod that answered, if a probe did.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        self.headers.get(POD_HEADER)?.first().map(String::as_str)
    }
}

fn three() -> u64 {
    3
}

fn sixteen() -> u32 {
    16
}
