//! Which labs there are: one small file a lab, in a directory of the user's own.
//!
//! Start from [`Records`]. The directory is not in `XDG_RUNTIME_DIR`: that one goes with the user's
//! last login, and a lab in the background does not. A record stands and falls with a process: the
//! one that starts the lab, then the lab's own first. Rule: a record whose process has ended means
//! nothing but that something is to be swept.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::kubeconfig;
use super::process::Process;

/// A lab's name: a label, as objects have it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Name(String);

impl Default for Name {
    fn default() -> Self {
        Self("lab".to_owned())
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let ends = !name.starts_with('-') && !name.ends_with('-');
        if (1..=63).contains(&name.len()) && name.chars().all(inner) && ends {
            return Ok(Self(name.to_owned()));
        }
        Err("a lab's name has 1 to 63 lower-case letters, digits and dashes, and no dash at its ends".to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// In quotes, as sentences have it.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Name {
    /// What its context in a kubeconfig is called.
    pub(super) fn context(&self) -> String {
        format!("strata-{self}")
    }
}

/// A lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) name: Name,
    /// What it stands and falls with.
    pub(super) process: Process,
    /// Whether it is in the background.
    pub(super) detached: bool,
    /// Since when.
    pub(super) since: Timestamp,
    pub(super) log: PathBuf,
    /// The kubeconfig that has a context for it.
    pub(super) kubeconfig: kubeconfig::Entry,
    /// Not while it starts.
    pub(super) running: Option<Running>,
}

/// A lab that has started.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Running {
    /// The process between it and the host.
    pub(super) boot: Process,
    pub(super) server: String,
    /// Its own kubeconfig, on its own file system.
    pub(super) own_kubeconfig: PathBuf,
}

/// The records of a user.
pub(super) struct Records {
    directory: PathBuf,
}

impl Records {
    /// Those in a directory, which is made if need be.
    pub(super) fn open(given: Option<PathBuf>) -> anyhow::Result<Self> {
        let uid = geteuid();
        let directory = given.unwrap_or_else(|| PathBuf::from(format!("/tmp/strata-{uid}")));
        let directory = std::path::absolute(directory)?;
        let shown = directory.display();
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| {
                    format!("cannot make {shown}, where labs are recorded: give another directory with --state")
                });
            }
            _ => {}
        }
        // Whoever else could write here could have us end any process and edit any kubeconfig.
        let found = fs::symlink_metadata(&directory).with_context(|| shown.to_string())?;
        ensure!(
            found.is_dir() && found.uid() == uid.as_raw(),
            "{shown}, where labs are recorded, is not a directory of yours: give another with --state"
        );
        ensure!(
            found.mode() & 0o077 == 0,
            "{shown}, where labs are recorded, is open to others: chmod 700 it, or give another directory with --state"
        );
        Ok(Self { directory })
    }

    /// Where the log of a lab is, unless it is to be elsewhere.
    pub(super) fn log(&self, name: &Name) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// Nobody else changes a record meanwhile.
    fn lock(&self) -> anyhow::Result<Flock<File>> {
        let directory = File::open(&self.directory)?;
        Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .with_context(|| format!("cannot lock {}", self.directory.display()))
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> anyhow::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
                && let Some(record) = read(&path)?
            {
                records.push(record);
            }
        }
        records.sort_by(|one: &Record, other| one.name.cmp(&other.name));
        Ok(records)
    }

    /// A lab that was started, or says which there are.
    pub(super) fn running(&self, name: &Name) -> anyhow::Result<(Record, Running)> {
        let Some(record) = self.find(name)? else {
            let names = self
                .all()?
                .into_iter()
                .map(|record| format!("{:?}", record.name));
            let names = names.collect::<Vec<_>>();
            if names.is_empty() {
                bail!("there is no lab {name:?}; strata-lab up starts one");
            }
            bail!(
                "there is no lab {name:?}, but there is {}; choose with --name",
                names.join(", ")
            );
        };
        match record.running.clone() {
            Some(running) => Ok((record, running)),
            None => bail!("lab {name:?} is still starting"),
        }
    }

    pub(super) fn find(&self, name: &Name) -> anyhow::Result<Option<Record>> {
        read(&self.path(name))
    }

    /// Records a lab that begins, unless there is one of its name.
    pub(super) fn begin(&self, record: &Record) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        if let Some(there) = self.find(&record.name)?
            && there.process.is_there()
        {
            let name = &record.name;
            match there.running {
                Some(running) => bail!(
                    "lab {name:?} is up already, at {}: end it with strata-lab down {name}, or give this one another --name",
                    running.server
                ),
                None => bail!("lab {name:?} is being started already"),
            }
        }
        self.write(record)
    }

    /// Records what has come of it.
    pub(super) fn replace(&self, record: &Record) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        self.write(record)
    }

    fn write(&self, record: &Record) -> anyhow::Result<()> {
        let path = self.path(&record.name);
        let failed = || format!("cannot write {}, the lab's record", path.display());
        let mut file = tempfile::NamedTempFile::new_in(&self.directory).with_context(failed)?;
        serde_json::to_writer_pretty(&mut file, record).with_context(failed)?;
        file.persist(&path).with_context(failed)?;
        Ok(())
    }

    /// Removes all that the host has of a lab that ended; what cannot be is said.
    pub(super) fn forget(&self, record: &Record) -> Vec<String> {
        let mut trouble = self.forget_but_log(record);
        // Only one that is ours: what was asked for with --log stays.
        trouble.extend(unlink(&self.log(&record.name)));
        trouble
    }

    /// The same, but for its log, in which somebody is to look why it ended.
    pub(super) fn forget_but_log(&self, record: &Record) -> Vec<String> {
        match self.lock() {
            Ok(_lock) => self.remove(record),
            Err(error) => vec![format!("{error:#}")],
        }
    }

    fn remove(&self, record: &Record) -> Vec<String> {
        let path = self.path(&record.name);
        // A lab of this name may have been started since.
        match read(&path) {
            Ok(Some(there)) if there.process != record.process && there.process.is_there() => {
                return Vec::new();
            }
            _ => {}
        }
        let mut trouble = Vec::new();
        if let Err(error) = record.kubeconfig.remove() {
            trouble.push(format!(
                "context {} could not be removed: {error:#}",
                record.kubeconfig.context
            ));
        }
        trouble.extend(unlink(&path));
        trouble
    }

    /// Removes what labs left that ended without `down`, and says which.
    pub(super) fn sweep(&self) -> anyhow::Result<Vec<String>> {
        let _lock = self.lock()?;
        let mut said = Vec::new();
        for record in self.all()? {
            if record.process.is_there() {
                continue;
            }
            said.push(format!(
                "lab {:?} has ended without strata-lab down{}; its record and its context {} are removed",
                record.name,
                last_error(&record.log),
                record.kubeconfig.context,
            ));
            said.extend(self.remove(&record));
            said.extend(unlink(&self.log(&record.name)));
        }
        Ok(said)
    }
}

