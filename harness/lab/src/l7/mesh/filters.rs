//! What HTTP filters of the client's sidecar do for a rule of a VirtualService.
//!
//! Start from [`of_rule`]. Each filter has a configuration of its own for a route, by the filter's name.

use serde_json::{Map, Value, json};

use super::route::{duration, per_ten_thousand, string_match};
use crate::istio::virtual_service::{CorsPolicy, HttpFaultInjection, HttpRoute, Percent};
use crate::l7::envoy::typed;

/// `typed_per_filter_config` of a rule, where it has any.
pub(super) fn of_rule(rule: &HttpRoute) -> Option<Value> {
    let mut filters = Map::new();
    if let Some(asked) = &rule.fault {
        let kind = "envoy.extensions.filters.http.fault.v3.HTTPFault";
        filters.insert(
            "envoy.filters.http.fault".to_owned(),
            typed(kind, fault(asked)),
        );
    }
    if let Some(asked) = &rule.cors_policy {
        let kind = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
        filters.insert(
            "envoy.filters.http.cors".to_owned(),
            typed(kind, cors(asked)),
        );
    }
    (!filters.is_empty()).then_some(Value::Object(filters))
}

fn fault(fault: &HttpFaultInjection) -> Value {
    let share = |percent: Option<&Percent>| {
        let share = percent.map_or(10_000, per_ten_thousand);
        json!({ "numerator": share, "denominator": "TEN_THOUSAND" })
    };
    let mut config = json!({});
    if let Some(delay) = &fault.delay {
        config["delay"] = json!({
            "fixed_delay": duration(&delay.fixed_delay),
            "percentage": share(delay.percentage.as_ref()),
        });
    }
    if let Some(abort) = &fault.abort {
        config["abort"] = json!({ "percentage": share(abort.percentage.as_ref()) });
        match (
            &abort.http_status,
            abort.grpc_status.as_deref().and_then(grpc_code),
        ) {
            (_, Some(code)) => config["abort"]["grpc_status"] = json!(code),
            (status, None) => config["abort"]["http_status"] = json!(status.unwrap_or(500)),
        }
    }
    config
}

/// gRPC: "Status codes and their use in gRPC".
fn grpc_code(name: &str) -> Option<usize> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.iter().position(|known| *known == name)
}

fn cors(policy: &CorsPolicy) -> Value {
    let origins = policy.allow_origins.iter().flatten();
    let origins: Vec<Value> = origins
        .map(|origin| string_match(origin).to_value())
        .collect();
    let mut config = json!({
        "allow_origin_string_match": origins,
        "filter_enabled": { "default_value": { "numerator": 100, "denominator": "HUNDRED" } },
    });
    for (field, list) in [
        ("allow_methods", &policy.allow_methods),
        ("allow_headers", &policy.allow_headers),
        ("expose_headers", &policy.expose_headers),
    ] {
        if let Some(list) = list {
            config[field] = json!(list.join(","));
        }
    }
    let age = policy
        .max_age
        .as_deref()
        .and_then(|age| age.parse::<jiff::SignedDuration>().ok());
    if let Some(age) = age {
        config["max_age"] = json!(age.as_secs().to_string());
    }
    if let Some(credentials) = policy.allow_credentials {
        config["allow_credentials"] = json!(credentials);
    }
    config
}
