//! What a check changes of objects that are not its own, and what they were before.
//!
//! Start from [`Scope::annotate`]. Rule: whatever is changed here is put back when the check ends, before
//! anything that it made is deleted; so a body contains no cleanup.

use std::sync::PoisonError;

use k8s_openapi::ClusterResourceScope;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::json;

use super::Scope;
use super::objects::Object;
use crate::verdict::{Doing as _, NoVerdict};

/// An annotation as it was.
#[derive(Debug)]
pub(super) struct Former {
    resource: ApiResource,
    name: String,
    key: String,
    value: Option<String>,
}

impl Scope {
    /// Gives an object of no namespace an annotation, or takes it away, until the check ends.
    ///
    /// # Errors
    /// When the object is not there, or the API refuses.
    pub async fn annotate<K>(
        &self,
        name: &str,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), NoVerdict>
    where
        K: Object + Resource<Scope = ClusterResourceScope>,
    {
        let object: K = self.get_cluster(name).await?;
        let annotations = object.meta().annotations.as_ref();
        let former = Former {
            resource: ApiResource::erase::<K>(&K::DynamicType::default()),
            name: name.to_owned(),
            key: key.to_owned(),
            value: annotations.and_then(|all| all.get(key).cloned()),
        };
        let changed = self.write(&former, value).await;
        let formers = self.formers.lock();
        formers.unwrap_or_else(PoisonError::into_inner).push(former);
        changed
    }

    /// Puts an annotation back.
    pub(super) async fn restore(&self, former: &Former) -> Result<(), NoVerdict> {
        self.write(former, former.value.as_deref()).await
    }

    async fn write(&self, of: &Former, value: Option<&str>) -> Result<(), NoVerdict> {
        let api = Api::<DynamicObject>::all_with(self.client().clone(), &of.resource);
        let patch = json!({"metadata": {"annotations": {of.key.as_str(): value}}});
        api.patch(&of.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .doing(|| format!("annotating {} {}", of.resource.kind, of.name))?;
        Ok(())
    }
}
