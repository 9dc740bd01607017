//! What EndpointSlices say of endpoints, and what the proxy makes of it.
//!
//! Start from [`SUITE`]. Each check has a Service without a selector, and gives it endpoints by hand: the
//! fixture's pods, which are all of them ready, in whatever state the slice says that they are.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, PodView, Scope, Suite, Vantage};

use super::endpoints::answers;
use super::outside::{addresses, quick};
use super::{explain, node_port};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::absent_conditions_mean_ready",
        claim: "An endpoint of which its EndpointSlice says nothing is ready.",
        source: "Kubernetes: EndpointConditions ready, \"a nil value should be interpreted as true\"",
        needs: &[],
        manifest: Some("services/by_hand.yaml"),
        run: |scope| Box::pin(absent_conditions_mean_ready(scope)),
    },
    Check {
        id: "services::terminating_endpoints_get_nothing_beside_a_ready_one",
        claim: "An endpoint that is ending, and one that is not ready, get no new connections while another is ready.",
        source: "Kubernetes: EndpointConditions (KEP-1672, KEP-1669)",
        needs: &[Need::Version(22)],
        manifest: Some("services/by_hand.yaml"),
        run: |scope| Box::pin(terminating_get_nothing(scope)),
    },
    Check {
        id: "services::terminating_endpoints_are_the_last_resort",
        claim: "Where no endpoint is ready, those that still serve while they are ending get the connections, and those that do not serve get none.",
        source: "Kubernetes: ProxyTerminatingEndpoints (KEP-1669)",
        needs: &[Need::Version(26)],
        manifest: Some("services/by_hand.yaml"),
        run: |scope| Box::pin(terminating_are_the_last_resort(scope)),
    },
    Check {
        id: "services::local_terminating_endpoints_are_the_last_resort",
        claim: "With externalTrafficPolicy Local a node whose only endpoint is ending, but still serves, goes on answering at the node port.",
        source: "Kubernetes: ProxyTerminatingEndpoints (KEP-1669)",
        needs: &[Need::Version(26), Need::Outside, Need::Nodes(2)],
        manifest: Some("services/by_hand.yaml"),
        run: |scope| Box::pin(local_terminating_are_the_last_resort(scope)),
    },
    Check {
        id: "services::nothing_serves_without_a_serving_endpoint",
        claim: "A Service whose endpoints are all not ready, and do not serve, refuses connections.",
        source: "Kubernetes: EndpointConditions (KEP-1672)",
        needs: &[Need::Version(22)],
        manifest: Some("services/by_hand.yaml"),
        run: |scope| Box::pin(nothing_serves(scope)),
    },
    Check {
        id: "services::endpoints_of_several_slices",
        claim: "A Service leads to the endpoints of all its EndpointSlices, and to those of a deleted one no longer.",
        source: "Kubernetes: EndpointSlices (KEP-752)",
        needs: &[],
        manifest: Some("services/by_hand.yaml"),
        run: |scope| Box::pin(several_slices(scope)),
    },
    Check {
        id: "services::endpoints_are_mirrored",
        claim: "A Service without a selector leads to the addresses of Endpoints made by hand, and follows them when they are changed and deleted.",
        source: "sig-network: should mirror a custom Endpoints resource through create update and delete",
        needs: &[],
        manifest: Some("services/by_hand.yaml"),
        run: |scope| Box::pin(endpoints_are_mirrored(scope)),
    },
    Check {
        id: "services::endpoint_ports_go_by_name",
        claim: "A Service's port takes its endpoints from the slices' port of its name: one that no slice has refuses connections.",
        source: "Kubernetes: EndpointPort name, \"must match the ports of the Service\"",
        needs: &[],
        manifest: Some("services/by_hand.yaml"),
        run: |scope| Box::pin(ports_go_by_name(scope)),
    },
];

