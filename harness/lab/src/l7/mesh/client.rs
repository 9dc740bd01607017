//! Who opens connections, as far as that decides where they go.
//!
//! Start from [`Workload::client`]. Most workloads of a namespace are one client: what they are told of others
//! is made once.

use std::collections::BTreeSet;

use kube::ResourceExt as _;

use super::registry::{Client, Mesh, Workload};

impl Workload {
    /// The client that its pods are.
    pub(super) fn client(&self, mesh: &Mesh) -> Client {
        let asked = mesh.asked_of_clients(&self.namespace);
        let labels = self.labels.iter();
        let labels = labels.filter(|(key, _)| asked.contains(key.as_str()));
        Client {
            namespace: self.namespace.clone(),
            labels: labels
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            locality: self.locality.clone(),
        }
    }
}

impl Mesh {
    /// The labels that rules of VirtualServices, and the Sidecars of a namespace, tell its clients apart by.
    fn asked_of_clients(&self, namespace: &str) -> BTreeSet<&str> {
        let specs = self.virtual_services.iter().map(|object| &object.spec);
        let http = specs
            .clone()
            .flat_map(|spec| spec.http.iter().flatten())
            .flat_map(|rule| rule.r#match.iter().flatten())
            .filter_map(|matching| matching.source_labels.as_ref());
        let tcp = specs
            .flat_map(|spec| spec.tcp.iter().flatten())
            .flat_map(|rule| rule.r#match.iter().flatten())
            .filter_map(|matching| matching.source_labels.as_ref());
        let sidecars = self.sidecars.iter();
        let selectors = sidecars
            .filter(|object| object.namespace().as_deref() == Some(namespace))
            .filter_map(|object| object.spec.workload_selector.as_ref()?.labels.as_ref());
        let labels = http.chain(tcp).chain(selectors);
        labels
            .flat_map(|labels| labels.keys().map(String::as_str))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn workload(app: &str) -> Workload {
        let labels = [("app", app), ("version", "v1")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Workload::new("ns", "default", &labels.into())
    }

    #[test]
    fn workloads_are_one_client_unless_something_tells_them_apart() {
        let object = |kind: &str, namespace: &str, spec: Value| {
            json!({
                "apiVersion": "networking.istio.io/v1", "kind": kind,
                "metadata": { "name": "x", "namespace": namespace }, "spec": spec,
            })
        };
        let of = |value: Value| {
            let mut mesh = Mesh::default();
            if let Ok(object) = serde_json::from_value(value.clone()) {
                mesh.virtual_services = vec![Arc::new(object)];
            }
            if let Ok(object) = serde_json::from_value(value) {
                mesh.sidecars = vec![Arc::new(object)];
            }
            workload("a").client(&mesh) == workload("b").client(&mesh)
        };
        let rule = |key: &str| json!({ "hosts": ["x"], "http": [{ "match": [{ "sourceLabels": { key: "a" } }] }] });
        let bytes =
            json!({ "hosts": ["x"], "tcp": [{ "match": [{ "sourceLabels": { "app": "a" } }] }] });
        let selector = json!({ "workloadSelector": { "labels": { "app": "a" } } });
        for (what, value, one) in [
            ("nothing", json!({}), true),
            (
                "a rule",
                object("VirtualService", "other", rule("app")),
                false,
            ),
            (
                "a rule for bytes",
                object("VirtualService", "ns", bytes),
                false,
            ),
            (
                "another label",
                object("VirtualService", "ns", rule("version")),
                true,
            ),
            (
                "a Sidecar",
                object("Sidecar", "ns", selector.clone()),
                false,
            ),
            ("one of others", object("Sidecar", "other", selector), true),
        ] {
            assert_eq!(of(value), one, "{what}");
        }
    }
}
