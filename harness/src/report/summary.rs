//! The last thing a person reads: a line a layer, and the cause of whatever is not green.

use std::fmt::Write as _;

use super::{LayerReport, Report, TrialKind, TrialReport, Verdict};

/// The summary, ending with a newline.
#[must_use]
pub fn summary(report: &Report) -> String {
    let mut text = String::new();
    if let Some(cluster) = &report.cluster {
        let versions: Vec<_> = cluster
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        let _ = writeln!(
            text,
            "provider {} ({})",
            cluster.provider,
            versions.join(", ")
        );
    }
    for layer in &report.layers {
        let _ = writeln!(text, "{:<10}{}", layer.layer, line(layer));
        for trial in layer.trials.iter().filter(|trial| red(trial.verdict)) {
            let _ = writeln!(text, "            {}: {}", trial.name, cause(trial));
        }
        if let Some(first) = layer
            .trials
            .iter()
            .find(|trial| trial.verdict == Verdict::Blocked)
        {
            let _ = writeln!(
                text,
                "            {}",
                first.reason.as_deref().unwrap_or("blocked")
            );
        }
    }
    let chance = &report.false_alarms;
    let _ = writeln!(
        text,
        "false-alarm budget spent: {} tests, bound {:.1e} of {:e}",
        chance.tests, chance.bound, chance.budget
    );
    for trouble in &report.troubles {
        let _ = writeln!(text, "trouble   {trouble}");
    }
    text
}

const fn red(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Failed | Verdict::NoVerdict)
}

fn line(layer: &LayerReport) -> String {
    let count = |verdict: Verdict| {
        layer
            .trials
            .iter()
            .filter(|trial| trial.kind != TrialKind::Up && trial.verdict == verdict)
            .count()
    };
    let mut parts = Vec::new();
    for (verdict, name) in [
        (Verdict::Passed, "passed"),
        (Verdict::Failed, "failed"),
        (Verdict::Deviates, "deviating as known"),
        (Verdict::NoVerdict, "without a verdict"),
        (Verdict::Blocked, "blocked"),
        (Verdict::Skipped, "skipped"),
        (Verdict::Pending, "not run"),
    ] {
        match count(verdict) {
            0 => {}
            n => parts.push(format!("{n} {name}")),
        }
    }
    match layer
        .trials
        .iter()
        .find(|trial| trial.kind == TrialKind::Up)
    {
        Some(up) if up.verdict == Verdict::Passed => {
            parts.push(format!("up in {:.1} s", up.seconds));
        }
        Some(up) if red(up.verdict) => parts.push("did not come up".to_owned()),
        _ => {}
    }
    parts.join(", ")
}

/// The cause in one line.
fn cause(trial: &TrialReport) -> String {
    let text = match (&trial.finding, &trial.no_verdict) {
        (Some(finding), _) => finding.likely.clone(),
        (None, Some(no_verdict)) => no_verdict.because.clone(),
        (None, None) => trial.reason.clone().unwrap_or_default(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}
