//! JWTs: RequestAuthentications as Envoy's `jwt_authn`, and what policies ask of a token's claims.
//!
//! Start from [`filter`]. All rules that hold for a workload hold together: a token must be good for one
//! of them, or be where none of them looks. What a good token claims is metadata of the request, which
//! policies compare ([`Attribute`]).

use kube::ResourceExt;
use serde_json::{Value, json};

use super::inbound::ROOT_NAMESPACE;
use super::registry::{Mesh, Workload, cluster_name, fqdn};
use crate::istio::request_authentication::{JwtHeader, JwtRule, RequestAuthentication};
use crate::l7::envoy::listener::http_filter;

const NAME: &str = "envoy.filters.http.jwt_authn";
/// The key of its metadata under which the payload is.
const PAYLOAD: &str = "payload";
/// Where the keys of a rule are that has none: no token of it is believed.
const NOWHERE: &str = "http://keys.invalid/";

/// The filter that looks at a workload's requests, if any rule holds for it.
pub(super) fn filter(mesh: &Mesh, workload: &Workload) -> Option<Value> {
    let applies = |policy: &&RequestAuthentication| {
        let namespace = policy.namespace().unwrap_or_default();
        let selector = policy.spec.selector.as_ref();
        (namespace == workload.namespace || namespace == ROOT_NAMESPACE)
            && selector.is_none_or(|selector| selector.matches(&workload.labels))
    };
    let policies = mesh.request_authentications.iter().map(AsRef::as_ref);
    let rules = policies
        .filter(applies)
        .flat_map(|policy| policy.spec.jwt_rules.iter().flatten());
    let mut rules: Vec<&JwtRule> = rules.collect();
    rules.sort_by(|one, two| one.issuer.cmp(&two.issuer));
    if rules.is_empty() {
        return None;
    }
    let name = |index: usize| format!("origins-{index}");
    let providers: serde_json::Map<String, Value> = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| (name(index), provider(mesh, rule)))
        .collect();
    let good = |index| json!({ "provider_name": name(index) });
    let absent = json!({ "allow_missing": {} });
    let any = |all: Vec<Value>| json!({ "requires_any": { "requirements": all } });
    let each = (0..rules.len()).map(|index| any(vec![good(index), absent.clone()]));
    let mut enough: Vec<Value> = (0..rules.len()).map(good).collect();
    enough.push(match rules.len() {
        1 => absent.clone(),
        _ => json!({ "requires_all": { "requirements": each.collect::<Vec<_>>() } }),
    });
    let config = json!({
        "providers": providers,
        "rules": [{ "match": { "prefix": "/" }, "requires": any(enough) }],
        "bypass_cors_preflight": true,
    });
    Some(http_filter(NAME, "jwt_authn.v3.JwtAuthentication", config))
}

fn provider(mesh: &Mesh, rule: &JwtRule) -> Value {
    let mut made = json!({
        "issuer": rule.issuer,
        "audiences": rule.audiences.clone().unwrap_or_default(),
        "forward": rule.forward_original_token.unwrap_or_default(),
        "payload_in_metadata": PAYLOAD,
        // Several words in one of these are several values.
        "normalize_payload_in_metadata": { "space_delimited_claims": ["scope", "permission"] },
    });
    match rule.jwks.as_ref().filter(|keys| has_keys(keys)) {
        Some(keys) => made["local_jwks"] = json!({ "inline_string": keys }),
        None => {
            let uri = rule.jwks_uri.as_deref().unwrap_or(NOWHERE);
            made["remote_jwks"] = json!({
                "http_uri": { "uri": uri, "cluster": cluster_of(mesh, uri), "timeout": "5s" },
                "cache_duration": "300s",
            });
        }
    }
    if let Some(headers) = &rule.from_headers {
        let header = |header: &JwtHeader| {
            json!({
                "name": header.name,
                "value_prefix": header.prefix.clone().unwrap_or_default(),
            })
        };
        made["from_headers"] = headers.iter().map(header).collect();
    }
    if let Some(params) = &rule.from_params {
        made["from_params"] = json!(params);
    }
    if let Some(cookies) = &rule.from_cookies {
        made["from_cookies"] = json!(cookies);
    }
    if let Some(header) = &rule.output_payload_to_header {
        made["forward_payload_header"] = json!(header);
    }
    if let Some(claims) = &rule.output_claim_to_headers {
        let told = claims
            .iter()
            .map(|told| json!({ "header_name": told.header, "claim_name": told.claim }));
        made["claim_to_headers"] = told.collect();
    }
    made
}

/// Whether a key set has any key: Envoy takes no configuration with one that has none.
fn has_keys(keys: &str) -> bool {
    let keys: Value = serde_json::from_str(keys).unwrap_or_default();
    keys["keys"].as_array().is_some_and(|keys| !keys.is_empty())
}

