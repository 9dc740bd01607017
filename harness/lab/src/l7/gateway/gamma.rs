//! Routes whose parent is a Service (GAMMA, GEP-1294 and GEP-1426): what a mesh does with requests for it.
//!
//! Start from [`ServiceRoutes::of`]. Their rules are read as a Gateway's are; which cluster a backend is, is
//! the mesh's to say, and so is what comes of a request that no route has: it is given here none at all, and
//! where a Service has routes, 404. What is said of the routes is [`super::mesh_status`]'s.

use std::sync::Arc;

use gateway_api::experimental::httproutes::{HttpRoute, HttpRouteParentRefs};
use gateway_api::grpcroutes::GrpcRoute;
use gateway_api::referencegrants::ReferenceGrant;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};

use super::backend::Backends;
use super::filter::Place;
use super::input::{Input, Problem};
use super::listener::Protocol;
use super::route::Route;
use super::rule::{Rank, Rules, rules};
use super::translate::Parent;
use crate::l7::cluster::Services;
use crate::l7::envoy::route::Route as EnvoyRoute;
use crate::world::World;

/// The name of the cluster of a Service's port: its namespace, its name, and the port.
pub(crate) type Naming = fn(&str, &str, u16) -> String;

/// Stores of what [`ServiceRoutes`] are made from. The kinds may be defined later than they are asked for.
pub(crate) struct Stores {
    http: Store<HttpRoute>,
    grpc: Store<GrpcRoute>,
    grants: Store<ReferenceGrant>,
}

impl Stores {
    /// Begins to fill them.
    pub(crate) fn watch(world: &mut World, client: &Client) -> Self {
        Self {
            http: world.watch_later(Api::all(client.clone())),
            grpc: world.watch_later(Api::all(client.clone())),
            grants: world.watch_later(Api::all(client.clone())),
        }
    }

    /// What they hold now, of routes whose parents are Services.
    pub(crate) fn routes(&self, services: &Services) -> ServiceRoutes {
        let meshed = |parents: Option<&Vec<HttpRouteParentRefs>>| {
            let mut parents = parents.into_iter().flatten();
            parents.any(is_service)
        };
        let http = self.http.state().into_iter();
        let http: Vec<_> = http
            .filter(|route| meshed(route.spec.parent_refs.as_ref()))
            .collect();
        let read = |route: Arc<GrpcRoute>| {
            let read = Route::of_grpc(&route)?;
            meshed(read.spec.parent_refs.as_ref()).then_some((route, read))
        };
        let (grpc, calls): (Vec<_>, Vec<_>) =
            self.grpc.state().into_iter().filter_map(read).unzip();
        let routes = http.iter().cloned().map(Route::from);
        let routes: Vec<Route> = routes.chain(calls).collect();
        if routes.is_empty() {
            return ServiceRoutes::default();
        }
        let grants = self.grants.state();
        ServiceRoutes {
            http,
            grpc,
            input: Some(Arc::new(Input {
                routes,
                grants,
                services: services.clone(),
                ..Input::default()
            })),
        }
    }
}

/// Routes whose parents are Services, as they were at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceRoutes {
    http: Vec<Arc<HttpRoute>>,
    grpc: Vec<Arc<GrpcRoute>>,
    /// None where there is no route.
    input: Option<Arc<Input>>,
}

impl ServiceRoutes {
    /// Whether both say the same: what is said of routes in their status is nothing to a sidecar. Services are
    /// compared by whoever has them.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let grants = |routes: &Self| routes.input.as_ref().map(|input| input.grants.clone());
        same_generations(&self.http, &other.http)
            && same_generations(&self.grpc, &other.grpc)
            && same_generations(
                &grants(self).unwrap_or_default(),
                &grants(other).unwrap_or_default(),
            )
    }

    /// Whether some route has a Service, or a port of it, for a parent.
    pub(crate) fn concern(&self, service: (&str, &str)) -> bool {
        let mut routes = self.input.iter().flat_map(|input| &input.routes);
        routes.any(|route| parent_refs(route).any(|parent| names(parent, route, service, None)))
    }

    /// The routes of a client's requests for a port of a Service; nothing if no route has it for a parent.
    ///
    /// | the route is of | its parent is of | it is for clients of |
    /// | --- | --- | --- |
    /// | a namespace | the same | all namespaces |
    /// | a namespace | another | the route's, and goes before those for all |
    pub(crate) fn of(
        &self,
        service: (&str, &str),
        port: u16,
        client: &str,
        naming: Naming,
    ) -> Option<Vec<EnvoyRoute>> {
        let input = self.input.as_deref()?;
        // Most Services have none, and everything is asked for each of them.
        let all = input.those_by_age(|route| {
            let mut parents = route.spec.parent_refs.iter().flatten();
            parents.any(|parent| names(parent, route, service, Some(port)))
        });
        let parented = |own: bool| -> Vec<(usize, &Route)> {
            let home = |route: &Route| route.namespace().as_deref() == Some(service.0);
            let of_client = |route: &Route| route.namespace().as_deref() == Some(client);
            let wanted = |route: &Route| match own {
                true => of_client(route) && !home(route),
                false => home(route),
            };
            let aged = all.iter().copied().enumerate();
            aged.filter(|(_, route)| wanted(route)).collect()
        };
        let consumers = parented(true);
        let routes = match consumers.is_empty() {
            false => consumers,
            true => parented(false),
        };
        if routes.is_empty() {
            return None;
        }
        let mut ranked: Vec<(Rank, EnvoyRoute)> = Vec::new();
        for (age, route) in routes {
            ranked.extend(read(input, route, age, port, naming).routes);
        }
        ranked.sort_by(|(one, _), (other, _)| one.cmp(other));
        Some(ranked.into_iter().map(|(_, route)| route).collect())
    }

    /// What is to be said of each route by its parents that are Services.
    pub(super) fn parents(&self) -> Vec<(&Route, Vec<Parent<'_>>)> {
        let Some(input) = self.input.as_deref() else {
            return Vec::new();
        };
        let of = |route| {
            let all = parent_refs(route).filter(|parent| is_service(parent));
            (
                route,
                all.map(|reference| said(input, route, reference)).collect(),
            )
        };
        input.routes.iter().map(of).collect()
    }
}

