//! Services: defaults, validation, and the allocation of cluster IPs and node ports.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::names;
use crate::flags::{NODE_PORT_RANGE, SERVICE_CIDR};
use crate::meta::{fill, items, items_mut, map_at, text};
use crate::registry::Admit;
use crate::status::{Cause, Status};
use crate::store::State;

type Columns = &'static [(&'static str, i64, fn(&Value) -> Value)];

const TABLE: &str = "services.";
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
        if !text(spec, "/clusterIP").is_empty() && old.is_none() {
            causes.push(Cause::forbidden(
                "spec.clusterIPs[0]",
                "may not be set for ExternalName services",
            ));
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
    if let Some(old) = old {
        let before = text(old, "/spec/clusterIP");
        let now = text(spec, "/clusterIP");
        let keeps = |object: &str| object != "ExternalName";
        if !before.is_empty()
            && !now.is_empty()
            && before != now
            && keeps(kind)
            && keeps(text(old, "/spec/type"))
        {
            causes.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &json!([now]),
                "may not change once set",
            ));
        }
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

/// The addresses and node ports of all Services but one.
fn taken(state: &State, admit: &Admit<'_>) -> (BTreeSet<String>, BTreeSet<(String, i64)>) {
    let mut addresses = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for service in state.all(TABLE) {
        if text(service, "/metadata/name") == admit.name
            && text(service, "/metadata/namespace") == admit.namespace
        {
            continue;
        }
        addresses.insert(text(service, "/spec/clusterIP").to_owned());
        let protocol = |port: &Value| text(port, "/protocol").to_owned();
        ports.extend(
            items(service, "/spec/ports")
                .filter_map(|port| Some((protocol(port), port["nodePort"].as_i64()?))),
        );
        if let Some(check) = service
            .pointer("/spec/healthCheckNodePort")
            .and_then(Value::as_i64)
        {
            ports.insert(("TCP".to_owned(), check));
        }
    }
    (addresses, ports)
}

/// Allocates what the type needs, gives back what it does not (core/v1 `ServiceSpec`).
pub(super) fn admit(admit: &mut Admit<'_>) -> Result<(), Status> {
    let (addresses, mut ports) = taken(admit.state, admit);
    let kind = text(admit.new, "/spec/type").to_owned();
    let mut causes = Vec::new();
    keep(admit);
    if kind == "ExternalName" {
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
        let spec = &mut admit.new["spec"];
        fill(spec, "ipFamilies", json!(["IPv4"]));
        fill(spec, "ipFamilyPolicy", "SingleStack");
        allocate_address(admit, &addresses, &mut causes);
    }
    let wants_ports = kind == "NodePort"
        || (kind == "LoadBalancer"
            && admit.new.pointer("/spec/allocateLoadBalancerNodePorts")
                != Some(&Value::Bool(false)));
    let mut given: Vec<(Value, i64)> = Vec::new();
    for (at, port) in items_mut(&mut admit.new["spec"], "ports").enumerate() {
        let field = format!("spec.ports[{at}].nodePort");
        let protocol = text(port, "/protocol").to_owned();
        match port["nodePort"].as_i64().filter(|port| *port != 0) {
            Some(_) if !wants_ports && kind != "LoadBalancer" => {
                causes.push(Cause::forbidden(
                    field,
                    &format!("may not be used when `type` is '{kind}'"),
                ));
            }
            Some(number) => allocate_given(number, &protocol, &field, &mut ports, &mut causes),
            None if wants_ports => {
                // TCP and UDP on one port share one node port.
                let same = given
                    .iter()
                    .find(|(service_port, _)| *service_port == port["port"])
                    .map(|(_, number)| *number);
                let free = same
                    .filter(|number| !ports.contains(&(protocol.clone(), *number)))
                    .or_else(|| free_port(&protocol, &ports));
                match free {
                    Some(number) => {
                        ports.insert((protocol, number));
                        given.push((port["port"].clone(), number));
                        port["nodePort"] = number.into();
                    }
                    None => causes.push(Cause::invalid(field, &0.into(), "range is full")),
                }
            }
            None => {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
        }
    }
    let local = kind == "LoadBalancer" && text(admit.new, "/spec/externalTrafficPolicy") == "Local";
    let check = admit
        .new
        .pointer("/spec/healthCheckNodePort")
        .and_then(Value::as_i64);
    let spec = map_at(admit.new, "spec");
    match (local, check) {
        (true, None | Some(0)) => {
            if let Some(number) = free_port("TCP", &ports) {
                spec.insert("healthCheckNodePort".to_owned(), number.into());
            }
        }
        (false, _) => {
            spec.remove("healthCheckNodePort");
        }
        (true, Some(_)) => {}
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(admit.kind, admit.name, &causes))
    }
}

