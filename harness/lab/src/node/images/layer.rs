//! Unpacking a layer over those below it.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType};

/// Marks a name as deleted.
const WHITEOUT: &str = ".wh.";
/// Marks a directory as replaced: what lower layers had in it is gone.
const OPAQUE: &str = ".wh..wh..opq";

/// Unpacks one layer's tar, which is read twice. Owners are not kept, since the lab has one user id;
/// device files are left out, since it may not make them, and `/dev` is mounted anyway.
pub(super) fn unpack<R: Read>(layer: impl Fn() -> R, into: &Path) -> io::Result<()> {
    // A marker may come after what its own layer adds, and hides lower layers only.
    for path in paths(layer())? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let Some(directory) = inside(into, path.parent().unwrap_or(Path::new(""))) else {
            continue;
        };
        if name == OPAQUE {
            if let Ok(entries) = fs::read_dir(&directory) {
                for entry in entries {
                    remove(&entry?.path())?;
                }
            }
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            remove(&directory.join(hidden))?;
        }
    }
    let mut archive = Archive::new(layer());
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(WHITEOUT)) {
            continue;
        }
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::Char | EntryType::Block | EntryType::Fifo) {
            continue;
        }
        if let Some(existing) = inside(into, &path) {
            let is_directory = fs::symlink_metadata(&existing).map(|data| data.is_dir());
            // A directory merges with a directory; all else replaces.
            if is_directory.is_ok_and(|is_directory| !(is_directory && kind.is_dir())) {
                remove(&existing)?;
            }
        }
        entry.unpack_in(into)?;
    }
    Ok(())
}

fn paths(layer: impl Read) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in Archive::new(layer).entries()? {
        let path = entry?.path()?.into_owned();
        if path.to_string_lossy().contains(WHITEOUT) {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// `path` below `root`, if nothing on the way leads out of it.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut full = root.to_owned();
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        match component {
            Component::Normal(part) => full.push(part),
            Component::CurDir | Component::RootDir => continue,
            Component::ParentDir | Component::Prefix(_) => return None,
        }
        let link = fs::symlink_metadata(&full).is_ok_and(|data| data.is_symlink());
        if link && components.peek().is_some() {
            return None;
        }
    }
    (full != root)
        .then_some(full)
        .or_else(|| path.as_os_str().is_empty().then(|| root.to_owned()))
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            let content = content.map(str::as_bytes);
            header.set_entry_type(match content {
                Some(_) => EntryType::Regular,
                None => EntryType::Directory,
            });
            header.set_mode(if content.is_some() { 0o644 } else { 0o755 });
            header.set_size(content.map_or(0, <[u8]>::len) as u64);
            builder
                .append_data(&mut header, path, content.unwrap_or_default())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn whiteouts_hide_lower_layers_only() {
        let root = tempfile::tempdir().unwrap();
        let lower = layer(&[
            ("etc", None),
            ("etc/a", Some("1")),
            ("etc/b", Some("1")),
            ("opt", None),
            ("opt/old", Some("1")),
            ("kind", None),
            ("kind/x", Some("1")),
        ]);
        let upper = layer(&[
            ("etc/.wh.a", Some("")),
            ("etc/b", Some("2")),
            ("opt/new", Some("2")),
            ("opt/.wh..wh..opq", Some("")),
            ("kind", Some("now a file")),
        ]);
        unpack(|| lower.as_slice(), root.path()).unwrap();
        unpack(|| upper.as_slice(), root.path()).unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).ok();
        assert_eq!(read("etc/a"), None);
        assert_eq!(read("etc/b").as_deref(), Some("2"));
        assert_eq!(read("opt/old"), None);
        assert_eq!(read("opt/new").as_deref(), Some("2"));
        assert_eq!(read("kind").as_deref(), Some("now a file"));
        assert_eq!(read("etc/.wh.a"), None);
    }
}
