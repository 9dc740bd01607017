//! TCP streams and UDP datagrams, echoed.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Spec;
use super::answer::Answer;
use super::failure::Failure;

/// A TCP connection: send, receive the echo, compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "bin", derive(clap::Args))]
pub struct TcpSpec {
    /// `HOST:PORT`.
    #[cfg_attr(feature = "bin", arg(value_name = "HOST:PORT"))]
    pub to: String,
    /// How much to send. Nothing: only connect (and hold).
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long, default_value_t, value_name = "BYTES"))]
    pub bytes: u64,
    /// Hold the connection idle for so long before sending, in milliseconds.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long, default_value_t, value_name = "MS"))]
    pub hold_ms: u64,
    /// Only connect: do not ask the server who it is. For servers that are no probe.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long))]
    pub connect_only: bool,
    /// Say nothing, not even that there is nothing to be said: for servers that speak first.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long, conflicts_with = "bytes"))]
    pub silent: bool,
    /// How many connections.
    #[serde(default = "one")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 1))]
    pub count: u64,
    /// How many are open at a time, at most.
    #[serde(default = "one")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 1))]
    pub concurrency: u64,
    /// For each connection, `hold_ms` not counted, in milliseconds.
    #[serde(default = "five_seconds")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 5000, value_name = "MS"))]
    pub timeout_ms: u64,
    /// Address to connect from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "ADDRESS"))]
    pub source: Option<IpAddr>,
}

impl TcpSpec {
    /// Connects and asks who answers.
    #[must_use]
    pub fn new(to: impl Into<String>) -> Self {
        Self {
            to: to.into(),
            bytes: 0,
            hold_ms: 0,
            connect_only: false,
            silent: false,
            count: 1,
            concurrency: 1,
            timeout_ms: five_seconds(),
            source: None,
        }
    }
}

impl Spec for TcpSpec {
    const SUBCOMMAND: &'static str = "tcp";
    type Reply = TcpReply;
}

/// What came of one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpReply {
    /// From zero, in the order of connecting.
    pub sequence: u64,
    /// Present unless all that was asked for happened; `corrupted` if the echo differed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Bytes sent.
    #[serde(default)]
    pub sent: u64,
    /// Bytes of the echo received.
    #[serde(default)]
    pub received: u64,
    /// Of what was sent, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Who answered, if it was a probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Until connected (resolution included).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_us: Option<u64>,
    /// All of it, holding included.
    pub latency_us: u64,
    /// Who was connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
}

/// Datagrams of an exact size, each answered by the probe's UDP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "bin", derive(clap::Args))]
pub struct UdpSpec {
    /// `HOST:PORT`.
    #[cfg_attr(feature = "bin", arg(value_name = "HOST:PORT"))]
    pub to: String,
    /// Payload. An IPv4 packet is 28 bytes larger, an IPv6 packet 48.
    #[serde(default = "sixteen")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 16, value_name = "BYTES"))]
    pub bytes: u32,
    /// Don't fragment: what does not fit the path's MTU is `message_too_long`.
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long))]
    pub df: bool,
    /// How many datagrams, one after the other.
    #[serde(default = "one")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 1))]
    pub count: u64,
    /// Each from a socket of its own (another port: another flow).
    #[serde(default)]
    #[cfg_attr(feature = "bin", arg(long))]
    pub new_socket: bool,
    /// For each datagram, in milliseconds. It is sent once: a lost one is `timed_out`.
    #[serde(default = "two_seconds")]
    #[cfg_attr(feature = "bin", arg(long, default_value_t = 2000, value_name = "MS"))]
    pub timeout_ms: u64,
    /// Address to send from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "ADDRESS"))]
    pub source: Option<IpAddr>,
    /// Port to send from: what is sent later from the same one is of the same flow. Any free one without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "bin", arg(long, value_name = "PORT"))]
    pub source_port: Option<u16>,
}

impl UdpSpec {
    /// One small datagram.
    #[must_use]
    pub fn new(to: impl Into<String>) -> Self {
        Self {
            to: to.into(),
            bytes: sixteen(),
            df: false,
            count: 1,
            new_socket: false,
            timeout_ms: two_seconds(),
            source: None,
            source_port: None,
        }
    }
}

impl Spec for UdpSpec {
    const SUBCOMMAND: &'static str = "udp";
    type Reply = UdpReply;
}

/// What came of one datagram.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UdpReply {
    /// From zero.
    pub sequence: u64,
    /// Present when no answer came, or the server got another size than was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Payload sent.
    #[serde(default)]
    pub sent: u32,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// What the kernel now knows of the path, with `df`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
    /// Until the answer, or the error.
    pub latency_us: u64,
    /// Who was sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
}

fn one() -> u64 {
    1
}

fn sixteen() -> u32 {
    16
}

fn two_seconds() -> u64 {
    2000
}

fn five_seconds() -> u64 {
    5000
}
