//! Generated manifests: that they are what the types say.

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// Asserts that a file under `manifests/` holds these definitions; with STRATA_UPDATE_MANIFESTS=1 it
/// is written instead.
pub(crate) fn assert_current(name: &str, definitions: &[CustomResourceDefinition]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../manifests")
        .join(name);
    let mut text = "# Generated from the lab's types; STRATA_UPDATE_MANIFESTS=1 cargo test -p strata-lab writes it.\n".to_owned();
    for definition in definitions {
        text.push_str("---\n");
        // Through JSON: the text then has one form, whatever the types' own attributes say.
        let value = serde_json::to_value(definition).unwrap();
        text.push_str(&serde_yaml::to_string(&value).unwrap());
    }
    if std::env::var_os("STRATA_UPDATE_MANIFESTS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == text,
        "manifests/{name} is not what the types say: run STRATA_UPDATE_MANIFESTS=1 cargo test -p strata-lab"
    );
}
