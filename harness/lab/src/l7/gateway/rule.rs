//! Rules of HTTPRoutes: what they match, what they do, and which comes first.
//!
//! Start from [`rules`]. A rule that Envoy cannot do as it was asked for is dropped and reported
//! (`UnsupportedValue`, `IncompatibleFilters`), never done by halves; a backend that does not exist
//! gets its share of requests, and answers them with 500.

use std::cmp::Reverse;

use gateway_api::httproutes::{
    HttpRoute, HttpRouteRules, HttpRouteRulesMatches, HttpRouteRulesMatchesHeadersType,
    HttpRouteRulesMatchesMethod, HttpRouteRulesMatchesPathType,
    HttpRouteRulesMatchesQueryParamsType,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::backend::{Backends, Reference};
use super::filter::{self, Filters, Place};
use super::input::Problem;
use crate::l7::envoy::route::{
    Action, Forward, HeaderMatch, PathMatch, Route, StringMatch, WeightedCluster, retry_unsent,
};

/// The cluster that is not there: its share of requests is answered with 500.
pub(super) const MISSING: &str = "invalid-backend";

/// What decides a match's place among all of a host's: the specification's criteria, in order.
///
/// | criterion | first |
/// | --- | --- |
/// | path | exact, then regular expression (ours to say), then prefix |
/// | path | the most characters |
/// | method | one is asked for |
/// | headers, then query parameters | the most of them |
/// | route | the oldest, then by `namespace/name` |
/// | rule, then match | the first |
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    path: Reverse<(u8, usize)>,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    /// The route's place by age and name.
    pub(super) age: usize,
    rule: usize,
    position: usize,
}

/// What a route comes to at one listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    /// Envoy's routes, with their ranks.
    pub(super) routes: Vec<(Rank, Route)>,
    /// How many rules there are.
    pub(super) total: usize,
    /// What is wrong with the rules that were dropped.
    pub(super) dropped: Vec<Problem>,
    /// The first reference that leads nowhere.
    pub(super) unresolved: Option<Problem>,
}

/// Translates a route for a listener; `age` is its place among all routes.
pub(super) fn rules(
    route: &HttpRoute,
    age: usize,
    place: Place,
    backends: &mut Backends<'_>,
) -> Rules {
    let everything = [HttpRouteRules::default()];
    let asked = route.spec.rules.as_deref().unwrap_or(&everything);
    let mut made = Rules {
        total: asked.len(),
        ..Rules::default()
    };
    for (index, rule) in asked.iter().enumerate() {
        let name = rule
            .name
            .clone()
            .unwrap_or_else(|| format!("rule {}", index + 1));
        let name = format!(
            "{}/{} {name}",
            route.namespace().unwrap_or_default(),
            route.name_any()
        );
        match one(route, rule, place, backends, &mut made.unresolved) {
            Ok(routes) => made
                .routes
                .extend(routes.into_iter().map(|(mut rank, mut found)| {
                    (rank.age, rank.rule) = (age, index);
                    found.name.clone_from(&name);
                    (rank, found)
                })),
            Err(problem) => made.dropped.push(Problem {
                message: format!("rules[{index}]: {}", problem.message),
                ..problem
            }),
        }
    }
    made
}

fn one(
    route: &HttpRoute,
    rule: &HttpRouteRules,
    place: Place,
    backends: &mut Backends<'_>,
    unresolved: &mut Option<Problem>,
) -> Result<Vec<(Rank, Route)>, Problem> {
    let everything = [HttpRouteRulesMatches::default()];
    let asked = match rule.matches.as_deref() {
        None | Some([]) => &everything,
        Some(matches) => matches,
    };
    let mut matches = asked
        .iter()
        .enumerate()
        .map(|(position, one)| matching(one, position))
        .collect::<Result<Vec<_>, _>>()?;
    let filters = filter::of_rule(rule)?;
    if filters.replaces_prefix()
        && matches
            .iter()
            .any(|(_, found)| !matches!(found.path, PathMatch::Elements(_)))
    {
        let message = "ReplacePrefixMatch goes with PathPrefix matches only";
        return Err(Problem::new("UnsupportedValue", message));
    }
    let action = action(route, rule, &filters, place, backends, unresolved)?;
    for (_, found) in &mut matches {
        found.action.clone_from(&action);
        found.changes.clone_from(&filters.changes);
        found.per_filter.clone_from(&filters.cors);
    }
    Ok(matches)
}

