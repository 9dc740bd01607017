//! The objects that are translated, and the questions asked of several of them.
//!
//! Start from [`Input`]. Nothing here decides what becomes of a Gateway or route.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_api::backendtlspolicies::BackendTlsPolicy;
use gateway_api::gatewayclasses::GatewayClass;
use gateway_api::gateways::Gateway;
use gateway_api::listenersets::ListenerSet;
use gateway_api::referencegrants::ReferenceGrant;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::SelectorExt as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;

use super::route::Route;
use super::{CONTROLLER, GROUP};
use crate::l7::cluster::Services;
use crate::l7::ingress::Certificate;

/// Why something is not as it was asked for, in the specification's word and in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The condition's reason.
    pub(super) reason: &'static str,
    /// The condition's message.
    pub(super) message: String,
}

impl Problem {
    /// A reason with its sentence.
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The cluster as a Gateway controller sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Input {
    pub(super) classes: Vec<Arc<GatewayClass>>,
    pub(super) gateways: Vec<Arc<Gateway>>,
    pub(super) listener_sets: Vec<Arc<ListenerSet>>,
    /// Of every kind.
    pub(super) routes: Vec<Route>,
    pub(super) grants: Vec<Arc<ReferenceGrant>>,
    pub(super) policies: Vec<Arc<BackendTlsPolicy>>,
    /// The labels of each namespace.
    pub(super) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) services: Services,
    pub(super) secrets: BTreeMap<(String, String), Arc<Secret>>,
    pub(super) config_maps: BTreeMap<(String, String), Arc<ConfigMap>>,
}

impl Input {
    /// The GatewayClasses that name us.
    pub(super) fn own_classes(&self) -> impl Iterator<Item = &GatewayClass> {
        self.classes
            .iter()
            .map(AsRef::as_ref)
            .filter(|class| class.spec.controller_name == CONTROLLER)
    }

    /// The Gateways of our classes, by namespace and name. A class that is not accepted has none.
    pub(super) fn own_gateways(&self) -> Vec<&Gateway> {
        let mut own: Vec<&Gateway> = self
            .gateways
            .iter()
            .map(AsRef::as_ref)
            .filter(|gateway| gateway.metadata.deletion_timestamp.is_none())
            .filter(|gateway| {
                let named =
                    |class: &&GatewayClass| class.name_any() == gateway.spec.gateway_class_name;
                let class = self.own_classes().find(named);
                class.is_some_and(|class| class_problem(class).is_none())
            })
            .collect();
        own.sort_by_key(|gateway| (gateway.namespace(), gateway.name_any()));
        own
    }

    /// The routes, oldest first, then by namespace and name: the order in which ties are decided.
    pub(super) fn routes_by_age(&self) -> Vec<&Route> {
        self.those_by_age(|_| true)
    }

    /// The same of some.
    pub(super) fn those_by_age(&self, wanted: impl Fn(&Route) -> bool) -> Vec<&Route> {
        let stays = |route: &&Route| route.metadata.deletion_timestamp.is_none();
        let routes = self.routes.iter().filter(stays);
        let mut routes: Vec<&Route> = routes.filter(|route| wanted(route)).collect();
        routes.sort_by_cached_key(|route| {
            let created = route.metadata.creation_timestamp.as_ref();
            let name = format!(
                "{}/{}",
                route.namespace().unwrap_or_default(),
                route.name_any()
            );
            (created.map(|time| time.0), name)
        });
        routes
    }

    /// Whether objects of a kind in a namespace may refer to an object of the core group: in their
    /// own namespace always, in another if a ReferenceGrant there says so.
    pub(super) fn granted(
        &self,
        (from_kind, from): (&str, &str),
        (to_kind, namespace, name): (&str, &str, &str),
    ) -> bool {
        from == namespace
            || self.grants.iter().any(|grant| {
                grant.namespace().as_deref() == Some(namespace)
                    && grant.spec.from.iter().any(|trusted| {
                        trusted.group == GROUP
                            && trusted.kind == from_kind
                            && trusted.namespace == from
                    })
                    && grant.spec.to.iter().any(|target| {
                        target.group.is_empty()
                            && target.kind == to_kind
                            && target.name.as_deref().is_none_or(|only| only == name)
                    })
            })
    }

    /// Whether a selector takes a namespace. A selector that is none takes nothing.
    pub(super) fn selects(&self, selector: Option<&impl Serialize>, namespace: &str) -> bool {
        let labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        let selector = selector
            .and_then(|selector| serde_json::to_value(selector).ok())
            .and_then(|value| serde_json::from_value::<LabelSelector>(value).ok())
            .and_then(|selector| kube::core::Selector::try_from(selector).ok());
        selector.is_some_and(|selector| selector.matches(&labels))
    }
}

/// Why a class of ours is not accepted: it asks for parameters, and there are none to be had.
pub(super) fn class_problem(class: &GatewayClass) -> Option<Problem> {
    let parameters = class.spec.parameters_ref.as_ref()?;
    let message = format!(
        "parametersRef: {}/{} {}: this controller takes no parameters",
        parameters.group, parameters.kind, parameters.name
    );
    Some(Problem::new("InvalidParameters", message))
}

/// The certificate and key of a Secret, if Envoy will take them; else what is wrong.
pub(super) fn certificate_of(secret: &Secret) -> Result<Certificate, String> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes
            .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("it has no {key}"))
    };
    let certificate = Certificate {
        chain: text("tls.crt")?,
        key: text("tls.key")?,
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("tls.crt is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("tls.crt holds no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())
        .map_err(|error| format!("tls.key is no private key: {error}"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)
        .map_err(|error| format!("tls.key: {error}"))?;
    match rustls::sign::CertifiedKey::new(chain, key).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certificate)
        }
        Err(_) => Err("tls.key is not the key of the certificate in tls.crt".to_owned()),
    }
}
