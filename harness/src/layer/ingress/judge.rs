//! Why a request through an Ingress is not answered by the pods it should be.
//!
//! Start from [`cause`]. Class, host and path come in the order in which a controller looks at
//! them; behind them stands the Service, whose own diagnosis follows.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressClass, IngressRule, IngressServiceBackend,
};
use kube::ResourceExt;

use crate::layer::paths::{self, How, Path};
use crate::layer::services::judge as services;
use crate::provider::is_default;
use crate::settings::nearest;
use crate::verdict::cause::{Cause, CauseKind, Object, did_you_mean};

/// The annotation that came before `spec.ingressClassName`.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// What was seen of an Ingress.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Seen {
    /// Where it should be.
    pub(in crate::layer) namespace: String,
    /// What it should be called.
    pub(in crate::layer) name: String,
    /// The Host header of the request.
    pub(in crate::layer) host: Option<String>,
    /// Its path.
    pub(in crate::layer) path: String,
    /// Every Ingress of the cluster.
    pub(in crate::layer) ingresses: Vec<Ingress>,
    /// Every IngressClass.
    pub(in crate::layer) classes: Vec<IngressClass>,
    /// Every Service of the cluster.
    pub(in crate::layer) services: Vec<Service>,
    /// The Secrets of the namespace.
    pub(in crate::layer) secrets: Vec<Secret>,
}

/// What the request leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::layer) struct Backend {
    /// The Service.
    pub(in crate::layer) service: String,
    /// Its port.
    pub(in crate::layer) port: u16,
}

impl Seen {
    fn ingress(&self) -> Option<&Ingress> {
        self.ingresses.iter().find(|ingress| {
            ingress.namespace().as_deref() == Some(&self.namespace)
                && ingress.name_any() == self.name
        })
    }

    fn object(&self) -> Object<'_> {
        Object::new("Ingress", &self.namespace, &self.name)
    }
}

/// The cause, if evidence names one.
pub(in crate::layer) fn cause(seen: &Seen) -> Option<Cause> {
    let Some(ingress) = seen.ingress() else {
        return Some(missing(seen));
    };
    class(seen, ingress)
        .or_else(|| host(seen, ingress))
        .or_else(|| path(seen, ingress))
        .or_else(|| service(seen, ingress))
        .or_else(|| tls(seen, ingress))
        .or_else(|| address(seen, ingress))
}

/// The Service that the request leads to, where all about the Ingress is right.
pub(in crate::layer) fn backend(seen: &Seen) -> Option<Backend> {
    let (_, backend) = chosen(seen, seen.ingress()?)?;
    let service = find(seen, &backend.name)?;
    let port = backend.port.as_ref()?;
    let ports = services::ports(service).iter();
    let port = match (&port.name, port.number) {
        (Some(name), _) => {
            ports
                .clone()
                .find(|has| has.name.as_ref() == Some(name))?
                .port
        }
        (None, number) => number?,
    };
    Some(Backend {
        service: backend.name.clone(),
        port: u16::try_from(port).ok()?,
    })
}

fn missing(seen: &Seen) -> Cause {
    let object = seen.object();
    let here = |ingress: &&Ingress| ingress.namespace().as_deref() == Some(&seen.namespace);
    let names: Vec<_> = seen
        .ingresses
        .iter()
        .filter(here)
        .map(ResourceExt::name_any)
        .collect();
    let near = nearest(&seen.name, names.iter().map(String::as_str));
    Cause {
        kind: CauseKind::IngressMissing,
        wrong: format!("there is no {object}{}", did_you_mean(near)),
        change: format!("create {object}"),
        see: format!("kubectl -n {} get ingress", seen.namespace),
    }
}

fn class(seen: &Seen, ingress: &Ingress) -> Option<Cause> {
    let object = seen.object();
    let see = "kubectl get ingressclass".to_owned();
    let names: Vec<_> = seen.classes.iter().map(ResourceExt::name_any).collect();
    let there = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    let spec = ingress.spec.as_ref()?;
    let Some(class) = &spec.ingress_class_name else {
        // The old annotation names a controller's own word, which need be no IngressClass.
        if ingress.annotations().contains_key(OLD_CLASS) {
            return None;
        }
        return (!seen.classes.iter().any(is_default)).then(|| Cause {
            kind: CauseKind::IngressClassUnset,
            wrong: format!(
                "{object} names no class, and no IngressClass is the default (there is {there})"
            ),
            change: format!("set spec.ingressClassName of {object}"),
            see,
        });
    };
    if names.contains(class) {
        return None;
    }
    let near = nearest(class, names.iter().map(String::as_str)).or_else(|| {
        names
            .first()
            .filter(|_| names.len() == 1)
            .map(String::as_str)
    });
    Some(Cause {
        kind: CauseKind::IngressClassMissing,
        wrong: format!(
            "{object} is of class {class}, and there is no such IngressClass (there is {there}){}",
            did_you_mean(near)
        ),
        change: match near {
            Some(near) => format!("set spec.ingressClassName of {object} to {near}"),
            None => {
                format!("spec.ingressClassName of {object}, or install the controller of {class}")
            }
        },
        see,
    })
}

