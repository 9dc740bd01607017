//! `strata-lab`: labs for people.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    strata_lab::boot::init();
    cli::enter::init();
    cli::main()
}
