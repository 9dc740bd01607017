//! What clusters of containers lack and are given: load balancers, who serves Ingresses, who serves Gateways.
//!
//! Start from [`Parts::find`], before there is a cluster: what cannot be had is not missed half-way. MetalLB
//! hands out addresses of the nodes' own network, which the vantage outside is on as well.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use kube::Client;

use super::engine::Engine;
use super::outside;
use crate::asset::Assets;
use crate::provider::serving::{Found, Serving, serve};
use crate::provider::upstream::{Part, Upstream};
use crate::provider::{Balancer, Cluster, Progress};
use crate::run::RunInfo;
use crate::stack::Layer;

const METALLB: Part = Part {
    called: "metallb",
    asset: Some("metallb"),
    kubernetes: "*",
};
/// How many addresses there are for load balancers: more than checks have at once.
const ADDRESSES: u128 = 100;

/// What was found, or why not.
#[derive(Debug)]
pub(in crate::provider) struct Parts {
    metallb: Result<Upstream, String>,
    ingress: Result<Found, String>,
    gateway: Result<Found, String>,
}

impl Parts {
    /// Looks for what a run of these layers needs; for MetalLB unless there is a word why not.
    pub(in crate::provider) async fn find(
        serving: &Serving,
        metallb: Result<(), String>,
        assets: &Assets,
        run: &RunInfo,
        progress: Progress<'_>,
    ) -> Self {
        let Serving { ingress, gateway } = serving;
        let balancer = async {
            metallb?;
            Upstream::planned(run, Layer::Services, assets, METALLB, progress).await
        };
        let (metallb, ingress, gateway) = tokio::join!(
            balancer,
            ingress.find(run, Layer::Ingress, assets, progress),
            gateway.find(run, Layer::Gateway, assets, progress),
        );
        Self {
            metallb,
            ingress,
            gateway,
        }
    }

    /// Whether there is no MetalLB.
    pub(in crate::provider) fn lacks_metallb(&self) -> bool {
        self.metallb.is_err()
    }

    /// A cluster with what was found installed in it, or to be installed as its layers are brought up. One that has
    /// load balancers already gets no others.
    pub(in crate::provider) async fn give(
        self,
        cluster: Cluster,
        on: (&Engine, &str),
        run: &RunInfo,
        progress: Progress<'_>,
    ) -> Cluster {
        let load_balancer = match cluster.load_balancer {
            Balancer::None(_) => self.balancer(on, &cluster.client, run, progress).await,
            ref there => there.clone(),
        };
        let mut versions = cluster.versions.clone();
        versions.extend(self.metallb.iter().map(Upstream::shown));
        let cluster = Cluster {
            versions,
            load_balancer,
            ..cluster
        };
        serve(cluster, (Some(self.ingress), self.gateway), run)
    }

    /// Installs MetalLB, with addresses of the nodes' network; or says why there are no load balancers.
    async fn balancer(
        &self,
        (engine, network): (&Engine, &str),
        client: &Client,
        run: &RunInfo,
        progress: Progress<'_>,
    ) -> Balancer {
        let metallb = match &self.metallb {
            Ok(metallb) => metallb,
            Err(why) => return Balancer::None(why.clone()),
        };
        let installed = async {
            let subnets = outside::subnets(engine, network).await?;
            let pool = pool(&subnets)?;
            let of = (client, run.id.as_str());
            metallb.install(of, Some(&pool), progress).await
        };
        match installed.await {
            Ok(()) => Balancer::Own,
            Err(error) => {
                let why = format!("metallb did not come up: {error:#}");
                progress(&format!("no load balancers: {why}"));
                Balancer::None(why)
            }
        }
    }
}

/// Objects that give MetalLB the last addresses of each network: engines hand out the first.
///
/// # Errors
/// When there is no network that is large enough.
fn pool(subnets: &[IpNet]) -> anyhow::Result<String> {
    let ranges: Vec<String> = subnets.iter().filter_map(last_addresses).collect();
    if ranges.is_empty() {
        bail!("the nodes' network ({subnets:?}) has no addresses to spare");
    }
    Ok(format!(
        "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {{name: strata, namespace: metallb-system}}
spec: {{addresses: {ranges:?}}}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {{name: strata, namespace: metallb-system}}
spec: {{ipAddressPools: [strata]}}
"
    ))
}

/// `FIRST-LAST`, without the very last, which is IPv4's broadcast address.
fn last_addresses(subnet: &IpNet) -> Option<String> {
    let size = 1_u128.checked_shl(u32::from(subnet.max_prefix_len() - subnet.prefix_len()));
    if size.is_some_and(|size| size < 4 * ADDRESSES) {
        return None;
    }
    let last = match subnet.broadcast() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let address = |number: u128| match subnet {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or_default().into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    };
    Some(format!(
        "{}-{}",
        address(last - ADDRESSES),
        address(last - 1)
    ))
}

/// Reads the networks that an engine tells, of which one may be of IPv6.
///
/// # Errors
/// When one is none.
pub(in crate::provider) fn read(told: &str) -> anyhow::Result<Vec<IpNet>> {
    let each = told.split_whitespace().map(|text| {
        text.parse()
            .with_context(|| format!("{text} is not a network"))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_balancers_have_the_last_addresses_of_the_nodes_network() {
        let told = "fc00:f853:ccd:e793::/64 172.18.0.0/16 \n";
        let pool = pool(&read(told).unwrap()).unwrap();
        let line = pool
            .lines()
            .find(|line| line.contains("addresses"))
            .unwrap();
        assert_eq!(
            line,
            "spec: {addresses: [\"fc00:f853:ccd:e793:ffff:ffff:ffff:ff9b-fc00:f853:ccd:e793:ffff:ffff:ffff:fffe\", \
             \"172.18.255.155-172.18.255.254\"]}"
        );
        crate::apply::Manifest::parse(&pool, "pool").unwrap();
    }

    #[test]
    fn a_network_that_nodes_need_themselves_is_left_to_them() {
        let small = read("192.168.3.0/24").unwrap();
        let why = super::pool(&small).unwrap_err().to_string();
        assert!(why.contains("no addresses to spare"), "{why}");
        assert!(read("map[]").is_err());
    }
}