fn rules(ingress: &Ingress) -> &[IngressRule] {
    let spec = ingress.spec.as_ref();
    spec.and_then(|spec| spec.rules.as_deref())
        .unwrap_or_default()
}

/// Whether a rule is for a host: equal, or by a wildcard for exactly one label.
fn is_for(rule: &IngressRule, host: Option<&str>) -> bool {
    let Some(of_rule) = rule.host.as_deref().filter(|host| !host.is_empty()) else {
        return true;
    };
    let Some(host) = host.map(bare_host) else {
        return false;
    };
    let of_rule = of_rule.to_ascii_lowercase();
    match of_rule.strip_prefix("*.") {
        Some(suffix) => host
            .split_once('.')
            .is_some_and(|(first, rest)| !first.is_empty() && rest == suffix),
        None => host == of_rule,
    }
}

fn bare_host(host: &str) -> String {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.to_ascii_lowercase()
}

fn has_default_backend(ingress: &Ingress) -> bool {
    let spec = ingress.spec.as_ref();
    spec.is_some_and(|spec| spec.default_backend.is_some())
}

fn host(seen: &Seen, ingress: &Ingress) -> Option<Cause> {
    let object = seen.object();
    let asked = seen.host.as_deref();
    let rules = rules(ingress);
    if has_default_backend(ingress) || rules.iter().any(|rule| is_for(rule, asked)) {
        return None;
    }
    let hosts: BTreeSet<_> = rules
        .iter()
        .filter_map(|rule| rule.host.as_deref())
        .collect();
    let said = hosts.iter().copied().collect::<Vec<_>>().join(", ");
    let Some(asked) = asked else {
        return Some(Cause {
            kind: CauseKind::IngressHost,
            wrong: format!(
                "the request names no host, and every rule of {object} is for one ({said})"
            ),
            change: format!("send Host: {said}, or take spec.rules[].host out of {object}"),
            see: object.see(),
        });
    };
    let bare = bare_host(asked);
    let near = nearest(&bare, hosts.iter().copied());
    let at = rules
        .iter()
        .position(|rule| rule.host.as_deref() == near && near.is_some());
    Some(Cause {
        kind: CauseKind::IngressHost,
        wrong: format!(
            "no rule of {object} is for host {asked}: {}",
            match near {
                Some(near) => format!("spec.rules[{}].host is {near}", at.unwrap_or_default()),
                None => format!("its hosts are {said}"),
            }
        ),
        change: format!(
            "set spec.rules[{}].host of {object} to {bare}",
            at.unwrap_or_default()
        ),
        see: object.see(),
    })
}

/// The paths of the rules for the host that was asked for, with their backends.
fn candidates<'a>(seen: &Seen, ingress: &'a Ingress) -> Vec<(Path, &'a HTTPIngressPath)> {
    let rules = rules(ingress).iter().enumerate();
    let rules = rules.filter(|(_, rule)| is_for(rule, seen.host.as_deref()));
    rules
        .flat_map(|(at, rule)| {
            let paths = rule.http.iter().flat_map(|http| &http.paths).enumerate();
            paths.map(move |(index, path)| {
                let how = match path.path_type.as_str() {
                    "Exact" => How::Exact,
                    "Prefix" => How::Prefix,
                    _ => How::Other,
                };
                let judged = Path {
                    how,
                    path: path.path.clone().unwrap_or_else(|| "/".into()),
                    field: format!("spec.rules[{at}].http.paths[{index}].path"),
                };
                (judged, path)
            })
        })
        .collect()
}

fn path(seen: &Seen, ingress: &Ingress) -> Option<Cause> {
    let object = seen.object();
    let candidates: Vec<_> = candidates(seen, ingress)
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    if candidates.is_empty() || has_default_backend(ingress) {
        return None;
    }
    let miss = paths::miss(&seen.path, &candidates)?;
    let host = seen
        .host
        .as_deref()
        .map(|host| format!(" of host {host}"))
        .unwrap_or_default();
    let said: Vec<_> = candidates.iter().map(ToString::to_string).collect();
    let (tail, change) = match (&miss.near, &miss.because) {
        (Some((path, _)), Some(because)) => (
            because.clone(),
            format!(
                "the path that is asked for, or {} (or its pathType) of {object}",
                path.field
            ),
        ),
        (Some((path, should)), None) => (
            format!("{} is {}", path.field, path.path),
            format!("set {} of {object} to {should}", path.field),
        ),
        (None, _) => (
            format!("its paths are {}", said.join(", ")),
            format!(
                "add the path {} to spec.rules[].http.paths of {object}",
                seen.path
            ),
        ),
    };
    Some(Cause {
        kind: CauseKind::IngressPath,
        wrong: format!("no path of {object}{host} matches {}: {tail}", seen.path),
        change,
        see: object.see(),
    })
}

