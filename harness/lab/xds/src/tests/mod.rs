//! Single stories; [`story`] has those of chance.

mod story;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use self::story::{Envoy, Story};

use super::*;
use crate::instance::{Answer, Heard, Instance, Kind};

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
    let routes = json!([{ "match": { "prefix": "/" }, "route": action }]);
    json!({ "name": name, "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] })
}

fn listener(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!(
        "type.googleapis.com/envoy.extensions.filters.network.{kind}"
    ));
    let filter = json!({ "name": kind, "typed_config": config });
    json!({ "name": name, "filter_chains": [{ "filters": [filter] }] })
}

/// A listener of HTTP, whose routes come on their own.
fn http(name: &str, routes: &str) -> Value {
    let rds = json!({ "rds": { "route_config_name": routes } });
    let kind = "http_connection_manager.v3.HttpConnectionManager";
    listener(name, kind, rds)
}

/// A listener of bytes.
fn tcp(name: &str, cluster: &str) -> Value {
    listener(name, "tcp_proxy.v3.TcpProxy", json!({ "cluster": cluster }))
}

fn parts(clusters: Vec<Value>, listeners: Vec<Value>, routes: Vec<Value>) -> Parts {
    let shared = |values: Vec<Value>| values.into_iter().map(Arc::new).collect();
    Parts {
        clusters: shared(clusters),
        listeners: shared(listeners),
        routes: shared(routes),
    }
}

fn defect(line: &str) {
    panic!("{line}");
}

/// What a group is told that nobody was told of before.
fn alone(parts: Parts) -> Configuration {
    Configuration::new(
        &Shared::default(),
        parts,
        None,
        &mut Told::default(),
        &defect,
    )
}

/// One route configuration that leads to a cluster.
fn simple(target: &str) -> Arc<Configuration> {
    let listeners = vec![http("http", "r1")];
    let routes = vec![route("r1", &[target])];
    Arc::new(alone(parts(vec![cluster(target, 0)], listeners, routes)))
}

/// Any configuration in which every cluster that is named is there.
fn random(chance: &mut StdRng) -> Configuration {
    let mut any = || chance.random_range(0..CLUSTERS.len());
    let (mut listeners, mut routes) = (Vec::new(), Vec::new());
    let mut named = BTreeSet::new();
    for name in ROUTES {
        let targets = [any(), any()].map(|index| CLUSTERS[index]);
        let served = any() > 1;
        let targets = if targets[0] == targets[1] {
            &targets[..1]
        } else {
            &targets
        };
        routes.push(route(name, targets));
        named.extend(targets.iter().map(|name| (*name).to_owned()));
        if served {
            listeners.push(http(&format!("for {name}"), name));
        }
    }
    if any() > 2 {
        let target = CLUSTERS[any()];
        listeners.push(tcp("bytes", target));
        named.insert(target.to_owned());
    }
    let body = |_: &String| u32::try_from(any() / 2).unwrap();
    let bodies: Vec<u32> = named.iter().map(body).collect();
    let clusters = named.iter().zip(bodies);
    let clusters = clusters.map(|(name, body)| cluster(name, body)).collect();
    alone(parts(clusters, listeners, routes))
}

#[test]
fn what_did_not_change_is_taken_over_and_what_did_is_not() {
    let parts = |body: u32| {
        let clusters = vec![cluster("a", 0), cluster("b", body)];
        parts(
            clusters,
            vec![http("http", "r1")],
            vec![route("r1", &["a", "b"])],
        )
    };
    let before = alone(parts(1));
    for body in [1, 2] {
        let shared = &Shared::default();
        let told = &mut Told::default();
        let after = Configuration::new(shared, parts(body), Some(&before), told, &defect);
        assert!(after.same(&alone(parts(body))));
        assert_eq!(after.same(&before), body == 1);
        let kept: Vec<_> = after.clusters.shared_with(&before.clusters).collect();
        assert_eq!(kept.contains(&"b"), body == 1);
        assert!(kept.contains(&"a"));
        let told = crate::encode::decode(&after.clusters.items()["b"].packed);
        assert_eq!(told["connect_timeout"], format!("{body}s"));
    }
}

#[test]
fn what_several_are_told_alike_is_made_once() {
    let parts = |body| parts(vec![cluster("a", 0), cluster("b", body)], vec![], vec![]);
    let mut told = Told::default();
    let shared = Shared::default();
    let one = Configuration::new(&shared, parts(1), None, &mut told, &defect);
    let two = Configuration::new(&shared, parts(2), None, &mut told, &defect);
    let alike = one.clusters.shared_with(&two.clusters);
    assert_eq!(alike.collect::<Vec<_>>(), ["a"]);
    drop((one, two));
    told.tidy();
    assert!(told.is_empty());
}

#[test]
fn what_is_no_message_is_said_once_and_keeps_nothing_else_back() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = {
        let lines = lines.clone();
        Arc::new(move |line: &str| lines.lock().unwrap().push(line.to_owned()))
    };
    let xds = Xds::new(log);
    let names = || {
        let told = xds.published("group").unwrap();
        let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
        told.iter().map(name).collect::<Vec<_>>()
    };
    let wrong = json!({ "name": "a", "conect_timeout": "1s" });
    for _ in 0..2 {
        let clusters = vec![wrong.clone(), cluster("b", 1)];
        xds.publish("group", &Shared::default(), parts(clusters, vec![], vec![]));
        assert_eq!(names(), ["b"]);
    }
    let lines = lines.lock().unwrap().clone();
    assert!(
        matches!(&*lines, [one] if one.contains("conect_timeout") && one.contains(" a,")),
        "{lines:?}"
    );
    // One that was right before stays as it was.
    for clusters in [vec![cluster("a", 1)], vec![wrong]] {
        xds.publish("group", &Shared::default(), parts(clusters, vec![], vec![]));
        assert_eq!(xds.published("group").unwrap(), [cluster("a", 1)]);
    }
}

