//! Stub: the `suites` part owns this file.

use std::fmt;

/// Why a claim was broken, with the field to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A sentence.
    Other(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(sentence) => f.write_str(sentence),
        }
    }
}
