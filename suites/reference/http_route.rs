//! HTTPRoute (gateway.networking.k8s.io/v1), from the text of its fields `hostnames` and `matches`.
//!
//! Start from [`Found`]. What the text does not say, and so may be either way: how a RegularExpression path
//! stands to the others, whether of two prefixes of equal elements that with a last slash is the longer
//! one, and whether a request that no rule of the most specific hostname matches is for those of another,
//! or for nobody. A regular expression is RE2's, of the whole path or of any part of it.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;
use std::fmt::Write as _;

use regex::Regex;

use super::path::{covers, without_last_slash};
use super::shrink::{each_smaller, without_one};
use super::{NOT_FOUND, Place, Request, Routes, backend_of_mark, by, first, quoted};

/// The header that a mark is asked for with.
const MARK: &str = "x-strata-mark";

/// An HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HttpRoute {
    pub(super) namespace: String,
    pub(super) name: String,
    /// When it was created (RFC 3339).
    pub(super) created: String,
    pub(super) hostnames: Vec<String>,
    pub(super) rules: Vec<Rule>,
}

/// A rule: any of its matches is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) backend: &'static str,
}

/// A match: all of its conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Match {
    pub(super) path: Option<PathMatch>,
    pub(super) method: Option<&'static str>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) query: Vec<(&'static str, &'static str)>,
}

/// A condition on the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathMatch {
    Exact(String),
    PathPrefix(String),
    RegularExpression(String),
}

impl PathMatch {
    fn value(&self) -> &str {
        match self {
            Self::Exact(value) | Self::PathPrefix(value) | Self::RegularExpression(value) => value,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Exact(_) => "Exact",
            Self::PathPrefix(_) => "PathPrefix",
            Self::RegularExpression(_) => "RegularExpression",
        }
    }

    fn matches(&self, path: &str, extent: Extent) -> bool {
        match self {
            Self::Exact(value) => value == path,
            Self::PathPrefix(value) => covers(value, path),
            Self::RegularExpression(value) => {
                let regex = match extent {
                    Extent::Whole => Regex::new(&format!("^(?:{value})$")),
                    Extent::Part => Regex::new(value),
                };
                regex.is_ok_and(|regex| regex.is_match(path))
            }
        }
    }

    /// "Precedence must be given to the match having: 'Exact' path match; 'Prefix' path match with largest
    /// number of characters." Nothing where the text is silent.
    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::RegularExpression(one), Self::RegularExpression(two)) if one == two => {
                Some(Ordering::Equal)
            }
            (Self::RegularExpression(_), _) | (_, Self::RegularExpression(_)) => None,
            (Self::Exact(_), Self::Exact(_)) => Some(Ordering::Equal),
            (Self::Exact(_), Self::PathPrefix(_)) => Some(Ordering::Greater),
            (Self::PathPrefix(_), Self::Exact(_)) => Some(Ordering::Less),
            (Self::PathPrefix(one), Self::PathPrefix(two)) => {
                let by_elements = without_last_slash(one)
                    .len()
                    .cmp(&without_last_slash(two).len());
                match by_elements {
                    Ordering::Equal if one != two => None,
                    order => Some(order),
                }
            }
        }
    }
}

/// What of a path a regular expression has to match.
#[derive(Debug, Clone, Copy)]
enum Extent {
    Whole,
    Part,
}

impl Match {
    fn holds(&self, request: &Request, (path, extent): (&str, Extent)) -> bool {
        self.path_match().matches(path, extent)
            && self.method.is_none_or(|method| method == request.method)
            && self
                .headers
                .iter()
                .all(|(name, value)| request.header(name) == Some(value))
            && self
                .query
                .iter()
                .all(|(name, value)| request.parameter(name) == Some(value))
    }

    /// "If this field is not specified, a default prefix match on the '/' path is provided."
    fn path_match(&self) -> PathMatch {
        let everything = || PathMatch::PathPrefix("/".to_owned());
        self.path.clone().unwrap_or_else(everything)
    }
}

/// How specific a route is for a host: "the largest number of characters in a matching non-wildcard
/// hostname", then "in a matching hostname".
type Specificity = (usize, usize);

