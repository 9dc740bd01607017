//! Istio's API: the kinds and fields that the lab's mesh follows.
//!
//! A field that is not here is one the lab does not do: the schema does not
//! know it, so strict validation refuses it rather than the mesh ignoring it. Names and meaning are
//! those of <https://istio.io/latest/docs/reference/config/>.

pub(crate) mod destination_rule;
pub(crate) mod request_authentication;
pub(crate) mod security;
pub(crate) mod service_entry;
pub(crate) mod sidecar;
pub(crate) mod virtual_service;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pods by their labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkloadSelector {
    /// Labels that a pod must have, with these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) match_labels: Option<BTreeMap<String, String>>,
}

impl WorkloadSelector {
    /// Whether a pod with these labels is meant.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .flatten()
            .all(|(key, value)| labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::CustomResourceExt as _;

    use super::*;

    /// The definitions of every kind, as `manifests/mesh/lab-crds.yaml` holds them: Istio stores `v1`
    /// and serves the older versions with the same schema.
    fn crds() -> Vec<CustomResourceDefinition> {
        [
            (
                virtual_service::VirtualService::crd(),
                &["v1beta1", "v1alpha3"][..],
            ),
            (
                destination_rule::DestinationRule::crd(),
                &["v1beta1", "v1alpha3"],
            ),
            (service_entry::ServiceEntry::crd(), &["v1beta1", "v1alpha3"]),
            (sidecar::Sidecar::crd(), &["v1beta1", "v1alpha3"]),
            (security::PeerAuthentication::crd(), &["v1beta1"]),
            (security::AuthorizationPolicy::crd(), &["v1beta1"]),
            (
                request_authentication::RequestAuthentication::crd(),
                &["v1beta1"],
            ),
        ]
        .into_iter()
        .map(|(mut crd, older)| {
            let stored = crd.spec.versions.clone();
            for version in older {
                crd.spec
                    .versions
                    .extend(stored.iter().cloned().map(|mut copy| {
                        copy.name = (*version).to_owned();
                        copy.storage = false;
                        copy
                    }));
            }
            crd
        })
        .collect()
    }

    #[test]
    fn the_manifest_of_the_definitions_is_current() {
        crate::l7::manifest::assert_current("mesh/lab-crds.yaml", &crds());
    }
}
