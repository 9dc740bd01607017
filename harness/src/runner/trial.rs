//! One trial: a bring-up, or a check from its needs to its cleanup.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::plan::Item;
use super::progress::Progress;
use super::stage::Stage;
use super::{hook, short};
use crate::check::Check;
use crate::provider::{Cluster, Need};
use crate::report::{Evidence, TrialReport, Verdict};
use crate::scope::Scope;
use crate::verdict::NotPassed;
use crate::verdict::{Doing as _, NoVerdict};

/// A layer that is not up by then will not be.
const BRING_UP: Duration = Duration::from_secs(300);
/// A manifest that is not applied and ready by then will not be.
const OPEN: Duration = Duration::from_secs(150);
/// Evidence is for reading; it must not hold up the run.
const EVIDENCE: Duration = Duration::from_secs(20);
/// How long a namespace may take to go.
const CLOSE: Duration = Duration::from_secs(60);

/// How a trial ended.
enum End {
    Judged(Result<(), NotPassed>),
    Skipped(String),
    Stopped,
}

impl From<NoVerdict> for End {
    fn from(no_verdict: NoVerdict) -> Self {
        Self::Judged(Err(NotPassed::NoVerdict(no_verdict)))
    }
}

impl Stage {
    /// Runs a trial and writes what came of it into `trial`.
    pub(super) async fn judge(&self, item: &Item, trial: &mut TrialReport) {
        let span = tracing::info_span!("check", check = item.name());
        let end = match item.check {
            None => self.up(item).instrument(span).await,
            Some(check) => self.check(item, check, trial).instrument(span).await,
        };
        trial.verdict = match end {
            End::Judged(Ok(())) => Verdict::Passed,
            End::Judged(Err(NotPassed::Failed(finding))) => {
                trial.finding = Some((&*finding).into());
                Verdict::Failed
            }
            End::Judged(Err(NotPassed::NoVerdict(no_verdict))) => {
                trial.no_verdict = Some((&no_verdict).into());
                Verdict::NoVerdict
            }
            End::Skipped(reason) => {
                trial.reason = Some(reason);
                Verdict::Skipped
            }
            End::Stopped => {
                let by = self.stop.by().map_or("stopped", |exit| exit.meaning());
                trial.reason = Some(format!("{by} while it ran"));
                Verdict::Skipped
            }
        };
    }

    async fn up(&self, item: &Item) -> End {
        let progress = Progress::of(item.layer);
        let say = |message: &str| progress.say(message);
        let bring_up = async {
            let cluster = self.cluster(&say).await?;
            if let Some(why) = cluster.layers.lacks(item.layer) {
                return Ok(Some(why.to_owned()));
            }
            (self.runner.bring_up)(item.layer, cluster, &self.info, &say).await?;
            if let Some(program) = &self.settings.after_layer {
                say(&format!("running {}", program.display()));
                let group = hook::run(program, item.layer, cluster, &self.info)
                    .await
                    .doing(|| "running STRATA_AFTER_LAYER's program".to_owned())?;
                self.leave_running(group);
            }
            Ok(None)
        };
        let end = tokio::select! {
            outcome = tokio::time::timeout(BRING_UP, bring_up) => outcome,
            () = self.stop.asked() => return End::Stopped,
        };
        let Ok(outcome) = end else {
            let because = format!("{} is not up after {} s", item.layer, BRING_UP.as_secs());
            return NoVerdict::not_reached(because).into();
        };
        match outcome {
            Ok(None) => {
                progress.up();
                End::Judged(Ok(()))
            }
            Ok(Some(lacking)) => End::Skipped(lacking),
            Err(not_passed) => End::Judged(Err(not_passed)),
        }
    }

