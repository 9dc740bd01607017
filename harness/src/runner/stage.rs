//! What all trials of a run share: the cluster, the ledger of verdicts, and who waits for whom.
//!
//! Start from [`Stage::trial`]. libtest-mimic hands trials to its threads in the order of the plan;
//! a trial of a later phase waits here until the earlier phases have ended, so the order holds for
//! any number of threads, and with one thread nothing ever has to wait. Rule: what is blocked
//! depends on verdicts of earlier phases only, never on which of two trials side by side ended
//! first.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, watch};

use super::plan::{Item, Plan};
use super::progress::tell;
use super::signals::Stop;
use super::trial::panic_text;
use super::{Runner, end, short};
use crate::deviation::Profile;
use crate::exit::Exit;
use crate::group::Group;
use crate::provider::{Cluster, Provider};
use crate::report::{
    self, ClusterReport, Ending, FalseAlarms, LayerReport, Report, TrialKind, TrialReport, Verdict,
    form,
};
use crate::run::RunInfo;
use crate::settings::Settings;
use crate::stack::Layer;
use crate::verdict::NoVerdict;

/// How long the nodes' logs may take at the end of a run that is not green.
const LOGS: Duration = Duration::from_secs(60);

pub(super) struct Stage {
    pub(super) runner: Runner,
    pub(super) settings: Settings,
    pub(super) info: RunInfo,
    pub(super) provider: Box<dyn Provider>,
    pub(super) deviations: Vec<Profile>,
    pub(super) cluster: OnceCell<Arc<Cluster>>,
    /// Whether anybody wanted a cluster, so that there may be one, or part of one.
    wanted: AtomicBool,
    /// What the person's program left running.
    background: Mutex<Vec<Group>>,
    pub(super) stop: Stop,
    started: Instant,
    selected: bool,
    ledger: Mutex<Ledger>,
    /// Told after every verdict.
    changed: watch::Sender<()>,
}

struct Ledger {
    report: Report,
    open: Vec<Item>,
    fallen: Vec<Fallen>,
    saved: bool,
}

/// A gate or bring-up that did not pass.
struct Fallen {
    layer: Layer,
    phase: usize,
    kind: TrialKind,
    name: String,
}

impl Stage {
    pub(super) fn new(
        runner: Runner,
        settings: Settings,
        info: RunInfo,
        (provider, deviations): (Box<dyn Provider>, Vec<Profile>),
        plan: &Plan,
    ) -> Self {
        let mut report = end::empty(&info);
        for item in &plan.run {
            let mut trial = TrialReport::pending(item.name(), item.kind);
            if let Some(check) = item.check {
                check.claim.clone_into(&mut trial.claim);
                check.source.clone_into(&mut trial.source);
            }
            trial.again = format!("{} {}", info.again, trial.name);
            match report
                .layers
                .last_mut()
                .filter(|layer| layer.layer == item.layer.name())
            {
                Some(layer) => layer.trials.push(trial),
                None => report.layers.push(LayerReport {
                    layer: item.layer.name().to_owned(),
                    trials: vec![trial],
                }),
            }
        }
        let open = plan.run.clone();
        Self {
            runner,
            settings,
            info,
            provider,
            deviations,
            cluster: OnceCell::new(),
            wanted: AtomicBool::new(false),
            background: Mutex::default(),
            stop: Stop::default(),
            started: Instant::now(),
            selected: !plan.run.is_empty(),
            ledger: Mutex::new(Ledger {
                report,
                open,
                fallen: Vec::new(),
                saved: true,
            }),
            changed: watch::Sender::new(()),
        }
    }

    /// The trial as libtest-mimic runs it, on one of its own threads.
    pub(super) fn trial(self: &Arc<Self>, item: Item, runtime: &Handle) -> Trial {
        let (stage, runtime) = (Arc::clone(self), runtime.clone());
        Trial::ignorable_test(item.name(), move || {
            let run = AssertUnwindSafe(|| runtime.block_on(stage.run(item)));
            let trial = std::panic::catch_unwind(run)
                .unwrap_or_else(|panic| stage.panicked(&item, panic.as_ref()));
            match trial.verdict {
                Verdict::Passed => Ok(Completion::Completed),
                Verdict::Failed | Verdict::NoVerdict => Err(Failed::from(form(&trial))),
                _ => Ok(Completion::ignored_with(trial.reason.unwrap_or_default())),
            }
        })
    }

    /// Later phases wait for every trial, so one of which the runner itself made a mess ends too.
    fn panicked(&self, item: &Item, panic: &(dyn Any + Send)) -> TrialReport {
        let mut trial = self.pending(item);
        trial.verdict = Verdict::NoVerdict;
        trial.no_verdict = Some((&NoVerdict::panic(panic_text(panic))).into());
        self.finish(item, trial.clone());
        trial
    }

