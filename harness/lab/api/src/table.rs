//! Tables, as `kubectl get` shows them (meta/v1 `Table`).

use serde_json::{Value, json};

use super::meta::text;
use super::registry::{Cell, Column, Kind};
use super::request::Query;

/// An object, or a list, as a table.
pub(crate) fn of(kind: &Kind, object: &Value, query: &Query) -> Value {
    let columns = columns(kind);
    let whole = query.get("includeObject") == Some("Object");
    let none = query.get("includeObject") == Some("None");
    let rows: Vec<Value> = match object
        .get("items")
        .and_then(Value::as_array)
        .filter(|_| object["kind"] == format!("{}List", kind.kind))
    {
        Some(items) => items
            .iter()
            .map(|item| row(kind, item, &columns, whole, none))
            .collect(),
        None => vec![row(kind, object, &columns, whole, none)],
    };
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            let format = if column.name == "Name" { "name" } else { "" };
            json!({"name": column.name, "type": column.format, "format": format, "description": "", "priority": column.priority})
        })
        .collect();
    let mut metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
    if let Some(token) = object["metadata"].get("continue") {
        metadata["continue"] = token.clone();
    }
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions, "rows": rows})
}

fn columns(kind: &Kind) -> Vec<Column> {
    let name = Column {
        name: "Name".into(),
        format: "string".into(),
        priority: 0,
        cell: Cell::Of(|object| object["metadata"]["name"].clone()),
    };
    let age = Column {
        name: "Age".into(),
        format: "string".into(),
        priority: 0,
        cell: Cell::Of(age),
    };
    let named = kind.columns.first().is_some_and(|one| one.name == "Name");
    let mut columns = if named { Vec::new() } else { vec![name] };
    columns.extend(kind.columns.iter().cloned());
    if !columns.iter().any(|column| {
        matches!(column.name.as_str(), "Age" | "Last Seen" | "Created At")
            || column.format == "date"
    }) {
        let wide = columns
            .iter()
            .position(|column| column.priority > 0)
            .unwrap_or(columns.len());
        columns.insert(wide, age);
    }
    columns
}

fn row(kind: &Kind, object: &Value, columns: &[Column], whole: bool, none: bool) -> Value {
    // Cells read the stored shape.
    let stored = kind.convert.map(|convert| {
        let mut stored = object.clone();
        (convert.to_stored)(&mut stored);
        stored
    });
    let shown = stored.as_ref().unwrap_or(object);
    let cells: Vec<Value> = columns
        .iter()
        .map(|column| match &column.cell {
            Cell::Of(cell) => cell(shown),
            Cell::Path(path) if column.format == "date" => since(&at(object, path)).into(),
            Cell::Path(path) => at(object, path),
        })
        .collect();
    let included = if none {
        Value::Null
    } else if whole {
        object.clone()
    } else {
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
    };
    json!({"cells": cells, "object": included})
}

/// The value at a simple JSONPath: fields, and one filter by equality.
fn at(object: &Value, path: &str) -> Value {
    let mut found = object.clone();
    let mut rest = path.trim_start_matches('.');
    while !rest.is_empty() {
        if let Some(filter) = rest.strip_prefix("[?(@.") {
            let Some((test, tail)) = filter.split_once(")]") else {
                return Value::Null;
            };
            let Some((field, wanted)) = test.split_once("==") else {
                return Value::Null;
            };
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            let item = found
                .as_array()
                .and_then(|list| list.iter().find(|item| item[field.trim()] == wanted));
            found = item.cloned().unwrap_or_default();
            rest = tail.trim_start_matches('.');
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (field, tail) = rest.split_at(end);
        found = found
            .get(field.trim_end_matches(']'))
            .cloned()
            .unwrap_or_default();
        rest = if tail.starts_with("[?") {
            tail
        } else {
            tail.trim_start_matches(['.'])
        };
        if rest.starts_with("[*]") {
            rest = rest.trim_start_matches("[*]").trim_start_matches('.');
            let list: Vec<String> = found
                .as_array()
                .into_iter()
                .flatten()
                .map(|item| {
                    if rest.is_empty() {
                        plain(item)
                    } else {
                        plain(&at(item, rest))
                    }
                })
                .collect();
            return list.join(",").into();
        }
    }
    match found {
        Value::Object(_) | Value::Array(_) => found.to_string().into(),
        other => other,
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// How long ago an object was made.
pub(crate) fn age(object: &Value) -> Value {
    since(&object["metadata"]["creationTimestamp"]).into()
}

/// How long ago a time was, as `kubectl` writes it.
pub(crate) fn since(time: &Value) -> String {
    let Some(then) = time
        .as_str()
        .and_then(|time| time.parse::<jiff::Timestamp>().ok())
    else {
        return "<unknown>".to_owned();
    };
    human(jiff::Timestamp::now().as_second() - then.as_second())
}

/// How long it was from one time to another.
pub(crate) fn between(from: &Value, to: &Value) -> String {
    let at = |time: &Value| time.as_str()?.parse::<jiff::Timestamp>().ok();
    match (at(from), at(to)) {
        (Some(from), Some(to)) => human(to.as_second() - from.as_second()),
        _ => "<unknown>".to_owned(),
    }
}

/// A number of seconds as `kubectl` writes it (`duration.HumanDuration`).
fn human(seconds: i64) -> String {
    let two = |large: i64, one: char, small: i64, other: char| match small {
        0 => format!("{large}{one}"),
        _ => format!("{large}{one}{small}{other}"),
    };
    match seconds {
        ..0 => "<invalid>".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / 60, 'm', seconds % 60, 's'),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..28_800 => two(seconds / 3600, 'h', seconds / 60 % 60, 'm'),
        28_800..172_800 => format!("{}h", seconds / 3600),
        172_800..691_200 => two(seconds / 86_400, 'd', seconds / 3600 % 24, 'h'),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// When an object was made.
pub(crate) fn created(object: &Value) -> Value {
    object["metadata"]["creationTimestamp"].clone()
}

/// Labels, or what is shown for none.
pub(crate) fn labels_or_none(object: &Value, pointer: &str) -> Value {
    match super::meta::label_pairs(object.pointer(pointer)) {
        none if none.is_empty() => "<none>".into(),
        pairs => pairs.into(),
    }
}

/// A text, or what is shown for none.
pub(crate) fn or_none(object: &Value, pointer: &str) -> Value {
    match text(object, pointer) {
        "" => "<none>".into(),
        found => found.into(),
    }
}
