//! Plan, order, run, clean up: the life of a run and of each trial in it.
//!
//! Start from [`main`]; [`Runner`] is the same with its parts exchangeable, for tests of the runner
//! itself. libtest-mimic reads the command line and prints the lines people know; which trials run
//! and when is `plan`'s and `stage`'s work, and what they mean is the check's. Rule: whatever ends a
//! run (success, failure, panic, a signal), the provider is asked to take its cluster away, and the
//! reports say what had been judged by then.

mod end;
mod hook;
mod known;
mod plan;
mod progress;
mod signals;
mod stage;
mod trial;

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, FormatSetting};
use rand::RngExt as _;
use tokio_util::task::AbortOnDropHandle;

use crate::apply::load_planned;
use crate::asset::Origin;
use crate::check::Suite;
use crate::deviation;
use crate::exit::Exit;
use crate::provider::registry::Target;
use crate::provider::{self, Cluster, Provider};
use crate::report;
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings, workspace};
use crate::stack::Layer;
use crate::verdict::NotPassed;
use crate::verdict::chance::{BUDGET, Ledger};
use plan::Plan;
use stage::Stage;

/// How a layer is brought up: [`crate::layer::bring_up`], but for the runner's own tests.
pub type BringUp = for<'a> fn(
    Layer,
    &'a Arc<Cluster>,
    &'a RunInfo,
    &'a (dyn Fn(&str) + Sync),
) -> LocalBoxFuture<'a, Result<(), NotPassed>>;

/// A run with its parts exchangeable.
#[derive(Clone, Copy)]
pub struct Runner {
    /// What is judged.
    pub suites: &'static [Suite],
    /// Which tests of chance each check may draw.
    pub chance: Ledger,
    /// The ids of those that begin first, since they take longest. No verdict depends on it.
    pub longest: &'static [&'static str],
    /// The folder of manifests; a relative path is taken from the workspace's root.
    pub manifests: &'static str,
    /// The folder of what is known of implementations; as for manifests.
    pub deviations: &'static str,
    /// Who makes the cluster.
    pub provider: fn(&Settings) -> Result<Box<dyn Provider>, BadInput>,
    /// How a layer is brought up.
    pub bring_up: BringUp,
    /// How long a whole check may take. Its waits have bounds of their own, far below; this one
    /// catches the check that forgot.
    pub deadline: Duration,
}

/// The `main` of a test target: does everything, and returns an exit code of [`crate::exit`].
///
/// The lab starts itself by executing this program again, so this must be the first statement of
/// `main`, before there is a second thread.
#[must_use]
pub fn main(
    suites: &'static [Suite],
    chance: Ledger,
    longest: &'static [&'static str],
) -> ExitCode {
    provider::init();
    Runner {
        suites,
        chance,
        longest,
        manifests: "manifests",
        deviations: "suites/deviations",
        provider: provider::choose,
        bring_up: |layer, cluster, run, progress| {
            Box::pin(crate::layer::bring_up(layer, cluster, run, progress))
        },
        deadline: Duration::from_secs(90),
    }
    .main()
}

impl Runner {
    /// Reads arguments and environment, runs, and reports.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let arguments = Arguments::from_args();
        let run = |settings| self.run(settings, arguments.clone());
        match Settings::from_env().and_then(run) {
            Ok(exit) => exit.into(),
            Err(bad) => {
                progress::tell(&bad);
                if !arguments.list {
                    end::report_bad_input(&bad);
                }
                Exit::BadInput.into()
            }
        }
    }

    fn run(self, settings: Settings, arguments: Arguments) -> Result<Exit, BadInput> {
        let plan = Plan::new(self.suites, self.longest, &arguments);
        if arguments.list {
            let listed = plan.arguments(&arguments, &plan.selected);
            let trials = plan
                .all
                .iter()
                .map(|item| libtest_mimic::Trial::test(item.name(), || Ok(())));
            let _ = libtest_mimic::run(&listed, trials.collect());
            return Ok(Exit::Passed);
        }
        affordable(&self.chance, &plan)?;
        let provider = (self.provider)(&settings)?;
        // Whether or not this run comes to need them: what is misspelt is said now, not in the middle.
        Origin::of(settings.assets.as_deref())?;
        Target::of(&settings)?;
        if let Some(program) = &settings.after_layer {
            hook::check(program)?;
        }
        let manifests = load_planned(
            &workspace().join(self.manifests),
            |layer| provider.variant(layer),
            plan.layers(),
            plan.run.iter().filter_map(|item| item.check?.manifest),
        )?;
        let deviations = match settings.deviations {
            true => deviation::load(&workspace().join(self.deviations))?,
            false => Vec::new(),
        };
        let _lock = prepare(&settings.report_dir)?;
        narrate(&settings)?;
        let mut random = rand::rng();
        let info = RunInfo {
            id: (0..6)
                .map(|_| char::from(random.sample(rand::distr::Alphanumeric)))
                .collect::<String>()
                .to_lowercase(),
            seed: settings.seed.unwrap_or_else(|| random.random()),
            random_cases: settings.random_cases,
            report_dir: settings.report_dir.clone(),
            again: again(&settings),
            manifests: Arc::new(manifests),
            chance: self.chance,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                BadInput(format!("cannot start threads ({error}); raise ulimit -u"))
            })?;
        if !plan.run.is_empty() {
            let planned = plan.told(&info);
            runtime.block_on(provider.preflight(&planned, &|line| progress::tell(line)))?;
        }
        let side_by_side = provider.side_by_side();
        let stage = Arc::new(Stage::new(
            self,
            settings,
            info,
            (provider, deviations),
            &plan,
        ));
        stage.save();
        let saving = {
            let stage = Arc::clone(&stage);
            AbortOnDropHandle::new(runtime.spawn(async move { stage.keep_saved().await }))
        };
        let signals = runtime.spawn(signals::listen(stage.stop.clone()));
        let names = plan.names();
        let mut mimic = plan.arguments(&arguments, &names);
        mimic.test_threads = Some(arguments.test_threads.unwrap_or(side_by_side).max(1));
        let trials = plan
            .all
            .iter()
            .map(|item| stage.trial(*item, runtime.handle()))
            .collect();
        // The line of a panic in libtest-mimic itself has been printed by the panic hook.
        let ended =
            std::panic::catch_unwind(AssertUnwindSafe(|| libtest_mimic::run(&mimic, trials)));
        if ended.is_err() {
            stage.trouble("the runner itself panicked; this is a defect of strata".to_owned());
        }
        runtime.block_on(stage.tear_down());
        drop(saving);
        let exit = stage.end(&arguments);
        let summary = report::summary(&stage.report());
        // A reader that has gone away is no reason to lose the exit code.
        let _ = if arguments.format == Some(FormatSetting::Json) {
            std::io::stderr().write_all(summary.as_bytes())
        } else {
            std::io::stdout().write_all(summary.as_bytes())
        };
        signals.abort();
        // A check that blocks its thread for ever must not keep the process.
        runtime.shutdown_background();
        Ok(exit)
    }
}

