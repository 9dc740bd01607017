//! Events: one kind of object, told in two shapes (core/v1 and events.k8s.io/v1).

use serde_json::Value;

use crate::meta::text;
use crate::registry::ColumnRow;
use crate::table::since;

/// The names of fields in core/v1 and in events.k8s.io/v1.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("reportingComponent", "reportingController"),
];

fn rename(event: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = event.as_object_mut() else {
        return;
    };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

/// As core/v1 has it, which is how events are stored.
pub(super) fn to_core(event: &mut Value) {
    rename(event, NAMES.iter().map(|&(core, new)| (new, core)));
}

/// As events.k8s.io/v1 has it.
pub(super) fn to_events(event: &mut Value) {
    rename(event, NAMES.iter().copied());
}

/// How long ago the first of these times was that an event has.
fn seen(event: &Value, times: &[&str]) -> Value {
    let found = times
        .iter()
        .find_map(|pointer| event.pointer(pointer).filter(|time| !time.is_null()));
    found.map_or_else(|| "<unknown>".into(), |time| since(time).into())
}

/// The last time that it was seen: of its series, on its own, or when it was made.
fn last_seen(event: &Value) -> Value {
    let times = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/firstTimestamp",
        "/eventTime",
    ];
    seen(event, &times)
}

fn first_seen(event: &Value) -> Value {
    seen(event, &["/firstTimestamp", "/eventTime"])
}

fn source(event: &Value) -> Value {
    let component = match text(event, "/source/component") {
        "" => text(event, "/reportingComponent"),
        component => component,
    };
    let parts = [component, text(event, "/source/host")];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(", ").into()
}

pub(super) const COLUMNS: &[ColumnRow<'static>] = &[
    ("Last Seen", 0, last_seen),
    ("Type", 0, |event| event["type"].clone()),
    ("Reason", 0, |event| event["reason"].clone()),
    ("Object", 0, |event| {
        let of = |field: &str| text(&event["involvedObject"], field).to_owned();
        format!("{}/{}", of("/kind").to_lowercase(), of("/name")).into()
    }),
    ("Subobject", 1, |event| {
        text(event, "/involvedObject/fieldPath").into()
    }),
    ("Source", 1, source),
    ("Message", 0, |event| text(event, "/message").trim().into()),
    ("First Seen", 1, first_seen),
    ("Count", 1, |event| {
        let count = event
            .pointer("/series/count")
            .or_else(|| event.get("count"));
        count.and_then(Value::as_i64).unwrap_or(1).into()
    }),
    ("Name", 1, |event| event["metadata"]["name"].clone()),
];
