//! The definitions of Istio's kinds, as `manifests/mesh/lab-crds.yaml` holds them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use crate::istio::{
    destination_rule, request_authentication, security, service_entry, sidecar, virtual_service,
};

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
