//! A file that is not all there yet.
//!
//! Start from [`Partial::open`]. It lies beside the place of the whole one, as `FILE.partial`, and is
//! locked by whoever adds to it; the lock is the file's, so it ends with the process however that
//! ends, and the next run goes on where that one stopped. `FILE.partial.etag` says of which state of
//! the server's file it is a part. Rule: the whole file appears by a rename, or not at all.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::AssetError;

/// A part of a file, and the right to add to it.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    length: u64,
    /// What the server calls the state of its file that this is a part of.
    validator: Option<String>,
    /// Whether more than one answer has gone into it.
    pieced: bool,
    /// Whether it has become the whole file.
    whole: bool,
}

impl Partial {
    /// The part of a file that there is, or an empty one; nothing while another has it.
    ///
    /// # Errors
    /// When it cannot be made, read or locked.
    pub(super) fn open(target: &Path) -> Result<Option<Self>, AssetError> {
        let path = Self::path_of(target);
        loop {
            let opened = File::options()
                .read(true)
                .append(true)
                .create(true)
                .open(&path);
            let file = opened.map_err(AssetError::file(&path, "written"))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(AssetError::file(&path, "locked")(error));
                }
            }
            let ours = file.metadata().map_err(AssetError::file(&path, "read"))?;
            // Whoever had it may have renamed or removed it between the two.
            let there = std::fs::metadata(&path);
            if !there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                continue;
            }
            let length = ours.len();
            let validator = std::fs::read_to_string(etag_of(&path)).ok();
            return Ok(Some(Self {
                file,
                path,
                length,
                validator: validator.filter(|text| length > 0 && !text.is_empty()),
                pieced: length > 0,
                whole: false,
            }));
        }
    }

    /// Where the part of a file is.
    pub(super) fn path_of(target: &Path) -> PathBuf {
        beside(target, ".partial")
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// Whether more than one answer has gone into it, so that it may be none of the server's files.
    pub(super) fn pieced(&self) -> bool {
        self.pieced
    }

    /// Begins anew, with an answer that the server says is of this state.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn begin(&mut self, validator: Option<&str>) -> Result<(), AssetError> {
        // What is written goes to the end, wherever that is.
        let emptied = self.file.set_len(0);
        emptied.map_err(AssetError::file(&self.path, "emptied"))?;
        (self.length, self.pieced) = (0, false);
        self.validator = validator.map(str::to_owned);
        let etag = etag_of(&self.path);
        match validator {
            // Before the first byte: one that is killed in between has nothing to go on from.
            Some(text) => std::fs::write(&etag, text).map_err(AssetError::file(&etag, "written")),
            None => {
                let _ = std::fs::remove_file(etag);
                Ok(())
            }
        }
    }

    /// Says that what is added now comes from a further answer.
    pub(super) fn go_on(&mut self) {
        self.pieced = true;
    }

    /// Adds bytes at its end.
    ///
    /// # Errors
    /// When the file cannot be written: the disk may be full.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), AssetError> {
        let added = self.file.write_all(bytes);
        added.map_err(AssetError::file(&self.path, "written"))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Becomes the whole file.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn finish(mut self, target: &Path) -> Result<(), AssetError> {
        let synced = self.file.sync_all();
        synced.map_err(AssetError::file(&self.path, "written"))?;
        let renamed = std::fs::rename(&self.path, target);
        renamed.map_err(AssetError::file(target, "written"))?;
        self.whole = true;
        let _ = std::fs::remove_file(etag_of(&self.path));
        Ok(())
    }

    /// Goes, with all that there is of it.
    pub(super) fn discard(mut self) {
        self.length = 0;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole && self.length == 0 {
            // Ours as long as the lock is, which ends after this.
            let _ = std::fs::remove_file(etag_of(&self.path));
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A file's neighbour.
pub(super) fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn etag_of(partial: &Path) -> PathBuf {
    beside(partial, ".etag")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_begun_is_gone_on_with_and_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        let mut partial = Partial::open(&target).unwrap().unwrap();
        assert!(Partial::open(&target).unwrap().is_none());
        partial.begin(Some("\"one\"")).unwrap();
        partial.add(b"ab").unwrap();
        assert!(!partial.pieced());
        drop(partial);
        assert_eq!(names(dir.path()), ["a.partial", "a.partial.etag"]);

        let mut partial = Partial::open(&target).unwrap().unwrap();
        assert_eq!(
            (partial.length(), partial.validator()),
            (2, Some("\"one\""))
        );
        assert!(partial.pieced());
        partial.add(b"cd").unwrap();
        partial.finish(&target).unwrap();
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"abcd");
    }

    #[test]
    fn beginning_anew_forgets_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        let mut partial = Partial::open(&target).unwrap().unwrap();
        partial.begin(Some("\"one\"")).unwrap();
        partial.add(b"abcd").unwrap();
        partial.begin(None).unwrap();
        partial.add(b"x").unwrap();
        assert_eq!((partial.length(), partial.validator()), (1, None));
        assert_eq!(names(dir.path()), ["a.partial"]);
        assert_eq!(std::fs::read(partial.path()).unwrap(), b"x");
        partial.discard();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn of_nothing_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        drop(Partial::open(&target).unwrap().unwrap());
        assert!(names(dir.path()).is_empty());
    }
}
