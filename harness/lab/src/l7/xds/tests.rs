//! A proxy as Envoy is one, and every order of events that chance comes up with.
//!
//! Start from [`whatever_happens_nothing_in_force_names_a_cluster_that_is_not_there`].

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::*;

const CLUSTERS: [&str; 5] = ["a", "b", "c", "d", "e"];
const ROUTES: [&str; 3] = ["r1", "r2", "r3"];

fn cluster(name: &str, body: u32) -> Value {
    json!({ "name": name, "connect_timeout": format!("{body}s") })
}

/// A route configuration that leads to clusters.
fn route(name: &str, clusters: &[&str]) -> Value {
    let action = match clusters {
        [only] => json!({ "cluster": only }),
        many => {
            let weighted = many.iter().map(|name| json!({ "name": name, "weight": 1 }));
            json!({ "weighted_clusters": { "clusters": weighted.collect::<Vec<_>>() } })
        }
    };
    json!({ "name": name, "virtual_hosts": [{ "routes": [{ "route": action }] }] })
}

/// A listener of HTTP, whose routes come on their own.
fn http(name: &str, routes: &str) -> Value {
    json!({ "name": name, "filter_chains": [{ "rds": { "route_config_name": routes } }] })
}

/// A listener of bytes.
fn tcp(name: &str, cluster: &str) -> Value {
    json!({ "name": name, "filter_chains": [{ "cluster": cluster }] })
}

fn earlier() -> Vec<Value> {
    CLUSTERS.map(|name| cluster(name, 9)).to_vec()
}

/// What a group is told that nobody was told of before.
fn alone(snapshot: Snapshot) -> Configuration {
    Configuration::new(
        &Shared::default(),
        snapshot,
        None,
        &mut Told::default(),
        earlier,
    )
}

/// One route configuration that leads to a cluster.
fn simple(target: &str) -> Arc<Configuration> {
    let snapshot = Snapshot {
        clusters: vec![cluster(target, 0)],
        listeners: vec![http("http", "r1")],
        routes: vec![route("r1", &[target])],
        ..Snapshot::default()
    };
    Arc::new(alone(snapshot))
}

/// Any configuration in which every cluster that is named is there.
fn random(chance: &mut StdRng) -> Configuration {
    let mut snapshot = Snapshot::default();
    let mut any = || chance.random_range(0..CLUSTERS.len());
    let mut named = BTreeSet::new();
    for name in ROUTES {
        let targets = [any(), any()].map(|index| CLUSTERS[index]);
        let served = any() > 1;
        let targets = if targets[0] == targets[1] {
            &targets[..1]
        } else {
            &targets
        };
        snapshot.routes.push(route(name, targets));
        named.extend(targets.iter().map(|name| (*name).to_owned()));
        if served {
            snapshot.listeners.push(http(&format!("for {name}"), name));
        }
    }
    if any() > 2 {
        let target = CLUSTERS[any()];
        snapshot.listeners.push(tcp("bytes", target));
        named.insert(target.to_owned());
    }
    let body = |_: &String| u32::try_from(any() / 2).unwrap();
    let bodies: Vec<u32> = named.iter().map(body).collect();
    let clusters = named.iter().zip(bodies);
    snapshot.clusters = clusters.map(|(name, body)| cluster(name, body)).collect();
    alone(snapshot)
}

#[test]
fn what_did_not_change_is_taken_over_and_what_did_is_not() {
    let snapshot = |body: u32| Snapshot {
        clusters: vec![cluster("a", 0), cluster("b", body)],
        listeners: vec![http("http", "r1")],
        routes: vec![route("r1", &["a", "b"])],
        ..Snapshot::default()
    };
    let before = alone(snapshot(1));
    for body in [1, 2] {
        let alone = alone(snapshot(body));
        let after = Configuration::new(
            &Shared::default(),
            snapshot(body),
            Some(&before),
            &mut Told::default(),
            earlier,
        );
        assert!(after.same(&alone));
        assert_eq!(after.clusters, alone.clusters);
        assert_eq!(after.same(&before), body == 1);
        let kind = "envoy.config.cluster.v3.Cluster";
        let typed = crate::l7::envoy::typed(kind, cluster("a", 0)).to_string();
        assert!(after.clusters.response().contains(&typed));
    }
}

