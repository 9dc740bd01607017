//! `down`: ends labs, and waits until nothing is left of them.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::sys::signal::Signal;

use super::record::{Record, Records};
use super::{Which, say_all};

/// How long a lab may take to end by itself; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Down {
    #[command(flatten)]
    pub(super) which: Which,
    /// Every lab of yours.
    #[arg(long, conflicts_with_all = ["bare", "name"])]
    all: bool,
}

impl Down {
    pub(super) fn run(self, records: &Records) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let labs = if self.all {
            records.all()?
        } else {
            let name = self.which.given().cloned().unwrap_or_default();
            let found = records.find(&name)?;
            if found.is_none() {
                writeln!(out, "There is no lab {name:?}; nothing to end.")?;
            }
            found.into_iter().collect()
        };
        if self.all && labs.is_empty() {
            writeln!(out, "There is no lab; nothing to end.")?;
        }
        for lab in labs {
            let begun = Instant::now();
            end(&lab)?;
            say_all(records.forget(&lab));
            let took = begun.elapsed().as_secs_f64();
            writeln!(out, "Lab {:?} has ended ({took:.2} s).", lab.name)?;
        }
        Ok(())
    }
}

/// Ends a lab's processes.
fn end(lab: &Record) -> anyhow::Result<()> {
    let between = lab.running.as_ref().and_then(|running| running.boot.open());
    if let Some(first) = lab.process.open() {
        first.signal(Signal::SIGTERM);
        if !first.ends_within(PATIENCE) {
            // The kernel ends every other process of the lab with this one.
            first.signal(Signal::SIGKILL);
        }
        if !first.ends_within(PATIENCE) {
            bail!(
                "lab {:?}: process {} does not end, even if killed",
                lab.name,
                lab.process.pid
            );
        }
    }
    match between {
        // It ends by itself, with the lab.
        Some(process) if !process.ends_within(PATIENCE) => {
            bail!(
                "lab {:?}: the process that waits for its end does not end",
                lab.name
            )
        }
        _ => Ok(()),
    }
}
