//! What a component sees of the cluster, kept up to date.
//!
//! Start from [`World::watch`]: a store for each kind, and one [`World::changed`] for all of them.
//! Translating is done from scratch each time and is pure; that is cheap at a lab's size, and an
//! event that was missed cannot leave anything wrong. Rule: everything stops when the world is
//! dropped.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The watches of one component.
#[derive(Default)]
pub(crate) struct World {
    changed: Arc<Notify>,
    tasks: JoinSet<()>,
    ready: Vec<BoxFuture<'static, ()>>,
}

impl World {
    /// Watches every object of a kind.
    pub(crate) fn watch<K>(&mut self, api: Api<K>) -> Store<K>
    where
        K: Resource<DynamicType: Default + Eq + Hash + Clone + Send + Sync>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let (store, writer) = reflector::store();
        let changed = self.changed.clone();
        let events = watcher(api, watcher::Config::default()).default_backoff();
        self.tasks.spawn(async move {
            let mut events = std::pin::pin!(reflector::reflector(writer, events));
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                    Ok(_) => changed.notify_one(),
                    // Not fatal: the watch starts again after a pause, and the store keeps what it
                    // had. It is how a CustomResourceDefinition not yet there shows itself, too.
                    Err(error) => tracing::debug!(%error, "a watch failed and starts again"),
                }
            }
        });
        let reader = store.clone();
        self.ready.push(Box::pin(async move {
            // The writer lives as long as its task, so this cannot fail while we are here.
            let _ = reader.wait_until_ready().await;
        }));
        store
    }

    /// Waits until every watch has seen its first list.
    pub(crate) async fn ready(&mut self) {
        futures::future::join_all(self.ready.drain(..)).await;
    }

    /// Waits for a change since the last call returned.
    pub(crate) async fn changed(&mut self) {
        self.changed.notified().await;
    }
}
