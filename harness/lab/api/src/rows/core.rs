//! The core group, but for pods and Services.

use serde_json::{Value, json};

use super::names;
use crate::meta::{fill, is_hollow, items, map_at, text};
use crate::status::Cause;
use crate::table::or_none;

type Columns = &'static [(&'static str, i64, fn(&Value) -> Value)];

/// Active, with the finalizer that the namespace controller takes away.
pub(super) fn default_namespace(object: &mut Value) {
    let name = text(object, "/metadata/name").to_owned();
    let metadata = map_at(object, "metadata");
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    fill(labels, "kubernetes.io/metadata.name", name);
    map_at(object, "spec")
        .entry("finalizers")
        .or_insert_with(|| json!(["kubernetes"]));
    map_at(object, "status")
        .entry("phase")
        .or_insert_with(|| "Active".into());
}

pub(super) fn validate_namespace(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if old.is_none() {
        names::label("metadata.name", text(new, "/metadata/name"), causes);
    }
}

/// Empty maps are left out.
pub(super) fn default_config_map(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.retain(|name, value| {
            !matches!(name.as_str(), "data" | "binaryData") || !is_hollow(value)
        });
    }
}

/// `stringData` is written into `data`.
pub(super) fn default_secret(object: &mut Value) {
    use base64::Engine as _;
    fill(object, "type", "Opaque");
    let Some(Value::Object(plain)) = object
        .as_object_mut()
        .and_then(|map| map.remove("stringData"))
    else {
        return;
    };
    let data = map_at(object, "data");
    for (name, value) in plain {
        let encoded =
            base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(name, encoded.into());
    }
}

/// Objects marked immutable stay as they are.
pub(super) fn validate_immutable(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if let Some(old) = old.filter(|old| old.get("immutable") == Some(&Value::Bool(true)))
        && (old.get("data") != new.get("data") || new.get("immutable") != Some(&Value::Bool(true)))
    {
        causes.push(Cause::forbidden(
            "data",
            "field is immutable when `immutable` is set",
        ));
    }
}

pub(super) fn validate_config_map(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    for field in ["data", "binaryData"] {
        validate_keys(new, field, causes);
    }
    validate_immutable(new, old, causes);
}

/// The keys of ConfigMaps and Secrets can be files' names (apimachinery's `IsConfigMapKey`).
fn validate_keys(object: &Value, field: &str, causes: &mut Vec<Cause>) {
    let keys = object.get(field).and_then(Value::as_object);
    for key in keys.into_iter().flat_map(serde_json::Map::keys) {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let mut refuse = |why: &str| {
            causes.push(Cause::invalid(
                format!("{field}[{key}]"),
                &key.as_str().into(),
                why,
            ));
        };
        if key.len() > 253 {
            refuse("must be no more than 253 characters");
        }
        if key.is_empty() || !key.bytes().all(good) {
            refuse(
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            );
        }
        if key == "." {
            refuse("must not be '.'");
        } else if key == ".." {
            refuse("must not be '..'");
        } else if key.starts_with("..") {
            refuse("must not start with '..'");
        }
    }
}

pub(super) fn validate_secret(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    validate_keys(new, "data", causes);
    validate_immutable(new, old, causes);
    let kind = text(new, "/type");
    if old.is_some_and(|old| old["type"] != new["type"]) {
        causes.push(Cause::invalid("type", &kind.into(), "field is immutable"));
    }
    let needed: &[&str] = match kind {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for name in needed {
        if new.get("data").and_then(|data| data.get(name)).is_none() {
            causes.push(Cause::required(format!("data[{name}]"), ""));
        }
    }
}

fn count(object: &Value, field: &str) -> Value {
    object
        .get(field)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
        .into()
}

fn node_status(object: &Value) -> Value {
    let ready = items(object, "/status/conditions")
        .find(|one| one["type"] == "Ready")
        .map(|one| text(one, "/status"));
    let mut status = match ready {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn node_roles(object: &Value) -> Value {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    if roles.is_empty() {
        "<none>".into()
    } else {
        roles.join(",").into()
    }
}

fn node_address(object: &Value, kind: &str) -> Value {
    items(object, "/status/addresses")
        .find(|one| one["type"] == kind)
        .map_or_else(|| "<none>".into(), |one| one["address"].clone())
}

pub(super) const NODE: Columns = &[
    ("Status", 0, node_status),
    ("Roles", 0, node_roles),
    ("Age", 0, crate::table::age),
    ("Version", 0, |node| {
        or_none(node, "/status/nodeInfo/kubeletVersion")
    }),
    ("Internal-IP", 1, |node| node_address(node, "InternalIP")),
    ("External-IP", 1, |node| node_address(node, "ExternalIP")),
    ("OS-Image", 1, |node| {
        or_none(node, "/status/nodeInfo/osImage")
    }),
    ("Kernel-Version", 1, |node| {
        or_none(node, "/status/nodeInfo/kernelVersion")
    }),
    ("Container-Runtime", 1, |node| {
        or_none(node, "/status/nodeInfo/containerRuntimeVersion")
    }),
];

pub(super) const NAMESPACE: Columns = &[("Status", 0, |object| {
    object.pointer("/status/phase").cloned().unwrap_or_default()
})];

pub(super) const CONFIG_MAP: Columns = &[("Data", 0, |object| count(object, "data"))];

pub(super) const SECRET: Columns = &[
    ("Type", 0, |object| object["type"].clone()),
    ("Data", 0, |object| count(object, "data")),
];

pub(super) const ENDPOINTS: Columns = &[("Endpoints", 0, |object| {
    let pairs: Vec<String> = items(object, "/subsets")
        .flat_map(|subset| {
            items(subset, "/addresses").flat_map(move |address| {
                items(subset, "/ports")
                    .map(move |port| format!("{}:{}", text(address, "/ip"), port["port"]))
            })
        })
        .collect();
    match pairs.len() {
        0 => "<none>".into(),
        1..=3 => pairs.join(",").into(),
        more => format!("{} + {} more...", pairs[..3].join(","), more - 3).into(),
    }
})];

pub(super) const SERVICE_ACCOUNT: Columns = &[("Secrets", 0, |account| {
    items(account, "/secrets").count().into()
})];

pub(super) const LEASE: Columns = &[("Holder", 0, |lease| {
    text(lease, "/spec/holderIdentity").into()
})];

pub(super) const RUNTIME_CLASS: Columns = &[("Handler", 0, |class| class["handler"].clone())];
