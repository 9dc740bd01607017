//! Where pods and Services are reached, for `proxy` (`ResourceLocation` of their registries).

use std::net::SocketAddr;

use rand::seq::IndexedRandom as _;
use serde_json::Value;

use crate::meta::{items, text};
use crate::proxy::Place;
use crate::status::Status;
use crate::store::State;

/// The port of a URL that says none.
const fn usual(place: &Place<'_>) -> u16 {
    if place.secure { 443 } else { 80 }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}

/// A pod's address, and the port that is named, or else its first.
pub(super) fn pod(state: &State, namespace: &str, place: &Place<'_>) -> Result<SocketAddr, Status> {
    let name = place.name;
    let pod = state.get("pods.", namespace, name);
    let pod = pod.ok_or_else(|| Status::not_found(super::pod(), name))?;
    let address = text(pod, "/status/podIP").parse();
    let address = address.map_err(|_| Status::bad_request("address not allowed"))?;
    let port = match place.port {
        "" => {
            let ports = items(pod, "/spec/containers").flat_map(|one| items(one, "/ports"));
            let first = ports
                .filter_map(|port| number(&port["containerPort"]))
                .next();
            first.unwrap_or_else(|| usual(place))
        }
        port => port.parse().map_err(|_| {
            Status::service_unavailable(format!(
                "error trying to reach service: dial tcp: lookup tcp/{port}: unknown port"
            ))
        })?,
    };
    Ok(SocketAddr::new(address, port))
}

/// One of a Service's ready endpoints.
pub(super) fn service(
    state: &State,
    namespace: &str,
    place: &Place<'_>,
) -> Result<SocketAddr, Status> {
    let name = place.name;
    let mut port = place.port;
    if let Ok(wanted) = port.parse::<u16>() {
        let service = state.get("services.", namespace, name);
        let service = service.ok_or_else(|| Status::not_found(super::service(), name))?;
        let mut ports = items(service, "/spec/ports");
        let found = ports.find(|one| number(&one["port"]) == Some(wanted));
        let found = found.ok_or_else(|| {
            Status::service_unavailable(format!(
                "no service port {wanted} found for service {name:?}"
            ))
        })?;
        // Endpoints have it under its name.
        port = text(found, "/name");
    }
    let endpoints = state.get("endpoints.", namespace, name);
    // What is missing is said to be of the kind that was asked for.
    let endpoints = endpoints.ok_or_else(|| Status::not_found(super::service(), name))?;
    let none = |what: &str| {
        Status::service_unavailable(format!("no endpoints available for service {what:?}"))
    };
    if items(endpoints, "/subsets").next().is_none() {
        return Err(none(name));
    }
    let targets = items(endpoints, "/subsets").flat_map(|subset| {
        let ports = items(subset, "/ports").filter(|one| text(one, "/name") == port);
        let ports: Vec<u16> = ports.filter_map(|one| number(&one["port"])).collect();
        items(subset, "/addresses").flat_map(move |address| {
            let address = text(address, "/ip").parse().ok();
            let targets = ports.clone().into_iter();
            targets.filter_map(move |port| Some(SocketAddr::new(address?, port)))
        })
    });
    let targets: Vec<SocketAddr> = targets.collect();
    let chosen = targets.choose(&mut rand::rng()).copied();
    chosen.ok_or_else(|| none(place.text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state() -> State {
        let mut state = State::default();
        let mut put = |table: &str, name: &str, object: Value| {
            state.put(table, ("n".to_owned(), name.to_owned()), object);
        };
        let spec = json!({"containers": [{"ports": [{"containerPort": 8080}]}]});
        put(
            "pods.",
            "p",
            json!({"metadata": {}, "spec": spec, "status": {"podIP": "10.244.1.2"}}),
        );
        put("pods.", "waiting", json!({"metadata": {}, "spec": spec}));
        let ports = json!({"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]});
        put("services.", "web", json!({"metadata": {}, "spec": ports}));
        put("services.", "empty", json!({"metadata": {}, "spec": ports}));
        let subset = json!({
            "addresses": [{"ip": "10.244.1.2"}], "notReadyAddresses": [{"ip": "10.244.1.3"}],
            "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}],
        });
        put(
            "endpoints.",
            "web",
            json!({"metadata": {}, "subsets": [subset]}),
        );
        put("endpoints.", "empty", json!({"metadata": {}}));
        state
    }

    #[test]
    fn a_place_has_one_address_or_a_reason_why_not() {
        let state = state();
        let is = |found: Result<SocketAddr, Status>, expected: &str| {
            let said = found.map_or_else(|why| why.message, |address| address.to_string());
            assert_eq!(said, expected);
        };
        let place = |text| Place::of(text).unwrap();
        is(pod(&state, "n", &place("p")), "10.244.1.2:8080");
        is(pod(&state, "n", &place("p:81")), "10.244.1.2:81");
        is(pod(&state, "n", &place("waiting")), "address not allowed");
        is(pod(&state, "n", &place("q")), "pods \"q\" not found");
        is(service(&state, "n", &place("web:80")), "10.244.1.2:8080");
        is(service(&state, "n", &place("web:admin")), "10.244.1.2:9090");
        is(
            service(&state, "n", &place("web:8080")),
            "no service port 8080 found for service \"web\"",
        );
        is(
            service(&state, "n", &place("empty:80")),
            "no endpoints available for service \"empty\"",
        );
        is(
            service(&state, "n", &place("web")),
            "no endpoints available for service \"web\"",
        );
        is(
            service(&state, "n", &place("https:web:absent")),
            "no endpoints available for service \"https:web:absent\"",
        );
        is(
            service(&state, "n", &place("q")),
            "services \"q\" not found",
        );
        is(
            service(&state, "n", &place("q:80")),
            "services \"q\" not found",
        );
    }
}
