//! What is known not to hold with one implementation: which claim, in which of its versions, why, and until when.
//!
//! Start from [`load`], which reads `suites/deviations/`, a file an implementation; [`Profile::deviation`] is pure. A
//! check that fails as its profile says was judged all the same, and its finding is in the reports; the run
//! is no redder for it. Rule: an entry holds until its date and no longer, so that nobody forgets it.

use std::path::Path;

use jiff::civil::Date;
use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::settings::BadInput;

/// What is known of one implementation.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// Its name, as reports have it among their versions.
    pub implementation: String,
    /// What its classes name: `spec.controller` of IngressClasses, `spec.controllerName` of GatewayClasses.
    pub controllers: Vec<String>,
    /// What does not hold.
    pub deviations: Vec<Deviation>,
}

/// A claim that is known not to hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deviation {
    /// The check that judges it.
    pub check: String,
    /// The versions that this was seen in, or is known of.
    pub versions: VersionReq,
    /// What the implementation does instead, and where that is said.
    pub reason: String,
    /// The last day that this is taken for an answer.
    pub until: Date,
}

impl Deviation {
    /// Whether a day is after the last.
    #[must_use]
    pub fn is_over(&self, today: Date) -> bool {
        today > self.until
    }
}

impl Profile {
    /// What is known of a check, with this version; a version that nobody knows may be any.
    #[must_use]
    pub fn deviation(&self, check: &str, version: Option<&Version>) -> Option<&Deviation> {
        let mut of_check = self.deviations.iter().filter(|it| it.check == check);
        of_check.find(|it| version.is_none_or(|version| it.versions.matches(version)))
    }
}

/// Reads the profiles of a folder; none where there is no such folder.
///
/// # Errors
/// The first that is malformed, with its place.
pub fn load(folder: &Path) -> Result<Vec<Profile>, BadInput> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "yaml"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let profile = text.and_then(|text| {
            serde_yaml::from_str(&text).map_err(|error| format!("is no profile: {error}"))
        });
        profile.map_err(|why: String| BadInput(format!("{} {why}", path.display())))
    };
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "
implementation: traefik
controllers: [traefik.io/ingress-controller]
deviations:
- check: ingress::rolling_update
  versions: '>=3.7, <3.8'
  reason: it keeps idle connections to pods that are gone
  until: 2027-06-30
";

    #[test]
    fn a_deviation_is_of_its_check_and_versions_and_has_a_last_day() {
        let profile: Profile = serde_yaml::from_str(PROFILE).unwrap();
        let of = |check: &str, version: Option<&str>| {
            let version = version.map(|version| version.parse().unwrap());
            profile.deviation(check, version.as_ref())
        };
        let known = of("ingress::rolling_update", Some("3.7.15")).unwrap();
        assert_eq!(of("ingress::rolling_update", None), Some(known));
        assert_eq!(of("ingress::rolling_update", Some("3.8.0")), None);
        assert_eq!(of("ingress::other", Some("3.7.15")), None);
        assert!(!known.is_over("2027-06-30".parse().unwrap()));
        assert!(known.is_over("2027-07-01".parse().unwrap()));
    }

    #[test]
    fn what_is_malformed_is_said_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(&dir.path().join("absent")).unwrap().is_empty());
        std::fs::write(dir.path().join("README.md"), "").unwrap();
        std::fs::write(dir.path().join("traefik.yaml"), PROFILE).unwrap();
        assert_eq!(load(dir.path()).unwrap().len(), 1);
        let wrong = PROFILE.replace("until", "til");
        std::fs::write(dir.path().join("traefik.yaml"), wrong).unwrap();
        let said = load(dir.path()).unwrap_err().0;
        assert!(said.contains("traefik.yaml is no profile: "), "{said}");
        assert!(said.contains("unknown field `til`"), "{said}");
    }
}
