//! The ConfigMaps and Secrets that a node's pods refer to, watched one by one.
//!
//! Start from [`Objects::watch`]. An object is watched as long as somebody holds what that returns,
//! and once however many do; so a change is in the pods' volumes as soon as the API server has it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::watch::{Again, Watch};

/// What a ConfigMap or Secret holds.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        })
    }
}

/// One object, as last seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Seen {
    /// The API server has not answered yet.
    #[default]
    Unknown,
    /// There is none.
    Missing,
    /// There is one.
    Present(Arc<Data>),
}

type Key = (Kind, String, String);

/// The objects of one node.
pub(super) struct Objects {
    client: Client,
    watched: Mutex<HashMap<Key, Weak<Watched>>>,
}

/// An object being watched; it is no longer when the last of these is dropped.
pub(super) struct Watched {
    seen: watch::Receiver<Seen>,
    _task: AbortOnDropHandle<()>,
}

impl Watched {
    /// Every state of the object from now on.
    pub(super) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// The object, once the API server has said whether it is there.
    pub(super) async fn get(&self) -> Option<Arc<Data>> {
        let mut seen = self.seen.clone();
        match seen
            .wait_for(|seen| *seen != Seen::Unknown)
            .await
            .as_deref()
        {
            Ok(Seen::Present(data)) => Some(data.clone()),
            _ => None,
        }
    }
}

impl Objects {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            watched: Mutex::default(),
        }
    }

    /// Watches one object.
    pub(super) fn watch(&self, kind: Kind, namespace: &str, name: &str) -> Arc<Watched> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(existing) = watched.get(&key).and_then(Weak::upgrade) {
            return existing;
        }
        watched.retain(|_, existing| existing.strong_count() > 0);
        let (sender, seen) = watch::channel(Seen::Unknown);
        let client = self.client.clone();
        let task = match kind {
            Kind::ConfigMap => tokio::spawn(follow(
                Api::<ConfigMap>::namespaced(client, namespace),
                name.to_owned(),
                sender,
                |object| {
                    let text = object.data.unwrap_or_default().into_iter();
                    let binary = object.binary_data.unwrap_or_default().into_iter();
                    text.map(|(key, value)| (key, value.into_bytes()))
                        .chain(binary.map(|(key, value)| (key, value.0)))
                        .collect()
                },
            )),
            Kind::Secret => tokio::spawn(follow(
                Api::<Secret>::namespaced(client, namespace),
                name.to_owned(),
                sender,
                |object| {
                    let data = object.data.unwrap_or_default().into_iter();
                    data.map(|(key, value)| (key, value.0)).collect()
                },
            )),
        };
        let new = Arc::new(Watched {
            seen,
            _task: AbortOnDropHandle::new(task),
        });
        watched.insert(key, Arc::downgrade(&new));
        new
    }
}

async fn follow<K>(api: Api<K>, name: String, sender: watch::Sender<Seen>, data: fn(K) -> Data)
where
    K: Watch,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = K::watch(api, config, Again::default());
    let set = |seen: Seen| {
        sender.send_if_modified(|current| {
            let changed = *current != seen;
            *current = seen;
            changed
        });
    };
    let mut present = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => present = false,
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                present = true;
                set(Seen::Present(Arc::new(data(object))));
            }
            Ok(Event::InitDone) if present => {}
            Ok(Event::InitDone | Event::Delete(_)) => set(Seen::Missing),
            Err(error) => tracing::warn!(%error, name, "watching a referenced object"),
        }
    }
}
