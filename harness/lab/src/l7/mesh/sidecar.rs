//! What of the mesh a workload's sidecar knows: its `Sidecar` object's word.
//!
//! Start from [`Egress::of`]. The workload's own Sidecar goes before its namespace's, and that before the
//! root namespace's; where there is none, everything is known and anything else passed through.

use kube::ResourceExt;

use super::inbound::ROOT_NAMESPACE;
use super::registry::{Client, Mesh, host_covers};
pub(super) use crate::istio::sidecar::OutboundPolicy;
use crate::istio::sidecar::SidecarSpec;

/// Where a workload's connections may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Egress<'a> {
    spec: Option<&'a SidecarSpec>,
    /// The workload's namespace.
    namespace: &'a str,
}

impl<'a> Egress<'a> {
    /// A client's.
    pub(super) fn of(mesh: &'a Mesh, client: &'a Client) -> Self {
        let chosen = |namespace: &str, own: bool| {
            mesh.sidecars
                .iter()
                .find(|object| {
                    let selector = object.spec.workload_selector.as_ref();
                    object.namespace().as_deref() == Some(namespace)
                        && selector.map_or(!own, |it| own && it.matches(&client.labels))
                })
                .map(|object| &object.spec)
        };
        let namespace = &client.namespace;
        let spec = chosen(namespace, true)
            .or_else(|| chosen(namespace, false))
            .or_else(|| chosen(ROOT_NAMESPACE, false));
        Self { spec, namespace }
    }

    /// What becomes of connections for nobody in the mesh.
    pub(super) fn policy(self) -> OutboundPolicy {
        let policy = self
            .spec
            .and_then(|spec| spec.outbound_traffic_policy.as_ref());
        policy.map(|policy| policy.mode).unwrap_or_default()
    }

    /// Whether a host of a namespace is known: `hosts` are `NAMESPACE/HOST`, `.` the workload's own
    /// namespace, `*` any, `~` none.
    pub(super) fn imports(self, namespace: &str, host: &str) -> bool {
        let listed = self.spec.and_then(|spec| spec.egress.as_ref());
        let Some(listeners) = listed.filter(|listeners| !listeners.is_empty()) else {
            return true;
        };
        let mut hosts = listeners.iter().flat_map(|listener| &listener.hosts);
        hosts.any(|entry| {
            let (of, pattern) = entry.split_once('/').unwrap_or(("*", entry));
            let of_namespace = match of {
                "*" => true,
                "." => namespace == self.namespace,
                "~" => false,
                of => of == namespace,
            };
            of_namespace && host_covers(pattern, host)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::registry::Workload;
    use super::*;

    #[test]
    fn hosts_are_known_by_their_namespace_and_name() {
        for (entry, namespace, host, known) in [
            ("*/*", "a", "x.a.svc.cluster.local", true),
            ("./*", "own", "x.own.svc.cluster.local", true),
            ("./*", "a", "x.a.svc.cluster.local", false),
            ("a/*", "a", "x.a.svc.cluster.local", true),
            ("a/*", "b", "x.b.svc.cluster.local", false),
            ("*/*.example.com", "a", "x.example.com", true),
            ("*/*.example.com", "a", "x.example.org", false),
            ("~/*", "own", "x.own.svc.cluster.local", false),
        ] {
            let spec: SidecarSpec =
                crate::testing::object(json!({ "egress": [{ "hosts": [entry] }] }));
            let egress = Egress {
                spec: Some(&spec),
                namespace: "own",
            };
            assert_eq!(egress.imports(namespace, host), known, "{entry}: {host}");
        }
    }

    #[test]
    fn the_closest_sidecar_is_a_workloads() {
        let sidecar = |namespace: &str, spec: serde_json::Value| {
            let object = json!({
                "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
                "metadata": { "name": "x", "namespace": namespace }, "spec": spec,
            });
            crate::testing::shared(object)
        };
        let mode = |mode: &str| json!({ "outboundTrafficPolicy": { "mode": mode } });
        let mut own = mode("REGISTRY_ONLY");
        own["workloadSelector"] = json!({ "labels": { "app": "a" } });
        let root = sidecar(ROOT_NAMESPACE, mode("REGISTRY_ONLY"));
        let namespace = sidecar("ns", mode("ALLOW_ANY"));
        let own = sidecar("ns", own);
        let labels = [("app".to_owned(), "a".to_owned())].into();
        let workload = Workload::new("ns", "default", &labels);
        for (sidecars, expected) in [
            (vec![], OutboundPolicy::AllowAny),
            (vec![&root], OutboundPolicy::RegistryOnly),
            (vec![&root, &namespace], OutboundPolicy::AllowAny),
            (vec![&root, &namespace, &own], OutboundPolicy::RegistryOnly),
        ] {
            let mesh = Mesh {
                sidecars: sidecars.into_iter().cloned().collect(),
                ..Mesh::default()
            };
            assert_eq!(
                Egress::of(&mesh, &workload.client(&mesh)).policy(),
                expected
            );
        }
    }
}
