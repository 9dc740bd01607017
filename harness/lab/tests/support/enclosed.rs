//! A test program each of whose tests runs in namespaces of its own, as root or as anybody, and which
//! is the stages of what it starts there: it starts itself again, enclosed by `unshare`.

use std::pin::Pin;
use std::process::{Child, Command, ExitCode};

use strata_lab::node::stage;

/// The argument of the program that is inside; the test's name follows.
const INSIDE: &str = "--inside";

/// What a test is called, and its cases.
pub(crate) type Test = (String, Pin<Box<dyn Future<Output = ()>>>);

/// The `main` of such a program: its tests run side by side, since they mostly wait.
pub(crate) fn main(tests: Vec<Test>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    stage::run(&arguments[0]);
    let (before, inside) = match arguments.iter().position(|argument| argument == INSIDE) {
        Some(at) => (&arguments[1..at], arguments.get(at + 1)),
        None => (&arguments[1..], None),
    };
    if let Some(inside) = inside {
        return run(tests, inside);
    }
    let filters = before.iter().filter(|argument| !argument.starts_with('-'));
    let filters: Vec<&String> = filters.collect();
    let chosen = tests
        .iter()
        .map(|(name, _)| name)
        .filter(|name| filters.is_empty() || filters.iter().any(|it| name.contains(*it)));
    if before.iter().any(|argument| argument == "--list") {
        chosen.for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let started: Vec<_> = chosen.map(|name| (name, start(name))).collect();
    let mut code = ExitCode::SUCCESS;
    for (name, child) in started {
        match child.and_then(|mut child| child.wait()) {
            Ok(status) if status.success() => println!("test {name} ... ok"),
            Ok(_) => {
                println!("test {name} ... FAILED");
                code = ExitCode::FAILURE;
            }
            Err(error) => println!("test {name} ... not run: unshare: {error}"),
        }
    }
    code
}

fn run(tests: Vec<Test>, name: &str) -> ExitCode {
    let Some((_, cases)) = tests.into_iter().find(|(found, _)| found == name) else {
        println!("there is no test {name}");
        return ExitCode::FAILURE;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(cases);
    ExitCode::SUCCESS
}

fn start(name: &str) -> std::io::Result<Child> {
    let namespaces = ["-U", "-r", "-m", "-n", "-p", "-f", "--mount-proc"];
    Command::new("unshare")
        .args(namespaces)
        .arg("--kill-child")
        .arg(std::env::current_exe()?)
        .args([INSIDE, name])
        .spawn()
}
