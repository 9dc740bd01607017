//! Stub: the `suites` part owns this folder. The runner calls `open`, `records`,
//! `collect_evidence` and `close`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::check::Check;
use crate::provider::Cluster;
use crate::runner::RunInfo;
use crate::verdict::NoVerdict;

/// What a check's body is given: the cluster, a namespace of its own if it has a manifest, and the
/// vantages to send traffic from.
pub struct Scope {
    cluster: Arc<Cluster>,
    check: &'static Check,
    evidence: PathBuf,
    records: std::sync::Mutex<Vec<(String, String)>>,
}

impl Scope {
    /// Makes the namespace and applies the manifest, if the check has one.
    ///
    /// # Errors
    /// When the API refuses or cannot be reached.
    pub async fn open(
        cluster: Arc<Cluster>,
        check: &'static Check,
        _run: &RunInfo,
        evidence: &Path,
    ) -> Result<Self, NoVerdict> {
        let records = std::sync::Mutex::default();
        Ok(Self {
            cluster,
            check,
            evidence: evidence.to_owned(),
            records,
        })
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The check.
    #[must_use]
    pub fn check(&self) -> &'static Check {
        self.check
    }

    /// Notes a fact for the reports (sample sizes, error rates).
    pub fn record(&self, key: &str, value: impl ToString) {
        if let Ok(mut records) = self.records.lock() {
            records.push((key.to_owned(), value.to_string()));
        }
    }

    /// The facts noted.
    #[must_use]
    pub fn records(&self) -> Vec<(String, String)> {
        self.records
            .lock()
            .map(|records| records.clone())
            .unwrap_or_default()
    }

    /// Writes what explains a check that did not pass; returns the files' names.
    pub async fn collect_evidence(&self) -> Vec<String> {
        let _ = &self.evidence;
        Vec::new()
    }

    /// Deletes the namespace and waits until it is gone; returns what went wrong with that.
    pub async fn close(self) -> Vec<String> {
        Vec::new()
    }
}
