//! Labs as other programs start them: what they are, how they refuse, and that nothing is left of
//! them however they end. Every case starts a program of its own (see `embed`) that embeds a lab,
//! from a copy of this one at a path that no other process has, so that what is left can be found.
//!
//! As root every case is run as an ordinary user as well.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

mod choices;
mod death;
mod embed;
#[path = "../support/image.rs"]
mod image;
mod life;
#[path = "../support/processes.rs"]
mod processes;
mod refusal;
#[path = "../support/terminal.rs"]
mod terminal;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use strata_lab::boot;

/// Who runs the program that embeds the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Whoever runs the tests.
    Caller,
    /// A user of no special rights, whom only root can become.
    Ordinary,
}

type Case = (&'static str, fn(Who));

fn main() -> ExitCode {
    boot::init();
    if std::env::args().nth(1).as_deref() == Some(embed::ROLE) {
        return embed::main();
    }
    let root = nix::unistd::geteuid().is_root();
    let mut trials = Vec::new();
    for (name, case) in [choices::CASES, death::CASES, life::CASES, refusal::CASES].concat() {
        trials.push(trial(name, case, Who::Caller));
        if root {
            trials.push(trial(&format!("ordinary::{name}"), case, Who::Ordinary));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, case: fn(Who), who: Who) -> Trial {
    Trial::test(name, move || {
        std::panic::catch_unwind(|| case(who)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
        })
    })
}
