//! What the schema of HTTPRoute lacks.
//!
//! Start from [`http_route`].

use serde_json::{Value, json};

use super::{
    DNS_SUBDOMAIN, GROUP, HOSTNAME, add, age, at, column, conditions, leave_out, list_of, port,
    reference, text,
};

const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
pub(super) const HEADER: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";

/// Adds it, and returns the printer columns.
pub(super) fn http_route(schema: &mut Value) -> Value {
    add(schema, "spec.hostnames", json!({ "maxItems": 16 }));
    text(schema, "spec.hostnames[]", 1, 253, Some(HOSTNAME));
    leave_out(schema, "spec.useDefaultGateways");
    leave_out(schema, "spec.rules[].sessionPersistence");
    parents(schema);
    let everything = json!([{ "path": { "type": "PathPrefix", "value": "/" } }]);
    add(
        schema,
        "spec.rules",
        json!({ "minItems": 1, "maxItems": 16, "default": [{ "matches": everything }] }),
    );
    text(schema, "spec.rules[].name", 1, 253, Some(DNS_SUBDOMAIN));
    add(
        schema,
        "spec.rules[].matches",
        json!({ "maxItems": 64, "default": everything }),
    );
    matches(schema);
    for filters in ["spec.rules[].filters", "spec.rules[].backendRefs[].filters"] {
        self::filters(schema, filters);
    }
    backends(schema);
    for timeout in ["request", "backendRequest"] {
        add(
            schema,
            &format!("spec.rules[].timeouts.{timeout}"),
            json!({ "pattern": DURATION }),
        );
    }
    let retry = "spec.rules[].retry";
    add(
        schema,
        &format!("{retry}.backoff"),
        json!({ "pattern": DURATION }),
    );
    add(
        schema,
        &format!("{retry}.codes[]"),
        json!({ "minimum": 400, "maximum": 599 }),
    );
    json!([column("Hostnames", "string", ".spec.hostnames"), age()])
}

/// The parents of a route of any kind, and what is said of them.
pub(super) fn parents(schema: &mut Value) {
    add(schema, "spec.parentRefs", json!({ "maxItems": 32 }));
    for parent in ["spec.parentRefs[]", "status.parents[].parentRef"] {
        reference(schema, parent, Some((GROUP, "Gateway")));
        port(schema, &format!("{parent}.port"));
        text(
            schema,
            &format!("{parent}.sectionName"),
            1,
            253,
            Some(DNS_SUBDOMAIN),
        );
    }
    add(schema, "status.parents", json!({ "maxItems": 32 }));
    conditions(schema, "status.parents[].conditions");
}

/// The backends of a route of any kind.
pub(super) fn backends(schema: &mut Value) {
    let backends = "spec.rules[].backendRefs";
    add(schema, backends, json!({ "maxItems": 16 }));
    backend(schema, &format!("{backends}[]"));
    add(
        schema,
        &format!("{backends}[].weight"),
        json!({ "default": 1, "minimum": 0, "maximum": 1_000_000 }),
    );
}

/// A backend's reference: "Must have port for Service reference".
fn backend(schema: &mut Value, path: &str) {
    reference(schema, path, Some(("", "Service")));
    port(schema, &format!("{path}.port"));
    let service =
        json!({ "properties": { "group": { "enum": [""] }, "kind": { "enum": ["Service"] } } });
    add(
        schema,
        path,
        json!({ "anyOf": [{ "not": service }, { "required": ["port"] }] }),
    );
}

fn matches(schema: &mut Value) {
    let path = "spec.rules[].matches[].path";
    add(
        schema,
        path,
        json!({ "default": { "type": "PathPrefix", "value": "/" } }),
    );
    add(
        schema,
        &format!("{path}.type"),
        json!({ "default": "PathPrefix" }),
    );
    add(
        schema,
        &format!("{path}.value"),
        json!({ "default": "/", "maxLength": 1024 }),
    );
    // The CEL rules for types Exact and PathPrefix: absolute, of a path's characters, and with
    // nothing in it that normalising would change.
    let plain = json!({ "properties": { "value": {
        "pattern": r"^/(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})*$",
        "not": { "pattern": r"//|/\./|/\.\./|%2[fF]|/\.\.?$" },
    } } });
    add(
        schema,
        path,
        json!({ "anyOf": [{ "properties": { "type": { "enum": ["RegularExpression"] } } }, plain] }),
    );
    for (list, most, value) in [("headers", 16, 4096), ("queryParams", 16, 1024)] {
        let list = format!("spec.rules[].matches[].{list}");
        list_of(schema, &list, "name", most);
        text(schema, &format!("{list}[].name"), 1, 256, Some(HEADER));
        text(schema, &format!("{list}[].value"), 1, value, None);
        add(
            schema,
            &format!("{list}[].type"),
            json!({ "default": "Exact" }),
        );
    }
}

