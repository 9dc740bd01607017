//! The kinds under test, as the API reference describes them.
//!
//! Start from [`Kind`]. Only what the steps touch is told here; what the server fills in by itself is
//! listed in [`Kind::filled_in`], and anything else that it adds is a failure.

use serde_json::{Value, json};

use crate::op::{Content, Edit};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Service,
    Deployment,
    Pod,
    /// A custom kind: `things.model.strata.dev`.
    Thing,
}

pub(crate) const ALL: [Kind; 5] = [
    Kind::ConfigMap,
    Kind::Service,
    Kind::Deployment,
    Kind::Pod,
    Kind::Thing,
];

/// How a list merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    Atomic,
    Set,
    Keyed(&'static [&'static str]),
}

/// Whether a field that the server fills in is a default, which the writer then manages, or is
/// allocated or admitted, which nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    Default,
    Allocated,
}

pub(crate) const GROUP: &str = "model.strata.dev";

const LABELS: [Option<&str>; 3] = [None, Some("x"), Some("y")];
const FINALIZERS: [&str; 2] = ["model.strata.dev/a", "model.strata.dev/b"];

pub(crate) fn label(number: u8) -> Option<&'static str> {
    LABELS[usize::from(number)]
}

/// The items of a list that two bits choose.
fn chosen(bits: u8, items: [Value; 2]) -> Value {
    let items = items.into_iter().enumerate();
    items
        .filter(|(at, _)| bits & (1 << at) != 0)
        .map(|(_, item)| item)
        .collect()
}

fn some(number: u8, value: Value) -> Option<Value> {
    (number > 0).then_some(value)
}

