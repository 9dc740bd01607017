//! The binary: a server in a pod, a client when run over `exec`.
//!
//! Start from [`cli::parse`]. What it sends and serves is specified by the library's wire types and by
//! README.md. Rule: what the network did is told in the replies; the exit code speaks of the command
//! line (2) and of what kept us from doing anything at all (1).

mod cli;
mod client;
mod pause;
mod serve;

use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    let done = match cli::parse(std::env::args_os()) {
        Ok(command) => run(command),
        Err(cli::Stop::Said(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(cli::Stop::Wrong(sentence)) => Err(Trouble::CommandLine(sentence)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::CommandLine(sentence)) => {
            eprintln!("strata-probe: {sentence}");
            ExitCode::from(2)
        }
        Err(Trouble::Other(sentence)) => {
            eprintln!("strata-probe: {sentence}");
            ExitCode::from(1)
        }
    }
}

/// Why nothing was done, in one sentence.
#[derive(Debug)]
enum Trouble {
    /// What was asked for makes no sense.
    CommandLine(String),
    /// It does, but this machine does not let us.
    Other(String),
}

fn run(command: Command) -> Result<(), Trouble> {
    match command {
        Command::Request(spec) => on_one_thread(client::request::run(spec)),
        Command::Websocket(spec) => on_one_thread(client::websocket::run(spec)),
        Command::Requests(spec) => on_one_thread(client::requests::run(spec)),
        Command::Dns(spec) => on_one_thread(client::dns::run(spec)),
        Command::Tcp(spec) => on_one_thread(client::tcp::run(spec)),
        Command::Udp(spec) => on_one_thread(client::udp::run(spec)),
        Command::KubernetesApi(spec) => on_one_thread(client::api::run(spec)),
        Command::Routes => on_one_thread(client::routes::run()),
        Command::Serve(flags) => on_one_thread(serve::run(flags)),
        Command::Pause => pause::run(),
        Command::Image => image(),
    }
}

/// Writes this very binary's image.
fn image() -> Result<(), Trouble> {
    let binary = std::fs::read("/proc/self/exe")
        .map_err(|error| Trouble::Other(format!("reading this program: {error}")))?;
    let archive =
        strata_probe::image::archive(&binary).map_err(|error| Trouble::Other(error.to_string()))?;
    std::io::stdout()
        .write_all(&archive)
        .map_err(|error| Trouble::Other(format!("writing the image: {error}")))
}

/// One thread is enough for what a probe does, and the quickest to start.
fn on_one_thread(work: impl Future<Output = Result<(), Trouble>>) -> Result<(), Trouble> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::Other(format!("starting: {error}")))?
        .block_on(work)
}
