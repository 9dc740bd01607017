//! The probe's OCI image.

/// The image's reference.
pub const REFERENCE: &str = "strata.dev/probe:v1";
