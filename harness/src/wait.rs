//! Waiting, the only place of the harness that sleeps.
//!
//! Start from [`until`] for what must be asked (traffic) and [`watched`] for what tells by itself
//! (objects). A probe says [`Progress::Ready`], [`Progress::NotYet`] with a reason, or
//! [`Progress::Stop`]; a time-out always carries the last reason, the number of tries and the time.
//! Whether what was seen is *right* is `verdict`'s to say. Rule: nothing here outlives its budget,
//! not even a probe that hangs.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;

use futures::{Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::budget::Budget;
use crate::verdict::{Doing as _, NoVerdict};

/// What a probe says.
#[derive(Debug)]
pub enum Progress<T> {
    /// It holds.
    Ready(T),
    /// It does not hold yet, and why.
    NotYet(String),
    /// It never will, and why.
    Stop(NoVerdict),
}

/// Asks until it holds, or the budget is spent. `what` completes "waiting until …".
///
/// # Errors
/// The probe's own errors and [`Progress::Stop`] at once; "not reached" when the budget is spent.
pub async fn until<T>(
    what: &str,
    budget: Budget,
    mut probe: impl AsyncFnMut() -> Result<Progress<T>, NoVerdict>,
) -> Result<T, NoVerdict> {
    let started = Instant::now();
    let deadline = started + budget.within;
    let doing = || format!("waiting until {what}");
    let (mut tries, mut reason) = (0_u32, "the first look did not end".to_owned());
    loop {
        tries += 1;
        match timeout_at(deadline, probe()).await {
            Ok(Ok(Progress::Ready(value))) => return Ok(value),
            Ok(Ok(Progress::NotYet(why))) => reason = why,
            Ok(Ok(Progress::Stop(no_verdict)) | Err(no_verdict)) => {
                return Err(no_verdict).doing(doing);
            }
            Err(_) => return Err(spent(budget, &reason, tries, started)).doing(doing),
        }
        if Instant::now() + budget.every >= deadline {
            return Err(spent(budget, &reason, tries, started)).doing(doing);
        }
        sleep(budget.every).await;
    }
}

/// Watches the objects of a selection until it holds of them, or the budget is spent. `what`
/// completes "waiting until …".
///
/// # Errors
/// [`Progress::Stop`] at once; "not reached" when the budget is spent.
pub async fn watched<K, T>(
    what: &str,
    budget: Budget,
    api: Api<K>,
    selection: watcher::Config,
    condition: impl FnMut(&[&K]) -> Progress<T>,
) -> Result<T, NoVerdict>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let events = watcher(api, selection).default_backoff();
    follow(what, budget, events, condition).await
}

/// [`watched`] for the one object of a name.
///
/// # Errors
/// As [`watched`].
pub async fn object<K, T>(
    what: &str,
    budget: Budget,
    api: Api<K>,
    name: &str,
    mut condition: impl FnMut(Option<&K>) -> Progress<T>,
) -> Result<T, NoVerdict>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let selection = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let first = |objects: &[&K]| condition(objects.first().copied());
    watched(what, budget, api, selection, first).await
}

async fn follow<K: Resource, T>(
    what: &str,
    budget: Budget,
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    mut condition: impl FnMut(&[&K]) -> Progress<T>,
) -> Result<T, NoVerdict> {
    let doing = || format!("waiting until {what}");
    let started = Instant::now();
    let deadline = started + budget.within;
    let mut events = pin!(events);
    let mut known = Known::default();
    let (mut looks, mut reason) = (0_u32, "the API has not listed anything yet".to_owned());
    while let Ok(event) = timeout_at(deadline, events.next()).await {
        let whole = match event {
            Some(Ok(event)) => known.take_in(event),
            // The watcher starts over by itself; until then this is the reason.
            Some(Err(error)) => {
                NoVerdict::from(error).because().clone_into(&mut reason);
                false
            }
            None => break,
        };
        if !whole {
            continue;
        }
        looks += 1;
        match condition(&known.objects.values().collect::<Vec<_>>()) {
            Progress::Ready(value) => return Ok(value),
            Progress::NotYet(why) => reason = why,
            Progress::Stop(no_verdict) => return Err(no_verdict).doing(doing),
        }
    }
    Err(spent(budget, &reason, looks, started)).doing(doing)
}

/// The objects of a watch, by namespace and name.
struct Known<K> {
    objects: BTreeMap<(Option<String>, String), K>,
    listing: BTreeMap<(Option<String>, String), K>,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listing: BTreeMap::new(),
        }
    }
}

impl<K: Resource> Known<K> {
    /// Whether there is a whole picture to look at now.
    fn take_in(&mut self, event: Event<K>) -> bool {
        let key = |object: &K| (object.namespace(), object.name_any());
        match event {
            Event::Apply(object) => {
                self.objects.insert(key(&object), object);
            }
            Event::Delete(object) => {
                self.objects.remove(&key(&object));
            }
            Event::Init => {
                self.listing.clear();
                return false;
            }
            Event::InitApply(object) => {
                self.listing.insert(key(&object), object);
                return false;
            }
            Event::InitDone => self.objects = std::mem::take(&mut self.listing),
        }
        true
    }
}

fn spent(budget: Budget, reason: &str, tries: u32, started: Instant) -> NoVerdict {
    let tries = match tries {
        1 => "1 try".to_owned(),
        n => format!("{n} tries"),
    };
    NoVerdict::not_reached(format!(
        "not yet after {:.1} s ({tries}; the budget to {} is {} s): {reason}",
        started.elapsed().as_secs_f64(),
        budget.name,
        budget.within.as_secs()
    ))
}

/// Lets time pass before something is tried again whose budget is not one of ours: another machine's
/// server, another run's lock.
pub(crate) async fn pause(duration: std::time::Duration) {
    sleep(duration).await;
}

/// Bounds one operation that has no bound of its own. `what` names it.
///
/// # Errors
/// The operation's own, and one that says that it did not end.
pub async fn bounded<T, E: Into<NoVerdict>>(
    what: &str,
    budget: Budget,
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, NoVerdict> {
    match timeout(budget.within, operation).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => Err(NoVerdict::new(format!(
            "{what} did not end within {} s",
            budget.within.as_secs()
        ))),
    }
}
