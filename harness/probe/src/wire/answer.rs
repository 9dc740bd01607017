//! What a server of the probe says about itself and about the request it got.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The header that names the pod in every HTTP answer, also in those without a JSON body.
pub const POD_HEADER: &str = "x-strata-pod";

/// The body of an HTTP answer, the last line of a TCP echo, the answer to a datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// `POD_NAME`, or the host name without it.
    pub pod: String,
    /// `POD_NAMESPACE`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `NODE_NAME`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// `POD_IP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<IpAddr>,
    /// The name the kernel gives.
    pub hostname: String,
    /// The server's process id, as it sees it.
    pub pid: u32,
    /// Who the server saw: after every NAT.
    pub client: SocketAddr,
    /// Where the packets arrived.
    pub local: SocketAddr,
    /// What was spoken.
    pub protocol: Protocol,
    /// HTTP method.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// The path as it arrived, without the query.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The query as it arrived, without the question mark.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// The Host header, or `:authority`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Header names in lower case; values in the order of arrival.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Present when the connection was TLS as far as the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How much the client sent: body, stream or datagram, in bytes.
    #[serde(default)]
    pub body_length: u64,
    /// How many requests came under the name that the request is counted by (`?count=NAME`), this one
    /// included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Answer {
    /// The first value of a header; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.first().map(String::as_str)
    }
}

/// What was spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    H1,
    /// HTTP/2, by prior knowledge or ALPN.
    H2,
    /// A TCP echo.
    Tcp,
    /// A datagram.
    Udp,
}

/// The server's view of a TLS session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The name the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The protocol agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// The certificate that the client showed, PEM; whoever it is, it was let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}
