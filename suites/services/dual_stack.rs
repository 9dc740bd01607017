//! Services of two address families: that each of them serves (KEP-563). Which families a Service gets is `families`'.
//!
//! Start from [`SUITE`]. The fixture's Services `dual`, `dual-sticky` and `dual-headless` prefer both
//! families. Its datagrams, and what is large, are `both_families`'.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use strata::{
    Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Subject, Suite, Vantage, expect_eq,
};

use super::datagrams::answered;
use super::dns::reverse;
use super::families::{cluster_ips, families, family};
use super::outside::internal_ips;
use super::{at, burst, explain, names, node_port};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::dual_stack_serves_by_both",
        claim: "Each cluster IP of a Service with two reaches every ready pod, by the pod's address of that family.",
        source: "sig-network: should function for pod-Service: http (dual stack)",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(serves_by_both(scope)),
    },
    Check {
        id: "services::dual_stack_udp",
        claim: "Each cluster IP of a Service with two takes datagrams for every ready pod.",
        source: "sig-network: should function for pod-Service: udp (dual stack)",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(datagrams(scope)),
    },
    Check {
        id: "services::dual_stack_nodes_reach_both",
        claim: "Nodes reach both cluster IPs of a Service with two.",
        source: "sig-network: should function for node-Service: http (dual stack)",
        needs: &[Need::DualStack, Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(nodes_reach_both(scope)),
    },
    Check {
        id: "services::dual_stack_hairpin",
        claim: "A pod reaches itself through its own Service by either family.",
        source: "sig-network: should function for endpoint-Service: http (dual stack)",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(hairpin(scope)),
    },
    Check {
        id: "services::dual_stack_endpoint_slices",
        claim: "A Service of two families has EndpointSlices of each, and each lists every ready pod's address of its family.",
        source: "Kubernetes: EndpointSlices, address types; KEP-563",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(endpoint_slices(scope)),
    },
    Check {
        id: "services::dual_stack_names",
        claim: "A Service of two families has an A and an AAAA record, a reverse name for each, and a headless one both of every pod.",
        source: "Kubernetes DNS specification, 2.3.1, 2.3.3 and 2.4.1",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(records(scope)),
    },
    Check {
        id: "services::dual_stack_affinity",
        claim: "With sessionAffinity ClientIP all connections of a client by one family go to one pod, in either family.",
        source: "sig-network: should function for client IP based session affinity: http (dual stack)",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(affinity(scope)),
    },
    Check {
        id: "services::dual_stack_node_port",
        claim: "A node port of a Service of two families is reached from outside by both addresses of every node.",
        source: "Kubernetes: Services of type NodePort; sig-network: should function for node-Service: http (dual stack)",
        needs: &[Need::DualStack, Need::Outside],
        manifest: None,
        run: |scope| Box::pin(node_port_by_both(scope)),
    },
    Check {
        id: "services::dual_stack_load_balancer",
        claim: "A load balancer of a Service of two families has an address of each, and both lead to its pods from outside.",
        source: "Kubernetes: Services of type LoadBalancer, status.loadBalancer.ingress; KEP-563",
        needs: &[Need::DualStack, Need::Outside, Need::LoadBalancer],
        manifest: None,
        run: |scope| Box::pin(load_balancer_by_both(scope)),
    },
];

/// Both cluster IPs of a Service.
pub(super) async fn both(scope: &Scope, name: &str) -> Result<[IpAddr; 2], NoVerdict> {
    let ips = cluster_ips(&scope.get(name).await?);
    let found = <[IpAddr; 2]>::try_from(ips);
    found.map_err(|ips| {
        let prefers = "prefers both families, and the cluster has both";
        NoVerdict::new(format!("Service {name} has {ips:?}, though it {prefers}"))
            .with_likely("kube-apiserver has one --service-cluster-ip-range only")
    })
}

