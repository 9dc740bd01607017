//! The user's kubeconfig: a lab's context goes in as kind's and minikube's do, and comes out again.
//!
//! Start from [`Entry`]. Rule: the file is other people's. What cannot be read is not written, what
//! is written is read again first, and it is replaced as a whole or not at all, under the lock that
//! `kubectl config` takes.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use kube::config::Kubeconfig;
use serde::{Deserialize, Serialize};

/// A context in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) file: PathBuf,
    /// The name of the context, and of its cluster and its user.
    pub(super) context: String,
    /// Whether the file was not there before, so that it need not be there after.
    pub(super) created: bool,
}

/// The file that a context goes into: as kubectl chooses it.
pub(super) fn file(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let given = given.or_else(|| from_list(&std::env::var_os("KUBECONFIG")?));
    let file = given.or_else(|| Some(std::env::home_dir()?.join(".kube/config")));
    let file = file.filter(|file| !file.as_os_str().is_empty());
    let file = file.context(
        "there is no home directory for .kube/config: say with --kubeconfig where the kubeconfig goes",
    )?;
    Ok(std::path::absolute(file)?)
}

/// Of a list of files the first that exists, else the last.
fn from_list(list: &OsStr) -> Option<PathBuf> {
    let named = std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty());
    let named = named.collect::<Vec<_>>();
    let exists = named.iter().find(|path| path.is_file());
    exists.or(named.last()).cloned()
}

impl Entry {
    /// What is going to be an entry; refuses a file that it cannot go into, before anything is done.
    pub(super) fn planned(file: PathBuf, context: String) -> anyhow::Result<Self> {
        let created = read(&file)?.is_none();
        Ok(Self {
            file,
            context,
            created,
        })
    }

    /// Writes it, with the cluster and the user that a kubeconfig has, and makes it the current one.
    pub(super) fn add(&self, kubeconfig: &str) -> anyhow::Result<()> {
        let lab = Kubeconfig::from_yaml(kubeconfig).context("the lab's own kubeconfig")?;
        let directory = self.file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        self.edit(|there| {
            let mut config = there.unwrap_or_default();
            take_out(&mut config, &self.context);
            let name = || self.context.clone();
            config
                .clusters
                .extend(lab.clusters.into_iter().map(|mut one| {
                    one.name = name();
                    one
                }));
            config
                .auth_infos
                .extend(lab.auth_infos.into_iter().map(|mut one| {
                    one.name = name();
                    one
                }));
            config
                .contexts
                .extend(lab.contexts.into_iter().map(|mut one| {
                    one.name = name();
                    if let Some(context) = &mut one.context {
                        context.cluster = name();
                        context.user = Some(name());
                    }
                    one
                }));
            config.current_context = Some(name());
            config.api_version.get_or_insert_with(|| "v1".to_owned());
            config.kind.get_or_insert_with(|| "Config".to_owned());
            Some(config)
        })
    }

    /// Takes it out; the file goes with it if it was made for it and holds nothing else.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        if !self.file.exists() {
            return Ok(());
        }
        self.edit(|there| {
            let mut config = there?;
            take_out(&mut config, &self.context).then_some(config)
        })
    }

    /// Replaces the file by what is made of it, if anything is.
    fn edit(
        &self,
        change: impl FnOnce(Option<Kubeconfig>) -> Option<Kubeconfig>,
    ) -> anyhow::Result<()> {
        // What a link leads to is written, not the link.
        let path = fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone());
        let _lock = Lock::take(&path, PATIENCE)?;
        let Some(config) = change(read(&path)?) else {
            return Ok(());
        };
        if self.created && is_empty(&config) {
            return fs::remove_file(&path)
                .with_context(|| format!("cannot remove {}", path.display()));
        }
        write(&path, &config).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What a file holds; nothing if it is not there, or is empty.
fn read(path: &Path) -> anyhow::Result<Option<Kubeconfig>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    if text.trim().is_empty() {
        return Ok(Some(Kubeconfig::default()));
    }
    Kubeconfig::from_yaml(&text).map(Some).with_context(|| {
        format!(
            "{} is not a kubeconfig, and is left as it is: mend it, or give another file with --kubeconfig",
            path.display()
        )
    })
}

/// Removes what goes by a name; says whether there was anything.
fn take_out(config: &mut Kubeconfig, name: &str) -> bool {
    let count = |config: &Kubeconfig| {
        config.clusters.len() + config.auth_infos.len() + config.contexts.len()
    };
    let before = count(config);
    config.clusters.retain(|one| one.name != name);
    config.auth_infos.retain(|one| one.name != name);
    config.contexts.retain(|one| one.name != name);
    let was_current = config.current_context.as_deref() == Some(name);
    if was_current {
        config.current_context = None;
    }
    was_current || count(config) < before
}

fn is_empty(config: &Kubeconfig) -> bool {
    config.clusters.is_empty()
        && config.auth_infos.is_empty()
        && config.contexts.is_empty()
        && config.current_context.is_none()
        && config.extensions.is_none()
        && config.other.is_empty()
}

fn write(path: &Path, config: &Kubeconfig) -> anyhow::Result<()> {
    let text = serde_yaml::to_string(config)?;
    let again = Kubeconfig::from_yaml(&text)?;
    ensure!(
        serde_json::to_value(&again)? == serde_json::to_value(config)?,
        "it would not say the same afterwards, which is a defect of strata-lab"
    );
    let mut new = tempfile::Builder::new()
        .prefix(".kubeconfig-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(path.parent().unwrap_or(Path::new("/")))?;
    new.write_all(text.as_bytes())?;
    if let Ok(old) = fs::metadata(path) {
        let own = new.as_file().metadata()?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            // Of somebody who used sudo, say: it stays theirs.
            fchown(new.as_file(), Some(old.uid()), Some(old.gid()))
                .context("its owner could not be kept")?;
        }
        new.as_file().set_permissions(old.permissions())?;
    }
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(())
}

