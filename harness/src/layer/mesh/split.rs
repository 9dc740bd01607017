//! Why a VirtualService does not give the arms their shares, or leads nowhere.
//!
//! Start from [`cause`]. Destinations come before weights, weights before the data plane, which is
//! to blame only where every object is right.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use super::objects::{Arm, DestinationRuleSpec, Read, ServiceEntrySpec, VirtualServiceSpec};
use super::sidecar::has_sidecar;
use crate::layer::labels;
use crate::layer::services::judge as services;
use crate::layer::workload;
use crate::settings::nearest;
use crate::verdict::cause::{Cause, CauseKind, Object, did_you_mean};

/// Shares closer than this to the weights follow them, as far as a diagnosis goes: the verdict is
/// not made here.
const CLOSE: f64 = 0.02;

/// What was seen of a split.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Seen {
    /// Where the VirtualService should be.
    pub(in crate::layer) namespace: String,
    /// What it should be called.
    pub(in crate::layer) name: String,
    /// Arms with the weights that are expected, in any unit; none if only hosts are looked at.
    pub(in crate::layer) expected: Vec<(String, f64)>,
    /// The share of each arm, 0 to 1.
    pub(in crate::layer) observed: Vec<(String, f64)>,
    /// Every VirtualService of the namespace.
    pub(in crate::layer) virtual_services: Vec<Read<VirtualServiceSpec>>,
    /// Every DestinationRule of the namespace.
    pub(in crate::layer) destination_rules: Vec<Read<DestinationRuleSpec>>,
    /// Every ServiceEntry of the namespace.
    pub(in crate::layer) service_entries: Vec<Read<ServiceEntrySpec>>,
    /// Every Service of the cluster.
    pub(in crate::layer) services: Vec<Service>,
    /// The EndpointSlices of the namespace.
    pub(in crate::layer) slices: Vec<EndpointSlice>,
    /// The pods of the namespace, and what explains them.
    pub(in crate::layer) workload: workload::Seen,
}

/// The cause, if evidence names one.
pub(in crate::layer) fn cause(seen: &Seen) -> Option<Cause> {
    let Some(virtual_service) = seen.virtual_services.iter().find(|it| it.name == seen.name) else {
        return Some(missing(seen));
    };
    destinations(seen, virtual_service)
        .or_else(|| host(seen, virtual_service))
        .or_else(|| weights(seen, virtual_service))
        .or_else(|| arms(seen, virtual_service))
        .or_else(|| data_plane(seen, virtual_service))
}

fn object(seen: &Seen) -> Object<'_> {
    Object::new("VirtualService", &seen.namespace, &seen.name)
}

fn missing(seen: &Seen) -> Cause {
    let object = object(seen);
    let names = seen.virtual_services.iter().map(|it| it.name.as_str());
    Cause {
        kind: CauseKind::VirtualServiceMissing,
        wrong: format!(
            "there is no {object}{}",
            did_you_mean(nearest(&seen.name, names))
        ),
        change: format!("create {object}"),
        see: format!("kubectl -n {} get virtualservices", seen.namespace),
    }
}

/// The Service that a host means: short names are of the VirtualService's own namespace.
fn service<'a>(seen: &'a Seen, host: &str) -> Option<&'a Service> {
    let (name, namespace) = parts(host, &seen.namespace)?;
    seen.services.iter().find(|service| {
        service.name_any() == name && service.namespace().as_deref() == Some(namespace)
    })
}

fn parts<'a>(host: &'a str, own: &'a str) -> Option<(&'a str, &'a str)> {
    let mut labels = host.split('.');
    let name = labels.next()?;
    match (labels.next(), labels.next()) {
        (None, _) => Some((name, own)),
        (Some(namespace), None | Some("svc")) => Some((name, namespace)),
        _ => None,
    }
}

/// Whether a host is one that somebody made known to the mesh.
fn known(seen: &Seen, host: &str) -> bool {
    let entry = |entry: &Read<ServiceEntrySpec>| entry.spec.hosts.iter().any(|has| has == host);
    service(seen, host).is_some() || host.contains('*') || seen.service_entries.iter().any(entry)
}

