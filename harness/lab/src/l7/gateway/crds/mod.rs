//! The Gateway API's definitions (experimental channel), as `manifests/gateway/lab-crds.yaml` holds them.
//!
//! Start from [`crds`]. Fields come from the `gateway-api` crate's types; what Rust types cannot
//! say (defaults, bounds, patterns, keys of lists, printer columns) is added here by path, from
//! <https://gateway-api.sigs.k8s.io/reference/spec/>. The specification's CEL rules that decide
//! which of a union's fields may be set are written as `anyOf`, since the lab evaluates no CEL.

mod http_route;
mod listeners;
mod other_routes;

use gateway_api::backendtlspolicies::BackendTlsPolicy;
use gateway_api::experimental::httproutes::HttpRoute;
use gateway_api::experimental::tcproutes::TcpRoute;
use gateway_api::experimental::udproutes::UdpRoute;
use gateway_api::experimental::xmeshes::XMesh;
use gateway_api::gatewayclasses::GatewayClass;
use gateway_api::gateways::Gateway;
use gateway_api::grpcroutes::GrpcRoute;
use gateway_api::listenersets::ListenerSet;
use gateway_api::referencegrants::ReferenceGrant;
use gateway_api::tlsroutes::TlsRoute;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::GROUP;

/// The release of the Gateway API that the `gateway-api` crate was generated from.
const BUNDLE_VERSION: &str = "v1.5.1";
/// Kubernetes asks this of every group that ends in `k8s.io`; what is approved is the API, not this
/// rendering of it.
const APPROVED: &str = "unapproved, generated from the types of Gateway API v1.5.1";
const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const DNS_SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const HOSTNAME: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const OPTIONAL_GROUP: &str =
    r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const KIND: &str = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";

/// Every definition that the lab serves.
pub(super) fn crds() -> Vec<CustomResourceDefinition> {
    [
        finish(GatewayClass::crd(), "gc", &["v1beta1"], gateway_class),
        finish(Gateway::crd(), "gtw", &["v1beta1"], gateway),
        finish(HttpRoute::crd(), "", &["v1beta1"], http_route::http_route),
        finish(GrpcRoute::crd(), "", &[], other_routes::grpc_route),
        finish(TlsRoute::crd(), "", &[], other_routes::tls_route),
        finish(TcpRoute::crd(), "", &[], other_routes::bytes_route),
        finish(UdpRoute::crd(), "", &[], other_routes::bytes_route),
        finish(ListenerSet::crd(), "lset", &[], listeners::listener_set),
        finish(
            BackendTlsPolicy::crd(),
            "btlspolicy",
            &[],
            backend_tls_policy,
        ),
        finish(XMesh::crd(), "mesh", &[], mesh),
        finish(
            ReferenceGrant::crd(),
            "refgrant",
            &["v1beta1"],
            reference_grant,
        ),
    ]
    .into_iter()
    .map(|value| serde_json::from_value(value).unwrap())
    .collect()
}

/// Adds to a definition what its schema lacks, and the older versions with the same schema.
fn finish(
    definition: CustomResourceDefinition,
    short: &str,
    older: &[&str],
    complete: fn(&mut Value) -> Value,
) -> Value {
    let mut definition = serde_json::to_value(definition).unwrap();
    definition["metadata"]["annotations"] = json!({
        "api-approved.kubernetes.io": APPROVED,
        format!("{GROUP}/bundle-version"): BUNDLE_VERSION,
        format!("{GROUP}/channel"): "experimental",
    });
    definition["spec"]["names"]["categories"] = json!(["gateway-api"]);
    definition["spec"]["names"]["shortNames"] = if short.is_empty() {
        json!([])
    } else {
        json!([short])
    };
    let mut version = definition["spec"]["versions"][0].clone();
    let schema = &mut version["schema"]["openAPIV3Schema"];
    tidy(schema);
    schema["description"] = json!(format!(
        "{} of the Gateway API.",
        definition["spec"]["names"]["kind"].as_str().unwrap()
    ));
    version["additionalPrinterColumns"] = complete(&mut version["schema"]["openAPIV3Schema"]);
    let mut versions = vec![version.clone()];
    versions.extend(older.iter().map(|name| {
        let mut copy = version.clone();
        copy["name"] = json!(name);
        copy["storage"] = json!(false);
        copy
    }));
    definition["spec"]["versions"] = json!(versions);
    definition
}

