//! Session affinity: which clients stay with the pod that they were given first, and for how long.
//!
//! Start from [`SUITE`]. Rule: a client that stays proves something only where the same client,
//! without affinity, does not.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use strata::verdict::chance::Test;
use strata::wire::{TcpSpec, UdpSpec};
use strata::{
    Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, Vantage, expect_eq,
};

use super::dual_stack::both;
use super::outside::{addresses, given};
use super::{at, explain, glance, names, node_port, only};
use crate::load::datagrams;
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::affinity_times_out",
        claim: "A client that opens no connection for longer than its Service's timeoutSeconds is given any pod again; one of a longer time stays.",
        source: "sig-network: should have session affinity timeout work for service with type clusterIP",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(times_out(scope)),
    },
    Check {
        id: "services::affinity_at_a_node_port_times_out",
        claim: "At a node port too, a client that opens no connection for longer than timeoutSeconds is given any pod again, and one of a longer time stays.",
        source: "sig-network: should have session affinity timeout work for NodePort service",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(at_a_node_port_times_out(scope)),
    },
    Check {
        id: "services::affinity_of_datagrams",
        claim: "With sessionAffinity ClientIP all datagrams of a client go to one of the three pods, whichever port they come from.",
        source: "sig-network: should function for client IP based session affinity: udp",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(of_datagrams(scope)),
    },
    Check {
        id: "services::dual_stack_affinity_of_datagrams",
        claim: "With sessionAffinity ClientIP all datagrams of a client by one family go to one of the three pods, in either family.",
        source: "sig-network: should function for client IP based session affinity: udp (dual stack)",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(of_datagrams_by_both(scope)),
    },
    Check {
        id: "services::affinity_at_a_node_port",
        claim: "At a node port a client from outside stays with one pod, until sessionAffinity is switched off.",
        source: "sig-network: should have session affinity work for NodePort service; sig-network: should be able to switch session affinity for NodePort service",
        needs: &[Need::Outside],
        manifest: Some("services/sticky_from_outside.yaml"),
        run: |scope| Box::pin(at_a_node_port(scope)),
    },
    Check {
        id: "services::affinity_at_a_load_balancer",
        claim: "At a load balancer's address a client from outside stays with one pod, until sessionAffinity is switched off.",
        source: "sig-network: should have session affinity work for LoadBalancer service with ESIPP off; sig-network: should be able to switch session affinity for LoadBalancer service with ESIPP off",
        needs: &[Need::LoadBalancer, Need::Outside],
        manifest: Some("services/sticky_from_outside.yaml"),
        run: |scope| Box::pin(at_a_load_balancer(scope)),
    },
    Check {
        id: "services::affinity_at_a_local_load_balancer",
        claim: "With externalTrafficPolicy Local too, a client from outside stays with one pod of a load balancer.",
        source: "sig-network: should have session affinity work for LoadBalancer service with ESIPP on",
        needs: &[Need::LoadBalancer, Need::Outside],
        manifest: Some("services/sticky_from_outside.yaml"),
        run: |scope| Box::pin(at_a_local_load_balancer(scope)),
    },
    Check {
        id: "services::local_load_balancer_affinity_is_switched_off",
        claim: "With externalTrafficPolicy Local a client from outside stays with one of a node's pods behind a load balancer, until sessionAffinity is switched off.",
        source: "sig-network: should be able to switch session affinity for LoadBalancer service with ESIPP on",
        needs: &[Need::LoadBalancer, Need::Outside],
        manifest: Some("services/local_load_balancer_affinity_is_switched_off.yaml"),
        run: |scope| Box::pin(at_a_load_balancer(scope)),
    },
];

/// The ports of the fixture's Service `brief`, at each of which a client is remembered apart.
const BRIEF: std::ops::Range<u16> = 7000..7016;

async fn times_out(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let brief: Vec<_> = BRIEF.map(|port| format!("brief:{port}")).collect();
    forgets(scope, &client, "patient:7000", &brief).await
}

/// Asked by another pod than [`times_out`] asks: a Service remembers a client once for all of its addresses.
async fn at_a_node_port_times_out(scope: &Scope) -> Outcome {
    let pod = only(scope.ready_pods("app=alone").await?)?;
    let at_node = async |name: &str| {
        let service: Service = scope.get(name).await?;
        let ports = service.spec.into_iter().flat_map(|spec| spec.ports);
        let ports = ports.flatten().filter_map(|port| port.node_port);
        let places = ports.map(|port| at(pod.host_ip, u16::try_from(port).unwrap_or_default()));
        Ok::<Vec<_>, NoVerdict>(places.collect())
    };
    let patient = at_node("patient").await?;
    let patient = patient.first().map(String::as_str).unwrap_or_default();
    let brief = at_node("brief").await?;
    forgets(scope, &scope.from_pod(&pod), patient, &brief).await
}

/// Judges that a client is remembered at one place, and forgotten in time at the others.
async fn forgets(scope: &Scope, client: &Vantage, patient: &str, brief: &[String]) -> Outcome {
    let pods = names(&scope.ready_pods("app=backend").await?);
    let spec = TcpSpec {
        count: 20,
        ..TcpSpec::new(patient)
    };
    let patient: BTreeSet<_> = who(client, &spec).await?.into_iter().collect();
    // Three connections at each port, the next once the last has been held for longer than the second
    // that the Service remembers its clients for. Each is given any of three pods anew, so that all are
    // given the first one again is as improbable as 33 requests that miss two of three.
    scope.draw(Test::Coverage)?;
    let brief = try_join_all(brief.iter().map(async |to| {
        let spec = TcpSpec {
            count: 3,
            hold_ms: 1500,
            ..TcpSpec::new(to)
        };
        who(client, &spec).await
    }));
    let brief = brief.await?;
    let all = brief.iter().flatten().chain(&patient);
    let others: BTreeSet<_> = all.filter(|who| !pods.contains(*who)).collect();
    let moved = brief
        .iter()
        .any(|who| who.iter().any(|one| Some(one) != who.first()));
    let answered = expect_eq(
        "who else than pods of Services patient and brief answers",
        &BTreeSet::new(),
        &others,
        "a port of these Services leads elsewhere, or its connections are lost on the way",
    );
    let outcome = answered.and_then(|()| {
        expect_eq(
            "how many answer 20 connections to Service patient, and whether a client of Service brief, after more than its second, is given another",
            &(1, true),
            &(patient.len(), moved),
            "the node's proxy remembers clients for ever, or not at all: it does not look at timeoutSeconds",
        )
    });
    explain(scope, outcome, "brief", BRIEF.start, client).await
}

