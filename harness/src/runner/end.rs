//! How a run ends: one exit code from all verdicts, and the report of a run that never began.

use crate::exit::Exit;
use crate::report::{
    self, Ending, FalseAlarms, LayerReport, Report, SCHEMA, TrialKind, TrialReport, Verdict,
};
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};
use crate::verdict::NoVerdict;

/// The exit code that all verdicts together come to.
pub(super) fn exit(report: &Report, stopped: Option<Exit>, saved: bool) -> Exit {
    let trials = || report.layers.iter().flat_map(|layer| &layer.trials);
    let fell = |trial: &&TrialReport| matches!(trial.verdict, Verdict::Failed | Verdict::NoVerdict);
    let is_up = |trial: &TrialReport| trial.kind == TrialKind::Up;
    let any = |holds: &dyn Fn(&TrialReport) -> bool| trials().any(holds);
    let mut applicable = vec![Exit::Passed];
    applicable.extend(stopped);
    if any(&|trial| !is_up(trial) && trial.verdict == Verdict::Failed) {
        applicable.push(Exit::Failed);
    }
    if trials().filter(fell).any(is_up) {
        applicable.push(Exit::NotUp);
    }
    if !saved || any(&|trial| !is_up(trial) && trial.verdict == Verdict::NoVerdict) {
        applicable.push(Exit::NoVerdict);
    }
    if !any(&|trial| !is_up(trial) && trial.verdict.judged()) {
        applicable.push(Exit::NothingJudged);
    }
    applicable.into_iter().min().unwrap_or(Exit::Passed)
}

/// A report without trials.
pub(super) fn empty(info: &RunInfo) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        strata: env!("CARGO_PKG_VERSION").to_owned(),
        run: info.id.clone(),
        seed: info.seed,
        arguments: std::env::args().skip(1).collect(),
        started: jiff::Timestamp::now().to_string(),
        seconds: 0.0,
        cluster: None,
        layers: Vec::new(),
        false_alarms: FalseAlarms::default(),
        troubles: Vec::new(),
        ending: None,
    }
}

/// Nothing was started, and the reports say why. Best effort: the report directory may be what is
/// wrong.
pub(super) fn report_bad_input(bad: &BadInput) {
    let dir = Settings::report_dir_anyway();
    let info = RunInfo {
        id: "none".into(),
        report_dir: dir.clone(),
        ..RunInfo::default()
    };
    let mut report = empty(&info);
    // As a case of its own, so that CI shows the sentence rather than an empty file.
    let mut input = TrialReport::pending("strata::input", TrialKind::Up);
    input.verdict = Verdict::NoVerdict;
    input.no_verdict = Some((&NoVerdict::new(bad.0.clone())).into());
    report.layers = vec![LayerReport {
        layer: "strata".to_owned(),
        trials: vec![input],
    }];
    report.ending = Some(Ending::new(Exit::BadInput, Some(bad.0.clone())));
    if let Ok(_lock) = super::prepare(&dir) {
        let _ = report::write(&report, &dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(trials: &[(TrialKind, Verdict)]) -> Report {
        let info = RunInfo::default();
        let trials = trials
            .iter()
            .map(|(kind, verdict)| TrialReport::pending("x", *kind).with(*verdict));
        let layers = vec![LayerReport {
            layer: "cni".into(),
            trials: trials.collect(),
        }];
        Report {
            layers,
            ..empty(&info)
        }
    }

    #[test]
    fn the_weightiest_verdict_decides() {
        use TrialKind::{Check, Gate, Up};
        use Verdict::{Blocked, Failed, NoVerdict, Passed, Pending, Skipped};
        for (trials, expected) in [
            (
                &[(Up, Passed), (Gate, Passed), (Check, Skipped)][..],
                Exit::Passed,
            ),
            (
                &[(Up, Passed), (Gate, Failed), (Check, Blocked)],
                Exit::Failed,
            ),
            (
                &[(Up, Passed), (Gate, Failed), (Check, NoVerdict)],
                Exit::Failed,
            ),
            (
                &[(Up, Passed), (Gate, Passed), (Check, NoVerdict)],
                Exit::NoVerdict,
            ),
            (&[(Up, NoVerdict), (Gate, Blocked)], Exit::NotUp),
            (&[(Up, Failed), (Gate, Blocked)], Exit::NotUp),
            (&[(Up, Passed), (Check, Skipped)], Exit::NothingJudged),
            (&[(Up, Passed), (Check, Pending)], Exit::NothingJudged),
            (&[], Exit::NothingJudged),
        ] {
            assert_eq!(exit(&report(trials), None, true), expected, "{trials:?}");
        }
        let failed = report(&[(Check, Failed)]);
        assert_eq!(
            exit(&failed, Some(Exit::Terminated), true),
            Exit::Terminated
        );
        assert_eq!(
            exit(&report(&[(Check, Passed)]), None, false),
            Exit::NoVerdict
        );
    }
}
