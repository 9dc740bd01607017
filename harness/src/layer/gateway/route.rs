//! Why a request through an HTTPRoute is not answered by the pods it should be.
//!
//! Start from [`cause`]. What the route names (parents, listeners, Services) comes first, since it
//! has a field to change; then that the controller has not seen the last change; then what it says.

use gateway_api::httproutes::{
    HttpRoute, HttpRouteRulesBackendRefs, HttpRouteRulesMatchesPathType,
};
use gateway_api::referencegrants::ReferenceGrantSpec;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::judge::{self, find, stale, words};
use super::parent;
use crate::layer::labels::Labels;
use crate::layer::paths::{self, How, Path};
use crate::layer::services::judge as services;
use crate::settings::nearest;
use crate::verdict::cause::{Cause, CauseKind, Object, did_you_mean};

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Seen {
    /// Where the route should be.
    pub(in crate::layer) namespace: String,
    /// What it should be called.
    pub(in crate::layer) name: String,
    /// The path of the request.
    pub(in crate::layer) path: String,
    /// Every HTTPRoute of the namespace.
    pub(in crate::layer) routes: Vec<HttpRoute>,
    /// Gateways and their classes; its own name is not looked at.
    pub(in crate::layer) gateways: judge::Seen,
    /// Every Service of the cluster.
    pub(in crate::layer) services: Vec<Service>,
    /// Every ReferenceGrant, with its namespace.
    pub(in crate::layer) grants: Vec<(String, ReferenceGrantSpec)>,
    /// The labels of namespaces.
    pub(in crate::layer) namespaces: Vec<(String, Labels)>,
}

impl Seen {
    fn route(&self) -> Option<&HttpRoute> {
        self.routes
            .iter()
            .find(|route| route.name_any() == self.name)
    }
}

/// The Service that the request leads to: namespace, name, port; for what is wrong behind it.
pub(in crate::layer) fn backend(seen: &Seen) -> Option<(String, String, Option<u16>)> {
    let (_, _, backend) = backends(seen, seen.route()?).into_iter().next()?;
    let namespace = backend
        .namespace
        .clone()
        .unwrap_or_else(|| seen.namespace.clone());
    let port = backend.port.and_then(|port| u16::try_from(port).ok());
    Some((namespace, backend.name.clone(), port))
}

/// The cause, if evidence names one.
pub(in crate::layer) fn cause(seen: &Seen) -> Option<Cause> {
    let object = Object::new("HTTPRoute", &seen.namespace, &seen.name);
    let Some(route) = seen.route() else {
        let names: Vec<_> = seen.routes.iter().map(ResourceExt::name_any).collect();
        let near = nearest(&seen.name, names.iter().map(String::as_str));
        return Some(Cause {
            kind: CauseKind::RouteObjectMissing,
            wrong: format!("there is no {object}{}", did_you_mean(near)),
            change: format!("create {object}"),
            see: format!("kubectl -n {} get httproutes", seen.namespace),
        });
    };
    parent::parents(seen, &object, route)
        .or_else(|| path(seen, &object, route))
        .or_else(|| services(seen, &object, route))
        .or_else(|| status(&object, route))
}

fn rule_paths(route: &HttpRoute) -> Vec<(usize, Path)> {
    let rules = route.spec.rules.iter().flatten().enumerate();
    rules
        .flat_map(|(rule, of)| {
            let matches: Vec<_> = of.matches.iter().flatten().enumerate().collect();
            // Without a match, and in a match without a path, everything matches.
            let all = Path {
                how: How::Prefix,
                path: "/".into(),
                field: format!("spec.rules[{rule}]"),
            };
            if matches.is_empty() {
                return vec![(rule, all)];
            }
            matches
                .into_iter()
                .map(|(at, of)| {
                    let Some(path) = &of.path else {
                        return (rule, all.clone());
                    };
                    let how = match path.r#type {
                        Some(HttpRouteRulesMatchesPathType::Exact) => How::Exact,
                        Some(HttpRouteRulesMatchesPathType::RegularExpression) => How::Other,
                        _ => How::Prefix,
                    };
                    let field = format!("spec.rules[{rule}].matches[{at}].path.value");
                    let path = path.value.clone().unwrap_or_else(|| "/".into());
                    (rule, Path { how, path, field })
                })
                .collect()
        })
        .collect()
}

fn path(seen: &Seen, object: &Object<'_>, route: &HttpRoute) -> Option<Cause> {
    let paths: Vec<_> = rule_paths(route)
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    if paths.is_empty() {
        return None;
    }
    let miss = paths::miss(&seen.path, &paths)?;
    let said: Vec<_> = paths.iter().map(ToString::to_string).collect();
    let (tail, change) = match (&miss.near, &miss.because) {
        (Some((path, _)), Some(because)) => (
            because.clone(),
            format!(
                "the path that is asked for, or {} (or its type) of {object}",
                path.field
            ),
        ),
        (Some((path, should)), None) => (
            format!("{} is {}", path.field, path.path),
            format!("set {} of {object} to {should}", path.field),
        ),
        (None, _) => (
            format!("its paths are {}", said.join(", ")),
            format!("add a match for {} to spec.rules of {object}", seen.path),
        ),
    };
    Some(Cause {
        kind: CauseKind::RoutePath,
        wrong: format!("no path of {object} matches {}: {tail}", seen.path),
        change,
        see: object.see(),
    })
}

