//! What is known of the implementations at work, held against what checks come to.
//!
//! Start from [`Stage::weigh`].

use semver::Version;

use super::plan::Item;
use super::stage::Stage;
use crate::deviation::{Deviation, Profile};
use crate::provider::Cluster;
use crate::report::{TrialReport, Verdict};

impl Stage {
    /// Makes a failure that the profile of the implementation knows of one that it is known by, and says of what
    /// the profile is wrong about.
    pub(super) async fn weigh(&self, item: &Item, trial: &mut TrialReport) {
        let (Some(check), Some(cluster)) = (item.check, self.cluster.get()) else {
            return;
        };
        let judged = matches!(trial.verdict, Verdict::Failed | Verdict::Passed);
        // Of most checks nobody knows anything: the cluster is not asked for them.
        let listed = |profile: &Profile| profile.deviations.iter().any(|it| it.check == check.id);
        if !judged || !self.deviations.iter().any(listed) {
            return;
        }
        let controller = match cluster.controller(item.home).await {
            Ok(Some(controller)) => controller,
            Ok(None) => return,
            Err(no_verdict) => {
                trial.troubles.push(no_verdict.because().to_owned());
                return;
            }
        };
        let known = self
            .deviations
            .iter()
            .filter(|profile| profile.controllers.contains(&controller))
            .find_map(|profile| known(profile, check.id, cluster));
        if let Some((who, deviation)) = known {
            judge(trial, &who, deviation, jiff::Zoned::now().date());
            if let (Verdict::Passed, Some(said)) = (trial.verdict, trial.troubles.last()) {
                self.trouble(format!("{}: {said}", trial.name));
            }
        }
    }
}

/// What is known of a check, and of whom.
fn known<'a>(
    profile: &'a Profile,
    check: &str,
    cluster: &Cluster,
) -> Option<(String, &'a Deviation)> {
    let name = &profile.implementation;
    let told = cluster.versions.get(name);
    let version: Option<Version> = told.and_then(|told| told.trim_start_matches('v').parse().ok());
    let deviation = profile.deviation(check, version.as_ref())?;
    let who = match &version {
        Some(version) => format!("{name} {version}"),
        None => format!("{name}, of a version that is not known here,"),
    };
    Some((who, deviation))
}

fn judge(trial: &mut TrialReport, who: &str, deviation: &Deviation, today: jiff::civil::Date) {
    let Deviation { reason, until, .. } = deviation;
    let listed = "suites/deviations/ has it";
    match trial.verdict {
        Verdict::Failed if deviation.is_over(today) => trial.troubles.push(format!(
            "{listed} as known of {who} until {until}, which is over: look whether it still holds ({reason})"
        )),
        Verdict::Failed => {
            trial.verdict = Verdict::Deviates;
            trial.reason = Some(format!("{who} is known to: {reason} (until {until})"));
        }
        _ => trial.troubles.push(format!(
            "{listed} as known of {who}, and it passed: take it out, or narrow its versions"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::TrialKind;

    fn judged(verdict: Verdict, today: &str) -> TrialReport {
        let deviation = Deviation {
            check: "ingress::a".into(),
            versions: "*".parse().unwrap(),
            reason: "it answers 404".into(),
            until: "2027-01-31".parse().unwrap(),
        };
        let mut trial = TrialReport::pending("ingress::a", TrialKind::Check).with(verdict);
        judge(&mut trial, "toy 1.0.0", &deviation, today.parse().unwrap());
        trial
    }

    #[test]
    fn a_failure_that_is_known_deviates_until_its_last_day() {
        let known = judged(Verdict::Failed, "2027-01-31");
        assert_eq!(known.verdict, Verdict::Deviates);
        assert_eq!(
            known.reason.as_deref(),
            Some("toy 1.0.0 is known to: it answers 404 (until 2027-01-31)")
        );
        let over = judged(Verdict::Failed, "2027-02-01");
        assert_eq!((over.verdict, over.reason), (Verdict::Failed, None));
        assert!(over.troubles[0].contains("until 2027-01-31, which is over"));
    }

    #[test]
    fn what_holds_after_all_is_said() {
        let passed = judged(Verdict::Passed, "2027-01-31");
        assert_eq!(passed.verdict, Verdict::Passed);
        assert!(passed.troubles[0].ends_with("take it out, or narrow its versions"));
    }
}
