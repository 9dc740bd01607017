//! Files that are in memory alone and have no name: nothing is left of them, however the process ends.
//!
//! Start from [`MemoryFile`]. Programs that this one starts find it under `/proc`, as long as this one
//! runs.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use anyhow::Context as _;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file in memory.
#[derive(Debug)]
pub(super) struct MemoryFile(File);

impl MemoryFile {
    /// Holds these bytes; `name` is what `ps` and `lsof` show.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub(super) fn new(name: &str, bytes: &[u8]) -> anyhow::Result<Self> {
        let cannot = || format!("cannot hold {name} in memory");
        let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC).with_context(cannot)?);
        file.write_all(bytes).with_context(cannot)?;
        Ok(Self(file))
    }

    /// Where programs find it.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_and_run_like_any_file_and_goes_with_its_owner() {
        let file = MemoryFile::new("words", b"read me").unwrap();
        let path = file.path();
        assert_eq!(std::fs::read(&path).unwrap(), b"read me");
        // By its name, since the number may be another file's as soon as this one is closed.
        let is_it = || std::fs::read_link(&path).is_ok_and(|to| to == *"/memfd:words (deleted)");
        assert!(is_it());
        drop(file);
        assert!(!is_it());
        let program = std::fs::read("/proc/self/exe").unwrap();
        let program = MemoryFile::new("program", &program).unwrap();
        let listed = std::process::Command::new(program.path())
            .arg("--list")
            .output()
            .unwrap();
        assert!(listed.status.success());
    }
}
