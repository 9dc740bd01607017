//! EndpointSlices and Ingresses.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::names;
use crate::meta::{fill, items, map_at, text};
use crate::registry::Admit;
use crate::status::{Cause, Status};
use crate::table::or_none;

type Columns = &'static [(&'static str, i64, fn(&Value) -> Value)];

pub(super) fn validate_slice(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let family = text(new, "/addressType");
    if !matches!(family, "IPv4" | "IPv6" | "FQDN") {
        causes.push(Cause::unsupported(
            "addressType",
            &family.into(),
            &["FQDN", "IPv4", "IPv6"],
        ));
    }
    if old.is_some_and(|old| old["addressType"] != new["addressType"]) {
        causes.push(Cause::invalid(
            "addressType",
            &family.into(),
            "field is immutable",
        ));
    }
    for (at, endpoint) in items(new, "/endpoints").enumerate() {
        let mut count = 0;
        for (number, address) in items(endpoint, "/addresses").enumerate() {
            count += 1;
            let field = format!("endpoints[{at}].addresses[{number}]");
            let parsed = address
                .as_str()
                .and_then(|address| address.parse::<std::net::IpAddr>().ok());
            let fits = match family {
                "IPv4" => parsed.is_some_and(|address| address.is_ipv4()),
                "IPv6" => parsed.is_some_and(|address| address.is_ipv6()),
                _ => true,
            };
            if !fits {
                causes.push(Cause::invalid(
                    field,
                    address,
                    &format!("must be a valid {family} address"),
                ));
            } else if parsed.is_some_and(|address| address.is_loopback()) {
                causes.push(Cause::invalid(
                    field,
                    address,
                    "may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ));
            }
        }
        if count == 0 {
            causes.push(Cause::required(
                format!("endpoints[{at}].addresses"),
                "must contain at least 1 address",
            ));
        }
    }
}

/// Ingress (networking.k8s.io/v1, `validateIngress`).
pub(super) fn validate_ingress(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let annotated = new.pointer("/metadata/annotations/kubernetes.io~1ingress.class");
    if let (Some(class), None, false) = (annotated, old, text(spec, "/ingressClassName").is_empty())
    {
        let field = "annotations.kubernetes.io/ingress.class";
        let why = "can not be set when the class field is also set";
        causes.push(Cause::invalid(field, class, why));
    }
    for (at, entry) in items(spec, "/tls").enumerate() {
        for (number, host) in items(entry, "/hosts").enumerate() {
            let field = format!("spec.tls[{at}].hosts[{number}]");
            validate_host_name(host.as_str().unwrap_or_default(), &field, causes);
        }
    }
    let rules: Vec<&Value> = items(spec, "/rules").collect();
    if rules.is_empty() && spec.get("defaultBackend").is_none() {
        let invalid = Cause::invalid(
            "spec",
            &json!([]),
            "either `defaultBackend` or `rules` must be specified",
        );
        causes.push(invalid);
    }
    if let Some(backend) = spec.get("defaultBackend") {
        validate_backend(backend, "spec.defaultBackend", causes);
    }
    for (at, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{at}]");
        validate_host(text(rule, "/host"), &format!("{field}.host"), causes);
        let Some(http) = rule.get("http") else {
            continue;
        };
        let paths: Vec<&Value> = items(http, "/paths").collect();
        if paths.is_empty() {
            causes.push(Cause::required(format!("{field}.http.paths"), ""));
        }
        for (at, path) in paths.iter().enumerate() {
            validate_path(path, &format!("{field}.http.paths[{at}]"), causes);
        }
    }
}

fn validate_host(host: &str, field: &str, causes: &mut Vec<Cause>) {
    if host.parse::<std::net::IpAddr>().is_ok() {
        let why = "must be a DNS name, not an IP address";
        causes.push(Cause::invalid(field, &host.into(), why));
    } else if !host.is_empty() {
        validate_host_name(host, field, causes);
    }
}

fn validate_host_name(host: &str, field: &str, causes: &mut Vec<Cause>) {
    match host.strip_prefix("*.") {
        Some(rest) if names::is_subdomain(rest) => {}
        Some(_) => {
            let why = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
            causes.push(Cause::invalid(field, &host.into(), why));
        }
        None => names::subdomain(field, host, causes),
    }
}

fn validate_path(path: &Value, field: &str, causes: &mut Vec<Cause>) {
    let kind = text(path, "/pathType");
    let value = text(path, "/path");
    match kind {
        "" => causes.push(Cause::required(
            format!("{field}.pathType"),
            "pathType must be specified",
        )),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                causes.push(Cause::invalid(
                    format!("{field}.path"),
                    &value.into(),
                    "must be an absolute path",
                ));
            }
            for wrong in ["//", "/./", "/../", "%2f", "%2F"] {
                if value.contains(wrong) {
                    causes.push(Cause::invalid(
                        format!("{field}.path"),
                        &value.into(),
                        &format!("must not contain '{wrong}'"),
                    ));
                }
            }
            for wrong in ["/..", "/."] {
                if value.ends_with(wrong) {
                    let why = format!("cannot end with '{wrong}'");
                    causes.push(Cause::invalid(format!("{field}.path"), &value.into(), &why));
                }
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                causes.push(Cause::invalid(
                    format!("{field}.path"),
                    &value.into(),
                    "must be an absolute path",
                ));
            }
        }
        other => causes.push(Cause::unsupported(
            format!("{field}.pathType"),
            &other.into(),
            &["Exact", "ImplementationSpecific", "Prefix"],
        )),
    }
    validate_backend(
        path.get("backend").unwrap_or(&Value::Null),
        &format!("{field}.backend"),
        causes,
    );
}

