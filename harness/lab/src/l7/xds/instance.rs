//! What one running proxy has, and what it may be told next.
//!
//! Start from [`Instance::heard`] and [`Instance::answer`]. The rule is make before break, as in
//! Envoy's documentation of eventual consistency: clusters, when the proxy has said that it has them
//! listeners, then routes, and when all of those are in force the clusters that nothing names any
//! longer are taken away. There is no clock and no input or output in here. What was begun is brought to its end
//! before anything newer is: where configurations come faster than a proxy takes one, it would never get to routes.
//!
//! | the proxy says | it means |
//! | --- | --- |
//! | the version that it was answered | it has accepted it |
//! | the version before, after an answer | it has refused it, or the answer was lost |
//! | no version | the subscription is new; that of clusters: the proxy is |
//! | a version that we do not know | it has it from a control plane before us |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::configuration::{Configuration, Resources};

/// What a subscription is to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Subject {
    /// All clusters.
    Clusters,
    /// All listeners.
    Listeners,
    /// The route configuration of a name.
    Routes(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clusters => f.write_str("clusters"),
            Self::Listeners => f.write_str("listeners"),
            Self::Routes(name) => write!(f, "route configuration {name}"),
        }
    }
}

/// An answer that the proxy has not said to have accepted.
#[derive(Debug)]
struct Offer {
    resources: Arc<Resources>,
    /// Whether its answer is under way.
    open: bool,
    /// How many times it was answered and not accepted.
    refusals: u32,
}

#[derive(Debug, Default)]
struct Subscription {
    /// The version that the proxy has; none until it said so.
    accepted: Option<String>,
    offer: Option<Offer>,
}

impl Subscription {
    fn has(&self, resources: &Resources) -> bool {
        self.offer.is_none() && self.accepted.as_ref() == Some(&resources.version)
    }

    fn is_offered(&self, resources: &Resources) -> bool {
        let offer = self.offer.as_ref();
        offer.is_some_and(|offer| offer.resources.version == resources.version)
    }
}

/// One running proxy.
#[derive(Default)]
pub(super) struct Instance {
    clusters: Subscription,
    /// What it has of clusters.
    held: Arc<Resources>,
    listeners: Subscription,
    routes: BTreeMap<String, Subscription>,
    /// The clusters that any listener or route names that may be in force.
    in_use: BTreeSet<String>,
    /// What it is being told.
    begun: Option<Arc<Configuration>>,
    /// Counts what may let another of its requests be answered.
    pub(super) changes: u64,
}

impl Instance {
    /// What the proxy is to be told now: what was begun, until that is in force or the proxy refuses some of it; then
    /// the newest there is.
    fn follow(&mut self, newest: &Arc<Configuration>) -> Arc<Configuration> {
        let begun = self.begun.as_ref();
        // Who has not asked for listeners yet has begun with nothing.
        let stays = |begun: &&Arc<Configuration>| {
            self.listeners.accepted.is_some() && !self.is_in_force(begun) && !self.refuses()
        };
        if let Some(begun) = begun.filter(stays) {
            return begun.clone();
        }
        if begun.is_some_and(|begun| !begun.same(newest)) {
            self.changes += 1;
        }
        self.begun = Some(newest.clone());
        newest.clone()
    }

    fn refuses(&self) -> bool {
        let all = [&self.clusters, &self.listeners].into_iter();
        let mut offers = all
            .chain(self.routes.values())
            .filter_map(|subscription| subscription.offer.as_ref());
        offers.any(|offer| offer.refusals > 0)
    }

    /// Takes in what a request says of the proxy: the version that it has.
    pub(super) fn heard(&mut self, subject: &Subject, version: &str, newest: &Arc<Configuration>) {
        let now = &*self.follow(newest);
        self.changes += 1;
        let Some(subscription) = self.subscription(subject, now) else {
            return;
        };
        let offered = subscription
            .offer
            .take_if(|offer| offer.resources.version == version);
        if let Some(offer) = offered {
            subscription.accepted = Some(version.to_owned());
            if *subject == Subject::Clusters {
                self.held = offer.resources;
            }
        } else if subscription.accepted.as_deref() == Some(version) {
            if let Some(offer) = subscription.offer.as_mut().filter(|offer| offer.open) {
                offer.open = false;
                offer.refusals = offer.refusals.saturating_add(1);
            }
        } else {
            if *subject == Subject::Clusters {
                self.begin(version, now);
            }
            if let Some(subscription) = self.subscription(subject, now) {
                subscription.accepted = Some(version.to_owned());
                subscription.offer = None;
            }
        }
    }

