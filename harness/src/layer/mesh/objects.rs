//! The part of Istio's objects that a diagnosis reads.
//!
//! Start from [`read`]. Everything else in an object is ignored: whether it is valid is Istio's to
//! say.

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::layer::labels::Labels;

/// An object and the part of its specification that is read here.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Read<T> {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) spec: T,
}

/// Reads an object; nothing if it is not of that shape.
pub(in crate::layer) fn read<T: DeserializeOwned>(object: &DynamicObject) -> Option<Read<T>> {
    Some(Read {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        spec: T::deserialize(object.data.get("spec")?).ok()?,
    })
}

/// Of a VirtualService.
#[derive(Debug, Clone, Default, Deserialize)]
pub(in crate::layer) struct VirtualServiceSpec {
    #[serde(default)]
    pub(super) hosts: Vec<String>,
    #[serde(default)]
    pub(super) http: Vec<HttpRule>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct HttpRule {
    #[serde(default)]
    pub(super) route: Vec<Arm>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Arm {
    pub(super) destination: Destination,
    #[serde(default)]
    pub(super) weight: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Destination {
    pub(super) host: String,
    #[serde(default)]
    pub(super) subset: Option<String>,
}

/// Of a DestinationRule.
#[derive(Debug, Clone, Default, Deserialize)]
pub(in crate::layer) struct DestinationRuleSpec {
    pub(super) host: String,
    #[serde(default)]
    pub(super) subsets: Vec<Subset>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Subset {
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: Labels,
}

/// Of a ServiceEntry.
#[derive(Debug, Clone, Default, Deserialize)]
pub(in crate::layer) struct ServiceEntrySpec {
    #[serde(default)]
    pub(super) hosts: Vec<String>,
}
