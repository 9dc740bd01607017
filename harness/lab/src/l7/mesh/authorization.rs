//! AuthorizationPolicies as Envoy's RBAC.
//!
//! Start from [`filters`]. DENY is asked before ALLOW; where there is an ALLOW policy at all, what
//! none of them matches is denied, and no rules at all match nothing.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::registry::{Mesh, Workload};
use super::tokens;
use crate::istio::security::{
    AuthorizationAction, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use crate::l7::envoy::typed;

/// The RBAC configurations for a workload's HTTP, in the order in which they are asked.
pub(super) fn filters(mesh: &Mesh, workload: &Workload) -> Vec<Value> {
    configurations(mesh, workload, true)
}

/// The network filters for connections whose bytes are not looked into. What a rule asks of HTTP is
/// not known there: such an ALLOW allows nothing, and such a DENY denies whatever else it names.
pub(super) fn network_filters(mesh: &Mesh, workload: &Workload) -> Vec<Value> {
    let filter = |mut config: Value| {
        config["stat_prefix"] = json!("tcp");
        json!({
            "name": "envoy.filters.network.rbac",
            "typed_config": typed("envoy.extensions.filters.network.rbac.v3.RBAC", config),
        })
    };
    configurations(mesh, workload, false)
        .into_iter()
        .map(filter)
        .collect()
}

fn configurations(mesh: &Mesh, workload: &Workload, http: bool) -> Vec<Value> {
    let applies = |policy: &&AuthorizationPolicy| {
        let namespace = policy.namespace().unwrap_or_default();
        (namespace == workload.namespace || namespace == "istio-system")
            && policy
                .spec
                .selector
                .as_ref()
                .is_none_or(|selector| selector.matches(&workload.labels))
    };
    [AuthorizationAction::Deny, AuthorizationAction::Allow]
        .into_iter()
        .filter_map(|action| {
            let policies = mesh
                .authorization_policies
                .iter()
                .map(AsRef::as_ref)
                .filter(applies);
            let policies: Vec<_> = policies
                .filter(|policy| policy.spec.action == action)
                .collect();
            (!policies.is_empty()).then(|| rbac(action, &policies, http))
        })
        .collect()
}

fn rbac(action: AuthorizationAction, policies: &[&AuthorizationPolicy], http: bool) -> Value {
    let deny = action == AuthorizationAction::Deny;
    let mut rules = serde_json::Map::new();
    for policy in policies {
        let name = format!(
            "ns[{}]-policy[{}]",
            policy.namespace().unwrap_or_default(),
            policy.name_any()
        );
        for (index, rule) in policy.spec.rules.iter().flatten().enumerate() {
            if http || deny || !of_http(rule) {
                let home = policy.namespace().unwrap_or_default();
                rules.insert(format!("{name}-rule[{index}]"), rule_of(rule, &home, http));
            }
        }
    }
    json!({ "rules": { "action": if deny { "DENY" } else { "ALLOW" }, "policies": rules } })
}

/// Whether a rule asks something of the request that only HTTP tells.
fn of_http(rule: &Rule) -> bool {
    let mut operations = rule.to.iter().flatten().map(|to| &to.operation);
    let mut sources = rule.from.iter().flatten().map(|from| &from.source);
    let mut conditions = rule.when.iter().flatten();
    let by_token = sources.any(|source| {
        source.request_principals.is_some() || source.not_request_principals.is_some()
    });
    by_token
        || operations.any(|asked| {
            let lists = [
                &asked.hosts,
                &asked.not_hosts,
                &asked.methods,
                &asked.not_methods,
                &asked.paths,
                &asked.not_paths,
            ];
            lists.iter().any(|list| list.is_some())
        })
        || conditions.any(|condition| Attribute::of(condition).of_http())
}

fn rule_of(rule: &Rule, home: &str, http: bool) -> Value {
    let conditions = rule.when.iter().flatten();
    let conditions: Vec<Value> = conditions
        .flat_map(|condition| when(condition, http))
        .collect();
    let sources = rule.from.iter().flatten();
    let mut sources: Vec<Vec<Value>> = sources
        .map(|from| source(&from.source, home, http))
        .collect();
    if sources.is_empty() {
        sources.push(Vec::new());
    }
    let principals = sources.into_iter().map(|mut parts| {
        parts.extend(conditions.iter().cloned());
        all(parts, "and_ids", "ids")
    });
    let operations = rule.to.iter().flatten();
    let mut permissions: Vec<Value> = operations
        .map(|to| all(operation(&to.operation, http), "and_rules", "rules"))
        .collect();
    if permissions.is_empty() {
        permissions.push(json!({ "any": true }));
    }
    json!({ "principals": principals.collect::<Vec<_>>(), "permissions": permissions })
}

/// The conditions on the client, all of which must hold; not on its token, where it is not HTTP.
fn source(source: &Source, home: &str, http: bool) -> Vec<Value> {
    let names = |names: &Option<Vec<String>>, of: fn(&str) -> Value| {
        alternatives(names.as_deref(), of, "or_ids", "ids")
    };
    let accounts = |names: &Option<Vec<String>>| {
        let of = |name: &str| of_account(name, home);
        alternatives(names.as_deref(), of, "or_ids", "ids")
    };
    let of_http = [
        names(&source.request_principals, of_request_principal),
        names(&source.not_request_principals, of_request_principal).map(not_id),
    ];
    let of_any = [
        accounts(&source.service_accounts),
        accounts(&source.not_service_accounts).map(not_id),
        names(&source.principals, of_principal),
        names(&source.not_principals, of_principal).map(not_id),
        names(&source.namespaces, of_namespace),
        names(&source.not_namespaces, of_namespace).map(not_id),
    ];
    let of_http = of_http.into_iter().filter(|_| http);
    of_http.chain(of_any).flatten().collect()
}

/// The conditions on the request, all of which must hold; on its port only, where it is not HTTP.
fn operation(operation: &Operation, http: bool) -> Vec<Value> {
    let values = |values: &Option<Vec<String>>, of: fn(&str) -> Value| {
        alternatives(values.as_deref(), of, "or_rules", "rules")
    };
    let of_http = [
        values(&operation.hosts, of_host),
        values(&operation.not_hosts, of_host).map(not_rule),
        values(&operation.methods, of_method),
        values(&operation.not_methods, of_method).map(not_rule),
        values(&operation.paths, of_path),
        values(&operation.not_paths, of_path).map(not_rule),
    ];
    let ports = [
        values(&operation.ports, of_port),
        values(&operation.not_ports, of_port).map(not_rule),
    ];
    let of_http = of_http.into_iter().filter(|_| http);
    of_http.chain(ports).flatten().collect()
}

/// What a condition is on.
enum Attribute<'a> {
    Header(&'a str),
    Token(tokens::Attribute<'a>),
    Principal,
    Namespace,
}

impl<'a> Attribute<'a> {
    fn of(condition: &'a Condition) -> Self {
        let key = condition.key.as_str();
        let header = key
            .strip_prefix("request.headers[")
            .and_then(|rest| rest.strip_suffix(']'));
        match (header, tokens::Attribute::of(key)) {
            (Some(name), _) => Self::Header(name),
            (None, Some(token)) => Self::Token(token),
            (None, None) if key == "source.principal" => Self::Principal,
            (None, None) => Self::Namespace,
        }
    }

    /// Whether only HTTP tells it.
    fn of_http(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Token(_))
    }
}

fn when(condition: &Condition, http: bool) -> Vec<Value> {
    let attribute = Attribute::of(condition);
    if attribute.of_http() && !http {
        return Vec::new();
    }
    let of = |value: &str| match &attribute {
        Attribute::Header(name) => of_header(name, value),
        Attribute::Token(token) => token.is(value, string_matcher),
        Attribute::Principal => of_principal(value),
        Attribute::Namespace => of_namespace(value),
    };
    let values = alternatives(condition.values.as_deref(), of, "or_ids", "ids");
    let others = alternatives(condition.not_values.as_deref(), of, "or_ids", "ids");
    values.into_iter().chain(others.map(not_id)).collect()
}

/// The alternatives as one condition; none at all is no condition.
fn alternatives(
    values: Option<&[String]>,
    of: impl Fn(&str) -> Value,
    field: &str,
    list: &str,
) -> Option<Value> {
    let values = values.filter(|values| !values.is_empty())?;
    let alternatives: Vec<Value> = values.iter().map(|value| of(value)).collect();
    Some(json!({ field: { list: alternatives } }))
}

fn all(conditions: Vec<Value>, field: &str, list: &str) -> Value {
    match conditions.is_empty() {
        true => json!({ "any": true }),
        false => json!({ field: { list: conditions } }),
    }
}

fn not_id(condition: Value) -> Value {
    json!({ "not_id": condition })
}

fn not_rule(condition: Value) -> Value {
    json!({ "not_rule": condition })
}

fn of_principal(name: &str) -> Value {
    authenticated(&format!("spiffe://{}", wildcard(name)))
}

fn of_request_principal(name: &str) -> Value {
    tokens::Attribute::Principal.is(name, string_matcher)
}

/// An account, whatever the trust domain.
fn of_account(name: &str, home: &str) -> Value {
    let (namespace, account) = name.split_once('/').unwrap_or((home, name));
    authenticated(&format!(
        "spiffe://[^/]+/ns/{}/sa/{}",
        regex::escape(namespace),
        regex::escape(account)
    ))
}

fn of_namespace(name: &str) -> Value {
    authenticated(&format!("spiffe://[^/]+/ns/{}/sa/.*", wildcard(name)))
}

fn authenticated(pattern: &str) -> Value {
    json!({ "authenticated": { "principal_name": { "safe_regex": { "regex": pattern } } } })
}

/// Hosts are compared in any case.
fn of_host(host: &str) -> Value {
    let pattern = format!("(?i){}", wildcard(host));
    let matcher = json!({ "safe_regex": { "regex": pattern } });
    json!({ "header": { "name": ":authority", "string_match": matcher } })
}

fn of_method(method: &str) -> Value {
    of_header(":method", method)
}

fn of_path(path: &str) -> Value {
    let matcher = match path.contains("{*") {
        true => json!({ "safe_regex": { "regex": template(path) } }),
        false => string_matcher(path),
    };
    json!({ "url_path": { "path": matcher } })
}

/// A regular expression for a path with `{*}` for an element and `{**}` for any number of them.
fn template(path: &str) -> String {
    path.split("{**}")
        .map(|part| {
            part.split("{*}")
                .map(regex::escape)
                .collect::<Vec<_>>()
                .join("[^/]+")
        })
        .collect::<Vec<_>>()
        .join(".*")
}

/// A port that is none matches nothing.
fn of_port(port: &str) -> Value {
    json!({ "destination_port": port.parse::<u16>().unwrap_or_default() })
}

fn of_header(name: &str, value: &str) -> Value {
    json!({ "header": { "name": name, "string_match": string_matcher(value) } })
}

fn string_matcher(text: &str) -> Value {
    json!({ "safe_regex": { "regex": wildcard(text) } })
}

/// A regular expression for a name with `*` at one end, or alone.
fn wildcard(name: &str) -> String {
    name.split('*')
        .map(regex::escape)
        .collect::<Vec<_>>()
        .join(".*")
}
