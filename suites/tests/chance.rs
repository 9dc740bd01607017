//! The ledger of the tests of chance, and `docs/statistics.md`, of which its tables are a part.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use expect_test::expect_file;
use strata::Layer;
use strata::verdict::chance::{BUDGET, rules};

use super::checks;
use crate::CHANCE;

/// How often a check is made in a whole run: gates again after every layer above their own.
fn times(layer: Layer, gate: bool) -> usize {
    let above = Layer::ALL.iter().filter(|other| **other > layer).count();
    if gate { 1 + above } else { 1 }
}

#[test]
fn every_row_of_the_ledger_is_a_check_and_stands_there_once() {
    let known: BTreeSet<_> = checks().map(|(_, _, check)| check.id).collect();
    let mut seen = BTreeSet::new();
    for (id, tests) in CHANCE.0 {
        assert!(known.contains(id), "{id} is no check");
        assert!(seen.insert(id), "{id} is there twice");
        assert!(!tests.is_empty(), "{id}");
    }
}

/// By Boole's inequality over every test of every trial of a run of everything.
fn bound() -> f64 {
    let trials = checks().flat_map(|(layer, gate, check)| vec![check.id; times(layer, gate)]);
    CHANCE.bound(trials)
}

#[test]
fn a_run_of_everything_stays_within_the_budget() {
    assert!(bound() <= BUDGET, "{:e}", bound());
    assert!(bound() > 0.0);
}

fn ledger() -> String {
    let mut table = "| check | tests of chance | α |\n| --- | --- | ---: |\n".to_owned();
    for (layer, gate, check) in checks() {
        let tests = CHANCE.of(check.id);
        if tests.is_empty() {
            continue;
        }
        let names: Vec<_> = tests.iter().map(|test| test.name()).collect();
        let times = times(layer, gate);
        let again = if times > 1 {
            format!(", {times} times")
        } else {
            String::new()
        };
        let trials = std::iter::repeat_n(check.id, times);
        let _ = writeln!(
            table,
            "| `{}`{again} | {} | {:.1e} |",
            check.id,
            names.join(", "),
            CHANCE.bound(trials)
        );
    }
    let _ = writeln!(table, "| a whole run |  | {:.1e} of {BUDGET:e} |", bound());
    table
}

/// The page with what stands between a table's two marks replaced by the table.
fn with(page: &str, mark: &str, table: &str) -> String {
    let (open, close) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let (before, rest) = page
        .split_once(&open)
        .unwrap_or_else(|| panic!("no {open}"));
    let (_, after) = rest
        .split_once(&close)
        .unwrap_or_else(|| panic!("no {close}"));
    format!("{before}{open}\n{table}\n{close}{after}")
}

#[test]
fn the_page_of_statistics_has_the_tables_that_are_computed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/statistics.md");
    let mut page = std::fs::read_to_string(path).unwrap();
    for (mark, table) in [
        ("split", rules::table().unwrap()),
        ("tests", rules::tests()),
        ("ledger", ledger()),
    ] {
        page = with(&page, mark, &table);
    }
    expect_file!["../../docs/statistics.md"].assert_eq(&page);
}
