//! The kubelet's probes, which go round mutual TLS and policies by a port of the sidecar's own.
//!
//! Start from [`redirect`], which has a container's probes go there, and [`listener`], which answers them.
//! The kubelet has no certificate of the mesh, so where mutual TLS is STRICT it would be refused, and a
//! connection, which the sidecar takes for its application, would say nothing of it. HTTP is passed on to
//! the application; what is asked by TCP and gRPC the sidecar asks itself, and tells what came of it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, GRPCAction, HTTPGetAction, HTTPHeader, Pod, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::PROBE_PORT;
use super::registry::Workload;
use crate::l7::envoy::cluster::{Cluster, Endpoint, Protocol, original_destination};
use crate::l7::envoy::listener::{HttpConnectionManager, Routes, address, http_filter};
use crate::l7::envoy::route::{
    Action, Forward, Route, VirtualHost, WeightedCluster, route_configuration,
};

/// The cluster and listener of probes.
const PROBES: &str = "InboundProbes";
/// Where an HTTP probe is to go on to; only the listener of [`PROBE_PORT`] heeds it.
const ORIGINAL_DESTINATION_HEADER: &str = "x-envoy-original-dst-host";
/// The annotation by which a pod's probes are left as they are.
const REWRITE: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
/// What the paths of probes begin with that the sidecar asks itself.
const PATH: &str = "/app-health/";

/// What the sidecar asks of its application.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Asked {
    /// Whether a port takes connections.
    Tcp(u16),
    /// Whether a service of gRPC is served at a port.
    Grpc(u16, String),
}

impl Asked {
    /// The path by which the kubelet asks for it.
    fn path(&self) -> String {
        match self {
            Self::Tcp(port) => format!("{PATH}tcp/{port}"),
            Self::Grpc(port, service) => format!("{PATH}grpc/{port}/{service}"),
        }
    }

    fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix(PATH)?.splitn(3, '/');
        let (kind, port) = (parts.next()?, parts.next()?.parse().ok()?);
        match kind {
            "tcp" => Some(Self::Tcp(port)),
            "grpc" => Some(Self::Grpc(port, parts.next()?.to_owned())),
            _ => None,
        }
    }

    /// The cluster of the application alone, which Envoy asks every second.
    fn cluster(&self) -> Value {
        let (port, protocol, how) = match self {
            Self::Tcp(port) => (*port, Protocol::Http1, json!({ "tcp_health_check": {} })),
            Self::Grpc(port, service) => {
                // The cluster's name, which it would be otherwise, is none that a server takes.
                let asked = json!({ "service_name": service, "authority": "localhost" });
                let how = json!({ "grpc_health_check": asked });
                (*port, Protocol::Http2, how)
            }
        };
        let mut check = json!({
            "timeout": "1s",
            "interval": "1s",
            "no_traffic_interval": "1s",
            // An application that has just been started is ready as soon as it can be.
            "unhealthy_interval": "0.2s",
            "no_traffic_healthy_interval": "1s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
        });
        if let (Value::Object(check), Value::Object(how)) = (&mut check, how) {
            check.extend(how);
        }
        let endpoint = Endpoint {
            address: "127.0.0.1".to_owned(),
            port,
            ..Endpoint::default()
        };
        let cluster = Cluster {
            name: self.path(),
            endpoints: vec![endpoint],
            protocol,
            ..Cluster::default()
        };
        let mut cluster = cluster.to_value();
        cluster["health_checks"] = json!([check]);
        cluster
    }

    /// The filter that answers for it.
    fn filter(&self) -> Value {
        let healthy = json!({ self.path(): { "value": 100 } });
        let path = json!({ "name": ":path", "string_match": { "exact": self.path() } });
        let config = json!({
            "pass_through_mode": false,
            "headers": [path],
            "cluster_min_healthy_percentages": healthy,
        });
        http_filter(
            "envoy.filters.http.health_check",
            "health_check.v3.HealthCheck",
            config,
        )
    }
}

/// Whether a pod's probes are to go by way of the sidecar.
pub(super) fn are_rewritten(pod: &Pod) -> bool {
    pod.annotations()
        .get(REWRITE)
        .is_none_or(|value| value != "false")
}

