//! Whether the Gateways that a route names take it: by name, listener, hostname, namespace.
//!
//! Start from [`parents`]. Where they do, the Gateway's own diagnosis follows.

use gateway_api::gateways::{
    Gateway, GatewayListeners, GatewayListenersAllowedRoutesNamespacesFrom as From,
};
use gateway_api::httproutes::{HttpRoute, HttpRouteParentRefs};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::ResourceExt;

use super::judge;
use super::route::Seen;
use crate::layer::labels::selects;
use crate::settings::nearest;
use crate::verdict::cause::{Cause, CauseKind, Object, did_you_mean};

pub(super) fn parents(seen: &Seen, object: &Object<'_>, route: &HttpRoute) -> Option<Cause> {
    let parents = route.spec.parent_refs.iter().flatten().enumerate();
    let gateways: Vec<_> = parents
        .filter(|(_, parent)| parent.kind.as_deref().unwrap_or("Gateway") == "Gateway")
        .collect();
    if gateways.is_empty() {
        return Some(Cause {
            kind: CauseKind::ParentMissing,
            wrong: format!("{object} names no Gateway in spec.parentRefs, so nothing serves it"),
            change: format!("add the Gateway to spec.parentRefs of {object}"),
            see: object.see(),
        });
    }
    gateways
        .into_iter()
        .find_map(|(at, parent)| self::parent(seen, object, route, at, parent))
}

