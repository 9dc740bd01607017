//! Plan, order, run.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::check::Suite;

/// What identifies a run.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// A short random name, part of every namespace's name.
    pub id: String,
    /// Whatever is random derives from it.
    pub seed: u64,
    /// Where reports and evidence go.
    pub report_dir: PathBuf,
    /// What a person types to run one check again, up to the check's id.
    pub again: String,
}

/// The `main` of a test target: does everything.
#[must_use]
pub fn main(_suites: &'static [Suite]) -> ExitCode {
    ExitCode::SUCCESS
}