/// Has a container's probes go by way of the sidecar.
pub(super) fn redirect(container: &mut Container) {
    let ports = container.ports.clone().unwrap_or_default();
    for probe in [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ]
    .into_iter()
    .flatten()
    {
        if let Some(asked) = asked(probe, &ports) {
            (probe.tcp_socket, probe.grpc) = (None, None);
            probe.http_get = Some(HTTPGetAction {
                path: Some(asked.path()),
                port: IntOrString::Int(i32::from(PROBE_PORT)),
                ..HTTPGetAction::default()
            });
        } else if let Some(get) = &mut probe.http_get {
            pass_on(get, &ports);
        }
    }
}

fn pass_on(get: &mut HTTPGetAction, ports: &[ContainerPort]) {
    if get.host.is_some() || get.scheme.as_deref() == Some("HTTPS") {
        return;
    }
    let Some(port) = number(&get.port, ports) else {
        return;
    };
    get.port = IntOrString::Int(i32::from(PROBE_PORT));
    get.http_headers.get_or_insert_default().push(HTTPHeader {
        name: ORIGINAL_DESTINATION_HEADER.to_owned(),
        value: format!("127.0.0.1:{port}"),
    });
}

fn asked(probe: &Probe, ports: &[ContainerPort]) -> Option<Asked> {
    match (&probe.tcp_socket, &probe.grpc) {
        (Some(TCPSocketAction { host: None, port }), _) => Some(Asked::Tcp(number(port, ports)?)),
        (None, Some(GRPCAction { port, service })) => {
            let service = service.clone().unwrap_or_default();
            Some(Asked::Grpc(u16::try_from(*port).ok()?, service))
        }
        _ => None,
    }
}

fn number(port: &IntOrString, ports: &[ContainerPort]) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = ports.iter();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            named?.container_port
        }
    };
    u16::try_from(number).ok()
}

/// What the sidecar of a pod that has none yet will ask.
pub(super) fn of_pod(pod: &Pod) -> BTreeSet<Asked> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let containers = containers.filter(|_| are_rewritten(pod));
    containers
        .flat_map(|container| {
            let ports = container.ports.clone().unwrap_or_default();
            probes(container).filter_map(move |probe| asked(probe, &ports))
        })
        .collect()
}

/// What the sidecar of a pod asks, by where the pod's probes go.
pub(super) fn of_injected(pod: &Pod) -> BTreeSet<Asked> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let paths = containers
        .flat_map(probes)
        .filter_map(|probe| probe.http_get.as_ref())
        .filter(|get| get.port == IntOrString::Int(i32::from(PROBE_PORT)))
        .filter_map(|get| get.path.as_deref());
    paths.filter_map(Asked::parse).collect()
}

fn probes(container: &Container) -> impl Iterator<Item = &Probe> {
    let all = [
        &container.liveness_probe,
        &container.readiness_probe,
        &container.startup_probe,
    ];
    all.into_iter().flatten()
}

/// The listener of the kubelet's probes. (The header that says where to stays on the request: Envoy takes
/// it off before it looks for it, if told to.)
pub(super) fn listener(workload: &Workload) -> Value {
    let route = Route {
        name: PROBES.to_owned(),
        action: Action::Forward(Forward {
            clusters: vec![WeightedCluster {
                name: PROBES.to_owned(),
                weight: 1,
                ..WeightedCluster::default()
            }],
            ..Forward::default()
        }),
        ..Route::default()
    };
    let host = VirtualHost {
        name: PROBES.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
    };
    let manager = HttpConnectionManager {
        stat_prefix: "probes",
        routes: Routes::Inline(route_configuration(PROBES, &[host])),
        server_name: None,
        filters: workload.probes.iter().map(Asked::filter).collect(),
        ..HttpConnectionManager::default()
    };
    json!({
        "name": PROBES,
        "address": address("0.0.0.0", PROBE_PORT),
        "traffic_direction": "INBOUND",
        "filter_chains": [{ "filters": [manager.filter()] }],
    })
}

