//! One watch of a kind for all controllers of a process, as kube-controller-manager's shared
//! informers are: what comes is read once, however many keep it.
//!
//! Start from [`Informers::hear`]. Who begins late is told what there is as a first list is told. Rule:
//! everything stops when the last clone of [`Informers`] is dropped.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::watch::{Again, Watch};

/// Namespace (empty for what is in none) and name.
pub(super) type Key = (String, String);

/// What an object is kept by.
pub(super) fn key_of<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The informers of one process. Clones are the same.
#[derive(Clone)]
pub(super) struct Informers {
    client: Client,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// An [`Informer`] by the type of its objects.
    kinds: HashMap<TypeId, Box<dyn Any + Send>>,
    tasks: JoinSet<()>,
}

/// One kind's: what it holds, and who hears of it.
struct Informer<K> {
    /// Nothing until there was a whole list.
    live: Option<BTreeMap<Key, Arc<K>>>,
    /// The list that is coming, until it is whole; nothing between lists.
    coming: Option<BTreeMap<Key, Arc<K>>>,
    hearers: Vec<UnboundedSender<Event<Arc<K>>>>,
}

/// What is behind a mutex, whatever became of who held it before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Informers {
    /// Those of a user's.
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            known: Arc::default(),
        }
    }

    /// Every object of a kind as it is now, as a list, and then what becomes of them.
    pub(super) fn hear<K>(&self) -> UnboundedReceiver<Event<Arc<K>>>
    where
        K: Watch<DynamicType = ()>,
    {
        let mut known = lock(&self.known);
        let found = known.kinds.get(&TypeId::of::<K>());
        let found = found.and_then(|any| any.downcast_ref::<Arc<Mutex<Informer<K>>>>().cloned());
        let informer = found.unwrap_or_else(|| {
            let informer = Arc::new(Mutex::new(Informer::default()));
            let api = Api::<K>::all(self.client.clone());
            known.tasks.spawn(inform(api, informer.clone()));
            let kept = Box::new(informer.clone());
            known.kinds.insert(TypeId::of::<K>(), kept);
            informer
        });
        lock(&informer).hear()
    }
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        Self {
            live: None,
            coming: None,
            hearers: Vec::new(),
        }
    }
}

async fn inform<K>(api: Api<K>, informer: Arc<Mutex<Informer<K>>>)
where
    K: Watch,
{
    let mut events = std::pin::pin!(events(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        lock(&informer).take(event);
    }
}

/// What a watch tells, for ever, of objects that many may keep.
pub(super) fn events<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = Event<Arc<K>>> + Send
where
    K: Watch,
{
    let events = K::watch(api, config, Again::default());
    events.filter_map(async |event| match event {
        Ok(Event::Init) => Some(Event::Init),
        Ok(Event::InitApply(object)) => Some(Event::InitApply(Arc::new(object))),
        Ok(Event::InitDone) => Some(Event::InitDone),
        Ok(Event::Apply(object)) => Some(Event::Apply(Arc::new(object))),
        Ok(Event::Delete(object)) => Some(Event::Delete(Arc::new(object))),
        // Not fatal: the watch starts again after a pause, and what is held stays.
        Err(error) => {
            tracing::debug!(%error, "a watch failed and starts again");
            None
        }
    })
}

impl<K: Resource> Informer<K> {
    fn hear(&mut self) -> UnboundedReceiver<Event<Arc<K>>> {
        let (sender, receiver) = unbounded_channel();
        let mut told = Vec::new();
        if let Some(live) = &self.live {
            told.push(Event::Init);
            told.extend(live.values().cloned().map(Event::InitApply));
            told.push(Event::InitDone);
        }
        if let Some(coming) = &self.coming {
            told.push(Event::Init);
            told.extend(coming.values().cloned().map(Event::InitApply));
        }
        for event in told {
            // The receiver is right here.
            let _ = sender.send(event);
        }
        self.hearers.push(sender);
        receiver
    }

    fn take(&mut self, event: Event<Arc<K>>) {
        let coming = &mut self.coming;
        match &event {
            Event::Init => *coming = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                let coming = coming.get_or_insert_default();
                coming.insert(key_of(&**object), object.clone());
            }
            Event::InitDone => self.live = Some(coming.take().unwrap_or_default()),
            // Nothing of either kind comes before the first list is whole.
            Event::Apply(object) => {
                if let Some(live) = &mut self.live {
                    live.insert(key_of(&**object), object.clone());
                }
            }
            Event::Delete(object) => {
                if let Some(live) = &mut self.live {
                    live.remove(&key_of(&**object));
                }
            }
        }
        self.hearers
            .retain(|hearer| hearer.send(event.clone()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(name: &str) -> Arc<ConfigMap> {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        Arc::new(map)
    }

    /// All that was told so far, in words.
    fn told(heard: &mut UnboundedReceiver<Event<Arc<ConfigMap>>>) -> Vec<String> {
        let events = std::iter::from_fn(|| heard.try_recv().ok());
        let words = events.map(|event| match event {
            Event::Init => "init".to_owned(),
            Event::InitApply(object) => format!("lists {}", object.name_any()),
            Event::InitDone => "listed".to_owned(),
            Event::Apply(object) => format!("applies {}", object.name_any()),
            Event::Delete(object) => format!("deletes {}", object.name_any()),
        });
        words.collect()
    }

    #[test]
    fn who_begins_late_is_told_what_there_is_and_what_comes() {
        let mut informer = Informer::default();
        let mut early = informer.hear();
        assert_eq!(told(&mut early), [""; 0]);
        for event in [
            Event::Init,
            Event::InitApply(map("one")),
            Event::InitApply(map("two")),
            Event::InitDone,
            Event::Apply(map("three")),
            Event::Delete(map("one")),
        ] {
            informer.take(event);
        }
        let mut late = informer.hear();
        assert_eq!(
            told(&mut late),
            ["init", "lists three", "lists two", "listed"]
        );
        informer.take(Event::Apply(map("four")));
        assert_eq!(told(&mut late), ["applies four"]);
        assert_eq!(told(&mut early).len(), 7);
    }

    #[test]
    fn who_begins_in_the_middle_of_a_list_is_told_all_of_it() {
        let mut informer = Informer::default();
        informer.take(Event::Init);
        informer.take(Event::InitApply(map("one")));
        let mut heard = informer.hear();
        informer.take(Event::InitApply(map("two")));
        informer.take(Event::InitDone);
        assert_eq!(
            told(&mut heard),
            ["init", "lists one", "lists two", "listed"]
        );
    }

    #[test]
    fn what_a_new_list_does_not_have_is_not_told_to_who_comes_later() {
        let mut informer = Informer::default();
        for event in [
            Event::Init,
            Event::InitApply(map("goes")),
            Event::InitApply(map("stays")),
            Event::InitDone,
            Event::Init,
            Event::InitApply(map("stays")),
        ] {
            informer.take(event);
        }
        // The old list holds until the new one is whole.
        let mut between = informer.hear();
        informer.take(Event::InitDone);
        let mut after = informer.hear();
        assert_eq!(
            told(&mut between),
            [
                "init",
                "lists goes",
                "lists stays",
                "listed",
                "init",
                "lists stays",
                "listed"
            ]
        );
        assert_eq!(told(&mut after), ["init", "lists stays", "listed"]);
    }

    #[test]
    fn who_hears_no_more_is_forgotten() {
        let mut informer = Informer::default();
        drop(informer.hear());
        informer.take(Event::Apply(map("one")));
        assert!(informer.hearers.is_empty());
    }
}
