//! How pods find names, by their own configuration, and how names keep up with what they stand for.
//!
//! Start from [`SUITE`]. Rule: a name that has been asked for may be remembered for as long as its
//! record says (its TTL), so what it was before is wrong only after that ([`at_last`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;
use strata::wire::{DnsReply, DnsSpec, FailureKind, Rcode};
use strata::{
    Check, Eventually, Layer, NoVerdict, NotPassed, Outcome, Scope, Subject, Suite, Vantage,
    expect_eq,
};

use super::dns::{found, judge, reverse};
use super::{address, client, named, only};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::dns_config",
        claim: "A pod's dnsConfig adds its search domains to the cluster's, and its ndots takes the place of theirs.",
        source: "sig-network: should support configurable pod resolv.conf; Kubernetes: Pod's DNS config",
        needs: &[],
        manifest: Some("services/dns_config.yaml"),
        run: |scope| Box::pin(dns_config(scope)),
    },
    Check {
        id: "services::dns_policy_none",
        claim: "A pod of dnsPolicy None asks the name servers of its dnsConfig below the domains of it, and nobody else.",
        source: "sig-network: should support configurable pod DNS nameservers",
        needs: &[],
        manifest: Some("services/dns_policy_none.yaml"),
        run: |scope| Box::pin(dns_policy_none(scope)),
    },
    Check {
        id: "services::dns_policy_default",
        claim: "A pod of dnsPolicy Default asks its node's name server, which does not know the cluster's names.",
        source: "Kubernetes: Pod's DNS policy, \"Default\"",
        needs: &[],
        manifest: Some("services/dns_policy_default.yaml"),
        run: |scope| Box::pin(dns_policy_default(scope)),
    },
    Check {
        id: "services::host_aliases",
        claim: "A pod reaches an address of its hostAliases by each of its names, which no name server knows.",
        source: "Kubernetes: Pod spec.hostAliases; sig-network: should provide /etc/hosts entries for the cluster",
        needs: &[],
        manifest: Some("services/host_aliases.yaml"),
        run: |scope| Box::pin(host_aliases(scope)),
    },
    Check {
        id: "services::pods_know_their_own_names",
        claim: "A pod reaches itself by its hostname, and by its full name below its subdomain.",
        source: "sig-network: should provide /etc/hosts entries for the cluster; Kubernetes: Pod spec.hostname and subdomain",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(pods_know_their_own_names(scope)),
    },
    Check {
        id: "services::named_pods_have_ptr_records",
        claim: "The reverse name of a pod with a hostname below a headless Service points to its name there.",
        source: "Kubernetes DNS specification, 2.4.3",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(named_pods_have_ptr_records(scope)),
    },
    Check {
        id: "services::names_in_any_case",
        claim: "A Service is found by its name in small letters, in capitals and in both.",
        source: "RFC 4343, section 3; RFC 1035, section 2.3.3",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(names_in_any_case(scope)),
    },
    Check {
        id: "services::headless_names_follow_the_pods",
        claim: "A headless Service names exactly its ready pods while its Deployment is scaled up and down, for no longer than its records' TTL otherwise.",
        source: "Kubernetes DNS specification, 2.4.1",
        needs: &[],
        manifest: Some("services/headless_names_follow_the_pods.yaml"),
        run: |scope| Box::pin(headless_names_follow_the_pods(scope)),
    },
    Check {
        id: "services::names_follow_the_services",
        claim: "The name of a Service that is deleted does not exist, and one that is made anew has the new one's address.",
        source: "Kubernetes DNS specification, 2.3.1",
        needs: &[],
        manifest: Some("services/names_follow_the_services.yaml"),
        run: |scope| Box::pin(names_follow_the_services(scope)),
    },
    Check {
        id: "services::stateful_pods_keep_their_names",
        claim: "Each pod of a StatefulSet has a name below its Service, and one that is replaced has the same name with its new address.",
        source: "Kubernetes: StatefulSets, stable network ID; Kubernetes DNS specification, 2.4.1",
        needs: &[],
        manifest: Some("services/stateful_pods_keep_their_names.yaml"),
        run: |scope| Box::pin(stateful_pods_keep_their_names(scope)),
    },
    Check {
        id: "services::long_answers",
        claim: "An answer that does not fit a datagram is cut short and marked so, and is whole over TCP.",
        source: "RFC 1035, section 4.2.1; RFC 7766, section 5; Kubernetes DNS specification, 2.4.1",
        needs: &[],
        manifest: Some("services/long_answers.yaml"),
        run: |scope| Box::pin(long_answers(scope)),
    },
];

