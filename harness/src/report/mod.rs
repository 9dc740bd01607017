//! What a run leaves behind: `report.json` with everything, `junit.xml` for CI, and the lines that
//! a person reads.
//!
//! Start from [`Report`], the versioned model; [`write`] puts it on disk, whole or not at all, as
//! trials end, so that a killed run leaves readable files. Nothing here judges. Rule: the three
//! forms are made from the same model and never disagree.

mod form;
mod junit;
#[cfg(test)]
mod junit_rules;
mod model;
mod summary;

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

pub use form::form;
pub use model::{
    ClusterReport, Drawn, Ending, Evidence, FalseAlarms, FindingReport, LayerReport,
    NoVerdictReport, Report, SCHEMA, TrialKind, TrialReport, Verdict,
};
pub use summary::summary;

/// Writes `report.json` and `junit.xml` into a directory, each replaced atomically.
///
/// # Errors
/// When a file cannot be written; the previous one is then still there.
pub fn write(report: &Report, dir: &Path) -> anyhow::Result<()> {
    let mut json = serde_json::to_vec_pretty(report).context("cannot serialise the report")?;
    json.push(b'\n');
    replace(&dir.join("report.json"), &json)?;
    replace(&dir.join("junit.xml"), junit::render(report)?.as_bytes())
}

fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".report")
            .tempfile_in(dir)?;
        file.write_all(content)?;
        // Without this, a file for its owner alone would appear where CI's collector looks.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
