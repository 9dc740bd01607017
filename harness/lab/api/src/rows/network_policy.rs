//! NetworkPolicies (`pkg/apis/networking/validation`, `ValidateNetworkPolicy`).

use ipnet::IpNet;
use serde_json::{Value, json};

use super::names;
use crate::meta::{fill, items, items_mut, map_at, text};
use crate::status::Cause;

type Columns = &'static [(&'static str, i64, fn(&Value) -> Value)];

/// The rules of each way, and what their peers are called.
const WAYS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];
/// What is refused as a network.
const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub(super) fn validate(new: &Value, _: Option<&Value>, causes: &mut Vec<Cause>) {
    for (rules, peers) in WAYS {
        for (at, rule) in items(new, &format!("/spec/{rules}")).enumerate() {
            let field = format!("spec.{rules}[{at}]");
            for (at, port) in items(rule, "/ports").enumerate() {
                validate_port(port, &format!("{field}.ports[{at}]"), causes);
            }
            for (at, peer) in items(rule, &format!("/{peers}")).enumerate() {
                validate_peer(peer, &format!("{field}.{peers}[{at}]"), causes);
            }
        }
    }
    let types: Vec<_> = items(new, "/spec/policyTypes").collect();
    if types.len() > WAYS.len() {
        causes.push(Cause::invalid(
            "spec.policyTypes",
            &json!(types),
            "may not specify more than two policyTypes",
        ));
        return;
    }
    for (at, of) in types.into_iter().enumerate() {
        if of != "Ingress" && of != "Egress" {
            let field = format!("spec.policyTypes[{at}]");
            causes.push(Cause::unsupported(field, of, &["Egress", "Ingress"]));
        }
    }
}

fn validate_port(port: &Value, field: &str, causes: &mut Vec<Cause>) {
    if !matches!(text(port, "/protocol"), "TCP" | "UDP" | "SCTP") {
        causes.push(Cause::unsupported(
            format!("{field}.protocol"),
            &port["protocol"],
            &["SCTP", "TCP", "UDP"],
        ));
    }
    let end = port.get("endPort").filter(|end| !end.is_null());
    let mut wrong = |value: &Value, why| {
        causes.push(Cause::invalid(format!("{field}.endPort"), value, why));
    };
    match (port.get("port"), end) {
        (None | Some(Value::Null), Some(end)) => {
            wrong(end, "may not be specified when `port` is not specified");
        }
        (None | Some(Value::Null), None) => {}
        (Some(first @ Value::Number(_)), end) => {
            if end.is_some_and(|end| end.as_i64() < first.as_i64()) {
                wrong(first, "must be greater than or equal to `port`");
            }
            names::port(format!("{field}.port"), first, causes);
            if let Some(end) = end {
                names::port(format!("{field}.endPort"), end, causes);
            }
        }
        (Some(_), Some(end)) => wrong(end, "may not be specified when `port` is non-numeric"),
        (Some(_), None) => {}
    }
}

fn validate_peer(peer: &Value, field: &str, causes: &mut Vec<Cause>) {
    let selects = peer.get("podSelector").is_some() || peer.get("namespaceSelector").is_some();
    let Some(block) = peer.get("ipBlock") else {
        if !selects {
            causes.push(Cause::required(field, "must specify a peer"));
        }
        return;
    };
    if selects {
        causes.push(Cause::forbidden(
            field,
            "may not specify both ipBlock and another peer",
        ));
    }
    let field = format!("{field}.ipBlock");
    let cidr = text(block, "/cidr");
    if cidr.is_empty() {
        causes.push(Cause::required(format!("{field}.cidr"), ""));
        return;
    }
    let Ok(cidr) = cidr.parse::<IpNet>() else {
        let field = format!("{field}.cidr");
        causes.push(Cause::invalid(field, &block["cidr"], NOT_A_CIDR));
        return;
    };
    for (at, except) in items(block, "/except").enumerate() {
        let inside: Option<IpNet> = except.as_str().and_then(|except| except.parse().ok());
        let why = match inside {
            None => NOT_A_CIDR,
            Some(inside) if !cidr.contains(&inside) || cidr.prefix_len() >= inside.prefix_len() => {
                "must be a strict subset of `cidr`"
            }
            Some(_) => continue,
        };
        causes.push(Cause::invalid(format!("{field}.except[{at}]"), except, why));
    }
}

