//! Programs that a lab needs and that are not ours: where they are, and what to do without them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where systems keep what ordinary users do not search.
pub(super) const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The lab has no Services without it.
pub(super) fn nft(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return exists(given, "nft");
    }
    on_path("nft").context(
        "nft, which programs Services in the nodes, is not installed: install your distribution's package nftables, or give its path with --nft",
    )
}

/// A lab without it is a lab all the same.
pub(super) fn envoy(given: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(given) = given {
        return exists(given, "envoy").map(Some);
    }
    Ok(on_path("envoy").or_else(beside))
}

/// What is said where there is no Envoy.
pub(super) const NO_ENVOY: &str = "without Envoy, Ingress, mesh and Gateway carry no traffic: put envoy (1.30 or newer) on PATH, or give its path with --envoy";

fn exists(given: PathBuf, name: &str) -> anyhow::Result<PathBuf> {
    // A name without a directory is meant to be looked for.
    if given.components().count() == 1
        && let Some(found) = given.to_str().and_then(on_path)
    {
        return Ok(found);
    }
    anyhow::ensure!(
        given.is_file(),
        "{}, given as {name}, is not a file",
        given.display()
    );
    Ok(given)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = directories(&path).into_iter().map(|dir| dir.join(name));
    all.find(|path| path.is_file())
}

/// `PATH`, and the system's directories after it.
pub(super) fn directories(path: &OsStr) -> Vec<PathBuf> {
    let mut all = std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .collect::<Vec<_>>();
    for system in SYSTEM.map(PathBuf::from) {
        if !all.contains(&system) {
            all.push(system);
        }
    }
    all
}

/// Where `scripts/setup` puts it, in the repository that this program was built in.
fn beside() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let mut above = own.ancestors().map(|dir: &Path| dir.join(".tools/envoy"));
    above.find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_directories_are_searched_last_and_once() {
        let all = directories(OsStr::new("/usr/bin:/sbin:.:"));
        let expected = ["/usr/bin", "/sbin", "/usr/local/sbin", "/usr/sbin"];
        assert_eq!(all, expected.map(PathBuf::from));
    }

    #[test]
    fn what_was_given_has_to_be_there() {
        let error = nft(Some("/nowhere/nft".into())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nowhere/nft, given as nft, is not a file"
        );
        assert!(envoy(Some("sh".into())).unwrap().unwrap().is_absolute());
    }
}
