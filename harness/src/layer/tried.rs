//! What came of trying to connect, in the few kinds that tell causes apart.
//!
//! Start from [`Tried`]. Rule: refused means that packets reached somebody who said no; timed out
//! means that nobody said anything.

use std::fmt;

use strata_probe::{Failure, FailureKind};

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Tried {
    /// Somebody answered.
    Answers,
    /// RST, or ICMP "port unreachable".
    Refused,
    /// Nothing came back.
    TimesOut,
    /// The kernel has no way to the address.
    Unreachable,
    /// Connected, and cut, or spoken to in another protocol.
    Fails,
}

impl Tried {
    /// What an exchange without an answer came to; nothing if it says nothing of the address.
    pub(super) fn of(error: Option<&Failure>) -> Option<Self> {
        let Some(error) = error else {
            return Some(Self::Answers);
        };
        Some(match error.kind {
            FailureKind::Refused => Self::Refused,
            FailureKind::TimedOut | FailureKind::NameServerTimedOut => Self::TimesOut,
            FailureKind::Unreachable => Self::Unreachable,
            FailureKind::Other | FailureKind::NoSuchHost => return None,
            _ => Self::Fails,
        })
    }

    /// Whether packets got through.
    pub(super) const fn arrives(self) -> bool {
        matches!(self, Self::Answers | Self::Refused | Self::Fails)
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Answers => "answers",
            Self::Refused => "is refused",
            Self::TimesOut => "times out",
            Self::Unreachable => "is unreachable",
            Self::Fails => "is cut",
        })
    }
}
