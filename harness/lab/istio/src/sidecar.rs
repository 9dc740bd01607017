//! `Sidecar` (networking.istio.io): what of the mesh a workload's sidecar knows.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of the sidecars of workloads.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "Sidecar",
    namespaced,
    category = "istio-io"
)]
#[serde(rename_all = "camelCase")]
pub struct SidecarSpec {
    /// The workloads; all of the namespace unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<LabelSelector>,
    /// What is known; everything unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressListener>>,
    /// What becomes of connections for nobody in the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// Pods by their labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LabelSelector {
    /// Labels that a pod must have, with these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

impl LabelSelector {
    /// Whether a pod with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut wanted = self.labels.iter().flatten();
        wanted.all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EgressListener {
    /// `NAMESPACE/HOST`: `.` is the workload's own namespace, `*` any.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub hosts: Vec<String>,
}

/// What becomes of connections for nobody in the mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutboundTrafficPolicy {
    /// Which of the two.
    #[serde(default)]
    pub mode: OutboundPolicy,
}

/// Passed through, or dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundPolicy {
    /// They go where they were going.
    #[default]
    AllowAny,
    /// They go nowhere.
    RegistryOnly,
}