    /// A proxy that we meet.
    fn begin(&mut self, version: &str, now: &Configuration) {
        // Of one that we knew it is the successor, and has nothing of what that had.
        if self.clusters.accepted.is_some() {
            *self = Self {
                changes: self.changes,
                ..Self::default()
            };
        }
        if version == now.clusters.version {
            self.held = now.clusters.clone();
        } else if !version.is_empty() {
            self.held = Arc::new(now.earlier());
        }
        self.in_use.extend(self.held.names());
    }

    /// A route configuration that is nobody's any longer has no state: old connections of a listener
    /// that is gone may ask for it for as long as they last.
    fn subscription(
        &mut self,
        subject: &Subject,
        now: &Configuration,
    ) -> Option<&mut Subscription> {
        match subject {
            Subject::Clusters => Some(&mut self.clusters),
            Subject::Listeners => Some(&mut self.listeners),
            Subject::Routes(name) if now.routes.contains_key(name) => {
                Some(self.routes.entry(name.clone()).or_default())
            }
            Subject::Routes(name) => self.routes.get_mut(name),
        }
    }

    /// What a request that is waiting is to be answered now, if anything; `again` if what was refused
    /// may be offered once more.
    pub(super) fn answer(
        &mut self,
        subject: &Subject,
        newest: &Arc<Configuration>,
        again: bool,
    ) -> Option<Arc<Resources>> {
        let now = &*self.follow(newest);
        self.settle(now);
        let clusters = now.clusters.and(&self.in_use, &self.held);
        let ready = self.clusters.has(&clusters);
        let listeners = &self.listeners;
        let told = listeners.has(&now.listeners) || listeners.is_offered(&now.listeners);
        let target = match subject {
            Subject::Clusters => Some(clusters),
            Subject::Listeners => ready.then(|| now.listeners.clone()),
            Subject::Routes(name) => now
                .routes
                .get(name)
                .filter(|_| ready && told)
                .map(Arc::clone),
        }?;
        let subscription = self.subscription(subject, now)?;
        if subscription.accepted.as_ref() == Some(&target.version) {
            // Something newer was refused, and is no longer wanted.
            let cleared = subscription.offer.take().is_some();
            self.changes += u64::from(cleared);
            return None;
        }
        if let Some(offer) = &mut subscription.offer
            && offer.resources.version == target.version
        {
            offer.open |= again;
            return again.then_some(target);
        }
        subscription.offer = Some(Offer {
            resources: target.clone(),
            open: true,
            refusals: 0,
        });
        self.changes += 1;
        if *subject != Subject::Clusters {
            self.in_use.extend(target.named_clusters().cloned());
        }
        Some(target)
    }

    /// Forgets what an earlier configuration named, once the present one is in force as a whole.
    fn settle(&mut self, now: &Configuration) {
        if self.is_in_force(now) {
            self.routes.retain(|name, _| now.routes.contains_key(name));
            self.in_use = now.named_clusters();
        }
    }

    /// Whether the proxy has taken the listeners and routes of a configuration, and so its clusters before.
    fn is_in_force(&self, of: &Configuration) -> bool {
        let in_force = |(name, routes): (&String, &Arc<Resources>)| {
            let subscription = self.routes.get(name);
            subscription.is_some_and(|it| it.has(routes))
        };
        self.listeners.has(&of.listeners) && of.routes.iter().all(in_force)
    }

    /// How many times in a row the proxy has not accepted what it was answered, and which version.
    pub(super) fn refusals(&self, subject: &Subject) -> Option<(u32, &str)> {
        let subscription = match subject {
            Subject::Clusters => Some(&self.clusters),
            Subject::Listeners => Some(&self.listeners),
            Subject::Routes(name) => self.routes.get(name),
        };
        let offer = subscription?.offer.as_ref()?;
        (offer.refusals > 0).then_some((offer.refusals, offer.resources.version.as_str()))
    }
}
