//! `ServiceEntry` (networking.istio.io): services that are not in Kubernetes.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration affecting the service registry.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "ServiceEntry",
    plural = "serviceentries",
    namespaced,
    shortname = "se",
    category = "istio-io"
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEntrySpec {
    /// The hosts associated with the service.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub hosts: Vec<String>,
    /// The service's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<ServicePort>>,
    /// The service's endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<WorkloadEntry>>,
    /// How endpoints are found; `NONE` goes where the client was going.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
}

/// How endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The client's own destination.
    None,
    /// The addresses of `endpoints`.
    Static,
    /// What names resolve to: those of `endpoints`, or the hosts.
    Dns,
}

/// A port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its number.
    #[schemars(range(max = 65535))]
    pub number: u32,
    /// Its name.
    pub name: String,
    /// HTTP, HTTP2, GRPC, HTTPS, TLS or TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The port on the endpoints, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u32>,
}

/// An endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadEntry {
    /// Its address.
    pub address: String,
    /// Its ports by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<BTreeMap<String, u32>>,
    /// Where it is: `REGION/ZONE/SUBZONE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
}