/// The backend that the request leads to, and the field that names it: Exact before prefixes, the
/// longest first.
fn chosen<'a>(seen: &Seen, ingress: &'a Ingress) -> Option<(String, &'a IngressServiceBackend)> {
    let mut matching = candidates(seen, ingress);
    matching.retain(|(path, _)| path.matches(&seen.path));
    let best = matching
        .into_iter()
        .max_by_key(|(path, _)| (path.how == How::Exact, path.path.len()));
    match best {
        Some((path, rule)) => {
            let field = path.field.trim_end_matches(".path").to_owned();
            Some((
                format!("{field}.backend.service"),
                rule.backend.service.as_ref()?,
            ))
        }
        None => {
            let backend = ingress.spec.as_ref()?.default_backend.as_ref()?;
            Some((
                "spec.defaultBackend.service".into(),
                backend.service.as_ref()?,
            ))
        }
    }
}

fn find<'a>(seen: &'a Seen, name: &str) -> Option<&'a Service> {
    seen.services.iter().find(|service| {
        service.namespace().as_deref() == Some(&seen.namespace) && service.name_any() == name
    })
}

fn service(seen: &Seen, ingress: &Ingress) -> Option<Cause> {
    let (field, backend) = chosen(seen, ingress)?;
    let object = seen.object();
    let name = &backend.name;
    let Some(service) = find(seen, name) else {
        let near = services::near_service(&seen.namespace, name, &seen.services);
        return Some(Cause {
            kind: CauseKind::BackendMissing,
            wrong: format!(
                "{object} leads to Service {name}, which is not in namespace {}{}",
                seen.namespace,
                did_you_mean(near.as_deref())
            ),
            change: match &near {
                Some(near) => format!("set {field}.name of {object} to {near}"),
                None => format!("{field}.name of {object}, or create Service {name}"),
            },
            see: object.see(),
        });
    };
    let port = backend.port.as_ref()?;
    let known = services::ports(service)
        .iter()
        .any(|has| match (&port.name, port.number) {
            (Some(name), _) => has.name.as_ref() == Some(name),
            (None, number) => Some(has.port) == number,
        });
    if known {
        return None;
    }
    let (asked, field) = match (&port.name, port.number) {
        (Some(name), _) => (name.clone(), format!("{field}.port.name")),
        (None, number) => (number?.to_string(), format!("{field}.port.number")),
    };
    Some(Cause {
        kind: CauseKind::BackendPortMissing,
        wrong: format!(
            "{object} leads to port {asked} of Service {name}, which has {}",
            services::said_ports(service)
        ),
        change: format!("{field} of {object}"),
        see: Object::new("Service", &seen.namespace, name).see(),
    })
}

fn tls(seen: &Seen, ingress: &Ingress) -> Option<Cause> {
    let object = seen.object();
    let entries = ingress.spec.as_ref()?.tls.iter().flatten().enumerate();
    entries.into_iter().find_map(|(at, entry)| {
        let name = entry
            .secret_name
            .as_deref()
            .filter(|name| !name.is_empty())?;
        let secret = seen.secrets.iter().find(|secret| secret.name_any() == name);
        let what = match secret {
            None => "which is not there".to_owned(),
            Some(secret) if secret.type_.as_deref() != Some("kubernetes.io/tls") => format!(
                "which is of type {}, not kubernetes.io/tls",
                secret.type_.as_deref().unwrap_or("Opaque")
            ),
            Some(_) => return None,
        };
        let names: Vec<_> = seen.secrets.iter().map(ResourceExt::name_any).collect();
        let near = nearest(
            name,
            names
                .iter()
                .map(String::as_str)
                .filter(|near| *near != name),
        );
        Some(Cause {
            kind: CauseKind::TlsSecret,
            wrong: format!(
                "{object} takes its certificate from Secret {}/{name}, {what}{}",
                seen.namespace,
                did_you_mean(near)
            ),
            change: format!("spec.tls[{at}].secretName of {object}, or create the Secret"),
            see: format!("kubectl -n {} get secrets", seen.namespace),
        })
    })
}

fn address(seen: &Seen, ingress: &Ingress) -> Option<Cause> {
    let addressed = |ingress: &Ingress| {
        let status = ingress.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        balancer.is_some_and(|balancer| balancer.ingress.iter().flatten().next().is_some())
    };
    if addressed(ingress) {
        return None;
    }
    let object = seen.object();
    let name = |ingress: &Ingress| ingress.spec.as_ref()?.ingress_class_name.clone();
    let class = name(ingress);
    let controller = class.as_ref().and_then(|class| {
        let class = seen.classes.iter().find(|has| has.name_any() == *class)?;
        class.spec.as_ref()?.controller.clone()
    });
    let of = match (&class, &controller) {
        (Some(class), Some(controller)) => {
            format!("its class {class} belongs to controller {controller}")
        }
        _ => "it names no class".to_owned(),
    };
    let other = seen
        .ingresses
        .iter()
        .find(|other| addressed(other) && name(other) != class);
    let other = other
        .and_then(name)
        .map(|class| format!("; Ingresses of class {class} have one"))
        .unwrap_or_default();
    Some(Cause {
        kind: CauseKind::IngressNotServed,
        wrong: format!("no controller gave {object} an address: {of}{other}"),
        change: format!("spec.ingressClassName of {object}, or start the controller of its class"),
        see: "kubectl get pods -A && kubectl get ingressclass".into(),
    })
}