impl HttpRoute {
    /// Nothing if none of the hostnames is the request's.
    fn specificity(&self, hostname: &str) -> Option<Specificity> {
        if self.hostnames.is_empty() {
            return Some((0, 0));
        }
        let matching = self
            .hostnames
            .iter()
            .filter_map(|own| match own.strip_prefix('*') {
                None => (own == hostname).then_some((own.len(), own.len())),
                // "A suffix match": any number of labels, and at least one.
                Some(suffix) => {
                    let more = hostname.len() > suffix.len() && hostname.ends_with(suffix);
                    more.then_some((0, own.len()))
                }
            });
        matching.reduce(|(one, any), (other, more)| (one.max(other), any.max(more)))
    }
}

/// A match that holds for a request, with all that decides its place among the others.
struct Found<'a> {
    host: Specificity,
    route: &'a HttpRoute,
    rule: usize,
    matched: Match,
}

impl Found<'_> {
    fn goes_before(&self, other: &Self) -> bool {
        let order = match self.host.cmp(&other.host) {
            Ordering::Equal => {
                let by_path = self.matched.path_match().order(&other.matched.path_match());
                by_path.map(|order| order.then_with(|| self.rest().cmp(&other.rest())))
            }
            order => Some(order),
        };
        order == Some(Ordering::Greater)
    }

    /// "Method match; largest number of header matches; largest number of query param matches", "the oldest
    /// Route", "the Route appearing first in alphabetical order by '{namespace}/{name}'", "the FIRST
    /// matching rule (in list order)".
    fn rest(&self) -> impl Ord {
        let Match {
            method,
            headers,
            query,
            ..
        } = &self.matched;
        let HttpRoute {
            namespace,
            name,
            created,
            ..
        } = self.route;
        (
            (method.is_some(), headers.len(), query.len()),
            Reverse(created.clone()),
            Reverse(format!("{namespace}/{name}")),
            Reverse(self.rule),
        )
    }
}

/// What routes of one listener may answer, when the request's path and regular expressions are read so.
fn answers(routes: &[HttpRoute], request: &Request, read: (&str, Extent)) -> BTreeSet<String> {
    let hostname = request.hostname();
    let of_host: Vec<(Specificity, &HttpRoute)> = routes
        .iter()
        .filter_map(|route| Some((route.specificity(&hostname)?, route)))
        .collect();
    let mut found = Vec::new();
    for &(host, route) in &of_host {
        for (at, rule) in route.rules.iter().enumerate() {
            let held = rule
                .alternatives()
                .into_iter()
                .filter(|one| one.holds(request, read));
            found.extend(held.map(|matched| Found {
                host,
                route,
                rule: at,
                matched,
            }));
        }
    }
    let mut answers: BTreeSet<String> = first(&found, Found::goes_before)
        .filter_map(|found| Some(by(found.route.rules.get(found.rule)?.backend)))
        .collect();
    let narrowest = of_host.iter().map(|(host, _)| *host).max();
    if !found.iter().any(|found| Some(found.host) == narrowest) {
        answers.insert(NOT_FOUND.to_owned());
    }
    answers
}

impl Rule {
    /// "If no matches are specified, the default is a prefix path match on '/'."
    fn alternatives(&self) -> Vec<Match> {
        match self.matches.is_empty() {
            true => vec![Match::default()],
            false => self.matches.clone(),
        }
    }

    fn smaller(&self) -> Vec<Self> {
        let with = |matches| Self {
            matches,
            backend: self.backend,
        };
        let fewer = without_one(&self.matches);
        let less = each_smaller(&self.matches, Match::smaller);
        fewer.chain(less).map(with).collect()
    }
}

impl Match {
    fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        if self.path.is_some() {
            let path = None;
            smaller.push(Self {
                path,
                ..self.clone()
            });
        }
        if self.method.is_some() {
            let method = None;
            smaller.push(Self {
                method,
                ..self.clone()
            });
        }
        smaller.extend(without_one(&self.headers).map(|headers| Self {
            headers,
            ..self.clone()
        }));
        smaller.extend(without_one(&self.query).map(|query| Self {
            query,
            ..self.clone()
        }));
        smaller
    }

    fn yaml(&self) -> String {
        let list = |pairs: &mut dyn Iterator<Item = (&str, &str)>| {
            let pairs =
                pairs.map(|(name, value)| format!("{{name: {name}, value: {}}}", quoted(value)));
            pairs.collect::<Vec<_>>().join(", ")
        };
        let mut parts = Vec::new();
        if let Some(path) = &self.path {
            let (kind, value) = (path.kind(), quoted(path.value()));
            parts.push(format!("path: {{type: {kind}, value: {value}}}"));
        }
        if let Some(method) = self.method {
            parts.push(format!("method: {method}"));
        }
        if !self.headers.is_empty() {
            let headers = list(
                &mut self
                    .headers
                    .iter()
                    .map(|(name, value)| (*name, value.as_str())),
            );
            parts.push(format!("headers: [{headers}]"));
        }
        if !self.query.is_empty() {
            parts.push(format!(
                "queryParams: [{}]",
                list(&mut self.query.iter().copied())
            ));
        }
        format!("{{{}}}", parts.join(", "))
    }
}

