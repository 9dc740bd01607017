//! Gateway API: Gateways that open listeners, and routes that attach to them.
//!
//! Start from [`SUITE`], the gates. Which route takes a request is judged by `matching`, `listeners` and
//! `parents`, and at random by `agreement`; what the route does to it by `filters`, `redirects`, `cors`, `mirrors`
//! and `retries`; where it goes by `backends`, `backend_tls` and `weights`; routes of other kinds by `calls`, `tls`,
//! `tcp` and `udp`, and of a mesh by `gamma`; who may attach and refer to what by `attachment` and `grants`, and who
//! may bring listeners by `sets` and `lending`; what a Gateway asks of clients and clusters by
//! `client_certificates` and `addresses`; what objects say of themselves by `conditions`. In the fixture `alpha`
//! and `beta` are backends of one pod each.

pub(crate) mod addresses;
pub(crate) mod agreement;
pub(crate) mod attachment;
pub(crate) mod backend_tls;
pub(crate) mod backends;
mod bytes;
pub(crate) mod calls;
pub(crate) mod client_certificates;
pub(crate) mod conditions;
pub(crate) mod cors;
pub(crate) mod filters;
pub(crate) mod gamma;
pub(crate) mod grants;
pub(crate) mod lending;
pub(crate) mod listeners;
pub(crate) mod matching;
pub(crate) mod mirrors;
pub(crate) mod parents;
pub(crate) mod redirects;
pub(crate) mod retries;
pub(crate) mod sets;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod udp;
pub(crate) mod weights;

use gateway_api::gatewayclasses::GatewayClass;
use gateway_api::gateways::Gateway;
use gateway_api::httproutes::{HttpRoute, HttpRouteStatusParents};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;
use strata::budget::PROVISION;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Subject, Suite};

use crate::entrance::{Case, Entrance, gateway_address, served_by};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: GATES,
    checks: &[],
};

const GATES: &[Check] = &[
    Check {
        id: "gateway::class_is_accepted",
        claim: "The GatewayClass that the tutorial's Gateway names is accepted by a controller.",
        source: "Gateway API: GatewayClass condition Accepted; GatewayClassObservedGenerationBump",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(class_is_accepted(scope)),
    },
    Check {
        id: "gateway::gateway_is_programmed",
        claim: "The tutorial's Gateway is accepted and programmed in its present generation, and has an address.",
        source: "Gateway API: Gateway conditions Accepted and Programmed; GatewayObservedGenerationBump",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(gateway_is_programmed(scope)),
    },
    Check {
        id: "gateway::routes_by_path_prefix",
        claim: "GET /frontend of the tutorial's Gateway reaches the tutorial's frontend, its path unchanged, through a proxy behind that Gateway's address.",
        source: "tutorial, \"curl http://$(minikube ip)/frontend\"; HTTPRouteSimpleSameNamespace",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(routes_by_path_prefix(scope)),
    },
];

const TUTORIAL: &str = "my-gateway";
/// On everything that belongs to a Gateway (GEP-1762).
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

async fn class_is_accepted(scope: &Scope) -> Outcome {
    let gateway: Gateway = scope.get(TUTORIAL).await?;
    let name = gateway.spec.gateway_class_name;
    let outcome = scope
        .eventually(Eventually {
            what: &format!("condition Accepted of GatewayClass {name}, and whether it is of the present generation"),
            expected: ("True".to_owned(), true),
            observe: async || {
                let class: GatewayClass = scope.get_cluster(&name).await?;
                let conditions = class.status.and_then(|status| status.conditions).unwrap_or_default();
                let (status, _, observed) = of(&conditions, "Accepted");
                Ok((status, observed == class.metadata.generation))
            },
            likely: "no controller runs that has the class's controllerName",
        })
        .await;
    explain_gateway(scope, outcome, TUTORIAL).await
}

async fn gateway_is_programmed(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually_within(PROVISION, Eventually {
            what: "conditions Accepted and Programmed of Gateway my-gateway, whether both are of the present generation, and whether it has an address",
            expected: ("True".to_owned(), "True".to_owned(), true, true),
            observe: async || {
                let gateway: Gateway = scope.get(TUTORIAL).await?;
                let address = gateway_address(&gateway).is_some();
                let conditions = gateway.status.and_then(|status| status.conditions).unwrap_or_default();
                let (accepted, _, one) = of(&conditions, "Accepted");
                let (programmed, _, other) = of(&conditions, "Programmed");
                let present = gateway.metadata.generation;
                Ok((accepted, programmed, one == present && other == present, address))
            },
            likely: "the Gateway's proxy is not ready, or its Service has no address",
        })
        .await;
    explain_gateway(scope, outcome, TUTORIAL).await
}

