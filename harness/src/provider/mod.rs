//! Where a cluster comes from.
//!
//! Start from [`Provider`]: one small trait, one file each. What a provider hands over is a
//! [`Cluster`], and everything after that is the same for all of them. Rule: nothing outside this
//! folder asks which provider it is; it asks what the cluster can do.

mod cluster;

use std::sync::Arc;

use async_trait::async_trait;

pub use cluster::{Cluster, Output, Outside};

use crate::runner::RunInfo;

/// Makes a cluster and takes it away again.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name, as `STRATA_PROVIDER` has it.
    fn name(&self) -> &'static str;

    /// Makes the cluster; `progress` is shown to the person who waits.
    ///
    /// # Errors
    /// A sentence that names what is wrong and what to do.
    async fn create(
        &self,
        run: &RunInfo,
        progress: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Arc<Cluster>>;

    /// Leaves the cluster running for the person; returns the lines that say how to reach it and
    /// how to end it.
    async fn keep(&self) -> Vec<String>;

    /// Takes the cluster away; returns what went wrong with that.
    async fn destroy(&self) -> Vec<String>;
}
