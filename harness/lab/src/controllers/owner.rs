//! Who owns what: claiming, adopting and releasing by selector and controller reference.
//!
//! Start from [`Owner::claim`], which does what Kubernetes' `ControllerRefManager` does.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{Selector, SelectorExt as _};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::world::{Cache, Steps};

/// The reference to a controller that its objects carry.
pub(super) fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The controller of an object.
pub(super) fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    let owners = object.owner_references();
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// Whether one object controls another.
pub(super) fn controls<K: Resource>(owner: &K, object: &impl Resource) -> bool {
    let uid = owner.meta().uid.as_deref();
    controller_of(object).is_some_and(|found| Some(found.uid.as_str()) == uid)
}

/// A label selector as a test. One that cannot be understood selects nothing.
pub(super) fn selector(selector: &LabelSelector) -> Option<Selector> {
    Selector::try_from(selector.clone()).ok()
}

/// One that owns objects by a selector.
pub(super) struct Owner {
    pub(super) reference: OwnerReference,
    pub(super) selector: Selector,
    /// Whether it is being deleted: then it adopts nothing.
    pub(super) deleting: bool,
}

impl Owner {
    /// Of a controller and its selector.
    pub(super) fn new<K: Resource<DynamicType = ()>>(
        owner: &K,
        labels: &LabelSelector,
    ) -> Option<Self> {
        Some(Self {
            reference: controller_ref(owner),
            selector: selector(labels)?,
            deleting: owner.meta().deletion_timestamp.is_some(),
        })
    }

    /// The objects that are the owner's: orphans that it selects are adopted, those that it does
    /// not select any more are released.
    pub(super) async fn claim<K>(
        &self,
        api: &Api<K>,
        cache: &Cache<K>,
        objects: Vec<Arc<K>>,
        steps: &mut Steps,
    ) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let mut claimed = Vec::new();
        for object in objects {
            let selected = self.selector.matches(object.labels());
            match controller_of(&*object) {
                Some(owner) if owner.uid != self.reference.uid => {}
                Some(_) if selected => claimed.push(object),
                Some(_) if self.deleting => {}
                Some(_) => {
                    let mut owners = object.owner_references().to_vec();
                    owners.retain(|owner| owner.uid != self.reference.uid);
                    self.own(api, cache, &*object, owners, steps).await;
                }
                None if selected
                    && !self.deleting
                    && object.meta().deletion_timestamp.is_none() =>
                {
                    let mut owners = object.owner_references().to_vec();
                    owners.push(self.reference.clone());
                    claimed.extend(self.own(api, cache, &*object, owners, steps).await);
                }
                None => {}
            }
        }
        claimed
    }

    async fn own<K>(
        &self,
        api: &Api<K>,
        cache: &Cache<K>,
        object: &K,
        owners: Vec<OwnerReference>,
        steps: &mut Steps,
    ) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let patch = json!({"metadata": {
            "ownerReferences": owners, "uid": object.uid(), "resourceVersion": object.resource_version(),
        }});
        let (name, patch) = (object.name_any(), Patch::Merge(patch));
        let patched = api.patch(&name, &PatchParams::default(), &patch).await;
        let patched = steps.take(patched)?;
        cache.wrote(patched.clone());
        Some(Arc::new(patched))
    }
}

/// Creates an object and knows it.
pub(super) async fn create<K>(api: &Api<K>, cache: &Cache<K>, object: &K) -> kube::Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let made = api.create(&PostParams::default(), object).await?;
    cache.wrote(made.clone());
    Ok(made)
}

/// Replaces an object and knows it.
pub(super) async fn replace<K>(api: &Api<K>, cache: &Cache<K>, object: &K) -> kube::Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object.name_any();
    let made = api.replace(&name, &PostParams::default(), object).await?;
    cache.wrote(made.clone());
    Ok(made)
}

/// Replaces an object's status and knows it.
pub(super) async fn replace_status<K>(api: &Api<K>, cache: &Cache<K>, object: &K) -> kube::Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object.name_any();
    let made = api
        .replace_status(&name, &PostParams::default(), object)
        .await?;
    cache.wrote(made.clone());
    Ok(made)
}

/// Deletes an object, that very one, and knows it.
pub(super) async fn delete<K>(api: &Api<K>, cache: &Cache<K>, object: &K) -> kube::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(&object.name_any(), &parameters).await {
        Ok(answer) => {
            answer
                .map_left(|ending| cache.wrote(ending))
                .map_right(|_| cache.forgot(object));
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            cache.forgot(object);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Whether an object was refused because its namespace is going away: nothing is to be done then.
pub(super) fn is_ending(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains("because it is being terminated"))
}

/// A failure to make something, but for those that a namespace's end explains.
pub(super) fn forgiving<T: Default>(error: kube::Error) -> kube::Result<T> {
    if is_ending(&error) {
        Ok(T::default())
    } else {
        Err(error)
    }
}
