//! Quotas, limits, budgets, priorities, autoscalers and roles: kept and shown, enforced by nobody.

use serde_json::{Value, json};

use crate::meta::{fill, items, map_at, text};
use crate::registry::ColumnRow;
use crate::status::Cause;
use crate::table::{age, created, or_none};

pub(super) fn default_limits(object: &mut Value) {
    let limits = object
        .pointer_mut("/spec/limits")
        .and_then(Value::as_array_mut);
    for limit in limits.into_iter().flatten() {
        // Only containers have defaults: what they may use, else what is asked for them.
        if limit["type"] != "Container" {
            continue;
        }
        let max = limit.get("max").cloned().unwrap_or_else(|| json!({}));
        for (name, value) in max.as_object().into_iter().flatten() {
            let standard = map_at(limit, "default");
            standard.entry(name).or_insert_with(|| value.clone());
        }
        let standard = limit.get("default").cloned().unwrap_or_default();
        for (name, value) in standard.as_object().into_iter().flatten() {
            let request = map_at(limit, "defaultRequest");
            request.entry(name).or_insert_with(|| value.clone());
        }
    }
}

pub(super) fn default_priority(object: &mut Value) {
    fill(object, "preemptionPolicy", "PreemptLowerPriority");
}

pub(super) fn validate_priority(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let highest = 1_000_000_000;
    let name = text(new, "/metadata/name");
    if name.starts_with("system-") && !name.ends_with("-critical") {
        let why = "priority class names with 'system-' prefix are reserved for system use only";
        causes.push(Cause::forbidden("metadata.name", why));
    } else if !name.starts_with("system-")
        && new["value"].as_i64().is_some_and(|value| value > highest)
    {
        let why = format!("maximum allowed value of a user defined priority is {highest}");
        causes.push(Cause::forbidden("value", &why));
    }
    if old.is_some_and(|old| old["value"] != new["value"]) {
        causes.push(Cause::forbidden(
            "Value",
            "may not be changed in an update.",
        ));
    }
}

pub(super) fn default_budget(object: &mut Value) {
    let counts = [
        "currentHealthy",
        "desiredHealthy",
        "disruptionsAllowed",
        "expectedPods",
    ];
    super::apps::zeros(object, &counts);
}

/// A budget is kept by whole objects: at least, or at most.
pub(super) fn validate_budget(new: &Value, _: Option<&Value>, causes: &mut Vec<Cause>) {
    let has = |field: &str| new["spec"].get(field).is_some_and(|value| !value.is_null());
    if has("minAvailable") && has("maxUnavailable") {
        causes.push(Cause::invalid(
            "spec",
            &new["spec"],
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
}

/// In autoscaling/v1, before it is stored as autoscaling/v2.
pub(super) fn default_scaler_v1(object: &mut Value) {
    map_at(object, "spec");
    fill(&mut object["spec"], "minReplicas", 1);
    fill(&mut object["spec"], "targetCPUUtilizationPercentage", 80);
    map_at(object, "status");
    fill(&mut object["status"], "currentReplicas", 0);
    fill(&mut object["status"], "desiredReplicas", 0);
}

pub(super) fn default_scaler(object: &mut Value) {
    map_at(object, "spec");
    fill(&mut object["spec"], "minReplicas", 1);
    map_at(object, "status");
    let status = &mut object["status"];
    for (field, value) in [
        ("currentMetrics", Value::Null),
        ("desiredReplicas", 0.into()),
    ] {
        fill(status, field, value);
    }
    let utilization = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    fill(&mut object["spec"], "metrics", utilization);
}

/// autoscaling/v1 knows one metric: what the CPUs are used.
pub(super) fn scaler_to_v2(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(percentage) = spec.remove("targetCPUUtilizationPercentage") {
        spec.insert("metrics".to_owned(), json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percentage}}}]));
    }
}

pub(super) fn scaler_to_v1(object: &mut Value) {
    let percentage = items(object, "/spec/metrics")
        .find(|metric| text(metric, "/resource/name") == "cpu")
        .and_then(|metric| metric.pointer("/resource/target/averageUtilization"))
        .cloned();
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    spec.remove("metrics");
    spec.remove("behavior");
    if let Some(percentage) = percentage {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), percentage);
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentMetrics");
        status.remove("conditions");
        status.entry("currentReplicas").or_insert_with(|| 0.into());
    }
}

