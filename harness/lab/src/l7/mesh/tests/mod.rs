//! What a sidecar is told, for the tutorial's split and for what people get wrong about it.

mod security;

use serde_json::{Value, json};

use super::identity::{Authority, identity};
use super::*;
use crate::l7::envoy::Snapshot;
use crate::l7::envoy::validate::assert_accepted_with;
use crate::testing::shared;

fn service(name: &str, ip: &str, ports: Value) -> Arc<Service> {
    shared(json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "clusterIP": ip, "ports": ports },
    }))
}

fn pod(name: &str, labels: Value) -> Arc<Pod> {
    shared(json!({
        "metadata": { "name": name, "namespace": "default", "labels": labels },
        "spec": { "serviceAccountName": "backend", "containers": [] },
    }))
}

fn slice(service: &str, address: &str, pod: &str) -> Arc<EndpointSlice> {
    shared(json!({
        "metadata": {
            "name": format!("{service}-{pod}"), "namespace": "default",
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "", "port": 8080 }],
        "endpoints": [{
            "addresses": [address],
            "targetRef": { "kind": "Pod", "name": pod, "namespace": "default" },
        }],
    }))
}

fn virtual_service(spec: Value) -> Arc<VirtualService> {
    shared(json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService",
        "metadata": { "name": "backend", "namespace": "default" }, "spec": spec,
    }))
}

/// The tutorial's backend, in two versions: v1 has a sidecar, v2 has none.
fn mesh(spec: Value) -> Mesh {
    let ports = json!([{ "port": 80, "targetPort": 8080 }]);
    let tls = json!({ "app": "backend", "version": "v1", "security.istio.io/tlsMode": "istio" });
    Mesh {
        services: Services::new(
            [
                service("backend", "10.96.0.20", ports.clone()),
                service("backend-v1", "10.96.0.21", ports.clone()),
                service("backend-v2", "10.96.0.22", ports),
                service(
                    "db",
                    "10.96.0.23",
                    json!([{ "name": "tcp-db", "port": 5432 }]),
                ),
            ],
            [
                slice("backend", "10.244.1.1", "one"),
                slice("backend", "10.244.2.2", "two"),
                slice("backend-v1", "10.244.1.1", "one"),
                slice("backend-v2", "10.244.2.2", "two"),
            ],
        )
        .with_pods([
            pod("one", tls),
            pod("two", json!({ "app": "backend", "version": "v2" })),
        ]),
        virtual_services: vec![virtual_service(spec)],
        ..Mesh::default()
    }
}

fn client() -> Workload {
    let labels = BTreeMap::from([("app".to_owned(), "client".to_owned())]);
    Workload::new("default", "client", &labels)
}

/// What sidecars of a workload are told.
fn translate(mesh: &Mesh, workload: &Workload) -> Snapshot {
    let parts = outbound::outbound(mesh, &workload.client(mesh), &mut Kept::default());
    let values = |shared: Vec<Arc<Value>>| shared.into_iter().map(Arc::unwrap_or_clone).collect();
    let mut snapshot = Snapshot {
        listeners: values(parts.listeners),
        routes: values(parts.routes),
        clusters: values(parts.clusters),
        ..Snapshot::default()
    };
    let inbound = inbound::inbound(mesh, workload);
    snapshot.listeners.extend(inbound.listeners);
    snapshot.clusters.extend(inbound.clusters);
    snapshot
}

/// The virtual host of a domain on port 80.
fn virtual_host<'a>(snapshot: &'a Snapshot, domain: &str) -> &'a Value {
    let routes = snapshot
        .routes
        .iter()
        .find(|routes| routes["name"] == "80")
        .unwrap();
    let hosts = routes["virtual_hosts"].as_array().unwrap();
    let has = |host: &&Value| {
        host["domains"]
            .as_array()
            .unwrap()
            .iter()
            .any(|found| found == domain)
    };
    hosts.iter().find(has).unwrap()
}

fn cluster<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Value> {
    snapshot
        .clusters
        .iter()
        .find(|cluster| cluster["name"] == name)
}

fn destination(host: &str, weight: i32) -> Value {
    json!({ "destination": { "host": host }, "weight": weight })
}