/// The conditions of a match, as a route that does nothing yet.
fn matching(asked: &HttpRouteRulesMatches, position: usize) -> Result<(Rank, Route), Problem> {
    let path = asked.path.clone().unwrap_or_default();
    let value = path.value.unwrap_or_else(|| "/".to_owned());
    let length = value.len();
    let (kind, path) = match path.r#type {
        Some(HttpRouteRulesMatchesPathType::Exact) => (2, PathMatch::Exact(plain(value)?)),
        Some(HttpRouteRulesMatchesPathType::RegularExpression) => {
            (1, PathMatch::Regex(pattern(value)?))
        }
        Some(HttpRouteRulesMatchesPathType::PathPrefix) | None => {
            (0, PathMatch::Elements(plain(value)?))
        }
    };
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for header in asked.headers.iter().flatten() {
        let name = header.name.to_ascii_lowercase();
        // "If multiple entries specify equivalent header names, only the first entry with an
        // equivalent name MUST be considered for a match."
        if headers.iter().any(|earlier| earlier.name == name) {
            continue;
        }
        let value = match header.r#type {
            Some(HttpRouteRulesMatchesHeadersType::RegularExpression) => {
                StringMatch::Regex(pattern(header.value.clone())?)
            }
            _ => StringMatch::Exact(header.value.clone()),
        };
        headers.push(HeaderMatch {
            name,
            value,
            invert: false,
        });
    }
    let mut query: Vec<(String, StringMatch)> = Vec::new();
    for parameter in asked.query_params.iter().flatten() {
        if query.iter().any(|(earlier, _)| *earlier == parameter.name) {
            continue;
        }
        let value = match parameter.r#type {
            Some(HttpRouteRulesMatchesQueryParamsType::RegularExpression) => {
                StringMatch::Regex(pattern(parameter.value.clone())?)
            }
            _ => StringMatch::Exact(parameter.value.clone()),
        };
        query.push((parameter.name.clone(), value));
    }
    let rank = Rank {
        path: Reverse((kind, length)),
        method: Reverse(asked.method.is_some()),
        headers: Reverse(headers.len()),
        query: Reverse(query.len()),
        age: 0,
        rule: 0,
        position,
    };
    headers.extend(asked.method.as_ref().map(|method| HeaderMatch {
        name: ":method".to_owned(),
        value: StringMatch::Exact(method_name(method).to_owned()),
        invert: false,
    }));
    let route = Route {
        path,
        headers,
        query,
        ..Route::default()
    };
    Ok((rank, route))
}

fn method_name(method: &HttpRouteRulesMatchesMethod) -> &'static str {
    match method {
        HttpRouteRulesMatchesMethod::Get => "GET",
        HttpRouteRulesMatchesMethod::Head => "HEAD",
        HttpRouteRulesMatchesMethod::Post => "POST",
        HttpRouteRulesMatchesMethod::Put => "PUT",
        HttpRouteRulesMatchesMethod::Delete => "DELETE",
        HttpRouteRulesMatchesMethod::Connect => "CONNECT",
        HttpRouteRulesMatchesMethod::Options => "OPTIONS",
        HttpRouteRulesMatchesMethod::Trace => "TRACE",
        HttpRouteRulesMatchesMethod::Patch => "PATCH",
    }
}

/// A path that Envoy takes; one that it does not would void the configuration of all routes.
fn plain(path: String) -> Result<String, Problem> {
    if path.starts_with('/') && !path.contains(['?', '#']) {
        return Ok(path);
    }
    let message = format!("path {path:?} must begin with '/' and contain neither '?' nor '#'");
    Err(Problem::new("UnsupportedValue", message))
}

/// A regular expression that Envoy takes: both are of RE2's family.
fn pattern(pattern: String) -> Result<String, Problem> {
    match regex::Regex::new(&pattern) {
        Ok(_) => Ok(pattern),
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default();
            let message = format!("{pattern:?} is no regular expression: {why}");
            Err(Problem::new("UnsupportedValue", message))
        }
    }
}

