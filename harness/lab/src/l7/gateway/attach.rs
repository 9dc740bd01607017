//! Which listeners a route is attached to.
//!
//! Start from [`attach`]. A route asks by `parentRefs`, a listener allows by `allowedRoutes`, and
//! their hostnames must have something in common; the route is accepted if one listener takes it.

use gateway_api::experimental::httproutes::HttpRouteParentRefs;
use gateway_api::gateways::GatewayListenersAllowedRoutesNamespacesFrom;
use kube::ResourceExt;

use super::holder::Holder;
use super::host::Hostname;
use super::input::{Input, Problem};
use super::listener::Listener;
use super::route::{Kind, Route};

/// A listener, by its place in the Gateway, and the hosts for which it serves a route.
pub(super) type Attachment = (usize, Vec<Hostname>);

/// The listeners that take a route from one of its parent references, or why none does.
///
/// | | reason |
/// | --- | --- |
/// | no listener of that `sectionName` and `port`; none is named, and none's protocol carries it | `NoMatchingParent` |
/// | none of those allows the route's kind and namespace | `NotAllowedByListeners` |
/// | none of those has a hostname in common | `NoMatchingListenerHostname` |
///
/// A route that others keep from all of its hosts is not accepted either: [`Hosts::apart`].
pub(super) fn attach(
    input: &Input,
    of: Holder<'_>,
    listeners: &[Listener<'_>],
    route: &Route,
    parent: &HttpRouteParentRefs,
) -> Result<Vec<Attachment>, Problem> {
    let meant: Vec<(usize, &Listener<'_>)> = listeners
        .iter()
        .enumerate()
        .filter(|(_, listener)| {
            let section = parent.section_name.as_ref();
            listener.of.is(of)
                && section.is_none_or(|section| *section == listener.spec.name)
                && parent.port.is_none_or(|port| port == listener.spec.port)
        })
        .collect();
    let name = of.described();
    if meant.is_empty() {
        let own = listeners.iter().filter(|listener| listener.of.is(of));
        let has: Vec<String> = own
            .map(|listener| format!("{} (port {})", listener.spec.name, listener.spec.port))
            .collect();
        let message = format!(
            "{name} has no listener of that sectionName and port, but {}",
            has.join(", ")
        );
        return Err(Problem::new("NoMatchingParent", message));
    }
    let carried = meant
        .iter()
        .any(|(_, listener)| listener.carries(route.kind));
    if parent.section_name.is_none() && !carried {
        let message = format!(
            "no listener of {name} has a protocol that {}s are for",
            route.kind.name()
        );
        return Err(Problem::new("NoMatchingParent", message));
    }
    let namespace = route.namespace().unwrap_or_default();
    let allowed: Vec<(usize, &Listener<'_>)> = meant
        .into_iter()
        .filter(|(_, listener)| {
            listener.takes.contains(&route.kind) && takes_namespace(input, listener, &namespace)
        })
        .collect();
    if allowed.is_empty() {
        let message = format!(
            "no listener of {name} allows {}s of namespace {namespace} (allowedRoutes)",
            route.kind.name()
        );
        return Err(Problem::new("NotAllowedByListeners", message));
    }
    let hostnames = route_hostnames(route);
    let attached: Vec<Attachment> = allowed
        .into_iter()
        .filter_map(|(index, listener)| {
            let mut common: Vec<Hostname> = hostnames
                .iter()
                .filter_map(|hostname| listener.hostname.intersect(hostname))
                .collect();
            common.sort();
            common.dedup();
            (!common.is_empty()).then_some((index, common))
        })
        .collect();
    if attached.is_empty() {
        let message = format!(
            "no listener of {name} has a hostname in common with the route's ({})",
            route.spec.hostnames.clone().unwrap_or_default().join(", ")
        );
        return Err(Problem::new("NoMatchingListenerHostname", message));
    }
    Ok(attached)
}

/// Which hosts of each listener are whose kind of route's.
pub(super) struct Hosts(Vec<Vec<(Kind, Hostname)>>);

impl Hosts {
    /// Of so many listeners, before any route.
    pub(super) fn new(listeners: usize) -> Self {
        Self(vec![Vec::new(); listeners])
    }

    /// Those of the attachments of a route where no route before it, of the other kind of HTTPRoute and GRPCRoute,
    /// has a host in common with it ("the implementation MUST accept exactly one of these two routes").
    /// Routes come by age.
    pub(super) fn apart(
        &mut self,
        kind: Kind,
        attachments: Vec<Attachment>,
    ) -> Result<Vec<Attachment>, Problem> {
        if ![Kind::Http, Kind::Grpc].contains(&kind) {
            return Ok(attachments);
        }
        let mut apart = Vec::new();
        let mut other = None;
        for (index, hosts) in attachments {
            let meets = |(of, host): &(Kind, Hostname)| {
                *of != kind && hosts.iter().any(|own| own.intersect(host).is_some())
            };
            match self.0[index].iter().find(|before| meets(before)) {
                Some((of, host)) => other = Some((*of, host.domain())),
                None => apart.push((index, hosts)),
            }
        }
        for (index, hosts) in &apart {
            self.0[*index].extend(hosts.iter().map(|host| (kind, host.clone())));
        }
        match other {
            Some((of, host)) if apart.is_empty() => {
                let message = format!("host {host} of its listener is an older {}'s", of.name());
                Err(Problem::new("HostnameConflict", message))
            }
            _ => Ok(apart),
        }
    }
}

fn route_hostnames(route: &Route) -> Vec<Hostname> {
    match route.spec.hostnames.as_deref() {
        None | Some([]) => vec![Hostname::Any],
        Some(hostnames) => hostnames
            .iter()
            .map(|hostname| Hostname::parse(Some(hostname)))
            .collect(),
    }
}

fn takes_namespace(input: &Input, listener: &Listener<'_>, namespace: &str) -> bool {
    let allowed = listener.spec.allowed_routes.as_ref();
    let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
    match namespaces.and_then(|namespaces| namespaces.from.as_ref()) {
        Some(GatewayListenersAllowedRoutesNamespacesFrom::All) => true,
        Some(GatewayListenersAllowedRoutesNamespacesFrom::Selector) => {
            let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
            input.selects(selector, namespace)
        }
        Some(GatewayListenersAllowedRoutesNamespacesFrom::Same) | None => {
            listener.of.namespace() == namespace
        }
    }
}
