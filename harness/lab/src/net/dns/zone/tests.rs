//! What is kept, and what would be made anew.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn object<K: serde::de::DeserializeOwned>(value: Value) -> Option<Arc<K>> {
    serde_json::from_value(value).ok().map(Arc::new)
}

/// A Service in a state: where it is, and what of it.
fn service((name, state): (u8, u8)) -> Option<Arc<Service>> {
    let spec = match state {
        0 => {
            json!({"clusterIP": format!("10.96.0.{name}"), "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]})
        }
        1 => json!({"clusterIP": "None"}),
        2 => json!({"type": "ExternalName", "externalName": "example.com"}),
        // An address that endpoints have, too.
        _ => json!({"clusterIP": "10.96.0.200", "ports": [{"port": 80, "protocol": "TCP"}]}),
    };
    object(
        json!({"metadata": {"namespace": format!("ns-{}", name % 2), "name": format!("s{name}")}, "spec": spec}),
    )
}

/// An EndpointSlice of a Service with these endpoints.
fn slice((name, number, endpoints): (u8, u8, Vec<u8>)) -> Option<Arc<EndpointSlice>> {
    let endpoints = endpoints.into_iter().map(|last| match last {
        0 => json!({"addresses": ["10.96.0.200"]}),
        1 => json!({"addresses": ["10.244.0.2"]}),
        2 => json!({"addresses": ["10.244.1.2"], "conditions": {"ready": false}}),
        3 => json!({"addresses": ["10.244.1.3"], "hostname": "db-0"}),
        _ => json!({"addresses": [format!("10.244.2.{last}")]}),
    });
    object(json!({
        "metadata": {
            "namespace": format!("ns-{}", name % 2), "name": format!("s{name}-{number}"),
            "labels": {"kubernetes.io/service-name": format!("s{name}")},
        },
        "addressType": "IPv4", "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }))
}

fn namespace(name: u8) -> Option<Arc<Namespace>> {
    object(json!({"metadata": {"name": format!("ns-{name}")}}))
}

type Names<V> = std::collections::BTreeMap<u8, V>;

/// What there is: Services' states, their slices' endpoints, namespaces.
type State = (Names<u8>, Names<Vec<u8>>, BTreeSet<u8>);

fn states() -> impl Strategy<Value = Vec<State>> {
    let services = prop::collection::btree_map(0_u8..4, 0_u8..4, 0..4);
    let endpoints = prop::collection::vec(0_u8..6, 0..4);
    // Two of each Service.
    let slices = prop::collection::btree_map(0_u8..8, endpoints, 0..8);
    let namespaces = prop::collection::btree_set(0_u8..2, 0..3);
    prop::collection::vec((services, slices, namespaces), 1..8)
}

proptest! {
    #[test]
    fn a_zone_is_what_it_would_be_if_made_anew(states in states()) {
        let new = || Zone::served_at(vec![IpAddr::from([10, 244, 0, 2])]);
        let mut zone = new();
        // What is the same is the same object.
        let (mut services, mut slices) = (HashMap::new(), HashMap::new());
        for (number, (of_services, of_slices, of_namespaces)) in (1..).zip(states) {
            let of_services = of_services.into_iter();
            let all = of_services.map(|state| services.entry(state).or_insert_with(|| service(state)).clone());
            let of_slices = of_slices.into_iter().map(|(name, endpoints)| (name / 2, name % 2, endpoints));
            let with = of_slices.map(|state| slices.entry(state.clone()).or_insert_with(|| slice(state)).clone());
            let objects = Objects {
                services: all.flatten().collect(),
                slices: with.flatten().collect(),
                namespaces: of_namespaces.into_iter().filter_map(namespace).collect(),
                serial: number,
            };
            zone.update(&objects);
            let mut anew = new();
            anew.update(&objects);
            prop_assert_eq!(&zone.names, &anew.names);
            prop_assert_eq!(&zone.speakers, &anew.speakers);
        }
        zone.update(&Objects::default());
        let mut empty = new();
        empty.update(&Objects::default());
        prop_assert_eq!(&zone.names, &empty.names);
    }
}