/// Removes a file if it is there; says why it could not.
fn unlink(path: &Path) -> Option<String> {
    let error = fs::remove_file(path).err()?;
    let absent = error.kind() == io::ErrorKind::NotFound;
    (!absent).then(|| format!("cannot remove {}: {error}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Option<Record>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    serde_json::from_str(&text).map(Some).with_context(|| {
        format!(
            "{} is not a record of a lab that this version understands; remove it if its lab has ended",
            path.display()
        )
    })
}

/// What the log of a lab says about its end.
fn last_error(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| line.contains(" ERROR "));
    let said = last.and_then(|line| line.split_once(" ERROR "));
    said.map_or_else(String::new, |(_, said)| format!(" ({})", said.trim()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record(directory: &Path, name: &str) -> Record {
        Record {
            name: name.parse().unwrap(),
            process: Process::own().unwrap(),
            detached: true,
            since: Timestamp::UNIX_EPOCH,
            log: directory.join(format!("{name}.log")),
            kubeconfig: kubeconfig::Entry {
                file: directory.join("kubeconfig"),
                context: format!("strata-{name}"),
                created: true,
            },
            running: None,
        }
    }

    fn records() -> (tempfile::TempDir, Records) {
        let directory = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        let records = Records::open(Some(directory.path().to_owned())).unwrap();
        (directory, records)
    }

    /// A process that has ended.
    fn ended() -> Process {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        process
    }

    #[test]
    fn a_name_is_taken_as_long_as_its_process_is_there() {
        let (directory, records) = records();
        let mut one = record(directory.path(), "one");
        one.process = ended();
        records.begin(&one).unwrap();
        one.process = Process::own().unwrap();
        records.begin(&one).unwrap();
        let refused = records.begin(&one).unwrap_err().to_string();
        assert_eq!(refused, "lab \"one\" is being started already");
        records.begin(&record(directory.path(), "two")).unwrap();
        let names = records.all().unwrap();
        let names = names.iter().map(|record| record.name.to_string());
        assert_eq!(names.collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let (directory, records) = records();
        let said = |name: &str| {
            let name = name.parse().unwrap();
            records.running(&name).unwrap_err().to_string()
        };
        assert_eq!(
            said("lab"),
            "there is no lab \"lab\"; strata-lab up starts one"
        );
        records.begin(&record(directory.path(), "one")).unwrap();
        assert_eq!(
            said("lab"),
            "there is no lab \"lab\", but there is \"one\"; choose with --name"
        );
        assert_eq!(said("one"), "lab \"one\" is still starting");
    }

    #[test]
    fn only_labs_that_have_ended_are_swept() {
        let (directory, records) = records();
        records.begin(&record(directory.path(), "there")).unwrap();
        let mut gone = record(directory.path(), "gone");
        gone.process = ended();
        records.begin(&gone).unwrap();
        fs::write(&gone.log, "1  INFO x: y\n2 ERROR z: the lab ends: why\n").unwrap();
        let said = records.sweep().unwrap();
        assert_eq!(
            said,
            [
                "lab \"gone\" has ended without strata-lab down (z: the lab ends: why); its record and its context strata-gone are removed"
            ]
        );
        let left = fs::read_dir(directory.path()).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.collect::<Vec<_>>(), ["there.json"]);
        assert!(records.sweep().unwrap().is_empty());
    }

    #[test]
    fn who_forgets_a_lab_does_not_forget_its_successor() {
        let (directory, records) = records();
        let mut former = record(directory.path(), "one");
        former.process = ended();
        let latter = record(directory.path(), "one");
        records.begin(&latter).unwrap();
        assert!(records.forget(&former).is_empty());
        assert!(records.find(&latter.name).unwrap().is_some());
        assert!(records.forget(&latter).is_empty());
        assert!(records.find(&latter.name).unwrap().is_none());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            Records::open(Some(directory.path().to_owned()))
                .map(drop)
                .map_err(|error| error.to_string())
        };
        assert!(open(0o755).unwrap_err().contains("is open to others"));
        assert_eq!(open(0o700), Ok(()));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        let refused = Records::open(Some(link)).map(drop).unwrap_err().to_string();
        assert!(refused.contains("is not a directory of yours"), "{refused}");
    }

    #[test]
    fn a_record_that_nobody_can_read_is_named() {
        let (directory, records) = records();
        fs::write(directory.path().join("x.json"), "{").unwrap();
        let said = records.sweep().unwrap_err().to_string();
        assert!(said.contains("x.json is not a record of a lab"), "{said}");
    }
}
