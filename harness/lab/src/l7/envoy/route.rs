//! Virtual hosts and routes, in the order in which Envoy tries them.

use serde_json::{Value, json};

/// `envoy.config.route.v3.RouteConfiguration`. Hosts match without their port and in any case.
pub(crate) fn route_configuration(name: &str, hosts: &[VirtualHost]) -> Value {
    route_configuration_of(name, hosts.iter().map(VirtualHost::to_value).collect())
}

/// The same of `envoy.config.route.v3.VirtualHost`s.
pub(crate) fn route_configuration_of(name: &str, hosts: Vec<Value>) -> Value {
    json!({
        "name": name,
        "virtual_hosts": hosts,
        // A route to a cluster that does not exist answers 503; it does not void the others.
        "validate_clusters": false,
        "ignore_port_in_host_matching": true,
    })
}

/// The routes of some domains.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct VirtualHost {
    /// Its name, unique in the configuration.
    pub(crate) name: String,
    /// Domains: exact, `*.suffix` or `*`.
    pub(crate) domains: Vec<String>,
    /// Its routes; the first that matches is taken.
    pub(crate) routes: Vec<Route>,
}

impl VirtualHost {
    /// `envoy.config.route.v3.VirtualHost`
    pub(crate) fn to_value(&self) -> Value {
        json!({
            "name": self.name,
            "domains": self.domains,
            "routes": self.routes.iter().map(Route::to_value).collect::<Vec<_>>(),
        })
    }
}

/// How a path is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathMatch {
    /// Every path.
    Any,
    /// The path as a whole.
    Exact(String),
    /// Element by element: `/foo` matches `/foo` and `/foo/bar`, not `/foobar`.
    Elements(String),
    /// By its first characters.
    Prefix(String),
    /// By a regular expression over the whole path.
    Regex(String),
}

/// How a string is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StringMatch {
    /// As a whole.
    Exact(String),
    /// By its first characters.
    Prefix(String),
    /// By a regular expression over the whole.
    Regex(String),
    /// Any value, so long as there is one.
    Present,
}

impl StringMatch {
    /// `envoy.type.matcher.v3.StringMatcher`
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Exact(value) => json!({ "exact": value }),
            Self::Prefix(value) => json!({ "prefix": value }),
            Self::Regex(value) => json!({ "safe_regex": { "regex": value } }),
            Self::Present => json!({ "safe_regex": { "regex": ".*" } }),
        }
    }
}

/// A condition on a header; pseudo-headers have a colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderMatch {
    /// The header.
    pub(crate) name: String,
    /// What its value must be.
    pub(crate) value: StringMatch,
    /// Whether the condition is to fail.
    pub(crate) invert: bool,
}

impl HeaderMatch {
    fn to_value(&self) -> Value {
        let mut value = match &self.value {
            StringMatch::Present => json!({ "name": self.name, "present_match": true }),
            other => json!({ "name": self.name, "string_match": other.to_value() }),
        };
        if self.invert {
            value["invert_match"] = json!(true);
            // A header that is not there does not have the value either.
            if self.value != StringMatch::Present {
                value["treat_missing_header_as_empty"] = json!(true);
            }
        }
        value
    }
}

/// One of the backends of a route.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WeightedCluster {
    /// The cluster.
    pub(crate) name: String,
    /// Its share.
    pub(crate) weight: u32,
    /// Changes to headers for this share only.
    pub(crate) headers: HeaderChanges,
    /// The Host header it is sent with.
    pub(crate) host_rewrite: Option<String>,
}

/// Changes to the headers of requests and responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeaderChanges {
    /// Request headers: name, value, and whether the value is added to what is there.
    pub(crate) request: Vec<(String, String, bool)>,
    /// Request headers to remove.
    pub(crate) request_remove: Vec<String>,
    /// Response headers.
    pub(crate) response: Vec<(String, String, bool)>,
    /// Response headers to remove.
    pub(crate) response_remove: Vec<String>,
}

impl HeaderChanges {
    fn apply(&self, to: &mut Value) {
        let options = |headers: &[(String, String, bool)]| {
            headers
                .iter()
                .map(|(name, value, add)| {
                    let action = if *add {
                        "APPEND_IF_EXISTS_OR_ADD"
                    } else {
                        "OVERWRITE_IF_EXISTS_OR_ADD"
                    };
                    // A percent sign begins a format command of Envoy's; doubled, it is itself.
                    let value = value.replace('%', "%%");
                    json!({
                        "header": { "key": name, "value": value },
                        "append_action": action,
                        "keep_empty_value": true,
                    })
                })
                .collect::<Vec<_>>()
        };
        let mut set = |field: &str, value: Value| {
            if value.as_array().is_some_and(|list| !list.is_empty()) {
                to[field] = value;
            }
        };
        set("request_headers_to_add", json!(options(&self.request)));
        set("request_headers_to_remove", json!(self.request_remove));
        set("response_headers_to_add", json!(options(&self.response)));
        set("response_headers_to_remove", json!(self.response_remove));
    }
}

