//! `up`: starts a lab, and stays with it or leaves it in the background.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::Timestamp;
use strata_lab::boot::{self, Cni, IpFamilies, Lab, LabConfig, StartError};
use strata_lab::topology::KUBERNETES_VERSION;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::process::Process;
use super::record::{Name, Record, Records, Running};
use super::{Which, kubeconfig, say, say_all, tools};

#[derive(Debug, clap::Args)]
pub(super) struct Up {
    #[command(flatten)]
    which: Which,
    /// Return once it is ready; `strata-lab down` ends it.
    #[arg(short, long)]
    detach: bool,
    /// How many workers there are beside the control plane, 1 to 50.
    #[arg(long, value_name = "N", default_value_t = LabConfig::default().workers)]
    workers: usize,
    /// The CNI, by the name of the plugin whose data path it has.
    #[arg(long, value_name = "NAME", env = "STRATA_CNI", default_value_t, value_parser = cnis())]
    cni: Plugin,
    /// The address families of pods, nodes and Services: ipv4, or dual, which is both.
    #[arg(long, value_name = "FAMILY", env = "STRATA_IP_FAMILY", default_value_t, value_parser = families())]
    ip_family: IpFamilies,
    /// An archive of images to load into every node; may be given more than once.
    #[arg(long = "image", value_name = "ARCHIVE")]
    images: Vec<PathBuf>,
    /// The kubeconfig that gets the context strata-NAME [default: the first of $KUBECONFIG that
    /// exists, or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The Envoy program, for Ingress, mesh and Gateway [default: the one on PATH].
    #[arg(long, value_name = "PATH", env = "STRATA_ENVOY")]
    envoy: Option<PathBuf>,
    /// The nft program [default: the one on PATH, or in /usr/sbin].
    #[arg(long, value_name = "PATH", env = "STRATA_NFT")]
    nft: Option<PathBuf>,
    /// Add the lab's own log to this file, which stays; RUST_LOG selects what of it.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How many milliseconds late the lab's components hear of each change, at most, as on a cluster that has much to do;
    /// each watch by a part of it that is drawn as it begins.
    #[arg(long, value_name = "MS", env = "STRATA_WATCH_LAG_MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=LONGEST_LAG_MS))]
    watch_lag_ms: u64,
}

/// Nodes that hear nothing for longer are taken for dead.
const LONGEST_LAG_MS: u64 = 10_000;

/// Reads a CNI's name; shells complete it, and another one is refused with the choices.
fn cnis() -> impl TypedValueParser<Value = Plugin> {
    let names = Cni::ALL.map(Cni::name).into_iter().chain(["none"]);
    let names = PossibleValuesParser::new(names.collect::<Vec<_>>());
    names.try_map(|name| Cni::choice(&name).map(Plugin))
}

/// A CNI, or none.
#[derive(Debug, Clone, Copy)]
struct Plugin(Option<Cni>);

impl Default for Plugin {
    fn default() -> Self {
        Self(Some(Cni::default()))
    }
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.map_or("none", Cni::name))
    }
}

/// Reads the address families' name, as a CNI's.
fn families() -> impl TypedValueParser<Value = IpFamilies> {
    let names = PossibleValuesParser::new(IpFamilies::ALL.map(IpFamilies::name));
    names.try_map(|name| name.parse::<IpFamilies>())
}