impl Routes for HttpRoute {
    const API_VERSION: &'static str = "gateway.networking.k8s.io/v1";
    const KIND: &'static str = "HTTPRoute";

    fn name(&self) -> &str {
        &self.name
    }

    fn hosts(&self) -> Vec<&str> {
        self.hostnames.iter().map(String::as_str).collect()
    }

    fn paths(&self) -> Vec<&str> {
        let matches = self.rules.iter().flat_map(|rule| &rule.matches);
        let plain = matches.filter_map(|one| match &one.path {
            Some(PathMatch::RegularExpression(_)) | None => None,
            Some(path) => Some(path.value()),
        });
        plain.collect()
    }

    fn placed(&self, place: &Place) -> Self {
        Self {
            namespace: place.namespace.clone(),
            name: place.name(&self.name),
            hostnames: self.hostnames.iter().map(|host| place.host(host)).collect(),
            ..self.clone()
        }
    }

    fn created(self, created: String) -> Self {
        Self { created, ..self }
    }

    fn marked(&self) -> (Self, Request) {
        let headers = vec![(MARK, self.name.clone())];
        // A path that no regular expression of a set matches.
        let path = "/-".to_owned();
        let mut marked = self.clone();
        marked.rules.push(Rule {
            matches: vec![Match {
                path: Some(PathMatch::Exact(path.clone())),
                headers: headers.clone(),
                ..Match::default()
            }],
            backend: backend_of_mark(&self.name),
        });
        let host = self.hosts().last().map_or("mark", |host| host);
        let request = Request {
            headers,
            ..Request::get(&host.replacen('*', "mark", 1), &path)
        };
        (marked, request)
    }

    fn yaml(&self) -> String {
        let hostnames: Vec<_> = self.hostnames.iter().map(|host| quoted(host)).collect();
        let mut yaml = format!(
            "apiVersion: {}\nkind: {}\nmetadata: {{name: {}}}\nspec:\n  parentRefs: [{{name: reference}}]\n",
            Self::API_VERSION,
            Self::KIND,
            self.name
        );
        if !hostnames.is_empty() {
            let _ = writeln!(yaml, "  hostnames: [{}]", hostnames.join(", "));
        }
        yaml.push_str("  rules:\n");
        for rule in &self.rules {
            let backends = format!("backendRefs: [{{name: {}, port: 80}}]", rule.backend);
            if rule.matches.is_empty() {
                let _ = writeln!(yaml, "    - {backends}");
                continue;
            }
            yaml.push_str("    - matches:\n");
            for one in &rule.matches {
                let _ = writeln!(yaml, "        - {}", one.yaml());
            }
            let _ = writeln!(yaml, "      {backends}");
        }
        yaml
    }

    fn smaller(&self) -> Vec<Self> {
        let hosts = without_one(&self.hostnames).filter(|hostnames| !hostnames.is_empty());
        let hosts = hosts.map(|hostnames| Self {
            hostnames,
            ..self.clone()
        });
        let fewer = without_one(&self.rules).filter(|rules| !rules.is_empty());
        let less = each_smaller(&self.rules, Rule::smaller);
        let rules = fewer.chain(less).map(|rules| Self {
            rules,
            ..self.clone()
        });
        hosts.chain(rules).collect()
    }

    fn answers(set: &[Self], request: &Request) -> BTreeSet<String> {
        let readings = request.readings();
        let extents = [Extent::Whole, Extent::Part];
        let read = readings.iter();
        let read = read.flat_map(|path| extents.map(|extent| (path.as_str(), extent)));
        read.flat_map(|read| answers(set, request, read)).collect()
    }
}

#[cfg(test)]
mod tests;
