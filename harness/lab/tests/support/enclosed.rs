//! A test program that runs its cases in namespaces of its own, as root or as anybody, and is the
//! stages of what it starts there: it starts itself again, enclosed by `unshare`.

use std::process::{Command, ExitCode};

use strata_lab::node::stage;

/// The argument of the program that is inside.
const INSIDE: &str = "--inside";

/// The `main` of such a program: `name` is what its one test is called.
pub(crate) fn main(name: &str, cases: impl Future<Output = ()>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    stage::run(&arguments[0]);
    let given = |word: &str| arguments.iter().any(|argument| argument == word);
    if given("--list") {
        println!("{name}: test");
        return ExitCode::SUCCESS;
    }
    if given(INSIDE) {
        tokio::runtime::Runtime::new().unwrap().block_on(cases);
        println!("test {name} ... ok");
        return ExitCode::SUCCESS;
    }
    let namespaces = ["-U", "-r", "-m", "-n", "-p", "-f", "--mount-proc"];
    let status = Command::new("unshare")
        .args(namespaces)
        .arg("--kill-child")
        .arg(std::env::current_exe().unwrap())
        .arg(INSIDE)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("not run: unshare: {error}");
            ExitCode::SUCCESS
        }
    }
}