    async fn run(&self, item: Item) -> TrialReport {
        let earlier = |ledger: &Ledger| {
            ledger
                .open
                .iter()
                .all(|other| other.phase() >= item.phase())
        };
        self.until(earlier).await;
        let started = Instant::now();
        let mut trial = self.pending(&item);
        if let Some(exit) = self.stop.by() {
            trial.verdict = Verdict::Skipped;
            trial.reason = Some(exit.meaning().to_owned());
        } else if let Some(reason) = self.lacks(&item) {
            trial.verdict = Verdict::Skipped;
            trial.reason = Some(reason);
        } else if let Some(gate) = self.blocked(&item) {
            trial.verdict = Verdict::Blocked;
            trial.reason = Some(format!("blocked by {gate}"));
        } else {
            self.judge(&item, &mut trial).await;
            self.weigh(&item, &mut trial).await;
        }
        trial.seconds = started.elapsed().as_secs_f64();
        if item.kind == TrialKind::Gate
            && matches!(trial.verdict, Verdict::Failed | Verdict::NoVerdict)
        {
            self.blame_regression(&item, &mut trial).await;
        }
        self.finish(&item, trial.clone());
        trial
    }

    /// A gate falls with whatever it stands on. Where a lower gate, run again beside it, fell too,
    /// that one is the finding.
    async fn blame_regression(&self, item: &Item, trial: &mut TrialReport) {
        let regression = |other: &Item| {
            other.kind == TrialKind::Regression
                && other.layer == item.layer
                && item.layer.stands_on().contains(&other.home)
        };
        self.until(|ledger| !ledger.open.iter().any(regression))
            .await;
        let lower = self.ledger().fallen.iter().find_map(|fallen| {
            let here = fallen.phase == item.phase() && fallen.layer != item.layer;
            (here && item.layer.stands_on().contains(&fallen.layer)).then(|| fallen.name.clone())
        });
        if let Some(name) = lower {
            trial.verdict = Verdict::Blocked;
            trial.reason = Some(format!("blocked by {name}; it did not pass either"));
        }
    }

    /// Waits until something holds of the ledger, or the run is to end.
    async fn until(&self, holds: impl Fn(&Ledger) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = changed.wait_for(|()| holds(&self.ledger()));
        tokio::select! {
            _ = wait => {}
            () = self.stop.asked() => {}
        }
    }

    /// Why a trial's layer cannot be judged on this cluster; nothing if it can, or if there is no
    /// cluster yet: the first bring-up makes it.
    fn lacks(&self, item: &Item) -> Option<String> {
        let layers = &self.cluster.get()?.layers;
        let mut lacking = [item.layer, item.home].into_iter();
        lacking
            .find_map(|layer| layers.lacks(layer))
            .map(str::to_owned)
    }

    /// The gate or bring-up that makes this trial meaningless, if one fell in an earlier phase. Who
    /// wants to go on all the same is kept from it by bring-ups alone.
    fn blocked(&self, item: &Item) -> Option<String> {
        let stands_on = |layer: Layer| {
            layer == item.layer
                || layer == item.home
                || item.layer.stands_on().contains(&layer)
                || item.home.stands_on().contains(&layer)
        };
        let ledger = self.ledger();
        let mut earlier = ledger
            .fallen
            .iter()
            .filter(|fallen| fallen.phase < item.phase())
            .filter(|fallen| fallen.kind == TrialKind::Up || !self.settings.keep_going);
        earlier
            .find(|fallen| stands_on(fallen.layer))
            .map(|fallen| fallen.name.clone())
    }

    fn pending(&self, item: &Item) -> TrialReport {
        let (ledger, name) = (self.ledger(), item.name());
        let mut trials = ledger.report.layers.iter().flat_map(|layer| &layer.trials);
        let known = trials.find(|trial| trial.name == name).cloned();
        known.unwrap_or_else(|| TrialReport::pending(name, item.kind))
    }

    fn finish(&self, item: &Item, trial: TrialReport) {
        let name = item.name();
        tracing::info!(check = name, verdict = ?trial.verdict, seconds = trial.seconds, "judged");
        let mut ledger = self.ledger();
        let fell = matches!(trial.verdict, Verdict::Failed | Verdict::NoVerdict);
        if fell && item.kind != TrialKind::Check {
            let fallen = Fallen {
                layer: item.home,
                phase: item.phase(),
                kind: item.kind,
                name: name.clone(),
            };
            ledger.fallen.push(fallen);
        }
        ledger.open.retain(|other| other.name() != name);
        let mut trials = ledger
            .report
            .layers
            .iter_mut()
            .flat_map(|layer| &mut layer.trials);
        if let Some(slot) = trials.find(|slot| slot.name == name) {
            *slot = trial;
        }
        drop(ledger);
        self.changed.send_replace(());
    }

