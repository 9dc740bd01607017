//! The probe's image, as a provider gives it to its cluster's nodes.

/// The probe's binary, built by this crate's build script for the machine that runs the harness.
static BINARY: &[u8] = include_bytes!(env!("EMBEDDED_PROBE"));

/// The probe's image: an archive that every container runtime loads.
///
/// # Errors
/// When the embedded binary is not one for a machine we know, which is a defect of the build.
pub fn image() -> Result<Vec<u8>, strata_probe::image::ImageError> {
    strata_probe::image::archive(BINARY)
}
