//! One cell: its run, bounded in time, and what came of it.
//!
//! Start from [`run`]. What a run says of itself is in its `report.json`; that it was ended for taking too
//! long, or said nothing at all, only we know.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use strata::report::Report;
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// How long a run that is asked to end may take to clean up.
const GRACE: Duration = Duration::from_secs(120);
const REPORT: &str = "report.json";
/// Where a run's own words go, in its folder.
pub(crate) const LOG: &str = "output.log";

/// What is run.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The e2e program.
    pub(crate) program: &'a Path,
    pub(crate) filter: Option<&'a str>,
    pub(crate) environment: BTreeMap<&'static str, String>,
    /// Its report directory.
    pub(crate) folder: PathBuf,
}

/// What came of a cell.
#[derive(Debug)]
pub(crate) enum Came {
    /// It ended by itself.
    Ended(Box<Report>),
    /// It was ended, since its time was over; what it had judged by then.
    TooLong(Option<Box<Report>>),
    /// It ended without a report that says how.
    Silent(String),
    /// The night was interrupted.
    Interrupted,
}

/// What a run that has ended left in its folder, unless it was interrupted.
pub(crate) fn done(folder: &Path) -> anyhow::Result<Option<Box<Report>>> {
    let report = read(folder)?;
    let interrupted = [130, 143];
    Ok(report.filter(|report| {
        let ending = report.ending.as_ref();
        ending.is_some_and(|ending| !interrupted.contains(&ending.code))
    }))
}

fn read(folder: &Path) -> anyhow::Result<Option<Box<Report>>> {
    let path = folder.join(REPORT);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    serde_json::from_reader(BufReader::new(file))
        .map(Some)
        .with_context(|| format!("{} is not a report of strata", path.display()))
}

/// Runs it, until it ends, its time is `over`, or the night is `ended`.
///
/// # Errors
/// When it cannot be started, or its report not be read.
pub(crate) async fn run(
    plan: &Plan<'_>,
    over: impl Future<Output = ()>,
    ended: &mut watch::Receiver<bool>,
) -> anyhow::Result<Came> {
    let Plan {
        program, folder, ..
    } = plan;
    if folder.exists() {
        // Of a run that was interrupted: its report would be taken for this one's.
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let log = File::create(folder.join(LOG))
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    let mut child = Command::new(program)
        .args(plan.filter)
        .envs(&plan.environment)
        .env("STRATA_REPORT_DIR", folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    tokio::select! {
        status = child.wait() => {
            let status = status?;
            let report = done(folder)?;
            Ok(report.map_or_else(|| Came::Silent(format!("{status}; see its {LOG}")), Came::Ended))
        }
        () = over => {
            end(&mut child).await;
            Ok(Came::TooLong(read(folder)?))
        }
        _ = ended.wait_for(|ended| *ended) => {
            end(&mut child).await;
            Ok(Came::Interrupted)
        }
    }
}

/// Asks a run to end, as ctrl-C does, and gives it its time to clean up.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let pid = nix::unistd::Pid::from_raw(pid);
        // It may have ended meanwhile, which is as good.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program that stands in for a run.
    fn program(dir: &Path, body: &str) -> PathBuf {
        let path = dir.join("run");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn report(code: u8) -> String {
        let ending = serde_json::json!({ "code": code, "meaning": "", "remark": null });
        let report = serde_json::json!({
            "schema": "strata.report/v1", "strata": "0", "run": "r", "seed": 1, "arguments": [], "started": "",
            "seconds": 1.0, "cluster": null, "layers": [], "troubles": [], "ending": ending,
        });
        report.to_string()
    }

    /// What comes of a run of this script, whose time is over when it has written to the pipe `over`.
    async fn came_of(body: &str, ended: bool) -> (tempfile::TempDir, Came) {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("over");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let program = program(dir.path(), body);
        let plan = Plan {
            program: &program,
            filter: Some("services"),
            environment: BTreeMap::from([("STRATA_PROVIDER", "lab".to_owned())]),
            folder: dir.path().join("night/cell"),
        };
        let (say, mut hear) = watch::channel(false);
        let over = async {
            let pipes = tokio::net::unix::pipe::OpenOptions::new();
            let mut reader = pipes.open_receiver(&pipe).unwrap();
            // There is no end to read as long as somebody could write.
            let _writer = pipes.open_sender(&pipe).unwrap();
            tokio::io::AsyncReadExt::read_u8(&mut reader).await.unwrap();
            if ended {
                say.send_replace(true);
                std::future::pending().await
            }
        };
        let came = run(&plan, over, &mut hear).await.unwrap();
        (dir, came)
    }

    #[tokio::test]
    async fn a_run_gets_its_filter_and_environment_and_its_words_are_kept() {
        let body = format!(
            "echo \"$1 on $STRATA_PROVIDER\"; echo '{}' > \"$STRATA_REPORT_DIR/report.json\"; exit 101",
            report(101)
        );
        let (dir, came) = came_of(&body, false).await;
        let Came::Ended(report) = came else {
            panic!("{came:?}");
        };
        assert_eq!(report.ending.unwrap().code, 101);
        let folder = dir.path().join("night/cell");
        let log = std::fs::read_to_string(folder.join(LOG)).unwrap();
        assert_eq!(log, "services on lab\n");
        assert!(done(&folder).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_run_that_says_nothing_is_told_by_how_it_ended() {
        let (_dir, came) = came_of("exit 2", false).await;
        assert!(
            matches!(&came, Came::Silent(how) if how.contains("exit status: 2")),
            "{came:?}"
        );
    }

    #[tokio::test]
    async fn a_run_is_asked_to_end_when_its_time_is_over_and_when_the_night_is() {
        // Its trap is set before the pipe is written to.
        let body = format!(
            "tail -f /dev/null & child=$!
said() {{ echo '{}' > \"$STRATA_REPORT_DIR/report.json\"; kill $child; exit 143; }}
trap said TERM
echo > \"${{0%/*}}/over\"
wait",
            report(143)
        );
        let (dir, came) = came_of(&body, false).await;
        let Came::TooLong(Some(report)) = came else {
            panic!("{came:?}");
        };
        assert_eq!(report.ending.unwrap().code, 143);
        // What was ended so is run again.
        assert!(done(&dir.path().join("night/cell")).unwrap().is_none());
        let (dir, came) = came_of(&body, true).await;
        assert!(matches!(came, Came::Interrupted), "{came:?}");
        assert!(dir.path().join("night/cell/report.json").exists());
    }
}
