//! The report as data: the schema of `report.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::verdict::chance::{BUDGET, Test};
use crate::verdict::{Finding, NoVerdict};

/// The version of the schema. Fields are only ever added under it.
pub const SCHEMA: &str = "strata.report/v1";

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of strata.
    pub strata: String,
    /// The run's short random name.
    pub run: String,
    /// What everything random derives from.
    pub seed: u64,
    /// The arguments of the run.
    pub arguments: Vec<String>,
    /// When it began (RFC 3339).
    pub started: String,
    /// How long it took until this was written.
    pub seconds: f64,
    /// What was judged, once it is there.
    pub cluster: Option<ClusterReport>,
    /// Layer by layer, in the order of bring-up.
    pub layers: Vec<LayerReport>,
    /// How often a run like this complains of a cluster that is right.
    #[serde(default)]
    pub false_alarms: FalseAlarms,
    /// What went wrong beside the verdicts: evidence, cleanup, teardown.
    pub troubles: Vec<String>,
    /// How it ended; absent while it runs, and if it was killed.
    pub ending: Option<Ending>,
}

/// The run's budget of false alarms, and what its tests of chance have drawn from it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FalseAlarms {
    /// What a run may come to.
    pub budget: f64,
    /// How many tests of chance it made.
    pub tests: usize,
    /// The sum of their α: the probability that any of them complains by chance, at most.
    pub bound: f64,
}

impl Default for FalseAlarms {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl FalseAlarms {
    pub(crate) fn of(layers: &[LayerReport]) -> Self {
        let drawn = || {
            let trials = layers.iter().flat_map(|layer| &layer.trials);
            trials.flat_map(|trial| &trial.chance)
        };
        Self {
            budget: BUDGET,
            tests: drawn().count(),
            // The sum of nothing is -0.
            bound: drawn().map(|drawn| drawn.alpha).sum::<f64>() + 0.0,
        }
    }
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterReport {
    /// Who made it.
    pub provider: String,
    /// What runs in it.
    pub versions: BTreeMap<String, String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// The exit code.
    pub code: u8,
    /// The same in words.
    pub meaning: String,
    /// What to do about it, where there is something to do.
    pub remark: Option<String>,
}

impl Ending {
    pub(crate) fn new(exit: Exit, remark: Option<String>) -> Self {
        Self {
            code: exit.code(),
            meaning: exit.meaning().to_owned(),
            remark,
        }
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerReport {
    /// Its name.
    pub layer: String,
    /// Its trials, in the order of the plan.
    pub trials: Vec<TrialReport>,
}

/// What a trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialKind {
    /// A layer's bring-up.
    Up,
    /// A gate of the layer.
    Gate,
    /// A gate of a lower layer, again.
    Regression,
    /// Any other check.
    Check,
}

/// What a trial came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Not run yet; in a finished report it means that the run ended first.
    Pending,
    /// The claim holds.
    Passed,
    /// The cluster broke the claim.
    Failed,
    /// The cluster broke the claim, as the profile of its implementation says that it does.
    Deviates,
    /// We could not tell.
    NoVerdict,
    /// Not run, since something below fell.
    Blocked,
    /// Not run, since the cluster cannot do what it needs, or the run was interrupted.
    Skipped,
}

impl Verdict {
    /// Whether a claim was judged.
    #[must_use]
    pub const fn judged(self) -> bool {
        matches!(self, Self::Passed | Self::Failed | Self::Deviates)
    }
}

/// One trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialReport {
    /// Its name on the command line.
    pub name: String,
    /// What it is.
    pub kind: TrialKind,
    /// What should be true of the cluster.
    pub claim: String,
    /// The specification that says so.
    pub source: String,
    /// What it came to.
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
    /// Why it was blocked or skipped, or deviates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// If it failed or deviates: the form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<FindingReport>,
    /// If there is no verdict: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_verdict: Option<NoVerdictReport>,
    /// What the check noted: sample sizes, error rates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<(String, String)>,
    /// Its tests of chance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chance: Vec<Drawn>,
    /// What was collected about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What to type to run it again.
    pub again: String,
    /// What went wrong beside the verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

impl TrialReport {
    /// A trial that was not run yet.
    pub(crate) fn pending(name: impl Into<String>, kind: TrialKind) -> Self {
        Self {
            name: name.into(),
            kind,
            claim: String::new(),
            source: String::new(),
            verdict: Verdict::Pending,
            seconds: 0.0,
            reason: None,
            finding: None,
            no_verdict: None,
            records: Vec::new(),
            chance: Vec::new(),
            evidence: None,
            again: String::new(),
            troubles: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn with(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }
}

impl From<&Finding> for FindingReport {
    fn from(finding: &Finding) -> Self {
        Self {
            what: finding.what().to_owned(),
            expected: finding.expected().to_owned(),
            observed: finding.observed().to_owned(),
            likely: finding.likely(),
            diagnosed: finding.cause().is_some(),
            cause: finding.cause().map(|cause| cause.kind.name().to_owned()),
        }
    }
}

impl From<&NoVerdict> for NoVerdictReport {
    fn from(no_verdict: &NoVerdict) -> Self {
        Self {
            kind: no_verdict.kind().name().to_owned(),
            doing: no_verdict.doing(),
            because: no_verdict.because().to_owned(),
            likely: no_verdict.likely().map(ToOwned::to_owned),
        }
    }
}

/// A test of chance, and what it drew from the run's budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drawn {
    /// Its kind (`docs/statistics.md`).
    pub test: String,
    /// The probability with which it complains of a cluster that is right, at most.
    pub alpha: f64,
}

impl From<Test> for Drawn {
    fn from(test: Test) -> Self {
        Self {
            test: test.name().to_owned(),
            alpha: test.alpha(),
        }
    }
}

/// A broken claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FindingReport {
    /// What was looked at.
    pub what: String,
    /// What should have been seen.
    pub expected: String,
    /// What was seen.
    pub observed: String,
    /// The likely cause.
    pub likely: String,
    /// Whether evidence names the cause, or its author only thought of it.
    pub diagnosed: bool,
    /// The kind of the cause that evidence names (`docs/causes.md`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Why nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NoVerdictReport {
    /// `error`, `not-reached`, `deadline`, `panic`, `starved`.
    pub kind: String,
    /// What was being done.
    pub doing: String,
    /// Why it could not be done.
    pub because: String,
    /// A cause to look at.
    pub likely: Option<String>,
}

/// Files about a trial that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Their folder.
    pub dir: String,
    /// Their names.
    pub files: Vec<String>,
}
