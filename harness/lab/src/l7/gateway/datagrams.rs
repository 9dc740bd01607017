//! Datagrams that are passed on, by the port alone.
//!
//! Start from [`serve`]. Envoy's filter knows one cluster, so the backends of a route become the localities
//! of one, each with its weight. A share whose backend is invalid is sent where nobody listens: "packets
//! must be rejected", and nobody tells a sender of datagrams more.

use serde_json::{Value, json};

use super::port::Port;
use super::rule::{MISSING, Rules};
use super::translate::Served;
use crate::l7::envoy::route::{Action, WeightedCluster};
use crate::l7::envoy::{Snapshot, typed};

/// Adds the listener of a port, and the cluster that its oldest route leads to.
pub(super) fn serve(port: &Port, here: &[usize], served: &[Served], snapshot: &mut Snapshot) {
    let route = served.iter().find(|entry| here.contains(&entry.listener));
    let shares = route.map(|entry| shares(&entry.rules)).unwrap_or_default();
    let cluster = match shares.as_slice() {
        [] => MISSING.to_owned(),
        [only] => only.name.clone(),
        several => {
            let shared = shared(&port.name, several, &snapshot.clusters);
            snapshot.clusters.push(shared);
            port.name.clone()
        }
    };
    snapshot.listeners.push(listener(port, &cluster));
}

fn shares(rules: &Rules) -> Vec<WeightedCluster> {
    match rules.routes.first().map(|(_, route)| &route.action) {
        Some(Action::Forward(forward)) => forward.clusters.clone(),
        _ => Vec::new(),
    }
}

/// A cluster of the endpoints of several.
fn shared(name: &str, shares: &[WeightedCluster], known: &[Value]) -> Value {
    let endpoints = |share: &WeightedCluster| {
        let found = known.iter().find(|cluster| cluster["name"] == share.name);
        let found = found.map(|cluster| cluster["load_assignment"]["endpoints"][0].clone());
        found.filter(Value::is_object).unwrap_or_else(nobody)
    };
    let localities: Vec<Value> = shares
        .iter()
        .map(|share| {
            let mut locality = endpoints(share);
            locality["locality"] = json!({ "sub_zone": share.name });
            locality["load_balancing_weight"] = json!(share.weight);
            locality
        })
        .collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": { "cluster_name": name, "endpoints": localities },
        "common_lb_config": { "healthy_panic_threshold": {}, "locality_weighted_lb_config": {} },
    })
}

/// An address where datagrams end: the port for discarding them, which nobody serves.
fn nobody() -> Value {
    let address =
        json!({ "socket_address": { "protocol": "UDP", "address": "127.0.0.1", "port_value": 9 } });
    json!({ "lb_endpoints": [{ "endpoint": { "address": address } }] })
}

fn listener(port: &Port, cluster: &str) -> Value {
    let route = typed(
        "envoy.extensions.filters.udp.udp_proxy.v3.Route",
        json!({ "cluster": cluster }),
    );
    let proxy = json!({
        "stat_prefix": port.name,
        "matcher": { "on_no_match": { "action": { "name": "route", "typed_config": route } } },
    });
    json!({
        "name": port.name,
        "address": { "socket_address": {
            "protocol": "UDP", "address": "0.0.0.0", "port_value": port.target,
        } },
        "udp_listener_config": {},
        "listener_filters": [{
            "name": "envoy.filters.udp_listener.udp_proxy",
            "typed_config": typed("envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig", proxy),
        }],
    })
}
