//! Endpoints that come and go, by TCP and by UDP, by either address family.
//!
//! Start from [`come_and_go`]. What else becomes of a Service whose endpoints change is `endpoints`'.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, PodView, Scope, Suite, Vantage};

use super::datagrams::answered;
use super::dual_stack::both;
use super::endpoints::turn;
use super::{address, at, client, explain, glance, names, only};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::udp_endpoints_come_and_go",
        claim: "Datagrams to a Service reach exactly its ready pods, while one becomes not ready, is ready again, and another is deleted.",
        source: "sig-network: should update endpoints: udp",
        needs: &[],
        manifest: Some("services/two_pods.yaml"),
        run: |scope| Box::pin(datagrams(scope)),
    },
    Check {
        id: "services::dual_stack_endpoints_come_and_go",
        claim: "Requests to either cluster IP of a Service with two reach exactly its ready pods, while one becomes not ready, is ready again, and another is deleted.",
        source: "sig-network: should update endpoints: http (dual stack)",
        needs: &[Need::DualStack],
        manifest: Some("services/two_pods.yaml"),
        run: |scope| Box::pin(requests_by_both(scope)),
    },
    Check {
        id: "services::dual_stack_udp_endpoints_come_and_go",
        claim: "Datagrams to either cluster IP of a Service with two reach exactly its ready pods, while one becomes not ready, is ready again, and another is deleted.",
        source: "sig-network: should update endpoints: udp (dual stack)",
        needs: &[Need::DualStack],
        manifest: Some("services/two_pods.yaml"),
        run: |scope| Box::pin(datagrams_by_both(scope)),
    },
];

/// The ports of Service web: HTTP, and datagrams.
const HTTP: u16 = 80;
const UDP: u16 = 7001;

async fn datagrams(scope: &Scope) -> Outcome {
    let web = served(scope, "SingleStack").await?;
    let to = format!("{}:{UDP}", address(&web));
    come_and_go(scope, &[to], UDP, answered).await
}

async fn requests_by_both(scope: &Scope) -> Outcome {
    served(scope, "RequireDualStack").await?;
    let ips = both(scope, "web").await?;
    come_and_go(scope, &places(ips, HTTP), HTTP, requested).await
}

async fn datagrams_by_both(scope: &Scope) -> Outcome {
    served(scope, "RequireDualStack").await?;
    let ips = both(scope, "web").await?;
    come_and_go(scope, &places(ips, UDP), UDP, answered).await
}

/// Gives Service web its two ports, and address families by a policy.
async fn served(scope: &Scope, families: &str) -> Result<Service, NoVerdict> {
    let ports = json!([
        { "name": "http", "port": HTTP, "targetPort": 8080 },
        { "name": "udp", "port": UDP, "targetPort": 9001, "protocol": "UDP" },
    ]);
    let spec = json!({ "ipFamilyPolicy": families, "ports": ports });
    scope.merge("web", json!({ "spec": spec })).await
}

fn places(ips: [IpAddr; 2], port: u16) -> Vec<String> {
    ips.map(|ip| at(ip, port)).into()
}

/// Who answers so many requests, or why nobody does.
async fn requested(from: &Vantage, to: &str, count: u64) -> Result<BTreeSet<String>, NoVerdict> {
    let answers = from
        .request(&glance(format!("http://{to}/"), count))
        .await?;
    let who = answers
        .0
        .iter()
        .map(|reply| said::who(reply.error.as_ref(), reply.answer.as_ref()));
    Ok(who.collect())
}

/// Judges who answers at each of these places as pods come and go.
async fn come_and_go(
    scope: &Scope,
    to: &[String],
    port: u16,
    ask: impl AsyncFn(&Vantage, &str, u64) -> Result<BTreeSet<String>, NoVerdict>,
) -> Outcome {
    let client = client(scope).await?;
    let blue = only(scope.ready_pods("colour=blue").await?)?;
    let green = only(scope.ready_pods("colour=green").await?)?;
    // Half as many again, so that all the places together miss one no more often than one draw allows.
    let few = 60;
    let settled = async |when: &str, count: u64, pods: &[PodView]| {
        let expected: BTreeMap<_, _> = to.iter().map(|to| (to.clone(), names(pods))).collect();
        let outcome = scope
            .eventually(Eventually {
                what: &format!("who answers {count} times {when}, by where it is asked"),
                expected,
                observe: async || {
                    let mut seen = BTreeMap::new();
                    for to in to {
                        seen.insert(to.clone(), ask(&client, to, count).await?);
                    }
                    Ok(seen)
                },
                likely: "the EndpointSlices of that family, or the node's rules for that protocol, do not follow the pods",
            })
            .await;
        explain(scope, outcome, "web", port, &client).await
    };
    let all = [blue.clone(), green.clone()];
    settled("while both pods are ready", scope.enough(60, 2)? + 30, &all).await?;
    turn(&client, &blue, false).await?;
    settled("while blue is not ready", few, &all[1..]).await?;
    turn(&client, &blue, true).await?;
    settled("once blue is ready again", scope.enough(60, 2)? + 30, &all).await?;
    scope.delete::<Pod>(&green.name).await?;
    settled("once green is deleted", few, &all[..1]).await
}
