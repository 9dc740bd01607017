//! `junit.xml`: a `<testsuite>` a layer, a `<testcase>` a trial.
//!
//! The schema that Jenkins validates against knows `<properties>` in a suite only, not in a case.
//! So the facts of the run are properties of every suite; those of one case (sample sizes, error
//! rates) are there too, as `<case>.<key>`, and once more in the case's `<system-out>`, one
//! `key = value` a line.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{LayerReport, Report, TrialReport, Verdict, form};

pub(super) fn render(report: &Report) -> anyhow::Result<String> {
    let mut junit = quick_junit::Report::new("strata");
    junit.set_time(seconds(report.seconds));
    for layer in &report.layers {
        junit.add_test_suite(suite(report, layer));
    }
    let text = xml(&junit.to_string().context("cannot serialise junit.xml")?);
    Ok(without_skipped_of_the_root(text, junit.skipped))
}

/// quick-junit gives `<testsuites>` a `skipped` attribute that Jenkins' schema does not know.
fn without_skipped_of_the_root(text: String, skipped: usize) -> String {
    text.replacen(&format!(" skipped=\"{skipped}\""), "", 1)
}

fn suite(report: &Report, layer: &LayerReport) -> TestSuite {
    let mut suite = TestSuite::new(format!("strata.{}", layer.layer));
    suite.set_time(seconds(
        layer.trials.iter().map(|trial| trial.seconds).sum(),
    ));
    suite
        .extra
        .insert("timestamp".into(), timestamp(&report.started).into());
    suite.add_property(("strata", report.strata.as_str()));
    suite.add_property(("run", report.run.as_str()));
    suite.add_property(("seed", report.seed.to_string().as_str()));
    let chance = &report.false_alarms;
    suite.add_property((
        "false_alarms.budget",
        format!("{:e}", chance.budget).as_str(),
    ));
    suite.add_property(("false_alarms.tests", chance.tests.to_string().as_str()));
    suite.add_property((
        "false_alarms.bound",
        format!("{:.1e}", chance.bound).as_str(),
    ));
    if let Some(cluster) = &report.cluster {
        suite.add_property(("provider", cluster.provider.as_str()));
        for (name, version) in &cluster.versions {
            suite.add_property((format!("version.{name}").as_str(), version.as_str()));
        }
    }
    for trial in &layer.trials {
        for (key, value) in &trial.records {
            suite.add_property((
                format!("{}.{key}", case_name(trial)).as_str(),
                value.as_str(),
            ));
        }
    }
    for trial in &layer.trials {
        suite.add_test_case(case(layer, trial));
    }
    suite
}

/// Seconds since midnight matter to Jenkins, fractions and zones only confuse its parser.
fn timestamp(started: &str) -> String {
    started.chars().take("2026-01-01T00:00:00".len()).collect()
}

fn case_name(trial: &TrialReport) -> String {
    // The class already names the layer.
    let name = trial
        .name
        .split_once("::")
        .map_or(trial.name.as_str(), |(_, name)| name);
    name.to_owned()
}

fn case(layer: &LayerReport, trial: &TrialReport) -> TestCase {
    let mut case = TestCase::new(case_name(trial), status(trial));
    case.set_classname(format!("strata.{}", layer.layer));
    case.set_time(seconds(trial.seconds));
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{key} = {value}");
        }
    };
    line("claim", &trial.claim);
    line("source", &trial.source);
    for (key, value) in &trial.records {
        line(key, value);
    }
    if let Some(evidence) = &trial.evidence {
        line("evidence", &evidence.dir);
    }
    if !out.is_empty() {
        case.set_system_out(out);
    }
    if !trial.troubles.is_empty() {
        case.set_system_err(trial.troubles.join("\n"));
    }
    case
}

