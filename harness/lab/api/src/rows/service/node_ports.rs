//! A Service's node ports.
//!
//! Start from [`admit`], which follows `txnAllocNodePorts` and `txnUpdateNodePorts` of Kubernetes'
//! `pkg/registry/core/service/storage/alloc.go`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::flags::NODE_PORT_RANGE;
use crate::meta::{fill, items, items_mut, map_at, text};
use crate::registry::Admit;
use crate::status::{Cause, Status};

/// Ports of the nodes, by protocol.
type Ports = BTreeSet<(String, i64)>;

/// The node ports of the Services that are not meant.
fn taken(admit: &Admit<'_>) -> Ports {
    let mut ports = BTreeSet::new();
    for service in super::others(admit) {
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
    ports
}

/// Allocates what the type needs, gives back what it does not.
pub(super) fn admit(admit: &mut Admit<'_>) -> Result<(), Status> {
    let mut ports = taken(admit);
    let kind = text(admit.new, "/spec/type").to_owned();
    let mut causes = Vec::new();
    keep(admit);
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
    ports: &mut Ports,
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

fn free_port(protocol: &str, taken: &Ports) -> Option<i64> {
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
