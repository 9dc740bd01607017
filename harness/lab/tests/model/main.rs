//! The API server against a model of it: random sequences of steps, every answer foreseen.
//!
//! Start from [`op::steps`], which makes the sequences up, and [`driver::Run`], which runs them;
//! [`world::Model`] knows what has to come of them. The same sequences run against a cluster that
//! `STRATA_MODEL_KUBECONFIG` names (an API server without controllers is asked the most), in a
//! namespace that is removed again. `PROPTEST_CASES` says how many sequences.
//!
//! ```text
//! op ──► {plan, parts} ──► {driver, lists, watch} ──► wire ──► the lab's API server, or a cluster's
//!             └──────► world ◄────┘
//!                        └──► {accept, deletion, fields, paths, patch, kinds}
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod accept;
mod deletion;
mod driver;
mod fields;
mod kinds;
#[path = "../support/line.rs"]
mod line;
mod lists;
mod op;
mod parts;
mod patch;
mod paths;
mod plan;
mod reflector;
mod regressions;
mod server;
mod watch;
mod wire;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

use crate::server::Server;

/// As many cases as asked for, or as fit into a quick run of all tests.
fn config(quick: u32) -> ProptestConfig {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/seeds.txt");
    let standard = ProptestConfig::default();
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() {
            standard.cases
        } else {
            quick
        },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(seeds))),
        max_shrink_iters: 4000,
        ..standard
    }
}

fn agree(server: &Server, cases: u32) {
    let outcome = TestRunner::new(config(cases)).run(&op::steps(), |steps| {
        server
            .run(&steps)
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn the_lab_answers_as_the_model() {
    agree(&Server::lab(), 24);
}

#[test]
fn a_cluster_answers_as_the_model() {
    match Server::cluster() {
        Some(server) => agree(&server, 32),
        None => eprintln!("skipped: STRATA_MODEL_KUBECONFIG names no cluster"),
    }
}