impl Up {
    pub(super) async fn run(self, records: &Records) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut ends = Ends::new()?;
        let name = self.which.given().cloned().unwrap_or_default();
        let nft = tools::nft(self.nft)?;
        let envoy = tools::envoy(self.envoy)?;
        if envoy.is_none() {
            say(tools::NO_ENVOY);
        }
        let apart = self.kubeconfig.is_some();
        let file = kubeconfig::file(self.kubeconfig)?;
        let log = match self.log {
            Some(log) => std::path::absolute(log)?,
            None => records.log(&name),
        };
        let mut record = Record {
            process: Process::own()?,
            detached: self.detach,
            since: Timestamp::now(),
            kubeconfig: kubeconfig::Entry::planned(file, name.context())?,
            log,
            running: None,
            name,
        };
        records.begin(&record)?;
        if record.log == records.log(&record.name) {
            new_log(&record.log)?;
        }
        let config = LabConfig {
            workers: self.workers,
            cni: self.cni.0,
            ip_families: self.ip_family,
            envoy,
            nft,
            images: self.images,
            log: Some(record.log.clone()),
            watch_lag: Duration::from_millis(self.watch_lag_ms),
        };
        let start = boot::start(config);
        let started = tokio::select! {
            started = start => started,
            () = ends.come() => {
                say_all(records.forget(&record));
                return Ok(());
            }
        };
        let ready = match started {
            Ok(lab) => introduce(records, &mut record, lab),
            // It names the log, so that stays where it is.
            Err(StartError::Ended(sentence)) => Err(anyhow::anyhow!(sentence)),
            Err(error) => {
                say_all(records.forget(&record));
                return Err(error.into());
            }
        };
        let lab = match ready {
            Ok(lab) => lab,
            Err(error) => {
                say_all(records.forget_but_log(&record));
                return Err(error);
            }
        };
        // A lab that nobody listens to is wanted all the same.
        let _ = tell(&record, self.workers + 1, begun.elapsed(), apart);
        if self.detach {
            lab.keep().context("the lab has ended already")?;
            return Ok(());
        }
        stay(records, &record, lab, &mut ends).await
    }
}

/// Records a lab that is ready, and writes its context.
fn introduce(records: &Records, record: &mut Record, lab: Lab) -> anyhow::Result<Lab> {
    let first = Process::of(lab.pid())?;
    record.running = Some(Running {
        boot: first.parent()?,
        server: lab.server().to_owned(),
        own_kubeconfig: lab.kubeconfig_path().to_owned(),
    });
    record.process = first;
    // Before the context is written, so that whatever happens now somebody sweeps it.
    records.replace(record)?;
    record.kubeconfig.add(lab.kubeconfig()).with_context(|| {
        format!(
            "the lab is ended again, since context {} could not be written",
            record.kubeconfig.context
        )
    })?;
    Ok(lab)
}

/// Waits for the end, or brings it about.
async fn stay(
    records: &Records,
    record: &Record,
    mut lab: Lab,
    ends: &mut Ends,
) -> anyhow::Result<()> {
    let ended = tokio::select! {
        status = lab.ended() => Some(status),
        () = ends.come() => None,
    };
    match ended {
        None => {
            let stopped = lab.stop().await;
            say_all(records.forget(record));
            // Below the ^C that the terminal shows.
            eprintln!();
            say(&format!("lab {:?} has ended", record.name));
            stopped
        }
        Some(Ok(status)) if status.success() => {
            say_all(records.forget(record));
            say(&format!(
                "lab {:?} has ended, as somebody asked",
                record.name
            ));
            Ok(())
        }
        Some(status) => {
            say_all(records.forget_but_log(record));
            bail!(
                "lab {:?} has ended by itself ({}); its log is {}",
                record.name,
                status.map_or_else(
                    |error| error.to_string(),
                    |status: ExitStatus| status.to_string()
                ),
                record.log.display()
            )
        }
    }
}

/// ctrl-C, SIGTERM, and the end of the terminal.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn come(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// An empty log of the user's own.
fn new_log(path: &Path) -> anyhow::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write the lab's log {}", path.display()))?;
    Ok(())
}

/// A path as shells read it, and people like it.
fn short(path: &Path) -> String {
    let home = std::env::home_dir().filter(|home| home.components().count() > 1);
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(below) => format!("~/{}", below.display()),
        None => path.display().to_string(),
    }
}

fn tell(record: &Record, nodes: usize, took: Duration, apart: bool) -> io::Result<()> {
    let Some(running) = &record.running else {
        return Ok(());
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "Lab {:?} is up in {:.2} s: {nodes} nodes, Kubernetes {KUBERNETES_VERSION}, {}",
        record.name,
        took.as_secs_f64(),
        running.server
    )?;
    let file = short(&record.kubeconfig.file);
    if apart {
        writeln!(out, "Use it:  export KUBECONFIG={file}")?;
    } else {
        writeln!(
            out,
            "kubectl uses it now: context {} in {file}",
            record.kubeconfig.context
        )?;
    }
    let ends = if record.detached {
        format!("strata-lab down {}", record.name)
    } else {
        "ctrl-C".to_owned()
    };
    let ends = ends.trim_end_matches(&format!(" {}", Name::default()));
    writeln!(out, "End it:  {ends}")?;
    out.flush()
}