/// An optional field may be left out and not be null; of a description, its first paragraph.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("nullable");
            if let Some(Value::Array(allowed)) = fields.get_mut("enum") {
                allowed.retain(|value| !value.is_null());
            }
            if let Some(Value::String(text)) = fields.get_mut("description") {
                let first = text.split("\n\n").next().unwrap_or_default();
                *text = first.replace('\n', " ").trim().to_owned();
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The schema at a path: `spec.rules[].matches`.
fn at<'a>(schema: &'a mut Value, path: &str) -> &'a mut Value {
    let whole = path;
    let mut found = schema;
    for step in path.split('.') {
        let name = step.trim_end_matches("[]");
        found = &mut found["properties"][name];
        assert!(found.is_object(), "no field {name} in {whole}");
        if step.ends_with("[]") {
            found = &mut found["items"];
        }
    }
    found
}

/// Leaves a field out that nobody here would do anything about: the API then says so.
fn leave_out(schema: &mut Value, path: &str) {
    let (parent, name) = path.rsplit_once('.').unwrap();
    let fields = at(schema, parent)["properties"].as_object_mut().unwrap();
    assert!(fields.remove(name).is_some(), "no field {path}");
}

/// Adds to the schema at a path.
fn add(schema: &mut Value, path: &str, more: Value) {
    let (Value::Object(to), Value::Object(more)) = (at(schema, path), more) else {
        panic!("{path} is no schema")
    };
    to.extend(more);
}

fn text(schema: &mut Value, path: &str, least: u32, most: u32, pattern: Option<&str>) {
    let mut more = json!({ "maxLength": most });
    if least > 0 {
        more["minLength"] = json!(least);
    }
    if let Some(pattern) = pattern {
        more["pattern"] = json!(pattern);
    }
    add(schema, path, more);
}

fn port(schema: &mut Value, path: &str) {
    add(schema, path, json!({ "minimum": 1, "maximum": 65535 }));
}

/// A reference's `group`, `kind`, `name` and, if it has one, `namespace`; with defaults or without.
fn reference(schema: &mut Value, path: &str, defaults: Option<(&str, &str)>) {
    text(
        schema,
        &format!("{path}.group"),
        0,
        253,
        Some(OPTIONAL_GROUP),
    );
    text(schema, &format!("{path}.kind"), 1, 63, Some(KIND));
    text(schema, &format!("{path}.name"), 1, 253, None);
    if let Some((group, kind)) = defaults {
        add(
            schema,
            &format!("{path}.group"),
            json!({ "default": group }),
        );
        add(schema, &format!("{path}.kind"), json!({ "default": kind }));
    }
    if at(schema, path)["properties"].get("namespace").is_some() {
        text(schema, &format!("{path}.namespace"), 1, 63, Some(DNS_LABEL));
    }
}

fn list_of(schema: &mut Value, path: &str, key: &str, most: u32) {
    let keyed = json!({
        "maxItems": most, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key],
    });
    add(schema, path, keyed);
}

fn conditions(schema: &mut Value, path: &str) {
    list_of(schema, path, "type", 8);
}

/// What stands in for conditions until a controller has written some.
fn waiting(types: &[&str], reason: &str) -> Value {
    let conditions: Vec<Value> = types
        .iter()
        .map(|kind| {
            json!({
                "type": kind, "status": "Unknown", "reason": reason,
                "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z",
            })
        })
        .collect();
    json!({ "conditions": conditions })
}

fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({ "name": name, "type": kind, "jsonPath": path })
}

fn age() -> Value {
    column("Age", "date", ".metadata.creationTimestamp")
}

fn gateway_class(schema: &mut Value) -> Value {
    let controller = format!(
        r"{}\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
        DNS_SUBDOMAIN.trim_end_matches('$')
    );
    text(schema, "spec.controllerName", 1, 253, Some(&controller));
    text(schema, "spec.description", 0, 64, None);
    reference(schema, "spec.parametersRef", None);
    let default = waiting(&["Accepted"], "Pending");
    add(schema, "status", json!({ "default": default }));
    conditions(schema, "status.conditions");
    list_of(schema, "status.supportedFeatures", "name", 64);
    let mut description = column("Description", "string", ".spec.description");
    description["priority"] = json!(1);
    json!([
        column("Controller", "string", ".spec.controllerName"),
        column(
            "Accepted",
            "string",
            r#".status.conditions[?(@.type=="Accepted")].status"#
        ),
        age(),
        description,
    ])
}

