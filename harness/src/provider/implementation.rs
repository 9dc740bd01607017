//! Whose implementation of a layer is judged, found out by looking at the classes that manifests come to name.

use gateway_api::gatewayclasses::GatewayClass;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use super::Cluster;
use crate::apply::GATEWAY_CLASS;
use crate::stack::Layer;
use crate::verdict::{Doing as _, NoVerdict};

/// The annotation of the class that is taken where an Ingress names none.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// Whether a class is taken where an Ingress names none.
pub(crate) fn is_default(class: &IngressClass) -> bool {
    let marked = class.annotations().get(DEFAULT_CLASS);
    marked.is_some_and(|marked| marked == "true")
}

impl Cluster {
    /// What the class of a layer's Ingresses or Gateways says is its controller; nothing of other layers, and
    /// nothing where there is no such class.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn controller(&self, layer: Layer) -> Result<Option<String>, NoVerdict> {
        let doing = || format!("looking at the class of {layer}");
        match layer {
            Layer::Ingress => {
                let classes = Api::<IngressClass>::all(self.client.clone());
                let classes = classes.list(&ListParams::default()).await.doing(doing)?;
                let named = self.fit.ingress_class.as_deref();
                let ours = |class: &IngressClass| match named {
                    Some(named) => class.name_any() == named,
                    None => is_default(class),
                };
                let class = classes.items.into_iter().find(ours);
                Ok(class.and_then(|class| class.spec?.controller))
            }
            Layer::Gateway => {
                let named = self.fit.gateway_class.as_deref().unwrap_or(GATEWAY_CLASS);
                let classes = Api::<GatewayClass>::all(self.client.clone());
                let class = classes.get_opt(named).await.doing(doing)?;
                Ok(class.map(|class| class.spec.controller_name))
            }
            Layer::Cni | Layer::Services | Layer::Mesh => Ok(None),
        }
    }
}