/// How a redirect's path follows from the request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathRewrite {
    /// The whole path becomes this.
    Full(String),
    /// The prefix that matched becomes this.
    Prefix(String),
    /// The regular expression's matches become this.
    Regex(String, String),
}

/// Where a redirect sends the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// The scheme, if it changes.
    pub(crate) scheme: Option<String>,
    /// The host, if it changes.
    pub(crate) host: Option<String>,
    /// The port, if it changes.
    pub(crate) port: Option<u16>,
    /// The path, if it changes.
    pub(crate) path: Option<PathRewrite>,
    /// The status: 301, 302, 303, 307 or 308.
    pub(crate) status: u16,
}

/// What happens to a request that a route takes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// It goes to clusters by weight.
    Forward(Forward),
    /// It is redirected.
    Redirect(Redirect),
    /// It is answered here.
    Answer {
        /// The status.
        status: u16,
        /// The body.
        body: String,
    },
}

/// How a request is forwarded.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Forward {
    /// The clusters, by weight.
    pub(crate) clusters: Vec<WeightedCluster>,
    /// What a cluster that does not exist answers with, in Envoy's words; 503 unless said.
    pub(crate) missing: Option<&'static str>,
    /// `retry_policy`
    pub(crate) retry: Option<Value>,
    /// The most that the whole request may take; none is no limit.
    pub(crate) timeout: Option<String>,
    /// The Host header it is sent with.
    pub(crate) host_rewrite: Option<String>,
    /// The path it is sent with.
    pub(crate) path_rewrite: Option<PathRewrite>,
    /// Clusters that get a copy, and per ten thousand of how many requests.
    pub(crate) mirrors: Vec<(String, u32)>,
    /// `hash_policy`, for clusters whose endpoints are chosen by hash.
    pub(crate) hash: Vec<Value>,
}

/// What Envoy draws from.
pub(crate) const MILLION: u32 = 1_000_000;

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Route {
    /// A name for people.
    pub(crate) name: String,
    /// The path.
    pub(crate) path: PathMatch,
    /// Conditions on headers, all of which must hold.
    pub(crate) headers: Vec<HeaderMatch>,
    /// Conditions on query parameters, all of which must hold.
    pub(crate) query: Vec<(String, StringMatch)>,
    /// Whether the path is matched in any case.
    pub(crate) ignore_case: bool,
    /// Whether it is only for requests for which Envoy draws less than this, of [`MILLION`]: once a
    /// request, whatever the route.
    pub(crate) below: Option<u32>,
    /// Whether it is for gRPC requests only.
    pub(crate) only_grpc: bool,
    /// What is done.
    pub(crate) action: Action,
    /// Changes to headers.
    pub(crate) changes: HeaderChanges,
    /// Configuration of other filters for this route.
    pub(crate) per_filter: Option<Value>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            name: String::new(),
            path: PathMatch::Any,
            headers: Vec::new(),
            query: Vec::new(),
            ignore_case: false,
            below: None,
            only_grpc: false,
            action: Action::Answer {
                status: 404,
                body: String::new(),
            },
            changes: HeaderChanges::default(),
            per_filter: None,
        }
    }
}

impl Route {
    /// `envoy.config.route.v3.Route`
    pub(crate) fn to_value(&self) -> Value {
        let mut route = json!({ "match": self.match_value() });
        if !self.name.is_empty() {
            route["name"] = json!(self.name);
        }
        match &self.action {
            Action::Forward(forward) => route["route"] = self.forward_value(forward),
            Action::Redirect(redirect) => route["redirect"] = self.redirect_value(redirect),
            Action::Answer { status, body } => {
                route["direct_response"] = json!({ "status": status });
                if !body.is_empty() {
                    route["direct_response"]["body"] = json!({ "inline_string": body });
                }
            }
        }
        self.changes.apply(&mut route);
        if let Some(per_filter) = &self.per_filter {
            route["typed_per_filter_config"] = per_filter.clone();
        }
        route
    }

    fn match_value(&self) -> Value {
        let mut matching = match &self.path {
            PathMatch::Any => json!({ "prefix": "/" }),
            PathMatch::Exact(path) => json!({ "path": path }),
            PathMatch::Prefix(path) => json!({ "prefix": path }),
            PathMatch::Regex(regex) => json!({ "safe_regex": { "regex": regex } }),
            PathMatch::Elements(path) => match path.trim_end_matches('/') {
                "" => json!({ "prefix": "/" }),
                path => json!({ "path_separated_prefix": path }),
            },
        };
        if self.ignore_case {
            matching["case_sensitive"] = json!(false);
        }
        if let Some(below) = self.below {
            matching["runtime_fraction"] =
                json!({ "default_value": { "numerator": below, "denominator": "MILLION" } });
        }
        if self.only_grpc {
            matching["grpc"] = json!({});
        }
        if !self.headers.is_empty() {
            matching["headers"] = self.headers.iter().map(HeaderMatch::to_value).collect();
        }
        if !self.query.is_empty() {
            matching["query_parameters"] = self
                .query
                .iter()
                .map(|(name, value)| match value {
                    StringMatch::Present => json!({ "name": name, "present_match": true }),
                    value => json!({ "name": name, "string_match": value.to_value() }),
                })
                .collect();
        }
        matching
    }