/// Envoy reads certificates when it is started, so the files must be there for it to say yes.
fn assert_envoy_accepts(snapshot: &Snapshot) {
    let authority = Authority::generate().unwrap();
    let files = authority.issue("default", "client").unwrap();
    let files = files
        .into_iter()
        .map(|(name, text)| (format!("{CERTIFICATES}/{name}"), text));
    assert_accepted_with(snapshot, &files.collect());
}

#[test]
fn the_tutorials_split_is_by_weight_for_every_name_of_the_service() {
    let spec = json!({
        "hosts": ["backend"],
        "http": [{ "route": [destination("backend-v1", 90), destination("backend-v2", 10)] }],
    });
    let snapshot = translate(&mesh(spec), &client());
    for domain in [
        "backend",
        "backend.default",
        "backend.default.svc.cluster.local",
        "10.96.0.20",
    ] {
        let host = virtual_host(&snapshot, domain);
        assert_eq!(
            host["routes"][0]["route"]["weighted_clusters"]["clusters"],
            json!([
                { "name": "outbound|80||backend-v1.default.svc.cluster.local", "weight": 90 },
                { "name": "outbound|80||backend-v2.default.svc.cluster.local", "weight": 10 },
            ]),
            "{domain}"
        );
    }
    assert_envoy_accepts(&snapshot);
}

#[test]
fn a_share_of_nothing_gets_nothing_and_a_sole_destination_everything() {
    let only = "outbound|80||backend-v2.default.svc.cluster.local";
    for route in [
        vec![destination("backend-v1", 0), destination("backend-v2", 100)],
        vec![json!({ "destination": { "host": "backend-v2" } })],
        vec![destination("backend-v2", 0)],
    ] {
        let spec = json!({ "hosts": ["backend"], "http": [{ "route": route }] });
        let snapshot = translate(&mesh(spec), &client());
        assert_eq!(
            virtual_host(&snapshot, "backend")["routes"][0]["route"]["cluster"],
            only,
            "{route:?}"
        );
    }
}

#[test]
fn a_destination_without_a_service_is_a_cluster_that_is_not_there() {
    let spec =
        json!({ "hosts": ["backend"], "http": [{ "route": [destination("backend-v3", 100)] }] });
    let snapshot = translate(&mesh(spec), &client());
    let named = &virtual_host(&snapshot, "backend")["routes"][0]["route"]["cluster"];
    assert_eq!(named, "outbound|80||backend-v3.default.svc.cluster.local");
    assert_eq!(cluster(&snapshot, named.as_str().unwrap()), None);
    assert_envoy_accepts(&snapshot);
}

#[test]
fn subsets_are_chosen_by_the_labels_of_pods() {
    let spec = json!({
        "hosts": ["backend"],
        "http": [{ "route": [{ "destination": { "host": "backend", "subset": "v2" } }] }],
    });
    let mut mesh = mesh(spec);
    mesh.destination_rules = vec![shared(json!({
        "metadata": { "name": "backend", "namespace": "default" },
        "spec": { "host": "backend", "subsets": [
            { "name": "v1", "labels": { "version": "v1" } }, { "name": "v2", "labels": { "version": "v2" } },
        ] },
    }))];
    let snapshot = translate(&mesh, &client());
    let name = "outbound|80|v2|backend.default.svc.cluster.local";
    assert_eq!(
        virtual_host(&snapshot, "backend")["routes"][0]["route"]["cluster"],
        name
    );
    let endpoints =
        &cluster(&snapshot, name).unwrap()["load_assignment"]["endpoints"][0]["lb_endpoints"];
    assert_eq!(endpoints.as_array().unwrap().len(), 1);
    assert_eq!(
        endpoints[0]["endpoint"]["address"]["socket_address"]["address"],
        "10.244.2.2"
    );
    assert_envoy_accepts(&snapshot);
}

