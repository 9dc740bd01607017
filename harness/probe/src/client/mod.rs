//! The clients: one a subcommand, each prints its replies as they come.
//!
//! ```text
//! request(s), websocket, api ─► http, answer ─► tls, tap ─► connect ─► resolve ─► lookup ◄─ dns
//! tcp, udp ──────────────────────────────────────────┘                  routes
//! ```
//!
//! Start from a subcommand's `run`. Rule: a failure is typed where it is noticed, at its stage
//! ([`failure`]), and never by the words of a message.

mod answer;
pub(crate) mod api;
mod connect;
pub(crate) mod dns;
mod failure;
mod http;
mod lookup;
mod pace;
pub(crate) mod request;
pub(crate) mod requests;
mod resolve;
pub(crate) mod routes;
mod tap;
pub(crate) mod tcp;
mod tls;
pub(crate) mod udp;
pub(crate) mod websocket;

pub(crate) use answer::told;
pub(crate) use tls::{pem, version as tls_version};

use std::io::Write;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Trouble;

/// Writes one reply as one line, at once: whoever reads us may be waiting for it.
fn write(reply: &impl Serialize) -> Result<(), Trouble> {
    let trouble = |error: std::io::Error| Trouble::Other(format!("writing a reply: {error}"));
    let mut line = serde_json::to_vec(reply).map_err(|error| trouble(error.into()))?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output
        .write_all(&line)
        .and_then(|()| output.flush())
        .map_err(trouble)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn micros_since(start: Instant) -> u64 {
    micros(start.elapsed())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A number of a specification that must not be zero.
fn at_least_one(name: &str, number: u64) -> Result<(), Trouble> {
    match number {
        0 => Err(Trouble::CommandLine(format!("{name} must be at least 1"))),
        _ => Ok(()),
    }
}