/// The clusters of the kubelet's probes.
pub(super) fn clusters(workload: &Workload) -> Vec<Value> {
    let mut passed_on = original_destination(PROBES, Protocol::Http1, None);
    passed_on["original_dst_lb_config"] = json!({ "use_http_header": true });
    let asked = workload.probes.iter().map(Asked::cluster);
    std::iter::once(passed_on).chain(asked).collect()
}

#[cfg(test)]
mod tests {
    use super::super::inject::{inject, injected_workload, workload_of};
    use super::*;
    use crate::testing::object_of_yaml;

    fn pod(yaml: &str) -> Pod {
        object_of_yaml(yaml)
    }

    fn with_probe(probe: &str) -> Pod {
        pod(&format!(
            "{{metadata: {{name: a, namespace: default}}, spec: {{containers: [{{name: web, ports: [{{name: web, containerPort: 8081}}], readinessProbe: {probe}}}]}}}}"
        ))
    }

    fn injected(before: &Pod) -> Pod {
        let mut after = before.clone();
        inject(&mut after, &workload_of(before, "default").unwrap());
        after
    }

    fn of(pod: &Pod) -> Option<Probe> {
        let containers = &pod.spec.as_ref().unwrap().containers;
        containers[0].readiness_probe.clone()
    }

    #[test]
    fn http_probes_go_by_way_of_the_sidecar() {
        for (probe, expected) in [
            ("{httpGet: {path: /x, port: 8080}}", Some("127.0.0.1:8080")),
            ("{httpGet: {path: /x, port: web}}", Some("127.0.0.1:8081")),
            ("{httpGet: {path: /x, port: unknown}}", None),
            ("{httpGet: {path: /x, port: 8080, scheme: HTTPS}}", None),
            ("{tcpSocket: {port: 8080, host: 10.0.0.1}}", None),
            ("{exec: {command: ['true']}}", None),
        ] {
            let before = with_probe(probe);
            let after = injected(&before);
            let Some(expected) = expected else {
                assert_eq!(of(&after), of(&before), "{probe}");
                continue;
            };
            let get = of(&after).unwrap().http_get.unwrap();
            assert_eq!(get.port, IntOrString::Int(i32::from(PROBE_PORT)));
            assert_eq!(get.path.as_deref(), Some("/x"));
            assert_eq!(get.http_headers.unwrap()[0].value, expected);
        }
    }

    #[test]
    fn what_is_asked_by_other_ways_the_sidecar_asks() {
        for (probe, path, asked) in [
            (
                "{tcpSocket: {port: 8080}}",
                "/app-health/tcp/8080",
                Asked::Tcp(8080),
            ),
            (
                "{tcpSocket: {port: web}}",
                "/app-health/tcp/8081",
                Asked::Tcp(8081),
            ),
            (
                "{grpc: {port: 8080}}",
                "/app-health/grpc/8080/",
                Asked::Grpc(8080, String::new()),
            ),
            (
                "{grpc: {port: 8080, service: a.b/c}}",
                "/app-health/grpc/8080/a.b/c",
                Asked::Grpc(8080, "a.b/c".to_owned()),
            ),
        ] {
            let after = injected(&with_probe(probe));
            let now = of(&after).unwrap();
            assert_eq!((now.tcp_socket, now.grpc), (None, None), "{probe}");
            let get = now.http_get.unwrap();
            assert_eq!(get.path.as_deref(), Some(path));
            assert_eq!(get.port, IntOrString::Int(i32::from(PROBE_PORT)));
            let workload = injected_workload(&after).unwrap();
            assert_eq!(workload.probes, [asked].into(), "{probe}");
            assert_eq!(
                workload,
                workload_of(&with_probe(probe), "default").unwrap()
            );
        }
    }

    #[test]
    fn a_pod_may_have_its_probes_left_alone() {
        let mut before = with_probe("{tcpSocket: {port: 8080}}");
        let annotations = before.annotations_mut();
        annotations.insert(REWRITE.to_owned(), "false".to_owned());
        assert_eq!(of(&injected(&before)), of(&before));
        assert_eq!(of_pod(&before), BTreeSet::new());
    }
}
