//! How proxies learn their configuration: xDS over HTTP, by long polling, in the order that nothing
//! breaks in.
//!
//! Start from [`Xds`]: controllers [`publish`](Xds::publish), its [`router`](Xds::router) answers. What a
//! proxy may be told when is [`instance`]'s to decide. It is Envoy's REST transport of xDS: each
//! subscription is a request that is held until there is something newer than the version it names,
//! which is at the same time how a proxy says what it has accepted. (The transport as gRPC would need
//! every resource as Protocol Buffers; the translators make JSON.)

mod configuration;
mod instance;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use self::configuration::Shared;
use self::configuration::{Configuration, Resources, Told};
use self::instance::{Instance, Subject};
use super::envoy::{Parts, Snapshot};

/// How long a request waits for something newer. Envoy waits longer
/// ([`REQUEST_TIMEOUT`](super::envoy::REQUEST_TIMEOUT)), so an answer is not lost to its timeout.
const HOLD: Duration = Duration::from_secs(20);
/// A proxy that has not asked for so long is gone.
const GONE: Duration = Duration::from_secs(120);
/// How soon a proxy that did not take an answer is offered it again, at first and at most: the answer
/// may have been lost, or have named a secret whose file is not there yet.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// After how many refusals in a row it is worth a line: more than a second's.
const WORTH_SAYING: u32 = 6;

/// Who asks: the group that it belongs to, and itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Proxy {
    group: String,
    id: String,
}

#[derive(Default)]
struct Known {
    instance: Instance,
    /// The request that is waiting, by what for: an older one is no longer heard by anybody.
    latest: HashMap<Subject, u64>,
    changed: Arc<Notify>,
    seen: Option<Instant>,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<String, Arc<Configuration>>,
    proxies: HashMap<Proxy, Known>,
    /// The groups of proxies that call themselves of another, by the proxies' ids.
    places: BTreeMap<String, String>,
    requests: u64,
}

/// What proxies are told, by group: all proxies of a group (their `node.cluster`) the same.
#[derive(Clone)]
pub(crate) struct Xds {
    state: Arc<Mutex<State>>,
    told: Arc<Mutex<Told>>,
    /// Tells of new groups.
    appeared: Arc<Notify>,
    log: Arc<dyn Fn(&str) + Send + Sync>,
}

/// What becomes of a request that waits.
enum Turn {
    Answer(Arc<Resources>),
    Wait,
    /// The proxy asks anew, or is gone.
    Over,
}