fn filters(schema: &mut Value, list: &str) {
    let filter = format!("{list}[]");
    leave_out(schema, &format!("{filter}.externalAuth"));
    if let Some(Value::Array(kinds)) = at(schema, &format!("{filter}.type")).get_mut("enum") {
        kinds.retain(|kind| kind != "ExternalAuth");
    }
    let more = [
        ("RequestRedirect", "requestRedirect"),
        ("URLRewrite", "urlRewrite"),
        ("CORS", "cors"),
    ];
    filters_of_any(schema, list, &more);
    let redirect = format!("{filter}.requestRedirect");
    text(
        schema,
        &format!("{redirect}.hostname"),
        1,
        253,
        Some(DNS_SUBDOMAIN),
    );
    port(schema, &format!("{redirect}.port"));
    add(
        schema,
        &format!("{redirect}.statusCode"),
        json!({ "default": 302, "enum": [301, 302, 303, 307, 308] }),
    );
    let rewrite = format!("{filter}.urlRewrite");
    text(
        schema,
        &format!("{rewrite}.hostname"),
        1,
        253,
        Some(DNS_SUBDOMAIN),
    );
    for path in [format!("{redirect}.path"), format!("{rewrite}.path")] {
        for field in ["replaceFullPath", "replacePrefixMatch"] {
            text(schema, &format!("{path}.{field}"), 0, 1024, None);
        }
        union(
            schema,
            &path,
            &[
                ("ReplaceFullPath", "replaceFullPath"),
                ("ReplacePrefixMatch", "replacePrefixMatch"),
            ],
        );
    }
}

/// The filters that routes of any kind have, and the names of those that one has besides.
pub(super) fn filters_of_any(schema: &mut Value, list: &str, more: &[(&str, &str)]) {
    add(schema, list, json!({ "maxItems": 16 }));
    let filter = format!("{list}[]");
    for modifier in ["requestHeaderModifier", "responseHeaderModifier"] {
        for change in ["add", "set"] {
            let headers = format!("{filter}.{modifier}.{change}");
            list_of(schema, &headers, "name", 16);
            text(schema, &format!("{headers}[].name"), 1, 256, Some(HEADER));
            text(schema, &format!("{headers}[].value"), 1, 4096, None);
        }
        add(
            schema,
            &format!("{filter}.{modifier}.remove"),
            json!({ "maxItems": 16, "x-kubernetes-list-type": "set" }),
        );
    }
    let mirror = format!("{filter}.requestMirror");
    backend(schema, &format!("{mirror}.backendRef"));
    add(
        schema,
        &format!("{mirror}.percent"),
        json!({ "minimum": 0, "maximum": 100 }),
    );
    add(
        schema,
        &format!("{mirror}.fraction.numerator"),
        json!({ "minimum": 0 }),
    );
    add(
        schema,
        &format!("{mirror}.fraction.denominator"),
        json!({ "default": 100, "minimum": 1 }),
    );
    add(
        schema,
        &mirror,
        json!({ "not": { "required": ["percent", "fraction"] } }),
    );
    reference(schema, &format!("{filter}.extensionRef"), None);
    let mut members = vec![
        ("RequestHeaderModifier", "requestHeaderModifier"),
        ("ResponseHeaderModifier", "responseHeaderModifier"),
        ("RequestMirror", "requestMirror"),
    ];
    members.extend(more);
    members.push(("ExtensionRef", "extensionRef"));
    union(schema, &filter, &members);
}

/// "X must be specified for type Y" and "X must be nil if the type is not Y".
fn union(schema: &mut Value, path: &str, members: &[(&str, &str)]) {
    let rules: Vec<Value> = members
        .iter()
        .map(|(kind, field)| {
            let chosen = json!({ "properties": { "type": { "enum": [kind] } } });
            let set = json!({ "required": [field] });
            json!({ "anyOf": [{ "allOf": [chosen, set] }, { "not": { "anyOf": [chosen, set] } }] })
        })
        .collect();
    add(schema, path, json!({ "allOf": rules }));
}
