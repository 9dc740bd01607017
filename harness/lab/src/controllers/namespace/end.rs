//! The end of a namespace: its content is deleted, then the finalizer is taken away.
//!
//! Start from [`run`]. What is in a namespace is found by discovery, so custom resources go too. Pods
//! go first (OrderedNamespaceDeletion), so what protects them stays until they are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, ListParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::{Scope, verbs};
use kube::{Api, Client, Discovery, ResourceExt as _};
use serde_json::{Value, json};

use crate::controllers::informer::Informers;
use crate::controllers::world::{Cache, Controller, Next, Steps, World, drive};

/// The finalizer that this controller takes away.
const FINALIZER: &str = "kubernetes";
/// How soon to look again whether what is ending has ended; it doubles up to the longest.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// Runs the controller.
pub(in crate::controllers) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = Ends {
        namespaces: world.watch(),
        pods: world.watch(),
        looks: BTreeMap::new(),
        client,
    };
    drive(world, controller).await;
}

struct Ends {
    client: Client,
    namespaces: Cache<Namespace>,
    /// Only to notice when the last pod is gone.
    pods: Cache<Pod>,
    /// How often each ending namespace was looked at.
    looks: BTreeMap<String, u32>,
}

impl Controller for Ends {
    async fn reconcile(&mut self, marked: &str) -> kube::Result<Next> {
        let ending = if marked.is_empty() {
            self.namespaces.all()
        } else {
            self.namespaces.get("", marked).into_iter().collect()
        };
        let mut steps = Steps::default();
        let mut next = Next::Change;
        self.looks
            .retain(|name, _| self.namespaces.get("", name).is_some());
        for namespace in ending {
            let finalizers = namespace.spec.as_ref();
            let finalizers = finalizers.and_then(|spec| spec.finalizers.as_ref());
            let ours = finalizers.is_some_and(|list| list.iter().any(|one| one == FINALIZER));
            if namespace.metadata.deletion_timestamp.is_none() || !ours {
                continue;
            }
            if let Some(wait) = steps.take(self.end(&namespace).await) {
                next = next.or(wait);
            }
        }
        steps.end(next)
    }
}

/// What is left of one kind, by what holds it.
#[derive(Default)]
struct Remaining {
    kinds: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Ends {
    async fn end(&mut self, namespace: &Namespace) -> kube::Result<Next> {
        let name = namespace.name_any();
        let mut resources = contents(&self.client).await?;
        // Pods first.
        resources.sort_by_key(|resource| !(resource.group.is_empty() && resource.plural == "pods"));
        let mut remaining = Remaining::default();
        for resource in &resources {
            self.empty(&name, resource, &mut remaining).await?;
            if resource.group.is_empty() && resource.plural == "pods" && !remaining.kinds.is_empty()
            {
                break;
            }
        }
        if remaining.kinds.is_empty() {
            self.looks.remove(&name);
            return self.finalize(namespace).await.map(|()| Next::Change);
        }
        self.report(namespace, &remaining).await?;
        if !self.pods.of(&name).is_empty() {
            // Their end is news.
            return Ok(Next::Change);
        }
        let looks = self.looks.entry(name).or_default();
        let wait = FIRST_LOOK.saturating_mul(1 << (*looks).min(16));
        *looks += 1;
        Ok(Next::After(wait.min(LONGEST_LOOK)))
    }

    async fn empty(
        &self,
        namespace: &str,
        resource: &ApiResource,
        remaining: &mut Remaining,
    ) -> kube::Result<()> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, resource);
        let list = match api.list_metadata(&ListParams::default()).await {
            Ok(list) => list.items,
            // A kind that is not served any more has nothing in it.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error),
        };
        if list.is_empty() {
            return Ok(());
        }
        let (delete, all) = (DeleteParams::background(), ListParams::default());
        api.delete_collection(&delete, &all).await?;
        let left = api.list_metadata(&ListParams::default()).await?.items;
        if left.is_empty() {
            return Ok(());
        }
        let kind = if resource.group.is_empty() {
            format!("{}.", resource.plural)
        } else {
            format!("{}.{}", resource.plural, resource.group)
        };
        remaining.kinds.insert(kind, left.len());
        for object in left {
            for finalizer in object.finalizers() {
                *remaining.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
        }
        Ok(())
    }

