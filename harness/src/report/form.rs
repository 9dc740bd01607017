//! How a trial that did not pass reads. The first line alone is enough for a dashboard.

use std::fmt::Write as _;

use super::{TrialReport, Verdict};

/// The filled-in form of a trial that failed or has no verdict; one line for all others.
#[must_use]
pub fn form(trial: &TrialReport) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        let value = value.trim_end().replace('\n', "\n            ");
        if !value.is_empty() {
            let _ = write!(text, "\n  {key:<10}{value}");
        }
    };
    match (&trial.finding, &trial.no_verdict) {
        (Some(finding), _) => {
            line("known", trial.reason.as_deref().unwrap_or_default());
            line("claim", &trial.claim);
            line("what", &finding.what);
            line("expected", &finding.expected);
            line("observed", &finding.observed);
            line("likely", &finding.likely);
        }
        (None, Some(no_verdict)) => {
            line("doing", &no_verdict.doing);
            line("because", &no_verdict.because);
            line("likely", no_verdict.likely.as_deref().unwrap_or_default());
        }
        (None, None) => line("because", trial.reason.as_deref().unwrap_or_default()),
    }
    if let Some(evidence) = trial
        .evidence
        .as_ref()
        .filter(|evidence| !evidence.files.is_empty())
    {
        line(
            "evidence",
            &format!("{}/  {}", evidence.dir, evidence.files.join(" · ")),
        );
    }
    for trouble in &trial.troubles {
        line("trouble", trouble);
    }
    if trial.finding.is_some() || trial.no_verdict.is_some() {
        line("again", &trial.again);
    }
    format!("{} — {}{text}", trial.name, headline(trial.verdict))
}

const fn headline(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending => "NOT RUN",
        Verdict::Passed => "PASSED",
        Verdict::Failed => "FAILED",
        Verdict::Deviates => "DEVIATES (as its implementation is known to)",
        Verdict::NoVerdict => "NO VERDICT (the cluster could not be judged)",
        Verdict::Blocked => "BLOCKED",
        Verdict::Skipped => "SKIPPED",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Evidence, FindingReport, NoVerdictReport, TrialKind};
    use super::*;

    pub(in super::super) fn trial(verdict: Verdict) -> TrialReport {
        TrialReport {
            name: "services::reaches_every_ready_pod".into(),
            kind: TrialKind::Check,
            claim: "A ClusterIP Service sends requests to every ready pod behind it.".into(),
            source: "kubernetes.io/docs/concepts/services-networking/service".into(),
            verdict,
            seconds: 1.5,
            reason: None,
            finding: None,
            no_verdict: None,
            records: Vec::new(),
            chance: Vec::new(),
            evidence: None,
            again:
                "STRATA_KEEP=1 cargo test --test e2e -- --exact services::reaches_every_ready_pod"
                    .into(),
            troubles: Vec::new(),
        }
    }

    #[test]
    fn a_failure_reads_from_the_claim_to_the_command() {
        let mut trial = trial(Verdict::Failed);
        trial.finding = Some(FindingReport {
            what: "30 requests to http://web/ are answered by exactly the ready pods".into(),
            expected: r#"{"web-0", "web-1"}"#.into(),
            observed: "{\"web-0\"}\n(9 tries in 30 s)".into(),
            likely: "a node has not programmed an endpoint that the EndpointSlice lists".into(),
            diagnosed: false,
            cause: None,
        });
        trial.evidence = Some(Evidence {
            dir: "target/strata/evidence/services/reaches_every_ready_pod".into(),
            files: vec!["events.txt".into(), "web-2.log".into()],
        });
        insta::assert_snapshot!(form(&trial), @r#"
        services::reaches_every_ready_pod — FAILED
          claim     A ClusterIP Service sends requests to every ready pod behind it.
          what      30 requests to http://web/ are answered by exactly the ready pods
          expected  {"web-0", "web-1"}
          observed  {"web-0"}
                    (9 tries in 30 s)
          likely    a node has not programmed an endpoint that the EndpointSlice lists
          evidence  target/strata/evidence/services/reaches_every_ready_pod/  events.txt · web-2.log
          again     STRATA_KEEP=1 cargo test --test e2e -- --exact services::reaches_every_ready_pod
        "#);
    }

    #[test]
    fn no_verdict_says_what_was_being_done() {
        let mut trial = trial(Verdict::NoVerdict);
        trial.no_verdict = Some(NoVerdictReport {
            kind: "not-reached".into(),
            doing: "waiting for Pod client in strata-services to be ready".into(),
            because: "not yet after 60 s: ImagePullBackOff".into(),
            likely: None,
        });
        trial.troubles = vec!["Namespace strata-a1 is still there".into()];
        insta::assert_snapshot!(form(&trial), @"
        services::reaches_every_ready_pod — NO VERDICT (the cluster could not be judged)
          doing     waiting for Pod client in strata-services to be ready
          because   not yet after 60 s: ImagePullBackOff
          trouble   Namespace strata-a1 is still there
          again     STRATA_KEEP=1 cargo test --test e2e -- --exact services::reaches_every_ready_pod
        ");
    }
}
