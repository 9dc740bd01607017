//! The batch group. Nothing runs a CronJob; what it would make is as `kubectl` shows it.

use serde_json::{Value, json};

use super::apps::{containers, default_template, number, selector};
use super::pod;
use crate::meta::{fill, items, map_at, text};
use crate::registry::{Admit, ColumnRow};
use crate::status::{Cause, Status};
use crate::table::{age, between, or_none, since};

fn default_spec(spec: &mut Value) {
    let unset = |spec: &Value, field: &str| spec.get(field).is_none_or(Value::is_null);
    // Without either, one pod is to end well; with parallelism alone, any of them may.
    if unset(spec, "completions") && unset(spec, "parallelism") {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    fill(spec, "backoffLimit", 6);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "podReplacementPolicy", "TerminatingOrFailed");
    default_template(spec);
}

pub(super) fn default_job(object: &mut Value) {
    map_at(object, "spec");
    default_spec(&mut object["spec"]);
}

/// A Job selects its pods by its own uid, unless its maker says that it knows better.
pub(super) fn admit_job(admit: &mut Admit<'_>) -> Result<(), Status> {
    if admit.old.is_some() || admit.new.pointer("/spec/manualSelector") == Some(&true.into()) {
        return Ok(());
    }
    let uid = text(admit.new, "/metadata/uid").to_owned();
    let name = admit.name.to_owned();
    let spec = map_at(admit.new, "spec");
    spec.insert(
        "selector".to_owned(),
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
    );
    let template = spec.entry("template").or_insert_with(|| json!({}));
    let metadata = map_at(template, "metadata");
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    for prefix in ["batch.kubernetes.io/", ""] {
        fill(labels, &format!("{prefix}controller-uid"), uid.clone());
        fill(labels, &format!("{prefix}job-name"), name.clone());
    }
    let labels = labels.clone();
    // A Job without labels takes those of its pods (batch/v1 `SetDefaults_Job`).
    let metadata = map_at(admit.new, "metadata");
    metadata.entry("labels").or_insert(labels);
    Ok(())
}

pub(super) fn validate_job(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    validate_template(new, "/spec", "spec", causes);
    let Some(old) = old else { return };
    for field in ["completions", "selector", "template", "completionMode"] {
        let before = old["spec"].get(field).cloned().unwrap_or_default();
        let after = new["spec"].get(field).cloned().unwrap_or_default();
        if before != after {
            causes.push(Cause::invalid(
                format!("spec.{field}"),
                &after,
                "field is immutable",
            ));
        }
    }
}

fn validate_template(object: &Value, pointer: &str, path: &str, causes: &mut Vec<Cause>) {
    let spec = object
        .pointer(&format!("{pointer}/template/spec"))
        .cloned()
        .unwrap_or_default();
    let policy = text(&spec, "/restartPolicy");
    if !matches!(policy, "OnFailure" | "Never") {
        causes.push(Cause::unsupported(
            format!("{path}.template.spec.restartPolicy"),
            &policy.into(),
            &["OnFailure", "Never"],
        ));
    }
    pod::validate_spec(&spec, &format!("{path}.template.spec"), causes);
}

pub(super) fn default_cron_job(object: &mut Value) {
    let spec = map_at(object, "spec");
    spec.entry("jobTemplate").or_insert_with(|| json!({}));
    let spec = &mut object["spec"];
    fill(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = spec.pointer_mut("/jobTemplate/spec/template/spec") {
        pod::default_spec(template);
    }
}

pub(super) fn validate_cron_job(new: &Value, _: Option<&Value>, causes: &mut Vec<Cause>) {
    let schedule = text(new, "/spec/schedule");
    let fields = schedule.split_whitespace().count();
    if schedule.is_empty() {
        causes.push(Cause::required("spec.schedule", ""));
    } else if !schedule.starts_with('@') && fields != 5 {
        let why = format!("expected exactly 5 fields, found {fields}: {schedule}");
        causes.push(Cause::invalid("spec.schedule", &schedule.into(), &why));
    }
    validate_template(
        new,
        "/spec/jobTemplate/spec",
        "spec.jobTemplate.spec",
        causes,
    );
}

fn state(job: &Value) -> Value {
    let is = |kind: &str| {
        items(job, "/status/conditions").any(|one| one["type"] == kind && one["status"] == "True")
    };
    let found = [
        "Complete",
        "Failed",
        "Suspended",
        "FailureTarget",
        "SuccessCriteriaMet",
    ]
    .into_iter()
    .find(|kind| is(kind));
    match found {
        Some(kind) => kind.into(),
        None if !job["metadata"]["deletionTimestamp"].is_null() => "Terminating".into(),
        None => "Running".into(),
    }
}

fn completions(job: &Value) -> Value {
    let done = number(job, "/status/succeeded");
    match job.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{done}/{wanted}").into(),
        None => match number(job, "/spec/parallelism") {
            1 => format!("{done}/1").into(),
            many => format!("{done}/1 of {many}").into(),
        },
    }
}

fn duration(job: &Value) -> Value {
    let time = |field: &str| job["status"].get(field).filter(|time| !time.is_null());
    match (time("startTime"), time("completionTime")) {
        (None, _) => "".into(),
        (Some(start), None) => since(start).into(),
        (Some(start), Some(end)) => between(start, end).into(),
    }
}

pub(super) const JOB: &[ColumnRow<'static>] = &[
    ("Status", 0, state),
    ("Completions", 0, completions),
    ("Duration", 0, duration),
    ("Age", 0, age),
    ("Containers", 1, |job| containers(job, "/name")),
    ("Images", 1, |job| containers(job, "/image")),
    ("Selector", 1, selector),
];

pub(super) const CRON_JOB: &[ColumnRow<'static>] = &[
    ("Schedule", 0, |job| job["spec"]["schedule"].clone()),
    ("Timezone", 0, |job| or_none(job, "/spec/timeZone")),
    ("Suspend", 0, |job| {
        let suspend = job.pointer("/spec/suspend") == Some(&true.into());
        if suspend { "True" } else { "False" }.into()
    }),
    ("Active", 0, |job| {
        items(job, "/status/active").count().into()
    }),
    ("Last Schedule", 0, |job| {
        match job.pointer("/status/lastScheduleTime") {
            Some(time) => since(time).into(),
            None => "<none>".into(),
        }
    }),
    ("Age", 0, age),
    ("Containers", 1, |job| {
        containers(&job["spec"]["jobTemplate"], "/name")
    }),
    ("Images", 1, |job| {
        containers(&job["spec"]["jobTemplate"], "/image")
    }),
    ("Selector", 1, |_| "<none>".into()),
];
