//! Bytes that are passed on: of TLS by the server name that a client asks for, of TCP by the port alone.
//!
//! Start from [`listener`]. What is in them is nobody's business here. TLS ends at the backend
//! (Passthrough) or at the listener (Terminate). A server name that no route has is told nothing: the
//! connection is closed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::SECRETS;
use super::host::Hostname;
use super::listener::{Listener, Protocol};
use super::port::Port;
use super::rule::{MISSING, Rules};
use super::translate::{Served, owner};
use crate::l7::envoy::listener::{
    address, tcp_proxy, tcp_proxy_weighted, terminate_tls_with, tls_inspector,
};
use crate::l7::envoy::route::Action;

/// Envoy's listener of a port whose listeners speak TLS, or TCP; `here` are their places in the Gateway.
pub(super) fn listener(
    port: &Port,
    listeners: &[Listener<'_>],
    here: &[usize],
    served: &[Served],
) -> Value {
    let mut listener = json!({
        "name": port.name,
        "address": address("0.0.0.0", port.target),
    });
    // Who waits for TLS keeps those waiting who send nothing before they are told something.
    if here
        .iter()
        .any(|index| listeners[*index].protocol == Some(Protocol::Tls))
    {
        listener["listener_filters"] = json!([tls_inspector()]);
    }
    let mut chains = Vec::new();
    for (host, entry) in by_host(listeners, here, served) {
        let found = &listeners[entry.listener];
        let mut chain = json!({
            "name": format!("{}/{}", found.name(), host.domain()),
            "filters": [proxy(&entry.rules)],
        });
        if found.ends_tls() {
            let names = found.certificates.keys().map(String::as_str);
            chain["transport_socket"] = terminate_tls_with(SECRETS, names);
        }
        if *host == Hostname::Any {
            listener["default_filter_chain"] = chain;
        } else {
            chain["filter_chain_match"] = json!({ "server_names": [host.domain()] });
            chains.push(chain);
        }
    }
    if chains.is_empty() && listener.get("default_filter_chain").is_none() {
        // Envoy takes no listener without a chain.
        listener["default_filter_chain"] = json!({ "filters": [tcp_proxy(MISSING)] });
    }
    if !chains.is_empty() {
        listener["filter_chains"] = json!(chains);
    }
    listener
}

/// Who has each host: the oldest route of the most specific listener, in whose order they come.
fn by_host<'a>(
    listeners: &[Listener<'_>],
    here: &[usize],
    served: &'a [Served],
) -> BTreeMap<&'a Hostname, &'a Served> {
    let mut found = BTreeMap::new();
    for entry in served {
        for host in &entry.hosts {
            if owner(host, listeners, here) == Some(entry.listener) {
                found.entry(host).or_insert(entry);
            }
        }
    }
    found
}

/// To the backends of a route's first rule: there is only one (`maxItems: 1`).
fn proxy(rules: &Rules) -> Value {
    match rules.routes.first().map(|(_, route)| &route.action) {
        Some(Action::Forward(forward)) => tcp_proxy_weighted(&forward.clusters),
        _ => tcp_proxy(MISSING),
    }
}
