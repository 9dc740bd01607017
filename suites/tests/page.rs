//! `docs/checks.md`, which is what the tables say, for who has no source at hand.

use std::fmt::Write as _;

use expect_test::expect_file;
use strata::{Layer, Need};

use super::checks;

const HEAD: &str = "\
# Checks

What is claimed of a cluster's networking, layer by layer, and where each claim comes from. This page is made from the
tables in `suites/`: `UPDATE_EXPECT=1 cargo test -p strata-suites --lib page` writes it anew, and a test compares it.

A **gate** is a check that all above its layer stands on; the gates of lower layers run again after every layer. A check
that *changes* something has a manifest of its own and a namespace for it, which goes with it; the others only look at
their layer's fixture, `manifests/<layer>/fixture.yaml`. One is run by `cargo test --test e2e -- --exact NAME`, all that
answer to one work by the work's name, as `cargo test --test e2e -- sig-network`. [coverage.md](coverage.md) compares them,
test by test, with what others assert.
";

const fn title(layer: Layer) -> &'static str {
    match layer {
        Layer::Cni => "CNI",
        Layer::Services => "Services and DNS",
        Layer::Ingress => "Ingress",
        Layer::Mesh => "Service mesh",
        Layer::Gateway => "Gateway API",
    }
}

fn need(need: &Need) -> String {
    match need {
        Need::Alone => "no check beside it".to_owned(),
        Need::Nodes(count) => format!("{count} schedulable nodes"),
        Need::Zones(count) => format!("nodes in {count} zones"),
        Need::LoadBalancer => "load balancers".to_owned(),
        Need::BalancerAddress => "load balancers with addresses of their own".to_owned(),
        Need::Outside => "a vantage outside".to_owned(),
        Need::NodeNetwork => "pods in their node's network".to_owned(),
        Need::Ours => "a cluster made for the run".to_owned(),
        Need::Plugin => "a CNI plugin that strata knows".to_owned(),
        Need::NetworkPolicy => "policies enforced".to_owned(),
        Need::DualStack => "addresses of IPv4 and of IPv6".to_owned(),
        Need::GatewayFeature(name) => format!("[{name}]"),
        Need::Time => "`STRATA_SLOW=1`".to_owned(),
        Need::Version(minor) => format!("Kubernetes 1.{minor}"),
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for layer in Layer::ALL {
        let own: Vec<_> = checks().filter(|(of, _, _)| *of == layer).collect();
        let gates = own.iter().filter(|(_, gate, _)| *gate).count();
        let _ = write!(
            page,
            "\n## {}\n\n{} checks, {gates} of them gates.\n\n| check | claim | needs | answers to |\n| --- | --- | --- | --- |\n",
            title(layer),
            own.len()
        );
        for (_, gate, check) in own {
            let name = match (gate, check.manifest) {
                (true, _) => format!("`{}` **gate**", check.id),
                (false, Some(manifest)) => {
                    format!("`{}` [changes](../manifests/{manifest})", check.id)
                }
                (false, None) => format!("`{}`", check.id),
            };
            let needs: Vec<_> = check.needs.iter().map(need).collect();
            let cells = [check.claim, &needs.join(", "), check.source];
            let cells = cells.map(|cell| cell.replace('|', "\\|").replace('<', "\\<"));
            let _ = writeln!(page, "| {name} | {} |", cells.join(" | "));
        }
    }
    page
}

#[test]
fn the_page_of_checks_says_what_the_tables_say() {
    expect_file!["../../docs/checks.md"].assert_eq(&page());
}