fn status(trial: &TrialReport) -> TestCaseStatus {
    match trial.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Failed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let finding = trial.finding.as_ref();
            let message = finding.map(|finding| finding.likely.clone());
            let cause = finding.and_then(|finding| finding.cause.as_deref());
            status
                .set_type(cause.unwrap_or("claim-broken"))
                .set_message(message.unwrap_or_default());
            status.set_description(form(trial));
            status
        }
        Verdict::NoVerdict => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            let (kind, because) = trial
                .no_verdict
                .as_ref()
                .map_or(("error", ""), |no_verdict| {
                    (no_verdict.kind.as_str(), no_verdict.because.as_str())
                });
            status
                .set_type(kind)
                .set_message(because)
                .set_description(form(trial));
            status
        }
        Verdict::Deviates => {
            let mut status = skipped("deviates", trial.reason.as_deref());
            status.set_description(form(trial));
            status
        }
        Verdict::Blocked => skipped("blocked", trial.reason.as_deref()),
        Verdict::Skipped => skipped("skipped", trial.reason.as_deref()),
        Verdict::Pending => skipped("not-run", Some("the run ended before it was judged")),
    }
}

fn skipped(kind: &str, reason: Option<&str>) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status
        .set_type(kind)
        .set_message(reason.unwrap_or_default());
    status
}

/// quick-junit drops ANSI sequences and control characters, but not the two code points that XML
/// 1.0 excludes from the other end of the plane.
fn xml(text: &str) -> String {
    // Each report is written many times; almost none of its texts has a byte that these begin with.
    if !text.as_bytes().contains(&0xef) {
        return text.to_owned();
    }
    text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::form::tests::trial;
    use super::super::junit_rules::validate;
    use super::super::{ClusterReport, FalseAlarms, FindingReport, NoVerdictReport, SCHEMA};
    use super::*;

    const NASTY: &str =
        "a\u{0}b\u{1b}[31mred\u{1b}[0m <&>\"' ]]> \u{ffff}\u{fffe} é \u{8}\u{b}\n\ttab";

    fn report() -> Report {
        let mut failed = trial(Verdict::Failed);
        failed.finding = Some(FindingReport {
            what: NASTY.into(),
            expected: NASTY.into(),
            observed: NASTY.into(),
            likely: NASTY.into(),
            diagnosed: true,
            cause: Some("selector-matches-nothing".into()),
        });
        failed.records = vec![
            ("alpha".into(), "1e-6".into()),
            (NASTY.into(), NASTY.into()),
        ];
        let mut unknown = trial(Verdict::NoVerdict);
        unknown.no_verdict = Some(NoVerdictReport {
            kind: "panic".into(),
            doing: NASTY.into(),
            because: NASTY.into(),
            likely: Some(NASTY.into()),
        });
        unknown.troubles = vec![NASTY.into()];
        let mut blocked = trial(Verdict::Blocked);
        blocked.reason = Some(NASTY.into());
        let trials = vec![
            trial(Verdict::Passed),
            failed,
            unknown,
            blocked,
            trial(Verdict::Skipped),
            trial(Verdict::Pending),
        ];
        Report {
            schema: SCHEMA.into(),
            strata: "0.1.0".into(),
            run: "a1b2c3".into(),
            seed: 7,
            arguments: vec![],
            started: "2026-01-02T03:04:05.678+00:00".into(),
            seconds: 4321.125,
            cluster: Some(ClusterReport {
                provider: "lab".into(),
                versions: [("kubernetes".to_owned(), NASTY.to_owned())].into(),
            }),
            false_alarms: FalseAlarms::default(),
            layers: vec![
                LayerReport {
                    layer: "cni".into(),
                    trials,
                },
                LayerReport {
                    layer: "mesh".into(),
                    trials: vec![],
                },
            ],
            troubles: vec![],
            ending: None,
        }
    }

    #[test]
    fn every_verdict_is_valid_whatever_the_text_holds() {
        let text = render(&report()).unwrap();
        validate(&text).unwrap_or_else(|broken| panic!("{broken}\n{text}"));
        assert!(
            text.contains(r#"tests="6" failures="1" errors="1""#),
            "{text}"
        );
        assert!(text.contains(r#"<property name="reaches_every_ready_pod.alpha" value="1e-6"/>"#));
        assert!(
            text.contains(r#"type="selector-matches-nothing""#),
            "{text}"
        );
    }

    #[test]
    fn an_empty_run_is_valid() {
        let mut report = report();
        report.layers.clear();
        validate(&render(&report).unwrap()).unwrap();
    }
}
