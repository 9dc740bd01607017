//! What chance decides: judged by tests that state how often they are wrong, and prove it.
//!
//! Start from [`split`], the sequential test of a weighted composition, and [`Ledger`], from which
//! every test of chance draws its α; `docs/statistics.md` tells it all in words. [`dependence`] asks
//! whether requests are drawn one by one at all, [`bound`] how many may fail and whether a spread is
//! even, [`cover`] how many requests meet everybody. [`exact`] computes what the split's test comes
//! to, and [`rules`] the same for the rules of two other suites. Rule: error rates are bounds that
//! are proven or computed, never simulated; nothing here looks at a cluster.

pub mod bound;
pub mod cover;
pub mod dependence;
pub mod exact;
pub mod fixed;
mod ledger;
pub mod rules;
pub mod split;
mod walk;

pub use ledger::{BUDGET, Ledger, Test};

/// A count as a number.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^52"
)]
fn count(n: u64) -> f64 {
    n as f64
}
