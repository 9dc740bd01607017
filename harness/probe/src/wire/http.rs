//! HTTP requests and what came of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Spec;
use super::answer::{Answer, POD_HEADER, Protocol};
use super::failure::Failure;

/// Requests to send: one, or a burst. Every field but `url` has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "bin", derive(clap::Args))]
pub struct RequestSpec {
    /// `http://` or `https://`.
    #[cfg_attr(feature = "bin", arg(value_name = "URL"))]
    pub url: String,
    /// HTTP method.
    #[serde(default = "get")]
    #[cfg_attr(feature = "bin", arg(long, default_value = "GET"))]
    pub method: String,
    /// `Name: value`, each sent as it stands; repeat for several values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "bin", arg(long = "header", value_name = "NAME: VALUE"))]
    pub headers: Vec<String>,
    /// The Host header (or `:authority`) instead of the URL's; also the server name if that is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long))]
    pub host: Option<String>,
    /// Connect here, `HOST` or `HOST:PORT`, whatever the URL says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "HOST[:PORT]"))]
    pub connect_to: Option<String>,
    /// Server name of the TLS handshake instead of `host`'s or the URL's; what the certificate is verified for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "NAME"))]
    pub server_name: Option<String>,
    /// Certificates to trust: PEM itself, or the path of a file in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "PEM|FILE"))]
    pub ca: Option<String>,
    /// Certificates and their key to show a server that asks: PEM itself, or the path of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "PEM|FILE"))]
    pub identity: Option<String>,
    /// Accept any certificate. Without this and without `ca` no certificate is accepted.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long))]
    pub insecure: bool,
    /// Body to send, as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long))]
    pub body: Option<String>,
    /// Size of a body of no meaning, if `body` is not given.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long, default_value_t, value_name = "BYTES"))]
    pub body_bytes: u64,
    /// When the first of the answer's body is there, POST `/release/NAME` by a connection of its own; only
    /// then read on. With the server's `?hold=NAME` the answer comes whole if it is passed on as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "NAME"))]
    pub release: Option<String>,
    /// How many requests.
    #[serde(default = "one")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 1))]
    pub count: u64,
    /// Instead of `count`: send until so many milliseconds have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "MS"))]
    pub duration_ms: Option<u64>,
    /// How many are under way at a time, at most.
    #[serde(default = "one")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 1))]
    pub concurrency: u64,
    /// At most so many a second, all together; unlimited without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "PER_SECOND"))]
    pub rate: Option<u32>,
    /// Whether requests share connections.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long, value_enum, default_value_t))]
    pub connections: Connections,
    /// For each request, from the name's resolution to the last byte, in milliseconds.
    #[serde(default = "five_seconds")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 5000, value_name = "MS"))]
    pub timeout_ms: u64,
    /// HTTP/1.1, or HTTP/2 (by prior knowledge, or by ALPN under TLS).
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long, value_enum, default_value_t))]
    pub http: HttpVersion,
    /// Address to connect from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "ADDRESS"))]
    pub source: Option<IpAddr>,
}

impl RequestSpec {
    /// One GET, everything else by default.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            method: get(),
            headers: Vec::new(),
            host: None,
            connect_to: None,
            server_name: None,
            ca: None,
            identity: None,
            insecure: false,
            body: None,
            body_bytes: 0,
            release: None,
            count: 1,
            duration_ms: None,
            concurrency: 1,
            rate: None,
            connections: Connections::default(),
            timeout_ms: five_seconds(),
            http: HttpVersion::default(),
            source: None,
        }
    }
}

impl Spec for RequestSpec {
    const SUBCOMMAND: &'static str = "request";
    type Reply = Reply;
}

/// Whether requests share connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "bin", derive(clap::ValueEnum))]
pub enum Connections {
    /// Each request its own.
    #[default]
    New,
    /// As many as `concurrency`, each kept as long as the server keeps it.
    Reuse,
}

/// The version to speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "bin", derive(clap::ValueEnum))]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2.
    H2,
}

/// What came of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// From zero, in the order of sending; lines come in the order of completion.
    pub sequence: u64,
    /// Present when there is no whole answer. A status of 500 is an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The status; present as soon as the head of the answer arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The answer's headers, names in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// What came after the body, names in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trailers: BTreeMap<String, Vec<String>>,
    /// What the server said, if it was a probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The body, if the answer was whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
    /// The version spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// From the beginning of the run to the beginning of this request.
    #[serde(default)]
    pub started_us: u64,
    /// From its beginning (resolution included) to its end.
    pub latency_us: u64,
    /// Who was connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// What the name resolved to; empty when it was an address or the connection was there already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolved: Vec<IpAddr>,
    /// Whether this request came over a connection that an earlier one had opened.
    #[serde(default)]
    pub reused: bool,
    /// The TLS session, told once a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<PeerTls>,
}

impl Reply {
    /// The pod that answered, if a probe did: from the body, else from the header.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        match &self.answer {
            Some(answer) => Some(&answer.pod),
            None => self.header(POD_HEADER),
        }
    }

    /// The first value of a header of the answer; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.first().map(String::as_str)
    }

    /// gRPC's status of a call: of the trailers, of the headers where there are no others ("gRPC over HTTP2",
    /// Trailers-Only), else as a client makes it of an answer without one ("HTTP to gRPC Status Code
    /// Mapping"); nothing of a call that has not been answered.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u16> {
        let told = [&self.trailers, &self.headers];
        let mut told = told
            .into_iter()
            .filter_map(|it| it.get("grpc-status")?.first());
        if let Some(status) = told.next().and_then(|status| status.parse().ok()) {
            return Some(status);
        }
        Some(match self.status? {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        })
    }
}

/// A body, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    /// In bytes.
    pub length: u64,
    /// In hexadecimal.
    pub sha256: String,
    /// The beginning, up to 512 bytes, if a probe did not write it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub snippet: String,
}

/// The client's view of a TLS session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerTls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The protocol agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// The server's own certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// `GET /version` of the API server, with the pod's own token, its certificate verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "bin", derive(clap::Args))]
pub struct ApiSpec {
    /// The name to use, and to verify the certificate for.
    #[serde(default = "kubernetes")]
    #[cfg_attr(feature = "bin", arg(long, default_value = "kubernetes.default"))]
    pub host: String,
    /// Its port.
    #[serde(default = "https")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 443))]
    pub port: u16,
    /// Connect here, `HOST` or `HOST:PORT`, whatever the name and the port are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "HOST[:PORT]"))]
    pub connect_to: Option<String>,
    /// The path to get.
    #[serde(default = "version")]
    #[cfg_attr(feature = "bin", arg(long, default_value = "/version"))]
    pub path: String,
    /// In milliseconds.
    #[serde(default = "five_seconds")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 5000, value_name = "MS"))]
    pub timeout_ms: u64,
}

impl Default for ApiSpec {
    fn default() -> Self {
        Self {
            host: kubernetes(),
            port: https(),
            connect_to: None,
            path: version(),
            timeout_ms: five_seconds(),
        }
    }
}

impl Spec for ApiSpec {
    const SUBCOMMAND: &'static str = "kubernetes-api";
    type Reply = ApiReply;
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiReply {
    /// The URL asked for.
    pub url: String,
    /// `gitVersion`, when the answer had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The exchange itself.
    pub reply: Reply,
}

fn get() -> String {
    "GET".into()
}

fn one() -> u64 {
    1
}

fn five_seconds() -> u64 {
    5000
}

fn kubernetes() -> String {
    "kubernetes.default".into()
}

fn https() -> u16 {
    443
}

fn version() -> String {
    "/version".into()
}
