//! Rules of HTTPRoutes: what they match, what they do, and which comes first.
//!
//! Start from [`rules`]. A rule that Envoy cannot do as it was asked for is dropped and reported
//! (`UnsupportedValue`, `IncompatibleFilters`), never done by halves; a backend that does not exist
//! gets its share of requests, and answers them with 500.

use std::cmp::Reverse;

use gateway_api::experimental::httproutes::{
    HttpRouteRules, HttpRouteRulesMatches, HttpRouteRulesMatchesHeadersType,
    HttpRouteRulesMatchesMethod, HttpRouteRulesMatchesPathType,
    HttpRouteRulesMatchesQueryParamsType, HttpRouteRulesRetry,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::backend::{Backends, Reference};
use super::filter::{self, Filters, Place};
use super::input::Problem;
use super::route::Kind;
use super::share::{self, Way};
use crate::l7::envoy::route::{
    Action, Forward, HeaderMatch, PathMatch, Route, StringMatch, retry_unsent,
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
    route: &super::route::Route,
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
    route: &super::route::Route,
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
    let matches = asked
        .iter()
        .enumerate()
        .map(|(position, one)| matching(one, position))
        .collect::<Result<Vec<_>, _>>()?;
    let filters = filter::of_rule(rule)?;
    let shares = share::shares(route, rule, place, backends, unresolved)?;
    let mut all = shares.iter().map(|share| &share.filters).chain([&filters]);
    if all.any(Filters::replaces_prefix)
        && matches
            .iter()
            .any(|(_, found)| !matches!(found.path, PathMatch::Elements(_)))
    {
        let message = "ReplacePrefixMatch goes with PathPrefix matches only";
        return Err(Problem::new("UnsupportedValue", message));
    }
    let mut routes = Vec::new();
    for way in share::ways(&filters, &shares) {
        let action = action(route, rule, &way, place, backends, unresolved)?;
        routes.extend(matches.iter().map(|(rank, matching)| {
            let found = Route {
                below: way.below,
                action: action.clone(),
                changes: way.filters.changes.clone(),
                per_filter: way.filters.cors.clone(),
                only_grpc: route.kind == Kind::Grpc,
                ..matching.clone()
            };
            (rank.clone(), found)
        }));
    }
    Ok(routes)
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

/// What is done with the requests of a rule that take this way.
fn action(
    route: &super::route::Route,
    rule: &HttpRouteRules,
    way: &Way,
    place: Place,
    backends: &mut Backends<'_>,
    unresolved: &mut Option<Problem>,
) -> Result<Action, Problem> {
    let filters = &way.filters;
    let mut mirrors = Vec::new();
    for (reference, share) in &filters.mirrors {
        match backends.resolve(route, place, Reference::from(reference)) {
            Ok(cluster) => mirrors.push((cluster, *share)),
            Err(problem) => {
                unresolved.get_or_insert(problem);
            }
        }
    }
    if let Some(problem) = &filters.unknown {
        // "Requests that would have been processed by that filter MUST receive a HTTP error
        // response."
        unresolved.get_or_insert_with(|| problem.clone());
        return Ok(refused(route.kind));
    }
    if let Some(redirect) = &filters.redirect {
        return Ok(Action::Redirect(filter::redirect(redirect, place)));
    }
    if way.clusters.is_empty() {
        return Ok(refused(route.kind));
    }
    let (timeout, retry) = timeouts(rule)?;
    Ok(Action::Forward(Forward {
        hash: Vec::new(),
        clusters: way.clusters.clone(),
        missing: Some(route.kind.refusal().1),
        retry: Some(retry),
        timeout,
        host_rewrite: filters.host_rewrite.clone(),
        path_rewrite: filters.path_rewrite.clone(),
        mirrors,
    }))
}

/// "If all entries in BackendRefs are invalid, all traffic MUST receive a 500 status code": so it is
/// where there is none, or none with a weight.
fn refused(kind: Kind) -> Action {
    Action::Answer {
        status: kind.refusal().0,
        body: String::new(),
    }
}

/// Attempts after the first (GEP-1731): where the answer has one of the codes, and where there was none,
/// since the connection failed or the attempt took too long.
fn retries(asked: &HttpRouteRulesRetry, backoff: Option<String>) -> Value {
    let mut retry = retry_unsent();
    retry["retry_on"] = json!("connect-failure,refused-stream,reset,retriable-status-codes");
    retry["retriable_status_codes"] = json!(asked.codes.clone().unwrap_or_default());
    retry["num_retries"] = json!(asked.attempts.unwrap_or(1).max(0));
    if let Some(backoff) = backoff {
        retry["retry_back_off"] = json!({ "base_interval": backoff });
    }
    retry
}

/// The most that a request and one attempt of it may take (GEP-2257: `0s` is no limit).
fn timeouts(rule: &HttpRouteRules) -> Result<(Option<String>, Value), Problem> {
    let parse = |field: &str, text: Option<&String>| -> Result<Option<u128>, Problem> {
        let Some(text) = text else { return Ok(None) };
        let parsed: gateway_api::Duration = text.parse().map_err(|error| {
            Problem::new("UnsupportedValue", format!("{field} {text:?}: {error}"))
        })?;
        Ok(Some(parsed.as_millis()).filter(|millis| *millis > 0))
    };
    let seconds = |millis: u128| format!("{}.{:03}s", millis / 1000, millis % 1000);
    let asked = rule.timeouts.clone().unwrap_or_default();
    let request = parse("timeouts.request", asked.request.as_ref())?;
    let attempt = parse("timeouts.backendRequest", asked.backend_request.as_ref())?;
    if let (Some(request), Some(attempt)) = (request, attempt)
        && attempt > request
    {
        let message = "timeouts.backendRequest must not be longer than timeouts.request";
        return Err(Problem::new("UnsupportedValue", message));
    }
    let mut retry = match &rule.retry {
        Some(asked) => retries(
            asked,
            parse("retry.backoff", asked.backoff.as_ref())?.map(seconds),
        ),
        None => retry_unsent(),
    };
    if let Some(attempt) = attempt {
        retry["per_try_timeout"] = json!(seconds(attempt));
    }
    Ok((request.map(seconds), retry))
}