/// What is done with the requests of a rule.
fn action(
    route: &HttpRoute,
    rule: &HttpRouteRules,
    filters: &Filters,
    place: Place,
    backends: &mut Backends<'_>,
    unresolved: &mut Option<Problem>,
) -> Result<Action, Problem> {
    let mut mirrors = Vec::new();
    for (reference, share) in &filters.mirrors {
        match backends.resolve(route, Reference::from(reference)) {
            Ok(cluster) => mirrors.push((cluster, *share)),
            Err(problem) => {
                unresolved.get_or_insert(problem);
            }
        }
    }
    let clusters = weighted(route, rule, backends, unresolved)?;
    if let Some(problem) = &filters.unknown {
        // "Requests that would have been processed by that filter MUST receive a HTTP error
        // response."
        unresolved.get_or_insert_with(|| problem.clone());
        return Ok(refused());
    }
    if let Some(redirect) = &filters.redirect {
        return Ok(Action::Redirect(filter::redirect(redirect, place)));
    }
    if clusters.is_empty() {
        return Ok(refused());
    }
    let (timeout, retry) = timeouts(rule)?;
    Ok(Action::Forward(Forward {
        hash: Vec::new(),
        clusters,
        missing: Some("INTERNAL_SERVER_ERROR"),
        retry: Some(retry),
        timeout,
        host_rewrite: filters.host_rewrite.clone(),
        path_rewrite: filters.path_rewrite.clone(),
        mirrors,
    }))
}

/// "If all entries in BackendRefs are invalid, all traffic MUST receive a 500 status code": so it is
/// where there is none, or none with a weight.
fn refused() -> Action {
    Action::Answer {
        status: 500,
        body: String::new(),
    }
}

fn weighted(
    route: &HttpRoute,
    rule: &HttpRouteRules,
    backends: &mut Backends<'_>,
    unresolved: &mut Option<Problem>,
) -> Result<Vec<WeightedCluster>, Problem> {
    let mut clusters = Vec::new();
    for backend in rule.backend_refs.iter().flatten() {
        let mut found = WeightedCluster {
            weight: u32::try_from(backend.weight.unwrap_or(1)).unwrap_or_default(),
            ..WeightedCluster::default()
        };
        let filters = filter::of_backend(backend)?;
        match backends.resolve(route, Reference::from(backend)) {
            Ok(name) => found.name = name,
            Err(problem) => {
                unresolved.get_or_insert(problem);
                MISSING.clone_into(&mut found.name);
            }
        }
        if let Some(problem) = filters.unknown {
            unresolved.get_or_insert(problem);
            MISSING.clone_into(&mut found.name);
        }
        found.host_rewrite = filters.host_rewrite;
        found.headers = filters.changes;
        if found.weight > 0 {
            clusters.push(found);
        }
    }
    // Two shares of one cluster are one, unless their filters differ.
    let mut merged: Vec<WeightedCluster> = Vec::new();
    for cluster in clusters {
        let same = merged.iter_mut().find(|earlier| {
            earlier.name == cluster.name
                && earlier.headers == cluster.headers
                && earlier.host_rewrite == cluster.host_rewrite
        });
        match same {
            Some(earlier) => earlier.weight = earlier.weight.saturating_add(cluster.weight),
            None => merged.push(cluster),
        }
    }
    if merged.iter().all(|cluster| cluster.name == MISSING) {
        merged.clear();
    }
    Ok(merged)
}

/// The most that a request and one attempt of it may take (GEP-2257: `0s` is no limit).
fn timeouts(rule: &HttpRouteRules) -> Result<(Option<String>, Value), Problem> {
    let parse = |field: &str, text: Option<&String>| -> Result<Option<u128>, Problem> {
        let Some(text) = text else { return Ok(None) };
        let parsed: gateway_api::Duration = text.parse().map_err(|error| {
            Problem::new(
                "UnsupportedValue",
                format!("timeouts.{field} {text:?}: {error}"),
            )
        })?;
        Ok(Some(parsed.as_millis()).filter(|millis| *millis > 0))
    };
    let asked = rule.timeouts.clone().unwrap_or_default();
    let request = parse("request", asked.request.as_ref())?;
    let attempt = parse("backendRequest", asked.backend_request.as_ref())?;
    if let (Some(request), Some(attempt)) = (request, attempt)
        && attempt > request
    {
        let message = "timeouts.backendRequest must not be longer than timeouts.request";
        return Err(Problem::new("UnsupportedValue", message));
    }
    let seconds = |millis: u128| format!("{}.{:03}s", millis / 1000, millis % 1000);
    let mut retry = retry_unsent();
    if let Some(attempt) = attempt {
        retry["per_try_timeout"] = json!(seconds(attempt));
    }
    Ok((request.map(seconds), retry))
}
