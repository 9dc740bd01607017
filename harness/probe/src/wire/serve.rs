//! Where a server listens: the one line that `serve` writes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Written to standard output once everything listens; tells the ports that were asked for as 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listening {
    /// HTTP/1.1 and h2 by prior knowledge.
    #[serde(default)]
    pub http: Vec<SocketAddr>,
    /// The same over TLS.
    #[serde(default)]
    pub tls: Vec<SocketAddr>,
    /// TCP echo.
    #[serde(default)]
    pub tcp: Vec<SocketAddr>,
    /// UDP.
    #[serde(default)]
    pub udp: Vec<SocketAddr>,
}
