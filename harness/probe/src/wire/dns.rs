//! DNS questions and every answer on the way.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Spec;
use super::failure::Failure;

/// One name to look up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "bin", derive(clap::Args))]
pub struct DnsSpec {
    /// The name; one that ends in a dot is asked for as it stands.
    #[cfg_attr(feature = "bin", arg(value_name = "NAME"))]
    pub name: String,
    /// `A`, `AAAA`, `CNAME`, `SRV`, `PTR`, `TXT`, …
    #[serde(default = "a", rename = "type")]
    #[cfg_attr(feature = "bin", arg(long = "type", default_value = "A"))]
    pub record_type: String,
    /// Instead of resolv.conf's name servers: `ADDRESS` or `ADDRESS:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "ADDRESS[:PORT]"))]
    pub server: Option<String>,
    /// Ask over TCP from the start. Without, a truncated answer is asked for again over TCP.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long))]
    pub tcp: bool,
    /// Take a truncated answer as it is.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long))]
    pub keep_truncated: bool,
    /// Ask for the name as it stands, whatever resolv.conf says of `search` and `ndots`.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long))]
    pub no_search: bool,
    /// For each exchange, in milliseconds.
    #[serde(default = "two_seconds")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 2000, value_name = "MS"))]
    pub timeout_ms: u64,
    /// How often each server is asked.
    #[serde(default = "two")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 2))]
    pub attempts: u32,
}

impl DnsSpec {
    /// The addresses of a name, by resolv.conf's rules.
    #[must_use]
    pub fn new(name: impl Into<String>, record_type: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            record_type: record_type.into(),
            server: None,
            tcp: false,
            keep_truncated: false,
            no_search: false,
            timeout_ms: two_seconds(),
            attempts: two(),
        }
    }
}

impl Spec for DnsSpec {
    const SUBCOMMAND: &'static str = "dns";
    type Reply = DnsReply;
}

/// What came of a lookup: one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsReply {
    /// The name asked for.
    pub name: String,
    /// The type asked for.
    #[serde(rename = "type")]
    pub record_type: String,
    /// The full name that the last answer is about.
    pub question: String,
    /// The last answer's code; absent if no server answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<Rcode>,
    /// Present when no server gave an answer that settles the question: NXDOMAIN does settle it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The last answer's records, CNAMEs included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<DnsRecord>,
    /// Names from the question to the canonical one; empty without a CNAME.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cname_chain: Vec<String>,
    /// Addresses of A and AAAA records, in the order of the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Whether the answer that was taken had the TC bit.
    #[serde(default)]
    pub truncated: bool,
    /// All of it.
    pub latency_us: u64,
    /// Every exchange with a server, in order: the search path as it was walked.
    #[serde(default)]
    pub exchanges: Vec<DnsExchange>,
}

impl DnsReply {
    /// The data of the answers of a type, in order.
    pub fn data<'a>(&'a self, record_type: &'a str) -> impl Iterator<Item = &'a str> {
        let of_type = move |record: &&DnsRecord| record.record_type == record_type;
        self.answers
            .iter()
            .filter(of_type)
            .map(|record| record.data.as_str())
    }
}

/// One question to one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsExchange {
    /// The full name, with the last dot.
    pub question: String,
    /// Who was asked.
    pub server: SocketAddr,
    /// Over TCP?
    #[serde(default)]
    pub tcp: bool,
    /// The answer's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<Rcode>,
    /// AA: the server is the authority.
    #[serde(default)]
    pub authoritative: bool,
    /// TC: there is more over TCP.
    #[serde(default)]
    pub truncated: bool,
    /// How many answers it had.
    #[serde(default)]
    pub answers: usize,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Of this exchange.
    pub latency_us: u64,
}

/// A resource record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecord {
    /// The owner, with the last dot.
    pub name: String,
    /// `A`, `CNAME`, …
    #[serde(rename = "type")]
    pub record_type: String,
    /// In seconds.
    pub ttl: u32,
    /// As in a zone file: `10.244.1.5`, `web.default.svc.cluster.local.`, `0 100 80 web-0.…`.
    pub data: String,
}

/// Response codes, by the names of the IANA registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rcode {
    /// Perhaps without records: the name exists.
    #[serde(rename = "NOERROR")]
    NoError,
    /// The name does not exist.
    #[serde(rename = "NXDOMAIN")]
    NxDomain,
    /// The server could not find out.
    #[serde(rename = "SERVFAIL")]
    ServFail,
    /// The server does not want to.
    #[serde(rename = "REFUSED")]
    Refused,
    /// Any other.
    #[serde(untagged)]
    Other(String),
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoError => "NOERROR",
            Self::NxDomain => "NXDOMAIN",
            Self::ServFail => "SERVFAIL",
            Self::Refused => "REFUSED",
            Self::Other(name) => name,
        })
    }
}

fn a() -> String {
    "A".into()
}

fn two_seconds() -> u64 {
    2000
}

fn two() -> u32 {
    2
}