/// The first question of a lookup, and who was asked.
fn first(reply: &DnsReply) -> Result<(String, IpAddr), NoVerdict> {
    let first = reply.exchanges.first();
    let first = first.map(|exchange| (exchange.question.clone(), exchange.server.ip()));
    first.ok_or_else(|| NoVerdict::new(format!("nobody was asked for {}", reply.name)))
}

/// Waits as long as an answer may be remembered: a budget's time, and another for as long as the TTL
/// goes beyond it.
async fn at_last(ttl: u32, mut look: impl AsyncFnMut() -> Outcome) -> Outcome {
    let budget = u32::try_from(strata::budget::CONVERGE.within.as_secs()).unwrap_or(u32::MAX);
    let mut outcome = look().await;
    for _ in 0..ttl / budget {
        match outcome {
            Err(NotPassed::Failed(_)) => outcome = look().await,
            judged => return judged,
        }
    }
    outcome
}

/// For how long an answer may be remembered, in seconds.
fn ttl(reply: &DnsReply) -> u32 {
    let each = reply.answers.iter().map(|record| record.ttl);
    each.max().unwrap_or_default()
}

async fn explain(scope: &Scope, outcome: Outcome, client: &Vantage) -> Outcome {
    scope.explain(outcome, Subject::Dns { from: client }).await
}

async fn dns_config(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let dns: Service = scope.get_in("kube-system", "kube-dns").await?;
    let api: Service = scope.get_in("default", "kubernetes").await?;
    // With five dots the search path comes first, as for every other pod.
    let full = client
        .dns("kubernetes.default.svc.cluster.local", "A")
        .await?;
    let added = client.dns("kube-dns", "A").await?;
    judge(
        scope,
        &client,
        "the address of kube-dns, by the search domain that the pod adds; and the first question and the address for a name of four dots, with ndots 2",
        &(
            address(&dns),
            "kubernetes.default.svc.cluster.local.".to_owned(),
            address(&api),
        ),
        &(found(&added), first(&full)?.0, found(&full)),
    )
    .await
}

async fn dns_policy_none(scope: &Scope) -> Outcome {
    let own = scope.pod("app=own").await?;
    // Nobody is there, so silence is what is expected, and noticed soon.
    let spec = DnsSpec {
        timeout_ms: 500,
        attempts: 1,
        ..DnsSpec::new("backend", "A")
    };
    let reply = own.ask(&spec).await?;
    let reply = reply
        .first()
        .ok_or_else(|| NoVerdict::new("the probe gave no reply"))?;
    let (question, server) = first(reply)?;
    let asked: BTreeSet<_> = reply
        .exchanges
        .iter()
        .map(|exchange| exchange.server.ip())
        .collect();
    let silent = reply.exchanges.iter().all(|exchange| {
        let kind = exchange.error.as_ref().map(|error| error.kind);
        matches!(
            kind,
            Some(
                FailureKind::TimedOut | FailureKind::NameServerTimedOut | FailureKind::Unreachable
            )
        )
    });
    expect_eq(
        "the first question, who is asked, and whether nobody answers there",
        &(
            "backend.example.test.".to_owned(),
            BTreeSet::from([server]),
            "192.0.2.53".to_owned(),
            true,
        ),
        &(question, asked, server.to_string(), silent),
        "the kubelet writes a resolv.conf of the cluster's into a pod of dnsPolicy None, or somebody answers for every name server",
    )
}