    fn forward_value(&self, forward: &Forward) -> Value {
        let mut action = json!({ "timeout": forward.timeout.as_deref().unwrap_or("0s") });
        match forward.clusters.as_slice() {
            [only] if only.headers == HeaderChanges::default() && only.host_rewrite.is_none() => {
                action["cluster"] = json!(only.name);
            }
            clusters => {
                let clusters: Vec<Value> = clusters.iter().map(weighted_cluster).collect();
                action["weighted_clusters"] = json!({ "clusters": clusters });
            }
        }
        if let Some(missing) = forward.missing {
            action["cluster_not_found_response_code"] = json!(missing);
        }
        if let Some(retry) = &forward.retry {
            action["retry_policy"] = retry.clone();
        }
        if !forward.hash.is_empty() {
            action["hash_policy"] = json!(forward.hash);
        }
        if let Some(host) = &forward.host_rewrite {
            action["host_rewrite_literal"] = json!(host);
        }
        if let Some(rewrite) = &forward.path_rewrite {
            rewrite_path(&mut action, rewrite, &self.path);
        }
        if !forward.mirrors.is_empty() {
            action["request_mirror_policies"] = forward
                .mirrors
                .iter()
                .map(|(cluster, share)| {
                    json!({
                        "cluster": cluster,
                        "runtime_fraction": { "default_value": { "numerator": share, "denominator": "TEN_THOUSAND" } },
                        "trace_sampled": false,
                    })
                })
                .collect();
        }
        action
    }

    fn redirect_value(&self, redirect: &Redirect) -> Value {
        let code = match redirect.status {
            301 => "MOVED_PERMANENTLY",
            303 => "SEE_OTHER",
            307 => "TEMPORARY_REDIRECT",
            308 => "PERMANENT_REDIRECT",
            _ => "FOUND",
        };
        let mut action = json!({ "response_code": code });
        if let Some(scheme) = &redirect.scheme {
            action["scheme_redirect"] = json!(scheme);
        }
        if let Some(host) = &redirect.host {
            action["host_redirect"] = json!(host);
        }
        if let Some(port) = redirect.port {
            action["port_redirect"] = json!(port);
        }
        match &redirect.path {
            None => {}
            Some(PathRewrite::Full(path)) => action["path_redirect"] = json!(path),
            Some(rewrite) => rewrite_path(&mut action, rewrite, &self.path),
        }
        action
    }
}

/// Another endpoint is tried where the first one did not get the request.
pub(crate) fn retry_unsent() -> Value {
    json!({
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": 2,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" },
        }],
        "host_selection_retry_max_attempts": 3,
    })
}

fn weighted_cluster(cluster: &WeightedCluster) -> Value {
    let mut value = json!({ "name": cluster.name, "weight": cluster.weight });
    cluster.headers.apply(&mut value);
    if let Some(host) = &cluster.host_rewrite {
        value["host_rewrite_literal"] = json!(host);
    }
    value
}

/// Sets how the path changes; the query stays.
///
/// A prefix is replaced by a regular expression, since Envoy's own `prefix_rewrite` makes `//x` of
/// `/foo/x` where `/foo` becomes `/`.
///
/// | matched | becomes | `/foo` | `/foo/x` |
/// | --- | --- | --- | --- |
/// | `/foo` | `/bar` | `/bar` | `/bar/x` |
/// | `/foo` | `/` | `/` | `/x` |
/// | `/` | `/bar` | `/bar/foo` | `/bar/foo/x` |
fn rewrite_path(action: &mut Value, rewrite: &PathRewrite, matched: &PathMatch) {
    let literal = |text: &str| text.replace('\\', r"\\");
    let (pattern, substitution) = match rewrite {
        PathRewrite::Full(path) => ("^.*$".to_owned(), literal(path)),
        PathRewrite::Regex(pattern, substitution) => (pattern.clone(), substitution.clone()),
        PathRewrite::Prefix(prefix) => {
            let matched = match matched {
                PathMatch::Elements(path) => path.trim_end_matches('/'),
                PathMatch::Prefix(path) | PathMatch::Exact(path) => path.trim_end_matches('/'),
                PathMatch::Any | PathMatch::Regex(_) => "",
            };
            match (regex::escape(matched), prefix.trim_end_matches('/')) {
                (matched, "") => (format!("^{matched}/*"), "/".to_owned()),
                (matched, prefix) if matched.is_empty() => {
                    ("^/*".to_owned(), literal(&format!("{prefix}/")))
                }
                (matched, prefix) => (format!("^{matched}"), literal(prefix)),
            }
        }
    };
    action["regex_rewrite"] =
        json!({ "pattern": { "regex": pattern }, "substitution": substitution });
}
