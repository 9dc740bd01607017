//! `docs/deviations.md`, which is what `suites/deviations/` says, and whether that can be so.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use expect_test::expect_file;
use strata::Layer;
use strata::deviation::{self, Profile};

use super::checks;

const HEAD: &str = "\
# Expected deviations

What is known not to hold with one implementation of a layer, whose classes name these controllers. A check that fails as
this page says *deviates*: it was judged, its finding is in the reports, and the run is no redder for it. After its last
day an entry counts for nothing; where a check passes that has one, the run says so. `STRATA_DEVIATIONS=0` takes every failure
for one. This page is made from the files in `suites/deviations/`: `UPDATE_EXPECT=1 cargo test -p strata-suites --lib page`
writes it anew, and a test compares it.

Envoy Gateway and Istio have no file, and were not run by us: their own reports of Gateway API conformance (Envoy Gateway 1.7.0 on 1.4.1, Istio
1.28.0 on 1.4.0) skip and fail nothing, and what they do not do their GatewayClasses say (`status.supportedFeatures`).
";

fn profiles() -> Vec<Profile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deviations");
    deviation::load(&folder).unwrap_or_else(|bad| panic!("{bad}"))
}

fn page(profiles: &[Profile]) -> String {
    let mut page = HEAD.to_owned();
    for profile in profiles {
        let controllers: Vec<_> = profile
            .controllers
            .iter()
            .map(|it| format!("`{it}`"))
            .collect();
        let _ = write!(
            page,
            "\n## {}\n\n{}\n\n| check | versions | is known to | until |\n| --- | --- | --- | --- |\n",
            profile.implementation,
            controllers.join(", ")
        );
        for known in &profile.deviations {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                known.check, known.versions, known.reason, known.until
            );
        }
    }
    page
}

#[test]
fn the_page_of_deviations_says_what_the_files_say() {
    expect_file!["../../docs/deviations.md"].assert_eq(&page(&profiles()));
}

#[test]
fn what_deviates_is_a_check_of_a_layer_that_has_implementations() {
    let known: BTreeSet<_> = checks()
        .filter(|(layer, ..)| [Layer::Ingress, Layer::Gateway].contains(layer))
        .map(|(_, _, check)| check.id)
        .collect();
    for profile in profiles() {
        let mut seen = BTreeSet::new();
        for deviation in &profile.deviations {
            let check = deviation.check.as_str();
            assert!(known.contains(check), "{}: {check}", profile.implementation);
            let entry = (check.to_owned(), deviation.versions.to_string());
            assert!(
                seen.insert(entry),
                "{}: {check} twice",
                profile.implementation
            );
        }
    }
}