async fn routes_by_path_prefix(scope: &Scope) -> Outcome {
    let entrance = Entrance::of_gateway(scope, TUTORIAL).await?;
    entrance.answers().await;
    let frontends = scope.ready_pods("app=frontend").await?;
    let outcome = scope
        .eventually(Eventually {
            what: "GET /frontend: its answer, whether by a pod of frontend, the path that arrived, and the Gateway whose proxy brought it",
            expected: ("200".to_owned(), true, "/frontend".to_owned(), TUTORIAL.to_owned()),
            observe: async || {
                let servers = entrance.servers(scope).await?;
                let reply = entrance.get("", "/frontend").await?;
                let ours = frontends.iter().any(|pod| reply.pod() == Some(&pod.name));
                let path = reply.answer.as_ref().map(|answer| answer.path.clone());
                let gateway = match served_by(&reply, &servers).map(|pod| &pod.labels) {
                    // One that is no Gateway's own serves several.
                    Some(labels) => labels.get(GATEWAY_NAME).map_or(TUTORIAL, String::as_str),
                    None => "another client",
                };
                Ok((said::status(&reply), ours, path.unwrap_or_default(), gateway.to_owned()))
            },
            likely: "the route's backend does not exist or has no ready pod, or something else than the Gateway has its address",
        })
        .await;
    explain(scope, outcome, "my-route", "/frontend").await
}

/// The way in by the tutorial's Gateway, once the last route of the fixture is served: then all of
/// its routes are.
async fn entrance(scope: &Scope) -> Result<Entrance, NoVerdict> {
    Entrance::of_gateway(scope, TUTORIAL)
        .await?
        .settled("last.gateway.example")
        .await
}

/// The same by the Gateway of many listeners.
async fn many(scope: &Scope) -> Result<Entrance, NoVerdict> {
    Entrance::of_gateway(scope, "many")
        .await?
        .settled("last.all.gateway.example")
        .await
}

/// Status, reason and observed generation of a condition.
fn of(conditions: &[Condition], kind: &str) -> (String, String, Option<i64>) {
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or_else(
        || ("absent".to_owned(), String::new(), None),
        |it| (it.status.clone(), it.reason.clone(), it.observed_generation),
    )
}

/// What a route's first parent says of it; nothing until a controller has said something.
fn parent_of(route: &HttpRoute) -> HttpRouteStatusParents {
    let mut parents = route.status.iter().flat_map(|status| &status.parents);
    parents.next().cloned().unwrap_or_default()
}

/// A route of the check's own namespace at a listener of the fixture's Gateway `many`.
fn attached(scope: &Scope, name: &str, section: &str, host: &str, backend: &str) -> String {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": name },
        "spec": {
            "parentRefs": [{ "name": "many", "namespace": scope.fixture(), "sectionName": section }],
            "hostnames": [host],
            "rules": [{ "backendRefs": [{ "name": backend, "port": 80 }] }],
        },
    })
    .to_string()
}

/// The reasons of conditions Accepted and ResolvedRefs that a route's first parent gives.
async fn reasons(scope: &Scope, route: &str) -> Result<[String; 2], NoVerdict> {
    let route: HttpRoute = scope.get(route).await?;
    let conditions = parent_of(&route).conditions;
    Ok(["Accepted", "ResolvedRefs"].map(|kind| of(&conditions, kind).1))
}

/// What a Gateway of the check's namespace says of one of its listeners.
async fn listener_of(
    scope: &Scope,
    gateway: &str,
    listener: &str,
) -> Result<Vec<Condition>, NoVerdict> {
    let gateway: Gateway = scope.get(gateway).await?;
    let listeners = gateway.status.and_then(|status| status.listeners);
    let mut listeners = listeners.into_iter().flatten();
    let found = listeners.find(|it| it.name == listener);
    Ok(found.map(|it| it.conditions).unwrap_or_default())
}

/// The authority of the fixture's certificate.
async fn authority(scope: &Scope) -> Result<String, NoVerdict> {
    let secret: Secret = scope.get_in(scope.fixture(), "tls").await?;
    let ca = secret.data.and_then(|mut data| data.remove("ca.crt"));
    let ca = ca.ok_or_else(|| NoVerdict::new("Secret tls has no ca.crt"))?;
    Ok(String::from_utf8(ca.0)?)
}

/// Judges a table of hosts and paths, all of them of one route.
async fn table(scope: &Scope, entrance: &Entrance, route: &str, cases: &[Case]) -> Outcome {
    let table = entrance.table(cases).await?;
    let outcome = table.judged("the controller orders or compares matches in a way of its own");
    match table.unanswered(cases) {
        Some((_, path, _)) => explain(scope, outcome, route, path).await,
        None => outcome,
    }
}

async fn explain(scope: &Scope, outcome: Outcome, name: &str, path: &str) -> Outcome {
    let subject = Subject::HttpRoute {
        namespace: scope.namespace(),
        name,
        path,
    };
    scope.explain(outcome, subject).await
}

async fn explain_own_gateway(scope: &Scope, outcome: Outcome, name: &str) -> Outcome {
    let subject = Subject::Gateway {
        namespace: scope.namespace(),
        name,
        listener: None,
    };
    scope.explain(outcome, subject).await
}

async fn explain_gateway(scope: &Scope, outcome: Outcome, name: &str) -> Outcome {
    explain_at(scope, outcome, name, None).await
}

/// The same of a listener of Gateway `many`, where what others have is no matter.
async fn explain_listener(scope: &Scope, outcome: Outcome, listener: &str) -> Outcome {
    explain_at(scope, outcome, "many", Some(listener)).await
}

async fn explain_at(
    scope: &Scope,
    outcome: Outcome,
    name: &str,
    listener: Option<&str>,
) -> Outcome {
    let subject = Subject::Gateway {
        namespace: scope.fixture(),
        name,
        listener,
    };
    scope.explain(outcome, subject).await
}
