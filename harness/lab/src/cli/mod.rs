//! The commands of `strata-lab`.
//!
//! Start from [`main`]; each command has a file. Labs are known by their records ([`record`]), which
//! are all that commands share; what a lab is and how it ends is the library's. A lab that has ended
//! without `down` leaves its record, and the next command, whichever it is, sweeps it. Rule: results
//! go to standard output, everything else to standard error, and whatever is wrong is one sentence
//! with its remedy.
//!
//! ```text
//! up, down, load, status, exec, logs ──► record ──► process
//!                                  └──► kubeconfig, connect, tools, table
//! ```

mod completion;
mod connect;
mod down;
pub(crate) mod enter;
mod exec;
mod kubeconfig;
mod load;
mod logs;
mod process;
mod record;
mod status;
mod table;
mod terminal;
mod tools;
mod up;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::record::{Name, Records};

/// A Kubernetes cluster in a second, for learning and testing: no root, no Docker, and nothing left
/// of it when it ends.
#[derive(Debug, Parser)]
#[command(name = "strata-lab", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Where running labs are recorded [default: /tmp/strata-UID].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a lab; in the foreground, ctrl-C ends it.
    Up(up::Up),
    /// End labs.
    Down(down::Down),
    /// Load images into every node, from what docker save or podman save writes.
    Load(load::Load),
    /// Show labs, their nodes, and the pods that are not ready.
    Status(status::Show),
    /// Run a command in a node's network, or in a pod.
    Exec(exec::Exec),
    /// Show a lab's own log, or a pod's.
    Logs(logs::Logs),
    /// Write a shell's completion script.
    Completion(completion::Completion),
}

/// Which lab: its name is given bare, or as in other commands.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// The lab's name [default: lab].
    #[arg(value_name = "NAME")]
    bare: Option<Name>,
    /// The same.
    #[arg(long, value_name = "NAME", conflicts_with = "bare")]
    name: Option<Name>,
}

impl Which {
    fn given(&self) -> Option<&Name> {
        self.bare.as_ref().or(self.name.as_ref())
    }
}

/// Which lab, where bare words mean something else.
#[derive(Debug, Clone, clap::Args)]
struct InLab {
    /// The lab's name.
    #[arg(long = "name", value_name = "NAME", default_value_t)]
    lab: Name,
}

/// What `main` does when it is not a stage.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        // Whoever reads no further has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Command::Completion(command) = arguments.command {
        return command.run().map(|()| ExitCode::SUCCESS);
    }
    let records = Records::open(arguments.state)?;
    say_all(records.sweep()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        let done = match arguments.command {
            Command::Up(command) => command.run(&records).await,
            Command::Down(command) => command.run(&records),
            Command::Load(command) => command.run(&records).await,
            Command::Status(command) => command.run(&records).await,
            Command::Exec(command) => return command.run(&records).await,
            Command::Logs(command) => command.run(&records).await,
            Command::Completion(command) => command.run(),
        };
        done.map(|()| exec::Ran::Ended(ExitCode::SUCCESS))
    });
    // A read of standard input that nobody waits for any more would be waited for.
    runtime.shutdown_background();
    match done? {
        exec::Ran::Ended(code) => Ok(code),
        exec::Ran::Enters(entry) => Err(entry.become_command()),
    }
}

/// Says something beside the results.
fn say(sentence: &str) {
    eprintln!("strata-lab: {sentence}");
}

fn say_all(sentences: Vec<String>) {
    for sentence in sentences {
        say(&sentence);
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn names_are_given_bare_or_as_an_option() {
        for line in ["strata-lab down two", "strata-lab down --name two"] {
            let Command::Down(down) = parse(line).unwrap().command else {
                panic!("{line}");
            };
            assert_eq!(
                down.which.given().map(ToString::to_string),
                Some("two".to_owned())
            );
        }
        for line in [
            "strata-lab down two --name two",
            "strata-lab down two --all",
            "strata-lab up Two",
            "strata-lab up ../x",
            "strata-lab up -x-",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_command_to_run_comes_after_two_dashes() {
        let line = "strata-lab exec -it web -n shop -c app --name two -- ls -l --name x";
        let Command::Exec(exec) = parse(line).unwrap().command else {
            panic!("{line}");
        };
        assert_eq!(exec.command, ["ls", "-l", "--name", "x"]);
        assert_eq!(exec.in_lab.lab.to_string(), "two");
        for line in ["strata-lab exec web", "strata-lab exec web ls"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
