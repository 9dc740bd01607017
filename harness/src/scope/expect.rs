//! Expectations that observe until it settles.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

use super::Scope;
use crate::budget::{Budget, CONVERGE};
use crate::verdict::Outcome;
use crate::verdict::{Expect, NoVerdict, NoVerdictKind, expect};
use crate::wait::{self, Progress};

/// What is expected to be seen before long, and to stay.
#[derive(Debug)]
pub struct Eventually<'a, T, F> {
    /// What is looked at.
    pub what: &'a str,
    /// What should be seen.
    pub expected: T,
    /// Looks once.
    pub observe: F,
    /// A cause to look at, not a restatement.
    pub likely: &'a str,
}

impl Scope {
    /// Observes until [`CONVERGE`](crate::budget::CONVERGE)'s number of observations in a row are
    /// as expected.
    ///
    /// # Errors
    /// `Failed` when they are not within the budget, nor in a look that began after it; the form tells how
    /// often it was looked and since when nothing changed. `NoVerdict` when an observation could not be made.
    pub async fn eventually<T: PartialEq + Debug>(
        &self,
        expectation: Eventually<'_, T, impl AsyncFnMut() -> Result<T, NoVerdict>>,
    ) -> Outcome {
        eventually(expectation, CONVERGE).await
    }

    /// The same within another budget.
    ///
    /// # Errors
    /// As those of [`Scope::eventually`].
    pub async fn eventually_within<T: PartialEq + Debug>(
        &self,
        budget: Budget,
        expectation: Eventually<'_, T, impl AsyncFnMut() -> Result<T, NoVerdict>>,
    ) -> Outcome {
        eventually(expectation, budget).await
    }
}

async fn eventually<T: PartialEq + Debug>(
    mut expectation: Eventually<'_, T, impl AsyncFnMut() -> Result<T, NoVerdict>>,
    budget: Budget,
) -> Outcome {
    let Eventually {
        what,
        ref expected,
        ref mut observe,
        likely,
    } = expectation;
    let started = Instant::now();
    let mut seen = Seen::default();
    let mut look = async |seen: &mut Seen<T>| {
        let observed = observe().await?;
        let agrees = observed == *expected;
        Ok::<_, NoVerdict>(seen.agreeing(observed, agrees))
    };
    let spent = |no_verdict: &NoVerdict| no_verdict.kind() == NoVerdictKind::NotReached;
    let mut waited = settles(what, budget, &mut seen, &mut look).await;
    if waited.as_ref().is_err_and(spent) {
        // A look that began before the time was over may have seen what was before.
        if seen.agreeing == 0
            && let Ok(looked) = tokio::time::timeout(budget.within, look(&mut seen)).await
        {
            looked?;
        }
        // What is as expected when the time ends was seen too late to be judged: no finding.
        if seen.agreeing > 0 {
            waited = settles(what, budget, &mut seen, &mut look).await;
        }
    }
    match waited {
        Ok(()) => Ok(()),
        Err(no_verdict) if spent(&no_verdict) && seen.agreeing == 0 => {
            let observed = seen.told(started.elapsed()).ok_or(no_verdict)?;
            expect(false, || Expect {
                what: what.to_owned(),
                expected: format!("{expected:?}"),
                observed,
                likely: likely.to_owned(),
            })
        }
        // A look could not be made, or none was the last: nothing is known of the claim.
        Err(no_verdict) => Err(no_verdict.into()),
    }
}

/// Looks until enough looks in a row agree; `look` tells how many do.
async fn settles<T>(
    what: &str,
    budget: Budget,
    seen: &mut Seen<T>,
    look: &mut impl AsyncFnMut(&mut Seen<T>) -> Result<u32, NoVerdict>,
) -> Result<(), NoVerdict> {
    wait::until(what, budget, async || {
        Ok(if look(seen).await? >= budget.settled {
            Progress::Ready(())
        } else {
            Progress::NotYet(String::new())
        })
    })
    .await
}

fn tries(n: u32) -> String {
    match n {
        1 => "1 try".to_owned(),
        n => format!("{n} tries"),
    }
}

/// What an expectation has seen.
struct Seen<T> {
    tries: u32,
    latest: Option<T>,
    /// The try since which it has been the same.
    since: u32,
    agreeing: u32,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self {
            tries: 0,
            latest: None,
            since: 0,
            agreeing: 0,
        }
    }
}