/// A binding is for one role for good (rbac/v1 `ValidateRoleBindingUpdate`).
pub(super) fn validate_binding(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if old.is_some_and(|old| old["roleRef"] != new["roleRef"]) {
        // The names of the API server's own type.
        let reference = &new["roleRef"];
        let shown = json!({"APIGroup": reference["apiGroup"], "Kind": reference["kind"], "Name": reference["name"]});
        causes.push(Cause::invalid("roleRef", &shown, "cannot change roleRef"));
    }
}

pub(super) fn default_binding(object: &mut Value) {
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        if subject["kind"] != "ServiceAccount" {
            fill(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
    if let Some(reference) = object.get_mut("roleRef") {
        fill(reference, "apiGroup", "rbac.authorization.k8s.io");
    }
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let names: Vec<String> = items(binding, "/subjects")
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| match text(subject, "/namespace") {
            "" => text(subject, "/name").to_owned(),
            namespace => format!("{namespace}/{}", text(subject, "/name")),
        })
        .collect();
    names.join(", ").into()
}

fn role_of(binding: &Value) -> Value {
    format!(
        "{}/{}",
        text(binding, "/roleRef/kind"),
        text(binding, "/roleRef/name")
    )
    .into()
}

pub(super) const BINDING: &[ColumnRow<'static>] = &[
    ("Role", 0, role_of),
    ("Age", 0, age),
    ("Users", 1, |binding| subjects(binding, "User")),
    ("Groups", 1, |binding| subjects(binding, "Group")),
    ("ServiceAccounts", 1, |binding| {
        subjects(binding, "ServiceAccount")
    }),
];

pub(super) const CREATED: &[ColumnRow<'static>] = &[("Created At", 0, created)];

fn value_or(object: &Value, pointer: &str, none: &str) -> Value {
    match object.pointer(pointer) {
        None | Some(Value::Null) => none.into(),
        Some(Value::String(text)) => text.as_str().into(),
        Some(other) => other.to_string().into(),
    }
}

pub(super) const BUDGET: &[ColumnRow<'static>] = &[
    ("Min Available", 0, |budget| {
        value_or(budget, "/spec/minAvailable", "N/A")
    }),
    ("Max Unavailable", 0, |budget| {
        value_or(budget, "/spec/maxUnavailable", "N/A")
    }),
    ("Allowed Disruptions", 0, |budget| {
        value_or(budget, "/status/disruptionsAllowed", "0")
    }),
    ("Age", 0, age),
];

pub(super) const PRIORITY: &[ColumnRow<'static>] = &[
    ("Value", 0, |class| class["value"].clone()),
    ("Global-Default", 0, |class| {
        (class.get("globalDefault") == Some(&true.into())).into()
    }),
    ("Age", 0, age),
    ("PreemptionPolicy", 0, |class| {
        or_none(class, "/preemptionPolicy")
    }),
];

fn targets(scaler: &Value) -> Value {
    let shown: Vec<String> = items(scaler, "/spec/metrics")
        .map(|metric| {
            let name = text(metric, "/resource/name");
            match metric.pointer("/resource/target/averageUtilization") {
                Some(wanted) => format!("{name}: <unknown>/{wanted}%"),
                None => format!(
                    "<unknown>/{}",
                    text(metric, "/resource/target/averageValue")
                ),
            }
        })
        .collect();
    if shown.is_empty() {
        "<none>".into()
    } else {
        shown.join(", ").into()
    }
}

pub(super) const SCALER: &[ColumnRow<'static>] = &[
    ("Reference", 0, |scaler| {
        let of = |field: &str| text(&scaler["spec"]["scaleTargetRef"], field);
        format!("{}/{}", of("/kind"), of("/name")).into()
    }),
    ("Targets", 0, targets),
    ("MinPods", 0, |scaler| {
        value_or(scaler, "/spec/minReplicas", "<unset>")
    }),
    ("MaxPods", 0, |scaler| scaler["spec"]["maxReplicas"].clone()),
    ("Replicas", 0, |scaler| {
        value_or(scaler, "/status/currentReplicas", "0")
    }),
    ("Age", 0, age),
];

fn used(quota: &Value, limits: bool) -> Value {
    let hard = quota.pointer("/status/hard").and_then(Value::as_object);
    let shown: Vec<String> = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = quota["status"]["used"][name].as_str().unwrap_or("0");
            format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
        })
        .collect();
    shown.join(", ").into()
}

pub(super) const QUOTA: &[ColumnRow<'static>] = &[
    ("Request", 0, |quota| used(quota, false)),
    ("Limit", 0, |quota| used(quota, true)),
    ("Age", 0, age),
];