/// A proxy that has a configuration as a whole.
fn settled(now: &Arc<Configuration>) -> (Instance, Envoy) {
    let mut story = Story::new(0);
    story.now = now.clone();
    story.rest();
    (story.instance, story.envoy)
}

fn take(instance: &mut Instance, answer: &Answer, outcome: Result<(), String>) {
    let outcome = Some((answer.nonce.clone(), outcome));
    instance.heard(
        answer.kind,
        Heard {
            outcome,
            ..Heard::default()
        },
    );
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.resources.keys().map(String::as_str).collect()
}

#[test]
fn a_route_moves_between_the_coming_of_one_cluster_and_the_going_of_the_other() {
    let (before, after) = (simple("a"), simple("b"));
    let (mut instance, _) = settled(&before);
    let come = instance.next(&after).unwrap();
    assert_eq!((come.kind, names(&come)), (Kind::Clusters, vec!["b"]));
    assert!(come.removed.is_empty());
    assert!(instance.next(&after).is_none());
    take(&mut instance, &come, Ok(()));
    let moved = instance.next(&after).unwrap();
    assert_eq!((moved.kind, names(&moved)), (Kind::Routes, vec!["r1"]));
    assert!(instance.next(&after).is_none());
    take(&mut instance, &moved, Ok(()));
    let gone = instance.next(&after).unwrap();
    assert_eq!((gone.kind, names(&gone)), (Kind::Clusters, vec![]));
    assert_eq!(gone.removed, ["a"]);
}

#[test]
fn what_was_begun_ends_though_something_newer_comes_with_every_answer() {
    let (mut instance, _) = settled(&simple("a"));
    let newer = |number: u32| simple(&format!("b{number}"));
    let clusters = instance.next(&newer(0)).unwrap();
    take(&mut instance, &clusters, Ok(()));
    let routes = instance.next(&newer(1)).unwrap();
    assert_eq!(routes.kind, Kind::Routes);
    let named: Vec<_> = routes.resources["r1"].clusters.iter().collect();
    assert_eq!(named, ["b0"]);
    // What is refused has no end, and is given up for what is newer.
    take(&mut instance, &routes, Err("no".to_owned()));
    let clusters = instance.next(&newer(2)).unwrap();
    assert_eq!(names(&clusters), ["b2"]);
}

#[test]
fn what_was_refused_is_offered_again_only_when_told_to() {
    let now = simple("a");
    let mut instance = Instance::default();
    instance.heard(Kind::Clusters, Heard::default());
    let mut answer = instance.next(&now).unwrap();
    for times in 1..4 {
        take(&mut instance, &answer, Err(format!("no {times}")));
        let why = format!("no {times}");
        assert_eq!(instance.refusals(Kind::Clusters), Some((times, &*why)));
        assert!(instance.next(&now).is_none());
        instance.retry();
        answer = instance.next(&now).unwrap();
        assert_eq!(names(&answer), ["a"]);
    }
    take(&mut instance, &answer, Err("no".to_owned()));
    let other = simple("b");
    let answer = instance.next(&other).unwrap();
    assert_eq!(names(&answer), ["b"]);
    take(&mut instance, &answer, Ok(()));
    assert_eq!(instance.refusals(Kind::Clusters), None);
}

#[test]
fn a_new_control_plane_with_nothing_new_to_say_says_nothing() {
    let now = simple("a");
    let (_, mut envoy) = settled(&now);
    envoy.subscribed.clear();
    let mut instance = Instance::default();
    for (kind, heard) in envoy.says() {
        instance.heard(kind, heard);
        assert!(instance.next(&now).is_none(), "{kind}");
    }
}

#[test]
fn who_has_nothing_is_told_that_there_is_nothing() {
    let now = Arc::new(Configuration::default());
    let mut instance = Instance::default();
    for kind in [Kind::Clusters, Kind::Listeners] {
        instance.heard(kind, Heard::default());
        let answer = instance.next(&now).unwrap();
        assert_eq!((answer.kind, names(&answer)), (kind, vec![]));
        take(&mut instance, &answer, Ok(()));
        assert!(instance.next(&now).is_none());
    }
}

#[test]
fn who_asks_for_a_route_again_is_told_it_again() {
    let now = simple("a");
    let (mut instance, _) = settled(&now);
    let names = || vec!["r1".to_owned()];
    let heard = |subscribe, unsubscribe| Heard {
        subscribe,
        unsubscribe,
        ..Heard::default()
    };
    instance.heard(Kind::Routes, heard(Vec::new(), names()));
    assert!(instance.next(&now).is_none());
    // In one request or in two, or without having said that it threw it away.
    for _ in 0..2 {
        instance.heard(Kind::Routes, heard(names(), Vec::new()));
        let answer = instance.next(&now).unwrap();
        assert_eq!(answer.resources.keys().collect::<Vec<_>>(), ["r1"]);
        take(&mut instance, &answer, Ok(()));
        assert!(instance.next(&now).is_none());
    }
}
