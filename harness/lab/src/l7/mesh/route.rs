//! A VirtualService's rules as Envoy's routes.
//!
//! Start from [`routes`]. Rules keep their order; each match of a rule is a route of its own. A
//! destination that no Service stands behind leads to a cluster that does not exist, which Envoy
//! answers with 503.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::destination::hash_policy;
use super::filters;
use super::registry::{Client, Mesh, cluster_name, resolve_host};
use crate::istio::virtual_service::{
    DerivePort, Destination, Headers, HttpMatchRequest, HttpRetry, HttpRoute, Percent,
    StringMatch as Matching, VirtualService,
};
use crate::l7::envoy::route::{
    Action, Forward, HeaderChanges, HeaderMatch, PathMatch, PathRewrite, Redirect, Route,
    StringMatch, WeightedCluster,
};
use crate::l7::envoy::typed;

/// What Istio retries unless told otherwise.
const RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// The routes of a VirtualService for requests to a port.
pub(super) fn routes(
    mesh: &Mesh,
    client: &Client,
    object: &VirtualService,
    port: u16,
) -> Vec<Route> {
    let namespace = object.namespace().unwrap_or_default();
    let context = Context {
        mesh,
        client,
        namespace: &namespace,
        port,
    };
    object
        .spec
        .http
        .iter()
        .flatten()
        .flat_map(|rule| context.rule(rule))
        .collect()
}

/// The clusters that a VirtualService sends a Service's connections to, in Envoy's form; none if
/// it says nothing of them.
pub(super) fn tcp_targets(mesh: &Mesh, client: &Client, host: &str, port: u16) -> Vec<Value> {
    let Some(object) = mesh.virtual_service(host, client) else {
        return Vec::new();
    };
    let namespace = object.namespace().unwrap_or_default();
    let context = Context {
        mesh,
        client,
        namespace: &namespace,
        port,
    };
    let rule = object.spec.tcp.iter().flatten().find(|rule| {
        rule.r#match.as_ref().is_none_or(|any| {
            any.iter().any(|one| {
                one.port.is_none_or(|wanted| wanted == u32::from(port))
                    && one
                        .source_labels
                        .iter()
                        .flatten()
                        .all(|(key, value)| client.labels.get(key) == Some(value))
            })
        })
    });
    let destinations = rule
        .into_iter()
        .flat_map(|rule| rule.route.iter().flatten());
    let weighted: Vec<_> = destinations
        .map(|entry| (&entry.destination, entry.weight))
        .collect();
    weights(&weighted)
        .into_iter()
        .map(|(destination, weight)| json!({ "name": context.cluster(destination), "weight": weight }))
        .collect()
}

/// Retries where a request did not reach the backend, or it asked for another try.
pub(super) fn default_retries() -> Value {
    retry_policy(2, RETRY_ON, &[503], None)
}

fn retry_policy(attempts: i32, retry_on: &str, statuses: &[u16], per_try: Option<&str>) -> Value {
    let mut policy = json!({
        "num_retries": attempts,
        "retry_on": retry_on,
        "host_selection_retry_max_attempts": 5,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate", json!({})),
        }],
    });
    if !statuses.is_empty() {
        policy["retriable_status_codes"] = json!(statuses);
    }
    if let Some(timeout) = per_try {
        policy["per_try_timeout"] = json!(duration(timeout));
    }
    policy
}

/// A duration of Istio's (`1h`, `250ms`, `1m30s`) in the form that protobuf's JSON takes. What is no
/// duration is no limit.
pub(super) fn duration(text: &str) -> String {
    let Ok(parsed) = text.parse::<jiff::SignedDuration>() else {
        return "0s".to_owned();
    };
    format!("{}.{:09}s", parsed.as_secs(), parsed.subsec_nanos())
}

/// Destinations with their weights: a sole one has everything, and one of weight 0 nothing.
fn weights<'a>(destinations: &[(&'a Destination, Option<i32>)]) -> Vec<(&'a Destination, u32)> {
    if let [(only, _)] = destinations {
        return vec![(only, 1)];
    }
    destinations
        .iter()
        .map(|(destination, weight)| (*destination, weight.unwrap_or(0).max(0).unsigned_abs()))
        .filter(|(_, weight)| *weight > 0)
        .collect()
}

/// Whose rule is translated, and for whom.
struct Context<'a> {
    mesh: &'a Mesh,
    client: &'a Client,
    namespace: &'a str,
    port: u16,
}

