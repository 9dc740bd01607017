//! How the lists and maps of a kind merge: by key, as a set, or not at all.
//!
//! Start from [`Schema::at`] and [`Merge`]. Built-in kinds answer from a table by field name, after
//! the `x-kubernetes-*` markers of Kubernetes' OpenAPI; custom kinds from their own schema.

use std::sync::Arc;

use serde_json::Value;

/// What is known of a value's type.
#[derive(Debug, Clone)]
pub(crate) enum Schema {
    /// A built-in kind.
    Builtin,
    /// A custom kind's `openAPIV3Schema`.
    Custom(Arc<Value>),
}

/// How a list or map merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Merge {
    /// A map, field by field.
    Fields,
    /// A list of maps, told apart by these fields.
    Keys(Vec<String>),
    /// A list of distinct scalars.
    Set,
    /// As a whole.
    Atomic,
}

/// A place within an object.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    schema: Option<&'a Value>,
    builtin: bool,
    parent: &'a str,
    field: &'a str,
}

impl Schema {
    /// The object itself.
    pub(crate) fn root(&self) -> Place<'_> {
        match self {
            Self::Builtin => Place {
                schema: None,
                builtin: true,
                parent: "",
                field: "",
            },
            Self::Custom(schema) => Place {
                schema: Some(schema),
                builtin: false,
                parent: "",
                field: "",
            },
        }
    }
}

/// The fields of built-in kinds that are there before anything is said of them, by the field they are in:
/// structures, and lists that may not be left out. What is in them is new; they are not.
const ALWAYS: &[(&str, &[&str])] = &[
    ("", &["metadata", "spec", "status"]),
    (
        "spec",
        &[
            "containers",
            "jobTemplate",
            "names",
            "podSelector",
            "selector",
            "strategy",
            "template",
            "updateStrategy",
        ],
    ),
    ("template", &["metadata", "spec"]),
    ("jobTemplate", &["metadata", "spec"]),
    ("status", &["loadBalancer"]),
];

impl Schema {
    /// What an object is to the management of fields before it is made.
    pub(crate) fn blank(&self, new: &Value) -> Value {
        match self {
            Self::Builtin => blank_in("", new),
            Self::Custom(_) => serde_json::json!({}),
        }
    }
}

fn blank_in(field: &str, new: &Value) -> Value {
    let Some((_, names)) = ALWAYS.iter().find(|(parent, _)| *parent == field) else {
        return Value::Null;
    };
    let names = names.iter().filter_map(|name| {
        let inner = new.get(name)?;
        Some(((*name).to_owned(), blank_in(name, inner)))
    });
    Value::Object(names.collect())
}

impl<'a> Place<'a> {
    /// A field of the map here.
    pub(crate) fn field(self, name: &'a str) -> Self {
        // Metadata is the same for all kinds.
        if self.field.is_empty() && name == "metadata" {
            return Place {
                schema: None,
                builtin: true,
                parent: "",
                field: "metadata",
            };
        }
        let schema = self.schema.and_then(|schema| {
            schema
                .get("properties")
                .and_then(|properties| properties.get(name))
                .or_else(|| schema.get("additionalProperties"))
        });
        Place {
            schema,
            builtin: self.builtin,
            parent: self.field,
            field: name,
        }
    }

    /// An item of the list here.
    pub(crate) fn item(self) -> Self {
        Place {
            schema: self.schema.and_then(|schema| schema.get("items")),
            ..self
        }
    }

    /// How the value here merges.
    pub(crate) fn merge(self, value: &Value) -> Merge {
        match value {
            Value::Object(_) => self.map(),
            Value::Array(items) => self.list(items),
            _ => Merge::Atomic,
        }
    }

    fn map(self) -> Merge {
        let atomic = if self.builtin {
            matches!(
                self.field,
                "selector"
                    | "nodeSelector"
                    | "fieldRef"
                    | "resourceFieldRef"
                    | "secretRef"
                    | "labelSelector"
                    | "objectSelector"
                    | "namespaceSelector"
                    | "podSelector"
                    | "nodeAffinity"
                    | "claimRef"
                    | "targetRef"
            )
        } else {
            self.schema
                .and_then(|schema| schema.get("x-kubernetes-map-type"))
                .is_some_and(|kind| kind == "atomic")
        };
        if atomic { Merge::Atomic } else { Merge::Fields }
    }

    fn list(self, items: &[Value]) -> Merge {
        if !self.builtin {
            let marker = |name| self.schema.and_then(|schema| schema.get(name));
            return match marker("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => Merge::Set,
                Some("map") => Merge::Keys(
                    marker("x-kubernetes-list-map-keys")
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten()
                        .filter_map(|key| key.as_str().map(str::to_owned))
                        .collect(),
                ),
                _ => Merge::Atomic,
            };
        }
        match self.list_type(true) {
            Some(("set", _)) => Merge::Set,
            // A list whose items do not have the key is a whole (an EndpointSlice's `addresses`).
            Some((_, keys))
                if items
                    .iter()
                    .all(|item| item.is_object() && item.get(keys[0]).is_some()) =>
            {
                Merge::Keys(keys.iter().map(|&key| key.to_owned()).collect())
            }
            _ => Merge::Atomic,
        }
    }

    /// The `x-kubernetes-list-type` of a built-in kind's list, and its keys; none if it is atomic.
    pub(crate) fn list_type(
        self,
        of_objects: bool,
    ) -> Option<(&'static str, &'static [&'static str])> {
        let keys: &[&str] = match (self.parent, self.field) {
            ("metadata", "finalizers") => return Some(("set", &[])),
            ("metadata", "ownerReferences") => &["uid"],
            (
                _,
                "containers"
                | "initContainers"
                | "ephemeralContainers"
                | "volumes"
                | "imagePullSecrets"
                | "env"
                | "webhooks"
                | "secrets"
                | "resourceClaims",
            ) => &["name"],
            (_, "volumeMounts") => &["mountPath"],
            (_, "volumeDevices") => &["devicePath"],
            (_, "hostAliases" | "podIPs" | "hostIPs") => &["ip"],
            (_, "conditions" | "addresses") => &["type"],
            (_, "topologySpreadConstraints") => &["topologyKey", "whenUnsatisfiable"],
            ("containers" | "initContainers" | "ephemeralContainers", "ports") => {
                &["containerPort", "protocol"]
            }
            ("spec", "ports") => &["port", "protocol"],
            _ => return None,
        };
        // An EndpointSlice's `addresses` are strings.
        of_objects.then_some(("map", keys))
    }
}

/// The defaults of merge keys that may be left out.
fn default_of(key: &str) -> Value {
    if key == "protocol" {
        Value::from("TCP")
    } else {
        Value::Null
    }
}

/// The key of a list's item, as JSON: `{"name":"web"}`.
pub(crate) fn key_of(item: &Value, keys: &[String]) -> String {
    let key: serde_json::Map<String, Value> = keys
        .iter()
        .map(|key| {
            (
                key.clone(),
                item.get(key).cloned().unwrap_or_else(|| default_of(key)),
            )
        })
        .filter(|(_, value)| !value.is_null())
        .collect();
    Value::Object(key).to_string()
}
