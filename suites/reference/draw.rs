//! Sets of routes and requests, drawn at random from so few letters that they meet all the time.
//!
//! Start from [`ingresses`], [`http_routes`] and [`requests`]. The same seed draws the same for ever. Not drawn, though the models know it: a default backend, and rules of every host, since a
//! controller would answer other checks' hosts by them.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::http_route::{self, HttpRoute, Match, PathMatch};
use super::ingress::{self, Ingress, PathType};
use super::{BACKENDS, Request, Routes};

/// Where all chance comes from.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From `least` to `most`.
    fn number(&mut self, least: usize, most: usize) -> usize {
        self.0.random_range(least..=most)
    }

    fn one_in(&mut self, sides: u32) -> bool {
        self.0.random_ratio(1, sides)
    }

    /// One of these; nothing of nothing.
    fn of<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        match items.len() {
            0 => None,
            count => items.get(self.number(0, count - 1)).cloned(),
        }
    }

    /// Some of these, each at most once and in their order.
    fn some<T: Clone>(&mut self, items: &[T], one_in: u32) -> Vec<T> {
        let drawn = items.iter().filter(|_| self.one_in(one_in));
        drawn.cloned().collect()
    }

    fn text(&mut self, items: &[&'static str]) -> &'static str {
        self.of(items).unwrap_or_default()
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Each twice as likely as it stands here more often.
const SEGMENTS: [&str; 7] = ["a", "a", "b", "b", "ab", "A", "a%20b"];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const HEADERS: [&str; 2] = ["x-one", "x-two"];
const PARAMETERS: [&str; 2] = ["v", "w"];
const VALUES: [&str; 3] = ["a", "A", "b"];
const EXPRESSIONS: [&str; 5] = ["/a", "/a.*", "/(a|b)", "/[ab]+/a", "/.*b"];

/// Different names, in any order: so an object's age and its name say different things.
fn names(dice: &mut Dice, count: usize) -> Vec<&'static str> {
    let mut left = NAMES.to_vec();
    let mut names = Vec::new();
    while names.len() < count && !left.is_empty() {
        names.push(left.swap_remove(dice.number(0, left.len() - 1)));
    }
    names
}

/// A path that the API takes: no empty elements.
fn path(dice: &mut Dice) -> String {
    let elements = dice.number(0, 3);
    let mut path: String = (0..elements)
        .map(|_| format!("/{}", dice.text(&SEGMENTS)))
        .collect();
    if path.is_empty() || dice.one_in(4) {
        path.push('/');
    }
    path
}

/// A set of Ingresses.
pub(super) fn ingresses(dice: &mut Dice) -> Vec<Ingress> {
    let count = dice.number(1, 3);
    let names = names(dice, count).into_iter();
    let ingress = |name: &str| Ingress {
        name: name.to_owned(),
        rules: (0..dice.number(1, 2)).map(|_| ingress_rule(dice)).collect(),
        default_backend: None,
    };
    names.map(ingress).collect()
}

fn ingress_rule(dice: &mut Dice) -> ingress::Rule {
    let path = |dice: &mut Dice| ingress::Path {
        kind: if dice.one_in(3) {
            PathType::Exact
        } else {
            PathType::Prefix
        },
        path: path(dice),
        backend: dice.text(&BACKENDS),
    };
    ingress::Rule {
        host: Some(dice.text(&["a", "a", "b.a", "*.a", "*"]).to_owned()),
        paths: (0..dice.number(1, 4)).map(|_| path(dice)).collect(),
    }
}

/// A set of HTTPRoutes.
pub(super) fn http_routes(dice: &mut Dice) -> Vec<HttpRoute> {
    let count = dice.number(1, 3);
    let names = names(dice, count).into_iter();
    let route = |name: &str| {
        let mut hostnames = dice.some(&["a", "b.a", "*.a", "*"], 3);
        if hostnames.is_empty() {
            hostnames.push("a");
        }
        HttpRoute {
            name: name.to_owned(),
            hostnames: hostnames.into_iter().map(str::to_owned).collect(),
            rules: (0..dice.number(1, 3)).map(|_| route_rule(dice)).collect(),
            ..HttpRoute::default()
        }
    };
    names.map(route).collect()
}

fn route_rule(dice: &mut Dice) -> http_route::Rule {
    let matches = match dice.one_in(12) {
        true => 0,
        false => dice.number(1, 2),
    };
    http_route::Rule {
        matches: (0..matches).map(|_| route_match(dice)).collect(),
        backend: dice.text(&BACKENDS),
    }
}

fn route_match(dice: &mut Dice) -> Match {
    let path = match dice.number(0, 15) {
        0 | 1 => None,
        2 => Some(PathMatch::RegularExpression(
            dice.text(&EXPRESSIONS).to_owned(),
        )),
        3..=6 => Some(PathMatch::Exact(path(dice))),
        _ => Some(PathMatch::PathPrefix(path(dice))),
    };
    Match {
        path,
        method: dice.one_in(4).then(|| dice.text(&METHODS)),
        headers: headers(dice, &HEADERS, 4),
        query: parameters(dice, 5),
    }
}

fn headers(dice: &mut Dice, names: &[&'static str], one_in: u32) -> Vec<(&'static str, String)> {
    let names = dice.some(names, one_in).into_iter();
    names
        .map(|name| (name, dice.text(&VALUES).to_owned()))
        .collect()
}

fn parameters(dice: &mut Dice, one_in: u32) -> Vec<(&'static str, &'static str)> {
    let names = dice.some(&PARAMETERS, one_in).into_iter();
    names.map(|name| (name, dice.text(&VALUES))).collect()
}

/// Requests that the routes of a set are likely to match, or to miss by little.
pub(super) fn requests<R: Routes>(dice: &mut Dice, set: &[R], count: usize) -> Vec<Request> {
    let hosts: Vec<&str> = set.iter().flat_map(Routes::hosts).collect();
    let paths: Vec<&str> = set.iter().flat_map(Routes::paths).collect();
    (0..count).map(|_| request(dice, &hosts, &paths)).collect()
}

fn request(dice: &mut Dice, hosts: &[&str], paths: &[&str]) -> Request {
    let method = match dice.number(0, 9) {
        0..=4 => "GET",
        5 => "HEAD",
        _ => dice.text(&METHODS),
    };
    let names = if dice.one_in(4) {
        ["X-One", "X-TWO"]
    } else {
        HEADERS
    };
    Request {
        method,
        host: host(dice, hosts),
        port: dice.one_in(8).then_some(8080),
        path: requested(dice, paths),
        query: parameters(dice, 2),
        headers: headers(dice, &names, 2),
    }
}

/// A host of the routes, with a wildcard filled in; or any.
fn host(dice: &mut Dice, hosts: &[&str]) -> String {
    let any = dice.text(&["a", "b.a", "c.a", "c.b.a", "c", ""]);
    let known = dice.of(hosts).filter(|_| !dice.one_in(4));
    let labels = dice.text(&["b", "c", "c", "c.b"]);
    let host = known.unwrap_or(any).replacen('*', labels, 1);
    match dice.one_in(8) {
        true => host.to_ascii_uppercase(),
        false => host,
    }
}

/// A path of the routes, changed a little or not; or any.
fn requested(dice: &mut Dice, paths: &[&str]) -> String {
    let known = dice.of(paths).filter(|_| !dice.one_in(4));
    let path = known.map_or_else(|| path(dice), str::to_owned);
    let without = path.strip_suffix('/').unwrap_or(&path).to_owned();
    let path = match dice.number(0, 15) {
        0..=4 => path,
        5 => format!("{without}/"),
        6 => without,
        7 | 8 => format!("{without}/{}", dice.text(&SEGMENTS)),
        9 => format!("{path}b"),
        10 => path.to_ascii_uppercase(),
        11 => format!("{path}/"),
        12 => format!("/{path}"),
        13 => path.replacen('/', "//", 2),
        14 => path.replacen('a', "%61", 1),
        _ => format!("{path}%2Fb"),
    };
    match path.is_empty() {
        true => "/".to_owned(),
        false => path,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::NOT_FOUND;
    use super::*;

    /// How often each answer is the only right one, how often there are several, and how often none.
    fn spread<R: Routes>(drawn: impl Fn(&mut Dice) -> Vec<R>) -> BTreeMap<String, usize> {
        let mut dice = Dice::new(1);
        let mut spread = BTreeMap::new();
        for _ in 0..200 {
            let set = drawn(&mut dice);
            for request in requests(&mut dice, &set, 20) {
                let answers: Vec<_> = R::answers(&set, &request).into_iter().collect();
                let kind = match answers.as_slice() {
                    [] => "none".to_owned(),
                    [one] => one.clone(),
                    _ => "several".to_owned(),
                };
                *spread.entry(kind).or_default() += 1;
            }
        }
        spread
    }

    #[test]
    fn requests_meet_routes_often_and_few_may_be_answered_in_several_ways() {
        for spread in [spread(ingresses), spread(http_routes)] {
            let of = |kind: &str| spread.get(kind).copied().unwrap_or_default();
            assert_eq!(of("none"), 0);
            assert!(of(NOT_FOUND) < 2400, "{spread:?}");
            assert!(of("several") < 800, "{spread:?}");
            for backend in BACKENDS {
                assert!(of(&super::super::by(backend)) > 100, "{spread:?}");
            }
        }
    }

    #[test]
    fn a_seed_draws_the_same_for_ever() {
        let mut dice = Dice::new(42);
        let set = http_routes(&mut dice);
        let yaml: String = set.iter().map(Routes::yaml).collect();
        let requests = requests(&mut dice, &set, 3).into_iter();
        let curls: Vec<_> = requests.map(|request| request.curl("")).collect();
        expect_test::expect![[r#"
            apiVersion: gateway.networking.k8s.io/v1
            kind: HTTPRoute
            metadata: {name: c}
            spec:
              parentRefs: [{name: reference}]
              hostnames: ["*"]
              rules:
                - matches:
                    - {path: {type: RegularExpression, value: "/.*b"}, headers: [{name: x-one, value: "A"}]}
                  backendRefs: [{name: gamma, port: 80}]
                - matches:
                    - {path: {type: RegularExpression, value: "/.*b"}, method: GET, headers: [{name: x-two, value: "b"}]}
                  backendRefs: [{name: gamma, port: 80}]
            curl -i --path-as-is -H 'Host: c' -H 'X-TWO: a' '/b/ab/?w=b'
            curl -i --path-as-is -H 'Host: c.b' -H 'x-one: A' -H 'x-two: A' '/a%20b/a%20b/ab/b'
            curl -i --path-as-is -H 'Host: b.a' '/a/b/'"#]].assert_eq(&format!("{yaml}{}", curls.join("\n")));
    }
}