#[test]
fn what_several_are_told_alike_is_made_once() {
    let snapshot = |body: u32| Snapshot {
        clusters: vec![cluster("a", 0), cluster("b", body)],
        ..Snapshot::default()
    };
    let mut told = Told::default();
    let one = Configuration::new(&Shared::default(), snapshot(1), None, &mut told, earlier);
    let two = Configuration::new(&Shared::default(), snapshot(2), None, &mut told, earlier);
    let shared = one.clusters.shared_with(&two.clusters);
    assert_eq!(shared.collect::<Vec<_>>(), ["a"]);
    drop((one, two));
    told.tidy();
    assert!(told.is_empty());
}

/// A proxy: it takes listeners into service when their routes are there, and routes at once.
#[derive(Default)]
struct Envoy {
    clusters: Arc<Resources>,
    listeners: Arc<Resources>,
    warming: Option<Arc<Resources>>,
    routes: BTreeMap<String, Arc<Resources>>,
    waiting: BTreeSet<Subject>,
}

impl Envoy {
    fn subjects(&self) -> BTreeSet<Subject> {
        let mut subjects = BTreeSet::from([Subject::Clusters]);
        // Listeners are asked for when there are clusters.
        if !self.clusters.version.is_empty() {
            subjects.insert(Subject::Listeners);
        }
        let listeners = self.warming.iter().chain([&self.listeners]);
        let names = listeners.flat_map(|listeners| listeners.named_routes());
        subjects.extend(names.map(|name| Subject::Routes(name.clone())));
        subjects
    }

    fn version(&self, subject: &Subject) -> String {
        let told = match subject {
            Subject::Clusters => Some(&self.clusters),
            Subject::Listeners => Some(self.warming.as_ref().unwrap_or(&self.listeners)),
            Subject::Routes(name) => self.routes.get(name),
        };
        told.map(|told| told.version.clone()).unwrap_or_default()
    }

    fn take(&mut self, subject: &Subject, resources: Arc<Resources>) {
        match subject {
            Subject::Clusters => self.clusters = resources,
            Subject::Listeners => self.warming = Some(resources),
            Subject::Routes(name) => {
                self.routes.insert(name.clone(), resources);
            }
        }
        let warm = |listeners: &mut Arc<Resources>| {
            let mut names = listeners.named_routes().into_iter();
            names.all(|name| self.routes.contains_key(name))
        };
        if let Some(listeners) = self.warming.take_if(warm) {
            let names = listeners.named_routes();
            self.routes.retain(|name, _| names.contains(name));
            self.listeners = listeners.clone();
        }
        let subjects = self.subjects();
        self.waiting.retain(|subject| subjects.contains(subject));
        let there = self.clusters.names();
        let named = self.listeners.named_routes();
        let in_force = self.routes.iter().filter(|(name, _)| named.contains(name));
        let in_force = in_force.map(|(_, routes)| routes).chain([&self.listeners]);
        for name in in_force.flat_map(|resources| resources.named_clusters()) {
            assert!(there.contains(name), "{name} is not there: {there:?}");
        }
    }
}

/// Both sides, and what lies between them.
struct Story {
    chance: StdRng,
    envoy: Envoy,
    instance: Instance,
    now: Arc<Configuration>,
}

impl Story {
    fn any(&mut self, subjects: &BTreeSet<Subject>) -> Option<Subject> {
        let index = self.chance.random_range(0..subjects.len().max(1));
        subjects.iter().nth(index).cloned()
    }

    fn ask(&mut self, subject: &Subject) {
        let version = self.envoy.version(subject);
        self.instance.heard(subject, &version, &self.now);
        self.envoy.waiting.insert(subject.clone());
    }

    fn answer(&mut self, subject: &Subject, again: bool, arrives: bool) -> bool {
        let answer = self.instance.answer(subject, &self.now, again);
        let answered = answer.is_some();
        if answered || again {
            self.envoy.waiting.remove(subject);
        }
        if let Some(resources) = answer.filter(|_| arrives) {
            self.envoy.take(subject, resources);
        }
        answered
    }