/// `SetDefaults_NetworkPolicy`, `SetDefaults_NetworkPolicyPort`.
pub(super) fn default(object: &mut Value) {
    let spec = map_at(object, "spec");
    let has = |field: &str| {
        let list = spec.get(field).and_then(Value::as_array);
        list.is_some_and(|list| !list.is_empty())
    };
    if !has("policyTypes") {
        let types = if has("egress") {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
        spec.insert("policyTypes".to_owned(), types);
    }
    for (rules, _) in WAYS {
        for rule in items_mut(&mut object["spec"], rules) {
            for port in items_mut(rule, "ports") {
                fill(port, "protocol", "TCP");
            }
        }
    }
}

pub(super) const COLUMNS: Columns = &[("Pod-Selector", 0, |policy| {
    let selector = policy.pointer("/spec/podSelector");
    selector.map_or_else(|| "<none>".into(), |selector| shown(selector).into())
})];

/// A label selector as it is typed, in the order of its keys; `<none>` for an empty one
/// (`metav1.FormatLabelSelector`).
fn shown(selector: &Value) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let mut terms: Vec<(&str, String)> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            (key.as_str(), format!("{key}={value}"))
        })
        .collect();
    terms.extend(items(selector, "/matchExpressions").map(|expression| {
        let key = text(expression, "/key");
        let values = items(expression, "/values").filter_map(Value::as_str);
        let mut values: Vec<_> = values.collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        (key, term)
    }));
    terms.sort_by_key(|(key, _)| *key);
    if terms.is_empty() {
        return "<none>".to_owned();
    }
    let terms = terms.into_iter().map(|(_, term)| term);
    terms.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A policy of one ingress rule, with its defaults.
    fn policy(rule: &Value) -> Value {
        let mut policy = json!({ "spec": { "podSelector": {}, "ingress": [rule] } });
        default(&mut policy);
        policy
    }

    #[test]
    fn mistakes_are_refused_in_kubernetes_words() {
        for (rule, expected) in [
            (
                json!({ "ports": [{ "port": 80, "endPort": 79 }] }),
                "spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
            ),
            (
                json!({ "ports": [{ "port": "web", "endPort": 81 }] }),
                "spec.ingress[0].ports[0].endPort: Invalid value: 81: may not be specified when `port` is non-numeric",
            ),
            (
                json!({ "ports": [{ "endPort": 81 }] }),
                "spec.ingress[0].ports[0].endPort: Invalid value: 81: may not be specified when `port` is not specified",
            ),
            (
                json!({ "ports": [{ "port": 0 }] }),
                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                json!({ "ports": [{ "port": 80, "protocol": "ICMP" }] }),
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                json!({ "from": [{}] }),
                "spec.ingress[0].from[0]: Required value: must specify a peer",
            ),
            (
                json!({ "from": [{ "podSelector": {}, "ipBlock": { "cidr": "10.0.0.0/8" } }] }),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                json!({ "from": [{ "ipBlock": { "cidr": "10.0.0.0" } }] }),
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                json!({ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"] } }] }),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            ),
            (
                json!({ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["172.16.0.0/12"] } }] }),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"172.16.0.0/12\": must be a strict subset of `cidr`",
            ),
        ] {
            let mut causes = Vec::new();
            validate(&policy(&rule), None, &mut causes);
            let said = causes
                .iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message));
            assert_eq!(said.collect::<Vec<_>>(), [expected], "{rule}");
        }
        let mut causes = Vec::new();
        let types = json!({ "spec": { "podSelector": {}, "policyTypes": ["ingress"] } });
        validate(&types, None, &mut causes);
        let expected = "Unsupported value: \"ingress\": supported values: \"Egress\", \"Ingress\"";
        assert_eq!(causes[0].message, expected);
    }

    #[test]
    fn defaults_are_those_of_the_api() {
        let with = policy(&json!({ "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }] }));
        assert_eq!(with["spec"]["policyTypes"], json!(["Ingress"]));
        let ports = &with["spec"]["ingress"][0]["ports"];
        assert_eq!(
            (&ports[0]["protocol"], &ports[1]["protocol"]),
            (&json!("TCP"), &json!("UDP"))
        );
        for (egress, types) in [
            (json!([]), json!(["Ingress"])),
            (json!([{}]), json!(["Ingress", "Egress"])),
        ] {
            let mut policy = json!({ "spec": { "podSelector": {}, "egress": egress } });
            default(&mut policy);
            assert_eq!(policy["spec"]["policyTypes"], types, "{egress}");
        }
    }

    #[test]
    fn a_selector_is_shown_as_it_is_typed() {
        for (selector, expected) in [
            (json!({}), "<none>"),
            (json!({ "matchLabels": { "b": "2", "a": "1" } }), "a=1,b=2"),
            (
                json!({
                    "matchLabels": { "b": "2" },
                    "matchExpressions": [
                        { "key": "a", "operator": "In", "values": ["y", "x"] },
                        { "key": "c", "operator": "DoesNotExist" },
                        { "key": "d", "operator": "Exists" },
                        { "key": "e", "operator": "NotIn", "values": ["z"] },
                    ],
                }),
                "a in (x,y),b=2,!c,d,e notin (z)",
            ),
        ] {
            assert_eq!(shown(&selector), expected);
        }
    }
}
