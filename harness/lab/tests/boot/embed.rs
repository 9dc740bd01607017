//! A program that embeds a lab, and the tests' handle on it.
//!
//! It starts the lab, says where it is, and then does what it is told on its standard input, a word
//! a line: `drop`, `stop` or `keep`. At the end of its input it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use serde_json::{Value, json};
use strata_lab::boot::{self, LabConfig};

use crate::Who;
use crate::processes;

/// The first argument that makes this program the embedding one.
pub(crate) const ROLE: &str = "--embed";

/// What the embedding program does.
pub(crate) fn main() -> ExitCode {
    let config = std::env::args().nth(2).unwrap();
    let config = serde_json::from_str::<LabConfig>(&config).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lab = match runtime.block_on(boot::start(config)) {
        Ok(lab) => lab,
        Err(error) => {
            println!("{}", json!({"refused": error.to_string()}));
            return ExitCode::from(3);
        }
    };
    let told = json!({
        "server": lab.server(), "pid": lab.pid(), "kubeconfig": lab.kubeconfig(),
        "path": lab.kubeconfig_path(), "nsenter": lab.nsenter(),
    });
    println!("{told}");
    let mut lab = Some(lab);
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "drop" => drop(lab.take()),
            "stop" => runtime.block_on(lab.take().unwrap().stop()).unwrap(),
            "keep" => {
                assert_ne!(lab.take().unwrap().keep().unwrap().pid, 0);
            }
            other => panic!("{other}?"),
        }
        println!("done");
    }
    ExitCode::SUCCESS
}

/// A place of its own for a copy of this program: its path is the mark of every process that the
/// copy starts.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("strata-lab-boot-")
            .tempdir()
            .unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let own = std::env::current_exe().unwrap();
        let copy = directory.path().join("embed");
        if std::fs::hard_link(&own, &copy).is_err() {
            std::fs::copy(&own, &copy).unwrap();
        }
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.path().join("embed")
    }

    pub(crate) fn mark(&self) -> String {
        self.path().display().to_string()
    }
}

/// Makes a command be run by somebody.
pub(crate) fn by(who: Who, command: &mut Command) -> &mut Command {
    if who == Who::Ordinary {
        command.uid(4711).gid(4711);
    }
    command
}

/// A configuration whose image of the host's Envoy is a shell: all that pods need here.
pub(crate) fn config() -> LabConfig {
    LabConfig {
        envoy: Some("/bin/bash".into()),
        nft: ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("nft")
            .into(),
        ..LabConfig::default()
    }
}

/// An embedding program with its lab.
pub(crate) struct Embedding {
    pub(crate) place: Place,
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub(crate) lab: Value,
}

impl Embedding {
    /// Starts it, and waits until its lab is ready.
    pub(crate) fn start(who: Who) -> Self {
        let place = Place::new();
        let mut command = Command::new(place.program());
        command.stdin(Stdio::piped());
        Self::start_as(place, by(who, &mut command), &config())
    }

    pub(crate) fn start_as(place: Place, command: &mut Command, config: &LabConfig) -> Self {
        let mut child = command
            .arg(ROLE)
            .arg(serde_json::to_string(config).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let lab: Value = serde_json::from_str(&line).unwrap();
        assert!(lab.get("pid").is_some(), "{lab}");
        Self {
            place,
            child,
            stdin,
            stdout,
            lab,
        }
    }

    /// Tells it what to do, and waits until it is done.
    pub(crate) fn tell(&mut self, word: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    /// The lab's first process.
    pub(crate) fn first(&self) -> u32 {
        u32::try_from(self.lab["pid"].as_u64().unwrap()).unwrap()
    }

    /// The process between it and the host.
    pub(crate) fn boot(&self) -> u32 {
        processes::parent(self.first()).unwrap()
    }

    pub(crate) fn kubeconfig(&self) -> &str {
        self.lab["kubeconfig"].as_str().unwrap()
    }

    /// Ends it in the usual way.
    pub(crate) fn end(mut self) {
        self.tell("stop");
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// A case that fails leaves nothing either.
impl Drop for Embedding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs an embedding program that is to be refused a lab, and says in which words.
pub(crate) fn refused(place: &Place, command: &mut Command, config: &LabConfig) -> String {
    let mut child = command
        .arg(ROLE)
        .arg(serde_json::to_string(config).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
    assert_eq!(processes::marked(&place.mark()), Vec::<String>::new());
    let said: Value = serde_json::from_str(&said).unwrap();
    said["refused"].as_str().unwrap().to_owned()
}
