//! Manifests: read and checked before any cluster exists, and applied.
//!
//! Start from [`load_planned`], which reads everything that a run will need, and [`Applier`], which
//! applies it. What a layer or a check is and when it is applied is `layer`'s and `scope`'s. Rule:
//! a file that is missing or malformed is the person's to mend before anything is started, and the
//! sentence names file and line; what a cluster refuses is told with the document that it refused.

mod applier;
mod bundle;
mod definitions;
mod fit;
mod manifest;
mod namespace;
mod planned;
mod ready;
pub mod restricted;
mod webhook;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod bundle_tests;
#[cfg(test)]
mod tests;

pub use applier::{Applier, Refusal};
pub(crate) use applier::{FIELD_MANAGER, Global};
pub(crate) use bundle::install;
pub use definitions::Definitions;
pub use fit::{Fit, GATEWAY_CLASS, ProbeImage};
pub use manifest::{Document, Manifest, ManifestError, NEEDS_ANNOTATION};
pub use namespace::RUN_LABEL;
pub(crate) use namespace::{close_namespace, open_namespace, remaining};
pub use planned::{LayerManifests, Manifests, Variant, folder, load_planned};
pub(crate) use ready::ready;
