//! Does Kubernetes networking work here, layer by layer, and if not, why?
//!
//! Start from [`main`], which a test target calls with its table of [`Suite`]s. A module may use
//! only those listed above it. Rule: only [`verdict`] says that the cluster broke a claim; trouble
//! of our own is never reported as the cluster's.

pub mod check;
