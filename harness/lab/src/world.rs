//! What a component sees of the cluster, kept up to date.
//!
//! Start from [`World::watch`]: a store for each kind, and one [`World::changed`] for all of them.
//! Translating is done from scratch each time and is pure; that is cheap at a lab's size, and an
//! event that was missed cannot leave anything wrong. Rule: everything stops when the world is
//! dropped.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt};
use kube::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::watch::{Again, Watch};

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
        K: Watch<DynamicType: Default + Eq + Hash + Clone + Send + Sync>,
    {
        let store = self.follow(api, Again::default());
        let reader = store.clone();
        self.ready.push(Box::pin(async move {
            // The writer lives as long as its task, so this cannot fail while we are here.
            let _ = reader.wait_until_ready().await;
        }));
        store
    }

    /// The same of a kind that may be defined later: it is looked for every second, and nobody waits for it.
    pub(crate) fn watch_later<K>(&mut self, api: Api<K>) -> Store<K>
    where
        K: Watch<DynamicType: Default + Eq + Hash + Clone + Send + Sync>,
    {
        self.follow(api, Again::EverySecond)
    }

    /// Keeps a store of what a watch says.
    fn follow<K>(&mut self, api: Api<K>, again: Again) -> Store<K>
    where
        K: Watch<DynamicType: Default + Eq + Hash + Clone + Send + Sync>,
    {
        let events = K::watch(api, watcher::Config::default(), again);
        let (store, writer) = reflector::store();
        let changed = self.changed.clone();
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

    /// The same, and for what follows within this time, so that it is looked at together: changes come in bursts, and
    /// whoever makes everything anew for each does little else.
    pub(crate) async fn settled(&mut self, holdoff: Duration) {
        self.changed().await;
        tokio::time::sleep(holdoff).await;
        self.forget();
    }

    /// Waits for a change, and then until this moment, for what else there is by then.
    pub(crate) async fn changed_after(&mut self, moment: Instant) {
        self.changed().await;
        tokio::time::sleep_until(moment).await;
        self.forget();
    }

    /// Of changes until now nothing is told again: a store has a change before it is told of, so whoever looks now sees it.
    fn forget(&self) {
        let _ = self.changed.notified().now_or_never();
    }
}
