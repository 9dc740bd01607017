//! The form that a broken claim fills in.

use std::fmt;

use super::Cause;
use crate::verdict::{NotPassed, Outcome};

/// A claim that the cluster broke. Only [`expect`] and [`expect_eq`] make one.
#[derive(Debug, Clone)]
pub struct Finding {
    what: String,
    expected: String,
    observed: String,
    likely: String,
    cause: Option<Cause>,
}

impl Finding {
    /// What was looked at.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What should have been seen.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// What was seen.
    #[must_use]
    pub fn observed(&self) -> &str {
        &self.observed
    }

    /// The cause that evidence names; failing that, the one that the check's author thought of.
    #[must_use]
    pub fn likely(&self) -> String {
        self.cause
            .as_ref()
            .map_or_else(|| self.likely.clone(), ToString::to_string)
    }

    /// The cause, where evidence names one.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// The same, with the cause named.
    #[must_use]
    pub fn caused_by(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }
}

/// What was expected and what was observed, in the words that a person reads if they differ.
#[derive(Debug, Clone)]
pub struct Expect {
    /// What was looked at: "30 requests to `http://web/` are answered by exactly the ready pods".
    pub what: String,
    /// What should be seen.
    pub expected: String,
    /// What was seen, printed the same way.
    pub observed: String,
    /// A cause to look at, not a restatement.
    pub likely: String,
}

/// Passes if it holds; the form is filled in only if it does not.
///
/// # Errors
/// [`NotPassed::Failed`] if it does not hold.
///
/// ```
/// use strata::{Expect, expect};
/// let status = 404;
/// let outcome = expect(status == 200, || Expect {
///     what: "the status of GET http://web/".into(),
///     expected: "200".into(),
///     observed: status.to_string(),
///     likely: "no Ingress rule matches the path".into(),
/// });
/// assert!(outcome.is_err());
/// ```
pub fn expect(holds: bool, form: impl FnOnce() -> Expect) -> Outcome {
    if holds {
        return Ok(());
    }
    let Expect {
        what,
        expected,
        observed,
        likely,
    } = form();
    let finding = Finding {
        what,
        expected,
        observed,
        likely,
        cause: None,
    };
    Err(NotPassed::Failed(Box::new(finding)))
}

/// Passes if what was observed is what was expected.
///
/// # Errors
/// [`NotPassed::Failed`] if the two differ; they are printed as `Debug` prints them.
pub fn expect_eq<T: PartialEq + fmt::Debug>(
    what: impl Into<String>,
    expected: &T,
    observed: &T,
    likely: impl Into<String>,
) -> Outcome {
    expect(expected == observed, || Expect {
        what: what.into(),
        expected: format!("{expected:?}"),
        observed: format!("{observed:?}"),
        likely: likely.into(),
    })
}
