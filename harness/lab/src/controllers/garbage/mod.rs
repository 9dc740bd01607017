//! Garbage collection: what is owned goes when its owners go.
//!
//! Start from [`run`]. All kinds that discovery tells are watched by their metadata only, custom ones
//! too; [`graph`] decides, as a pure function, what is to be done about each object. Deletion in the
//! background, in the foreground and with orphans differ only in the finalizers that the API server
//! puts on an owner.

mod graph;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::discovery::{Scope, verbs};
use kube::runtime::watcher;
use kube::{Api, Client, Discovery, ResourceExt as _};
use serde_json::json;
use tokio::task::AbortHandle;

use self::graph::{Graph, Item, Step};
use super::informer::Informers;
use super::world::{Cache, Next, Steps, World};

type Meta = PartialObjectMeta<DynamicObject>;

/// How long what changes is waited for to be followed by more.
const HOLDOFF: Duration = Duration::from_millis(50);

/// Runs the controller.
pub(super) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let mut collector = Collector {
        client,
        kinds: BTreeMap::new(),
        definitions: None,
        absent: HashSet::new(),
    };
    loop {
        let result = collector.pass(&mut world).await;
        world.settled("", result);
        world.changed().await;
        // Every pass looks at every object; nobody waits for it to the millisecond.
        tokio::time::sleep(HOLDOFF).await;
    }
}

/// A kind of objects that is watched.
struct Watched {
    resource: ApiResource,
    namespaced: bool,
    objects: Cache<Meta>,
    watch: AbortHandle,
}

struct Collector {
    client: Client,
    /// By group and plural.
    kinds: BTreeMap<(String, String), Watched>,
    /// The CustomResourceDefinitions and their generations when discovery was last asked.
    definitions: Option<Vec<(Option<String>, Option<i64>)>>,
    /// Owners, by uid, that the API server said are not there. A uid never comes back.
    absent: HashSet<String>,
}

impl Collector {
    fn definitions(&self) -> Vec<(Option<String>, Option<i64>)> {
        let key = (
            "apiextensions.k8s.io".to_owned(),
            "customresourcedefinitions".to_owned(),
        );
        let definitions = self.kinds.get(&key).map(|kind| kind.objects.all());
        let definitions = definitions.unwrap_or_default();
        definitions
            .iter()
            .map(|one| (one.uid(), one.metadata.generation))
            .collect()
    }

    /// Watches the kinds that there are now.
    async fn discover(&mut self, world: &mut World) -> kube::Result<()> {
        let discovery = Discovery::new(self.client.clone()).run().await?;
        let found: Vec<_> = discovery
            .groups()
            .flat_map(kube::discovery::ApiGroup::recommended_resources)
            .filter(|(resource, can)| {
                // Nobody owns an event, and there are many.
                resource.plural != "events"
                    && [verbs::LIST, verbs::WATCH, verbs::DELETE]
                        .iter()
                        .all(|verb| can.supports_operation(verb))
            })
            .collect();
        let key = |resource: &ApiResource| (resource.group.clone(), resource.plural.clone());
        self.kinds.retain(|known, kind| {
            let served = found.iter().any(|(resource, _)| key(resource) == *known);
            if !served {
                kind.watch.abort();
            }
            served
        });
        for (resource, can) in found {
            if self.kinds.contains_key(&key(&resource)) {
                continue;
            }
            let api = Api::<Meta>::all_with(self.client.clone(), &resource);
            let (objects, watch) = world.watch_for_now(api, watcher::Config::default());
            let kind = Watched {
                namespaced: can.scope == Scope::Namespaced,
                objects,
                watch,
                resource,
            };
            self.kinds.insert(key(&kind.resource), kind);
        }
        world.ready().await;
        Ok(())
    }

    async fn pass(&mut self, world: &mut World) -> kube::Result<Next> {
        while self.definitions.is_none() || self.definitions != Some(self.definitions()) {
            let before = self.definitions();
            self.discover(world).await?;
            self.definitions = Some(before);
            if self.definitions() == self.definitions.clone().unwrap_or_default() {
                break;
            }
        }
        let mut items = Vec::new();
        for (key, kind) in &self.kinds {
            for object in kind.objects.all() {
                items.push(Item::new(key.clone(), object));
            }
        }
        let mut steps = Steps::default();
        let graph = Graph::of(&items);
        self.check_owners(&graph, &mut steps).await;
        let plan = graph.decide(|owner| self.absent.contains(owner));
        for (item, step) in plan {
            let result = self.carry_out(item, step).await;
            steps.take(result);
        }
        steps.end(Next::Change)
    }

    /// Asks about owners that are not in our caches: a watch may only be behind.
    async fn check_owners(&mut self, graph: &Graph<'_>, steps: &mut Steps) {
        for (item, owner) in graph.unknown_owners() {
            if self.absent.contains(&owner.uid) {
                continue;
            }
            let result = self.is_absent(item, owner).await;
            if steps.take(result) == Some(true) {
                self.absent.insert(owner.uid.clone());
            }
        }
    }

    async fn is_absent(&self, item: &Item, owner: &OwnerReference) -> kube::Result<bool> {
        let group = owner
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let mut kinds = self.kinds.values();
        let kind =
            kinds.find(|kind| kind.resource.group == group && kind.resource.kind == owner.kind);
        // A kind that is not served cannot be asked about: nothing is deleted for it.
        let Some(kind) = kind else { return Ok(false) };
        let api = if kind.namespaced {
            let Some(namespace) = item.object.namespace() else {
                return Ok(false);
            };
            Api::<DynamicObject>::namespaced_with(self.client.clone(), &namespace, &kind.resource)
        } else {
            Api::<DynamicObject>::all_with(self.client.clone(), &kind.resource)
        };
        let found = api.get_metadata_opt(&owner.name).await?;
        Ok(found.is_none_or(|found| found.uid().as_deref() != Some(&owner.uid)))
    }

    async fn carry_out(&self, item: &Item, step: Step) -> kube::Result<()> {
        let Some(kind) = self.kinds.get(&item.kind) else {
            return Ok(());
        };
        let api = match item.object.namespace() {
            Some(namespace) => Api::<DynamicObject>::namespaced_with(
                self.client.clone(),
                &namespace,
                &kind.resource,
            ),
            None => Api::<DynamicObject>::all_with(self.client.clone(), &kind.resource),
        };
        let name = item.object.name_any();
        let change = |field: &str, value: serde_json::Value| {
            Patch::Merge(json!({"metadata": {
                field: value, "uid": item.object.uid(), "resourceVersion": item.object.resource_version(),
            }}))
        };
        let patch = match step {
            Step::Delete(policy) => {
                tracing::debug!(
                    kind = kind.resource.kind,
                    name,
                    ?policy,
                    "collecting garbage"
                );
                let parameters = DeleteParams {
                    propagation_policy: Some(policy),
                    preconditions: Some(Preconditions {
                        uid: item.object.uid(),
                        resource_version: item.object.resource_version(),
                    }),
                    ..DeleteParams::default()
                };
                api.delete(&name, &parameters).await?;
                return Ok(());
            }
            Step::Disown(owners) => change("ownerReferences", json!(owners)),
            Step::Finish(finalizers) => change("finalizers", json!(finalizers)),
        };
        api.patch_metadata(&name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}
