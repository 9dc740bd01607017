//! `strata-lab`: a lab for people, in the foreground.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use strata_lab::boot::{self, Lab, LabConfig};
use strata_lab::topology::HOST_PID_ANNOTATION;
use tokio::signal::unix::{SignalKind, signal};

/// A Kubernetes cluster for learning and testing: no root, no Docker, gone when it ends.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a lab, and ends it on ctrl-C.
    Up(Up),
}

#[derive(Debug, clap::Args)]
struct Up {
    /// How many workers there are beside the control plane.
    #[arg(long, value_name = "N", default_value_t = LabConfig::default().workers)]
    workers: usize,
    /// The Envoy program, for Ingress, mesh and Gateway.
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// The nft program.
    #[arg(long, value_name = "PATH", default_value = "nft")]
    nft: PathBuf,
    /// An archive of images to load on every node; may be given more than once.
    #[arg(long = "image", value_name = "ARCHIVE")]
    images: Vec<PathBuf>,
    /// Write the kubeconfig to this file.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Add the lab's own log to this file; RUST_LOG selects what of it.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

fn main() -> ExitCode {
    boot::init();
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strata-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Up(command) => up(command).await,
        }
    })
}

async fn up(arguments: Up) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let config = LabConfig {
        workers: arguments.workers,
        envoy: arguments.envoy,
        nft: arguments.nft,
        images: arguments.images,
        log: arguments.log,
    };
    let start = boot::start(config);
    let mut lab = tokio::select! {
        lab = start => lab?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let kubeconfig = match arguments.kubeconfig {
        Some(path) => {
            std::fs::write(&path, lab.kubeconfig())
                .with_context(|| format!("cannot write the kubeconfig {}", path.display()))?;
            path
        }
        None => lab.kubeconfig_path().to_owned(),
    };
    tell(&lab, &kubeconfig)?;
    tokio::select! {
        status = lab.ended() => anyhow::bail!("the lab has ended by itself ({})", status?),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    lab.stop().await
}

fn tell(lab: &Lab, kubeconfig: &std::path::Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "The lab is up at {}; ctrl-C ends it.", lab.server())?;
    writeln!(out)?;
    writeln!(out, "  export KUBECONFIG={}", kubeconfig.display())?;
    writeln!(out, "  kubectl get nodes")?;
    writeln!(out)?;
    writeln!(
        out,
        "To enter the network of a node or a pod, with the process id that its annotation {HOST_PID_ANNOTATION} tells:"
    )?;
    writeln!(out)?;
    writeln!(out, "  {} PID ip address", lab.nsenter().join(" "))
}
