//! Which address families a Service gets, by what it asks for (KEP-563).
//!
//! Start from [`SUITE`]. The fixture has a Service of each choice, where the cluster has both families.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite, Vantage, expect_eq};

use super::{at, explain};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::single_stack_is_the_default",
        claim: "A Service that asks for nothing has one cluster IP, of the family that default/kubernetes has.",
        source: "sig-network: should create a single stack service with cluster ip from primary service range; Kubernetes: Service spec.ipFamilyPolicy",
        needs: &[Need::Version(21)],
        manifest: None,
        run: |scope| Box::pin(single_stack_is_the_default(scope)),
    },
    Check {
        id: "services::family_ipv4",
        claim: "A Service that asks for IPv4 has one cluster IP, of IPv4, and serves.",
        source: "sig-network: should create service with ipv4 cluster ip",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(asked_for(scope, "ipv4", &["IPv4"])),
    },
    Check {
        id: "services::family_ipv6",
        claim: "A Service that asks for IPv6 has one cluster IP, of IPv6, and serves.",
        source: "sig-network: should create service with ipv6 cluster ip",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(asked_for(scope, "ipv6", &["IPv6"])),
    },
    Check {
        id: "services::families_ipv4_ipv6",
        claim: "A Service that asks for IPv4 and IPv6 has cluster IPs in that order, and serves by both.",
        source: "sig-network: should create service with ipv4,v6 cluster ip",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(asked_for(scope, "ipv4-ipv6", &["IPv4", "IPv6"])),
    },
    Check {
        id: "services::families_ipv6_ipv4",
        claim: "A Service that asks for IPv6 and IPv4 has cluster IPs in that order, and serves by both.",
        source: "sig-network: should create service with ipv6,v4 cluster ip",
        needs: &[Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(asked_for(scope, "ipv6-ipv4", &["IPv6", "IPv4"])),
    },
    Check {
        id: "services::dual_stack_comes_and_goes",
        claim: "A Service of one family is given a second one and serves by it, keeps its first address throughout, and serves by that alone when the second is taken back.",
        source: "Kubernetes: IPv4/IPv6 dual-stack, dual-stack defaults on existing Services; KEP-563",
        needs: &[Need::DualStack],
        manifest: Some("services/dual_stack_comes_and_goes.yaml"),
        run: |scope| Box::pin(comes_and_goes(scope)),
    },
];

/// The cluster IPs of a Service, in their order.
pub(super) fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let ips = service
        .spec
        .iter()
        .flat_map(|spec| spec.cluster_ips.iter().flatten());
    ips.filter_map(|ip| ip.parse().ok()).collect()
}

pub(super) fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

pub(super) fn families(ips: &[IpAddr]) -> Vec<&'static str> {
    ips.iter().map(|ip| family(*ip)).collect()
}

async fn single_stack_is_the_default(scope: &Scope) -> Outcome {
    let first = |service: &Service| cluster_ips(service).first().copied().map(family);
    let backend: Service = scope.get("backend").await?;
    let kubernetes = first(&scope.get_in("default", "kubernetes").await?);
    let policy = backend
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_family_policy.clone());
    expect_eq(
        "the ipFamilyPolicy of Service backend, the number of its cluster IPs, and the first one's family",
        &(Some("SingleStack".to_owned()), 1, kubernetes),
        &(policy, cluster_ips(&backend).len(), first(&backend)),
        "something else than the API server's defaults fills in what a Service leaves out",
    )
}

async fn asked_for(scope: &Scope, name: &str, wanted: &[&'static str]) -> Outcome {
    let client = scope.pod("app=client").await?;
    let ips = cluster_ips(&scope.get(name).await?);
    let what = format!("the families of the cluster IPs of Service {name}");
    let unlike = "the API server gives families in another order than they are asked for";
    expect_eq(what, &wanted.to_vec(), &families(&ips), unlike)?;
    for ip in ips {
        serves(scope, &client, name, ip).await?;
    }
    Ok(())
}

/// Waits until an address of a Service serves.
async fn serves(scope: &Scope, client: &Vantage, name: &str, ip: IpAddr) -> Outcome {
    let url = format!("http://{}/", at(ip, 80));
    let outcome = scope
        .eventually(Eventually {
            what: &format!("the answer to GET {url}, a cluster IP of Service {name}"),
            expected: "200".to_owned(),
            observe: async || Ok(said::status(&client.get(&url).await?)),
            likely: "the EndpointSlices of that family are not made, or not followed by the client's node",
        })
        .await;
    explain(scope, outcome, name, 80, client).await
}

async fn comes_and_goes(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let policy = |policy: &str| json!({ "spec": { "ipFamilyPolicy": policy } });
    let before = cluster_ips(&scope.get("web").await?);
    let two: Service = scope.merge("web", policy("RequireDualStack")).await?;
    let both = cluster_ips(&two);
    expect_eq(
        "how many cluster IPs there are before and once the Service requires two families, and whether the first is the same",
        &(1, 2, true),
        &(before.len(), both.len(), both.first() == before.first()),
        "the API server does not allocate a second address for a Service that is there",
    )?;
    for ip in &both {
        serves(scope, &client, "web", *ip).await?;
    }
    let one: Service = scope.merge("web", policy("SingleStack")).await?;
    expect_eq(
        "the cluster IPs once the Service is of one family again",
        &before,
        &cluster_ips(&one),
        "the API server does not release the second address",
    )?;
    serves(scope, &client, "web", before[0]).await?;
    // Silence is noticed soon.
    let given_back = RequestSpec {
        timeout_ms: 1000,
        ..RequestSpec::get(format!("http://{}/", at(both[1], 80)))
    };
    scope
        .eventually(Eventually {
            what: "whether anybody answers at the address that was given back",
            expected: "nobody".to_owned(),
            observe: async || {
                let answers = client.request(&given_back).await?;
                let first = answers.0.first().map(said::status);
                Ok(said::nobody(first.unwrap_or_default()))
            },
            likely: "the node keeps the rules of a family that the Service has no more",
        })
        .await
}
