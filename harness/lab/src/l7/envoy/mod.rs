//! Envoy's v3 configuration, as JSON.
//!
//! Start from [`Snapshot`]: what one kind of proxy is told, and the files it reads it from. The
//! builders beside it cover the fields that the translators need, under Envoy's own names; what
//! they mean is Envoy's documentation's to say. Rule: equal input gives equal bytes, so that an
//! update that changes nothing is no update.
//!
//! Endpoints stand in their cluster (`type: STATIC`), not in an EDS file: Envoy opens an inotify
//! instance for each file subscription, Linux grants a user 128 of them, and one for each cluster
//! of each sidecar would use them up. Envoy swaps a changed cluster for the new one and lets
//! requests under way finish; listeners and their connections are not touched.

pub(crate) mod bootstrap;
pub(crate) mod cluster;
pub(crate) mod listener;
#[cfg(test)]
pub(crate) mod live;
pub(crate) mod route;
#[cfg(test)]
pub(crate) mod validate;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The port that answers `GET /healthz/ready` with 200 once the first configuration is in force.
pub(crate) const READY_PORT: u16 = 15021;

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

impl Snapshot {
    /// The files that go into the proxy's ConfigMap, by name. Secrets are not among them.
    pub(crate) fn files(&self, bootstrap: &Value) -> BTreeMap<String, String> {
        let mut files = BTreeMap::from([
            ("bootstrap.json".to_owned(), pretty(bootstrap)),
            (
                "lds.json".to_owned(),
                discovery_response("envoy.config.listener.v3.Listener", &self.listeners),
            ),
            (
                "cds.json".to_owned(),
                discovery_response("envoy.config.cluster.v3.Cluster", &self.clusters),
            ),
        ]);
        files.extend(each_its_file(
            routes_file,
            "envoy.config.route.v3.RouteConfiguration",
            &self.routes,
        ));
        files
    }

    /// The files that go into the proxy's Secret.
    pub(crate) fn secret_files(&self) -> BTreeMap<String, String> {
        each_its_file(
            secret_file,
            "envoy.extensions.transport_sockets.tls.v3.Secret",
            &self.secrets,
        )
    }
}

/// A route configuration's and a secret's subscription takes a response of exactly one resource, so
/// each has a file of its own.
fn each_its_file(
    file_of: fn(&str) -> String,
    kind: &str,
    resources: &[Value],
) -> BTreeMap<String, String> {
    resources
        .iter()
        .map(|resource| {
            let name = resource["name"].as_str().unwrap_or_default();
            let response = discovery_response(kind, std::slice::from_ref(resource));
            (file_of(name), response)
        })
        .collect()
}

/// The file of a route configuration.
pub(crate) fn routes_file(name: &str) -> String {
    format!("rds.{}.json", as_key(name))
}

/// The file of a secret.
pub(crate) fn secret_file(name: &str) -> String {
    format!("sds.{}.json", as_key(name))
}

/// A name as a key of a ConfigMap. Names are `namespace/name` or plain, and namespaces have no dots, so
/// no two become one.
fn as_key(name: &str) -> String {
    name.replace('/', ".")
}

/// A file of resources, as Envoy's file subscriptions read it.
fn discovery_response(kind: &str, resources: &[Value]) -> String {
    let typed: Vec<Value> = resources
        .iter()
        .map(|resource| typed(kind, resource.clone()))
        .collect();
    let text = serde_json::to_string(&typed).unwrap_or_default();
    pretty(&json!({ "version_info": fingerprint(&text), "resources": typed }))
}

/// A short name for a text: the first twelve hexadecimal digits of its SHA-256.
pub(crate) fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
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

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
