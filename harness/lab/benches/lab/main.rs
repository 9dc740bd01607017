//! A benchmark of the lab: how fast and how small it is, and how that grows.
//!
//! Start from [`MEASURES`]. Each measure starts labs of its own, looks at them from outside as anyone
//! would, and writes a report of plots and a table to `target/strata-bench/MEASURE.json`; [`render`]
//! makes `docs/bench/*.svg` and the tables of `docs/bench.md` from the reports. Rule: what takes time is
//! compared, in the same run and in turns, with the least that such a thing can take on this machine
//! ([`bare`]), because machines are noisy and differ.
//!
//! `scripts/bench` runs all of it.

mod bare;
mod cluster;
mod kind;
mod names;
mod pods;
mod propagation;
mod render;
mod report;
mod requests;
mod start;
mod watches;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;

use self::report::{Machine, Measured, Report};

/// The lab allocates as `strata-lab` does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A benchmark of the lab.
#[derive(Debug, Parser)]
#[command(after_help = "Measures: start, kind, requests, watches, propagation, names, pods.")]
pub(crate) struct Arguments {
    /// What to measure; everything, if nothing is named.
    measures: Vec<String>,
    /// Where reports go, and plots and tables are made from.
    #[arg(long, default_value = "target/strata-bench")]
    out: PathBuf,
    /// The probe, for pods that are processes; without it there are none.
    #[arg(long)]
    pub(crate) probe: Option<PathBuf>,
    /// Names the reports apart: `dev` for those of a development build.
    #[arg(long, default_value = "")]
    suffix: String,
    /// Only makes the plots and tables of this directory, from the reports that there are.
    #[arg(long, value_name = "DOCS")]
    render: Option<PathBuf>,
    /// What `cargo bench` says.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Measures everything that a report is made of.
type Measure = fn(&Arguments) -> futures::future::LocalBoxFuture<'_, anyhow::Result<Measured>>;

const MEASURES: &[(&str, Measure)] = &[
    ("start", |_| Box::pin(start::measure())),
    ("kind", |_| Box::pin(kind::measure())),
    ("requests", |_| Box::pin(requests::measure())),
    ("watches", |_| Box::pin(watches::measure())),
    ("propagation", |_| Box::pin(propagation::measure())),
    ("names", |_| Box::pin(names::measure())),
    ("pods", |arguments| Box::pin(pods::measure(arguments))),
];

/// What this program does inside a lab, or beside one, when it starts itself.
type Role = fn() -> anyhow::Result<()>;

const ROLES: &[(&str, Role)] = &[
    (bare::SERVER, bare::serve),
    (bare::RULES, bare::rules),
    (names::RATE, names::rate),
    (names::WAIT, names::wait),
];

fn main() -> ExitCode {
    strata_lab::boot::init();
    let first = std::env::args().nth(1).unwrap_or_default();
    let role = ROLES.iter().find(|(name, _)| *name == first);
    let done = match role {
        Some((_, work)) => work(),
        None => tokio::runtime::Runtime::new()
            .context("no runtime")
            .and_then(|runtime| runtime.block_on(run(&Arguments::parse()))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Cargo starts benches in their package's directory; paths are of the workspace.
    let workspace = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    std::env::set_current_dir(&workspace).context("the workspace")?;
    if let Some(docs) = &arguments.render {
        return render::render(&arguments.out, docs);
    }
    let unknown = |name: &&String| MEASURES.iter().all(|(known, _)| known != name);
    if let Some(unknown) = arguments.measures.iter().find(unknown) {
        anyhow::bail!("there is no measure {unknown}; --help names them");
    }
    std::fs::create_dir_all(&arguments.out)?;
    for (name, measure) in MEASURES {
        let asked = arguments.measures.is_empty() || arguments.measures.iter().any(|it| it == name);
        if !asked {
            continue;
        }
        let (begun, before) = (Instant::now(), Machine::look()?);
        let measured = measure(arguments)
            .await
            .with_context(|| (*name).to_owned())?;
        let report = Report {
            measure: (*name).to_owned(),
            seconds: begun.elapsed().as_secs_f64(),
            load_before: before.load,
            machine: Machine::look()?,
            measured,
        };
        let dash = if arguments.suffix.is_empty() { "" } else { "-" };
        let file = format!("{name}{dash}{}.json", arguments.suffix);
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(arguments.out.join(file), text)?;
        println!("{report}");
    }
    Ok(())
}