/// How long somebody else may hold the lock: `kubectl config` does for milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lock of client-go: a file beside, which is there as long as somebody writes.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path, patience: Duration) -> anyhow::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        let begun = Instant::now();
        loop {
            let made = OpenOptions::new().write(true).create_new(true).open(&lock);
            match made.map(drop::<File>) {
                Ok(()) => return Ok(Self(lock)),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
                Err(_) if begun.elapsed() >= patience => bail!(
                    "{} is locked: remove {} if no kubectl config runs",
                    path.display(),
                    lock.display()
                ),
                // There is nothing to be told by when it goes.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const LAB: &str = "{current-context: strata-lab, clusters: [{name: strata-lab, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: strata-lab, user: {token: t}}], contexts: [{name: strata-lab, context: {cluster: strata-lab, user: strata-lab}}]}";

    /// With all that tools put into one.
    const THEIRS: &str = r#"
apiVersion: v1
kind: Config
current-context: work
preferences: {colors: true}
x-unknown: {a: [1, "1"]}
clusters:
- name: work
  cluster:
    server: https://work.example:6443
    certificate-authority-data: Zm9v
    x-unknown: yes
    extensions: [{name: context_info, extension: {provider: minikube.sigs.k8s.io, version: v1.2}}]
users:
- name: work
  user: {token: "0123", x-unknown: "on"}
- name: exec
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: ["--x", "1e3"], env: [{name: A, value: "no"}], interactiveMode: IfAvailable, installHint: "a: b\nc", provideClusterInfo: true}
contexts:
- name: work
  context: {cluster: work, user: work, namespace: "007"}
"#;

    fn value(path: &Path) -> Value {
        serde_json::to_value(read(path).unwrap().unwrap()).unwrap()
    }

    fn entry(file: PathBuf, name: &str) -> Entry {
        Entry::planned(file, format!("strata-{name}")).unwrap()
    }

    #[test]
    fn a_context_goes_in_and_comes_out_and_all_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real");
        let file = directory.path().join("config");
        fs::write(&real, THEIRS).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &file).unwrap();
        let before = value(&file);
        let (one, two) = (entry(file.clone(), "one"), entry(file.clone(), "two"));
        one.add(LAB).unwrap();
        two.add(LAB).unwrap();
        // As a lab does that is started again after a crash.
        two.add(LAB).unwrap();
        let with = value(&file);
        assert_eq!(with["current-context"], "strata-two");
        assert_eq!(with["contexts"][1]["context"]["cluster"], "strata-one");
        assert_eq!(with["contexts"].as_array().unwrap().len(), 3);
        assert_eq!(with["users"][0], before["users"][0]);
        one.remove().unwrap();
        assert_eq!(value(&file)["current-context"], "strata-two");
        two.remove().unwrap();
        two.remove().unwrap();
        let mut expected = before;
        expected.as_object_mut().unwrap().remove("current-context");
        assert_eq!(value(&file), expected);
        assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_was_made_for_it_goes_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("new/config");
        let one = entry(file.clone(), "one");
        one.add(LAB).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let two = entry(file.clone(), "two");
        two.add(LAB).unwrap();
        one.remove().unwrap();
        assert!(file.exists());
        // The second found a file, but the first made it.
        two.remove().unwrap();
        assert!(is_empty(&read(&file).unwrap().unwrap()));
        let one = entry(directory.path().join("other"), "one");
        one.add(LAB).unwrap();
        one.remove().unwrap();
        assert!(!one.file.exists());
    }

    #[test]
    fn what_is_no_kubeconfig_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        for text in [
            "clusters: [",
            "hello",
            "clusters: {a: b}",
            "users: [{nam: x}]",
        ] {
            fs::write(&file, text).unwrap();
            let refused = Entry::planned(file.clone(), "strata-x".to_owned()).unwrap_err();
            let refused = refused.to_string();
            assert!(
                refused.contains("is not a kubeconfig, and is left as it is"),
                "{refused}"
            );
            let planned = Entry {
                file: file.clone(),
                context: "strata-x".to_owned(),
                created: true,
            };
            assert!(planned.add(LAB).is_err() && planned.remove().is_err());
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn who_writes_has_the_file_to_themselves() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        let lock = Lock::take(&file, Duration::ZERO).unwrap();
        let refused = Lock::take(&file, Duration::ZERO).map(drop).unwrap_err();
        let name = directory.path().join("config.lock");
        assert_eq!(
            refused.to_string(),
            format!(
                "{} is locked: remove {} if no kubectl config runs",
                file.display(),
                name.display()
            )
        );
        drop(lock);
        assert!(Lock::take(&file, Duration::ZERO).is_ok());
    }

    #[test]
    fn of_several_files_it_is_the_first_that_exists_or_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let list = std::env::join_paths([path("a"), path("b"), path("c")]).unwrap();
        assert_eq!(from_list(&list), Some(path("c")));
        fs::write(path("b"), "").unwrap();
        assert_eq!(from_list(&list), Some(path("b")));
        assert_eq!(from_list(OsStr::new(":")), None);
    }
}
