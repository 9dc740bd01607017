//! What the diagnosers' tests share, and what holds for all causes together.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::labels::terms;
use super::{cni, gateway, ingress, mesh, services, workload_tests};
use crate::verdict::chance::Test;
use crate::verdict::chance::dependence::{Dependence, sticky};
use crate::verdict::{Cause, CauseKind};

/// A case by name, and what is named for it.
pub(super) type Case = (&'static str, Option<Cause>);

/// A case: what was seen if all is well, and what is changed about it.
pub(super) fn case<S>(
    name: &'static str,
    mut seen: S,
    change: impl FnOnce(&mut S),
    cause: impl Fn(&S) -> Option<Cause>,
) -> Case {
    change(&mut seen);
    (name, cause(&seen))
}

pub(super) fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A pod of namespace `shop` that is ready and has a port `http`, 8080.
pub(super) fn pod(name: &str, labels: &str, ip: &str, node: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name, "labels": terms(labels)},
        "spec": {"nodeName": node, "containers": [{
            "name": "server", "image": "strata.dev/probe:v1",
            "ports": [{"name": "http", "containerPort": 8080}],
        }]},
        "status": {"phase": "Running", "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

/// The same with another status.
pub(super) fn pod_with(name: &str, labels: &str, status: &str) -> Pod {
    let mut pod = pod(name, labels, "10.244.1.5", "worker");
    pod.status = Some(yaml(status));
    pod
}

/// A Service of namespace `shop`.
pub(super) fn service(name: &str, spec: &str) -> Service {
    let spec: serde_json::Value = yaml(spec);
    let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

/// A slice of a Service of namespace `shop`: addresses with their nodes, at port `http`, 8080.
pub(super) fn slice(service: &str, endpoints: &[(&str, &str)]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, node)| json!({"addresses": [ip], "nodeName": node}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": service,
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080}],
    }))
    .unwrap()
}

/// Cases as a person reads them.
pub(super) fn read(cases: &[Case]) -> String {
    cases.iter().fold(String::new(), |mut text, (name, cause)| {
        match cause {
            Some(cause) => {
                let _ = writeln!(text, "# {name} → {}\n{cause}\n", cause.kind);
            }
            None => {
                let _ = writeln!(text, "# {name} → nothing\n");
            }
        }
        text
    })
}

fn all() -> Vec<Case> {
    [
        workload_tests::cases(),
        cni::tests::cases(),
        services::tests::cases(),
        ingress::tests::cases(),
        mesh::tests::cases(),
        gateway::tests::cases(),
        dependences(),
    ]
    .concat()
}

/// What no object shows, but the requests themselves.
fn dependences() -> Vec<Case> {
    let of = |on: Test| {
        let draws = (0..40).map(|n| (n / 20, if n < 20 { "a" } else { "b" }));
        let seen = sticky(on, &draws.collect::<Vec<_>>()).filter(Dependence::found);
        (on.name(), seen.map(|seen| seen.cause()))
    };
    [Test::Connection, Test::Address, Test::Time].map(of).into()
}

#[test]
fn every_kind_is_reached_by_some_evidence() {
    let reached: BTreeSet<_> = all()
        .into_iter()
        .filter_map(|(_, cause)| Some(cause?.kind))
        .collect();
    let missing: Vec<_> = CauseKind::ALL
        .iter()
        .filter(|kind| !reached.contains(kind))
        .collect();
    assert!(missing.is_empty(), "no case leads to {missing:?}");
}

#[test]
fn a_cause_says_all_there_is_to_say() {
    for (name, cause) in all() {
        let Some(cause) = cause else { continue };
        for (field, text) in [
            ("wrong", &cause.wrong),
            ("change", &cause.change),
            ("see", &cause.see),
        ] {
            let whole = !text.trim().is_empty() && !text.contains('\n') && !text.contains("  ");
            assert!(whole, "{name}: {field} is {text:?}");
        }
        assert!(!cause.wrong.ends_with('.'), "{name}: {}", cause.wrong);
        assert!(cause.see.starts_with("kubectl "), "{name}: {}", cause.see);
    }
}

/// `docs/causes.md` is a table with a row a kind, in the order of the kinds.
#[test]
fn the_table_of_causes_is_whole() {
    let page = crate::settings::workspace().join("docs/causes.md");
    let page = std::fs::read_to_string(&page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: Vec<_> = rows
        .filter_map(|row| row.split_once('`'))
        .map(|(kind, _)| kind)
        .collect();
    let kinds: Vec<_> = CauseKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(rows, kinds);
}
