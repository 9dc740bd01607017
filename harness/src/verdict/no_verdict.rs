//! Why nothing can be said about a claim.

use std::fmt::Write as _;
use std::time::Duration;

use super::Finding;

/// The kinds of not knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoVerdictKind {
    /// An operation of the harness failed: the API, an exec, a file.
    Error,
    /// A condition that the check needs first was not reached in time.
    NotReached,
    /// The whole check took too long.
    Deadline,
    /// The check's own code panicked.
    Panic,
    /// What was seen was seen where nothing was done in time.
    Starved,
}

impl NoVerdictKind {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::NotReached => "not-reached",
            Self::Deadline => "deadline",
            Self::Panic => "panic",
            Self::Starved => "starved",
        }
    }
}

/// We could not tell whether the claim holds. Any error turns into one with `?`; [`Doing`] says
/// what was being done.
#[derive(Debug, Clone)]
pub struct NoVerdict {
    kind: NoVerdictKind,
    doing: Vec<String>,
    because: String,
    likely: Option<String>,
}

impl NoVerdict {
    /// An operation failed.
    #[must_use]
    pub fn new(because: impl Into<String>) -> Self {
        Self::of(NoVerdictKind::Error, because)
    }

    /// A condition was not reached in time; `because` is the last reason why not.
    #[must_use]
    pub fn not_reached(because: impl Into<String>) -> Self {
        Self::of(NoVerdictKind::NotReached, because)
    }

    /// An operation failed with this error, which is still somebody else's.
    pub(crate) fn of_chain(error: &anyhow::Error) -> Self {
        Self::new(chain(error))
    }

    /// The error that one is where nobody is judged: for who makes clusters and installs into them.
    pub(crate) fn into_error(self) -> anyhow::Error {
        anyhow::anyhow!("{}: {}", self.doing(), self.because)
    }

    pub(crate) fn deadline(after: Duration) -> Self {
        let because = format!("the check did not end within {} s", after.as_secs());
        Self::of(NoVerdictKind::Deadline, because)
            .with_likely("a wait without a bound of its own, which is a defect of the check")
    }

    /// What would be a finding, had the vantage itself not been so late.
    pub(crate) fn starved(finding: &Finding, late: Duration) -> Self {
        let because = format!(
            "{} came to {}; but what was asked for where that was seen was done up to {:.1} s late, and whoever was to \
             answer may have been as late",
            finding.what(),
            finding.observed(),
            late.as_secs_f64()
        );
        Self::of(NoVerdictKind::Starved, because).with_likely(
            "the vantage's node has more to do than it has processors for: a quieter machine, or fewer checks side by \
             side (--test-threads)",
        )
    }

    pub(crate) fn panic(message: impl Into<String>) -> Self {
        Self::of(
            NoVerdictKind::Panic,
            format!("its own code panicked: {}", message.into()),
        )
        .with_likely("a defect of the check or of the harness, not of the cluster")
    }

    fn of(kind: NoVerdictKind, because: impl Into<String>) -> Self {
        Self {
            kind,
            doing: Vec::new(),
            because: because.into(),
            likely: None,
        }
    }

    /// The same, with a cause to look at.
    #[must_use]
    pub fn with_likely(mut self, likely: impl Into<String>) -> Self {
        self.likely = Some(likely.into());
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> NoVerdictKind {
        self.kind
    }

    /// What was being done, the outermost first; empty if nothing was said about it.
    #[must_use]
    pub fn doing(&self) -> String {
        self.doing
            .iter()
            .rev()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(": ")
    }

    /// Why it could not be done, with the chain of causes.
    #[must_use]
    pub fn because(&self) -> &str {
        &self.because
    }

    /// A cause to look at.
    #[must_use]
    pub fn likely(&self) -> Option<&str> {
        self.likely.as_deref()
    }

    fn inside(mut self, doing: String) -> Self {
        self.doing.push(doing);
        self
    }
}

// NoVerdict is not an Error itself, as anyhow's is not: that is what lets every error turn into it.
impl<E: Into<anyhow::Error>> From<E> for NoVerdict {
    fn from(error: E) -> Self {
        Self::new(chain(&error.into()))
    }
}

/// An error with its causes in one line. A cause whose text its parent already ends with (many
/// crates print their source themselves) is not said twice.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let refused = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => Some(status),
            _ => None,
        };
        // The crate prints the whole Status with every field; people read its sentence.
        if let Some(status) = refused {
            let separator = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{separator}the API refused: {}", status.message);
            if !status.reason.is_empty() {
                let _ = write!(text, " ({} {})", status.code, status.reason);
            }
            break;
        }
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Says what was being done when something failed.
pub trait Doing<T> {
    /// `doing` completes the sentence "no verdict while …".
    ///
    /// # Errors
    /// The error it is called on, as a [`NoVerdict`].
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, NoVerdict>;
}

impl<T, E: Into<NoVerdict>> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, NoVerdict> {
        self.map_err(|error| error.into().inside(doing()))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::verdict::{NotPassed, Outcome};

    #[test]
    fn any_error_turns_into_it_and_causes_are_said_once() {
        let error = std::io::Error::other("disk full");
        let outcome = || -> Outcome {
            Err(error)
                .context("writing a.txt")
                .doing(|| "applying web.yaml".into())?
        };
        let Err(NotPassed::NoVerdict(no_verdict)) = outcome() else {
            panic!("a verdict")
        };
        assert_eq!(no_verdict.doing(), "applying web.yaml");
        assert_eq!(no_verdict.because(), "writing a.txt: disk full");
        assert_eq!(
            NoVerdict::from(anyhow::anyhow!("b").context("a: b")).because(),
            "a: b"
        );
    }

    #[test]
    fn what_the_api_refuses_is_its_sentence() {
        let status = kube::core::Status::failure("pods \"web\" not found", "NotFound")
            .with_code(404)
            .boxed();
        let error = anyhow::Error::from(kube::Error::Api(status)).context("reading it");
        assert_eq!(
            NoVerdict::from(error).because(),
            "reading it: the API refused: pods \"web\" not found (404 NotFound)"
        );
    }
}