fn allocate_given(
    number: i64,
    protocol: &str,
    field: &str,
    ports: &mut BTreeSet<(String, i64)>,
    causes: &mut Vec<Cause>,
) {
    let in_range = u16::try_from(number).is_ok_and(|port| NODE_PORT_RANGE.contains(&port));
    if !in_range {
        let why = format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            NODE_PORT_RANGE.start(),
            NODE_PORT_RANGE.end()
        );
        causes.push(Cause::invalid(field, &number.into(), &why));
    } else if !ports.insert((protocol.to_owned(), number)) {
        causes.push(Cause::invalid(
            field,
            &number.into(),
            "provided port is already allocated",
        ));
    }
}

/// Takes over what the old object had and the new one leaves out, as updates without it mean it.
fn keep(admit: &mut Admit<'_>) {
    let Some(old) = admit.old else { return };
    let outside = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if text(admit.new, "/spec/type") != "ExternalName" && text(old, "/spec/type") != "ExternalName"
    {
        for field in ["clusterIP", "clusterIPs"] {
            let value = old["spec"].get(field).cloned().unwrap_or_default();
            if !value.is_null() {
                fill(&mut admit.new["spec"], field, value);
            }
        }
    }
    if outside(text(admit.new, "/spec/type")) && outside(text(old, "/spec/type")) {
        let had: Vec<(Value, Value, Value)> = items(old, "/spec/ports")
            .map(|port| {
                (
                    port["protocol"].clone(),
                    port["port"].clone(),
                    port["nodePort"].clone(),
                )
            })
            .collect();
        for port in items_mut(&mut admit.new["spec"], "ports") {
            let found = had.iter().find(|(protocol, number, _)| {
                *protocol == port["protocol"] && *number == port["port"]
            });
            if let Some((_, _, node_port)) = found.filter(|(_, _, node_port)| !node_port.is_null())
            {
                fill(port, "nodePort", node_port.clone());
            }
        }
    } else if outside(text(old, "/spec/type")) {
        // A change to a type without node ports gives them back where they are the old ones.
        let had: Vec<Value> = items(old, "/spec/ports")
            .map(|port| port["nodePort"].clone())
            .collect();
        for port in items_mut(&mut admit.new["spec"], "ports") {
            if had.contains(&port["nodePort"]) {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
        }
    }
}

fn allocate_address(admit: &mut Admit<'_>, addresses: &BTreeSet<String>, causes: &mut Vec<Cause>) {
    let wanted = text(admit.new, "/spec/clusterIP").to_owned();
    let network: Option<Ipv4Net> = SERVICE_CIDR.parse().ok();
    let address = match wanted.as_str() {
        "None" => Some("None".to_owned()),
        "" => network.and_then(|network| free_address(network, addresses)),
        given => {
            let parsed = given.parse::<Ipv4Addr>().ok();
            if !parsed
                .zip(network)
                .is_some_and(|(address, network)| network.contains(&address))
            {
                let why = format!(
                    "failed to allocate IP {given}: the provided IP ({given}) is not in the valid range. The range of valid IPs is {SERVICE_CIDR}"
                );
                causes.push(Cause::invalid("spec.clusterIPs", &json!([given]), &why));
            } else if addresses.contains(given) {
                let why =
                    format!("failed to allocate IP {given}: provided IP is already allocated");
                causes.push(Cause::invalid("spec.clusterIPs", &json!([given]), &why));
            }
            Some(given.to_owned())
        }
    };
    let spec = map_at(admit.new, "spec");
    if let Some(address) = address {
        spec.insert("clusterIPs".to_owned(), json!([address]));
        spec.insert("clusterIP".to_owned(), address.into());
    } else {
        causes.push(Cause::invalid(
            "spec.clusterIPs",
            &json!([]),
            "failed to allocate a serviceIP: range is full",
        ));
    }
}

/// A free address by chance, outside the lowest 256, which are for those who ask for one.
fn free_address(network: Ipv4Net, taken: &BTreeSet<String>) -> Option<String> {
    use rand::RngExt as _;
    let first = u32::from(network.network()) + 256;
    let last = u32::from(network.broadcast()) - 1;
    let start = rand::rng().random_range(first..=last);
    (start..=last)
        .chain(first..start)
        .map(|address| Ipv4Addr::from(address).to_string())
        .find(|address| !taken.contains(address))
}

fn free_port(protocol: &str, taken: &BTreeSet<(String, i64)>) -> Option<i64> {
    use rand::RngExt as _;
    let (first, last) = (
        i64::from(*NODE_PORT_RANGE.start()),
        i64::from(*NODE_PORT_RANGE.end()),
    );
    // The lowest 86 are for those who ask for one (KEP-3668).
    let start = rand::rng().random_range(first + 86..=last);
    (start..=last)
        .chain(first..start)
        .find(|port| !taken.contains(&(protocol.to_owned(), *port)))
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
