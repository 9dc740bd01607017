//! Asks a real Envoy whether it takes a configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Snapshot;
use crate::xds::Xds;

/// The Envoy of STRATA_ENVOY, else of PATH, else of the workspace's `.tools`.
pub(crate) fn find_envoy() -> Option<PathBuf> {
    let named = std::env::var_os("STRATA_ENVOY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("envoy"));
    let tools = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/envoy"));
    named
        .into_iter()
        .chain(on_path)
        .chain([tools])
        .find(|candidate| candidate.is_file())
}

/// Validates a snapshot as one static configuration: `--mode validate` reads no dynamic files.
pub(crate) fn assert_accepted(snapshot: &Snapshot) {
    assert_accepted_with(snapshot, &BTreeMap::new());
}

/// The same, with the contents of the files that the configuration names.
pub(crate) fn assert_accepted_with(snapshot: &Snapshot, files: &BTreeMap<String, String>) {
    assert_encodes(snapshot);
    let mut bootstrap = static_bootstrap(snapshot);
    inline_files(&mut bootstrap, files);
    assert_valid(&bootstrap);
}

/// That all of it can be told to proxies.
fn assert_encodes(snapshot: &Snapshot) {
    let xds = Xds::new(Arc::new(|line| panic!("{line}")));
    xds.share(snapshot.clone().into(), None);
}

/// Validates a bootstrap.
pub(crate) fn assert_valid(bootstrap: &Value) {
    let Some(envoy) = find_envoy() else {
        eprintln!("not run: no Envoy found (set STRATA_ENVOY, or run scripts/setup)");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("static.json");
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let output = Command::new(envoy)
        .args([
            "--mode",
            "validate",
            "--service-node",
            "test",
            "-l",
            "error",
            "-c",
        ])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "Envoy refuses the configuration:\n{}{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        serde_json::to_string_pretty(bootstrap).unwrap(),
    );
}

/// The same configuration without files: routes in their listeners, secrets beside them.
pub(crate) fn static_bootstrap(snapshot: &Snapshot) -> Value {
    let mut listeners = snapshot.listeners.clone();
    for listener in &mut listeners {
        make_static(listener, &snapshot.routes);
    }
    json!({
        "admin": { "address": super::listener::address("127.0.0.1", 0) },
        "static_resources": {
            "listeners": listeners,
            "clusters": snapshot.clusters,
            "secrets": snapshot.secrets,
        },
    })
}

fn make_static(value: &mut Value, routes: &[Value]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| make_static(item, routes)),
        Value::Object(fields) => {
            if let Some(rds) = fields.remove("rds") {
                let route = routes
                    .iter()
                    .find(|route| route["name"] == rds["route_config_name"]);
                fields.insert(
                    "route_config".to_owned(),
                    route.cloned().unwrap_or_default(),
                );
            }
            fields.remove("sds_config");
            fields
                .values_mut()
                .for_each(|field| make_static(field, routes));
        }
        _ => {}
    }
}

fn inline_files(value: &mut Value, files: &BTreeMap<String, String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| inline_files(item, files)),
        Value::Object(fields) => {
            let text = fields
                .get("filename")
                .and_then(|name| files.get(name.as_str()?));
            if let Some(text) = text {
                *value = json!({ "inline_string": text });
            } else {
                fields
                    .values_mut()
                    .for_each(|field| inline_files(field, files));
            }
        }
        _ => {}
    }
}
