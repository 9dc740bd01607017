//! CustomResourceDefinitions: their kinds, and the structural schemas of those.
//!
//! Start from [`follow`], which keeps the registry in step, and [`validate`], [`prune`] and
//! [`default`] (apiextensions v1, structural schemas). CEL rules (`x-kubernetes-validations`) are not
//! evaluated.

use std::sync::Arc;

use serde_json::{Value, json};

use super::meta::{items, now, text};
use super::registry::{Admit, Cell, Column, Hooks, Kind};
use super::schema::Schema;
use super::status::{Cause, Status};
use super::{Shared, rows};

/// Serves what a CustomResourceDefinition that was written defines, or ceases to.
pub(crate) fn follow(shared: &Shared, kind: &Kind, object: &Value, gone: bool) {
    if kind.table != rows::custom_resource_definition().table {
        return;
    }
    let (group, plural) = (
        text(object, "/spec/group"),
        text(object, "/spec/names/plural"),
    );
    let versions = if gone { Vec::new() } else { kinds(object) };
    shared.registry.replace(group, plural, versions);
    if gone {
        shared
            .store
            .transact(|state| state.drop_table(&format!("{plural}.{group}")));
    }
}

/// Establishes a definition: nothing here can be in its way but a wrong name.
pub(crate) fn establish(admit: &mut Admit<'_>) -> Result<(), Status> {
    let spec = &admit.new["spec"];
    let expected = format!("{}.{}", text(spec, "/names/plural"), text(spec, "/group"));
    if admit.name != expected {
        let why = format!("must be spec.names.plural+\".\"+spec.group, that is {expected:?}");
        let cause = Cause::invalid("metadata.name", &Value::from(admit.name), &why);
        return Err(Status::invalid(admit.kind, admit.name, &[cause]));
    }
    if admit.old.is_some() {
        return Ok(());
    }
    let condition = |name: &str, reason: &str, message: &str| json!({"type": name, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now()});
    let stored: Vec<Value> = items(spec, "/versions")
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let names = spec["names"].clone();
    admit.new["status"] = json!({
        "acceptedNames": names, "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
    Ok(())
}

/// The kinds of a definition, one a served version.
fn kinds(definition: &Value) -> Vec<Kind> {
    let names = |field: &str| -> Vec<String> {
        items(definition, &format!("/spec/names/{field}"))
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    };
    let (group, plural, kind) = (
        text(definition, "/spec/group"),
        text(definition, "/spec/names/plural"),
        text(definition, "/spec/names/kind"),
    );
    items(definition, "/spec/versions")
        .filter(|version| version["served"] == true)
        .map(|version| {
            let schema = version
                .pointer("/schema/openAPIV3Schema")
                .cloned()
                .unwrap_or_else(|| json!({"x-kubernetes-preserve-unknown-fields": true}));
            let singular = text(definition, "/spec/names/singular");
            Kind {
                group: group.to_owned(),
                version: text(version, "/name").to_owned(),
                kind: kind.to_owned(),
                plural: plural.to_owned(),
                singular: if singular.is_empty() {
                    kind.to_lowercase()
                } else {
                    singular.to_owned()
                },
                short_names: names("shortNames"),
                categories: names("categories"),
                namespaced: text(definition, "/spec/scope") == "Namespaced",
                status: version
                    .pointer("/subresources/status")
                    .is_some_and(|status| !status.is_null()),
                scale: false,
                generation: true,
                counts_annotations: false,
                returns_deleted: false,
                needs_version: true,
                made_by_put: false,
                annotated_by_status: false,
                hooks: Hooks::default(),
                schema: Schema::Custom(Arc::new(schema)),
                columns: columns(version),
                subresources: &[],
                table: format!("{plural}.{group}"),
                describe: None,
                typed: None,
                convert: None,
            }
        })
        .collect()
}

fn columns(version: &Value) -> Vec<Column> {
    items(version, "/additionalPrinterColumns")
        .map(|column| Column {
            name: text(column, "/name").to_owned(),
            format: text(column, "/type").to_owned(),
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
            cell: Cell::Path(text(column, "/jsonPath").to_owned()),
        })
        .collect()
}

fn preserves(schema: &Value) -> bool {
    schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
}

/// Takes out, and lists, the fields that a schema does not have.
pub(crate) fn prune(object: &mut Value, schema: &Value, unknown: &mut Vec<String>) {
    prune_at(object, schema, "", unknown);
}

fn prune_at(value: &mut Value, schema: &Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties");
            let open = preserves(schema) || schema.get("x-kubernetes-embedded-resource").is_some();
            map.retain(|name, child| {
                if path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                let at = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                if let Some(inner) = properties.and_then(|properties| properties.get(name)) {
                    prune_at(child, inner, &at, unknown);
                    return true;
                }
                match additional {
                    Some(Value::Object(_)) => {
                        prune_at(child, additional.unwrap_or(&Value::Null), &at, unknown);
                        true
                    }
                    Some(Value::Bool(true)) => true,
                    _ if open => true,
                    _ => {
                        unknown.push(at);
                        false
                    }
                }
            });
        }
        Value::Array(list) => {
            if let Some(inner) = schema.get("items") {
                for (at, child) in list.iter_mut().enumerate() {
                    prune_at(child, inner, &format!("{path}[{at}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

/// Fills in the defaults of a schema.
pub(crate) fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            for (name, inner) in schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                if let Some(standard) = inner.get("default")
                    && map.get(name).is_none_or(|found| {
                        found.is_null() && inner.get("nullable") != Some(&Value::Bool(true))
                    })
                {
                    map.insert(name.clone(), standard.clone());
                }
                if let Some(child) = map.get_mut(name) {
                    default(child, inner);
                }
            }
            if let Some(inner @ Value::Object(_)) = schema.get("additionalProperties") {
                map.values_mut().for_each(|child| default(child, inner));
            }
        }
        Value::Array(list) => {
            if let Some(inner) = schema.get("items") {
                list.iter_mut().for_each(|child| default(child, inner));
            }
        }
        _ => {}
    }
}

/// Finds what a schema does not allow.
pub(crate) fn validate(object: &Value, schema: &Value, causes: &mut Vec<Cause>) {
    for (name, inner) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        if let Some(value) = object.get(name) {
            validate_at(value, inner, name, causes);
        }
    }
    required(object, schema, "", causes);
}

fn required(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    for name in items(schema, "/required").filter_map(Value::as_str) {
        if value.get(name).is_none_or(Value::is_null) {
            let at = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            causes.push(Cause::required(at, ""));
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn validate_at(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    let found = type_name(value);
    let int_or_string = schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    if let Some(wanted) = schema.get("type").and_then(Value::as_str) {
        let fits = wanted == found
            || (wanted == "number" && found == "integer")
            || (int_or_string && matches!(found, "integer" | "string"));
        if !fits {
            let why = format!("{path} in body must be of type {wanted}: {found:?}");
            causes.push(Cause::invalid(path, &Value::from(found), &why));
            return;
        }
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let names: Vec<String> = allowed
            .iter()
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        causes.push(Cause::unsupported(path, value, &names));
    }
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let refuse = |causes: &mut Vec<Cause>, why: String| {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path} in body {why}"),
        ))
    };
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(least) = bound("minimum").filter(|least| number < *least) {
                refuse(
                    causes,
                    format!("should be greater than or equal to {least}"),
                );
            }
            if let Some(most) = bound("maximum").filter(|most| number > *most) {
                refuse(causes, format!("should be less than or equal to {most}"));
            }
        }
        Value::String(string) => {
            let length = string.chars().count();
            if let Some(least) = schema
                .get("minLength")
                .and_then(Value::as_u64)
                .filter(|least| (length as u64) < *least)
            {
                refuse(causes, format!("should be at least {least} chars long"));
            }
            if let Some(most) = schema
                .get("maxLength")
                .and_then(Value::as_u64)
                .filter(|most| (length as u64) > *most)
            {
                causes.push(Cause {
                    reason: "FieldValueTooLong",
                    field: path.to_owned(),
                    message: format!("Too long: may not be more than {most} bytes"),
                });
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && regex::Regex::new(pattern).is_ok_and(|regex| !regex.is_match(string))
            {
                refuse(causes, format!("should match '{pattern}'"));
            }
        }
        Value::Array(list) => {
            if let Some(least) = schema
                .get("minItems")
                .and_then(Value::as_u64)
                .filter(|least| (list.len() as u64) < *least)
            {
                refuse(causes, format!("should have at least {least} items"));
            }
            if let Some(most) = schema
                .get("maxItems")
                .and_then(Value::as_u64)
                .filter(|most| (list.len() as u64) > *most)
            {
                causes.push(Cause {
                    reason: "FieldValueTooMany",
                    field: path.to_owned(),
                    message: format!("Too many: {}: must have at most {most} items", list.len()),
                });
            }
            duplicates(list, schema, path, causes);
            if let Some(inner) = schema.get("items") {
                for (at, child) in list.iter().enumerate() {
                    validate_at(child, inner, &format!("{path}[{at}]"), causes);
                }
            }
        }
        Value::Object(map) => {
            required(value, schema, path, causes);
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, child) in map {
                let inner = properties
                    .and_then(|properties| properties.get(name))
                    .or_else(|| {
                        schema
                            .get("additionalProperties")
                            .filter(|inner| inner.is_object())
                    });
                if let Some(inner) = inner {
                    validate_at(child, inner, &format!("{path}.{name}"), causes);
                }
            }
        }
        _ => {}
    }
    combined(value, schema, path, causes);
}

