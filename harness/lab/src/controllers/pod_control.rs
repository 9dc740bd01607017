//! Making and deleting pods for the object that controls them, and telling of it (Kubernetes'
//! `PodControlInterface`).
//!
//! Start from [`PodControl`].

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Resource, ResourceExt as _};

use super::owner;
use super::world::Cache;
use crate::event::{Recorder, Type};

/// Changes the pods of a namespace, and records that as events of their controllers.
pub(super) struct PodControl<'a> {
    pub(super) api: &'a Api<Pod>,
    pub(super) pods: &'a Cache<Pod>,
    pub(super) events: &'a Recorder,
}

impl PodControl<'_> {
    /// Makes a pod.
    pub(super) async fn create<K>(&self, controller: &K, pod: &Pod) -> kube::Result<Pod>
    where
        K: Resource<DynamicType = ()>,
    {
        let created = owner::create(self.api, self.pods, pod).await;
        match &created {
            Ok(pod) => {
                let message = format!("Created pod: {}", pod.name_any());
                self.events
                    .record(controller, Type::Normal, "SuccessfulCreate", message);
            }
            Err(error) if owner::is_ending(error) => {}
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.events
                    .record(controller, Type::Warning, "FailedCreate", message);
            }
        }
        created
    }

    /// Deletes a pod.
    pub(super) async fn delete<K>(&self, controller: &K, pod: &Pod) -> kube::Result<()>
    where
        K: Resource<DynamicType = ()>,
    {
        owner::delete(self.api, self.pods, pod).await?;
        let message = format!("Deleted pod: {}", pod.name_any());
        self.events
            .record(controller, Type::Normal, "SuccessfulDelete", message);
        Ok(())
    }
}
