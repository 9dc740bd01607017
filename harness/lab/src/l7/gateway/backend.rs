//! Backends of routes: from a reference to a cluster, or to what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use gateway_api::backendtlspolicies::BackendTlsPolicy;
use gateway_api::experimental::httproutes::{
    HttpRouteRulesBackendRefs, HttpRouteRulesFiltersRequestMirrorBackendRef,
};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::SECRETS;
use super::filter::Place;
use super::gamma::Naming;
use super::input::{Input, Problem};
use super::policy;
use super::route::{Kind, Route};
use super::rule::MISSING;
use crate::l7::cluster::{PortRef, cluster_name, protocol};
use crate::l7::envoy::cluster::{Cluster, Protocol};
use crate::l7::envoy::listener::mounted_secret;

/// A reference to a backend, of a rule or of a mirror.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference<'a> {
    group: Option<&'a str>,
    kind: Option<&'a str>,
    namespace: Option<&'a str>,
    name: &'a str,
    port: Option<i32>,
}

impl<'a> From<&'a HttpRouteRulesBackendRefs> for Reference<'a> {
    fn from(backend: &'a HttpRouteRulesBackendRefs) -> Self {
        Self {
            group: backend.group.as_deref(),
            kind: backend.kind.as_deref(),
            namespace: backend.namespace.as_deref(),
            name: &backend.name,
            port: backend.port,
        }
    }
}

impl<'a> From<&'a HttpRouteRulesFiltersRequestMirrorBackendRef> for Reference<'a> {
    fn from(backend: &'a HttpRouteRulesFiltersRequestMirrorBackendRef) -> Self {
        Self {
            group: backend.group.as_deref(),
            kind: backend.kind.as_deref(),
            namespace: backend.namespace.as_deref(),
            name: &backend.name,
            port: backend.port,
        }
    }
}

/// Policies of backends, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Policies {
    pub(super) in_force: BTreeSet<(String, String)>,
    /// Those that another one outdoes.
    pub(super) others: BTreeSet<(String, String)>,
}

/// The clusters that a Gateway's routes lead to.
pub(super) struct Backends<'a> {
    input: &'a Input,
    /// The certificate that backends are shown that ask for one.
    certificate: Option<&'a str>,
    /// What a mesh calls the clusters that it has anyway.
    known: Option<Naming>,
    /// `envoy.config.cluster.v3.Cluster`, by name.
    pub(super) clusters: BTreeMap<String, Value>,
    pub(super) policies: Policies,
}

impl<'a> Backends<'a> {
    /// None yet.
    pub(super) fn new(input: &'a Input, certificate: Option<&'a str>) -> Self {
        Self {
            input,
            certificate,
            known: None,
            clusters: BTreeMap::new(),
            policies: Policies::default(),
        }
    }

    /// Those of a mesh, which has the clusters of all Services.
    pub(super) fn of_mesh(input: &'a Input, known: Naming) -> Self {
        Self {
            known: Some(known),
            ..Self::new(input, None)
        }
    }