fn validate_backend(backend: &Value, field: &str, causes: &mut Vec<Cause>) {
    let service = backend.get("service").filter(|service| !service.is_null());
    let resource = backend
        .get("resource")
        .filter(|resource| !resource.is_null());
    match (service, resource) {
        (Some(_), Some(_)) => causes.push(Cause::invalid(
            field,
            &json!(""),
            "cannot set both resource and service backends",
        )),
        (None, None) => causes.push(Cause::required(
            field,
            "resource or service backend is required",
        )),
        (None, Some(_)) => {}
        (Some(service), None) => {
            let name = text(service, "/name");
            if name.is_empty() {
                causes.push(Cause::required(format!("{field}.service.name"), ""));
            } else {
                names::label_1035(&format!("{field}.service.name"), name, causes);
            }
            let number = service
                .pointer("/port/number")
                .and_then(Value::as_i64)
                .unwrap_or(0);
            match (text(service, "/port/name"), number) {
                ("", 0) => causes.push(Cause::required(
                    format!("{field}.service.port"),
                    "port name or number is required",
                )),
                ("", number) => names::port(
                    format!("{field}.service.port.number"),
                    &number.into(),
                    causes,
                ),
                (_, 0) => {}
                _ => causes.push(Cause::invalid(
                    format!("{field}.service.port"),
                    &json!(""),
                    "cannot set both port name & port number",
                )),
            }
        }
    }
}

/// An Ingress without a class takes the default one (admission plugin DefaultIngressClass).
pub(super) fn admit_ingress(admit: &mut Admit<'_>) -> Result<(), Status> {
    let annotated = admit
        .new
        .pointer("/metadata/annotations/kubernetes.io~1ingress.class")
        .is_some();
    if admit.old.is_some()
        || annotated
        || admit
            .new
            .pointer("/spec/ingressClassName")
            .is_some_and(|name| !name.is_null())
    {
        return Ok(());
    }
    let classes = admit.state.all("ingressclasses.networking.k8s.io");
    if let Some(name) = default_class(classes.map(|class| &**class)) {
        map_at(admit.new, "spec").insert("ingressClassName".to_owned(), name.into());
    }
    Ok(())
}

/// The name of the default class: of several the newest, and of several that are as new the first by name.
fn default_class<'a>(classes: impl Iterator<Item = &'a Value>) -> Option<String> {
    let marked = "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class";
    let name = |class: &Value| text(class, "/metadata/name").to_owned();
    let made = |class: &Value| text(class, "/metadata/creationTimestamp").to_owned();
    let marked = classes.filter(|class| text(class, marked) == "true");
    let newest = marked.min_by_key(|class| (Reverse(made(class)), name(class)));
    newest.map(name)
}

pub(super) fn default_ingress(object: &mut Value) {
    map_at(object, "status");
    fill(&mut object["status"], "loadBalancer", json!({}));
}

pub(super) const INGRESS: Columns = &[
    ("Class", 0, |object| {
        or_none(object, "/spec/ingressClassName")
    }),
    ("Hosts", 0, |object| {
        let hosts: Vec<&str> = items(object, "/spec/rules")
            .map(|rule| text(rule, "/host"))
            .filter(|host| !host.is_empty())
            .collect();
        if hosts.is_empty() {
            "*".into()
        } else {
            hosts.join(",").into()
        }
    }),
    ("Address", 0, |object| {
        let addresses: Vec<&str> = items(object, "/status/loadBalancer/ingress")
            .map(|one| text(one, "/ip"))
            .collect();
        addresses.join(",").into()
    }),
    ("Ports", 0, |object| {
        if items(object, "/spec/tls").next().is_some() {
            "80, 443".into()
        } else {
            "80".into()
        }
    }),
];

pub(super) const INGRESS_CLASS: Columns = &[
    ("Controller", 0, |object| {
        or_none(object, "/spec/controller")
    }),
    ("Parameters", 0, |_| "<none>".into()),
];

pub(super) const SLICE: Columns = &[
    ("AddressType", 0, |object| object["addressType"].clone()),
    ("Ports", 0, |object| {
        let ports: Vec<String> = items(object, "/ports")
            .map(|port| port["port"].to_string())
            .collect();
        if ports.is_empty() {
            "<unset>".into()
        } else {
            ports.join(",").into()
        }
    }),
    ("Endpoints", 0, |object| {
        let addresses: Vec<&str> = items(object, "/endpoints")
            .flat_map(|one| items(one, "/addresses"))
            .filter_map(Value::as_str)
            .collect();
        match addresses.len() {
            0 => "<unset>".into(),
            1..=3 => addresses.join(",").into(),
            more => format!("{} + {} more...", addresses[..3].join(","), more - 3).into(),
        }
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_default_classes_the_newest_is_taken() {
        let class = |name: &str, default: &str, second: u8| {
            json!({"metadata": {
                "name": name, "creationTimestamp": format!("2026-01-01T00:00:0{second}Z"),
                "annotations": {"ingressclass.kubernetes.io/is-default-class": default},
            }})
        };
        let old = class("a", "true", 1);
        let (new, as_new) = (class("c", "true", 2), class("b", "true", 2));
        let newest_of_all = class("d", "false", 3);
        let taken = |classes: &[&Value]| default_class(classes.iter().copied());
        assert_eq!(taken(&[&newest_of_all]), None);
        assert_eq!(taken(&[&old, &newest_of_all]).as_deref(), Some("a"));
        assert_eq!(taken(&[&old, &new, &newest_of_all]).as_deref(), Some("c"));
        assert_eq!(taken(&[&new, &as_new, &old]).as_deref(), Some("b"));
    }
}
