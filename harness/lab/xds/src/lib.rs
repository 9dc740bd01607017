//! How proxies learn their configuration: xDS as one stream a proxy, in the order that nothing breaks in.
//!
//! Start from [`Xds`]: controllers [`publish`](Xds::publish), its [`router`](Xds::router) answers. What a
//! proxy may be told when is [`instance`]'s to decide. It is the incremental variant of Envoy's aggregated discovery
//! service (`DeltaAggregatedResources`): a change of one cluster is that cluster on the wire, whatever else there is.
//! Translators make JSON, by Envoy's own names; [`encode`] makes Protocol Buffers of it, once for all proxies.
//!
//! ```text
//! lib ──► serve ──► instance ──► configuration ──► encode ──► message
//! ```

mod configuration;
mod encode;
mod instance;
mod message;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use self::configuration::{Configuration, Told};
pub use self::configuration::{Parts, Shared};

/// What a group is to have; nothing as long as nobody has published it.
type Group = watch::Sender<Option<Arc<Configuration>>>;

/// What proxies are told, by group: all proxies of a group (their `node.cluster`) the same.
#[derive(Clone)]
pub struct Xds {
    groups: Arc<Mutex<BTreeMap<String, Group>>>,
    /// The groups of proxies that call themselves of another, by the proxies' ids.
    places: Arc<watch::Sender<BTreeMap<String, String>>>,
    told: Arc<Mutex<Told>>,
    log: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Xds {
    /// One that knows of nobody; `log` is for those who look after it.
    pub fn new(log: Arc<dyn Fn(&str) + Send + Sync>) -> Self {
        Self {
            groups: Arc::default(),
            places: Arc::default(),
            told: Arc::default(),
            log,
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What proxies of several groups are to have alike, made once; `before` is what they had of it.
    pub fn share(&self, parts: Parts, before: Option<&Shared>) -> Shared {
        Shared::new(parts, before, &mut self.told(), &*self.log)
    }

    /// Sets what a group's proxies are to have: what is shared, and their own. What is no message of Envoy's is left
    /// out, or as it was, and the log says why.
    pub fn publish(&self, group: &str, shared: &Shared, own: Parts) {
        let before = self.of_group(group).borrow().clone();
        let before = before.as_deref();
        let configuration = Configuration::new(shared, own, before, &mut self.told(), &*self.log);
        let mut groups = self.groups();
        let group = groups.entry(group.to_owned()).or_default();
        group.send_if_modified(|now| {
            let same = now.as_ref().is_some_and(|now| now.same(&configuration));
            if !same {
                *now = Some(Arc::new(configuration));
            }
            !same
        });
    }

    /// Says which group a proxy is of, where it is another than it says itself.
    pub fn place(&self, places: BTreeMap<String, String>) {
        self.places.send_if_modified(|now| {
            let changes = *now != places;
            *now = places;
            changes
        });
    }

    /// Forgets all other groups.
    pub fn retain(&self, groups: &BTreeSet<String>) {
        self.groups().retain(|group, _| groups.contains(group));
        self.told().tidy();
    }

    /// What a new proxy of a group is told, as JSON: clusters, listeners and routes one after the other.
    pub fn published(&self, group: &str) -> Option<Vec<Value>> {
        let configuration = self.groups().get(group)?.borrow().clone();
        Some(configuration?.values())
    }

    /// What a group is to have, now and from now on. Ends when the group is forgotten.
    fn of_group(&self, group: &str) -> watch::Receiver<Option<Arc<Configuration>>> {
        let mut groups = self.groups();
        groups.entry(group.to_owned()).or_default().subscribe()
    }
}

/// A short name for a text: the first twelve hexadecimal digits of its SHA-256.
pub fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
