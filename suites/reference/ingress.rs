//! Ingress (networking.k8s.io/v1), from the text of the API and of kubernetes.io/docs/concepts/services-networking/ingress.
//!
//! Start from [`answers`]. What neither says, and so may be either way: which of two equal paths is taken;
//! whether a request of a host that rules name, but none of whose paths it has, is for the rules of a wider
//! host, or for nobody; whether a Prefix that is longer than an Exact path by its last slash alone goes
//! before it. `ImplementationSpecific` means nothing here.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::path::covers;
use super::shrink::{each_smaller, without_one};
use super::{NOT_FOUND, Place, Request, Routes, backend_of_mark, by, first, quoted};

/// An Ingress.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ingress {
    pub(super) name: String,
    pub(super) rules: Vec<Rule>,
    pub(super) default_backend: Option<&'static str>,
}

/// A rule: the paths of a host, or of every host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) host: Option<String>,
    pub(super) paths: Vec<Path>,
}

/// A path and who serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) kind: PathType,
    pub(super) path: String,
    pub(super) backend: &'static str,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathType {
    /// "Matches the URL path exactly."
    Exact,
    /// "Matches based on a URL path prefix split by '/'", element by element.
    Prefix,
}

/// How narrow a host is: a precise one goes before a wildcard, and either before none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Every,
    Wildcard,
    Precise,
}

/// A path that a request has, with the host of its rule.
struct Found<'a> {
    host: Host,
    path: &'a Path,
}

impl Found<'_> {
    fn goes_before(&self, other: &Self) -> bool {
        self.host
            .cmp(&other.host)
            .then_with(|| self.path.order(other.path))
            == Ordering::Greater
    }
}

impl Path {
    fn matches(&self, path: &str) -> bool {
        match self.kind {
            PathType::Exact => self.path == path,
            PathType::Prefix => covers(&self.path, path),
        }
    }

    /// "Precedence will be given first to the longest matching path. If two paths are still equally
    /// matched, precedence will be given to paths with an exact path type over prefix path type."
    fn order(&self, other: &Self) -> Ordering {
        let length = self.path.len().cmp(&other.path.len());
        match (self.kind, other.kind) {
            (PathType::Exact, PathType::Prefix) if length == Ordering::Less => Ordering::Equal,
            (PathType::Prefix, PathType::Exact) if length == Ordering::Greater => Ordering::Equal,
            (PathType::Exact, PathType::Prefix) => Ordering::Greater,
            (PathType::Prefix, PathType::Exact) => Ordering::Less,
            _ => length,
        }
    }
}

impl Rule {
    /// "If host is precise, the request matches this rule if the http host header is equal to Host. If
    /// host is a wildcard, […] if the http host header is equal to the suffix (removing the first label)."
    fn covers(&self, hostname: &str) -> Option<Host> {
        let Some(host) = &self.host else {
            return Some(Host::Every);
        };
        match host.strip_prefix("*.") {
            None => (host == hostname).then_some(Host::Precise),
            Some(suffix) => {
                let (_, rest) = hostname.split_once('.')?;
                (rest == suffix).then_some(Host::Wildcard)
            }
        }
    }
}

/// What Ingresses of one class may answer.
fn answers(ingresses: &[Ingress], hostname: &str, path: &str) -> BTreeSet<String> {
    let rules = ingresses.iter().flat_map(|ingress| &ingress.rules);
    let of_host: Vec<(Host, &Rule)> = rules
        .filter_map(|rule| Some((rule.covers(hostname)?, rule)))
        .collect();
    let found: Vec<Found<'_>> = of_host
        .iter()
        .flat_map(|(host, rule)| rule.paths.iter().map(|path| Found { host: *host, path }))
        .filter(|found| found.path.matches(path))
        .collect();
    let mut answers: BTreeSet<String> = first(&found, Found::goes_before)
        .map(|found| by(found.path.backend))
        .collect();
    let narrowest = of_host.iter().map(|(host, _)| *host).max();
    if !found.iter().any(|found| Some(found.host) == narrowest) {
        answers.extend(unmatched(ingresses));
    }
    answers
}