/// Nothing is begun that could complain by chance more often than a run may.
fn affordable(chance: &Ledger, plan: &Plan) -> Result<(), BadInput> {
    let checks = plan.run.iter().filter_map(|item| Some(item.check?.id));
    let bound = chance.bound(checks);
    if bound > BUDGET {
        return Err(BadInput(format!(
            "the tests of chance of these checks may raise a false alarm with probability {bound:.1e}, \
             and a run with {BUDGET:e} at most; this is a defect of the suites' ledger, and a filter \
             that runs fewer checks gets around it"
        )));
    }
    Ok(())
}

/// Makes the report directory this run's own. The lock is the file's, so it ends with the process.
fn prepare(dir: &Path) -> Result<std::fs::File, BadInput> {
    let bad = |error: std::io::Error| {
        BadInput(format!(
            "cannot write reports to {} ({error}); free it, or set STRATA_REPORT_DIR to another \
             directory",
            dir.display()
        ))
    };
    std::fs::create_dir_all(dir).map_err(bad)?;
    let lock = std::fs::File::create(dir.join(".lock")).map_err(bad)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(BadInput(format!(
                "another run writes its reports to {}; wait for it, or set STRATA_REPORT_DIR to \
                 another directory",
                dir.display()
            )));
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(bad(error)),
    }
    // Evidence of an earlier run beside this run's verdicts would mislead.
    match std::fs::remove_dir_all(dir.join("evidence")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(bad(error)),
        _ => Ok(lock),
    }
}

/// Narration goes to a file; the terminal is for results.
fn narrate(settings: &Settings) -> Result<(), BadInput> {
    let path = settings.report_dir.join("strata.log");
    let file = std::fs::File::create(&path)
        .map_err(|error| BadInput(format!("cannot write {} ({error})", path.display())))?;
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log)
        .map_err(|error| BadInput(format!("STRATA_LOG: {error}")))?;
    // A program that embeds the runner may have set up its own.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Arc::new(file))
        .try_init();
    Ok(())
}

fn again(settings: &Settings) -> String {
    let mut provider = match settings.provider.as_str() {
        "lab" => String::new(),
        other => format!("STRATA_PROVIDER={other} "),
    };
    let nodes = settings.nodes.map(|nodes| nodes.to_string());
    for (name, value) in [
        ("STRATA_INGRESS", &settings.ingress),
        ("STRATA_GATEWAY", &settings.gateway),
        ("STRATA_LOAD_BALANCER", &settings.load_balancer),
        ("STRATA_NODES", &nodes),
        ("STRATA_KUBERNETES_VERSION", &settings.kubernetes_version),
        ("STRATA_ISTIO_PROFILE", &settings.istio_profile),
        ("STRATA_CONTEXT", &settings.context),
        ("STRATA_ALLOW", &settings.allow),
        ("STRATA_PROBE_IMAGE", &settings.probe_image),
    ] {
        if let Some(value) = value {
            provider.push_str(&format!("{name}={value} "));
        }
    }
    format!("STRATA_KEEP=1 {provider}cargo test --test e2e -- --exact")
}

/// A path as a person would type it.
fn short(path: &Path) -> String {
    path.strip_prefix(workspace())
        .unwrap_or(path)
        .display()
        .to_string()
}
