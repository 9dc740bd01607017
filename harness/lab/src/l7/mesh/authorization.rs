//! AuthorizationPolicies as Envoy's RBAC.
//!
//! Start from [`filters`]. DENY is asked before ALLOW; where there is an ALLOW policy at all, what
//! none of them matches is denied, and no rules at all match nothing.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::registry::{Mesh, Workload};
use super::types::security::{AuthorizationAction, AuthorizationPolicy, Rule};
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
            let of_http = rule
                .to
                .iter()
                .flatten()
                .any(|to| to.operation.methods.is_some() || to.operation.paths.is_some());
            if http || deny || !of_http {
                rules.insert(format!("{name}-rule[{index}]"), rule_of(rule, http));
            }
        }
    }
    json!({ "rules": { "action": if deny { "DENY" } else { "ALLOW" }, "policies": rules } })
}

fn rule_of(rule: &Rule, http: bool) -> Value {
    let sources = rule.from.iter().flatten().map(|from| {
        let principals = from.source.principals.iter().flatten().map(|name| {
            let pattern = wildcard(name);
            principal(&format!("spiffe://{pattern}"))
        });
        let namespaces = from
            .source
            .namespaces
            .iter()
            .flatten()
            .map(|name| principal(&format!("spiffe://[^/]+/ns/{}/sa/.*", wildcard(name))));
        all(
            &[
                any("or_ids", "ids", principals),
                any("or_ids", "ids", namespaces),
            ],
            "and_ids",
            "ids",
        )
    });
    let operations = rule.to.iter().flatten().map(|to| {
        let operation = &to.operation;
        let methods = operation
            .methods
            .iter()
            .flatten()
            .filter(|_| http)
            .map(|method| header(":method", method));
        let paths = operation
            .paths
            .iter()
            .flatten()
            .filter(|_| http)
            .map(|path| json!({ "url_path": { "path": string_matcher(path) } }));
        let ports = operation
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Some(json!({ "destination_port": port.parse::<u16>().ok()? })));
        let parts = [
            any("or_rules", "rules", methods),
            any("or_rules", "rules", paths),
            any("or_rules", "rules", ports),
        ];
        all(&parts, "and_rules", "rules")
    });
    let sources: Vec<Value> = sources.collect();
    let operations: Vec<Value> = operations.collect();
    let anything = || vec![json!({ "any": true })];
    json!({
        "principals": if sources.is_empty() { anything() } else { sources },
        "permissions": if operations.is_empty() { anything() } else { operations },
    })
}

/// The alternatives as one condition; none at all is no condition.
fn any(field: &str, list: &str, alternatives: impl Iterator<Item = Value>) -> Option<Value> {
    let alternatives: Vec<Value> = alternatives.collect();
    (!alternatives.is_empty()).then(|| json!({ field: { list: alternatives } }))
}

fn all(conditions: &[Option<Value>], field: &str, list: &str) -> Value {
    let conditions: Vec<&Value> = conditions.iter().flatten().collect();
    if conditions.is_empty() {
        json!({ "any": true })
    } else {
        json!({ field: { list: conditions } })
    }
}

fn principal(pattern: &str) -> Value {
    json!({ "authenticated": { "principal_name": { "safe_regex": { "regex": pattern } } } })
}

/// A regular expression for a name with `*` at one end, or alone.
fn wildcard(name: &str) -> String {
    name.split('*')
        .map(regex::escape)
        .collect::<Vec<_>>()
        .join(".*")
}

fn string_matcher(text: &str) -> Value {
    json!({ "safe_regex": { "regex": wildcard(text) } })
}

fn header(name: &str, value: &str) -> Value {
    json!({ "header": { "name": name, "string_match": string_matcher(value) } })
}
