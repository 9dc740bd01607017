//! Runs the main job over the cells of a matrix, one after the other, and says what is newly broken.
//!
//! Start from [`night`]. [`matrix`] says what there is to run, [`cell`] runs one, [`summary`] tells what came of
//! all. Nothing here judges a cluster: what a run says of itself in `report.json` is taken as it is. A night
//! that was interrupted goes on where it was: cells that have ended are not run again.

mod cell;
mod matrix;
mod summary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::cell::{Came, Plan};
use self::matrix::{Cell, Matrix};
use self::summary::Night;

/// Runs the main job over a matrix of clusters: ci/versions.yaml.
///
/// Exit codes: 0 every cell that was run is green; 101 a cluster broke a claim; 4 a cell came to no verdict, took too
/// long, or did not come up; 2 bad input; 130 interrupted.
#[derive(Debug, Parser)]
struct Arguments {
    /// The cells to run; all of them without.
    cells: Vec<String>,
    /// The e2e program.
    #[arg(long)]
    program: PathBuf,
    /// The matrix.
    #[arg(long, default_value = "ci/versions.yaml")]
    matrix: PathBuf,
    /// Where nights are, a folder each.
    #[arg(long, default_value = "target/nightly")]
    dir: PathBuf,
    /// The night's name, by which nights are in order; today's date without.
    #[arg(long)]
    night: Option<String>,
    /// Runs again what has ended already.
    #[arg(long)]
    again: bool,
    /// Lists the cells, one a line, those that this version cannot run left out.
    #[arg(long)]
    list: bool,
}

const BAD_INPUT: u8 = 2;
const NO_VERDICT: u8 = 4;
const FAILED: u8 = 101;
const INTERRUPTED: u8 = 130;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match begin(&arguments).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("nightly: {error:#}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

async fn begin(arguments: &Arguments) -> anyhow::Result<u8> {
    let matrix = Matrix::read(&arguments.matrix)?;
    let chosen = matrix.chosen(&arguments.cells)?;
    if arguments.list {
        for cell in chosen.iter().filter(|cell| cell.not_yet.is_none()) {
            println!("{}", cell.name);
        }
        return Ok(0);
    }
    let (say, ended) = watch::channel(false);
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for ctrl-C")?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let listening = tokio::spawn(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        say.send_replace(true);
    });
    let code = night(arguments, &matrix, &chosen, ended).await;
    listening.abort();
    code
}

/// Runs the cells; the summary is written after each, so that a night that is killed has one.
async fn night(
    arguments: &Arguments,
    matrix: &Matrix,
    chosen: &[&Cell],
    mut ended: watch::Receiver<bool>,
) -> anyhow::Result<u8> {
    let today = || jiff::Zoned::now().date().to_string();
    let name = arguments.night.clone().unwrap_or_else(today);
    let nights = std::path::absolute(&arguments.dir)?;
    let folder = nights.join(&name);
    let before = Night::before(&nights, &name)?;
    let mut night = Night::new(&name);
    for cell in chosen {
        let described = matrix.described(cell);
        if let Some(why) = &cell.not_yet {
            night.add_not_run(&cell.name, described, why);
            continue;
        }
        let plan = Plan {
            program: &arguments.program,
            filter: cell.filter.as_deref(),
            environment: matrix.environment(cell),
            folder: folder.join(&cell.name),
        };
        let came = came_of(&plan, arguments.again, matrix.limit_minutes, &mut ended).await?;
        night.add(&cell.name, described, &came, before.as_ref());
        let outcome = night.cells.last().map(|cell| cell.outcome.as_str());
        println!("{}: {}", cell.name, outcome.unwrap_or_default());
        write(&folder, &night)?;
        if matches!(came, Came::Interrupted) {
            return Ok(INTERRUPTED);
        }
    }
    write(&folder, &night)?;
    println!("{}", folder.join("summary.md").display());
    Ok(code(&night))
}

async fn came_of(
    plan: &Plan<'_>,
    again: bool,
    minutes: u64,
    ended: &mut watch::Receiver<bool>,
) -> anyhow::Result<Came> {
    if !again && let Some(report) = cell::done(&plan.folder)? {
        return Ok(Came::Ended(report));
    }
    let over = tokio::time::sleep(Duration::from_secs(minutes * 60));
    cell::run(plan, over, ended).await
}

fn write(folder: &Path, night: &Night) -> anyhow::Result<()> {
    let write = || {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("summary.md"), night.markdown())?;
        let json = serde_json::to_string_pretty(night)?;
        std::fs::write(folder.join(summary::FILE), json + "\n")
    };
    write().with_context(|| format!("cannot write the summary to {}", folder.display()))
}

/// What the night comes to as a whole: a broken claim weighs more than none that could be judged.
fn code(night: &Night) -> u8 {
    let ran = night.cells.iter().filter(|cell| cell.ran);
    let codes: Vec<_> = ran.map(|cell| cell.code.unwrap_or(NO_VERDICT)).collect();
    match codes.iter().find(|code| **code == FAILED) {
        Some(failed) => *failed,
        None if codes.iter().all(|code| *code == 0) => 0,
        None => NO_VERDICT,
    }
}