    async fn finalize(&self, namespace: &Namespace) -> kube::Result<()> {
        let name = namespace.name_any();
        let mut finalizers = namespace
            .spec
            .clone()
            .and_then(|spec| spec.finalizers)
            .unwrap_or_default();
        finalizers.retain(|one| one != FINALIZER);
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "uid": namespace.uid()},
            "spec": {"finalizers": finalizers},
        });
        let request = kube::core::Request::new("/api/v1/namespaces")
            .replace_subresource(
                "finalize",
                &name,
                &PostParams::default(),
                body.to_string().into_bytes(),
            )
            .map_err(kube::Error::BuildRequest)?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells in the status what is left, in the namespace controller's words.
    async fn report(&self, namespace: &Namespace, remaining: &Remaining) -> kube::Result<()> {
        let listed = |counts: &BTreeMap<String, usize>, what: &str| {
            let lines: Vec<String> = counts
                .iter()
                .map(|(name, count)| format!("{name} has {count} {what}"))
                .collect();
            lines.join(", ")
        };
        let content = format!(
            "Some resources are remaining: {}",
            listed(&remaining.kinds, "resource instances")
        );
        let finalizers = (!remaining.finalizers.is_empty()).then(|| {
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                listed(&remaining.finalizers, "resource instances").replace(" has ", " in ")
            )
        });
        let old = namespace.status.clone().unwrap_or_default();
        let conditions = old.conditions.as_deref().unwrap_or_default();
        let condition = |name: &str, reason: &str, message: &str, holds: bool| {
            let status = if holds { "True" } else { "False" };
            let before = conditions
                .iter()
                .find(|one| one.type_ == name && one.status == status);
            NamespaceCondition {
                type_: name.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_transition_time: before
                    .and_then(|one| one.last_transition_time.clone())
                    .or_else(|| Some(Time(Timestamp::now()))),
            }
        };
        let new = vec![
            condition(
                "NamespaceDeletionDiscoveryFailure",
                "ResourcesDiscovered",
                "All resources successfully discovered",
                false,
            ),
            condition(
                "NamespaceDeletionContentFailure",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
                false,
            ),
            condition(
                "NamespaceContentRemaining",
                "SomeResourcesRemain",
                &content,
                true,
            ),
            match &finalizers {
                Some(message) => condition(
                    "NamespaceFinalizersRemaining",
                    "SomeFinalizersRemain",
                    message,
                    true,
                ),
                None => condition(
                    "NamespaceFinalizersRemaining",
                    "ContentHasNoFinalizers",
                    "All content-preserving finalizers finished",
                    false,
                ),
            },
        ];
        if conditions == new {
            return Ok(());
        }
        let mut changed = namespace.clone();
        let status = changed.status.get_or_insert_default();
        status.phase = Some("Terminating".to_owned());
        status.conditions = Some(new);
        let api = Api::<Namespace>::all(self.client.clone());
        let written = api
            .replace_status(&namespace.name_any(), &PostParams::default(), &changed)
            .await?;
        self.namespaces.wrote(written);
        Ok(())
    }
}

/// Every kind of object that namespaces hold and that can be deleted.
async fn contents(client: &Client) -> kube::Result<Vec<ApiResource>> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let resources = discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::recommended_resources);
    Ok(resources
        .filter(|(_, capabilities)| {
            capabilities.scope == Scope::Namespaced
                && capabilities.supports_operation(verbs::LIST)
                && capabilities.supports_operation(verbs::DELETE_COLLECTION)
        })
        .map(|(resource, _)| resource)
        .collect())
}
