//! Shares among outcomes of which some are failures on purpose, or that need no fine comb.
//!
//! Start from [`shares`]. [`strata::Scope::split`] is the rule: it judges failures apart, at five points.
//! Here a failure that is no arm breaks the split, and the tolerance is the caller's to state: the
//! number of requests goes with its inverse square.

use strata::wire::{Reply, RequestSpec};
use strata::{Outcome, Sampling, Scope, Sorted, Vantage};

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
    let Shares {
        what,
        arms,
        arm_of,
        tolerance,
        likely,
    } = expected;
    scope
        .sample(Sampling {
            what,
            from: &[from],
            spec: &RequestSpec {
                concurrency: 8,
                ..spec.clone()
            },
            arms,
            tolerance,
            sort: &|reply| Sorted::Arm(arm_of(reply)),
            likely,
        })
        .await
}