    /// The name of the cluster that a route's reference leads to.
    pub(super) fn resolve(
        &mut self,
        route: &Route,
        place: Place,
        reference: Reference<'_>,
    ) -> Result<String, Problem> {
        let from = route.namespace().unwrap_or_default();
        let namespace = reference.namespace.unwrap_or(&from);
        let (group, kind) = (
            reference.group.unwrap_or_default(),
            reference.kind.unwrap_or("Service"),
        );
        let name = reference.name;
        if !group.is_empty() || kind != "Service" {
            let group = if group.is_empty() { "core" } else { group };
            let message =
                format!("backendRef {name}: {group}/{kind} is no kind of backend here: Service is");
            return Err(Problem::new("InvalidKind", message));
        }
        if !self
            .input
            .granted((route.kind.name(), &from), ("Service", namespace, name))
        {
            let message = format!(
                "backendRef {name}: no ReferenceGrant in namespace {namespace} lets {}s of {from} use Service {name}",
                route.kind.name()
            );
            return Err(Problem::new("RefNotPermitted", message));
        }
        let missing = |message: String| Err(Problem::new("BackendNotFound", message));
        let Some(service) = self.input.services.find(namespace, name) else {
            return missing(format!("Service {namespace}/{name} does not exist"));
        };
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            // The specification's words on CVE-2021-25740.
            let message = format!(
                "Service {namespace}/{name} is of type ExternalName, which may not be a backend"
            );
            return Err(Problem::new("InvalidKind", message));
        }
        let ports: Vec<String> = spec
            .ports
            .iter()
            .flatten()
            .map(|port| port.port.to_string())
            .collect();
        let Some(number) = reference.port else {
            let message = format!(
                "backendRef {name} names no port of Service {namespace}/{name} ({})",
                ports.join(", ")
            );
            return missing(message);
        };
        let Some(found) = port_of(service, number, route.kind) else {
            let message = format!(
                "Service {namespace}/{name} has no port {number}, but {}",
                ports.join(", ")
            );
            return missing(message);
        };
        if let Some(known) = self.known {
            return Ok(known(
                namespace,
                name,
                u16::try_from(number).unwrap_or_default(),
            ));
        }
        let policies = match route.kind {
            // What is in them, and under which TLS, is the client's own affair.
            Kind::Tcp | Kind::Udp => None,
            Kind::Tls if !place.ends_tls => None,
            Kind::Http | Kind::Grpc | Kind::Tls => {
                Some(policy::of_service(self.input, namespace, name, found))
            }
        };
        if policies.as_ref().is_some_and(Vec::is_empty)
            && let Some(protocol @ ("https" | "kubernetes.io/wss")) = found.app_protocol.as_deref()
        {
            let message = format!(
                "port {number} of Service {namespace}/{name} has appProtocol {protocol}, and no BackendTLSPolicy says whom to trust"
            );
            return Err(Problem::new("UnsupportedProtocol", message));
        }
        let mut cluster = Cluster {
            name: cluster_name(namespace, name, &PortRef::Number(number)),
            endpoints: self.input.services.endpoints(namespace, name, found),
            protocol: protocol(found),
            ..Cluster::default()
        };
        match route.kind {
            Kind::Http => {}
            Kind::Grpc => {
                cluster.name.push_str("/grpc");
                cluster.protocol = Protocol::Http2;
            }
            Kind::Tls if place.ends_tls => cluster.name.push_str("/content"),
            Kind::Tls | Kind::Tcp => cluster.name.push_str("/bytes"),
            Kind::Udp => cluster.name.push_str("/datagrams"),
        }
        let key = |policy: &BackendTlsPolicy| (namespace.to_owned(), policy.name_any());
        if let Some((first, others)) = policies.as_ref().and_then(|all| all.split_first()) {
            self.policies.in_force.insert(key(first));
            self.policies
                .others
                .extend(others.iter().map(|other| key(other)));
            let alpn = match cluster.protocol {
                Protocol::Http2 => "h2",
                Protocol::Http1 | Protocol::SameAsDownstream => "http/1.1",
            };
            cluster.tls = policy::context(first, &policy::judge(self.input, first), alpn);
            if let (Some(context), Some(name)) = (&mut cluster.tls, self.certificate) {
                context["common_tls_context"]["tls_certificate_sds_secret_configs"] =
                    json!([mounted_secret(SECRETS, name)]);
            }
            if cluster.tls.is_none() {
                return Ok(MISSING.to_owned());
            }
        }
        let name = cluster.name.clone();
        self.clusters.insert(name.clone(), cluster.to_value());
        Ok(name)
    }
}

/// A Service's port of that number, which one for datagrams and one for connections may share.
fn port_of(service: &Service, number: i32, kind: Kind) -> Option<&ServicePort> {
    let transport = match kind {
        Kind::Udp => "UDP",
        Kind::Http | Kind::Grpc | Kind::Tls | Kind::Tcp => "TCP",
    };
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    ports
        .iter()
        .find(|port| port.port == number && port.protocol.as_deref().unwrap_or("TCP") == transport)
}
