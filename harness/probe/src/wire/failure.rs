//! Why there is no answer, by kind.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What went wrong, at which stage, and in the words of whoever noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The kind: what a check compares.
    pub kind: FailureKind,
    /// How far it came.
    pub stage: Stage,
    /// For people.
    pub text: String,
    /// Milliseconds between the end of the time that there was and our noticing it: as much as this was late, whoever
    /// was to answer may have been too, and for the same reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_ms: Option<u64>,
}

impl Failure {
    /// Puts the three together.
    #[must_use]
    pub fn new(kind: FailureKind, stage: Stage, text: impl Into<String>) -> Self {
        Self {
            kind,
            stage,
            text: text.into(),
            late_ms: None,
        }
    }

    /// The same, noticed so long after the time was up.
    #[must_use]
    pub fn late_by(mut self, late: Duration) -> Self {
        self.late_ms = u64::try_from(late.as_millis()).ok();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.kind, self.stage, self.text)
    }
}

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// ECONNREFUSED: an RST or an ICMP "port unreachable".
    Refused,
    /// Nobody said anything in time.
    TimedOut,
    /// ECONNRESET or EPIPE: the connection was cut.
    Reset,
    /// The peer closed the connection in order, before the answer was whole.
    Closed,
    /// NXDOMAIN, or a name without an address of the family asked for.
    NoSuchHost,
    /// The name server answered SERVFAIL, REFUSED or another error.
    NameServerFailed,
    /// No name server answered in time.
    NameServerTimedOut,
    /// EHOSTUNREACH or ENETUNREACH.
    Unreachable,
    /// The handshake or the verification of the certificate failed.
    Tls,
    /// EMSGSIZE: larger than the path's MTU, with "don't fragment".
    MessageTooLong,
    /// What came back was not the protocol.
    Protocol,
    /// What came back is not what was sent.
    Corrupted,
    /// Anything else, also of kinds younger than the reader.
    #[serde(other)]
    Other,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::Reset => "reset",
            Self::Closed => "closed early",
            Self::NoSuchHost => "no such host",
            Self::NameServerFailed => "name server failed",
            Self::NameServerTimedOut => "name server timed out",
            Self::Unreachable => "unreachable",
            Self::Tls => "TLS failed",
            Self::MessageTooLong => "message too long",
            Self::Protocol => "not the protocol",
            Self::Corrupted => "corrupted",
            Self::Other => "failed",
        })
    }
}

/// How far an exchange came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Asking the name server.
    Resolve,
    /// Opening the connection.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// Sending, and waiting for the first of the answer.
    Exchange,
    /// Reading the rest of it.
    Body,
    /// Before anything was sent: the probe's own trouble.
    #[serde(other)]
    Local,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resolve => "while resolving the name",
            Self::Connect => "while connecting",
            Self::Handshake => "in the TLS handshake",
            Self::Exchange => "while waiting for the answer",
            Self::Body => "while reading the answer",
            Self::Local => "before sending",
        })
    }
}