/// "If none of the hosts or paths match the HTTP request in the Ingress objects, the traffic is routed to
/// your default backend." Of several, any may be it.
fn unmatched(ingresses: &[Ingress]) -> BTreeSet<String> {
    let defaults = ingresses
        .iter()
        .filter_map(|ingress| ingress.default_backend);
    let mut answers: BTreeSet<String> = defaults.map(by).collect();
    if answers.is_empty() {
        answers.insert(NOT_FOUND.to_owned());
    }
    answers
}

impl Routes for Ingress {
    const API_VERSION: &'static str = "networking.k8s.io/v1";
    const KIND: &'static str = "Ingress";

    fn name(&self) -> &str {
        &self.name
    }

    fn hosts(&self) -> Vec<&str> {
        let hosts = self.rules.iter().filter_map(|rule| rule.host.as_deref());
        hosts.collect()
    }

    fn paths(&self) -> Vec<&str> {
        let paths = self.rules.iter().flat_map(|rule| &rule.paths);
        paths.map(|path| path.path.as_str()).collect()
    }

    fn placed(&self, place: &Place) -> Self {
        let rules = self.rules.iter().map(|rule| Rule {
            host: rule.host.as_deref().map(|host| place.host(host)),
            ..rule.clone()
        });
        Self {
            name: place.name(&self.name),
            rules: rules.collect(),
            ..self.clone()
        }
    }

    fn created(self, _: String) -> Self {
        self
    }

    fn marked(&self) -> (Self, Request) {
        let mut marked = self.clone();
        // Of more labels than any wildcard of a set covers.
        let last = self.hosts().last().map_or("", |host| host);
        let host = format!("{}.marks.{}", self.name, last.trim_start_matches("*."));
        marked.rules.push(Rule {
            host: Some(host.clone()),
            paths: vec![Path {
                kind: PathType::Exact,
                path: "/".to_owned(),
                backend: backend_of_mark(&self.name),
            }],
        });
        (marked, Request::get(&host, "/"))
    }

    fn yaml(&self) -> String {
        let mut yaml = format!(
            "apiVersion: {}\nkind: {}\nmetadata: {{name: {}}}\nspec:\n",
            Self::API_VERSION,
            Self::KIND,
            self.name
        );
        if let Some(name) = self.default_backend {
            let _ = writeln!(yaml, "  defaultBackend: {}", backend(name));
        }
        yaml.push_str("  rules:\n");
        for rule in &self.rules {
            match &rule.host {
                Some(host) => _ = writeln!(yaml, "    - host: {}\n      http:", quoted(host)),
                None => yaml.push_str("    - http:\n"),
            }
            yaml.push_str("        paths:\n");
            for Path {
                kind,
                path,
                backend: name,
            } in &rule.paths
            {
                let (path, backend) = (quoted(path), backend(name));
                let _ = writeln!(
                    yaml,
                    "          - {{path: {path}, pathType: {kind:?}, backend: {backend}}}"
                );
            }
        }
        yaml
    }

    fn smaller(&self) -> Vec<Self> {
        let with = |rules| Self {
            rules,
            ..self.clone()
        };
        let fewer = without_one(&self.rules).filter(|rules| !rules.is_empty());
        let less = each_smaller(&self.rules, |rule| {
            let with = |paths| Rule {
                paths,
                ..rule.clone()
            };
            let fewer = without_one(&rule.paths).filter(|paths| !paths.is_empty());
            fewer.map(with).collect()
        });
        fewer.chain(less).map(with).collect()
    }

    fn answers(set: &[Self], request: &Request) -> BTreeSet<String> {
        let readings = request.readings();
        let hostname = request.hostname();
        let answers = readings
            .iter()
            .flat_map(|path| answers(set, &hostname, path));
        answers.collect()
    }
}

fn backend(name: &str) -> String {
    format!("{{service: {{name: {name}, port: {{number: 80}}}}}}")
}

#[cfg(test)]
mod tests;
