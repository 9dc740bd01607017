//! Does Kubernetes networking work here, layer by layer, and if not, why?
//!
//! Start from [`main`], which a test target calls with its table of [`Suite`]s. Each module says
//! in its first lines what it is for and what it leaves to others. Rule: only [`verdict`] says that
//! the cluster broke a claim; trouble of our own is never reported as the cluster's.

pub mod apply;
pub mod asset;
pub mod budget;
pub mod check;
pub mod deviation;
pub mod exit;
mod group;
pub mod layer;
pub mod pod;
pub mod probe;
pub mod provider;
pub mod report;
pub mod run;
pub mod runner;
pub mod scope;
#[cfg(test)]
mod script;
pub mod settings;
pub mod stack;
pub mod token;
pub mod verdict;
pub mod wait;
mod web;

pub use apply::Refusal;
pub use check::{Check, Suite};
pub use layer::{NEEDS_ANNOTATION, Subject};
pub use pod::PodView;
pub use probe::{Answers, Vantage};
pub use provider::{Denial, Need};
pub use run::RunInfo;
pub use runner::main;
pub use scope::{Eventually, Sampling, Scope, Sorted};
pub use stack::Layer;
/// The probe's wire types: specifications and replies.
pub use strata_probe as wire;
pub use verdict::{
    Cause, CauseKind, Doing, Expect, Finding, NoVerdict, NotPassed, Outcome, expect, expect_eq,
};
