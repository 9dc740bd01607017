//! Replacing the files of a volume all at once, as kubelets do: they are in a directory of their own,
//! and what a container sees are links through `..data`, which is swapped by one rename.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Projected {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
}

/// A volume's files by path.
pub(super) type Payload = BTreeMap<String, Projected>;

/// Makes `payload` the content of `volume`; `version` names this content and no other.
pub(super) fn write(volume: &Path, payload: &Payload, version: usize) -> io::Result<()> {
    fs::create_dir_all(volume)?;
    let current = format!("..version_{version}");
    let directory = volume.join(&current);
    fs::create_dir_all(&directory)?;
    for (path, file) in payload {
        let target = directory.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.data)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
    }
    let old = fs::read_link(volume.join("..data")).ok();
    let swap = volume.join("..data_tmp");
    let _ = fs::remove_file(&swap);
    symlink(&current, &swap)?;
    fs::rename(&swap, volume.join("..data"))?;

    let names = payload
        .keys()
        .filter_map(|path| first(path))
        .collect::<Vec<_>>();
    for &name in &names {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), link)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name
            .to_str()
            .is_some_and(|name| names.contains(&name) || name.starts_with(".."));
        if !ours {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old.filter(|old| *old != Path::new(&current)) {
        fs::remove_dir_all(volume.join(old))?;
    }
    Ok(())
}

fn first(path: &str) -> Option<&str> {
    match Path::new(path).components().next()? {
        Component::Normal(name) => name.to_str(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| Projected {
            data: data.as_bytes().to_vec(),
            mode: 0o644,
        };
        files
            .iter()
            .map(|(path, data)| ((*path).to_owned(), file(data)))
            .collect()
    }

    #[test]
    fn all_files_change_at_once_and_the_old_ones_go() {
        let volume = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(volume.path().join(path)).ok();
        write(
            volume.path(),
            &payload(&[("a", "1"), ("d/b", "1"), ("d/c", "1")]),
            1,
        )
        .unwrap();
        assert_eq!(read("d/c").as_deref(), Some("1"));
        write(volume.path(), &payload(&[("d/b", "2"), ("e", "2")]), 2).unwrap();
        assert_eq!((read("a"), read("d/c")), (None, None));
        assert_eq!(read("d/b").as_deref(), Some("2"));
        assert_eq!(read("e").as_deref(), Some("2"));
        let data = fs::read_link(volume.path().join("..data")).unwrap();
        assert_eq!(data, Path::new("..version_2"));
        let mut names = fs::read_dir(volume.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort();
        assert_eq!(names, ["..data", "..version_2", "d", "e"]);
    }
}