fn near(seen: &Seen, host: &str) -> Option<String> {
    let (name, namespace) = parts(host, &seen.namespace)?;
    services::near_service(namespace, name, &seen.services)
}

fn destinations(seen: &Seen, it: &Read<VirtualServiceSpec>) -> Option<Cause> {
    let object = object(seen);
    for (rule, arm, of) in routes(it) {
        let field = format!("spec.http[{rule}].route[{arm}].destination");
        let host = &of.destination.host;
        if !known(seen, host) {
            let near = near(seen, host);
            return Some(Cause {
                kind: CauseKind::BackendMissing,
                wrong: format!(
                    "{object} leads to host {host}, which no Service or ServiceEntry has{}",
                    did_you_mean(near.as_deref())
                ),
                change: match near {
                    Some(near) => format!("set {field}.host of {object} to {near}"),
                    None => format!("{field}.host of {object}, or create Service {host}"),
                },
                see: object.see(),
            });
        }
        let Some(subset) = &of.destination.subset else {
            continue;
        };
        if let Some(cause) = no_subset(seen, host, subset, &field) {
            return Some(cause);
        }
    }
    None
}

fn routes(it: &Read<VirtualServiceSpec>) -> impl Iterator<Item = (usize, usize, &Arm)> {
    let rules = it.spec.http.iter().enumerate();
    rules.flat_map(|(rule, http)| {
        let arms = http.route.iter().enumerate();
        arms.map(move |(arm, of)| (rule, arm, of))
    })
}

fn no_subset(seen: &Seen, host: &str, subset: &str, field: &str) -> Option<Cause> {
    let object = object(seen);
    let same = |rule: &&Read<DestinationRuleSpec>| {
        let other = &rule.spec.host;
        other == host || parts(other, &seen.namespace) == parts(host, &seen.namespace)
    };
    let rules: Vec<_> = seen.destination_rules.iter().filter(same).collect();
    let Some(first) = rules.first() else {
        return Some(Cause {
            kind: CauseKind::SubsetMissing,
            wrong: format!(
                "{object} leads to subset {subset} of {host}, and no DestinationRule is for that host"
            ),
            change: format!("create a DestinationRule with spec.host {host} and a subset {subset}"),
            see: format!("kubectl -n {} get destinationrules", seen.namespace),
        });
    };
    let subsets = || rules.iter().flat_map(|rule| &rule.spec.subsets);
    let destination_rule = Object::new("DestinationRule", &first.namespace, &first.name);
    let Some(found) = subsets().find(|has| has.name == subset) else {
        let near = nearest(subset, subsets().map(|has| has.name.as_str()));
        let has: Vec<_> = subsets().map(|has| has.name.as_str()).collect();
        return Some(Cause {
            kind: CauseKind::SubsetMissing,
            wrong: format!(
                "{object} leads to subset {subset} of {host}; {destination_rule} has {}{}",
                if has.is_empty() {
                    "no subset".to_owned()
                } else {
                    has.join(", ")
                },
                did_you_mean(near)
            ),
            change: match near {
                Some(near) => format!("set {field}.subset of {object} to {near}"),
                None => {
                    format!("{field}.subset of {object}, or spec.subsets of {destination_rule}")
                }
            },
            see: destination_rule.see(),
        });
    };
    let mut terms = services::selector(service(seen, host)?);
    let of_host: Vec<_> = labels::selected(&terms, &seen.workload.pods);
    terms.extend(found.labels.clone());
    let all: Vec<_> = of_host.iter().map(|pod| pod.labels()).collect();
    let miss = labels::miss(&terms, subset, &all)?;
    let at = first
        .spec
        .subsets
        .iter()
        .position(|has| has.name == subset)
        .unwrap_or_default();
    Some(Cause {
        kind: CauseKind::SubsetMatchesNothing,
        wrong: format!(
            "subset {subset} of {destination_rule} matches no pod of {host}: its label {} is {}, and {}{}",
            miss.key,
            miss.value,
            miss.instead(),
            did_you_mean(miss.near_value.as_deref().or(miss.near_key.as_deref()))
        ),
        change: format!(
            "spec.subsets[{at}].labels.{} of {destination_rule}",
            miss.key
        ),
        see: destination_rule.see(),
    })
}