async fn dns_policy_default(scope: &Scope) -> Outcome {
    let client = scope.pod("app=default").await?;
    let dns: Service = scope.get_in("kube-system", "kube-dns").await?;
    let name = "kubernetes.default.svc.cluster.local.";
    let reply = client.dns(name, "A").await?;
    let (question, server) = first(&reply)?;
    let unknown = match (&reply.rcode, reply.addresses.is_empty()) {
        (Some(Rcode::NxDomain | Rcode::Refused | Rcode::ServFail), true) => "unknown".to_owned(),
        _ => found(&reply),
    };
    expect_eq(
        format!("the question for {name}, whether cluster DNS is asked, and what comes of it"),
        &(name.to_owned(), false, "unknown".to_owned()),
        &(question, server.to_string() == address(&dns), unknown),
        "the kubelet writes a resolv.conf of the cluster's into a pod of dnsPolicy Default, or the node's name server is not reached",
    )
}

async fn host_aliases(scope: &Scope) -> Outcome {
    let web = only(scope.ready_pods("app=web").await?)?;
    let names = ["alias.example.test", "other.example.test"];
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "client", "labels": { "app": "client" } },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "hostAliases": [{ "ip": web.ip, "hostnames": names }],
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "probe",
                "image": "strata.dev/probe:v1",
                "imagePullPolicy": "IfNotPresent",
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"] },
                },
                "args": ["serve", "--http", "8080"],
            }],
        },
    });
    scope.apply(&pod.to_string()).await?;
    let client = scope.pod("app=client").await?;
    let (mut answers, mut known) = (Vec::new(), 0);
    for name in names {
        let reply = client.get(format!("http://{name}:8080/")).await?;
        answers.push(said::said(&reply));
        known += client.dns(name, "A").await?.addresses.len();
    }
    let outcome = expect_eq(
        format!(
            "GET by the names {names:?}, which are aliases of {}, and how many addresses name servers know for them",
            web.ip
        ),
        &(vec!["200 by web".to_owned(); 2], 0),
        &(answers, known),
        "the kubelet does not write hostAliases into the pod's /etc/hosts",
    );
    let subject = Subject::PodPath {
        from: &client,
        to: &web,
    };
    scope.explain(outcome, subject).await
}

async fn pods_know_their_own_names(scope: &Scope) -> Outcome {
    let pod = scope.pod("app=named-in-dns").await?;
    let full = format!("first.family.{}.svc.cluster.local", scope.namespace());
    let mut seen = Vec::new();
    // No name server knows the first: there is no Service of that name.
    for name in ["first", &full] {
        seen.push(said::said(&pod.get(format!("http://{name}:8080/")).await?));
    }
    let own = format!("200 by {}", pod.name());
    expect_eq(
        format!("GET of a pod by the names first and {full}, which are its own"),
        &vec![own.clone(), own],
        &seen,
        "the kubelet does not write the pod's names into its /etc/hosts",
    )
}

async fn named_pods_have_ptr_records(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pod = only(scope.ready_pods("app=named-in-dns").await?)?;
    let reply = client.dns(reverse(pod.ip), "PTR").await?;
    let names: Vec<_> = reply.data("PTR").map(str::to_owned).collect();
    let expected = vec![format!(
        "first.family.{}.svc.cluster.local.",
        scope.namespace()
    )];
    judge(
        scope,
        &client,
        &format!("the names of {}", pod.ip),
        &expected,
        &names,
    )
    .await
}

async fn names_in_any_case(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let ip = address(&scope.get("backend").await?);
    let mut seen = Vec::new();
    for name in ["backend", "BACKEND", "bAcKeNd"] {
        seen.push(found(&client.dns(name, "A").await?));
    }
    let what = "the addresses of backend, BACKEND and bAcKeNd";
    judge(scope, &client, what, &vec![ip; 3], &seen).await
}

async fn headless_names_follow_the_pods(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let name = named(scope, "web");
    let mut kept = 0;
    for replicas in [1, 3, 0, 2] {
        let patch = json!({ "spec": { "replicas": replicas } });
        scope.merge::<Deployment>("web", patch).await?;
        let outcome = at_last(kept, async || {
            scope
                .eventually(Eventually {
                    what: &format!("how many addresses {name} has at {replicas} replicas, and whether they are the ready pods'"),
                    expected: (replicas, true),
                    observe: async || {
                        let reply = client.dns(&name, "A").await?;
                        kept = kept.max(ttl(&reply));
                        let pods: Vec<Pod> = scope.list("app=web").await?;
                        let ips = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok());
                        let ips: BTreeSet<IpAddr> = ips.collect();
                        Ok((reply.addresses.len(), reply.addresses.iter().all(|ip| ips.contains(ip))))
                    },
                    likely: "cluster DNS does not follow the EndpointSlices of headless Services, or keeps answers for longer than it says",
                })
                .await
        });
        explain(scope, outcome.await, &client).await?;
    }
    Ok(())
}

