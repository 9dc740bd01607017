//! Objects of the API as checks read and change them.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{CHECK_LABEL, Scope, label};
use crate::apply::{FIELD_MANAGER, Manifest, Refusal};
use crate::budget::GONE;
use crate::verdict::{Doing as _, NoVerdict};
use crate::wait::{self, Progress};

/// What an object's type must be to be read here.
pub trait Object: Resource<DynamicType: Default> + Clone + Debug + DeserializeOwned {}
impl<K: Resource<DynamicType: Default> + Clone + Debug + DeserializeOwned> Object for K {}

impl Scope {
    /// All nodes, by name.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn nodes(&self) -> Result<Vec<Node>, NoVerdict> {
        let api = Api::<Node>::all(self.client().clone());
        self.all(api, "").await
    }

    /// An object of [`Self::namespace`] that must be there.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub async fn get<K>(&self, name: &str) -> Result<K, NoVerdict>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        self.get_in(self.namespace(), name).await
    }

    /// An object of any namespace that must be there.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub async fn get_in<K>(&self, namespace: &str, name: &str) -> Result<K, NoVerdict>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let api = Api::<K>::namespaced(self.client().clone(), namespace);
        api.get(name)
            .await
            .doing(|| format!("reading {} {namespace}/{name}", kind::<K>()))
    }

    /// An object of no namespace that must be there.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub async fn get_cluster<K>(&self, name: &str) -> Result<K, NoVerdict>
    where
        K: Object + Resource<Scope = ClusterResourceScope>,
    {
        let api = Api::<K>::all(self.client().clone());
        api.get(name)
            .await
            .doing(|| format!("reading {} {name}", kind::<K>()))
    }

    /// An object that may be there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn find_in<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, NoVerdict>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let api = Api::<K>::namespaced(self.client().clone(), namespace);
        api.get_opt(name)
            .await
            .doing(|| format!("reading {} {namespace}/{name}", kind::<K>()))
    }

    /// The objects of a label selector (all, if it is empty) in [`Self::namespace`], by name.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn list<K>(&self, selector: &str) -> Result<Vec<K>, NoVerdict>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        self.list_in(self.namespace(), selector).await
    }

    /// The objects of a label selector (all, if it is empty) in any namespace, by name.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn list_in<K>(&self, namespace: &str, selector: &str) -> Result<Vec<K>, NoVerdict>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let api = Api::<K>::namespaced(self.client().clone(), namespace);
        self.all(api, selector).await
    }

    /// The objects of a kind that has no type here, `list_kind("istio-system",
    /// "networking.istio.io/v1", "VirtualService")`, by name; none where the API does not serve it.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn list_kind(
        &self,
        namespace: &str,
        api_version: &str,
        kind: &str,
    ) -> Result<Vec<DynamicObject>, NoVerdict> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        self.applier.list(namespace, &gvk).await
    }

    /// Applies documents (server-side, as the field manager `strata`) into [`Self::namespace`].
    ///
    /// # Errors
    /// When one is malformed, or the API refuses it.
    pub async fn apply(&self, yaml: &str) -> Result<(), NoVerdict> {
        let manifest = self.written(yaml)?;
        if let Some(stands) = manifest.documents.iter().find(|it| it.is_namespace()) {
            let api = Api::<Namespace>::all(self.client().clone());
            let metadata = stands.object.pointer("/metadata");
            let field = |name: &str| metadata.and_then(|metadata| metadata.get(name));
            let patch = json!({"metadata": {
                "labels": field("labels"), "annotations": field("annotations"),
            }});
            api.patch(self.namespace(), &patch_parameters(), &Patch::Merge(patch))
                .await
                .doing(|| format!("patching Namespace {}", self.namespace()))?;
        }
        self.apply_manifest(&manifest).await
    }

    /// Creates the one object of a document in [`Self::namespace`] and says what the API said. It carries
    /// the label of its check's namespace: whoever is asked to admit it can tell it from the fixture.
    ///
    /// # Errors
    /// When the document is malformed, or the API cannot be asked.
    pub async fn attempt(&self, yaml: &str) -> Result<Result<DynamicObject, Refusal>, NoVerdict> {
        let mut manifest = self.written(yaml)?;
        let [document] = manifest.documents.as_mut_slice() else {
            let found = manifest.documents.len();
            return Err(NoVerdict::new(format!(
                "{found} documents where one object is to be created"
            )));
        };
        document.object["metadata"]["labels"][CHECK_LABEL] = json!(label(self.id()));
        let created = self.applier.create(self.namespace(), document).await?;
        Ok(created.map(|(object, global)| {
            self.remember(global);
            object
        }))
    }

    pub(super) fn written(&self, yaml: &str) -> Result<Manifest, NoVerdict> {
        let shown = format!("the YAML of {}", self.id());
        let manifest = Manifest::parse(yaml, &shown)?;
        Ok(manifest.without_namespaces(&shown)?)
    }

    /// Merges a patch (RFC 7386) into an object of [`Self::namespace`].
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn merge<K>(&self, name: &str, patch: serde_json::Value) -> Result<K, NoVerdict>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let api = Api::<K>::namespaced(self.client().clone(), self.namespace());
        api.patch(name, &patch_parameters(), &Patch::Merge(patch))
            .await
            .doing(|| format!("patching {} {}/{name}", kind::<K>(), self.namespace()))
    }

    /// Deletes an object of [`Self::namespace`] and waits until it is gone. Another of its name may be there already:
    /// whoever keeps a StatefulSet's pods makes the next one at once.
    ///
    /// # Errors
    /// When the API refuses, or it is not gone within [`GONE`].
    pub async fn delete<K>(&self, name: &str) -> Result<(), NoVerdict>
    where
        K: Object + Resource<Scope = NamespaceResourceScope> + Send + 'static,
    {
        let api = Api::<K>::namespaced(self.client().clone(), self.namespace());
        let subject = format!("{} {}/{name}", kind::<K>(), self.namespace());
        let deleted = api
            .delete(name, &DeleteParams::default())
            .await
            .doing(|| format!("deleting {subject}"))?;
        // The API answers with the object while it is still there, and else with a status that has its UID.
        let uid = deleted
            .map_left(|object| object.meta().uid.clone())
            .map_right(|status| status.details.map(|details| details.uid))
            .into_inner();
        let uid = uid.filter(|uid| !uid.is_empty());
        let what = format!("{subject} is gone");
        wait::object(&what, GONE, api, name, |object| match object {
            Some(object) if !is_gone(Some(object), uid.as_deref()) => {
                Progress::NotYet(match &object.meta().finalizers {
                    Some(held) => format!("it is still there, held by {}", held.join(", ")),
                    None => "it is still there".to_owned(),
                })
            }
            _ => Progress::Ready(()),
        })
        .await
    }

    async fn all<K: Object>(&self, api: Api<K>, selector: &str) -> Result<Vec<K>, NoVerdict> {
        let parameters = ListParams::default().labels(selector);
        let list = api
            .list(&parameters)
            .await
            .doing(|| format!("listing {}", K::plural(&K::DynamicType::default())))?;
        let mut items = list.items;
        items.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
        Ok(items)
    }
}

fn patch_parameters() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Whether the object of a UID is gone, by what has its name now.
fn is_gone<K: Resource>(now: Option<&K>, uid: Option<&str>) -> bool {
    let same = |now: &K| uid.is_none() || now.meta().uid.as_deref() == uid;
    !now.is_some_and(same)
}

fn kind<K: Resource<DynamicType: Default>>() -> String {
    K::kind(&K::DynamicType::default()).into_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn another_of_its_name_is_not_the_one_that_was_deleted() {
        let pod = |uid: &str| -> Pod {
            let object = json!({ "metadata": { "name": "web-0", "uid": uid } });
            serde_json::from_value(object).unwrap()
        };
        for (now, uid, gone) in [
            (Some(pod("a")), Some("a"), false),
            (Some(pod("b")), Some("a"), true),
            (Some(pod("a")), None, false),
            (None, Some("a"), true),
            (None, None, true),
        ] {
            assert_eq!(is_gone(now.as_ref(), uid), gone, "{now:?} {uid:?}");
        }
    }
}
