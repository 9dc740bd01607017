//! The tables as a whole: what a reviewer would otherwise have to check by eye.

mod chance;
mod coverage;
mod deviations;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use strata::apply::restricted;
use strata::{Check, Layer, Need};

use crate::SUITES;

fn checks() -> impl Iterator<Item = (Layer, bool, &'static Check)> {
    SUITES.iter().flat_map(|suite| {
        let gates = suite.gates.iter().map(|check| (suite.layer, true, check));
        let checks = suite.checks.iter().map(|check| (suite.layer, false, check));
        gates.chain(checks)
    })
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn documents(path: &Path) -> Vec<Value> {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let parsed: Result<Vec<Value>, _> = serde_yaml::from_multiple(&text);
    parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn there_are_checks_of_every_layer() {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for (layer, _, _) in checks() {
        *counts.entry(layer.name()).or_default() += 1;
    }
    assert_eq!(counts.len(), Layer::ALL.len(), "{counts:?}");
    assert!(counts.values().all(|count| *count >= 8), "{counts:?}");
    assert!(counts.values().sum::<usize>() >= 60, "{counts:?}");
}

#[test]
fn what_takes_longest_is_there_once() {
    let ids: BTreeSet<_> = checks().map(|(_, _, check)| check.id).collect();
    let longest: BTreeSet<_> = crate::LONGEST.iter().copied().collect();
    let unknown: Vec<_> = longest.difference(&ids).collect();
    assert!(unknown.is_empty(), "no checks: {unknown:?}");
    assert_eq!(longest.len(), crate::LONGEST.len());
}

#[test]
fn ids_are_unique_and_begin_with_their_layer() {
    let mut seen = BTreeSet::new();
    for (layer, _, check) in checks() {
        assert!(seen.insert(check.id), "{} is there twice", check.id);
        let behaviour = check
            .id
            .strip_prefix(layer.name())
            .and_then(|rest| rest.strip_prefix("::"));
        let behaviour = behaviour.unwrap_or_else(|| panic!("{} is a check of {layer}", check.id));
        let well_formed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(
            !behaviour.is_empty() && behaviour.chars().all(well_formed),
            "{}",
            check.id
        );
        // The runner gives bring-ups and regressions these names.
        assert!(
            behaviour != "up" && behaviour != "regression",
            "{}",
            check.id
        );
    }
}

#[test]
fn claims_are_one_sentence_and_name_their_source() {
    for (_, _, check) in checks() {
        let id = check.id;
        assert!(check.claim.ends_with('.'), "{id}: {}", check.claim);
        assert!(
            !check.claim.trim_end_matches('.').contains(". "),
            "{id}: {}",
            check.claim
        );
        assert!(
            check
                .claim
                .starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit()),
            "{id}"
        );
        assert!(!check.source.is_empty(), "{id}");
    }
}

#[test]
fn gates_change_nothing_since_they_are_run_again() {
    for (_, gate, check) in checks() {
        assert!(!gate || check.manifest.is_none(), "{}", check.id);
    }
    for layer in Layer::ALL {
        assert!(
            checks().any(|(of, gate, _)| gate && of == layer),
            "{layer} has no gate"
        );
    }
}

#[test]
fn a_manifest_is_called_as_its_check_is_unless_several_share_it() {
    let own = |check: &Check| format!("{}.yaml", check.id.replace("::", "/"));
    let mut shared: BTreeMap<&str, Vec<&Check>> = BTreeMap::new();
    for (_, _, check) in checks() {
        if let Some(manifest) = check.manifest {
            shared.entry(manifest).or_default().push(check);
        }
    }
    for (manifest, by) in shared {
        let called = by.iter().any(|check| manifest == own(check));
        assert_eq!(called, by.len() == 1, "{manifest} of {by:?}");
    }
}

#[test]
fn every_manifest_is_used_and_parses() {
    let named: BTreeSet<PathBuf> = checks()
        .filter_map(|(_, _, check)| Some(manifests().join(check.manifest?)))
        .collect();
    for layer in Layer::ALL {
        let folder = manifests().join(layer.name());
        let mut files: BTreeSet<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        for path in &files {
            assert!(!documents(path).is_empty(), "{} is empty", path.display());
        }
        assert!(
            files.remove(&folder.join("fixture.yaml")),
            "{layer} has no fixture"
        );
        let installs = |path: &PathBuf| {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            ["lab", "lab-crds", "traefik"].contains(&name.as_str())
        };
        let own: BTreeSet<_> = files.into_iter().filter(|path| !installs(path)).collect();
        let expected: BTreeSet<_> = named
            .iter()
            .filter(|path| path.starts_with(&folder))
            .cloned()
            .collect();
        assert_eq!(
            own, expected,
            "manifests of {layer} and those that its checks name"
        );
    }
}

#[test]
fn documents_name_no_namespace_and_pods_end_soon() {
    let files = checks().filter_map(|(_, _, check)| check.manifest.map(str::to_owned));
    let fixtures = Layer::ALL.map(|layer| format!("{layer}/fixture.yaml"));
    for file in files.chain(fixtures) {
        for document in documents(&manifests().join(&file)) {
            let kind = document["kind"].as_str().unwrap_or_default();
            let at = format!("{file}: {kind} {}", document["metadata"]["name"]);
            assert!(document["metadata"].get("namespace").is_none(), "{at}");
            let pod = match kind {
                "Pod" => &document["spec"],
                "Deployment" | "DaemonSet" | "StatefulSet" => &document["spec"]["template"]["spec"],
                _ => continue,
            };
            // Whoever goes on serving is given that time beside.
            let soon = 1 + drains(pod) / 1000;
            assert_eq!(pod["terminationGracePeriodSeconds"], soon, "{at}");
            for container in pod["containers"].as_array().unwrap() {
                assert_eq!(container["image"], "strata.dev/probe:v1", "{at}");
                assert_eq!(container["imagePullPolicy"], "IfNotPresent", "{at}");
                assert!(container.get("readinessProbe").is_some(), "{at}");
            }
        }
    }
}

/// For how many milliseconds a pod goes on serving when it is told to end.
fn drains(pod: &Value) -> u64 {
    let mut arguments = pod["containers"][0]["args"]
        .as_array()
        .into_iter()
        .flatten();
    let drain = arguments.find(|argument| *argument == "--drain-ms");
    let value = drain.and_then(|_| arguments.next()?.as_str()?.parse().ok());
    value.unwrap_or(0)
}

/// Pods that break the Pod Security Standard `restricted`, and why they have to.
const UNRESTRICTED: &[(&str, &str, &str)] = &[
    (
        "cni/fixture.yaml",
        "host",
        "stands for its node, whose network it is in",
    ),
    (
        "cni/host_port_is_closed.yaml",
        "web",
        "has a port of its node's",
    ),
    (
        "cni/host_ports.yaml",
        "datagrams",
        "has a port of its node's",
    ),
    ("cni/host_ports.yaml", "web", "has a port of its node's"),
    (
        "services/fixture.yaml",
        "host",
        "stands for its node, whose network it is in",
    ),
];

/// What the lab installs is the lab's own: it comes into no other cluster.
#[test]
fn every_pod_is_restricted_but_those_that_are_listed_and_say_so() {
    let files = checks().filter_map(|(_, _, check)| check.manifest.map(str::to_owned));
    let fixtures = Layer::ALL.map(|layer| format!("{layer}/fixture.yaml"));
    let files: BTreeSet<_> = files.chain(fixtures).collect();
    let (mut pods, mut broken) = (0, BTreeSet::new());
    for file in &files {
        for document in documents(&manifests().join(file)) {
            let Some(spec) = restricted::pod_spec(&document) else {
                continue;
            };
            pods += 1;
            let name = document["metadata"]["name"].as_str().unwrap().to_owned();
            let undeclared = restricted::undeclared(&document);
            assert!(undeclared.is_empty(), "{file}: {name}: {undeclared:?}");
            if !restricted::violations(spec).is_empty() {
                broken.insert((file.clone(), name));
            }
        }
    }
    assert!(pods > 100, "{pods}");
    let listed = UNRESTRICTED.iter();
    let listed = listed.map(|(file, name, _)| (file.to_string(), name.to_string()));
    assert_eq!(broken, listed.collect());
    // A fixture leaves out what the cluster refuses; a check with such a pod has to ask first.
    for (_, _, check) in checks() {
        let own = UNRESTRICTED
            .iter()
            .any(|(file, _, _)| check.manifest == Some(file));
        let asks = check.needs.contains(&Need::NodeNetwork);
        assert!(
            !own || asks,
            "{} does not say that it needs NodeNetwork",
            check.id
        );
    }
}

/// The tutorial's own objects stand in the fixtures as it prints them, indentation apart.
#[test]
fn the_tutorials_manifests_are_unchanged() {
    for (file, kind, name, spec) in [
        (
            "services",
            "Service",
            "backend",
            r#"{"selector":{"app":"backend"},"ports":[{"port":80,"targetPort":8080}],"type":"ClusterIP"}"#,
        ),
        (
            "ingress",
            "Ingress",
            "my-ingress",
            r#"{"rules":[{"host":"app.example.local","http":{"paths":[{"path":"/frontend","pathType":"Prefix","backend":{"service":{"name":"frontend","port":{"number":80}}}}]}}]}"#,
        ),
        (
            "mesh",
            "VirtualService",
            "backend",
            r#"{"hosts":["backend"],"http":[{"route":[{"destination":{"host":"backend-v1"},"weight":90},{"destination":{"host":"backend-v2"},"weight":10}]}]}"#,
        ),
        (
            "gateway",
            "Gateway",
            "my-gateway",
            r#"{"gatewayClassName":"contour","listeners":[{"name":"http","protocol":"HTTP","port":80}]}"#,
        ),
        (
            "gateway",
            "HTTPRoute",
            "my-route",
            r#"{"parentRefs":[{"name":"my-gateway"}],"rules":[{"matches":[{"path":{"type":"PathPrefix","value":"/frontend"}}],"backendRefs":[{"name":"frontend","port":80}]}]}"#,
        ),
    ] {
        let fixture = documents(&manifests().join(file).join("fixture.yaml"));
        let own = fixture
            .iter()
            .find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
        let own = own.unwrap_or_else(|| panic!("{file}: no {kind} {name}"));
        let expected: Value = serde_json::from_str(spec).unwrap();
        assert_eq!(own["spec"], expected, "{file}: {kind} {name}");
    }
}

#[test]
fn what_a_fixture_says_that_it_needs_is_known() {
    let mut said = 0;
    for layer in Layer::ALL {
        let path = manifests().join(layer.name()).join("fixture.yaml");
        for document in documents(&path) {
            let annotations = &document["metadata"]["annotations"];
            if let Some(name) = annotations[strata::NEEDS_ANNOTATION].as_str() {
                let need: Result<strata::Need, String> = name.parse();
                assert!(need.is_ok(), "{}: {need:?}", path.display());
                said += 1;
            }
        }
    }
    assert!(said > 0);
    let wrong = "DualStacks".parse::<strata::Need>().unwrap_err();
    assert!(
        wrong.contains("write one of") && wrong.contains("DualStack"),
        "{wrong}"
    );
}
