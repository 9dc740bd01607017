//! What a run's exit code means. Documented here, nowhere else; scripts and CI rely on it.
//!
//! When several apply, the first in the order of [`Exit`] is taken: that a person interrupted the
//! run matters more than what had been judged by then, and a broken claim matters more than a claim
//! that could not be judged.

use std::process::ExitCode;

/// How a run ended, the weightiest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// An argument, a variable or a file of the person's is wrong; nothing was started.
    BadInput,
    /// The cluster broke at least one claim.
    Failed,
    /// There is no cluster, or a layer did not come up.
    NotUp,
    /// At least one claim could not be judged, or a report could not be written.
    NoVerdict,
    /// No claim was judged: all were filtered out or skipped.
    NothingJudged,
    /// Every claim that was judged holds, and at least one was.
    Passed,
}

impl Exit {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Interrupted,
        Self::Terminated,
        Self::BadInput,
        Self::Failed,
        Self::NotUp,
        Self::NoVerdict,
        Self::NothingJudged,
        Self::Passed,
    ];

    /// The exit code. 101 is what `cargo test` programs use for a failed test; 130 and 143 are what
    /// shells report for the two signals.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::BadInput => 2,
            Self::Failed => 101,
            Self::NotUp => 5,
            Self::NoVerdict => 4,
            Self::NothingJudged => 3,
            Self::Passed => 0,
        }
    }

    /// The same in words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted (ctrl-C)",
            Self::Terminated => "terminated (SIGTERM)",
            Self::BadInput => "bad input",
            Self::Failed => "the cluster broke a claim",
            Self::NotUp => "the cluster or a layer did not come up",
            Self::NoVerdict => "a claim could not be judged",
            Self::NothingJudged => "nothing was judged",
            Self::Passed => "every claim that was judged holds",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_the_documented_ones_and_distinct() {
        let codes: Vec<_> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [130, 143, 2, 101, 5, 4, 3, 0]);
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
        assert!(Exit::ALL.is_sorted());
    }
}
