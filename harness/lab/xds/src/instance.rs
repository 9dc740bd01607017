//! What one running proxy has, and what it may be told next.
//!
//! Start from [`Instance::heard`] and [`Instance::next`]. The rule is make before break, as in
//! Envoy's documentation of eventual consistency: clusters, when the proxy has said that it has them
//! listeners, then routes, and when all of those are in force the clusters that nothing names any
//! longer are taken away. There is no clock and no input or output in here. What was begun is brought to its end
//! before anything newer is: where configurations come faster than a proxy takes one, it would never get to routes.
//!
//! An instance lives as long as its stream: a proxy that connects anew says what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::configuration::{Configuration, Resource, Resources};

/// What a subscription is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// All clusters.
    Clusters,
    /// All listeners.
    Listeners,
    /// The route configurations that the proxy names.
    Routes,
}

impl Kind {
    /// All of them, in the order that they are told in.
    pub(crate) const ALL: [Self; 3] = [Self::Clusters, Self::Listeners, Self::Routes];

    /// The message that a resource of it is.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Clusters => "envoy.config.cluster.v3.Cluster",
            Self::Listeners => "envoy.config.listener.v3.Listener",
            Self::Routes => "envoy.config.route.v3.RouteConfiguration",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clusters => "clusters",
            Self::Listeners => "listeners",
            Self::Routes => "routes",
        })
    }
}

/// What a proxy says of one kind.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// What it wants from now on; nothing in particular is everything.
    pub(crate) subscribe: Vec<String>,
    /// What it no longer wants.
    pub(crate) unsubscribe: Vec<String>,
    /// What it has from before this stream, with versions.
    pub(crate) has: BTreeMap<String, String>,
    /// Which answer it has taken or, with the reason, refused.
    pub(crate) outcome: Option<(String, Result<(), String>)>,
}

/// What a proxy is to be told.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Of what kind it is.
    pub(crate) kind: Kind,
    /// Its number, by which the proxy says what it made of it.
    pub(crate) nonce: String,
    /// What is new.
    pub(crate) resources: BTreeMap<String, Arc<Resource>>,
    /// What is gone.
    pub(crate) removed: Vec<String>,
}

/// By name, the version that a resource comes to, or that it goes.
type Change = BTreeMap<String, Option<String>>;

/// What a proxy did not take.
#[derive(Debug)]
struct Refused {
    change: Change,
    /// How many times in a row.
    times: u32,
    /// Whether it may be offered again.
    due: bool,
    /// Envoy's own words.
    why: String,
}

/// An answer that the proxy has not said anything of.
#[derive(Debug)]
struct Offer {
    nonce: String,
    change: Change,
}

#[derive(Debug, Default)]
struct Subscription {
    /// Whether the proxy wants any.
    asked: bool,
    /// Whether it was ever answered: a first answer is waited for, though it be empty.
    answered: bool,
    /// What it wants, where it says which.
    names: BTreeSet<String>,
    /// The versions of what it has; what it may or may not have taken has none, which is no resource's.
    has: BTreeMap<String, String>,
    offer: Option<Offer>,
    refused: Option<Refused>,
}

impl Subscription {
    fn heard(&mut self, heard: Heard) {
        if !self.asked {
            self.asked = true;
            self.answered = !heard.has.is_empty();
            self.has = heard.has;
        } else {
            // Whoever asks for a thing again has thrown away what it had of it.
            for name in &heard.subscribe {
                self.forget(name);
            }
        }
        for name in heard.unsubscribe {
            self.forget(&name);
            self.names.remove(&name);
        }
        self.names.extend(heard.subscribe);
        if let Some((nonce, outcome)) = heard.outcome
            && let Some(offer) = self.offer.take_if(|offer| offer.nonce == nonce)
        {
            self.end(offer, outcome);
        }
    }

    fn forget(&mut self, name: &str) {
        self.has.remove(name);
        if let Some(offer) = &mut self.offer {
            offer.change.remove(name);
        }
        if let Some(refused) = &mut self.refused {
            refused.change.remove(name);
        }
        self.refused.take_if(|refused| refused.change.is_empty());
    }