/// The VirtualService is for hosts that no Service has, so it applies to nothing.
fn host(seen: &Seen, it: &Read<VirtualServiceSpec>) -> Option<Cause> {
    let object = object(seen);
    let (at, host) = it
        .spec
        .hosts
        .iter()
        .enumerate()
        .find(|(_, host)| !known(seen, host))?;
    let near = near(seen, host)?;
    Some(Cause {
        kind: CauseKind::VirtualServiceHost,
        wrong: format!(
            "{object} is for host {host}, which no Service has, so it applies to nothing; did you mean \
             {near}?"
        ),
        change: format!("set spec.hosts[{at}] of {object} to {near}"),
        see: object.see(),
    })
}

/// An arm, its expected weight out of 100, and the route that is meant with its place, if there is one.
type Meant<'a> = (&'a str, f64, Option<(usize, &'a Arm)>);

/// The rule that splits, and each expected arm in it; nothing unless every arm is told apart.
fn matched<'a>(
    seen: &'a Seen,
    it: &'a Read<VirtualServiceSpec>,
) -> Option<(usize, Vec<Meant<'a>>)> {
    // A rule per arm would be something else than a split; the first with weights is judged.
    let rule = it
        .spec
        .http
        .iter()
        .position(|rule| rule.route.len() > 1)
        .unwrap_or_default();
    let routes: Vec<_> = it.spec.http.get(rule)?.route.iter().enumerate().collect();
    let total: f64 = seen.expected.iter().map(|(_, weight)| weight).sum();
    let mut found = Vec::new();
    for (arm, weight) in &seen.expected {
        let says = |of: &&(usize, &Arm)| names(of.1, arm);
        let mut of_arm = routes.iter().filter(says);
        let first = of_arm.next().copied();
        if of_arm.next().is_some() {
            return None;
        }
        found.push((arm.as_str(), weight / total * 100.0, first));
    }
    // Names that say nothing of the routes: the order does, if there are as many.
    if found.iter().all(|(_, _, route)| route.is_none()) {
        if found.len() != routes.len() {
            return None;
        }
        for (found, route) in found.iter_mut().zip(&routes) {
            found.2 = Some(*route);
        }
    }
    Some((rule, found))
}

/// Whether a route is the one that an arm is called after: its subset, its host, or an end of it
/// (`canary` of `frontend-canary`).
fn names(route: &Arm, arm: &str) -> bool {
    let short = route.destination.host.split('.').next().unwrap_or_default();
    let ends = |long: &str, short: &str| {
        long == short
            || long
                .strip_suffix(short)
                .is_some_and(|rest| rest.ends_with(['-', '.', '/']))
    };
    match &route.destination.subset {
        Some(subset) => ends(arm, subset) || ends(subset, arm),
        None => ends(short, arm) || ends(arm, short),
    }
}

