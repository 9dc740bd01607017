//! Prints what the test of a 90/10 split comes to, exactly, beside two rules that are in use: the table
//! of `docs/statistics.md`.

use strata::NoVerdict;
use strata::verdict::chance::rules;

fn main() -> Result<(), NoVerdict> {
    print!("{}", rules::table()?);
    Ok(())
}