impl<T: PartialEq + Debug> Seen<T> {
    /// The latest observation, and for how long it has been that; nothing if not even one look
    /// ended.
    fn told(&self, elapsed: Duration) -> Option<String> {
        let since = match self.since {
            1 => "never anything else".to_owned(),
            since => format!("unchanged since try {since}"),
        };
        let (latest, tries) = (self.latest.as_ref()?, tries(self.tries));
        let seconds = elapsed.as_secs_f64();
        Some(format!("{latest:?}   ({tries} in {seconds:.0} s; {since})"))
    }

    /// Takes in an observation; how many in a row agree with what is expected.
    fn agreeing(&mut self, observed: T, agrees: bool) -> u32 {
        self.tries += 1;
        if self.latest.as_ref() != Some(&observed) {
            self.since = self.tries;
        }
        self.latest = Some(observed);
        self.agreeing = if agrees { self.agreeing + 1 } else { 0 };
        self.agreeing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::verdict::NotPassed;

    const QUICK: Budget = Budget {
        within: Duration::from_secs(20),
        every: Duration::from_millis(1),
        ..CONVERGE
    };

    fn look(seen: &mut std::slice::Iter<'_, u32>) -> Result<u32, NoVerdict> {
        seen.next()
            .copied()
            .ok_or_else(|| NoVerdict::new("looked once more"))
    }

    async fn eventually_three(seen: &[u32]) -> Outcome {
        let mut seen = seen.iter();
        let expectation = Eventually {
            what: "three",
            expected: 3,
            observe: async || look(&mut seen),
            likely: "",
        };
        eventually(expectation, QUICK).await
    }

    #[tokio::test]
    async fn what_is_expected_must_be_seen_twice_in_a_row() {
        eventually_three(&[1, 3, 3]).await.unwrap();
        eventually_three(&[3, 1, 3, 3]).await.unwrap();
        for unsettled in [&[3][..], &[3, 1, 3], &[]] {
            let outcome = eventually_three(unsettled).await;
            assert!(
                matches!(outcome, Err(NotPassed::NoVerdict(_))),
                "{unsettled:?}"
            );
        }
    }

    #[test]
    fn a_finding_tells_since_when_nothing_changed() {
        let mut seen = Seen::default();
        assert_eq!(seen.told(Duration::ZERO), None);
        seen.agreeing(BTreeSet::from(["web-0"]), false);
        let said = seen.told(Duration::from_secs(20)).unwrap();
        assert_eq!(said, r#"{"web-0"}   (1 try in 20 s; never anything else)"#);
        seen.agreeing(BTreeSet::new(), false);
        seen.agreeing(BTreeSet::new(), false);
        let said = seen.told(Duration::from_secs(20)).unwrap();
        assert_eq!(said, "{}   (3 tries in 20 s; unchanged since try 2)");
    }

    #[tokio::test]
    async fn what_stays_otherwise_is_a_finding_and_a_look_that_hangs_is_none() {
        let brief = Budget {
            within: Duration::from_millis(50),
            ..QUICK
        };
        let otherwise = Eventually {
            what: "three",
            expected: 3,
            observe: async || Ok(4),
            likely: "",
        };
        let outcome = eventually(otherwise, brief).await;
        assert!(matches!(outcome, Err(NotPassed::Failed(_))), "{outcome:?}");
        let hanging = Eventually {
            what: "three",
            expected: 3,
            observe: async || std::future::pending().await,
            likely: "",
        };
        let outcome = eventually(hanging, brief).await;
        assert!(
            matches!(outcome, Err(NotPassed::NoVerdict(_))),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn what_is_as_expected_when_the_time_ends_is_looked_at_on() {
        let brief = Budget {
            within: Duration::from_millis(50),
            ..QUICK
        };
        // Of the looks, nothing is one that hangs until the time ends.
        let judged = async |looks: &[Option<u32>]| {
            let mut looks = looks.iter();
            let expectation = Eventually {
                what: "three",
                expected: 3,
                observe: async || match looks.next() {
                    Some(Some(seen)) => Ok(*seen),
                    Some(None) | None => std::future::pending().await,
                },
                likely: "",
            };
            eventually(expectation, brief).await
        };
        judged(&[Some(3), None, Some(3)]).await.unwrap();
        // The one that hangs began before what is as expected came to be.
        judged(&[Some(4), None, Some(3), Some(3)]).await.unwrap();
        for otherwise in [
            &[Some(4)][..],
            &[Some(4), None, Some(4)],
            &[Some(3), None, Some(4)],
        ] {
            let outcome = judged(otherwise).await;
            assert!(
                matches!(outcome, Err(NotPassed::Failed(_))),
                "{otherwise:?}: {outcome:?}"
            );
        }
        let outcome = judged(&[Some(3), None, None]).await;
        assert!(
            matches!(outcome, Err(NotPassed::NoVerdict(_))),
            "{outcome:?}"
        );
    }
}
