//! Envoy's v3 configuration, as JSON.
//!
//! Start from [`Snapshot`]: what one kind of proxy is told; `strata-xds` tells it. The builders
//! beside it cover the fields that the translators need, under Envoy's own names; what they mean is
//! Envoy's documentation's to say. Rule: equal input gives equal bytes, so that an update that changes
//! nothing is no update.
//!
//! Endpoints stand in their cluster (`type: STATIC`), which is one subscription for all of them. Envoy
//! swaps a changed cluster for the new one and lets requests under way finish; listeners and their
//! connections are not touched.

pub(crate) mod bootstrap;
pub(crate) mod cluster;
pub(crate) mod listener;
#[cfg(test)]
pub(crate) mod live;
pub(crate) mod route;
#[cfg(test)]
pub(crate) mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::xds::Parts;
pub(crate) use crate::xds::fingerprint;

/// The port that answers `GET /healthz/ready` with 200 once the first configuration is in force.
pub(crate) const READY_PORT: u16 = 15021;

/// The static cluster that is the control plane.
const XDS_CLUSTER: &str = "xds";

/// Everything that one kind of proxy is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// `envoy.config.listener.v3.Listener`
    pub(crate) listeners: Vec<Value>,
    /// `envoy.config.route.v3.RouteConfiguration`
    pub(crate) routes: Vec<Value>,
    /// `envoy.config.cluster.v3.Cluster`
    pub(crate) clusters: Vec<Value>,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    pub(crate) secrets: Vec<Value>,
}

impl From<Snapshot> for Parts {
    fn from(snapshot: Snapshot) -> Self {
        let shared = |values: Vec<Value>| values.into_iter().map(Arc::new).collect();
        Parts {
            listeners: shared(snapshot.listeners),
            routes: shared(snapshot.routes),
            clusters: shared(snapshot.clusters),
        }
    }
}

impl Snapshot {
    /// The files that go into the proxy's Secret.
    pub(crate) fn secret_files(&self) -> BTreeMap<String, String> {
        // A secret's subscription takes a response of exactly one.
        self.secrets
            .iter()
            .map(|secret| {
                let kind = "envoy.extensions.transport_sockets.tls.v3.Secret";
                let name = secret["name"].as_str().unwrap_or_default();
                (secret_file(name), discovery_response(kind, secret))
            })
            .collect()
    }
}

/// The file of a secret. Names are `namespace/name` or plain, and namespaces have no dots, so no two
/// have one file.
pub(crate) fn secret_file(name: &str) -> String {
    format!("sds.{}.json", name.replace('/', "."))
}

/// A file of one resource, as Envoy's file subscriptions read it.
fn discovery_response(kind: &str, resource: &Value) -> String {
    let typed = typed(kind, resource.clone());
    let version = fingerprint(&typed.to_string());
    pretty(&json!({ "version_info": version, "resources": [typed] }))
}

/// A message packed as `google.protobuf.Any`.
pub(crate) fn typed(kind: &str, message: Value) -> Value {
    let mut packed = json!({ "@type": format!("type.googleapis.com/{kind}") });
    if let (Value::Object(packed), Value::Object(fields)) = (&mut packed, message) {
        packed.extend(fields);
    }
    packed
}

/// Where a mounted file of resources is, and that the mount is to be watched: the kubelet replaces
/// the whole volume at once, so the file itself never changes. The path goes by `..data`, which the
/// kubelet swaps first: a new file's own link comes a moment later, and Envoy does not look twice.
pub(crate) fn path_config_source(directory: &str, file: &str) -> Value {
    json!({
        "resource_api_version": "V3",
        "path_config_source": {
            "path": format!("{directory}/..data/{file}"),
            "watched_directory": { "path": directory },
        }
    })
}

/// That the rest comes from the control plane, over the stream that all kinds of resources share.
/// Nobody is ready without a configuration, so the first one is waited for without limit.
pub(crate) fn aggregated_source() -> Value {
    json!({ "resource_api_version": "V3", "initial_fetch_timeout": "0s", "ads": {} })
}

pub(crate) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