fn gateway(schema: &mut Value) -> Value {
    let address_type = r"^Hostname|IPAddress|NamedAddress|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$";
    text(schema, "spec.gatewayClassName", 1, 253, None);
    add(schema, "spec.addresses", json!({ "maxItems": 16 }));
    for path in ["spec.addresses[].type", "status.addresses[].type"] {
        text(schema, path, 1, 253, Some(address_type));
        add(schema, path, json!({ "default": "IPAddress" }));
    }
    text(schema, "spec.addresses[].value", 0, 253, None);
    reference(schema, "spec.infrastructure.parametersRef", None);
    for path in [
        "spec.infrastructure.labels",
        "spec.infrastructure.annotations",
    ] {
        add(schema, path, json!({ "maxProperties": 8 }));
    }
    listeners::listeners(schema);
    listeners::allowed(schema);
    listeners::tls(schema);
    let default = waiting(&["Accepted", "Programmed"], "Pending");
    add(schema, "status", json!({ "default": default }));
    add(schema, "status.addresses", json!({ "maxItems": 16 }));
    conditions(schema, "status.conditions");
    listeners::statuses(schema);
    json!([
        column("Class", "string", ".spec.gatewayClassName"),
        column("Address", "string", ".status.addresses[*].value"),
        column(
            "Programmed",
            "string",
            r#".status.conditions[?(@.type=="Programmed")].status"#
        ),
        age(),
    ])
}

fn mesh(schema: &mut Value) -> Value {
    text(schema, "spec.controllerName", 1, 253, None);
    text(schema, "spec.description", 0, 64, None);
    reference(schema, "spec.parametersRef", None);
    let default = waiting(&["Accepted"], "Pending");
    add(schema, "status", json!({ "default": default }));
    conditions(schema, "status.conditions");
    list_of(schema, "status.supportedFeatures", "name", 64);
    json!([
        column("Controller", "string", ".spec.controllerName"),
        age()
    ])
}

fn reference_grant(schema: &mut Value) -> Value {
    for list in ["spec.from", "spec.to"] {
        add(schema, list, json!({ "minItems": 1, "maxItems": 16 }));
        let item = format!("{list}[]");
        reference_parts(schema, &item);
    }
    text(schema, "spec.from[].namespace", 1, 63, Some(DNS_LABEL));
    text(schema, "spec.to[].name", 1, 253, None);
    json!([age()])
}

fn backend_tls_policy(schema: &mut Value) -> Value {
    let targets = "spec.targetRefs";
    add(schema, targets, json!({ "minItems": 1, "maxItems": 16 }));
    reference(schema, &format!("{targets}[]"), None);
    let section = format!("{targets}[].sectionName");
    text(schema, &section, 1, 253, Some(DNS_SUBDOMAIN));
    let validation = "spec.validation";
    let hostname = format!("{validation}.hostname");
    text(schema, &hostname, 1, 253, Some(DNS_SUBDOMAIN));
    let authorities = format!("{validation}.caCertificateRefs");
    add(schema, &authorities, json!({ "maxItems": 8 }));
    reference(schema, &format!("{authorities}[]"), None);
    let names = format!("{validation}.subjectAltNames");
    add(schema, &names, json!({ "maxItems": 5 }));
    // "must specify either CACertificateRefs or WellKnownCACertificates", and not both.
    let some = json!({
        "required": ["caCertificateRefs"],
        "properties": { "caCertificateRefs": { "minItems": 1 } },
    });
    let system = json!({ "required": ["wellKnownCACertificates"] });
    let both = json!({ "required": ["caCertificateRefs", "wellKnownCACertificates"] });
    add(
        schema,
        validation,
        json!({ "anyOf": [some, system], "not": both }),
    );
    add(schema, "status.ancestors", json!({ "maxItems": 16 }));
    conditions(schema, "status.ancestors[].conditions");
    json!([age()])
}

fn reference_parts(schema: &mut Value, path: &str) {
    text(
        schema,
        &format!("{path}.group"),
        0,
        253,
        Some(OPTIONAL_GROUP),
    );
    text(schema, &format!("{path}.kind"), 1, 63, Some(KIND));
}

#[test]
fn the_manifest_of_the_definitions_is_current() {
    crate::l7::manifest::assert_current("gateway/lab-crds.yaml", &crds());
}