fn duplicates(list: &[Value], schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let keys: Vec<&str> = items(schema, "/x-kubernetes-list-map-keys")
        .filter_map(Value::as_str)
        .collect();
    let of = |item: &Value| -> Option<Value> {
        match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Some(item.clone()),
            Some("map") => Some(
                keys.iter()
                    .map(|key| {
                        (
                            (*key).to_owned(),
                            item.get(*key).cloned().unwrap_or_default(),
                        )
                    })
                    .collect::<serde_json::Map<_, _>>()
                    .into(),
            ),
            _ => None,
        }
    };
    let mut seen = Vec::new();
    for (at, item) in list.iter().enumerate() {
        let Some(key) = of(item) else { return };
        if seen.contains(&key) {
            causes.push(Cause::duplicate(format!("{path}[{at}]"), &key));
        }
        seen.push(key);
    }
}

/// `oneOf`, `anyOf`, `allOf` and `not`, which only say which fields may be set.
fn combined(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fits = |inner: &Value| {
        let mut found = Vec::new();
        validate_at(value, inner, path, &mut found);
        found.is_empty()
    };
    let count = |field: &str| {
        schema
            .get(field)
            .and_then(Value::as_array)
            .map(|list| list.iter().filter(|inner| fits(inner)).count())
    };
    if count("oneOf").is_some_and(|count| count != 1) {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path:?} must validate one and only one schema (oneOf)"),
        ));
    }
    if count("anyOf").is_some_and(|count| count == 0) {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path:?} must validate at least one schema (anyOf)"),
        ));
    }
    if schema
        .get("allOf")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.iter().all(fits))
    {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path:?} must validate all the schemas (allOf)"),
        ));
    }
    if schema.get("not").is_some_and(fits) {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path:?} must not validate the schema (not)"),
        ));
    }
}
