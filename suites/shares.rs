//! Shares among outcomes of which some are failures on purpose, or that need no fine comb.
//!
//! Start from [`shares`]. [`strata::Scope::split`] is the rule: it judges failures apart, at five points.
//! Here a failure that is no arm breaks the split, and the tolerance is the caller's to state: the
//! number of requests goes with its inverse square.

use strata::verdict::split::{ALPHA, BETA, Decision, SplitTest};
use strata::wire::{Reply, RequestSpec};
use strata::{Outcome, Scope, Vantage};

/// What is expected of a share.
pub(crate) struct Shares<'a> {
    /// What is looked at.
    pub(crate) what: &'a str,
    /// Arms with their weights, in any unit.
    pub(crate) arms: &'a [(&'a str, f64)],
    /// The arm of a reply.
    pub(crate) arm_of: fn(&Reply) -> String,
    /// A deviation of so much, or more, is missed with probability β at most.
    pub(crate) tolerance: f64,
    /// A cause to look at.
    pub(crate) likely: &'a str,
}

/// Sends requests until it is decided whether the arms receive their shares, at the usual α and β.
pub(crate) async fn shares(
    scope: &Scope,
    from: &Vantage,
    spec: &RequestSpec,
    expected: Shares<'_>,
) -> Outcome {
    let arms = expected.arms.iter().copied();
    let mut test = SplitTest::with_rates(arms, ALPHA, BETA, expected.tolerance)?;
    while test.decision() == Decision::Undecided && test.requests() < test.at_most() {
        let spec = RequestSpec {
            count: 250,
            concurrency: 8,
            ..spec.clone()
        };
        for reply in from.request(&spec).await?.0 {
            test.observe(&(expected.arm_of)(&reply));
        }
    }
    for (key, value) in test.records() {
        scope.record(key, value);
    }
    test.judge(expected.what, expected.likely)
}
