//! What content is known by.

use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// A SHA-256, and the length where that is known too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// In small hexadecimal digits.
    pub sha256: String,
    /// In bytes.
    pub length: Option<u64>,
}

impl Sum {
    /// What a file holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut file = std::fs::File::open(path)?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            hash.update(bytes);
            length += read as u64;
        }
        let digits = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            sha256: digits,
            length: Some(length),
        })
    }

    /// Whether this, which was found, is what a pin says.
    #[must_use]
    pub fn is(&self, pinned: &Self) -> bool {
        let length = pinned
            .length
            .is_none_or(|length| self.length == Some(length));
        length && self.sha256 == pinned.sha256
    }

    /// Whether a text is a SHA-256 as we write it.
    pub(super) fn is_sha256(text: &str) -> bool {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        text.len() == 64 && text.bytes().all(digit)
    }

    /// Reads what `sha256sum` writes and publishers put beside a file: the digits alone, or lines of
    /// digits and a name, of which the file's own counts.
    pub(super) fn beside(text: &str, file: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let sha256 = words.next()?.to_ascii_lowercase();
            let name = words.next().map(|name| name.trim_start_matches('*'));
            let named = name.is_none_or(|name| name.rsplit('/').next() == Some(file));
            (Self::is_sha256(&sha256) && named).then_some(sha256)
        });
        let length = None;
        lines.next().map(|sha256| Self { sha256, length })
    }

    /// The line that [`Self::beside`] reads, and `sha256sum --check` too.
    pub(super) fn line(&self, file: &str) -> String {
        format!("{}  {file}\n", self.sha256)
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA-256 {}", self.sha256)?;
        match self.length {
            Some(length) => write!(f, " ({length} bytes)"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_file_is_known_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, "").unwrap();
        let found = Sum::of(&path).unwrap();
        let pinned = |sha256: &str, length| Sum {
            sha256: sha256.to_owned(),
            length,
        };
        assert!(found.is(&pinned(EMPTY, Some(0))));
        assert!(found.is(&pinned(EMPTY, None)));
        assert!(!found.is(&pinned(EMPTY, Some(1))));
        assert!(!found.is(&pinned(&EMPTY.replace('e', "f"), None)));
    }

    #[test]
    fn sums_beside_files_are_read_as_publishers_write_them() {
        let read = |text: &str| Sum::beside(text, "a.tar.gz").map(|sum| sum.sha256);
        let other = EMPTY.replace('e', "f");
        for text in [
            EMPTY.to_owned(),
            format!("{EMPTY}\n"),
            format!("{EMPTY}  a.tar.gz\n"),
            format!("{EMPTY} *a.tar.gz"),
            format!(
                "{other}  b.tar.gz\n{}  dist/a.tar.gz\n",
                EMPTY.to_uppercase()
            ),
        ] {
            assert_eq!(read(&text).as_deref(), Some(EMPTY), "{text}");
        }
        for text in [
            "",
            "<html>not found</html>",
            &EMPTY[1..],
            &format!("{EMPTY}  b.tar.gz"),
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let sum = Sum::beside(EMPTY, "a").unwrap();
        assert_eq!(Sum::beside(&sum.line("a"), "a"), Some(sum));
    }
}
