//! The end-to-end test: all suites, on the cluster that `STRATA_PROVIDER` names.

use std::process::ExitCode;

fn main() -> ExitCode {
    strata::main(strata_suites::SUITES)
}