/// A field's place and its new value, or none where it goes.
pub(crate) type Assignment = (&'static str, Option<Value>);

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::Pod => "Pod",
            Self::Thing => "Thing",
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Service => "services",
            Self::Deployment => "deployments",
            Self::Pod => "pods",
            Self::Thing => "things",
        }
    }

    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::Deployment => "apps/v1",
            Self::Thing => "model.strata.dev/v1",
            _ => "v1",
        }
    }

    pub(crate) fn is_custom(self) -> bool {
        self == Self::Thing
    }

    pub(crate) fn has_status(self) -> bool {
        self != Self::ConfigMap
    }

    pub(crate) fn has_scale(self) -> bool {
        self == Self::Deployment
    }

    pub(crate) fn has_generation(self) -> bool {
        matches!(self, Self::Deployment | Self::Pod | Self::Thing)
    }

    /// A `PUT` without a version overwrites.
    pub(crate) fn takes_any_version(self) -> bool {
        !self.is_custom()
    }

    /// A `PUT` of what is not there creates it; a Service since its registry is the common one, in 1.23.
    pub(crate) fn is_made_by_put(self, minor: u32) -> bool {
        self == Self::Service && minor >= 23
    }

    /// Deleted by steps: it is given time.
    pub(crate) fn is_graceful(self) -> bool {
        self == Self::Pod
    }

    pub(crate) fn list(self, path: &str) -> List {
        match (self, path) {
            (_, "metadata.finalizers") => List::Set,
            (Self::Service, "spec.ports") => List::Keyed(&["port", "protocol"]),
            (Self::Service, "status.conditions") => List::Keyed(&["type"]),
            (Self::Deployment, "spec.template.spec.containers")
            | (Self::Pod, "spec.containers") => List::Keyed(&["name"]),
            (Self::Thing, "spec.items") => List::Keyed(&["name"]),
            (Self::Thing, "spec.tags") => List::Set,
            _ => List::Atomic,
        }
    }

    /// The key by which a strategic merge patch tells items apart.
    pub(crate) fn patch_key(self, path: &str) -> Option<&'static str> {
        match self.list(path) {
            List::Keyed(keys) => Some(keys[0]),
            _ => None,
        }
    }

    pub(crate) fn is_atomic(self, path: &str) -> bool {
        matches!(
            (self, path),
            (Self::Service | Self::Deployment, "spec.selector")
        )
    }

    /// What the server may fill in at a place (`*` for any item).
    pub(crate) fn filled_in(self, path: &str) -> Option<Filled> {
        use Filled::{Allocated, Default};
        let container = |rest: &str| {
            let defaults = [
                "imagePullPolicy",
                "resources",
                "terminationMessagePath",
                "terminationMessagePolicy",
            ];
            defaults.contains(&rest).then_some(Default)
        };
        let pod = |rest: &str| match rest {
            "dnsPolicy"
            | "restartPolicy"
            | "schedulerName"
            | "securityContext"
            | "enableServiceLinks"
            | "terminationGracePeriodSeconds" => Some(Default),
            "serviceAccount" | "serviceAccountName" | "tolerations" | "priority"
            | "preemptionPolicy" => Some(Allocated),
            _ => container(rest.strip_prefix("containers.*.")?),
        };
        match self {
            Self::ConfigMap => None,
            Self::Service => match path {
                "spec.sessionAffinity"
                | "spec.type"
                | "spec.internalTrafficPolicy"
                | "spec.ports.*.targetPort"
                | "spec.ports.*.protocol"
                | "status"
                | "status.loadBalancer" => Some(Default),
                "spec.clusterIP"
                | "spec.clusterIPs"
                | "spec.ipFamilies"
                | "spec.ipFamilyPolicy" => Some(Allocated),
                _ => None,
            },
            Self::Deployment => match path {
                "spec.replicas"
                | "spec.strategy"
                | "spec.revisionHistoryLimit"
                | "spec.progressDeadlineSeconds"
                | "status" => Some(Default),
                _ => pod(path.strip_prefix("spec.template.spec.")?),
            },
            Self::Pod => match path {
                "status" | "status.phase" | "status.qosClass" => Some(Allocated),
                _ => pod(path.strip_prefix("spec.")?),
            },
            Self::Thing => (path == "spec.flavor").then_some(Default),
        }
    }

    /// A container that says not what it runs.
    pub(crate) fn lacks_image(self, object: &Value) -> bool {
        let containers = match self {
            Self::Pod => object.pointer("/spec/containers"),
            _ => object.pointer("/spec/template/spec/containers"),
        };
        let mut items = containers.and_then(Value::as_array).into_iter().flatten();
        items.any(|container| container.get("image").is_none())
    }

    /// What an object is to field management before it is made: its type's fields that are always there.
    pub(crate) fn blank(self) -> Value {
        match self {
            Self::ConfigMap => json!({"metadata": {}}),
            Self::Service => json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}),
            Self::Deployment => json!({
                "metadata": {}, "status": {},
                "spec": {"selector": null, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": null}}},
            }),
            Self::Pod => json!({"metadata": {}, "spec": {"containers": null}, "status": {}}),
            Self::Thing => json!({"metadata": {}}),
        }
    }

    /// The whole of an object, as a person would write it.
    pub(crate) fn object(self, name: &str, content: &Content) -> Value {
        let mut object = json!({"apiVersion": self.api_version(), "kind": self.name(), "metadata": {"name": name}});
        match self {
            Self::ConfigMap => {}
            Self::Service => {
                object["spec"] = json!({"selector": {"app": "x"}, "type": "ClusterIP"})
            }
            Self::Deployment => {
                let labels = json!({"app": "x"});
                object["spec"] = json!({
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {}},
                });
            }
            // The second is bound to a node, so that its deletion waits for a kubelet.
            Self::Pod => {
                object["spec"] =
                    json!({"schedulerName": "nobody", "automountServiceAccountToken": false});
                if name.ends_with('1') {
                    object["spec"]["nodeName"] = "nowhere".into();
                }
            }
            Self::Thing => object["spec"] = json!({"order": ["b", "a"]}),
        }
        for edit in Self::edits(content) {
            for (pointer, value) in self.assignments(edit) {
                if let Some(value) = value {
                    put(&mut object, pointer, value);
                }
            }
        }
        if content.bad {
            let (pointer, value) = match self {
                Self::ConfigMap => ("/data/not a key", json!("v")),
                Self::Service => ("/spec/ports/0/port", json!(70000)),
                Self::Deployment => ("/spec/template/metadata/labels/app", json!("other")),
                Self::Pod => ("/spec/containers/0/name", json!("Not_a_name")),
                Self::Thing => ("/spec/size", json!(-1)),
            };
            put(&mut object, pointer, value);
        }
        object
    }

    /// The edits that make up a content.
    pub(crate) fn edits(content: &Content) -> [Edit; 6] {
        [
            Edit::Label(content.label),
            Edit::Note(content.note),
            Edit::Finalizers(content.finalizers),
            Edit::A(content.a),
            Edit::B(content.b),
            Edit::Items(content.items),
        ]
    }

    /// What an edit is to the fields of this kind.
    pub(crate) fn assignments(self, edit: Edit) -> Vec<Assignment> {
        let image = |name: &str, number: u8| json!({"name": name, "image": format!("local/image:{}", number + 1)});
        match (self, edit) {
            (_, Edit::Label(number)) => {
                vec![("/metadata/labels/l", label(number).map(Value::from))]
            }
            (_, Edit::Note(number)) => vec![(
                "/metadata/annotations/n",
                some(number, json!(number.to_string())),
            )],
            (_, Edit::Finalizers(bits)) => {
                let list = chosen(bits, FINALIZERS.map(Value::from));
                vec![("/metadata/finalizers", some(bits, list))]
            }
            (Self::ConfigMap, Edit::A(number)) => {
                vec![("/data/a", some(number, json!(number.to_string())))]
            }
            (Self::ConfigMap, Edit::B(number)) => {
                vec![("/data/b", some(number, json!(number.to_string())))]
            }
            (Self::ConfigMap, Edit::Items(number)) => {
                vec![("/data/c", some(number, json!(number.to_string())))]
            }
            (Self::Service, Edit::A(number)) => {
                vec![(
                    "/spec/publishNotReadyAddresses",
                    some(number & 1, json!(true)),
                )]
            }
            (Self::Service, Edit::B(_)) => vec![],
            (Self::Service, Edit::Items(bits)) => {
                let http =
                    json!({"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080});
                let dns = json!({"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53});
                vec![("/spec/ports", Some(chosen(bits.max(1), [http, dns])))]
            }
            (Self::Deployment, Edit::A(number)) => {
                vec![("/spec/replicas", some(number, json!(number)))]
            }
            (Self::Deployment, Edit::B(number)) => {
                vec![("/spec/minReadySeconds", some(number, json!(number)))]
            }
            (Self::Deployment, Edit::Items(bits)) => {
                let list = chosen(bits.max(1), [image("one", bits), image("two", 0)]);
                vec![("/spec/template/spec/containers", Some(list))]
            }
            (Self::Pod, Edit::A(_) | Edit::B(_)) => vec![],
            (Self::Pod, Edit::Items(number)) => {
                vec![("/spec/containers", Some(json!([image("one", number)])))]
            }
            (Self::Thing, Edit::A(number)) => vec![("/spec/size", some(number, json!(number)))],
            (Self::Thing, Edit::B(number)) => vec![
                ("/spec/mode", some(number & 1, json!("fast"))),
                ("/spec/tags", some(number & 2, json!(["t", "u"]))),
            ],
            (Self::Thing, Edit::Items(bits)) => {
                let list = chosen(
                    bits,
                    [
                        json!({"name": "i", "value": bits}),
                        json!({"name": "j", "value": 0}),
                    ],
                );
                vec![("/spec/items", some(bits, list))]
            }
        }
    }

    /// A status, by number.
    pub(crate) fn status(self, number: u8) -> Value {
        match self {
            Self::Deployment => json!({"replicas": number, "observedGeneration": number}),
            Self::Pod => json!({"phase": "Pending", "message": number.to_string()}),
            Self::Service => json!({"conditions": [{
                "type": "C", "status": "True", "reason": "R", "message": number.to_string(),
                "lastTransitionTime": "2020-01-01T00:00:00Z",
            }]}),
            Self::ConfigMap | Self::Thing => json!({"phase": number.to_string(), "count": number}),
        }
    }

    /// A write through `status` replaces the whole of it, but for what a type always has.
    pub(crate) fn tidy(self, object: &mut Value) {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|_, value| !is_hollow(value) && !value.is_null());
        }
        if let (false, Some(map)) = (self.is_custom(), object.as_object_mut()) {
            map.retain(|name, value| name != "data" || !is_hollow(value));
        }
    }
}

fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
}

/// Sets a value at a pointer, making the maps on the way.
pub(crate) fn put(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for part in pointer[1..].split('/') {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        };
    }
    *at = value;
}

/// The definition of [`Kind::Thing`].
pub(crate) fn definition() -> Value {
    let text = json!({"type": "string"});
    let count = json!({"type": "integer", "minimum": 0});
    let item = json!({"type": "object", "required": ["name"], "properties": {"name": text, "value": count}});
    let spec = json!({
        "size": count, "mode": {"type": "string", "enum": ["fast", "slow"]},
        "flavor": {"type": "string", "default": "plain"},
        "order": {"type": "array", "items": text},
        "tags": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
        "items": {
            "type": "array", "items": item,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        },
    });
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": spec},
        "status": {"type": "object", "properties": {"phase": text, "count": count}},
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}},
            }],
        },
    })
}
