//! Where somebody uses the program: a copy of it, a home, and records of their own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kube::config::Kubeconfig;
use serde_json::Value;

use crate::processes;

/// Somebody's desk; nothing of their labs outlives it.
pub(crate) struct Desk {
    place: tempfile::TempDir,
    /// Whom only root can become; else whoever runs the tests.
    user: Option<u32>,
}

/// Runs a case as whoever runs the tests, and if that is root as an ordinary user as well.
pub(crate) fn everybody(case: impl Fn(&Desk)) {
    case(&Desk::new(None));
    if nix::unistd::geteuid().is_root() {
        case(&Desk::new(Some(4711)));
    }
}

impl Desk {
    fn new(user: Option<u32>) -> Self {
        let place = tempfile::Builder::new()
            .prefix("strata-lab-cli-")
            .tempdir()
            .unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.path(), open).unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_strata-lab"));
        let copy = place.path().join("strata-lab");
        if fs::hard_link(built, &copy).is_err() {
            fs::copy(built, &copy).unwrap();
        }
        let home = place.path().join("home");
        fs::create_dir(&home).unwrap();
        chown(&home, user, user).unwrap();
        Self { place, user }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.place.path().join("home")
    }

    fn state(&self) -> PathBuf {
        self.home().join("state")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        // What comes after two dashes is not the program's own.
        let dashes = arguments.iter().position(|argument| *argument == "--");
        let (own, others) = arguments.split_at(dashes.unwrap_or(arguments.len()));
        let mut command = Command::new(self.place.path().join("strata-lab"));
        command
            .args(own)
            .arg("--state")
            .arg(self.state())
            .args(others)
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it says when it is to succeed, in silence otherwise.
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        heard(arguments, self.run(arguments))
    }

    pub(crate) fn with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> String {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_ref())
            .unwrap();
        heard(arguments, child.wait_with_output().unwrap())
    }

    /// What it complains of when it is to fail.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert_eq!(said, "", "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.succeeds(&["status", "-o", "json"])).unwrap()
    }

    pub(crate) fn kubeconfig(&self) -> Kubeconfig {
        Kubeconfig::read_from(self.home().join(".kube/config")).unwrap()
    }

    /// Puts a kubeconfig there that has been somebody's before.
    pub(crate) fn write_kubeconfig(&self, text: &str) {
        let directory = self.home().join(".kube");
        let file = directory.join("config");
        fs::create_dir_all(&directory).unwrap();
        fs::write(&file, text).unwrap();
        for path in [directory, file] {
            chown(path, self.user, self.user).unwrap();
        }
    }

    /// No process, no record, no log, no mount.
    pub(crate) fn assert_nothing_left(&self) {
        let mark = self.place.path().display().to_string();
        assert_eq!(processes::marked(&mark), Vec::<String>::new());
        let left = fs::read_dir(self.state()).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new());
        processes::assert_no_mount();
    }
}

fn heard(arguments: &[&str], output: Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// A case that fails leaves no lab either.
impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.command(&["down", "--all"]).output();
    }
}
