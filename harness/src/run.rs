//! What identifies a run.
//!
//! Start from [`RunInfo`]; `runner` makes it, everybody may read it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::apply::Manifests;
use crate::stack::Layer;
use crate::verdict::chance::Ledger;

/// What identifies a run.
#[derive(Debug, Clone, Default)]
pub struct RunInfo {
    /// A short random name, part of every namespace's name.
    pub id: String,
    /// Whatever is random in a check derives from it.
    pub seed: u64,
    /// How many random requests a check sends that sends some.
    pub random_cases: usize,
    /// Where reports and evidence go.
    pub report_dir: PathBuf,
    /// What a person types to run one check again, up to the check's id.
    pub again: String,
    /// Everything that the run will apply.
    pub manifests: Arc<Manifests>,
    /// Which tests of chance each check may draw.
    pub chance: Ledger,
}

impl RunInfo {
    /// The namespace of a layer's fixture in this run.
    #[must_use]
    pub fn fixture_namespace(&self, layer: Layer) -> String {
        format!("strata-{layer}-{}", self.id)
    }
}
