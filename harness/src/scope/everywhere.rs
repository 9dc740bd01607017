//! Objects of all namespaces, for checks that follow an address to whoever has it.

use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::{Api, Resource};

use super::Scope;
use super::objects::Object;
use crate::verdict::{Doing as _, NoVerdict};

impl Scope {
    /// The objects of a label selector (all, if it is empty) in every namespace.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn list_everywhere<K>(&self, selector: &str) -> Result<Vec<K>, NoVerdict>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let parameters = ListParams::default().labels(selector);
        let api = Api::<K>::all(self.client().clone());
        let list = api.list(&parameters).await.doing(|| {
            format!(
                "listing {} of all namespaces",
                K::plural(&K::DynamicType::default())
            )
        })?;
        Ok(list.items)
    }
}
