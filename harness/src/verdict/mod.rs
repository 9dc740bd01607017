//! What can be said about a claim: broken, with a filled-in form; or nothing, with the reason.
//!
//! Start from [`expect`] and [`expect_eq`], which alone make [`NotPassed::Failed`]. Everything here
//! is pure: it judges what was observed and observes nothing itself. Whatever chance decides goes
//! through [`split`] and [`bound`], which state their error rates.

pub mod bound;
pub(crate) mod cause;
mod finding;
mod no_verdict;
mod outcome;
pub mod split;

pub use cause::{Cause, CauseKind};
pub use finding::{Expect, Finding, expect, expect_eq};
pub use no_verdict::{Doing, NoVerdict, NoVerdictKind};
pub use outcome::{NotPassed, Outcome};
