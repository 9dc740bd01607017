//! Datagrams, and what is large, by either address family of a Service: as `datagrams` judges it of one.
//!
//! Start from [`SUITE`]. The fixture's Services `dual` and `public`, which has node ports, are of both families.

use strata::{Check, Layer, Need, NoVerdict, Outcome, Scope, Suite, Vantage};

use super::at;
use super::datagrams::{
    datagrams_port, large_datagrams_arrive, large_streams_arrive, reach_every_pod,
};
use super::dual_stack::both;
use super::outside::internal_ips;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::dual_stack_nodes_send_datagrams",
        claim: "Datagrams of every node reach every pod by both cluster IPs of a Service with two, and by its port at both addresses of every node.",
        source: "sig-network: should function for node-Service: udp (dual stack)",
        needs: &[Need::DualStack, Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(nodes_send_datagrams(scope)),
    },
    Check {
        id: "services::dual_stack_endpoints_send_datagrams",
        claim: "Datagrams of a pod to its own Service reach every pod of it, itself too, by both cluster IPs, and by its port at both addresses of every node.",
        source: "sig-network: should function for endpoint-Service: udp (dual stack)",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(endpoints_send_datagrams(scope)),
    },
    Check {
        id: "services::dual_stack_large_datagrams_arrive_whole",
        claim: "A datagram of several MTUs arrives whole at a pod behind either cluster IP of a Service with two.",
        source: "sig-network: should be able to handle large requests: udp (dual stack)",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(large_datagrams(scope)),
    },
    Check {
        id: "services::dual_stack_large_streams_arrive_whole",
        claim: "1 MiB over TCP arrives whole at the pods behind either cluster IP of a Service with two, and comes back whole.",
        source: "sig-network: should be able to handle large requests: http (dual stack)",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(large_streams(scope)),
    },
];

/// Every place where Service `public` takes datagrams, each for these vantages.
async fn everywhere(scope: &Scope, from: &[Vantage]) -> Result<Vec<(Vantage, String)>, NoVerdict> {
    let port = u16::try_from(datagrams_port(&scope.get("public").await?)).unwrap_or_default();
    let inside = both(scope, "public").await?.map(|ip| at(ip, 7001));
    let nodes = scope.nodes().await?;
    let ips = nodes.iter().flat_map(internal_ips);
    let places: Vec<_> = inside
        .into_iter()
        .chain(ips.map(|ip| at(ip, port)))
        .collect();
    let ways = from
        .iter()
        .flat_map(|from| places.iter().map(|to| (from.clone(), to.clone())));
    Ok(ways.collect())
}

async fn nodes_send_datagrams(scope: &Scope) -> Outcome {
    let hosts = scope.ready_pods("app=host").await?;
    let hosts: Vec<_> = hosts.iter().map(|host| scope.from_pod(host)).collect();
    let likely =
        "the node's rules of that family for UDP are for forwarded packets only, not for its own";
    let ways = everywhere(scope, &hosts).await?;
    reach_every_pod(scope, &ways, ("public", "app=backend"), likely).await
}

async fn endpoints_send_datagrams(scope: &Scope) -> Outcome {
    let endpoint = scope.pod("app=backend").await?;
    let likely = "the pod's own datagram of that family comes back with its own source address: hairpin mode or masquerading is off";
    let ways = everywhere(scope, &[endpoint]).await?;
    reach_every_pod(scope, &ways, ("public", "app=backend"), likely).await
}

async fn large_datagrams(scope: &Scope) -> Outcome {
    for ip in both(scope, "dual").await? {
        large_datagrams_arrive(scope, "dual", &at(ip, 7001)).await?;
    }
    Ok(())
}

async fn large_streams(scope: &Scope) -> Outcome {
    for ip in both(scope, "dual").await? {
        large_streams_arrive(scope, "dual", &at(ip, 7000)).await?;
    }
    Ok(())
}