#[test]
fn every_part_of_a_rule_is_taken_by_envoy() {
    let spec = json!({
        "hosts": ["backend"],
        "http": [
            {
                "match": [
                    { "uri": { "prefix": "/api" }, "headers": { "x-user": { "exact": "me" }, "x-any": {} },
                      "withoutHeaders": { "x-not": { "regex": "a+" } } },
                    { "uri": { "regex": "/v[0-9]+/.*" }, "method": { "exact": "POST" },
                      "queryParams": { "q": { "exact": "1" } }, "ignoreUriCase": true },
                    { "port": 9999 }, { "sourceLabels": { "app": "someone-else" } },
                ],
                "rewrite": { "uri": "/", "authority": "inner" },
                "timeout": "1.5s",
                "retries": { "attempts": 3, "perTryTimeout": "250ms", "retryOn": "5xx,429" },
                "fault": {
                    "delay": { "fixedDelay": "5s", "percentage": { "value": 0.1 } },
                    "abort": { "httpStatus": 418, "percentage": { "value": 50.0 } },
                },
                "mirror": { "host": "backend-v2" }, "mirrorPercentage": { "value": 25.0 },
                "headers": { "request": { "set": { "x-a": "100%" } }, "response": { "remove": ["x-b"] } },
                "route": [
                    { "destination": { "host": "backend-v1", "port": { "number": 80 } }, "weight": 1,
                      "headers": { "response": { "add": { "x-v": "1" } } } },
                    destination("backend-v2", 1),
                ],
            },
            { "match": [{ "uri": { "exact": "/old" } }], "redirect": { "uri": "/new", "redirectCode": 308 } },
            { "directResponse": { "status": 204 } },
        ],
    });
    let snapshot = translate(&mesh(spec), &client());
    let routes = virtual_host(&snapshot, "backend")["routes"]
        .as_array()
        .unwrap();
    // Two of the four matches can never hold for this client.
    assert_eq!(routes.len(), 4);
    assert_envoy_accepts(&snapshot);
}

#[test]
fn what_is_hashed_is_told_to_routes_and_connections() {
    let mut mesh = mesh(json!({
        "hosts": ["backend"],
        "http": [{ "route": [destination("backend-v1", 1), destination("backend-v2", 1)] }],
    }));
    let rule = |host: &str, hash: Value| {
        shared(json!({
            "metadata": { "name": host, "namespace": "default" },
            "spec": { "host": host, "trafficPolicy": { "loadBalancer": { "consistentHash": hash } } },
        }))
    };
    mesh.destination_rules = vec![
        rule("backend-v1", json!({ "httpHeaderName": "x-user" })),
        rule("backend-v2", json!({ "httpQueryParameterName": "user" })),
        rule("db", json!({ "useSourceIp": true })),
    ];
    let snapshot = translate(&mesh, &client());
    assert_envoy_accepts(&snapshot);
    let hash =
        |domain: &str| virtual_host(&snapshot, domain)["routes"][0]["route"]["hash_policy"].clone();
    let header = json!({ "header": { "header_name": "x-user" } });
    let query = json!({ "query_parameter": { "name": "user" } });
    assert_eq!(hash("backend-v1"), json!([header]));
    assert_eq!(hash("backend"), json!([header, query]));
    let name = "outbound|80||backend-v1.default.svc.cluster.local";
    assert_eq!(cluster(&snapshot, name).unwrap()["lb_policy"], "RING_HASH");
    let db = snapshot
        .listeners
        .iter()
        .find(|listener| listener["name"] == "10.96.0.23_5432");
    let filter = &db.unwrap()["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(filter["hash_policy"], json!([{ "source_ip": {} }]));
}

#[test]
fn what_a_sidecar_does_not_import_is_nobodys() {
    let mut mesh = mesh(json!({ "hosts": ["other"] }));
    mesh.sidecars = vec![shared(json!({
        "metadata": { "name": "default", "namespace": "default" },
        "spec": {
            "egress": [{ "hosts": ["./backend-v1.default.svc.cluster.local", "./db.default.svc.cluster.local"] }],
            "outboundTrafficPolicy": { "mode": "REGISTRY_ONLY" },
        },
    }))];
    let snapshot = translate(&mesh, &client());
    assert_envoy_accepts(&snapshot);
    let routes = snapshot
        .routes
        .iter()
        .find(|routes| routes["name"] == "80")
        .unwrap();
    let hosts = routes["virtual_hosts"].as_array().unwrap().iter();
    let names: Vec<_> = hosts.map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["backend-v1.default.svc.cluster.local:80", "block_all"]
    );
    assert_eq!(
        virtual_host(&snapshot, "*")["routes"][0]["direct_response"]["status"],
        502
    );
    let listeners: Vec<_> = snapshot
        .listeners
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert!(listeners.contains(&"10.96.0.23_5432"));
    let entrance = &snapshot.listeners[0]["default_filter_chain"]["filters"][0]["typed_config"];
    assert_eq!(entrance["cluster"], "BlackHoleCluster");
}