async fn names_follow_the_services(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    // Without the last dot, the resolver would end by asking the world's name servers.
    let name = format!("{}.svc.cluster.local.", named(scope, "web"));
    let mut kept = 0;
    resolves_to(
        scope,
        &client,
        &name,
        &mut kept,
        &address(&scope.get("web").await?),
    )
    .await?;
    scope.delete::<Service>("web").await?;
    resolves_to(scope, &client, &name, &mut kept, "NXDOMAIN").await?;
    let anew = "apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}";
    scope.apply(anew).await?;
    resolves_to(
        scope,
        &client,
        &name,
        &mut kept,
        &address(&scope.get("web").await?),
    )
    .await
}

/// Waits until a name leads to an address, or nowhere; `kept` is how long its answers may be remembered.
async fn resolves_to(
    scope: &Scope,
    client: &Vantage,
    name: &str,
    kept: &mut u32,
    expected: &str,
) -> Outcome {
    let outcome = at_last(*kept, async || {
        scope
            .eventually(Eventually {
                what: &format!("the address of {name}, or why it has none"),
                expected: expected.to_owned(),
                observe: async || {
                    let reply = client.dns(name, "A").await?;
                    *kept = (*kept).max(ttl(&reply));
                    Ok(found(&reply))
                },
                likely: "cluster DNS does not follow the Services, or keeps answers for longer than it says",
            })
            .await
    });
    explain(scope, outcome.await, client).await
}

async fn stateful_pods_keep_their_names(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let full = |pod: &str| format!("{pod}.{}.svc.cluster.local.", named(scope, "web"));
    let mut kept = 0;
    let pods = scope.ready_pods("app=web").await?;
    for pod in &pods {
        let ip = pod.ip.to_string();
        resolves_to(scope, &client, &full(&pod.name), &mut kept, &ip).await?;
    }
    let names: Vec<_> = pods.iter().map(|pod| pod.name.as_str()).collect();
    expect_eq(
        "the pods of StatefulSet web",
        &vec!["web-0", "web-1"],
        &names,
        "the StatefulSet controller does not name pods by their ordinals",
    )?;
    scope.delete::<Pod>("web-0").await?;
    // Whatever else is there, this waits for the one of that name.
    let new = only(
        scope
            .ready_pods("statefulset.kubernetes.io/pod-name=web-0")
            .await?,
    )?;
    resolves_to(
        scope,
        &client,
        &full("web-0"),
        &mut kept,
        &new.ip.to_string(),
    )
    .await
}

async fn long_answers(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    // 16 octets a record: 1600 are more than any client takes in a datagram (1232, by DNS flag day 2020).
    let all: BTreeSet<IpAddr> = (1..=100)
        .map(|last| IpAddr::from([198, 51, 100, last]))
        .collect();
    let each = all
        .iter()
        .map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true } }));
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": "crowd", "labels": { "kubernetes.io/service-name": "crowd" } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
        "endpoints": each.collect::<Vec<_>>(),
    });
    scope.apply(&slice.to_string()).await?;
    let name = format!("{}.svc.cluster.local.", named(scope, "crowd"));
    let outcome = scope
        .eventually(Eventually {
            what: &format!("the exchanges for {name}, each over TCP or not and cut short or not, and the addresses that are missing"),
            expected: (vec![(false, true), (true, false)], BTreeSet::new()),
            observe: async || {
                let reply = client.dns(&name, "A").await?;
                let ways = reply.exchanges.iter().map(|one| (one.tcp, one.truncated)).collect();
                let got: BTreeSet<_> = reply.addresses.iter().copied().collect();
                Ok((ways, all.difference(&got).copied().collect()))
            },
            likely: "cluster DNS cuts answers short without saying so, or does not answer over TCP",
        })
        .await;
    explain(scope, outcome, &client).await
}
