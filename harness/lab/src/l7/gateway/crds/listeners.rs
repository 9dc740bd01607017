//! What the schemas of Gateway and ListenerSet lack of listeners.
//!
//! Start from [`listener_set`], and [`listeners`], which both have.

use serde_json::{Value, json};

use super::{
    DNS_SUBDOMAIN, GROUP, HOSTNAME, KIND, OPTIONAL_GROUP, add, age, column, conditions, list_of,
    port, reference, text, waiting,
};

const PROTOCOL: &str = r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$";

/// Adds it, and returns the printer columns.
pub(super) fn listener_set(schema: &mut Value) -> Value {
    let parent = "spec.parentRef";
    reference(schema, parent, Some((GROUP, "Gateway")));
    listeners(schema);
    let default = waiting(&["Accepted", "Programmed"], "Pending");
    add(schema, "status", json!({ "default": default }));
    conditions(schema, "status.conditions");
    statuses(schema);
    json!([
        column(
            "Accepted",
            "string",
            r#".status.conditions[?(@.type=="Accepted")].status"#
        ),
        column(
            "Programmed",
            "string",
            r#".status.conditions[?(@.type=="Programmed")].status"#
        ),
        age(),
    ])
}

/// Who may bring listeners to a Gateway: nobody, unless it is said.
pub(super) fn allowed(schema: &mut Value) {
    let none = json!({ "from": "None" });
    let namespaces = "spec.allowedListeners.namespaces";
    add(schema, namespaces, json!({ "default": none }));
    add(
        schema,
        &format!("{namespaces}.from"),
        json!({ "default": "None" }),
    );
}

/// Certificates of clients, and for backends.
pub(super) fn tls(schema: &mut Value) {
    let certificate = "spec.tls.backend.clientCertificateRef";
    reference(schema, certificate, Some(("", "Secret")));
    let ports = "spec.tls.frontend.perPort";
    list_of(schema, ports, "port", 64);
    port(schema, &format!("{ports}[].port"));
    for validation in [
        "spec.tls.frontend.default.validation".to_owned(),
        format!("{ports}[].tls.validation"),
    ] {
        let authorities = format!("{validation}.caCertificateRefs");
        add(
            schema,
            &authorities,
            json!({ "minItems": 1, "maxItems": 8 }),
        );
        reference(schema, &format!("{authorities}[]"), None);
        add(
            schema,
            &format!("{validation}.mode"),
            json!({ "default": "AllowValidOnly" }),
        );
    }
}

/// What is said of listeners.
pub(super) fn statuses(schema: &mut Value) {
    list_of(schema, "status.listeners", "name", 64);
    conditions(schema, "status.listeners[].conditions");
    add(
        schema,
        "status.listeners[].supportedKinds[].group",
        json!({ "default": GROUP }),
    );
}

/// The listeners themselves.
pub(super) fn listeners(schema: &mut Value) {
    list_of(schema, "spec.listeners", "name", 64);
    add(schema, "spec.listeners", json!({ "minItems": 1 }));
    text(schema, "spec.listeners[].name", 1, 253, Some(DNS_SUBDOMAIN));
    text(schema, "spec.listeners[].hostname", 1, 253, Some(HOSTNAME));
    text(schema, "spec.listeners[].protocol", 1, 255, Some(PROTOCOL));
    port(schema, "spec.listeners[].port");
    let same = json!({ "from": "Same" });
    let allowed = "spec.listeners[].allowedRoutes";
    add(
        schema,
        allowed,
        json!({ "default": { "namespaces": same } }),
    );
    add(
        schema,
        &format!("{allowed}.namespaces"),
        json!({ "default": same }),
    );
    add(
        schema,
        &format!("{allowed}.namespaces.from"),
        json!({ "default": "Same" }),
    );
    add(
        schema,
        &format!("{allowed}.kinds"),
        json!({ "maxItems": 8 }),
    );
    add(
        schema,
        &format!("{allowed}.kinds[].group"),
        json!({ "default": GROUP, "maxLength": 253, "pattern": OPTIONAL_GROUP }),
    );
    text(
        schema,
        &format!("{allowed}.kinds[].kind"),
        1,
        63,
        Some(KIND),
    );
    let tls = "spec.listeners[].tls";
    add(
        schema,
        &format!("{tls}.mode"),
        json!({ "default": "Terminate" }),
    );
    add(
        schema,
        &format!("{tls}.certificateRefs"),
        json!({ "maxItems": 64 }),
    );
    reference(
        schema,
        &format!("{tls}.certificateRefs[]"),
        Some(("", "Secret")),
    );
    add(
        schema,
        &format!("{tls}.options"),
        json!({ "maxProperties": 16 }),
    );
    // "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']", "hostname must not be
    // specified for protocols ['TCP', 'UDP']", "tls mode must be Terminate for protocol HTTPS".
    let of = |names: &[&str]| json!({ "properties": { "protocol": { "enum": names } } });
    add(
        schema,
        "spec.listeners[]",
        json!({ "allOf": [
            { "anyOf": [{ "not": of(&["HTTP", "TCP", "UDP"]) }, { "not": { "required": ["tls"] } }] },
            { "anyOf": [{ "not": of(&["TCP", "UDP"]) }, { "not": { "required": ["hostname"] } }] },
            { "anyOf": [
                { "not": of(&["HTTPS"]) },
                { "properties": { "tls": { "properties": { "mode": { "enum": ["Terminate"] } } } } },
            ] },
        ] }),
    );
}
