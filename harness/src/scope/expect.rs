//! Expectations that observe: until it settles, and shares of a split.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::PoisonError;

use strata_probe::{Reply, RequestSpec};

use super::Scope;
use crate::check::Outcome;
use crate::layer::{self, Subject};
use crate::probe::Vantage;
use crate::verdict::NoVerdict;

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
    /// `Failed` when they are not within the budget; the form tells how often it was looked and
    /// since when nothing changed. `NoVerdict` when an observation could not be made.
    pub async fn eventually<T: PartialEq + Debug>(
        &self,
        mut expectation: Eventually<'_, T, impl AsyncFnMut() -> Result<T, NoVerdict>>,
    ) -> Outcome {
        let _ = (expectation.observe)().await?;
        Err(NoVerdict::new("not built yet").into())
    }

    /// Sends requests until it is decided whether the arms receive their shares (any unit; `arm_of`
    /// names the arm of a reply). Failed requests are judged apart. Sample size, α and β are
    /// recorded.
    ///
    /// # Errors
    /// `Failed` if requests fail or an arm does not receive its share.
    pub async fn split(
        &self,
        from: &Vantage,
        spec: &RequestSpec,
        arms: &[(&str, f64)],
        arm_of: impl Fn(&Reply) -> String,
        likely: &str,
    ) -> Outcome {
        let _ = (from.request(spec).await?, arms, &arm_of, likely);
        Err(NoVerdict::new("not built yet").into())
    }

    /// Each arm's share, 0 to 1, as the latest [`Self::split`] of this check observed it; empty
    /// before that.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<String, f64> {
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.clone()
    }

    /// Names the cause of a failure, if objects show it. Never changes the verdict.
    ///
    /// # Errors
    /// The outcome it is given.
    pub async fn explain(&self, outcome: Outcome, subject: Subject<'_>) -> Outcome {
        let Err(not_passed) = outcome else {
            return outcome;
        };
        match layer::diagnose(self, &subject).await {
            Ok(Some(cause)) => Err(not_passed.caused_by(cause)),
            _ => Err(not_passed),
        }
    }
}
