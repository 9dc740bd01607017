//! Whose a thing is that outlives its run, a cluster or the namespaces in somebody's cluster: a
//! file of its name, which its run holds locked.
//!
//! Start from [`Claim`]. The lock is the file's, so it ends with the process however that ends. A file
//! that nobody holds is of a run that was killed, unless it says that the thing was kept. Rule: what
//! has no such file is not ours and is left alone.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What the file of a thing ends with that was kept on purpose.
const KEPT: &str = "kept\n";

/// The right to a thing, and the duty to remove it.
#[derive(Debug)]
pub(super) struct Claim {
    name: String,
    path: PathBuf,
    file: File,
}

impl Claim {
    /// Claims a name, before there is anything of it. `about` is what whoever removes it has to know
    /// beside the name.
    ///
    /// # Errors
    /// When the file cannot be written, or another has the name.
    pub(super) fn new(folder: &Path, name: &str, about: impl AsRef<[u8]>) -> anyhow::Result<Self> {
        let path = folder.join(name);
        let cannot = || format!("cannot claim {} for this run", path.display());
        std::fs::create_dir_all(folder).with_context(cannot)?;
        let mut file = File::create_new(&path).with_context(cannot)?;
        file.try_lock()
            .map_err(std::io::Error::from)
            .with_context(cannot)?;
        file.write_all(about.as_ref()).with_context(cannot)?;
        Ok(Self {
            name: name.to_owned(),
            path,
            file,
        })
    }

    /// The thing's.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What its run noted beside the name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn about(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(&self.path)
            .with_context(|| format!("cannot read {}", self.path.display()))
    }

    /// Gives up the claim to what goes on.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub(super) fn keep(mut self) -> anyhow::Result<()> {
        self.file
            .write_all(KEPT.as_bytes())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// [`Self::keep`] of a cluster; the lines that say to the person how to reach it and how to end it, with
    /// whatever there is to say between the two.
    pub(super) fn keep_cluster(
        self,
        provider: &str,
        kubeconfig: &Path,
        between: Vec<String>,
    ) -> Vec<String> {
        let name = self.name.clone();
        let mut lines = vec![
            format!("the {provider} cluster {name} goes on, as STRATA_KEEP=1 asks"),
            format!("reach it: export KUBECONFIG={}", kubeconfig.display()),
        ];
        lines.extend(between);
        lines.push(format!("end it: scripts/sweep {name}"));
        if let Err(error) = self.keep() {
            lines.push(format!("the next run will remove it: {error:#}"));
        }
        lines
    }

    /// What to say before what a killed run left is removed.
    pub(super) fn left_behind(&self) -> String {
        format!(
            "removing {}, which a run left behind that was killed",
            self.name
        )
    }

    /// Gives up the claim to a cluster of a provider's, if it was removed.
    ///
    /// # Errors
    /// When it was not, with what removes the rest; or as [`Self::drop_it`].
    pub(super) fn drop_removed(
        self,
        provider: &str,
        removed: anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        removed.with_context(|| {
            let name = &self.name;
            format!(
                "something of the {provider} cluster {name} may be left; scripts/sweep {name} removes it"
            )
        })?;
        self.drop_it()
    }

    /// Gives up the claim to what is gone.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(super) fn drop_it(self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

/// The claims of runs that were killed, now ours.
///
/// # Errors
/// When the folder of claims cannot be read.
pub(super) fn abandoned(folder: &Path) -> anyhow::Result<Vec<Claim>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    let mut claims = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Ok(file) = File::options().read(true).write(true).open(&path) else {
            continue;
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // Removed by its owner between the two, or kept by them.
        if !path.exists() || std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with(KEPT)) {
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        claims.push(Claim {
            name: name.to_string_lossy().into_owned(),
            path,
            file,
        });
    }
    Ok(claims)
}

/// Where this user's claims to one kind of thing are, which lasts as long as containers do; nothing
/// without a home.
pub(super) fn folder(kind: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/state")))?;
    Some(state.join("strata").join(kind))
}

/// That folder, for whoever cannot do without.
///
/// # Errors
/// When there is none; `what` are the things that are claimed, in words.
pub(super) fn noted<'a>(folder: Option<&'a Path>, what: &str) -> anyhow::Result<&'a Path> {
    folder.with_context(|| {
        format!(
            "neither XDG_STATE_HOME nor HOME is set; set one, so that strata can note which {what} are its own"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_and_nobody_kept_is_abandoned() {
        let dir = tempfile::tempdir().unwrap();
        let claim = |name| Claim::new(dir.path(), name, "about it\n").unwrap();
        let names = || {
            let claims = abandoned(dir.path()).unwrap();
            claims
                .into_iter()
                .map(|claim| claim.name)
                .collect::<Vec<_>>()
        };
        assert!(names().is_empty());
        let held = claim("held");
        claim("kept").keep().unwrap();
        claim("gone").drop_it().unwrap();
        drop(claim("killed"));
        assert_eq!(names(), ["killed"]);
        drop(held);
        let mut both = names();
        both.sort();
        assert_eq!(both, ["held", "killed"]);
    }

    #[test]
    fn a_name_is_claimed_once() {
        let dir = tempfile::tempdir().unwrap();
        let _claim = Claim::new(dir.path(), "one", "").unwrap();
        let error = Claim::new(dir.path(), "one", "").unwrap_err();
        assert!(format!("{error:#}").contains("cannot claim"), "{error:#}");
    }
}