async fn serves_by_both(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    for ip in both(scope, "dual").await? {
        let requests = scope.enough(60, 3)?;
        let answers = client
            .request(&burst(format!("http://{}/", at(ip, 80)), requests))
            .await?;
        let arrived: BTreeSet<_> = answers
            .0
            .iter()
            .filter_map(|reply| reply.answer.as_ref())
            .map(|answer| family(answer.local.ip()))
            .collect();
        let outcome = expect_eq(
            format!(
                "who answers 60 requests to {ip} of Service dual, by addresses of which family, and failures"
            ),
            &(names(&pods), BTreeSet::from([family(ip)]), BTreeMap::new()),
            &(answers.served_by(), arrived, answers.failures()),
            "the client's node has no rules of that family for the Service, or lacks an endpoint there",
        );
        explain(scope, outcome, "dual", 80, &client).await?;
    }
    Ok(())
}

async fn datagrams(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    for ip in both(scope, "dual").await? {
        let seen = answered(&client, &at(ip, 7001), scope.enough(60, 3)?).await?;
        let outcome = expect_eq(
            format!("who answers 60 datagrams to {}", at(ip, 7001)),
            &names(&pods),
            &seen,
            "the client's node has no rules of that family for the Service's UDP port",
        );
        explain(scope, outcome, "dual", 7001, &client).await?;
    }
    Ok(())
}

async fn nodes_reach_both(scope: &Scope) -> Outcome {
    for pod in scope.ready_pods("app=host").await? {
        let node = scope.from_pod(&pod);
        for ip in both(scope, "dual").await? {
            let reply = node.get(format!("http://{}/", at(ip, 80))).await?;
            let outcome = expect_eq(
                format!("GET http://{}/ from node {}", at(ip, 80), pod.node),
                &"200".to_owned(),
                &said::status(&reply),
                "the node's rules of that family are for forwarded packets only, not for its own",
            );
            explain(scope, outcome, "dual", 80, &node).await?;
        }
    }
    Ok(())
}

async fn hairpin(scope: &Scope) -> Outcome {
    let alone = scope.pod("app=alone").await?;
    for ip in both(scope, "dual-mirror").await? {
        let reply = alone.get(format!("http://{}/", at(ip, 80))).await?;
        let outcome = expect_eq(
            format!("GET http://{}/ from the only pod behind it", at(ip, 80)),
            &format!("200 by {}", alone.name()),
            &said::said(&reply),
            "nothing of that family is masqueraded on its way back to the pod that it came from",
        );
        explain(scope, outcome, "dual-mirror", 80, &alone).await?;
    }
    Ok(())
}

async fn endpoint_slices(scope: &Scope) -> Outcome {
    let pods = scope.ready_pods("app=backend").await?;
    let ips = pods.iter().flat_map(|pod| &pod.ips);
    let expected: BTreeSet<_> = ips
        .map(|ip| (family(*ip).to_owned(), ip.to_string()))
        .collect();
    let slices: Vec<EndpointSlice> = scope.list("kubernetes.io/service-name=dual").await?;
    let listed = slices.iter().flat_map(|slice| {
        let ready = slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.conditions.as_ref().and_then(|it| it.ready) != Some(false));
        let addresses = ready.filter_map(|endpoint| endpoint.addresses.first());
        addresses.map(|address| (slice.address_type.clone(), address.clone()))
    });
    let client = scope.pod("app=client").await?;
    let outcome = expect_eq(
        "the ready endpoints of Service dual, with the address types of their slices",
        &expected,
        &listed.collect(),
        "the EndpointSlice controller makes slices of the Service's first family only",
    );
    explain(scope, outcome, "dual", 80, &client).await
}

