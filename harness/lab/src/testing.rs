//! What tests make objects of.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// An object of these fields. It is read from text, since what reads kinds from that is compiled already, in `strata-watch`.
#[track_caller]
pub(crate) fn object<K: DeserializeOwned>(fields: Value) -> K {
    serde_json::from_str(&fields.to_string()).unwrap()
}

/// An object as YAML has it.
#[track_caller]
pub(crate) fn object_of_yaml<K: DeserializeOwned>(yaml: &str) -> K {
    object(serde_yaml::from_str(yaml).unwrap())
}

/// An object of these fields, as stores hold it.
#[track_caller]
pub(crate) fn shared<K: DeserializeOwned>(fields: Value) -> Arc<K> {
    Arc::new(object(fields))
}
