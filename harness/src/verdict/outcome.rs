//! What a check comes to.

use super::{Cause, Finding, Late, NoVerdict};

/// What a body comes to. `?` on anything of the harness yields [`NotPassed::NoVerdict`]; only the
/// expectations of this room make [`NotPassed::Failed`].
pub type Outcome = Result<(), NotPassed>;

/// The two ways not to pass.
#[derive(Debug)]
pub enum NotPassed {
    /// The cluster broke the claim.
    Failed(Box<Finding>),
    /// We could not tell.
    NoVerdict(NoVerdict),
}

impl<E: Into<NoVerdict>> From<E> for NotPassed {
    fn from(error: E) -> Self {
        Self::NoVerdict(error.into())
    }
}

impl NotPassed {
    /// The same, seen from vantages of which the latest was so late. What is late is no finding, unless its cause is what
    /// somebody wrote into an object: that is there however late it is.
    #[must_use]
    pub(crate) fn seen(self, late: Late) -> Self {
        let may_pass =
            |finding: &Finding| finding.cause().is_none_or(|cause| cause.kind.may_pass());
        match (self, late.too_late()) {
            (Self::Failed(finding), Some(late)) if may_pass(&finding) => {
                Self::NoVerdict(NoVerdict::starved(&finding, late))
            }
            (other, _) => other,
        }
    }

    /// Names the cause of a finding; where there is no verdict, there is nothing to explain.
    #[must_use]
    pub fn caused_by(self, cause: Cause) -> Self {
        match self {
            Self::Failed(finding) => Self::Failed(Box::new(finding.caused_by(cause))),
            other @ Self::NoVerdict(_) => other,
        }
    }
}
