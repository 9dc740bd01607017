//! NetworkPolicies and Services: a policy knows pods, not the addresses that lead to them.
//!
//! Start from [`SUITE`]. Every way is shown to lead to its pod before a policy is applied.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use strata::wire::DnsSpec;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, Vantage};

use super::dns::found;
use super::outside::quick;
use super::{address, explain};
use crate::cni::policy::denied;
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::egress_policy_judges_the_backend",
        claim: "A policy that allows egress to a Service's pods lets its pods reach them by the Service's cluster IP, and not those of another Service.",
        source: "Kubernetes: Network Policies, behavior of to and from selectors",
        needs: &[Need::NetworkPolicy],
        manifest: Some("services/network_policies_know_services.yaml"),
        run: |scope| Box::pin(egress_policy_judges_the_backend(scope)),
    },
    Check {
        id: "services::ingress_policy_knows_the_client",
        claim: "A policy that allows a client lets it in by a Service's cluster IP too, and nobody else.",
        source: "Kubernetes: Network Policies, behavior of to and from selectors",
        needs: &[Need::NetworkPolicy],
        manifest: Some("services/network_policies_know_services.yaml"),
        run: |scope| Box::pin(ingress_policy_knows_the_client(scope)),
    },
    Check {
        id: "services::egress_policy_for_dns_only",
        claim: "A policy that allows egress to cluster DNS alone lets its pods look names up, and reach nobody by them.",
        source: "Kubernetes: Network Policies, default deny all egress traffic",
        needs: &[Need::NetworkPolicy, Need::Version(21)],
        manifest: Some("services/network_policies_know_services.yaml"),
        run: |scope| Box::pin(egress_policy_for_dns_only(scope)),
    },
];

/// From a pod to a Service's cluster IP, and who answers.
struct Way<'a> {
    from: &'a Vantage,
    service: &'static str,
    by: &'static str,
}

/// Waits until every way comes to what is said of it.
async fn come_to(scope: &Scope, when: &str, ways: &[Way<'_>]) -> Outcome {
    let name = |way: &Way| format!("{} to Service {}", way.from.name(), way.service);
    let denied = denied(scope).await?;
    let expected: BTreeMap<_, _> = ways
        .iter()
        .map(|way| {
            let word = if way.by == DENIED {
                denied.as_str()
            } else {
                way.by
            };
            (name(way), word.to_owned())
        })
        .collect();
    let outcome = scope
        .eventually(Eventually {
            what: &format!("what GET of a Service's cluster IP comes to {when}, by client"),
            expected,
            observe: async || {
                let each = ways.iter().map(async |way| {
                    let ip = address(&scope.get(way.service).await?);
                    let answers = way.from.request(&quick(format!("http://{ip}/"))).await?;
                    let reply = answers.0.first();
                    let word = reply.map(|reply| said::who(reply.error.as_ref(), reply.answer.as_ref()));
                    Ok::<_, NoVerdict>((name(way), word.unwrap_or_default()))
                });
                Ok(try_join_all(each).await?.into_iter().collect())
            },
            likely: "the CNI plugin judges packets before the proxy has put the pod's address in the Service's place, or after it has put the node's in the client's",
        })
        .await;
    let (first, by) = ways.first().map(|way| (way.from, way.service)).unzip();
    match (first, by) {
        (Some(from), Some(service)) => explain(scope, outcome, service, 80, from).await,
        _ => outcome,
    }
}

/// Of a way: nobody answers it.
const DENIED: &str = "denied";

async fn egress_policy_judges_the_backend(scope: &Scope) -> Outcome {
    let friend = scope.pod("app=friend").await?;
    let ways = |other| {
        [
            Way {
                from: &friend,
                service: "server",
                by: "server",
            },
            Way {
                from: &friend,
                service: "other",
                by: other,
            },
        ]
    };
    come_to(scope, "without a policy", &ways("other")).await?;
    let policy = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: egress}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: server}}}]
";
    scope.apply(policy).await?;
    come_to(scope, "under the policy", &ways(DENIED)).await
}

async fn ingress_policy_knows_the_client(scope: &Scope) -> Outcome {
    let friend = scope.pod("app=friend").await?;
    let stranger = scope.pod("app=stranger").await?;
    let ways = |unwanted| {
        [
            Way {
                from: &friend,
                service: "server",
                by: "server",
            },
            Way {
                from: &stranger,
                service: "server",
                by: unwanted,
            },
        ]
    };
    come_to(scope, "without a policy", &ways("server")).await?;
    let policy = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ingress}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
";
    scope.apply(policy).await?;
    come_to(scope, "under the policy", &ways(DENIED)).await
}

async fn egress_policy_for_dns_only(scope: &Scope) -> Outcome {
    let friend = scope.pod("app=friend").await?;
    let ways = |server| {
        [Way {
            from: &friend,
            service: "server",
            by: server,
        }]
    };
    come_to(scope, "without a policy", &ways("server")).await?;
    let policy = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: names}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{port: 53}, {port: 53, protocol: UDP}]
";
    scope.apply(policy).await?;
    come_to(scope, "under the policy", &ways(DENIED)).await?;
    let ip = address(&scope.get("server").await?);
    let outcome = scope
        .eventually(Eventually {
            what: "the address of Service server, over UDP and over TCP, under a policy that allows cluster DNS alone",
            expected: (ip.clone(), ip),
            observe: async || {
                let by_tcp = DnsSpec {
                    tcp: true,
                    ..DnsSpec::new("server", "A")
                };
                let by_tcp = friend.ask(&by_tcp).await?;
                let by_tcp = by_tcp.first().map(found).unwrap_or_default();
                Ok((found(&friend.dns("server", "A").await?), by_tcp))
            },
            likely: "the policy is judged by the cluster IP of kube-dns, where there is no pod with its labels",
        })
        .await;
    explain(scope, outcome, "server", 80, &friend).await
}
