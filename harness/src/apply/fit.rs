//! Fitting manifests to a cluster that has its own names for things.
//!
//! Start from [`Fit`]. Manifests are written for a cluster that has the probe's image loaded, a default
//! IngressClass and a GatewayClass `contour`; what else a cluster has is put in as each document is
//! applied. Rule: what a document says itself is kept, but for the names that stand for the cluster's.

use serde_json::{Map, Value};

use super::Definitions;

/// The GatewayClass that manifests name.
pub const GATEWAY_CLASS: &str = "contour";
const PULL: &str = "IfNotPresent";

/// The image of the probe, as a cluster's nodes get it. Whoever pushes it to a registry says so here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeImage {
    /// Its reference.
    pub reference: String,
    /// When nodes pull it: `IfNotPresent`, `Always` or `Never`.
    pub pull_policy: String,
}

impl Default for ProbeImage {
    /// Loaded into every node, under the name that manifests use.
    fn default() -> Self {
        Self {
            reference: strata_probe::image::REFERENCE.to_owned(),
            pull_policy: PULL.to_owned(),
        }
    }
}

/// What a cluster calls the things that manifests name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fit {
    /// The probe's image.
    pub probe: ProbeImage,
    /// The class of Ingresses that name none, where the cluster has no default one.
    pub ingress_class: Option<String>,
    /// The class of Gateways that name [`GATEWAY_CLASS`].
    pub gateway_class: Option<String>,
    /// Whose definitions it has of Gateway API's and Istio's kinds.
    pub definitions: Definitions,
}

impl Fit {
    /// A document as this cluster takes it.
    #[must_use]
    pub fn fitted(&self, mut object: Value) -> Value {
        if self.probe != ProbeImage::default() {
            self.fit_images(&mut object);
        }
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("");
        match (kind, &self.ingress_class, &self.gateway_class) {
            ("Ingress", Some(class), _) => {
                if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                    spec.entry("ingressClassName")
                        .or_insert_with(|| class.as_str().into());
                }
            }
            ("Gateway", _, Some(class)) => {
                let named = object.pointer_mut("/spec/gatewayClassName");
                if let Some(named) = named.filter(|named| **named == GATEWAY_CLASS) {
                    *named = class.as_str().into();
                }
            }
            _ => {}
        }
        object
    }

    /// Wherever containers are: in pods, and in the templates of workloads.
    fn fit_images(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::Array(containers)) = map.get_mut("containers") {
                    let containers = containers.iter_mut().filter_map(Value::as_object_mut);
                    containers.for_each(|container| self.fit_image(container));
                }
                map.values_mut().for_each(|child| self.fit_images(child));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.fit_images(item)),
            _ => {}
        }
    }

    fn fit_image(&self, container: &mut Map<String, Value>) {
        let image = container.get("image").and_then(Value::as_str);
        if image == Some(strata_probe::image::REFERENCE) {
            container.insert("image".to_owned(), self.probe.reference.as_str().into());
            let policy = self.probe.pull_policy.as_str();
            container.insert("imagePullPolicy".to_owned(), policy.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fit() -> Fit {
        Fit {
            probe: ProbeImage {
                reference: "registry.example/probe:v7".to_owned(),
                pull_policy: "Always".to_owned(),
            },
            ingress_class: Some("nginx".to_owned()),
            gateway_class: Some("eg".to_owned()),
            definitions: Definitions::Ours,
        }
    }

    #[test]
    fn the_probe_is_pulled_from_where_the_cluster_has_it_and_nothing_else_is() {
        let containers = json!([
            {"name": "probe", "image": "strata.dev/probe:v1", "imagePullPolicy": "IfNotPresent"},
            {"name": "other", "image": "other:1"},
        ]);
        let fitted = json!([
            {"name": "probe", "image": "registry.example/probe:v7", "imagePullPolicy": "Always"},
            {"name": "other", "image": "other:1"},
        ]);
        let pod = |containers: &Value| json!({"kind": "Pod", "spec": {"containers": containers}});
        let set = |containers: &Value| json!({"kind": "DaemonSet", "spec": {"template": pod(containers)}});
        assert_eq!(fit().fitted(pod(&containers)), pod(&fitted));
        assert_eq!(fit().fitted(set(&containers)), set(&fitted));
        assert_eq!(Fit::default().fitted(set(&containers)), set(&containers));
    }

    #[test]
    fn a_class_is_filled_in_where_the_manifest_leaves_it_to_the_cluster() {
        let ingress = |spec: Value| json!({"kind": "Ingress", "spec": spec});
        let gateway = |class: &str| json!({"kind": "Gateway", "spec": {"gatewayClassName": class}});
        for (given, fitted) in [
            (
                ingress(json!({})),
                ingress(json!({"ingressClassName": "nginx"})),
            ),
            (
                ingress(json!({"ingressClassName": "nobody"})),
                ingress(json!({"ingressClassName": "nobody"})),
            ),
            (gateway("contour"), gateway("eg")),
            (gateway("nobody"), gateway("nobody")),
        ] {
            assert_eq!(fit().fitted(given.clone()), fitted);
            assert_eq!(Fit::default().fitted(given.clone()), given);
        }
    }
}
