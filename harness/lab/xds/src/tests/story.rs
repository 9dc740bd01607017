//! A proxy as Envoy is one, and every order of events that chance comes up with.
//!
//! Start from [`whatever_happens_nothing_in_force_names_a_cluster_that_is_not_there`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::random;
use crate::configuration::{Configuration, Resource};
use crate::instance::{Answer, Heard, Instance, Kind};

/// Resources by name, of a kind.
type Items = BTreeMap<String, Arc<Resource>>;

fn versions(items: &Items) -> BTreeMap<String, String> {
    let version = |(name, it): (&String, &Arc<Resource>)| (name.clone(), it.version.clone());
    items.iter().map(version).collect()
}

fn named_routes(listeners: &Items) -> BTreeSet<String> {
    let all = listeners.values().flat_map(|listener| listener.routes());
    all.cloned().collect()
}

/// A proxy: it takes listeners into service when their routes are there, and routes at once.
#[derive(Default)]
pub(super) struct Envoy {
    clusters: Items,
    /// What it was told of listeners, and those of them that are in force.
    listeners: Items,
    active: Items,
    routes: Items,
    /// What it has asked for on this stream.
    pub(super) subscribed: BTreeMap<Kind, BTreeSet<String>>,
    /// Whether it was ever told clusters: before that it asks for no listeners.
    begun: bool,
}

impl Envoy {
    /// What it says next: of what kind, and what.
    pub(super) fn says(&mut self) -> Vec<(Kind, Heard)> {
        let mut said = Vec::new();
        for kind in Kind::ALL {
            let wants = match kind {
                Kind::Routes => &named_routes(&self.listeners) | &named_routes(&self.active),
                Kind::Listeners if !self.begun => continue,
                _ => BTreeSet::new(),
            };
            let before = self.subscribed.get(&kind);
            if before == Some(&wants)
                || (kind == Kind::Routes && before.is_none() && wants.is_empty())
            {
                continue;
            }
            let none = BTreeSet::new();
            let had = before.unwrap_or(&none);
            let items = match kind {
                Kind::Clusters => &self.clusters,
                Kind::Listeners => &self.listeners,
                Kind::Routes => &self.routes,
            };
            let heard = Heard {
                subscribe: (&wants - had).into_iter().collect(),
                unsubscribe: (had - &wants).into_iter().collect(),
                has: before.map_or_else(|| versions(items), |_| BTreeMap::new()),
                outcome: None,
            };
            if kind == Kind::Routes {
                self.routes.retain(|name, _| wants.contains(name));
            }
            self.subscribed.insert(kind, wants);
            said.push((kind, heard));
        }
        said
    }

    /// Takes an answer, or as much of it as `taken` says.
    fn take(&mut self, answer: &Answer, mut taken: impl FnMut() -> bool) {
        let items = match answer.kind {
            Kind::Clusters => &mut self.clusters,
            Kind::Listeners => &mut self.listeners,
            Kind::Routes => &mut self.routes,
        };
        let subscribed = self.subscribed.get(&answer.kind);
        let wanted = |name: &String| {
            // Of routes it takes what it asked for.
            answer.kind != Kind::Routes || subscribed.is_some_and(|all| all.contains(name))
        };
        for (name, resource) in &answer.resources {
            if wanted(name) && taken() {
                items.insert(name.clone(), resource.clone());
            }
        }
        for name in &answer.removed {
            if taken() {
                items.remove(name);
            }
        }
        self.begun |= answer.kind == Kind::Clusters;
        self.check();
    }

    fn check(&mut self) {
        for (name, listener) in &self.listeners {
            let mut routes = listener.routes().iter();
            if routes.all(|name| self.routes.contains_key(name)) {
                self.active.insert(name.clone(), listener.clone());
            }
        }
        self.active
            .retain(|name, _| self.listeners.contains_key(name));
        let named = named_routes(&self.active);
        let in_force = self.routes.iter().filter(|(name, _)| named.contains(*name));
        let in_force = in_force
            .map(|(_, routes)| routes)
            .chain(self.active.values());
        for name in in_force.flat_map(|resource| &resource.clusters) {
            assert!(self.clusters.contains_key(name), "{name} is not there");
        }
    }
}

/// Both sides, and what lies between them.
pub(super) struct Story {
    chance: StdRng,
    pub(super) envoy: Envoy,
    pub(super) instance: Instance,
    pub(super) now: Arc<Configuration>,
    /// What was told and not answered.
    told: Vec<Answer>,
}

impl Story {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        Self {
            now: Arc::new(random(&mut chance)),
            chance,
            envoy: Envoy::default(),
            instance: Instance::default(),
            told: Vec::new(),
        }
    }

    /// The stream breaks.
    fn reconnect(&mut self) {
        self.instance = Instance::default();
        self.envoy.subscribed.clear();
        self.told.clear();
    }

    fn ask(&mut self) {
        for (kind, heard) in self.envoy.says() {
            self.instance.heard(kind, heard);
        }
    }

    fn tell(&mut self) {
        self.told.extend(self.instance.next(&self.now));
    }

    /// The proxy takes the answers of a kind in order; of different kinds in any.
    fn answer(&mut self, refuses: bool) {
        if self.told.is_empty() {
            return;
        }
        let index = self.chance.random_range(0..self.told.len());
        let answer = self.told.remove(index);
        let chance = &mut self.chance;
        self.envoy
            .take(&answer, || !refuses || chance.random_range(0..2) == 0);
        let reason = if refuses {
            Err("no".to_owned())
        } else {
            Ok(())
        };
        let heard = Heard {
            outcome: Some((answer.nonce, reason)),
            ..Heard::default()
        };
        self.instance.heard(answer.kind, heard);
    }

    fn step(&mut self) {
        match self.chance.random_range(0..100) {
            0..8 => self.now = Arc::new(random(&mut self.chance)),
            8..35 => self.ask(),
            35..62 => self.tell(),
            62..92 => {
                let refuses = self.chance.random_range(0..8) == 0;
                self.answer(refuses);
            }
            92..96 => self.instance.retry(),
            // The control plane starts anew, perhaps with something else to say.
            96..98 => {
                self.reconnect();
                if self.chance.random_range(0..2) == 0 {
                    self.now = Arc::new(random(&mut self.chance));
                }
            }
            // The proxy does.
            _ => {
                self.reconnect();
                self.envoy = Envoy::default();
            }
        }
    }

    /// Nothing changes any more, and every answer is taken.
    pub(super) fn rest(&mut self) {
        for _ in 0..30 {
            self.ask();
            self.instance.retry();
            self.tell();
            self.answer(false);
        }
        self.ask();
        assert!(self.instance.next(&self.now).is_none());
        let (envoy, now) = (&self.envoy, &self.now);
        assert_eq!(versions(&envoy.listeners), versions(now.listeners.items()));
        assert_eq!(versions(&envoy.active), versions(now.listeners.items()));
        assert_eq!(versions(&envoy.routes), versions(now.routes.items()));
        assert_eq!(versions(&envoy.clusters), versions(now.clusters.items()));
    }
}

#[test]
fn whatever_happens_nothing_in_force_names_a_cluster_that_is_not_there() {
    for seed in 0..600 {
        let told = std::panic::catch_unwind(|| {
            let mut story = Story::new(seed);
            for _ in 0..4 {
                (0..80).for_each(|_| story.step());
                story.rest();
            }
        });
        assert!(told.is_ok(), "seed {seed}");
    }
}