impl Context<'_> {
    fn cluster(&self, destination: &Destination) -> String {
        let host = resolve_host(&destination.host, self.namespace);
        let host = self.mesh.resolved(host);
        let named = destination.port.as_ref().map(|port| port.number);
        let port = self.mesh.destination_port(&host, named, self.port);
        cluster_name(port, destination.subset.as_deref(), &host)
    }

    fn rule(&self, rule: &HttpRoute) -> Vec<Route> {
        match rule.r#match.as_deref() {
            None | Some([]) => vec![self.route(rule, &HttpMatchRequest::default())],
            Some(matches) => matches
                .iter()
                .filter(|matching| self.concerns(matching))
                .map(|matching| self.route(rule, matching))
                .collect(),
        }
    }

    /// Whether a match can hold for this client and port at all.
    fn concerns(&self, matching: &HttpMatchRequest) -> bool {
        let labels = matching.source_labels.iter().flatten();
        matching
            .port
            .is_none_or(|port| port == u32::from(self.port))
            && matching
                .source_namespace
                .as_ref()
                .is_none_or(|name| *name == self.client.namespace)
            && matching
                .gateways
                .as_ref()
                .is_none_or(|names| names.iter().any(|name| name == "mesh"))
            && labels
                .into_iter()
                .all(|(key, value)| self.client.labels.get(key) == Some(value))
    }

    fn route(&self, rule: &HttpRoute, matching: &HttpMatchRequest) -> Route {
        let mut headers = Vec::new();
        let mut condition = |name: &str, value: &Matching, invert| {
            headers.push(HeaderMatch {
                name: name.to_owned(),
                value: string_match(value),
                invert,
            });
        };
        for (name, value) in [
            (":method", &matching.method),
            (":authority", &matching.authority),
            (":scheme", &matching.scheme),
        ] {
            if let Some(value) = value {
                condition(name, value, false);
            }
        }
        for (name, value) in matching.headers.iter().flatten() {
            condition(name, value, false);
        }
        let whatever = Matching::default();
        for (name, value) in matching.without_headers.iter().flatten() {
            // No value at all, then: a header that is there has one.
            let any = value.regex.as_deref() == Some(".*");
            condition(name, if any { &whatever } else { value }, true);
        }
        let query = matching.query_params.iter().flatten();
        let mut changes = header_changes(rule.headers.as_ref());
        take_host(&mut changes);
        Route {
            name: rule
                .name
                .clone()
                .or_else(|| matching.name.clone())
                .unwrap_or_default(),
            path: path_match(matching.uri.as_ref()),
            headers,
            query: query
                .map(|(name, value)| (name.clone(), string_match(value)))
                .collect(),
            below: None,
            only_grpc: false,
            ignore_case: matching.ignore_uri_case.unwrap_or_default(),
            action: self.action(rule, matching),
            changes,
            per_filter: filters::of_rule(rule),
        }
    }

    fn action(&self, rule: &HttpRoute, matching: &HttpMatchRequest) -> Action {
        if let Some(redirect) = &rule.redirect {
            return Action::Redirect(Redirect {
                scheme: redirect.scheme.clone(),
                host: redirect.authority.clone(),
                port: match (redirect.port, redirect.derive_port) {
                    (Some(port), _) => u16::try_from(port).ok(),
                    (None, Some(DerivePort::FromRequestPort)) => Some(self.port),
                    (None, Some(DerivePort::FromProtocolDefault)) => {
                        let secure = redirect.scheme.as_deref() == Some("https");
                        Some(if secure { 443 } else { 80 })
                    }
                    (None, None) => None,
                },
                path: redirect.uri.clone().map(PathRewrite::Full),
                status: redirect
                    .redirect_code
                    .and_then(|code| u16::try_from(code).ok())
                    .unwrap_or(301),
            });
        }
        if let Some(answer) = &rule.direct_response {
            return Action::Answer {
                status: u16::try_from(answer.status).unwrap_or(500),
                body: answer
                    .body
                    .as_ref()
                    .and_then(|body| body.string.clone())
                    .unwrap_or_default(),
            };
        }
        let destinations: Vec<_> = rule.route.iter().flatten().collect();
        let pairs: Vec<_> = destinations
            .iter()
            .map(|entry| (&entry.destination, entry.weight))
            .collect();
        let clusters = weights(&pairs)
            .into_iter()
            .map(|(destination, weight)| {
                let entry = destinations
                    .iter()
                    .find(|entry| std::ptr::eq(&entry.destination, destination));
                let mut changes = header_changes(entry.and_then(|entry| entry.headers.as_ref()));
                let host_rewrite = take_host(&mut changes);
                WeightedCluster {
                    name: self.cluster(destination),
                    weight,
                    headers: changes,
                    host_rewrite,
                }
            })
            .collect::<Vec<_>>();
        if clusters.is_empty() {
            return Action::Answer {
                status: 503,
                body: String::new(),
            };
        }
        let everything = Percent { value: 100.0 };
        let share = |percent: Option<&Percent>| per_ten_thousand(percent.unwrap_or(&everything));
        let one = rule
            .mirror
            .iter()
            .map(|to| (self.cluster(to), share(rule.mirror_percentage.as_ref())));
        let more = rule.mirrors.iter().flatten();
        let more = more.map(|policy| {
            (
                self.cluster(&policy.destination),
                share(policy.percentage.as_ref()),
            )
        });
        let rewrite = rule.rewrite.as_ref();
        let path_rewrite =
            rewrite.and_then(|rewrite| match (&rewrite.uri_regex_rewrite, &rewrite.uri) {
                (Some(regex), _) => Some(PathRewrite::Regex(
                    regex.r#match.clone(),
                    regex.rewrite.clone(),
                )),
                // "The rewritten path replaces the path, or the prefix that was matched."
                (None, Some(uri)) => Some(
                    match matching.uri.as_ref().and_then(|uri| uri.prefix.as_ref()) {
                        Some(prefix) => PathRewrite::Regex(
                            format!("^{}", regex::escape(prefix)),
                            uri.replace('\\', r"\\"),
                        ),
                        None => PathRewrite::Full(uri.clone()),
                    },
                ),
                (None, None) => None,
            });
        let mut from_headers = header_changes(rule.headers.as_ref());
        let mut hash: Vec<Value> = Vec::new();
        for destination in pairs.iter().map(|(destination, _)| destination) {
            let host = resolve_host(&destination.host, self.namespace);
            let subset = destination.subset.as_deref();
            let found = hash_policy(self.mesh, self.client, &host, subset);
            hash.extend(found.filter(|found| !hash.contains(found)));
        }
        Action::Forward(Forward {
            hash,
            missing: None,
            clusters,
            retry: Some(rule.retries.as_ref().map_or_else(default_retries, retries)),
            timeout: rule.timeout.as_deref().map(duration),
            host_rewrite: rewrite
                .and_then(|rewrite| rewrite.authority.clone())
                .or_else(|| take_host(&mut from_headers)),
            path_rewrite,
            mirrors: one.chain(more).collect(),
        })
    }
}