    /// Writes the reports after every verdict, for ever; but since all of them are written each time, it takes a tenth
    /// of the time at most, and verdicts in between are written together.
    pub(super) async fn keep_saved(&self) {
        let mut changed = self.changed.subscribe();
        while changed.changed().await.is_ok() {
            let began = Instant::now();
            self.save();
            tokio::time::sleep(began.elapsed() * 9).await;
        }
    }

    /// The cluster, made by whoever needs it first.
    pub(super) async fn cluster(
        &self,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<&Arc<Cluster>, NoVerdict> {
        self.wanted.store(true, Ordering::SeqCst);
        self.cluster
            .get_or_try_init(|| async {
                let cluster = self.provider.create(&self.info, progress).await?;
                self.ledger().report.cluster = Some(ClusterReport {
                    provider: cluster.provider.to_owned(),
                    versions: cluster.versions.clone(),
                });
                Ok(cluster)
            })
            .await
    }

    /// Lets what the person's program left running go on until the end of the run.
    pub(super) fn leave_running(&self, group: Group) {
        let background = self.background.lock();
        background
            .unwrap_or_else(PoisonError::into_inner)
            .push(group);
    }

    /// Keeps the cluster, if the person asked for that, or takes it away.
    pub(super) async fn tear_down(&self) {
        if !self.wanted.load(Ordering::SeqCst) {
            return;
        }
        let background = std::mem::take(&mut *match self.background.lock() {
            Ok(background) => background,
            Err(poisoned) => poisoned.into_inner(),
        });
        drop(background);
        let stopped = self.stop.by().is_some();
        if matches!(self.exit(), Exit::Failed | Exit::NotUp | Exit::NoVerdict) {
            self.export_logs().await;
        }
        if self.settings.keep && self.cluster.get().is_some() && !stopped {
            for line in self.provider.keep().await {
                tell(line);
            }
            return;
        }
        let patience = self.provider.patience();
        match tokio::time::timeout(patience, self.provider.destroy()).await {
            Ok(troubles) => troubles
                .into_iter()
                .for_each(|trouble| self.trouble(trouble)),
            Err(_) => self.trouble(format!(
                "the cluster was not gone {} s after it was asked to go",
                patience.as_secs()
            )),
        }
    }

    /// Has the nodes' logs saved, for whoever looks into a run that is not green.
    async fn export_logs(&self) {
        match tokio::time::timeout(LOGS, self.provider.export_logs()).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(logs))) => tell(format_args!("the nodes' logs are in {}", short(&logs))),
            Ok(Err(error)) => self.trouble(format!("no logs of the nodes: {error:#}")),
            Err(_) => self.trouble(format!(
                "the nodes' logs were not there within {} s",
                LOGS.as_secs()
            )),
        }
    }

    /// Notes what went wrong beside the verdicts.
    pub(super) fn trouble(&self, trouble: String) {
        tracing::warn!("{trouble}");
        self.ledger().report.troubles.push(trouble);
    }

    /// Closes the reports and returns what the run comes to.
    pub(super) fn end(&self, arguments: &Arguments) -> Exit {
        let remark = (!self.selected).then(|| match &arguments.filter {
            Some(filter) => format!("no check matches {filter}; --list shows them all"),
            None => "every check is skipped; --list shows them all".to_owned(),
        });
        self.conclude(remark.clone());
        let saved = self.ledger().saved;
        self.save();
        if saved && !self.ledger().saved {
            self.conclude(remark.clone());
        }
        let exit = self.exit();
        if exit != Exit::Passed {
            let remark = remark
                .map(|remark| format!(": {remark}"))
                .unwrap_or_default();
            tell(format_args!(
                "{}{remark} (exit code {})",
                exit.meaning(),
                exit.code()
            ));
        }
        exit
    }

    fn conclude(&self, remark: Option<String>) {
        let ending = Ending::new(self.exit(), remark);
        self.ledger().report.ending = Some(ending);
    }

    fn exit(&self) -> Exit {
        let ledger = self.ledger();
        end::exit(&ledger.report, self.stop.by(), ledger.saved)
    }

    /// The report as it stands.
    pub(super) fn report(&self) -> Report {
        self.ledger().report.clone()
    }

    /// Writes the reports as they stand. Once that fails, it is said once and counts against the
    /// run, which goes on: the terminal still tells.
    pub(super) fn save(&self) {
        let mut ledger = self.ledger();
        ledger.report.seconds = self.started.elapsed().as_secs_f64();
        ledger.report.false_alarms = FalseAlarms::of(&ledger.report.layers);
        if let Err(error) = report::write(&ledger.report, &self.info.report_dir) {
            if ledger.saved {
                tell(format_args!(
                    "{error:#}; free the disk, or set STRATA_REPORT_DIR"
                ));
                ledger.report.troubles.push(format!("{error:#}"));
            }
            ledger.saved = false;
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic while it was held has been reported; the verdicts in it still stand.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