/// The cluster that keys are fetched from: the mesh's own for the Service that the address names. Of
/// any other host there is none, and a token whose keys nobody has is refused.
fn cluster_of(mesh: &Mesh, uri: &str) -> String {
    let uri: http::Uri = uri.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let mut names = host.split('.');
    let (name, namespace) = (names.next(), names.next());
    let (name, namespace) = (name.unwrap_or_default(), namespace.unwrap_or_default());
    let host = match mesh.services.find(namespace, name) {
        Some(_) => fqdn(namespace, name),
        None => host.to_owned(),
    };
    cluster_name(uri.port_u16().unwrap_or(80), None, &host)
}

/// What a policy asks of a request's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attribute<'a> {
    /// Who gave it, and for whom: `ISSUER/SUBJECT`.
    Principal,
    /// A claim, by the names that lead to it.
    Claim(Vec<&'a str>),
}

impl<'a> Attribute<'a> {
    /// The attribute of a condition's key, if it is of tokens.
    pub(super) fn of(key: &'a str) -> Option<Self> {
        match key.strip_prefix("request.auth.")? {
            "principal" => Some(Self::Principal),
            "audiences" => Some(Self::Claim(vec!["aud"])),
            "presenter" => Some(Self::Claim(vec!["azp"])),
            other => {
                let names = other.strip_prefix("claims[")?.strip_suffix(']')?;
                Some(Self::Claim(names.split("][").collect()))
            }
        }
    }

    /// Whether it is a value, as Envoy's principal; `text` makes a `StringMatcher`.
    pub(super) fn is(&self, value: &str, text: impl Fn(&str) -> Value) -> Value {
        match self {
            Self::Principal => {
                let (issuer, subject) = parts(value);
                let is = |claim: &str, value: &str| {
                    claimed(&[claim], json!({ "string_match": text(value) }))
                };
                json!({ "and_ids": { "ids": [is("iss", issuer), is("sub", subject)] } })
            }
            Self::Claim(names) => {
                let value = json!({ "string_match": text(value) });
                let one_of = json!({ "list_match": { "one_of": value } });
                claimed(
                    names,
                    json!({ "or_match": { "value_matchers": [value, one_of] } }),
                )
            }
        }
    }
}

/// The issuer, which may be a URL, and the subject of a principal's name with `*` at one end.
fn parts(principal: &str) -> (&str, &str) {
    match principal.rsplit_once('/') {
        Some(both) => both,
        None if principal.starts_with('*') => ("*", principal),
        None if principal.ends_with('*') => (principal, "*"),
        None => (principal, ""),
    }
}

fn claimed(names: &[&str], value: Value) -> Value {
    let names = std::iter::once(&PAYLOAD).chain(names);
    let path: Vec<Value> = names.map(|name| json!({ "key": name })).collect();
    json!({ "sourced_metadata": { "metadata_matcher": { "filter": NAME, "path": path, "value": value } } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::shared;

    #[test]
    fn attributes_of_tokens_are_told_from_others() {
        for (key, expected) in [
            ("request.auth.principal", Some(Attribute::Principal)),
            (
                "request.auth.audiences",
                Some(Attribute::Claim(vec!["aud"])),
            ),
            (
                "request.auth.presenter",
                Some(Attribute::Claim(vec!["azp"])),
            ),
            (
                "request.auth.claims[group]",
                Some(Attribute::Claim(vec!["group"])),
            ),
            (
                "request.auth.claims[a][b.c]",
                Some(Attribute::Claim(vec!["a", "b.c"])),
            ),
            ("request.auth.mood", None),
            ("request.headers[x]", None),
        ] {
            assert_eq!(Attribute::of(key), expected, "{key}");
        }
    }

    #[test]
    fn principals_are_an_issuer_and_a_subject() {
        for (principal, expected) in [
            ("issuer.example/alice", ("issuer.example", "alice")),
            (
                "https://issuer.example/x/alice",
                ("https://issuer.example/x", "alice"),
            ),
            ("issuer.example/*", ("issuer.example", "*")),
            ("*/alice", ("*", "alice")),
            ("*alice", ("*", "*alice")),
            ("issuer*", ("issuer*", "*")),
            ("*", ("*", "*")),
        ] {
            assert_eq!(parts(principal), expected, "{principal}");
        }
    }

    #[test]
    fn keys_are_fetched_from_the_services_own_cluster() {
        let mesh = Mesh {
            services: crate::l7::cluster::Services::new(
                [shared(json!({
                    "metadata": { "name": "keys", "namespace": "default" },
                }))],
                [],
            ),
            ..Mesh::default()
        };
        let of_service = "outbound|8000||keys.default.svc.cluster.local";
        for (uri, expected) in [
            ("http://keys.default:8000/jwks", of_service),
            ("http://keys.default.svc.cluster.local:8000/", of_service),
            ("http://keys.example.com/", "outbound|80||keys.example.com"),
        ] {
            assert_eq!(cluster_of(&mesh, uri), expected, "{uri}");
        }
    }
}