const READY: Conditions = Conditions(Some(true), Some(true), Some(false));
const NOT_READY: Conditions = Conditions(Some(false), Some(false), Some(false));
const ENDING: Conditions = Conditions(Some(false), Some(true), Some(true));
const ENDED: Conditions = Conditions(Some(false), Some(false), Some(true));
const UNSAID: Conditions = Conditions(None, None, None);

/// `ready`, `serving` and `terminating`.
#[derive(Clone, Copy)]
struct Conditions(Option<bool>, Option<bool>, Option<bool>);

impl Conditions {
    /// Those of which something is said.
    fn said(self) -> Value {
        let Self(ready, serving, terminating) = self;
        let all = [
            ("ready", ready),
            ("serving", serving),
            ("terminating", terminating),
        ];
        let said = all
            .into_iter()
            .filter_map(|(name, is)| Some((name.to_owned(), Value::Bool(is?))));
        Value::Object(said.collect())
    }
}

/// Three of the fixture's pods.
async fn three(scope: &Scope) -> Result<[PodView; 3], NoVerdict> {
    let pods = scope.ready_pods_in(scope.fixture(), "app=backend").await?;
    let found = <[PodView; 3]>::try_from(pods);
    found.map_err(|pods| NoVerdict::new(format!("the fixture has {} pods, not three", pods.len())))
}

/// Says of these pods, and no others, that they are endpoints of Service by-hand.
async fn slice(
    scope: &Scope,
    name: &str,
    endpoints: &[(&PodView, Conditions)],
) -> Result<(), NoVerdict> {
    // A Service's unnamed port takes its endpoints from a slice's unnamed port.
    ported(scope, name, "", endpoints).await
}

async fn ported(
    scope: &Scope,
    name: &str,
    port: &str,
    endpoints: &[(&PodView, Conditions)],
) -> Result<(), NoVerdict> {
    let v4 = endpoints.iter().all(|(pod, _)| pod.ip.is_ipv4());
    let each = endpoints.iter().map(|(pod, conditions)| {
        json!({ "addresses": [pod.ip], "nodeName": pod.node, "conditions": conditions.said() })
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "by-hand" } },
        "addressType": if v4 { "IPv4" } else { "IPv6" },
        "ports": [{ "name": port, "port": 8080, "protocol": "TCP" }],
        "endpoints": each.collect::<Vec<Value>>(),
    });
    scope.apply(&slice.to_string()).await
}

/// Waits until these pods answer for Service by-hand, and no other.
async fn answered_by(scope: &Scope, client: &Vantage, pods: &[&PodView]) -> Outcome {
    // Of one, no chance decides.
    let requests = match pods.len() as u64 {
        1 => 40,
        several => scope.enough(60, several)?,
    };
    let outcome = answers(scope, client, "by-hand", requests, pods.iter().copied()).await;
    explain(scope, outcome, "by-hand", 80, client).await
}

async fn refuses(scope: &Scope, from: &Vantage, at: &str, when: &str) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: &format!("GET http://{at}/ {when}"),
            expected: "refused".to_owned(),
            observe: async || Ok(said::status(&from.get(format!("http://{at}/")).await?)),
            likely: "the node sends connections to endpoints that nobody says are of use, or drops them",
        })
        .await;
    explain(scope, outcome, "by-hand", 80, from).await
}

async fn absent_conditions_mean_ready(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let [one, two, _] = three(scope).await?;
    slice(scope, "first", &[(&one, UNSAID), (&two, READY)]).await?;
    answered_by(scope, &client, &[&one, &two]).await
}

async fn terminating_get_nothing(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let [one, two, three] = three(scope).await?;
    let all_ready = [(&one, READY), (&two, READY), (&three, READY)];
    slice(scope, "first", &all_ready).await?;
    answered_by(scope, &client, &[&one, &two, &three]).await?;
    let one_ready = [(&one, READY), (&two, ENDING), (&three, NOT_READY)];
    slice(scope, "first", &one_ready).await?;
    answered_by(scope, &client, &[&one]).await
}

