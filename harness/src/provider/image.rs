//! The probe's image, as a provider gives it to its cluster's nodes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The probe's binary, built by this crate's build script for the machine that runs the harness.
static BINARY: &[u8] = include_bytes!(env!("EMBEDDED_PROBE"));

/// The probe as a program of this machine.
pub(super) fn binary() -> &'static [u8] {
    BINARY
}

/// The probe's image: an archive that every container runtime loads.
///
/// # Errors
/// When the embedded binary is not one for a machine we know, which is a defect of the build.
pub fn image() -> Result<Vec<u8>, strata_probe::image::ImageError> {
    strata_probe::image::archive(BINARY)
}

/// An image as a file, which is there as long as this is. In the report directory rather than a
/// temporary one: whoever kills this process leaves nothing elsewhere.
pub(super) struct Archive(PathBuf);

impl Archive {
    pub(super) fn write(dir: &Path) -> anyhow::Result<Self> {
        let image = image().context("the embedded probe makes no image")?;
        Self::of(&image, &dir.join(".probe-image.tar"))
    }

    /// Of another program.
    pub(super) fn of(image: &[u8], path: &Path) -> anyhow::Result<Self> {
        std::fs::write(path, image).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}