fn parent(
    seen: &Seen,
    object: &Object<'_>,
    route: &HttpRoute,
    at: usize,
    parent: &HttpRouteParentRefs,
) -> Option<Cause> {
    let field = format!("spec.parentRefs[{at}]");
    let namespace = parent.namespace.as_deref().unwrap_or(&seen.namespace);
    let name = &parent.name;
    let gateway_object = Object::new("Gateway", namespace, name);
    let Some(gateway) = seen.gateways.find(namespace, name) else {
        let near = seen.gateways.near(namespace, name);
        let elsewhere = seen
            .gateways
            .gateways
            .iter()
            .find(|gateway| gateway.name_any() == *name);
        let elsewhere = elsewhere.and_then(ResourceExt::namespace);
        let (hint, change) = match (&near, elsewhere) {
            (Some(near), _) => (
                did_you_mean(Some(near)),
                format!("set {field}.name of {object} to {near}"),
            ),
            (None, Some(other)) => (
                format!("; namespace {other} has one of that name"),
                format!("set {field}.namespace of {object} to {other}"),
            ),
            (None, None) => (
                String::new(),
                format!("{field} of {object}, or create {gateway_object}"),
            ),
        };
        return Some(Cause {
            kind: CauseKind::ParentMissing,
            wrong: format!("{object} is for {gateway_object}, which is not there{hint}"),
            change,
            see: "kubectl get gateways -A".into(),
        });
    };
    let of_ref = |listener: &&GatewayListeners| {
        parent
            .section_name
            .as_ref()
            .is_none_or(|section| *section == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let listeners: Vec<_> = gateway.spec.listeners.iter().filter(of_ref).collect();
    if listeners.is_empty() {
        let names: Vec<_> = gateway
            .spec
            .listeners
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        let (asked, field, near) = match (&parent.section_name, parent.port) {
            (Some(section), _) if !names.contains(&section.as_str()) => (
                format!("listener {section}"),
                format!("{field}.sectionName"),
                nearest(section, names.iter().copied()),
            ),
            (_, port) => (
                format!("listener on port {}", port.unwrap_or_default()),
                format!("{field}.port"),
                None,
            ),
        };
        let has: Vec<_> = gateway
            .spec
            .listeners
            .iter()
            .map(|listener| format!("{} (port {})", listener.name, listener.port))
            .collect();
        return Some(Cause {
            kind: CauseKind::ListenerMissing,
            wrong: format!(
                "{object} is for a {asked} of {gateway_object}, which has {}{}",
                has.join(", "),
                did_you_mean(near)
            ),
            change: match near {
                Some(near) => format!("set {field} of {object} to {near}"),
                None => format!("{field} of {object}"),
            },
            see: gateway_object.see(),
        });
    }
    hostnames(object, route, &gateway_object, &listeners)
        .or_else(|| allowed(seen, object, &gateway_object, gateway, &listeners))
        .or_else(|| {
            judge::cause(&judge::Seen {
                namespace: namespace.to_owned(),
                name: name.clone(),
                ..seen.gateways.clone()
            })
        })
}

fn hostnames(
    object: &Object<'_>,
    route: &HttpRoute,
    gateway: &Object<'_>,
    listeners: &[&GatewayListeners],
) -> Option<Cause> {
    let of_route: Vec<_> = route
        .spec
        .hostnames
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let open = |listener: &&GatewayListeners| {
        let host = listener.hostname.as_deref().unwrap_or_default();
        host.is_empty() || of_route.iter().any(|name| intersect(host, name))
    };
    if of_route.is_empty() || listeners.iter().any(open) {
        return None;
    }
    let hosts: Vec<_> = listeners
        .iter()
        .filter_map(|listener| listener.hostname.as_deref())
        .collect();
    let near = of_route
        .iter()
        .find_map(|name| nearest(name, hosts.iter().copied()));
    Some(Cause {
        kind: CauseKind::HostnameMismatch,
        wrong: format!(
            "no listener of {gateway} takes the hostnames of {object} ({}): they are for {}{}",
            of_route.join(", "),
            hosts.join(", "),
            did_you_mean(near)
        ),
        change: format!("spec.hostnames of {object}, or spec.listeners[].hostname of {gateway}"),
        see: gateway.see(),
    })
}

/// Whether two hostnames have a name in common; a wildcard stands for one label or more.
fn intersect(a: &str, b: &str) -> bool {
    let under = |wildcard: &str, name: &str| {
        let suffix = wildcard.strip_prefix('*');
        suffix.is_some_and(|suffix| {
            name.len() > suffix.len()
                && name
                    .to_ascii_lowercase()
                    .ends_with(&suffix.to_ascii_lowercase())
        })
    };
    a.eq_ignore_ascii_case(b) || under(a, b) || under(b, a)
}

fn allowed(
    seen: &Seen,
    object: &Object<'_>,
    gateway_object: &Object<'_>,
    gateway: &Gateway,
    listeners: &[&GatewayListeners],
) -> Option<Cause> {
    let own = gateway.namespace().unwrap_or_default();
    let labels = seen
        .namespaces
        .iter()
        .find(|(name, _)| *name == seen.namespace);
    let takes = |listener: &&GatewayListeners| {
        let namespaces = listener
            .allowed_routes
            .as_ref()
            .and_then(|routes| routes.namespaces.as_ref());
        match namespaces.and_then(|namespaces| namespaces.from.as_ref()) {
            Some(From::All) => true,
            None | Some(From::Same) => own == seen.namespace,
            Some(From::Selector) => {
                let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
                selector.zip(labels).is_some_and(|(selector, (_, labels))| {
                    let expressions = selector.match_expressions.iter().flatten();
                    let requirement = expressions.map(|it| LabelSelectorRequirement {
                        key: it.key.clone(),
                        operator: it.operator.clone(),
                        values: it.values.clone(),
                    });
                    let selector = LabelSelector {
                        match_labels: selector.match_labels.clone(),
                        match_expressions: Some(requirement.collect()),
                    };
                    selects(&selector, labels)
                })
            }
        }
    };
    if listeners.iter().any(takes) {
        return None;
    }
    let names: Vec<_> = listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    Some(Cause {
        kind: CauseKind::NamespaceNotAllowed,
        wrong: format!(
            "{gateway_object} takes no routes from namespace {} on listener {}, so {object} is not served",
            seen.namespace,
            names.join(", ")
        ),
        change: format!("spec.listeners[].allowedRoutes.namespaces of {gateway_object}"),
        see: gateway_object.see(),
    })
}