/// Who answers each connection, in the order of connecting, or why nobody does.
async fn who(client: &Vantage, spec: &TcpSpec) -> Result<Vec<String>, NoVerdict> {
    let replies = client.tcp(spec).await?;
    let word =
        |reply: &strata::wire::TcpReply| said::who(reply.error.as_ref(), reply.answer.as_ref());
    Ok(replies.iter().map(word).collect())
}

async fn of_datagrams(scope: &Scope) -> Outcome {
    let (sticky, control) = ("sticky-datagrams:7001", "many-ports:7001");
    datagrams_stay(scope, "sticky-datagrams", sticky, control).await
}

async fn of_datagrams_by_both(scope: &Scope) -> Outcome {
    let (sticky, control) = (
        both(scope, "dual-sticky").await?,
        both(scope, "dual").await?,
    );
    for (sticky, control) in sticky.into_iter().zip(control) {
        datagrams_stay(scope, "dual-sticky", &at(sticky, 7001), &at(control, 7001)).await?;
    }
    Ok(())
}

/// Judges that datagrams of a client stay with one pod at one place, and at another, the control, do not.
async fn datagrams_stay(scope: &Scope, service: &str, sticky: &str, control: &str) -> Outcome {
    let client = scope.pod("app=client").await?;
    let ask = async |to: &str| {
        let spec = UdpSpec {
            count: 30,
            new_socket: true,
            ..UdpSpec::new(to)
        };
        let replies = datagrams(&client, &spec).await?;
        let seen = replies
            .iter()
            .map(|reply| said::who(reply.error.as_ref(), reply.answer.as_ref()));
        Ok::<_, NoVerdict>(seen.collect::<BTreeSet<_>>())
    };
    let sticky = ask(sticky).await?;
    // The control: without affinity, all go to one of three pods with probability 3⁻²⁹.
    scope.draw(Test::Coverage)?;
    let control = ask(control).await?;
    let pods = scope.ready_pods("app=backend").await?;
    let one_of_them = sticky.len() == 1 && pods.iter().any(|pod| sticky.contains(&pod.name));
    let outcome = expect_eq(
        format!(
            "whether one pod answers 30 datagrams with affinity ({sticky:?}), and more than one without"
        ),
        &(true, true),
        &(one_of_them, control.len() > 1),
        "the proxy remembers clients of TCP ports only",
    );
    explain(scope, outcome, service, 7001, &client).await
}

async fn at_a_node_port(scope: &Scope) -> Outcome {
    let port = node_port(&scope.get("web").await?);
    let (_, node) = addresses(&scope.nodes().await?)?.remove(0);
    stays_until_switched_off(scope, async || Ok(Some(format!("{node}:{port}")))).await
}

async fn at_a_load_balancer(scope: &Scope) -> Outcome {
    stays_until_switched_off(scope, async || Ok(given(&scope.get("web").await?))).await
}

async fn at_a_local_load_balancer(scope: &Scope) -> Outcome {
    let local = json!({ "spec": { "externalTrafficPolicy": "Local" } });
    scope.merge::<Service>("web", local).await?;
    let outside = scope.outside()?;
    stays(scope, &outside, "ClientIP", 1, async || {
        Ok(given(&scope.get("web").await?))
    })
    .await
}

async fn stays_until_switched_off(
    scope: &Scope,
    at: impl AsyncFn() -> Result<Option<String>, NoVerdict>,
) -> Outcome {
    let outside = scope.outside()?;
    // Each once more, since who is forgotten has to be remembered anew.
    for (affinity, pods) in [("ClientIP", 1), ("None", 2), ("ClientIP", 1)] {
        let patch = json!({ "spec": { "sessionAffinity": affinity } });
        scope.merge::<Service>("web", patch).await?;
        stays(scope, &outside, affinity, pods, &at).await?;
    }
    Ok(())
}

/// Waits until so many pods answer a client from outside, and no request fails.
async fn stays(
    scope: &Scope,
    outside: &Vantage,
    affinity: &str,
    pods: usize,
    at: impl AsyncFn() -> Result<Option<String>, NoVerdict>,
) -> Outcome {
    let requests = match pods {
        1 => 40,
        several => scope.enough(40, several as u64)?,
    };
    let outcome = scope
        .eventually(Eventually {
            what: &format!("how many pods answer {requests} connections from outside with sessionAffinity {affinity}, and failures"),
            expected: (pods, BTreeMap::new()),
            observe: async || {
                let Some(at) = at().await? else {
                    return Ok((0, BTreeMap::from([("no address yet".to_owned(), requests)])));
                };
                let answers = outside.request(&glance(format!("http://{at}/"), requests)).await?;
                Ok((answers.served_by().len(), answers.failures()))
            },
            likely: "the node looks for the client after it has put its own address in the client's place, or goes on by the affinities that it remembers",
        })
        .await;
    explain(scope, outcome, "web", 80, outside).await
}
