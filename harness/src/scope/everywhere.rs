//! Objects of all namespaces, for checks that follow an address to whoever has it; namespaces beside a
//! check's own; objects of kinds that have no type here, and what is no object at all.

use std::sync::PoisonError;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Resource};

use super::objects::Object;
use super::{Scope, suffix};
use crate::apply::{self, Refusal};
use crate::budget::CREATE;
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

    /// Makes a namespace beside [`Self::namespace`], for what has to do with another one, applies
    /// documents into it and waits until their workloads are ready. Returns its name; it goes when
    /// the check's own does.
    ///
    /// # Errors
    /// When a document is malformed, the API refuses, or a workload does not get ready.
    pub async fn neighbour(&self, yaml: &str) -> Result<String, NoVerdict> {
        let manifest = self.written(yaml)?;
        let stem = self.namespace().rsplit_once('-');
        let stem = stem.map_or(self.namespace(), |(stem, _)| stem);
        let name = format!("{stem}-{}", suffix());
        let neighbours = self.neighbours.lock();
        neighbours
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.clone());
        self.open_namespace(&name, &manifest).await?;
        let globals = self.applier.apply_into(&name, &manifest).await?;
        self.remember(globals);
        apply::ready(self.client(), &manifest, Some(&name), CREATE, &|_| {}).await?;
        Ok(name)
    }

    /// What the API server answers a GET of a path with, as `kubectl get --raw` shows it.
    ///
    /// # Errors
    /// When it cannot be asked; a refusal is an answer.
    pub async fn get_raw(&self, path: &str) -> Result<Result<String, Refusal>, NoVerdict> {
        let doing = || format!("getting {path}");
        let request = http::Request::get(path).body(Vec::new()).doing(doing)?;
        match self.client().request_text(request).await {
            Ok(text) => Ok(Ok(text)),
            Err(error) => Refusal::of(error).map(Err).doing(doing),
        }
    }

    /// Deletes an object of a kind that has no type here from [`Self::namespace`]:
    /// `delete_kind("networking.istio.io/v1", "VirtualService", "web")`. Does not wait until it is gone.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn delete_kind(
        &self,
        api_version: &str,
        kind: &str,
        name: &str,
    ) -> Result<(), NoVerdict> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let client = self.client().clone();
        let api = Api::<DynamicObject>::namespaced_with(client, self.namespace(), &resource);
        api.delete(name, &DeleteParams::default())
            .await
            .doing(|| format!("deleting {kind} {}/{name}", self.namespace()))?;
        Ok(())
    }
}
