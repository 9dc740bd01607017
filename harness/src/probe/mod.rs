//! Asking a vantage to send traffic.
//!
//! Start from [`Vantage`]. Questions and answers go over the API's `exec` (or, outside the cluster,
//! over the provider), never through the network that is judged; what the network did is in the
//! typed replies of [`strata_probe`]. Judging them is `verdict`'s work. Rule: an error here says
//! that we could not ask, and why, never that the network failed.

mod answers;
mod exec;
mod transcript;
mod vantage;

pub use answers::Answers;
pub(crate) use answers::failure;
pub use transcript::Transcript;
pub use vantage::Vantage;

/// The probe's binary, built by this crate's build script for the machine that runs the harness.
static BINARY: &[u8] = include_bytes!(env!("EMBEDDED_PROBE"));

/// The probe's image: an archive that every container runtime loads.
///
/// # Errors
/// When the embedded binary is not one for a machine we know, which is a defect of the build.
pub fn image() -> Result<Vec<u8>, strata_probe::image::ImageError> {
    strata_probe::image::archive(BINARY)
}
