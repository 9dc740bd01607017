//! `strata-lab`: labs for people.

mod cli;

use std::process::ExitCode;

/// The lab allocates small and often.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    strata_lab::boot::init();
    cli::enter::init();
    cli::main()
}