/// The Services of the rules that the path leads to, with their place.
fn backends<'a>(
    seen: &Seen,
    route: &'a HttpRoute,
) -> Vec<(usize, usize, &'a HttpRouteRulesBackendRefs)> {
    let matching = rule_paths(route)
        .into_iter()
        .filter(|(_, path)| path.matches(&seen.path));
    let best = matching.max_by_key(|(_, path)| (path.how == How::Exact, path.path.len()));
    let Some((rule, _)) = best else {
        return Vec::new();
    };
    let refs = route.spec.rules.iter().flatten().nth(rule);
    let refs = refs
        .into_iter()
        .flat_map(|rule| rule.backend_refs.iter().flatten())
        .enumerate();
    refs.filter(|(_, backend)| backend.kind.as_deref().unwrap_or("Service") == "Service")
        .map(|(at, backend)| (rule, at, backend))
        .collect()
}

fn services(seen: &Seen, object: &Object<'_>, route: &HttpRoute) -> Option<Cause> {
    backends(seen, route).into_iter().find_map(|(rule, at, backend)| {
        let field = format!("spec.rules[{rule}].backendRefs[{at}]");
        let namespace = backend.namespace.as_deref().unwrap_or(&seen.namespace);
        let name = &backend.name;
        if namespace != seen.namespace && !granted(seen, namespace, name) {
            return Some(Cause {
                kind: CauseKind::GrantMissing,
                wrong: format!(
                    "{object} leads to Service {namespace}/{name}, and no ReferenceGrant in namespace \
                     {namespace} lets HTTPRoutes of {} refer to it",
                    seen.namespace
                ),
                change: format!(
                    "create a ReferenceGrant in namespace {namespace}: spec.from HTTPRoute of {}, \
                     spec.to Service {name}",
                    seen.namespace
                ),
                see: format!("kubectl -n {namespace} get referencegrants -o yaml"),
            });
        }
        let service = seen.services.iter().find(|service| {
            service.namespace().as_deref() == Some(namespace) && service.name_any() == *name
        });
        let Some(service) = service else {
            let near = services::near_service(namespace, name, &seen.services);
            return Some(Cause {
                kind: CauseKind::BackendMissing,
                wrong: format!(
                    "{object} leads to Service {name}, which is not in namespace {namespace}{}",
                    did_you_mean(near.as_deref())
                ),
                change: match &near {
                    Some(near) => format!("set {field}.name of {object} to {near}"),
                    None => format!("{field}.name of {object}, or create Service {name}"),
                },
                see: object.see(),
            });
        };
        let port = backend.port?;
        if services::ports(service).iter().any(|has| has.port == port) {
            return None;
        }
        Some(Cause {
            kind: CauseKind::BackendPortMissing,
            wrong: format!(
                "{object} leads to port {port} of Service {name}, which has {}",
                services::said_ports(service)
            ),
            change: format!("{field}.port of {object}"),
            see: Object::new("Service", namespace, name).see(),
        })
    })
}

fn granted(seen: &Seen, namespace: &str, service: &str) -> bool {
    let grants = seen.grants.iter().filter(|(of, _)| of == namespace);
    grants.into_iter().any(|(_, grant)| {
        let from = grant.from.iter().any(|from| {
            from.group == "gateway.networking.k8s.io"
                && from.kind == "HTTPRoute"
                && from.namespace == seen.namespace
        });
        let to = grant.to.iter().any(|to| {
            let named = to
                .name
                .as_deref()
                .is_none_or(|name| name.is_empty() || name == service);
            to.group.is_empty() && to.kind == "Service" && named
        });
        from && to
    })
}

/// What the controllers say.
fn status(object: &Object<'_>, route: &HttpRoute) -> Option<Cause> {
    let parents = route
        .status
        .as_ref()
        .map(|status| status.parents.as_slice())
        .unwrap_or_default();
    let generation = route.metadata.generation;
    if parents.is_empty() {
        return stale(
            object,
            generation.or(Some(1)),
            &[],
            "the Gateway's controller",
        );
    }
    parents.iter().find_map(|parent| {
        stale(
            object,
            generation,
            &parent.conditions,
            &parent.controller_name,
        )
        .or_else(|| {
            let bad = [
                ("Accepted", "False"),
                ("ResolvedRefs", "False"),
                ("PartiallyInvalid", "True"),
            ];
            let condition = bad.iter().find_map(|(kind, status)| {
                find(&parent.conditions, kind).filter(|condition| condition.status == *status)
            })?;
            Some(Cause {
                kind: CauseKind::RouteCondition,
                wrong: format!(
                    "{object} is {} {} at Gateway {}: {}",
                    condition.type_,
                    condition.status,
                    parent.parent_ref.name,
                    words(condition)
                ),
                change: format!("what the message names, in spec of {object}"),
                see: object.describe(),
            })
        })
    })
}