    fn step(&mut self) {
        let idle = &self.envoy.subjects() - &self.envoy.waiting;
        let waiting = self.envoy.waiting.clone();
        match self.chance.random_range(0..100) {
            0..8 => self.now = Arc::new(random(&mut self.chance)),
            8..48 => {
                if let Some(subject) = self.any(&idle) {
                    self.ask(&subject);
                }
            }
            48..96 => {
                if let Some(subject) = self.any(&waiting) {
                    let again = self.chance.random_range(0..10) == 0;
                    // Refused, or lost on the way: it is the same.
                    let arrives = self.chance.random_range(0..8) > 0;
                    self.answer(&subject, again, arrives);
                }
            }
            // The control plane starts anew, perhaps with something else to say.
            96..98 => {
                self.instance = Instance::default();
                self.envoy.waiting.clear();
                if self.chance.random_range(0..2) == 0 {
                    self.now = Arc::new(random(&mut self.chance));
                }
            }
            // The proxy does.
            _ => self.envoy = Envoy::default(),
        }
    }

    /// Nothing changes any more, and every answer arrives.
    fn rest(&mut self) {
        for _ in 0..20 {
            for subject in &self.envoy.subjects() - &self.envoy.waiting {
                self.ask(&subject);
            }
            let waiting = self.envoy.waiting.clone();
            let answered = waiting
                .iter()
                .filter(|it| self.answer(it, false, true))
                .count();
            if answered == 0 {
                waiting.iter().for_each(|it| {
                    self.answer(it, true, true);
                });
            }
        }
        let (envoy, now) = (&self.envoy, &self.now);
        assert!(envoy.warming.is_none());
        assert_eq!(envoy.listeners, now.listeners);
        assert_eq!(envoy.routes, now.routes);
        assert_eq!(envoy.clusters, now.clusters);
    }
}

#[test]
fn whatever_happens_nothing_in_force_names_a_cluster_that_is_not_there() {
    for seed in 0..600 {
        let told = std::panic::catch_unwind(|| {
            let mut chance = StdRng::seed_from_u64(seed);
            let mut story = Story {
                now: Arc::new(random(&mut chance)),
                chance,
                envoy: Envoy::default(),
                instance: Instance::default(),
            };
            for _ in 0..4 {
                (0..60).for_each(|_| story.step());
                story.rest();
            }
        });
        assert!(told.is_ok(), "seed {seed}");
    }
}

/// Asks for something, having a version, and is answered at once, with a version, or not at all.
fn ask(
    instance: &mut Instance,
    subject: &Subject,
    has: &str,
    now: &Arc<Configuration>,
) -> Option<String> {
    instance.heard(subject, has, now);
    let answer = instance.answer(subject, now, false);
    answer.map(|resources| resources.version.clone())
}

fn r1() -> Subject {
    Subject::Routes("r1".to_owned())
}

/// A proxy that has a configuration as a whole.
fn settled(now: &Arc<Configuration>) -> Instance {
    let mut instance = Instance::default();
    for subject in [Subject::Clusters, Subject::Listeners, r1()] {
        let version = ask(&mut instance, &subject, "", now).unwrap();
        assert_eq!(ask(&mut instance, &subject, &version, now), None);
    }
    instance
}