fn retries(retries: &HttpRetry) -> Value {
    let asked = retries.retry_on.as_deref().filter(|on| !on.is_empty());
    let (conditions, statuses): (Vec<&str>, Vec<&str>) = asked
        .unwrap_or(RETRY_ON)
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .partition(|part| part.parse::<u16>().is_err());
    let mut statuses: Vec<u16> = statuses
        .iter()
        .filter_map(|status| status.parse().ok())
        .collect();
    let mut conditions = conditions.join(",");
    if asked.is_none() {
        statuses.push(503);
    } else if !statuses.is_empty() && !conditions.contains("retriable-status-codes") {
        conditions = format!("{conditions},retriable-status-codes");
    }
    let conditions = conditions.trim_start_matches(',');
    retry_policy(
        retries.attempts,
        conditions,
        &statuses,
        retries.per_try_timeout.as_deref(),
    )
}

pub(super) fn string_match(value: &Matching) -> StringMatch {
    match (&value.exact, &value.prefix, &value.regex) {
        (Some(exact), _, _) => StringMatch::Exact(exact.clone()),
        (None, Some(prefix), _) => StringMatch::Prefix(prefix.clone()),
        (None, None, Some(regex)) => StringMatch::Regex(regex.clone()),
        (None, None, None) => StringMatch::Present,
    }
}

fn path_match(uri: Option<&Matching>) -> PathMatch {
    match uri.map(string_match) {
        None | Some(StringMatch::Present) => PathMatch::Any,
        Some(StringMatch::Exact(path)) => PathMatch::Exact(path),
        Some(StringMatch::Prefix(path)) => PathMatch::Prefix(path),
        Some(StringMatch::Regex(regex)) => PathMatch::Regex(regex),
    }
}

fn header_changes(headers: Option<&Headers>) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    let Some(headers) = headers else {
        return changes;
    };
    if let Some(request) = &headers.request {
        let set = request
            .set
            .iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone(), false));
        let add = request
            .add
            .iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone(), true));
        changes.request = set.chain(add).collect();
        changes.request_remove = request.remove.clone().unwrap_or_default();
    }
    if let Some(response) = &headers.response {
        let set = response
            .set
            .iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone(), false));
        let add = response
            .add
            .iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone(), true));
        changes.response = set.chain(add).collect();
        changes.response_remove = response.remove.clone().unwrap_or_default();
    }
    changes
}

/// Envoy does not change the host through a header; it has a field of its own.
fn take_host(changes: &mut HeaderChanges) -> Option<String> {
    let is_host = |name: &str| name.eq_ignore_ascii_case("host") || name == ":authority";
    let found = changes
        .request
        .iter()
        .position(|(name, _, _)| is_host(name))?;
    Some(changes.request.remove(found).1)
}

pub(super) fn per_ten_thousand(percent: &Percent) -> u32 {
    // Within 0..=10000 by the clamp, so nothing is cut off.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped"
    )]
    let share = (percent.value.clamp(0.0, 100.0) * 100.0).round() as u32;
    share
}
