//! The runner run on toy checks that pass, violate, block, hang and panic, with no cluster: exit
//! codes, reports, what is blocked and why, and that whatever was made is taken away.
//!
//! Start from `TRIALS`. Each starts this program again as a run of its own (`toys`), as a person
//! would start `cargo test --test e2e`, and reads what it leaves.

mod toys;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn main() -> ExitCode {
    if std::env::var_os(toys::TOY).is_some() {
        return toys::main();
    }
    let trials = TRIALS.iter().map(|(name, trial)| {
        Trial::test(*name, move || {
            let run = Run::new().map_err(|error| Failed::from(format!("{error:#}")))?;
            trial(&run).map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

type Test = fn(&Run) -> anyhow::Result<()>;

const TRIALS: &[(&str, Test)] = &[
    ("what_holds_passes_and_the_cluster_is_taken_away", passes),
    ("a_broken_claim_outweighs_everything_else", everything),
    (
        "what_hangs_panics_or_cannot_tell_has_no_verdict",
        no_verdict,
    ),
    ("a_need_that_is_not_met_skips_with_the_reason", skips),
    ("tests_of_chance_draw_from_the_ledger", chance),
    ("a_layer_that_the_provider_lacks_is_skipped", lacks),
    ("a_list_touches_nothing", lists),
    ("a_filter_without_a_match_touches_nothing", unmatched),
    ("a_layer_that_does_not_come_up_blocks_the_rest", not_up),
    ("who_wants_to_go_on_is_not_blocked_by_gates", goes_on),
    ("a_manifest_that_is_wrong_starts_nothing", bad_manifest),
    ("a_variable_that_is_unknown_starts_nothing", bad_variable),
    ("a_signal_ends_the_run_in_order", signals),
    ("a_run_that_nobody_reads_ends_in_order_too", unread),
    ("a_killed_run_leaves_a_readable_report", killed),
    ("a_cluster_is_kept_if_that_is_asked", keeps),
];

/// Longer than anything here takes: a test must end even if what it waits for never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place for a run.
struct Run(tempfile::TempDir);

/// What came of it.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    /// What was done to the provider.
    provider: Vec<String>,
    report: Value,
    junit: String,
}

impl Run {
    fn new() -> anyhow::Result<Self> {
        let run = Self(tempfile::tempdir()?);
        for layer in ["cni", "services", "ingress"] {
            run.write(&format!("{layer}/fixture.yaml"), SERVICE)?;
        }
        run.write("cni/with_manifest.yaml", SERVICE)?;
        Ok(run)
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path("manifests").join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        Ok(std::fs::write(path, text)?)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STRATA_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .env(toys::TOY, "1")
            .env(toys::TOY_LOG, self.path("provider.log"))
            .env(toys::TOY_MANIFESTS, self.path("manifests"))
            .env("RUST_BACKTRACE", "0")
            .env("STRATA_REPORT_DIR", self.path("report"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Ended> {
        let output = self.command(arguments, variables)?.output()?;
        self.ended(output.status.code(), &output.stdout, &output.stderr)
    }

    fn ended(&self, code: Option<i32>, out: &[u8], err: &[u8]) -> anyhow::Result<Ended> {
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap_or_default();
        let report = read("report/report.json");
        let report = serde_json::from_str(&report).or_else(|error| {
            if report.is_empty() {
                Ok(Value::Null)
            } else {
                Err(error)
            }
        });
        Ok(Ended {
            code,
            stdout: String::from_utf8_lossy(out).into_owned(),
            stderr: String::from_utf8_lossy(err).into_owned(),
            provider: read("provider.log").lines().map(str::to_owned).collect(),
            report: report.context("report.json is not readable")?,
            junit: read("report/junit.xml"),
        })
    }
}

impl Ended {
    fn trial(&self, name: &str) -> anyhow::Result<&Value> {
        let layers = self.report["layers"].as_array().context("no layers")?;
        let mut trials = layers
            .iter()
            .filter_map(|layer| layer["trials"].as_array())
            .flatten();
        let found = trials.find(|trial| trial["name"] == name);
        found.with_context(|| format!("{name} is not in the report"))
    }

    fn verdict(&self, name: &str, expected: &str) -> anyhow::Result<&Value> {
        let trial = self.trial(name)?;
        ensure!(
            trial["verdict"] == expected,
            "{name} is not {expected}: {trial:#}"
        );
        Ok(trial)
    }

    fn is(&self, code: i32, provider: &[&str]) -> anyhow::Result<()> {
        let Self { stdout, stderr, .. } = self;
        ensure!(
            self.code == Some(code),
            "exit code {:?} rather than {code}\n{stdout}\n{stderr}",
            self.code
        );
        ensure!(
            self.provider == provider,
            "the provider saw {:?}",
            self.provider
        );
        Ok(())
    }
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";

fn passes(run: &Run) -> anyhow::Result<()> {
    let ended = run.run(&["--exact", "cni::holds"], &[("STRATA_SEED", "5")])?;
    ended.is(0, &["create", "destroy"])?;
    let trial = ended.verdict("cni::holds", "passed")?;
    ensure!(trial["records"][0][1] == "7", "{trial:#}");
    ended.verdict("cni::gate", "passed")?;
    ended.verdict("cni::up", "passed")?;
    ensure!(ended.report["ending"]["code"] == 0 && ended.report["seed"] == 5);
    ensure!(
        ended.trial("services::up").is_err(),
        "a layer that nobody asked for came up"
    );
    ensure!(ended.stdout.contains("provider toy"), "{}", ended.stdout);
    Ok(())
}

fn everything(run: &Run) -> anyhow::Result<()> {
    let ended = run.run(&[], &[])?;
    ended.is(101, &["create", "export-logs", "destroy"])?;
    let logs = "strata: the nodes' logs are in toy-box";
    ensure!(ended.stderr.contains(logs), "{}", ended.stderr);
    let broken = ended.verdict("cni::broken", "failed")?;
    ensure!(broken["finding"]["observed"] == "2", "{broken:#}");
    // What fell in the CNI is no gate; the Services' gate is, and Ingress stands on it.
    ended
        .verdict("services::regression::cni::gate", "skipped")
        .or_else(|_| ended.verdict("services::regression::cni::gate", "passed"))?;
    ended.verdict("services::gate_broken", "failed")?;
    for name in ["services::never_runs", "ingress::up", "ingress::gate"] {
        let blocked = ended.verdict(name, "blocked")?;
        ensure!(
            blocked["reason"] == "blocked by services::gate_broken",
            "{blocked:#}"
        );
    }
    ended.verdict("cni::panics", "no-verdict")?;
    // A check whose manifest cannot be applied could not be judged.
    let manifest = ended.verdict("cni::with_manifest", "no-verdict")?;
    ensure!(
        manifest["noVerdict"]["because"]
            .as_str()
            .is_some_and(|it| !it.is_empty())
    );
    for text in [
        r#"<testsuite name="strata.cni""#,
        "<failure",
        "<error",
        "<skipped",
        "blocked by services::gate_broken",
    ] {
        ensure!(
            ended.junit.contains(text),
            "{text} is not in {}",
            ended.junit
        );
    }
    let evidence = broken["evidence"]["files"]
        .as_array()
        .context("no evidence")?;
    ensure!(
        evidence.iter().any(|file| file == "events.error.txt"),
        "{broken:#}"
    );
    let why = run.path("report/evidence/cni/broken/events.error.txt");
    ensure!(std::fs::read_to_string(why)?.contains("there is nothing here"));
    Ok(())
}

fn no_verdict(run: &Run) -> anyhow::Result<()> {
    for (name, kind, because) in [
        ("cni::hangs", "deadline", "did not end within"),
        ("cni::panics", "panic", "a toy fell"),
        ("cni::cannot_tell", "error", "no idea"),
        ("cni::blocks_its_thread", "deadline", "did not end within"),
    ] {
        let ended = Run::new()?.run(&["--exact", name], &[])?;
        ended.is(4, &["create", "export-logs", "destroy"])?;
        let told = &ended.verdict(name, "no-verdict")?["noVerdict"];
        ensure!(told["kind"] == kind, "{told:#}");
        ensure!(
            told["because"]
                .as_str()
                .is_some_and(|it| it.contains(because)),
            "{told:#}"
        );
        ensure!(ended.junit.contains("<error"), "{}", ended.junit);
    }
    let ended = run.run(&["--exact", "cni::blocks_its_thread"], &[])?;
    let troubles = ended.trial("cni::blocks_its_thread")?["troubles"].to_string();
    ensure!(troubles.contains("blocks a thread"), "{troubles}");
    Ok(())
}

fn chance(run: &Run) -> anyhow::Result<()> {
    let ended = run.run(&["--exact", "cni::lucky"], &[])?;
    ended.is(0, &["create", "destroy"])?;
    let trial = ended.verdict("cni::lucky", "passed")?;
    ensure!(trial["chance"][1]["alpha"] == 1e-9, "{trial:#}");
    let spent = &ended.report["falseAlarms"];
    ensure!(spent["tests"] == 2 && spent["bound"] == 2e-9, "{spent:#}");
    let line = "false-alarm budget spent: 2 tests, bound 2.0e-9 of 1e-4";
    ensure!(ended.stdout.contains(line), "{}", ended.stdout);
    ensure!(
        ended
            .junit
            .contains(r#"name="false_alarms.bound" value="2.0e-9""#),
        "{}",
        ended.junit
    );
    // Whatever is not declared is not drawn.
    let ended = run.run(&["--exact", "cni::greedy"], &[])?;
    let trial = ended.verdict("cni::greedy", "no-verdict")?;
    let because = trial["noVerdict"]["because"].as_str().unwrap_or_default();
    ensure!(because.contains("ledger"), "{because}");
    Ok(())
}

fn skips(run: &Run) -> anyhow::Result<()> {
    let ended = run.run(&["--exact", "cni::needs_nine_nodes"], &[])?;
    ended.is(0, &["create", "destroy"])?;
    let skipped = ended.verdict("cni::needs_nine_nodes", "skipped")?;
    ensure!(
        skipped["reason"] == "needs 9 schedulable nodes; there are 0",
        "{skipped:#}"
    );
    Ok(())
}

fn lacks(run: &Run) -> anyhow::Result<()> {
    let ended = run.run(&["gate"], &[(toys::TOY_WRONG, "lacks")])?;
    for name in ["ingress::up", "ingress::gate"] {
        let skipped = ended.verdict(name, "skipped")?;
        ensure!(
            skipped["reason"] == "there is no ingress on toy",
            "{skipped:#}"
        );
    }
    ended.verdict("cni::gate", "passed")?;
    Ok(())
}

fn lists(run: &Run) -> anyhow::Result<()> {
    let ended = run.run(&["--list"], &[])?;
    ended.is(0, &[])?;
    ensure!(
        ended.stdout.contains("cni::holds: test"),
        "{}",
        ended.stdout
    );
    ensure!(!run.path("report").exists(), "a list wrote a report");
    Ok(())
}

fn unmatched(run: &Run) -> anyhow::Result<()> {
    let ended = run.run(&["no_such_check"], &[])?;
    ended.is(3, &[])?;
    ensure!(
        ended.stderr.contains("no check matches no_such_check"),
        "{}",
        ended.stderr
    );
    Ok(())
}

fn not_up(_: &Run) -> anyhow::Result<()> {
    for (wrong, because) in [
        ("up", "no way up"),
        ("up-panic", "the stairs broke"),
        ("create", "no clay to make a cluster of"),
    ] {
        let run = Run::new()?;
        let ended = run.run(&[], &[(toys::TOY_WRONG, wrong)])?;
        ended.is(5, &["create", "export-logs", "destroy"])?;
        let up = ended.verdict("cni::up", "no-verdict")?;
        let told = up["noVerdict"]["because"].as_str().unwrap_or_default();
        ensure!(told.contains(because), "{up:#}");
        for name in ["cni::gate", "cni::holds", "services::up", "ingress::gate"] {
            let blocked = ended.verdict(name, "blocked")?;
            ensure!(blocked["reason"] == "blocked by cni::up", "{blocked:#}");
        }
    }
    Ok(())
}

fn goes_on(run: &Run) -> anyhow::Result<()> {
    let on = ("STRATA_KEEP_GOING", "1");
    let ended = run.run(&["services::never_runs"], &[on])?;
    ended.is(101, &["create", "export-logs", "destroy"])?;
    ended.verdict("services::gate_broken", "failed")?;
    ended.verdict("services::never_runs", "passed")?;
    // What is not up cannot be judged by anyone.
    let run = Run::new()?;
    let ended = run.run(&["services::never_runs"], &[on, (toys::TOY_WRONG, "up")])?;
    ended.is(5, &["create", "export-logs", "destroy"])?;
    ended.verdict("services::never_runs", "blocked")?;
    Ok(())
}

fn bad_manifest(run: &Run) -> anyhow::Result<()> {
    run.write("cni/fixture.yaml", "apiVersion: v1\nkind: Service\n")?;
    let ended = run.run(&["--exact", "cni::holds"], &[])?;
    ended.is(2, &[])?;
    let sentence = "manifests/cni/fixture.yaml:1: document 1 has no metadata.name; add it";
    ensure!(ended.stderr.contains(sentence), "{}", ended.stderr);
    ensure!(ended.junit.contains(sentence), "{}", ended.junit);
    // A check that is not planned is not read.
    let run = Run::new()?;
    run.write("cni/with_manifest.yaml", "{")?;
    run.run(&["--exact", "cni::holds"], &[])?
        .is(0, &["create", "destroy"])?;
    run.run(&["--exact", "cni::with_manifest"], &[])?
        .is(2, &["create", "destroy"])
}

fn bad_variable(run: &Run) -> anyhow::Result<()> {
    for (name, value, said) in [
        ("STRATA_KEPT", "1", "did you mean STRATA_KEEP?"),
        ("STRATA_ASSETS", "/absent", "/absent is not a folder"),
        ("STRATA_REGISTRY", "mine", "without its domain or port"),
    ] {
        let ended = run.run(&[], &[(name, value)])?;
        ended.is(2, &[])?;
        ensure!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    Ok(())
}

/// Starts a run and returns once its check hangs.
fn hanging(
    run: &Run,
) -> anyhow::Result<(std::process::Child, BufReader<std::process::ChildStderr>)> {
    let mut child = run
        .command(&["--exact", "cni::hangs"], &[(toys::TOY_WRONG, "signal")])?
        .spawn()?;
    let mut stderr = BufReader::new(child.stderr.take().context("no stderr")?);
    let mut line = String::new();
    while line != "hanging\n" {
        line.clear();
        ensure!(stderr.read_line(&mut line)? > 0, "it ended before it hung");
    }
    Ok((child, stderr))
}

fn signals(_: &Run) -> anyhow::Result<()> {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let run = Run::new()?;
        let (child, mut stderr) = hanging(&run)?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        let mut err = Vec::new();
        stderr.read_to_end(&mut err)?;
        let output = child.wait_with_output()?;
        let ended = run.ended(output.status.code(), &output.stdout, &err)?;
        ended.is(code, &["create", "destroy"])?;
        ensure!(ended.report["ending"]["code"] == code, "{:#}", ended.report);
        ended.verdict("cni::gate", "passed")?;
        ended.verdict("cni::hangs", "skipped")?;
        ensure!(ended.junit.ends_with("</testsuites>\n"), "{}", ended.junit);
    }
    Ok(())
}

fn unread(run: &Run) -> anyhow::Result<()> {
    let (mut child, stderr) = hanging(run)?;
    drop((stderr, child.stdout.take()));
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let status = child.wait()?;
    let ended = run.ended(status.code(), &[], &[])?;
    ended.is(130, &["create", "destroy"])
}

fn killed(run: &Run) -> anyhow::Result<()> {
    let (mut child, _stderr) = hanging(run)?;
    // While it hangs, what ended before is written.
    let began = Instant::now();
    while run
        .ended(None, &[], &[])?
        .verdict("cni::gate", "passed")
        .is_err()
    {
        ensure!(
            began.elapsed() < PATIENCE,
            "the gate's verdict is never written"
        );
        std::thread::yield_now();
    }
    child.kill()?;
    let status = child.wait()?;
    let ended = run.ended(status.code(), &[], &[])?;
    ensure!(ended.report["ending"].is_null(), "{:#}", ended.report);
    ended.verdict("cni::gate", "passed")?;
    ended.verdict("cni::hangs", "pending")?;
    ensure!(ended.junit.ends_with("</testsuites>\n"), "{}", ended.junit);
    Ok(())
}

fn keeps(run: &Run) -> anyhow::Result<()> {
    let ended = run.run(&["--exact", "cni::holds"], &[("STRATA_KEEP", "1")])?;
    ended.is(0, &["create", "keep"])?;
    ensure!(
        ended.stderr.contains("strata: the toy is kept"),
        "{}",
        ended.stderr
    );
    Ok(())
}
