//! Services: defaults and validation; what is allocated for them has files of its own.

mod cluster_ips;
mod node_ports;

use serde_json::{Value, json};

use super::names;
use crate::meta::{fill, items, items_mut, map_at, text};
use crate::registry::Admit;
use crate::status::{Cause, Status};

type Columns = &'static [(&'static str, i64, fn(&Value) -> Value)];

const TABLE: &str = "services.";
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(super) fn default(object: &mut Value) {
    map_at(object, "spec");
    let spec = &mut object["spec"];
    fill(spec, "type", "ClusterIP");
    fill(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        fill(
            spec,
            "sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 10800}}),
        );
    } else {
        spec.as_object_mut()
            .map(|spec| spec.remove("sessionAffinityConfig"));
    }
    let external = spec["type"] == "ExternalName";
    let outside = matches!(text(spec, "/type"), "NodePort" | "LoadBalancer");
    if !external {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if outside {
        fill(spec, "externalTrafficPolicy", "Cluster");
    } else {
        spec.as_object_mut()
            .map(|spec| spec.remove("externalTrafficPolicy"));
    }
    if spec["type"] == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    } else {
        spec.as_object_mut()
            .map(|spec| spec.remove("allocateLoadBalancerNodePorts"));
    }
    for port in items_mut(spec, "ports") {
        fill(port, "protocol", "TCP");
        let number = port["port"].clone();
        fill(port, "targetPort", number);
        if port["targetPort"] == "" || port["targetPort"] == 0 {
            port["targetPort"] = port["port"].clone();
        }
    }
    map_at(object, "status");
    fill(&mut object["status"], "loadBalancer", json!({}));
}

pub(super) fn validate(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if old.is_none() {
        names::label_1035("metadata.name", text(new, "/metadata/name"), causes);
    }
    let spec = &new["spec"];
    let kind = text(spec, "/type");
    if !TYPES.contains(&kind) {
        causes.push(Cause::unsupported("spec.type", &kind.into(), TYPES));
    }
    let affinity = text(spec, "/sessionAffinity");
    if !matches!(affinity, "ClientIP" | "None") {
        causes.push(Cause::unsupported(
            "spec.sessionAffinity",
            &affinity.into(),
            &["ClientIP", "None"],
        ));
    }
    let distribution = spec.get("trafficDistribution").filter(|it| !it.is_null());
    if distribution.is_some_and(|it| !it.as_str().is_some_and(|it| DISTRIBUTIONS.contains(&it))) {
        let value = distribution.cloned().unwrap_or_default();
        causes.push(Cause::unsupported(
            "spec.trafficDistribution",
            &value,
            DISTRIBUTIONS,
        ));
    }
    let seconds = spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds");
    if seconds.is_some_and(|value| {
        !value
            .as_i64()
            .is_some_and(|seconds| (1..=86_400).contains(&seconds))
    }) {
        let value = seconds.cloned().unwrap_or_default();
        causes.push(Cause::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            &value,
            "must be between 0 and 86400",
        ));
    }
    let headless = text(spec, "/clusterIP") == "None";
    if kind == "ExternalName" {
        let name = text(spec, "/externalName").trim_end_matches('.');
        if name.is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        } else {
            names::subdomain("spec.externalName", name, causes);
        }
        if old.is_none_or(|old| text(old, "/spec/type") == "ExternalName") {
            cluster_ips::forbid(spec, causes);
        }
    } else {
        validate_ports(spec, headless, causes);
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &"None".into(),
            &format!("may not be set to 'None' for {kind} services"),
        ));
    }
}

fn validate_ports(spec: &Value, headless: bool, causes: &mut Vec<Cause>) {
    let ports: Vec<&Value> = items(spec, "/ports").collect();
    if ports.is_empty() && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    let mut seen: Vec<(String, Value)> = Vec::new();
    let mut names_seen: Vec<&str> = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{at}]");
        names::port(format!("{field}.port"), &port["port"], causes);
        if port["targetPort"].is_number() {
            names::port(format!("{field}.targetPort"), &port["targetPort"], causes);
        }
        let protocol = text(port, "/protocol");
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            causes.push(Cause::unsupported(
                format!("{field}.protocol"),
                &protocol.into(),
                &["SCTP", "TCP", "UDP"],
            ));
        }
        let name = text(port, "/name");
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(format!("{field}.name"), ""));
        } else if !name.is_empty() {
            names::label(&format!("{field}.name"), name, causes);
            if names_seen.contains(&name) {
                causes.push(Cause::duplicate(format!("{field}.name"), &name.into()));
            }
            names_seen.push(name);
        }
        let key = (protocol.to_owned(), port["port"].clone());
        if seen.contains(&key) {
            causes.push(Cause::duplicate(
                field.clone(),
                &json!({"protocol": protocol, "port": port["port"]}),
            ));
        }
        seen.push(key);
    }
}

/// The Services beside the one that is about to be written.
fn others<'a>(admit: &Admit<'a>) -> impl Iterator<Item = &'a Value> + use<'a> {
    let (namespace, name) = (admit.namespace, admit.name);
    let others = admit.state.all(TABLE).filter(move |service| {
        text(service, "/metadata/name") != name || text(service, "/metadata/namespace") != namespace
    });
    others.map(AsRef::as_ref)
}

/// Whether a Service leaves its endpoints to somebody else.
fn selects_nothing(spec: &Value) -> bool {
    let selector = spec.get("selector").and_then(Value::as_object);
    selector.is_none_or(serde_json::Map::is_empty)
}

/// Allocates what the type needs, gives back what it does not (core/v1 `ServiceSpec`).
pub(super) fn admit(admit: &mut Admit<'_>) -> Result<(), Status> {
    if text(admit.new, "/spec/type") == "ExternalName" {
        let spec = map_at(admit.new, "spec");
        for field in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
            "healthCheckNodePort",
        ] {
            spec.remove(field);
        }
    } else {
        cluster_ips::admit(admit)?;
    }
    node_ports::admit(admit)
}

fn external_ip(service: &Value) -> Value {
    let addresses: Vec<&str> = items(service, "/status/loadBalancer/ingress")
        .map(|one| text(one, "/ip"))
        .collect();
    match text(service, "/spec/type") {
        "LoadBalancer" if addresses.is_empty() => "<pending>".into(),
        "LoadBalancer" => addresses.join(",").into(),
        "ExternalName" => text(service, "/spec/externalName").into(),
        _ => "<none>".into(),
    }
}

fn ports(service: &Value) -> Value {
    let list: Vec<String> = items(service, "/spec/ports")
        .map(|port| match port["nodePort"].as_i64() {
            Some(node) => format!("{}:{node}/{}", port["port"], text(port, "/protocol")),
            None => format!("{}/{}", port["port"], text(port, "/protocol")),
        })
        .collect();
    if list.is_empty() {
        "<none>".into()
    } else {
        list.join(",").into()
    }
}

fn selector(service: &Value) -> Value {
    crate::table::labels_or_none(service, "/spec/selector")
}

pub(super) const COLUMNS: Columns = &[
    ("Type", 0, |service| service["spec"]["type"].clone()),
    ("Cluster-IP", 0, |service| {
        crate::table::or_none(service, "/spec/clusterIP")
    }),
    ("External-IP", 0, external_ip),
    ("Port(s)", 0, ports),
    ("Age", 0, crate::table::age),
    ("Selector", 1, selector),
];