    /// Takes in what became of an offer.
    fn end(&mut self, offer: Offer, outcome: Result<(), String>) {
        let Err(why) = outcome else {
            self.has = applied(&self.has, &offer.change);
            self.refused = None;
            return;
        };
        // Envoy takes what it can of an answer that it refuses.
        for name in offer.change.keys() {
            self.has.insert(name.clone(), String::new());
        }
        let before = self.refused.take();
        let before = before.filter(|before| before.change == offer.change);
        self.refused = Some(Refused {
            change: offer.change,
            times: before.map_or(1, |before| before.times.saturating_add(1)),
            due: false,
            why,
        });
    }

    /// What leads from what the proxy has to a target; of what is not in it, what is kept stays.
    fn change(&self, target: &Resources, kept: impl Fn(&String) -> bool) -> Change {
        let differs = |(name, resource): &(&String, &Arc<Resource>)| {
            self.has.get(*name) != Some(&resource.version)
        };
        let come = target.items().iter().filter(differs);
        let come = come.map(|(name, resource)| (name.clone(), Some(resource.version.clone())));
        let gone = self.has.keys();
        let gone = gone.filter(|name| !target.items().contains_key(*name) && !kept(name));
        come.chain(gone.map(|name| (name.clone(), None))).collect()
    }

    /// Whether the proxy has all of it.
    fn has_all(&self, target: &Resources) -> bool {
        self.answered && self.offer.is_none() && self.change(target, |_| true).is_empty()
    }

    /// Whether the proxy has exactly this.
    fn has_exactly(&self, target: &Resources) -> bool {
        self.answered && self.offer.is_none() && self.change(target, |_| false).is_empty()
    }

    /// Whether the proxy has exactly this, or is offered what leads to it.
    fn is_told(&self, target: &Resources) -> bool {
        let has = match &self.offer {
            Some(offer) => &applied(&self.has, &offer.change),
            None => &self.has,
        };
        let versions = target.items().iter().map(|(name, it)| (name, &it.version));
        self.answered && has.iter().eq(versions)
    }

    fn is_refused(&self, change: &Change) -> bool {
        let refused = self.refused.as_ref();
        refused.is_some_and(|refused| !refused.due && refused.change == *change)
    }
}

/// What is there after a change.
fn applied(has: &BTreeMap<String, String>, change: &Change) -> BTreeMap<String, String> {
    let mut has = has.clone();
    for (name, version) in change {
        match version {
            Some(version) => has.insert(name.clone(), version.clone()),
            None => has.remove(name),
        };
    }
    has
}

/// One running proxy.
#[derive(Default)]
pub(crate) struct Instance {
    clusters: Subscription,
    listeners: Subscription,
    routes: Subscription,
    /// The clusters that any listener or route names that may be in force.
    in_use: BTreeSet<String>,
    /// What it is being told.
    begun: Option<Arc<Configuration>>,
    /// What was in force as a whole last.
    settled: Option<Arc<Configuration>>,
    /// How many times it was told something.
    answers: u64,
}

impl Instance {
    fn subscription(&mut self, kind: Kind) -> &mut Subscription {
        match kind {
            Kind::Clusters => &mut self.clusters,
            Kind::Listeners => &mut self.listeners,
            Kind::Routes => &mut self.routes,
        }
    }

    fn subscriptions(&self) -> [&Subscription; 3] {
        [&self.clusters, &self.listeners, &self.routes]
    }

    /// Takes in what the proxy says.
    pub(crate) fn heard(&mut self, kind: Kind, heard: Heard) {
        // What it has, routes may name that it has, too.
        self.in_use
            .extend(heard.has.keys().filter(|_| kind == Kind::Clusters).cloned());
        self.subscription(kind).heard(heard);
    }