impl Xds {
    /// One that knows of nobody.
    pub(crate) fn new(log: Arc<dyn Fn(&str) + Send + Sync>) -> Self {
        Self {
            state: Arc::default(),
            told: Arc::default(),
            appeared: Arc::default(),
            log,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What proxies of several groups are to have alike, made once; `before` is what they had of it.
    pub(crate) fn share(&self, parts: Parts, before: Option<&Shared>) -> Shared {
        Shared::new(parts, before, &mut self.told())
    }

    /// Sets what a group's proxies are to have: what is shared, and their own. `earlier` are clusters that may
    /// have been named by what another controller published before: a proxy whose clusters are not known keeps
    /// them until its routes are.
    pub(crate) fn publish(
        &self,
        group: &str,
        shared: &Shared,
        own: Snapshot,
        earlier: impl Fn() -> Vec<Value> + Send + Sync + 'static,
    ) {
        let before = self.state().groups.get(group).cloned();
        let configuration = {
            let mut told = self.told();
            Configuration::new(shared, own, before.as_deref(), &mut told, earlier)
        };
        let configuration = Arc::new(configuration);
        let mut state = self.state();
        let before = state.groups.insert(group.to_owned(), configuration.clone());
        if before.is_none() {
            self.appeared.notify_waiters();
        }
        if before.is_none_or(|before| !before.same(&configuration)) {
            let proxies = state.proxies.iter();
            proxies
                .filter(|(proxy, _)| proxy.group == group)
                .for_each(|(_, known)| known.changed.notify_waiters());
        }
    }

    /// Says which group a proxy is of, where it is another than it says itself.
    pub(crate) fn place(&self, places: BTreeMap<String, String>) {
        let mut state = self.state();
        let State {
            proxies,
            places: before,
            ..
        } = &mut *state;
        if *before == places {
            return;
        }
        proxies.retain(|proxy, known| {
            let stays = before.get(&proxy.id) == places.get(&proxy.id);
            if !stays {
                // What it waits for is another group's: it is to ask anew.
                known.changed.notify_waiters();
            }
            stays
        });
        *before = places;
    }

    /// A proxy of this id that calls itself of this group.
    fn proxy(&self, id: String, group: String) -> Proxy {
        let placed = self.state().places.get(&id).cloned();
        Proxy {
            group: placed.unwrap_or(group),
            id,
        }
    }

    /// Forgets all other groups.
    pub(crate) fn retain(&self, groups: &BTreeSet<String>) {
        self.state()
            .groups
            .retain(|group, _| groups.contains(group));
        self.told().tidy();
    }

    /// Answers a request, in time: with a discovery response, or with nothing where there is nothing
    /// newer than `version`.
    async fn ask(&self, proxy: Proxy, subject: Subject, version: &str) -> Option<String> {
        let mut appeared = pin!(self.appeared.notified());
        appeared.as_mut().enable();
        let Some((request, changed, refusals)) = self.hear(&proxy, &subject, version) else {
            tracing::debug!(proxy = proxy.id, group = proxy.group, %subject, "asked before its group is known");
            // It asks again when its group may be there.
            let _ = tokio::time::timeout(HOLD, appeared).await;
            return None;
        };
        let patience = match refusals {
            0 => HOLD,
            many => (AGAIN.0 * 2_u32.saturating_pow(many - 1)).min(AGAIN.1),
        };
        tracing::debug!(proxy = proxy.id, group = proxy.group, %subject, version, refusals, "asks");
        let deadline = tokio::time::sleep(patience);
        let mut deadline = pin!(deadline);
        let mut again = false;
        loop {
            let mut notified = pin!(changed.notified());
            notified.as_mut().enable();
            match self.turn(&proxy, &subject, request, again) {
                Turn::Answer(resources) => {
                    let version = &resources.version;
                    tracing::debug!(proxy = proxy.id, %subject, version, "is answered");
                    return Some(resources.response());
                }
                Turn::Over => return None,
                Turn::Wait if again => return None,
                Turn::Wait => {}
            }
            tokio::select! {
                () = notified => {}
                () = &mut deadline => again = true,
            }
        }
    }

    /// Takes in what a request says. Returns its number, what tells when to look again, and how many
    /// times in a row the proxy has refused what it was answered; nothing if its group is not known.
    fn hear(
        &self,
        proxy: &Proxy,
        subject: &Subject,
        version: &str,
    ) -> Option<(u64, Arc<Notify>, u32)> {
        let now = Instant::now();
        let mut state = self.state();
        state
            .proxies
            .retain(|_, known| known.seen.is_none_or(|seen| now - seen < GONE));
        let configuration = state.groups.get(&proxy.group)?.clone();
        state.requests += 1;
        let request = state.requests;
        let known = state.proxies.entry(proxy.clone()).or_default();
        known.seen = Some(now);
        known.latest.insert(subject.clone(), request);
        known.instance.heard(subject, version, &configuration);
        known.changed.notify_waiters();
        let refusals = known.instance.refusals(subject);
        if let Some((WORTH_SAYING, version)) = refusals {
            (self.log)(&format!(
                "Envoy {} does not take its {subject} (version {version}): its own log says why",
                proxy.id
            ));
        }
        let times = refusals.map_or(0, |(times, _)| times);
        Some((request, known.changed.clone(), times))
    }

    fn turn(&self, proxy: &Proxy, subject: &Subject, request: u64, again: bool) -> Turn {
        let mut state = self.state();
        let state = &mut *state;
        let Some(known) = state.proxies.get_mut(proxy) else {
            return Turn::Over;
        };
        if known.latest.get(subject) != Some(&request) {
            return Turn::Over;
        }
        let Some(configuration) = state.groups.get(&proxy.group) else {
            return Turn::Wait;
        };
        let before = known.instance.changes;
        let answer = known.instance.answer(subject, configuration, again);
        if known.instance.changes != before {
            known.changed.notify_waiters();
        }
        answer.map_or(Turn::Wait, Turn::Answer)
    }
}

#[cfg(test)]
impl Xds {
    /// What a group's new proxy is told, as JSON: clusters, listeners and routes one after the other.
    pub(crate) fn published(&self, group: &str) -> Option<Vec<Value>> {
        let configuration = self.state().groups.get(group)?.clone();
        let all = [&configuration.clusters, &configuration.listeners];
        let all = all.into_iter().chain(configuration.routes.values());
        let parsed = all.map(|resources| serde_json::from_str::<Value>(&resources.response()));
        let resources = parsed.map(|response| response.unwrap()["resources"].take());
        Some(
            resources
                .flat_map(|list| list.as_array().cloned().unwrap())
                .collect(),
        )
    }
}
