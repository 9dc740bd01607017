//! What goes over the wire between the harness and the probe: specifications in, replies out.
//!
//! Both are JSON, replies one a line. Rule: fields are only ever added, and a reader ignores what it
//! does not know, since an image on a node may be older than the harness that asks it.

pub(crate) mod answer;
pub(crate) mod batch;
pub(crate) mod dns;
pub(crate) mod failure;
pub(crate) mod http;
pub(crate) mod network;
pub(crate) mod serve;
pub(crate) mod stream;
pub(crate) mod websocket;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where the binary is in its image.
pub const BINARY: &str = "/strata-probe";

/// A specification that the binary takes as `SUBCOMMAND --spec JSON`.
pub trait Spec: Serialize {
    /// The name of the subcommand.
    const SUBCOMMAND: &'static str;
    /// What it writes, one a line.
    type Reply: DeserializeOwned;

    /// The command to run in a container of the probe's image.
    fn command(&self) -> Vec<String> {
        let spec = serde_json::to_string(self).unwrap_or_default();
        vec![
            BINARY.into(),
            Self::SUBCOMMAND.into(),
            "--spec".into(),
            spec,
        ]
    }
}

/// A line that is no reply of the kind that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the probe's output is no reply: {text:?}")]
pub struct UnreadableReply {
    /// Counted from one.
    pub line: usize,
    /// The beginning of the line.
    pub text: String,
    /// What the parser said.
    pub source: serde_json::Error,
}

/// Reads the output of a command that `S` made.
///
/// # Errors
/// When a line is no such reply: the output was cut off, or another program wrote it.
pub fn replies<S: Spec>(output: &str) -> Result<Vec<S::Reply>, UnreadableReply> {
    output
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|source| UnreadableReply {
                line: index + 1,
                text: line.chars().take(200).collect(),
                source,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DnsSpec, FailureKind, RequestSpec};

    #[test]
    fn a_specification_becomes_one_argument() {
        let command = RequestSpec::get("http://web/").command();
        assert_eq!(command[..3], ["/strata-probe", "request", "--spec"]);
        let spec: RequestSpec = serde_json::from_str(&command[3]).unwrap();
        assert_eq!(spec, RequestSpec::get("http://web/"));
    }

    #[test]
    fn replies_tell_the_unknown_from_the_unreadable() {
        let output = concat!(
            r#"{"sequence":0,"latencyUs":12,"error":{"kind":"refused","stage":"connect","text":"x"}}"#,
            "\n\n",
            r#"{"sequence":1,"status":200,"latencyUs":12,"ofTheFuture":true}"#,
        );
        let read = replies::<RequestSpec>(output).unwrap();
        assert_eq!(read[0].error.as_ref().unwrap().kind, FailureKind::Refused);
        assert_eq!(read[1].status, Some(200));
        let cut = replies::<DnsSpec>("{\"name\":\"web\"").unwrap_err();
        assert_eq!(cut.line, 1);
    }
}