    /// What the proxy is to be told now: what was begun, until that is in force or the proxy refuses some of it; then
    /// the newest there is.
    fn follow(&mut self, newest: &Arc<Configuration>) -> Arc<Configuration> {
        let refuses = self.subscriptions().iter().any(|it| it.refused.is_some());
        // Who has not asked for listeners yet has begun with nothing.
        let stays = |begun: &&Arc<Configuration>| {
            self.listeners.asked && !refuses && !self.is_in_force(begun)
        };
        let begun = self.begun.as_ref().filter(stays).unwrap_or(newest).clone();
        self.begun = Some(begun.clone());
        begun
    }

    /// What the proxy is to be told now, if anything.
    pub(crate) fn next(&mut self, newest: &Arc<Configuration>) -> Option<Answer> {
        let now = &self.follow(newest);
        let settled = self.settled.as_ref();
        if settled.is_none_or(|settled| !Arc::ptr_eq(settled, now)) && self.is_in_force(now) {
            self.in_use = now.named_clusters();
            self.settled = Some(now.clone());
        }
        Kind::ALL.into_iter().find_map(|kind| {
            let change = self.due(kind, now)?;
            Some(self.offer(kind, change, now))
        })
    }

    /// The change of a kind that the proxy may be told now.
    fn due(&self, kind: Kind, now: &Configuration) -> Option<Change> {
        let subscription = self.subscriptions()[kind as usize];
        if !subscription.asked || subscription.offer.is_some() {
            return None;
        }
        let has_clusters = || self.clusters.has_all(&now.clusters);
        let change = match kind {
            Kind::Clusters => {
                let kept = |name: &String| self.in_use.contains(name);
                Some(subscription.change(&now.clusters, kept))
            }
            Kind::Listeners => {
                has_clusters().then(|| subscription.change(&now.listeners, |_| false))
            }
            Kind::Routes => {
                let wanted = now.routes.wanted(&subscription.names);
                let may = has_clusters() && self.listeners.is_told(&now.listeners);
                // One that nobody leads to any longer may be in use by old connections.
                may.then(|| subscription.change(&wanted, |_| true))
            }
        }?;
        let waited_for = !subscription.answered && kind != Kind::Routes;
        ((!change.is_empty() || waited_for) && !subscription.is_refused(&change)).then_some(change)
    }

    fn offer(&mut self, kind: Kind, change: Change, now: &Configuration) -> Answer {
        let source = now.of_kind(kind);
        let resources = change.keys().filter_map(|name| {
            let resource = source.items().get(name)?;
            Some((name.clone(), resource.clone()))
        });
        let resources: BTreeMap<_, _> = resources.collect();
        let gone = change.iter().filter(|(_, version)| version.is_none());
        let removed = gone.map(|(name, _)| name.clone()).collect();
        if kind != Kind::Clusters {
            let named = resources.values().flat_map(|resource| &resource.clusters);
            self.in_use.extend(named.cloned());
        }
        self.answers += 1;
        let nonce = self.answers.to_string();
        let subscription = self.subscription(kind);
        subscription.answered = true;
        subscription.offer = Some(Offer {
            nonce: nonce.clone(),
            change,
        });
        Answer {
            kind,
            nonce,
            resources,
            removed,
        }
    }

    /// Whether the proxy has taken the listeners and routes of a configuration, and so its clusters before.
    fn is_in_force(&self, of: &Configuration) -> bool {
        let routes = &self.routes;
        self.listeners.has_exactly(&of.listeners)
            && (of.routes.items().is_empty() || routes.has_all(&of.routes))
    }

    /// How many times in a row the proxy has refused what it was told of a kind, and why.
    pub(crate) fn refusals(&self, kind: Kind) -> Option<(u32, &str)> {
        let refused = self.subscriptions()[kind as usize].refused.as_ref()?;
        Some((refused.times, &refused.why))
    }

    /// Lets what was refused be offered once more.
    pub(crate) fn retry(&mut self) {
        for kind in Kind::ALL {
            if let Some(refused) = &mut self.subscription(kind).refused {
                refused.due = true;
            }
        }
    }
}
