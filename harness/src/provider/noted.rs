//! Files that only this user reads, in the place of files in memory, where there are none that other programs find.
//!
//! Start from [`NotedFile`]. It is in a folder of this user's and held locked, as claims are ([`Claim`]), so one that a
//! killed run left is known by that: the next run that needs such a file removes it, and so does `scripts/sweep`.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::claim::{self, Claim};

/// A file that goes with whoever holds this.
#[derive(Debug)]
pub(super) struct NotedFile {
    path: PathBuf,
    claim: Option<Claim>,
}

impl NotedFile {
    /// Holds these bytes; `name` is a part of the file's.
    ///
    /// # Errors
    /// When it cannot be written, or what a killed run left cannot be removed.
    pub(super) fn new(name: &str, bytes: &[u8]) -> anyhow::Result<Self> {
        let folder = claim::folder("files");
        Self::within(claim::noted(folder.as_deref(), "files")?, name, bytes)
    }

    fn within(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<Self> {
        let cannot = || format!("cannot hold {name} in {}", folder.display());
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(folder).with_context(cannot)?;
        for abandoned in claim::abandoned(folder)? {
            abandoned.drop_it()?;
        }
        let name = format!("{name}-{}", std::process::id());
        let claim = Claim::new(folder, &name, bytes)?;
        let path = folder.join(name);
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).with_context(cannot)?;
        Ok(Self {
            path,
            claim: Some(claim),
        })
    }

    /// Where programs find it.
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Drop for NotedFile {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.claim.take().map(Claim::drop_it) {
            tracing::warn!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_its_user_s_alone_and_goes_with_its_owner_or_with_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("files");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        std::fs::create_dir(&folder).unwrap();
        let killed = folder.join("kubeconfig-1");
        std::fs::write(&killed, "of a run that was killed").unwrap();
        let file = NotedFile::within(&folder, "kubeconfig", b"read me").unwrap();
        assert!(!killed.exists());
        assert_eq!(std::fs::read(file.path()).unwrap(), b"read me");
        assert_eq!(mode(&file.path()), 0o700);
        let path = file.path();
        drop(file);
        assert!(!path.exists());
        let folder = dir.path().join("made");
        let _file = NotedFile::within(&folder, "kubeconfig", b"").unwrap();
        assert_eq!(mode(&folder), 0o700);
    }
}
