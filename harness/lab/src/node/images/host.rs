//! An image of one of the host's own programs: the program and its shared libraries, mounted from
//! where they are.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use super::Image;
use crate::node::rootfs::Bind;

/// The image whose entrypoint `target` is the host's `program`.
pub(super) fn image(program: &Path, target: &str, files: &Path) -> anyhow::Result<Image> {
    let program = program
        .canonicalize()
        .with_context(|| format!("{} was not found", program.display()))?;
    let mut binds = vec![Bind {
        source: program.clone(),
        target: target.to_owned(),
        read_only: true,
    }];
    for library in libraries(&program)? {
        binds.push(Bind {
            source: library
                .canonicalize()
                .with_context(|| format!("library {} was not found", library.display()))?,
            target: library.to_string_lossy().into_owned(),
            read_only: true,
        });
    }
    for directory in ["etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(files.join(directory))?;
    }
    // Where files will be mounted, there has to be one.
    for bind in &binds {
        let place = files.join(bind.target.trim_start_matches('/'));
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create(place)?;
    }
    let metadata = fs::metadata(&program)?;
    let named = format!(
        "{} {} {:?}",
        program.display(),
        metadata.len(),
        metadata.modified().ok()
    );
    let id = Sha256::digest(named)
        .iter()
        .fold("sha256:".to_owned(), |id, byte| format!("{id}{byte:02x}"));
    Ok(Image {
        id,
        files: files.to_owned(),
        binds,
        entrypoint: vec![target.to_owned()],
        working_dir: "/".to_owned(),
        size: metadata.len(),
        ..Image::default()
    })
}

/// The loader and the libraries that a program is linked with, as the loader itself lists them.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new(program)
        // A program that is linked statically does not notice, and says its version instead.
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("cannot run {}: {}", program.display(), said.trim());
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = listed.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library: {}", program.display(), missing.trim());
    }
    Ok(parse(&listed))
}

/// `libm.so.6 => /lib/libm.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn parse(listed: &str) -> Vec<PathBuf> {
    listed
        .lines()
        .filter(|line| line.contains("(0x"))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_lists_libraries_and_itself() {
        let listed = "\tlinux-vdso.so.1 (0x00007f3b3b31f000)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f3b33f3e000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f3b3b321000)\n";
        assert_eq!(
            parse(listed),
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(parse("envoy version: 1.40\n").is_empty());
    }
}
