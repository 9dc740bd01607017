//! What the schemas of GRPCRoute, TLSRoute, TCPRoute and UDPRoute lack.
//!
//! Start from [`grpc_route`], [`tls_route`] and [`bytes_route`]. What they have in common with HTTPRoute is there.

use serde_json::{Value, json};

use super::http_route::{HEADER, backends, filters_of_any, parents};
use super::{DNS_SUBDOMAIN, HOSTNAME, add, age, column, leave_out, list_of, text};

/// Adds it, and returns the printer columns.
pub(super) fn grpc_route(schema: &mut Value) -> Value {
    add(schema, "spec.hostnames", json!({ "maxItems": 16 }));
    text(schema, "spec.hostnames[]", 1, 253, Some(HOSTNAME));
    parents(schema);
    add(schema, "spec.rules", json!({ "maxItems": 16 }));
    text(schema, "spec.rules[].name", 1, 253, Some(DNS_SUBDOMAIN));
    add(schema, "spec.rules[].matches", json!({ "maxItems": 64 }));
    let method = "spec.rules[].matches[].method";
    add(
        schema,
        &format!("{method}.type"),
        json!({ "default": "Exact" }),
    );
    for field in ["method", "service"] {
        text(schema, &format!("{method}.{field}"), 0, 1024, None);
    }
    // The CEL rules for type Exact: one of both, of a name's characters.
    let named =
        |field: &str, pattern: &str| json!({ "properties": { field: { "pattern": pattern } } });
    let exact = json!({ "allOf": [
        { "anyOf": [{ "required": ["service"] }, { "required": ["method"] }] },
        named("service", r"^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$"),
        named("method", "^[A-Za-z_][A-Za-z_0-9]*$"),
    ] });
    add(
        schema,
        method,
        json!({ "anyOf": [{ "properties": { "type": { "enum": ["RegularExpression"] } } }, exact] }),
    );
    let headers = "spec.rules[].matches[].headers";
    list_of(schema, headers, "name", 16);
    text(schema, &format!("{headers}[].name"), 1, 256, Some(HEADER));
    text(schema, &format!("{headers}[].value"), 1, 4096, None);
    add(
        schema,
        &format!("{headers}[].type"),
        json!({ "default": "Exact" }),
    );
    for filters in ["spec.rules[].filters", "spec.rules[].backendRefs[].filters"] {
        filters_of_any(schema, filters, &[]);
    }
    backends(schema);
    json!([column("Hostnames", "string", ".spec.hostnames"), age()])
}

/// Adds it, and returns the printer columns.
pub(super) fn tls_route(schema: &mut Value) -> Value {
    add(
        schema,
        "spec.hostnames",
        json!({ "minItems": 1, "maxItems": 16 }),
    );
    text(schema, "spec.hostnames[]", 1, 253, Some(HOSTNAME));
    bytes(schema);
    json!([column("Hostnames", "string", ".spec.hostnames"), age()])
}

/// Adds it, of TCPRoute or UDPRoute, and returns the printer columns.
pub(super) fn bytes_route(schema: &mut Value) -> Value {
    leave_out(schema, "spec.useDefaultGateways");
    bytes(schema);
    json!([age()])
}

/// What routes have in common that look at nothing in the bytes.
fn bytes(schema: &mut Value) {
    parents(schema);
    add(
        schema,
        "spec.rules",
        json!({ "minItems": 1, "maxItems": 1 }),
    );
    text(schema, "spec.rules[].name", 1, 253, Some(DNS_SUBDOMAIN));
    backends(schema);
    let some = json!({ "minItems": 1 });
    add(schema, "spec.rules[].backendRefs", some);
}