    /// Why a check is not run here; nothing if it is.
    async fn unmet(&self, cluster: &Cluster, check: &Check) -> Result<Option<String>, NoVerdict> {
        if check.needs.contains(&Need::Time) && !self.settings.slow {
            let reason = "takes half a minute and more; STRATA_SLOW=1 runs it";
            return Ok(Some(reason.to_owned()));
        }
        for need in check.needs {
            if let Some(reason) = cluster.lacks(*need).await? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    async fn check(&self, item: &Item, check: &'static Check, trial: &mut TrialReport) -> End {
        let Some(cluster) = self.cluster.get() else {
            return NoVerdict::new("there is no cluster").into();
        };
        match self.unmet(cluster, check).await {
            Ok(None) => {}
            Ok(Some(reason)) => return End::Skipped(reason),
            Err(no_verdict) => return no_verdict.into(),
        }
        let evidence = self.evidence_dir(&item.name());
        let cluster = Arc::clone(cluster);
        let scope = Scope::new(
            cluster,
            check.id,
            check.manifest,
            item.home,
            &self.info,
            &evidence,
        );
        let scope = Arc::new(scope);
        let opened = tokio::select! {
            opened = tokio::time::timeout(OPEN, scope.open(&self.info)) => opened,
            () = self.stop.asked() => Ok(Ok(())),
        };
        let end = match opened {
            _ if self.stop.by().is_some() => End::Stopped,
            Ok(Ok(())) => match self.body(check, &scope).await {
                End::Judged(outcome) => {
                    let late = scope.transcript().late();
                    End::Judged(outcome.map_err(|not_passed| not_passed.seen(late)))
                }
                end => end,
            },
            Ok(Err(no_verdict)) => no_verdict.into(),
            Err(_) => {
                let because = format!("its manifest is not ready after {} s", OPEN.as_secs());
                NoVerdict::not_reached(because).into()
            }
        };
        trial.records = scope.records();
        trial.chance = scope.drawn();
        if matches!(end, End::Judged(Err(_))) {
            match tokio::time::timeout(EVIDENCE, scope.collect_evidence()).await {
                Ok(files) => {
                    trial.evidence = Some(Evidence {
                        dir: short(&evidence),
                        files,
                    })
                }
                Err(_) => trial.troubles.push(format!(
                    "evidence was not collected within {} s",
                    EVIDENCE.as_secs()
                )),
            }
        }
        close(scope, trial).await;
        end
    }

    /// The check's own code, on a thread of its own: a panic ends that thread alone, and a body that
    /// blocks it keeps neither the deadline nor a signal from ending the trial.
    async fn body(&self, check: &'static Check, scope: &Arc<Scope>) -> End {
        let (own, runtime, span) = (Arc::clone(scope), Handle::current(), Span::current());
        let ended = CancellationToken::new();
        let given_up = ended.clone();
        let mut thread = tokio::task::spawn_blocking(move || {
            let body = (check.run)(&own).instrument(span);
            runtime.block_on(given_up.run_until_cancelled(body))
        });
        // Also when this trial itself is dropped, its body is not left behind.
        let ended = ended.drop_guard();
        let limit = self.runner.deadline;
        let end = tokio::select! {
            joined = tokio::time::timeout(limit, &mut thread) => match joined {
                Ok(Ok(Some(outcome))) => return End::Judged(outcome),
                Ok(Ok(None)) => return End::Stopped,
                Ok(Err(error)) => return NoVerdict::panic(match error.try_into_panic() {
                    Ok(panic) => panic_text(panic.as_ref()),
                    Err(_) => "its thread was ended from outside".to_owned(),
                }).into(),
                Err(_) => NoVerdict::deadline(limit).into(),
            },
            () = self.stop.asked() => End::Stopped,
        };
        drop(ended);
        // Until its thread has ended it holds the scope. One that blocks never does.
        let _ = tokio::time::timeout(Duration::from_secs(2), thread).await;
        end
    }

    fn evidence_dir(&self, name: &str) -> PathBuf {
        self.info
            .report_dir
            .join("evidence")
            .join(Path::new(&name.replace("::", "/")))
    }
}

async fn close(scope: Arc<Scope>, trial: &mut TrialReport) {
    let Some(scope) = Arc::into_inner(scope) else {
        trial.troubles.push(
            "what the check made was not deleted: its code blocks a thread and cannot be ended"
                .to_owned(),
        );
        return;
    };
    match tokio::time::timeout(CLOSE, scope.close()).await {
        Ok(troubles) => trial.troubles.extend(troubles),
        Err(_) => trial.troubles.push(format!(
            "what the check made was not gone within {} s",
            CLOSE.as_secs()
        )),
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "without a message".to_owned())
}