async fn terminating_are_the_last_resort(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let [one, two, three] = three(scope).await?;
    let none_ready = [(&one, ENDING), (&two, ENDED), (&three, NOT_READY)];
    slice(scope, "first", &none_ready).await?;
    answered_by(scope, &client, &[&one]).await
}

async fn local_terminating_are_the_last_resort(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let pods = three(scope).await?;
    let [ending, ..] = &pods;
    let ready = pods.iter().find(|pod| pod.node != ending.node);
    let ready = ready.ok_or_else(|| NoVerdict::new("all pods of the fixture are on one node"))?;
    slice(scope, "first", &[(ending, ENDING), (ready, READY)]).await?;
    let local = json!({ "spec": { "type": "NodePort", "externalTrafficPolicy": "Local" } });
    let port = node_port(&scope.merge::<Service>("by-hand", local).await?);
    let nodes = addresses(&scope.nodes().await?)?;
    for (node, expected) in [
        (&ending.node, format!("200 by {}", ending.name)),
        (&ready.node, format!("200 by {}", ready.name)),
    ] {
        let ip = nodes.iter().find(|(name, _)| name == node);
        let ip = ip.map(|(_, ip)| ip.as_str()).unwrap_or_default();
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET http://{ip}:{port}/ ({node}) from outside"),
                expected,
                observe: async || {
                    let answers = outside.request(&quick(format!("http://{ip}:{port}/"))).await?;
                    Ok(answers.0.first().map(said::said).unwrap_or_default())
                },
                likely: "the node's proxy drops what comes for a node port while its only endpoint is ending: it looks at readiness alone",
            })
            .await;
        explain(scope, outcome, "by-hand", 80, &outside).await?;
    }
    Ok(())
}

async fn nothing_serves(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let [one, two, _] = three(scope).await?;
    slice(scope, "first", &[(&one, READY), (&two, NOT_READY)]).await?;
    answered_by(scope, &client, &[&one]).await?;
    slice(scope, "first", &[(&one, ENDED), (&two, NOT_READY)]).await?;
    let when = "while no endpoint is ready or serves";
    refuses(scope, &client, "by-hand", when).await
}

async fn several_slices(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let [one, two, three] = three(scope).await?;
    // One of them is in both, as an endpoint is for a moment that moves from one slice to another.
    slice(scope, "first", &[(&one, READY), (&two, READY)]).await?;
    slice(scope, "second", &[(&two, READY), (&three, READY)]).await?;
    answered_by(scope, &client, &[&one, &two, &three]).await?;
    scope.delete::<EndpointSlice>("first").await?;
    answered_by(scope, &client, &[&two, &three]).await
}

async fn endpoints_are_mirrored(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let [one, two, _] = three(scope).await?;
    for pod in [&one, &two] {
        let endpoints = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": { "name": "by-hand" },
            "subsets": [{ "addresses": [{ "ip": pod.ip }], "ports": [{ "port": 8080 }] }],
        });
        scope.apply(&endpoints.to_string()).await?;
        answered_by(scope, &client, &[pod]).await?;
    }
    scope.delete::<Endpoints>("by-hand").await?;
    let when = "once its Endpoints are deleted";
    refuses(scope, &client, "by-hand", when).await
}

async fn ports_go_by_name(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let [one, ..] = three(scope).await?;
    let ports = json!({ "spec": { "ports": [
        { "name": "known", "port": 80, "targetPort": 8080 },
        { "name": "unknown", "port": 81, "targetPort": 8080 },
    ] } });
    scope.merge::<Service>("by-hand", ports).await?;
    ported(scope, "first", "known", &[(&one, READY)]).await?;
    answered_by(scope, &client, &[&one]).await?;
    refuses(scope, &client, "by-hand:81", "at a port that no slice has").await
}
