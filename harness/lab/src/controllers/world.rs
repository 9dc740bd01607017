//! What a controller sees of the cluster: caches kept by watches, and by its own writes.
//!
//! Start from [`World::watch`] and [`drive`]. A change marks its object's namespace, and the
//! controller brings a marked namespace into order as a whole, so an event that was missed cannot
//! leave anything wrong. Rule: what a controller wrote is in its cache before it looks again
//! ([`Cache::wrote`]), or it would do everything twice.
//!
//! ```text
//! watches ──► caches ──► marks ──► Controller::reconcile ──► API server
//!                ▲────────────── wrote, forgot ◄─────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt as _};
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::informer::{Informers, Key, events, key_of, lock};
use crate::watch::Watch;

/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`] (client-go's rate limiter).
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The namespaces that something happened in.
#[derive(Clone, Default)]
pub(super) struct Marks(Arc<Marked>);

#[derive(Default)]
struct Marked {
    namespaces: Mutex<BTreeSet<String>>,
    news: Notify,
}

impl Marks {
    /// Marks a namespace to be looked at; the empty one stands for the cluster's own objects.
    pub(super) fn mark(&self, namespace: &str) {
        lock(&self.0.namespaces).insert(namespace.to_owned());
        self.0.news.notify_one();
    }

    /// Waits for marks, and takes them.
    async fn take(&self) -> BTreeSet<String> {
        loop {
            let taken = std::mem::take(&mut *lock(&self.0.namespaces));
            if !taken.is_empty() {
                return taken;
            }
            self.0.news.notified().await;
        }
    }
}

/// The objects of one kind. Clones are the same cache.
pub(super) struct Cache<K> {
    objects: Arc<Mutex<Objects<K>>>,
    marks: Marks,
}

struct Objects<K> {
    live: BTreeMap<Key, Arc<K>>,
    /// Objects that we removed but whose removal the watch has not told yet, by uid.
    gone: HashSet<String>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            marks: self.marks.clone(),
        }
    }
}

/// Resource versions of one kind are numbers that grow (KEP-5504).
fn revision<K: Resource>(object: &K) -> u64 {
    object
        .resource_version()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

impl<K: Resource> Cache<K> {
    fn new(marks: Marks) -> Self {
        let objects = Objects {
            live: BTreeMap::new(),
            gone: HashSet::new(),
        };
        Self {
            objects: Arc::new(Mutex::new(objects)),
            marks,
        }
    }

    /// Every object.
    pub(super) fn all(&self) -> Vec<Arc<K>> {
        lock(&self.objects).live.values().cloned().collect()
    }

    /// The objects of a namespace, in order of their names.
    pub(super) fn of(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = lock(&self.objects);
        let from = (namespace.to_owned(), String::new());
        let found = objects.live.range(from..);
        let found = found.take_while(|((found, _), _)| found == namespace);
        found.map(|(_, object)| object.clone()).collect()
    }

    /// One object.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        lock(&self.objects).live.get(&key).cloned()
    }

    /// Takes what a write answered; older news of the object is ignored from now on.
    pub(super) fn wrote(&self, object: K) {
        self.learn(Arc::new(object));
    }

    /// Takes that an object was removed at once.
    pub(super) fn forgot(&self, object: &K) {
        let mut objects = lock(&self.objects);
        let key = key_of(object);
        if objects
            .live
            .get(&key)
            .is_some_and(|found| found.uid() == object.uid())
        {
            objects.live.remove(&key);
            objects.gone.extend(object.uid());
            self.marks.mark(&key.0);
        }
    }

    /// Takes a state that we know is coming, whose revision the server did not tell.
    pub(super) fn assume(&self, object: K) {
        lock(&self.objects)
            .live
            .insert(key_of(&object), Arc::new(object));
    }

    fn learn(&self, object: Arc<K>) {
        let mut objects = lock(&self.objects);
        if object.uid().is_some_and(|uid| objects.gone.contains(&uid)) {
            return;
        }
        let key = key_of(&*object);
        let known = objects.live.get(&key);
        let newer = known.is_none_or(|known| revision(&**known) < revision(&*object));
        if newer {
            self.marks.mark(&key.0);
            objects.live.insert(key, object);
        }
    }

    fn lost(&self, object: &K) {
        let mut objects = lock(&self.objects);
        if let Some(uid) = object.uid() {
            objects.gone.remove(&uid);
        }
        let key = key_of(object);
        let known = objects.live.get(&key);
        if known.is_some_and(|known| known.uid() == object.uid()) {
            objects.live.remove(&key);
        }
        self.marks.mark(&key.0);
    }

    /// Removes what a new list did not contain, of what was known when it began.
    fn settle(&self, before: &HashMap<Key, Option<String>>, listed: &HashSet<Key>) {
        let mut objects = lock(&self.objects);
        objects.gone.clear();
        for (key, uid) in before {
            let known = objects.live.get(key);
            if !listed.contains(key) && known.is_some_and(|known| known.uid() == *uid) {
                objects.live.remove(key);
                self.marks.mark(&key.0);
            }
        }
    }

    fn identities(&self) -> HashMap<Key, Option<String>> {
        let objects = lock(&self.objects);
        let live = objects.live.iter();
        live.map(|(key, object)| (key.clone(), object.uid()))
            .collect()
    }
}

/// Keeps a cache from a stream of events, for as long as it is polled.
async fn keep<K: Resource>(
    cache: Cache<K>,
    events: impl Stream<Item = Event<Arc<K>>>,
    listed: oneshot::Sender<()>,
) {
    let mut events = std::pin::pin!(events);
    let mut first = Some(listed);
    let mut before = HashMap::new();
    let mut seen = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => {
                before = cache.identities();
                seen.clear();
            }
            Event::InitApply(object) => {
                seen.insert(key_of(&*object));
                cache.learn(object);
            }
            Event::InitDone => {
                cache.settle(&before, &seen);
                if let Some(first) = first.take() {
                    // Nobody waits any more where only what follows matters.
                    let _ = first.send(());
                }
            }
            Event::Apply(object) => cache.learn(object),
            Event::Delete(object) => cache.lost(&object),
        }
    }
}

/// What one controller watches. Everything stops when it is dropped.
pub(super) struct World {
    informers: Informers,
    marks: Marks,
    tasks: JoinSet<()>,
    ready: Vec<BoxFuture<'static, ()>>,
    failures: HashMap<String, u32>,
}

impl World {
    /// A world that hears of whole kinds from its process's informers.
    pub(super) fn of(informers: Informers) -> Self {
        Self {
            informers,
            marks: Marks::default(),
            tasks: JoinSet::new(),
            ready: Vec::new(),
            failures: HashMap::new(),
        }
    }

    /// Follows every object of a kind.
    pub(super) fn watch<K>(&mut self) -> Cache<K>
    where
        K: Watch<DynamicType = ()>,
    {
        let mut heard = self.informers.hear();
        self.keep(futures::stream::poll_fn(move |context| {
            heard.poll_recv(context)
        }))
        .0
    }

    /// Watches a selection of a kind.
    pub(super) fn watch_some<K>(&mut self, api: Api<K>, config: watcher::Config) -> Cache<K>
    where
        K: Watch,
    {
        self.watch_for_now(api, config).0
    }

    /// Watches a selection of a kind until the world ends or the watch is aborted.
    pub(super) fn watch_for_now<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
    ) -> (Cache<K>, AbortHandle)
    where
        K: Watch,
    {
        self.keep(events(api, config))
    }

    fn keep<K>(
        &mut self,
        events: impl Stream<Item = Event<Arc<K>>> + Send + 'static,
    ) -> (Cache<K>, AbortHandle)
    where
        K: Resource + Send + Sync + 'static,
    {
        let cache = Cache::new(self.marks.clone());
        let (sender, listed) = oneshot::channel();
        let watch = self.tasks.spawn(keep(cache.clone(), events, sender));
        self.ready.push(Box::pin(async move {
            // A watch that is aborted before its first list will not have one.
            let _ = listed.await;
        }));
        (cache, watch)
    }

    /// Waits until every watch has seen its first list.
    pub(super) async fn ready(&mut self) {
        futures::future::join_all(self.ready.drain(..)).await;
    }

    /// Waits for something to happen, and says in which namespaces.
    pub(super) async fn changed(&mut self) -> BTreeSet<String> {
        while self.tasks.try_join_next().is_some() {}
        self.marks.take().await
    }

    /// Marks a namespace after a while.
    pub(super) fn again(&mut self, namespace: &str, after: Duration) {
        let (marks, namespace) = (self.marks.clone(), namespace.to_owned());
        self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            marks.mark(&namespace);
        });
    }

    /// Takes how looking at a namespace went: a failure is tried again after a pause that doubles.
    pub(super) fn settled(&mut self, namespace: &str, result: kube::Result<Next>) {
        match result {
            Ok(next) => {
                self.failures.remove(namespace);
                if let Next::After(pause) = next {
                    self.again(namespace, pause);
                }
            }
            Err(error) => {
                tracing::debug!(%error, namespace, "a controller tries again");
                let count = self.failures.entry(namespace.to_owned()).or_default();
                let pause = FIRST_PAUSE.saturating_mul(1 << (*count).min(16));
                *count += 1;
                self.again(namespace, pause.min(LONGEST_PAUSE));
            }
        }
    }
}

/// When a namespace needs to be looked at again, if nothing happens before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// When something changes.
    Change,
    /// After a time.
    After(Duration),
}

impl Next {
    /// The earlier of two.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::After(one), Self::After(two)) => Self::After(one.min(two)),
            (Self::Change, other) => other,
            (one, Self::Change) => one,
        }
    }
}

/// What brings one namespace at a time into order.
pub(super) trait Controller {
    /// Brings a namespace into order; the empty one stands for the cluster's own objects.
    fn reconcile(&mut self, namespace: &str) -> impl Future<Output = kube::Result<Next>> + Send;
}

/// Runs a controller for ever.
pub(super) async fn drive(mut world: World, mut controller: impl Controller) {
    world.ready().await;
    loop {
        for namespace in world.changed().await {
            let result = controller.reconcile(&namespace).await;
            world.settled(&namespace, result);
        }
    }
}

/// Keeps the first error of several independent steps, so that one does not stop the others.
#[derive(Default)]
pub(super) struct Steps(Option<kube::Error>);

impl Steps {
    /// Takes a step's result. That somebody was quicker is no failure: what they did is news that
    /// the watch brings.
    pub(super) fn take<T>(&mut self, result: kube::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                tracing::trace!(message = status.message, "somebody was quicker");
                None
            }
            Err(error) => {
                self.0.get_or_insert(error);
                None
            }
        }
    }

    /// The first error, if there was one.
    pub(super) fn end(self, next: Next) -> kube::Result<Next> {
        self.0.map_or(Ok(next), Err)
    }
}