fn weights(seen: &Seen, it: &Read<VirtualServiceSpec>) -> Option<Cause> {
    let object = object(seen);
    let (rule, arms) = matched(seen, it)?;
    let total: u32 = it
        .spec
        .http
        .get(rule)?
        .route
        .iter()
        .map(|arm| arm.weight)
        .sum();
    // A single route may leave its weight out.
    let share = |weight: u32| match (total, it.spec.http[rule].route.len()) {
        (0, 1) => 100.0,
        (0, _) => 0.0,
        (total, _) => f64::from(weight) / f64::from(total) * 100.0,
    };
    let absent: Vec<_> = arms
        .iter()
        .filter(|(_, _, route)| route.is_none())
        .collect();
    let (said, change) = if absent.is_empty() {
        let of = if total == 100 {
            String::new()
        } else {
            format!(" of {total}")
        };
        let differs = arms.iter().filter_map(|(arm, expected, route)| {
            let (at, route) = (*route)?;
            let field = format!("spec.http[{rule}].route[{at}].weight");
            ((share(route.weight) - expected).abs() > 0.5).then(|| {
                let said = format!(
                    "{field} ({arm}) is {}{of}, expected {expected:.0}",
                    route.weight
                );
                (said, format!("{field} to {expected:.0}"))
            })
        });
        let (said, fields): (Vec<_>, Vec<_>) = differs.unzip();
        (said, format!("set {} in {object}", fields.join(" and ")))
    } else {
        let said = absent
            .iter()
            .map(|(arm, ..)| format!("spec.http[{rule}].route has no arm {arm}"));
        let weights = absent
            .iter()
            .map(|(arm, weight, _)| format!("{arm} with weight {weight:.0}"));
        let weights: Vec<_> = weights.collect();
        let change = format!(
            "add {} to spec.http[{rule}].route of {object}",
            weights.join(" and ")
        );
        (said.collect(), change)
    };
    if said.is_empty() {
        return None;
    }
    Some(Cause {
        kind: CauseKind::WeightsDiffer,
        wrong: format!("{object} asks for other weights: {}", said.join(", ")),
        change,
        see: format!(
            "kubectl -n {} get virtualservice {} -o jsonpath='{{.spec.http[{rule}].route}}'",
            seen.namespace, seen.name
        ),
    })
}

/// An arm that nobody stands behind.
fn arms(seen: &Seen, it: &Read<VirtualServiceSpec>) -> Option<Cause> {
    let shared: u32 = routes(it).map(|(_, _, of)| of.weight).sum();
    // Who is to get nothing need not be there.
    let counts = |of: &Arm| shared == 0 || of.weight > 0;
    routes(it)
        .filter(|(_, _, of)| counts(of))
        .find_map(|(_, _, of)| {
            let host = &of.destination.host;
            let (name, namespace) = parts(host, &seen.namespace)?;
            let slices = seen.slices.iter().filter(|slice| {
                slice
                    .labels()
                    .get("kubernetes.io/service-name")
                    .is_some_and(|has| has == name)
            });
            services::cause(&services::Seen {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                services: seen.services.clone(),
                slices: slices.cloned().collect(),
                workload: seen.workload.clone(),
                ..services::Seen::default()
            })
            .filter(|_| namespace == seen.namespace)
        })
}

/// Every object is right: so it is those who should follow them.
fn data_plane(seen: &Seen, it: &Read<VirtualServiceSpec>) -> Option<Cause> {
    let object = object(seen);
    let (rule, arms) = matched(seen, it)?;
    let off: Vec<_> = arms
        .iter()
        .filter_map(|(arm, expected, _)| {
            let (_, share) = seen.observed.iter().find(|(name, _)| name == arm)?;
            ((share - expected / 100.0).abs() > CLOSE).then(|| {
                format!(
                    "{arm} gets {:.1} % instead of {expected:.0} %",
                    share * 100.0
                )
            })
        })
        .collect();
    if off.is_empty() {
        return None;
    }
    let living = |pod: &&Pod| !workload::leaving(pod);
    let outside: Vec<_> = seen.workload.pods.iter().filter(living).collect();
    if !outside.is_empty() && !outside.iter().any(|pod| has_sidecar(pod)) {
        return Some(Cause {
            kind: CauseKind::ClientOutsideMesh,
            wrong: format!(
                "no pod of namespace {} has a sidecar, and sidecars are what applies {object}",
                seen.namespace
            ),
            change: format!(
                "set label istio-injection of Namespace {} to enabled, then restart its workloads",
                seen.namespace
            ),
            see: format!("kubectl get namespace {} --show-labels", seen.namespace),
        });
    }
    Some(Cause {
        kind: CauseKind::WeightsNotFollowed,
        wrong: format!(
            "the data plane does not follow the weights of {object}, which are as expected: {}",
            off.join(", ")
        ),
        change: "nothing in the objects: see that the client's sidecar has the route (istioctl \
                 proxy-status), and that it does not keep one connection for all requests"
            .into(),
        see: format!(
            "kubectl -n {} get virtualservice {} -o jsonpath='{{.spec.http[{rule}].route}}'",
            seen.namespace, seen.name
        ),
    })
}
