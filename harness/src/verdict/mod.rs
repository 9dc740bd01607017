//! What can be said about a claim: broken, with a filled-in form; or nothing, with the reason.
//!
//! Start from [`expect`] and [`expect_eq`], which alone make [`NotPassed::Failed`]. Everything here
//! is pure: it judges what was observed and observes nothing itself. Whatever chance decides goes
//! through [`chance`], whose tests state their error rates.

pub(crate) mod cause;
pub mod chance;
mod finding;
mod late;
mod no_verdict;
mod outcome;

pub use cause::{Cause, CauseKind};
pub use chance::{bound, split};
pub use finding::{Expect, Finding, expect, expect_eq};
pub(crate) use late::Late;
pub use no_verdict::{Doing, NoVerdict, NoVerdictKind};
pub use outcome::{NotPassed, Outcome};
