//! Whether what was seen was seen in time.
//!
//! On a machine with more to do than it has processors for, answers come too late, and a network that works looks like
//! one that does not. Those who ask are late for the same reason, and they know it.

use std::time::Duration;

/// Who notices so late that time is up was left without a processor. On a machine with eighteen times more to do than it
/// can, most are 2 ms late, and the latest of dozens 0.2 s.
const NOTICED: Duration = Duration::from_millis(500);
/// And so was one where a command begins so late. Of the 4000 of a run that shares two processors with another, half began
/// within 0.12 s, and the last after 2.3 s.
const BEGUN: Duration = Duration::from_secs(3);

/// How late who asked was, at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Late {
    /// Between the end of an answer's time and the noticing of it.
    pub(crate) noticed: Duration,
    /// What a command took beside what it measured: to be begun, and to be heard of.
    pub(crate) begun: Duration,
}

impl Late {
    /// The later of two, in each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            noticed: self.noticed.max(other.noticed),
            begun: self.begun.max(other.begun),
        }
    }

    /// By how much, if nothing is to be concluded from an answer that did not come in time.
    pub(super) fn too_late(self) -> Option<Duration> {
        let too_late = self.noticed >= NOTICED || self.begun >= BEGUN;
        too_late.then(|| self.noticed.max(self.begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Cause, CauseKind, NoVerdictKind, NotPassed, expect_eq};

    fn broken() -> NotPassed {
        expect_eq("who answers", &"web-0", &"timed out", "nobody does").unwrap_err()
    }

    #[test]
    fn what_was_seen_too_late_is_no_finding() {
        let seconds = Duration::from_secs_f64;
        for (noticed, begun) in [(0.5, 0.0), (0.0, 3.0), (7.0, 0.1)] {
            let late = Late {
                noticed: seconds(noticed),
                begun: seconds(begun),
            };
            let NotPassed::NoVerdict(no_verdict) = broken().seen(late) else {
                panic!("{late:?} is a finding");
            };
            assert_eq!(no_verdict.kind(), NoVerdictKind::Starved);
            assert!(no_verdict.because().contains("timed out"), "{no_verdict:?}");
        }
        let in_time = Late {
            noticed: seconds(0.49),
            begun: seconds(2.9),
        };
        assert!(matches!(broken().seen(in_time), NotPassed::Failed(_)));
    }

    #[test]
    fn what_somebody_wrote_is_there_however_late_it_is() {
        let cause = |kind| Cause {
            kind,
            wrong: String::new(),
            change: String::new(),
            see: String::new(),
        };
        let late = Late {
            noticed: Duration::ZERO,
            begun: Duration::from_secs(60),
        };
        let written = broken().caused_by(cause(CauseKind::SelectorMatchesNothing));
        assert!(matches!(written.seen(late), NotPassed::Failed(_)));
        let to_be_done = broken().caused_by(cause(CauseKind::EndpointsDiffer));
        assert!(matches!(to_be_done.seen(late), NotPassed::NoVerdict(_)));
    }
}