fn parent_refs(route: &Route) -> impl Iterator<Item = &HttpRouteParentRefs> {
    route.spec.parent_refs.iter().flatten()
}

/// What is to be said of one of a route's parents.
fn said<'a>(input: &Input, route: &Route, reference: &'a HttpRouteParentRefs) -> Parent<'a> {
    let port = reference.port.and_then(|port| u16::try_from(port).ok());
    let judged = read(input, route, 0, port.unwrap_or(80), |_, _, _| String::new());
    let all = judged.dropped.len() == judged.total;
    let dropped = judged.dropped.into_iter().next().filter(|_| all);
    Parent {
        reference,
        refused: missing(input, route, reference).or(dropped),
        unresolved: judged.unresolved,
        partly: None,
    }
}

/// Whether objects are the same, and their specifications.
fn same_generations<K: ResourceExt>(one: &[Arc<K>], other: &[Arc<K>]) -> bool {
    let key = |object: &Arc<K>| (object.uid(), object.meta().generation);
    one.iter().map(key).eq(other.iter().map(key))
}

fn read(input: &Input, route: &Route, age: usize, port: u16, naming: Naming) -> Rules {
    let place = Place {
        port,
        protocol: Protocol::Http,
        ends_tls: false,
    };
    rules(route, age, place, &mut Backends::of_mesh(input, naming))
}

fn is_service(parent: &HttpRouteParentRefs) -> bool {
    parent.group.as_deref() == Some("") && parent.kind.as_deref() == Some("Service")
}

/// Whether a route's parent is this port of this Service, or any.
fn names(
    parent: &HttpRouteParentRefs,
    route: &Route,
    (namespace, name): (&str, &str),
    port: Option<u16>,
) -> bool {
    let of = parent
        .namespace
        .as_ref()
        .or(route.metadata.namespace.as_ref());
    parent.name == name
        && is_service(parent)
        && of.is_some_and(|of| of == namespace)
        && port.is_none_or(|port| parent.port.is_none_or(|own| own == i32::from(port)))
}

/// Why a Service is no parent: it, or its port, is not there.
fn missing(input: &Input, route: &Route, parent: &HttpRouteParentRefs) -> Option<Problem> {
    let namespace = parent.namespace.clone().or_else(|| route.namespace());
    let namespace = namespace.unwrap_or_default();
    let has = |service: &Service, wanted: i32| {
        let spec = service.spec.iter();
        let mut ports = spec.flat_map(|spec| spec.ports.iter().flatten());
        ports.any(|port| port.port == wanted)
    };
    let message = match input.services.find(&namespace, &parent.name) {
        None => format!("Service {namespace}/{} does not exist", parent.name),
        Some(service) => {
            let port = parent.port.filter(|port| !has(service, *port))?;
            format!("Service {namespace}/{} has no port {port}", parent.name)
        }
    };
    Some(Problem::new("NoMatchingParent", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::gateway::tests::input;

    fn of(yaml: &str) -> ServiceRoutes {
        ServiceRoutes {
            input: Some(Arc::new(input(yaml))),
            ..ServiceRoutes::default()
        }
    }

    const ROUTES: &str = "
---
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}, {name: more, port: 8080}]}
---
kind: HTTPRoute
metadata: {name: of-all}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /a}}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {type: Exact, value: /a}}]
    backendRefs: [{name: missing, port: 80}]
---
kind: HTTPRoute
metadata: {name: of-its-own, namespace: other}
spec:
  parentRefs: [{group: '', kind: Service, name: web, namespace: default}]
  rules: [{}]
---
kind: HTTPRoute
metadata: {name: lost}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 81}]
  rules: [{}]
";

    #[test]
    fn a_namespace_s_own_routes_go_before_those_for_all() {
        let routes = of(ROUTES);
        let found = |port, client| {
            let naming: Naming = |namespace, name, port| format!("{port}/{name}/{namespace}");
            let found = routes.of(("default", "web"), port, client, naming);
            found.map(|all| all.into_iter().map(|it| it.name).collect::<Vec<_>>())
        };
        let all = ["default/of-all rule 2", "default/of-all rule 1"];
        let own = ["other/of-its-own rule 1"];
        assert_eq!(found(80, "default").unwrap(), all);
        assert_eq!(found(80, "third").unwrap(), all);
        assert_eq!(found(80, "other").unwrap(), own);
        assert_eq!(found(8080, "default"), None);
        assert_eq!(found(8080, "other").unwrap(), own);
    }

    #[test]
    fn a_service_that_is_no_parent_is_told_of() {
        let routes = of(ROUTES);
        let said: Vec<_> = routes
            .parents()
            .into_iter()
            .map(|(route, parents)| {
                let refused = parents[0].refused.clone().map(|problem| problem.reason);
                let unresolved = parents[0].unresolved.clone().map(|problem| problem.reason);
                (route.name_any(), refused, unresolved)
            })
            .collect();
        let told = |name: &str, refused, unresolved| (name.to_owned(), refused, unresolved);
        assert_eq!(
            said,
            [
                told("of-all", None, Some("BackendNotFound")),
                told("of-its-own", None, None),
                told("lost", Some("NoMatchingParent"), None),
            ]
        );
    }
}
