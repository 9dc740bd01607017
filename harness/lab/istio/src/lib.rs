//! Istio's API: the kinds and fields that the lab's mesh follows.
//!
//! A field that is not here is one the lab does not do: the schema does not
//! know it, so strict validation refuses it rather than the mesh ignoring it. Names and meaning are
//! those of <https://istio.io/latest/docs/reference/config/>.

pub mod destination_rule;
pub mod request_authentication;
pub mod security;
pub mod service_entry;
pub mod sidecar;
pub mod virtual_service;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pods by their labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// Labels that a pod must have, with these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

impl WorkloadSelector {
    /// Whether a pod with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .flatten()
            .all(|(key, value)| labels.get(key) == Some(value))
    }
}