#[test]
fn a_route_moves_between_the_coming_of_one_cluster_and_the_going_of_the_other() {
    let (before, after) = (simple("a"), simple("b"));
    let mut instance = settled(&before);
    let answer =
        |instance: &mut Instance, subject: &Subject| instance.answer(subject, &after, false);
    assert_eq!(answer(&mut instance, &r1()), None);
    let both = answer(&mut instance, &Subject::Clusters).unwrap();
    assert_eq!(
        both.names(),
        BTreeSet::from(["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(answer(&mut instance, &r1()), None);
    assert_eq!(
        ask(&mut instance, &Subject::Clusters, &both.version, &after),
        None
    );
    let moved = answer(&mut instance, &r1()).unwrap();
    assert_eq!(answer(&mut instance, &Subject::Clusters), None);
    assert_eq!(ask(&mut instance, &r1(), &moved.version, &after), None);
    assert_eq!(
        answer(&mut instance, &Subject::Clusters),
        Some(after.clusters.clone())
    );
}

#[test]
fn what_was_begun_ends_though_something_newer_comes_with_every_question() {
    let mut instance = settled(&simple("a"));
    let newer = |number: u32| simple(&format!("b{number}"));
    let first = newer(0);
    let clusters = instance.answer(&Subject::Clusters, &first, false).unwrap();
    let version = &clusters.version;
    assert_eq!(
        ask(&mut instance, &Subject::Clusters, version, &newer(1)),
        None
    );
    let routes = instance.answer(&r1(), &newer(2), false).unwrap();
    assert_eq!(routes, first.routes["r1"]);
    // What is refused has no end, and is given up for what is newer.
    let refused = &simple("a").routes["r1"].version;
    let last = newer(3);
    assert_eq!(ask(&mut instance, &r1(), refused, &last), None);
    let clusters = instance.answer(&Subject::Clusters, &last, false).unwrap();
    assert!(clusters.names().contains("b3"), "{:?}", clusters.names());
}

#[test]
fn what_was_refused_is_offered_again_only_when_told_to() {
    let now = simple("a");
    let mut instance = Instance::default();
    assert!(ask(&mut instance, &Subject::Clusters, "", &now).is_some());
    for refusals in 1..4 {
        assert_eq!(ask(&mut instance, &Subject::Clusters, "", &now), None);
        let refused = (refusals, now.clusters.version.as_str());
        assert_eq!(instance.refusals(&Subject::Clusters), Some(refused));
        // Heard again without an answer in between, it is no other refusal.
        assert_eq!(ask(&mut instance, &Subject::Clusters, "", &now), None);
        assert_eq!(instance.refusals(&Subject::Clusters), Some(refused));
        assert!(instance.answer(&Subject::Clusters, &now, true).is_some());
    }
    let other = simple("b");
    assert_eq!(
        ask(&mut instance, &Subject::Clusters, "", &other),
        Some(other.clusters.version.clone())
    );
    assert_eq!(instance.refusals(&Subject::Clusters), None);
}

#[test]
fn a_new_control_plane_with_nothing_new_to_say_says_nothing() {
    let now = simple("a");
    let mut instance = Instance::default();
    let versions = [
        (r1(), &now.routes["r1"].version),
        (Subject::Clusters, &now.clusters.version),
        (Subject::Listeners, &now.listeners.version),
    ];
    for (subject, version) in &versions {
        instance.heard(subject, version, &now);
    }
    for (subject, _) in &versions {
        assert_eq!(instance.answer(subject, &now, false), None, "{subject}");
    }
}

#[test]
fn a_new_control_plane_takes_nothing_away_that_it_does_not_know() {
    let now = simple("b");
    let mut instance = Instance::default();
    instance.heard(&Subject::Clusters, "of before", &now);
    let clusters = instance.answer(&Subject::Clusters, &now, false).unwrap();
    assert_eq!(clusters.names(), CLUSTERS.map(str::to_owned).into());
    assert_eq!(ask(&mut instance, &r1(), "of before", &now), None);
}

#[tokio::test]
async fn a_request_waits_for_a_change_and_not_for_a_repetition() {
    let xds = Xds::new(Arc::new(|line| eprintln!("{line}")));
    let snapshot = |body| Snapshot {
        clusters: vec![cluster("a", body)],
        ..Snapshot::default()
    };
    let ask = async |version: &str| {
        let proxy = Proxy {
            group: "group".to_owned(),
            id: "proxy".to_owned(),
        };
        let answer = xds.ask(proxy, Subject::Clusters, version).await.unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    xds.publish("group", &Shared::default(), snapshot(1), Vec::new);
    let first = ask("").await;
    assert_eq!(first["resources"][0]["name"], "a");
    let version = first["version_info"].as_str().unwrap();
    let changes = async {
        for body in [1, 1, 2] {
            xds.publish("group", &Shared::default(), snapshot(body), Vec::new);
            tokio::task::yield_now().await;
        }
    };
    let (second, ()) = tokio::join!(biased; ask(version), changes);
    assert_eq!(second["resources"][0]["connect_timeout"], "2s");
    assert_ne!(second["version_info"], first["version_info"]);
}