async fn records(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let ips = both(scope, "dual").await?;
    let of_pods: Vec<_> = scope.ready_pods("app=backend").await?;
    let of_pods: Vec<IpAddr> = of_pods.into_iter().flat_map(|pod| pod.ips).collect();
    let (mut expected, mut seen) = (BTreeMap::new(), BTreeMap::new());
    for (record, v4) in [("A", true), ("AAAA", false)] {
        for (name, all) in [("dual", &ips[..]), ("dual-headless", &of_pods)] {
            let of_family: BTreeSet<_> = all
                .iter()
                .copied()
                .filter(|ip| ip.is_ipv4() == v4)
                .collect();
            let question = (record, name.to_owned());
            let reply = client.dns(name, record).await?;
            expected.insert(question.clone(), of_family);
            seen.insert(question, reply.addresses.iter().copied().collect());
        }
    }
    let outcome = expect_eq(
        "the addresses of dual and of dual-headless, by the kind of record",
        &expected,
        &seen,
        "cluster DNS knows only the first family of Services, or of their endpoints",
    );
    scope
        .explain(outcome, Subject::Dns { from: &client })
        .await?;
    for ip in ips {
        let reply = client.dns(reverse(ip), "PTR").await?;
        let outcome = expect_eq(
            format!("the names of {ip}"),
            &vec![format!("dual.{}.svc.cluster.local.", scope.namespace())],
            &reply.data("PTR").map(str::to_owned).collect(),
            "cluster DNS has no zone for reverse names of that family (ip6.arpa in the Corefile)",
        );
        scope
            .explain(outcome, Subject::Dns { from: &client })
            .await?;
    }
    Ok(())
}

async fn affinity(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    for (sticky, control) in both(scope, "dual-sticky")
        .await?
        .into_iter()
        .zip(both(scope, "dual").await?)
    {
        let url = |ip: IpAddr| format!("http://{}/", at(ip, 80));
        // The control: without affinity 60 connections all go to one of three pods with probability
        // 3·(1/3)⁶⁰.
        let requests = scope.enough(60, 3)?;
        let spread = client.request(&burst(url(control), requests)).await?;
        let outcome = expect_eq(
            format!(
                "how many pods answer 60 connections by {} without affinity",
                family(control)
            ),
            &3,
            &spread.served_by().len(),
            "the client's node has no rules of that family for the Service, or lacks an endpoint there",
        );
        explain(scope, outcome, "dual", 80, &client).await?;
        // The first alone: of connections opened at once, each might be the first that is remembered.
        let mut stay = client.request(&burst(url(sticky), 1)).await?;
        stay.0
            .extend(client.request(&burst(url(sticky), 59)).await?.0);
        let outcome = expect_eq(
            format!(
                "how many pods answer 60 connections by {} with affinity, and failures",
                family(sticky)
            ),
            &(1, BTreeMap::new()),
            &(stay.served_by().len(), stay.failures()),
            "the node's proxy does not remember clients of that family",
        );
        explain(scope, outcome, "dual-sticky", 80, &client).await?;
    }
    Ok(())
}

async fn node_port_by_both(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let port = node_port(&scope.get("dual-public").await?);
    for node in scope.nodes().await? {
        for ip in internal_ips(&node) {
            from_outside(scope, &outside, ip, port).await?;
        }
    }
    Ok(())
}

async fn load_balancer_by_both(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let mut ips = Vec::new();
    scope
        .eventually(Eventually {
            what: "the families of the addresses of the load balancer of Service dual-public",
            expected: vec!["IPv4", "IPv6"],
            observe: async || {
                let service: Service = scope.get("dual-public").await?;
                let ingress = service
                    .status
                    .and_then(|status| status.load_balancer?.ingress);
                let given = ingress
                    .into_iter()
                    .flatten()
                    .filter_map(|one| one.ip?.parse().ok());
                ips = given.collect::<Vec<IpAddr>>();
                Ok(families(&ips))
            },
            likely: "the load balancer's controller gives addresses of one family only",
        })
        .await?;
    for ip in ips {
        from_outside(scope, &outside, ip, 80).await?;
    }
    Ok(())
}

async fn from_outside(scope: &Scope, outside: &Vantage, ip: IpAddr, port: u16) -> Outcome {
    let url = format!("http://{}/", at(ip, port));
    let outcome = scope
        .eventually(Eventually {
            what: &format!("the answer to GET {url} from outside"),
            expected: "200".to_owned(),
            observe: async || Ok(said::status(&outside.get(&url).await?)),
            likely: "the nodes have no rules of that family for the Service, or do not masquerade what they send on",
        })
        .await;
    explain(scope, outcome, "dual-public", port, outside).await
}
