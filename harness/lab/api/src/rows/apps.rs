//! The apps and batch groups.

use serde_json::{Value, json};

use super::pod;
use crate::meta::{fill, is_hollow, label_pairs, map_at, text, without};
use crate::registry::Admit;
use crate::selector::label_selector_matches;
use crate::status::{Cause, Status};
use crate::table::labels_or_none;

type Columns = &'static [(&'static str, i64, fn(&Value) -> Value)];

fn spec_of(object: &mut Value) -> &mut Value {
    map_at(object, "spec");
    &mut object["spec"]
}

pub(super) fn default_template(spec: &mut Value) {
    if let Some(template) = spec.get_mut("template") {
        pod::default_spec(&mut template["spec"]);
    }
}

/// The zero value that a client's empty status or labels become.
fn tidy(spec: &mut Value) {
    if let Some(metadata) = spec
        .pointer_mut("/template/metadata")
        .and_then(Value::as_object_mut)
        && metadata.is_empty()
    {
        metadata.insert("creationTimestamp".into(), Value::Null);
    }
}

pub(super) fn default_deployment(object: &mut Value) {
    let spec = spec_of(object);
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    fill(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    fill(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(strategy, "rollingUpdate", json!({}));
        fill(&mut strategy["rollingUpdate"], "maxSurge", "25%");
        fill(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
    }
    default_template(spec);
    tidy(spec);
}

/// The counts of a status that are shown when they are 0, too.
pub(super) fn zeros(object: &mut Value, counts: &[&str]) {
    map_at(object, "status");
    for count in counts {
        fill(&mut object["status"], count, 0);
    }
}

pub(super) fn default_replica_set(object: &mut Value) {
    let spec = spec_of(object);
    fill(spec, "replicas", 1);
    default_template(spec);
    zeros(object, &["replicas"]);
}

pub(super) fn default_daemon_set(object: &mut Value) {
    let spec = spec_of(object);
    fill(spec, "revisionHistoryLimit", 10);
    fill(
        spec,
        "updateStrategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
    );
    default_template(spec);
    zeros(
        object,
        &[
            "currentNumberScheduled",
            "desiredNumberScheduled",
            "numberMisscheduled",
            "numberReady",
        ],
    );
}

pub(super) fn default_stateful_set(object: &mut Value) {
    let spec = spec_of(object);
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "podManagementPolicy", "OrderedReady");
    fill(
        spec,
        "updateStrategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
    );
    default_template(spec);
    zeros(object, &["replicas"]);
}

/// A selector that selects its own template, and does not change.
pub(super) fn validate(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let selector = new.pointer("/spec/selector").cloned().unwrap_or_default();
    let empty = |field: &str| {
        selector.get(field).is_none_or(|value| {
            value.as_object().is_none_or(serde_json::Map::is_empty)
                && value.as_array().is_none_or(Vec::is_empty)
        })
    };
    if empty("matchLabels") && empty("matchExpressions") {
        causes.push(Cause::required("spec.selector", ""));
        causes.push(Cause::invalid(
            "spec.selector",
            &json!({}),
            "empty selector is invalid for deployment",
        ));
    } else if !label_selector_matches(&selector, new.pointer("/spec/template/metadata/labels")) {
        let labels = new
            .pointer("/spec/template/metadata/labels")
            .cloned()
            .unwrap_or_else(|| json!({}));
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &labels,
            "`selector` does not match template `labels`",
        ));
    }
    if let Some(old) = old
        && old.pointer("/spec/selector") != new.pointer("/spec/selector")
    {
        causes.push(Cause::invalid(
            "spec.selector",
            &selector,
            "field is immutable",
        ));
    }
    if new
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .is_some_and(|count| count < 0)
    {
        causes.push(Cause::invalid(
            "spec.replicas",
            &new["spec"]["replicas"],
            "must be greater than or equal to 0",
        ));
    }
    let policy = text(new, "/spec/template/spec/restartPolicy");
    if policy != "Always" {
        causes.push(Cause::unsupported(
            "spec.template.spec.restartPolicy",
            &policy.into(),
            &["Always"],
        ));
    }
    pod::validate_spec(
        &new["spec"]["template"]["spec"],
        "spec.template.spec",
        causes,
    );
}

pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

pub(super) fn validate_stateful_set(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if let Some(old) = old {
        let rest = |set: &Value| {
            let changeable = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ];
            without(&set["spec"], &changeable)
        };
        if rest(old) != rest(new) {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            causes.push(Cause::forbidden("spec", why));
            return;
        }
    }
    validate(new, old, causes);
}

/// The count of a DaemonSet's templates, that old clients read.
pub(super) fn admit_daemon_set(admit: &mut Admit<'_>) -> Result<(), Status> {
    const GENERATION: &str = "deprecated.daemonset.template.generation";
    let pointer = format!("/metadata/annotations/{GENERATION}");
    let before = admit
        .old
        .map_or(0, |old| text(old, &pointer).parse().unwrap_or(0));
    let changed = admit
        .old
        .is_none_or(|old| old["spec"]["template"] != admit.new["spec"]["template"]);
    let count: i64 = before + i64::from(changed);
    let metadata = map_at(admit.new, "metadata");
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    annotations[GENERATION] = count.to_string().into();
    Ok(())
}

pub(super) fn default_replication_controller(object: &mut Value) {
    let spec = spec_of(object);
    fill(spec, "replicas", 1);
    default_template(spec);
    zeros(object, &["replicas"]);
    // What it does not select by or is not labelled with, it takes from its template.
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    if let Some(labels) = labels.filter(|labels| !is_hollow(labels)) {
        fill(&mut object["spec"], "selector", labels.clone());
        fill(&mut object["metadata"], "labels", labels);
    }
}

fn ready(object: &Value) -> Value {
    format!(
        "{}/{}",
        number(object, "/status/readyReplicas"),
        number(object, "/spec/replicas")
    )
    .into()
}

pub(super) fn containers(object: &Value, field: &str) -> Value {
    let names: Vec<&str> = crate::meta::items(object, "/spec/template/spec/containers")
        .map(|one| text(one, field))
        .collect();
    names.join(",").into()
}

pub(super) fn selector(object: &Value) -> Value {
    label_pairs(object.pointer("/spec/selector/matchLabels")).into()
}

pub(super) const DEPLOYMENT: Columns = &[
    ("Ready", 0, ready),
    ("Up-to-date", 0, |object| {
        number(object, "/status/updatedReplicas").into()
    }),
    ("Available", 0, |object| {
        number(object, "/status/availableReplicas").into()
    }),
    ("Age", 0, crate::table::age),
    ("Containers", 1, |object| containers(object, "/name")),
    ("Images", 1, |object| containers(object, "/image")),
    ("Selector", 1, selector),
];

pub(super) const REPLICA_SET: Columns = &[
    ("Desired", 0, |object| {
        number(object, "/spec/replicas").into()
    }),
    ("Current", 0, |object| {
        number(object, "/status/replicas").into()
    }),
    ("Ready", 0, |object| {
        number(object, "/status/readyReplicas").into()
    }),
    ("Age", 0, crate::table::age),
    ("Containers", 1, |object| containers(object, "/name")),
    ("Images", 1, |object| containers(object, "/image")),
    ("Selector", 1, selector),
];

pub(super) const DAEMON_SET: Columns = &[
    ("Desired", 0, |object| {
        number(object, "/status/desiredNumberScheduled").into()
    }),
    ("Current", 0, |object| {
        number(object, "/status/currentNumberScheduled").into()
    }),
    ("Ready", 0, |object| {
        number(object, "/status/numberReady").into()
    }),
    ("Up-to-date", 0, |object| {
        number(object, "/status/updatedNumberScheduled").into()
    }),
    ("Available", 0, |object| {
        number(object, "/status/numberAvailable").into()
    }),
    ("Node Selector", 0, |object| {
        labels_or_none(object, "/spec/template/spec/nodeSelector")
    }),
    ("Age", 0, crate::table::age),
    ("Containers", 1, |object| containers(object, "/name")),
    ("Images", 1, |object| containers(object, "/image")),
    ("Selector", 1, selector),
];

pub(super) const STATEFUL_SET: Columns = &[
    ("Ready", 0, ready),
    ("Age", 0, crate::table::age),
    ("Containers", 1, |object| containers(object, "/name")),
    ("Images", 1, |object| containers(object, "/image")),
];

pub(super) const REPLICATION_CONTROLLER: Columns = &[
    ("Desired", 0, |object| {
        number(object, "/spec/replicas").into()
    }),
    ("Current", 0, |object| {
        number(object, "/status/replicas").into()
    }),
    ("Ready", 0, |object| {
        number(object, "/status/readyReplicas").into()
    }),
    ("Age", 0, crate::table::age),
    ("Containers", 1, |object| containers(object, "/name")),
    ("Images", 1, |object| containers(object, "/image")),
];

pub(super) const REVISION: Columns = &[
    ("Controller", 0, |revision| {
        let owner = crate::meta::items(revision, "/metadata/ownerReferences")
            .find(|owner| owner["controller"] == true);
        match owner {
            Some(owner) => format!(
                "{}/{}",
                text(owner, "/kind").to_lowercase(),
                text(owner, "/name")
            )
            .into(),
            None => "<none>".into(),
        }
    }),
    ("Revision", 0, |revision| revision["revision"].clone()),
];
