//! What Services ask of who brings their load balancers' addresses to the nodes.
//!
//! Start from [`LoadBalancers::of`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::model::{is_load_balancer, ports_of};
use crate::topology::IpFamily;

/// Addresses of load balancers that do not simply lead everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::net) struct LoadBalancers {
    /// For each address with `externalTrafficPolicy: Local`, the nodes that have an endpoint of some port;
    /// what a load balancer finds out by asking the health-check node ports.
    pub(in crate::net) local: BTreeMap<IpAddr, BTreeSet<String>>,
    /// The addresses whose clients stay with one endpoint (`sessionAffinity: ClientIP`).
    pub(in crate::net) sticky: BTreeSet<IpAddr>,
}

impl LoadBalancers {
    /// Those of one Service.
    pub(in crate::net) fn of(service: &Service, slices: &[Arc<EndpointSlice>]) -> Self {
        let mut found = Self::default();
        if !is_load_balancer(service) {
            return found;
        }
        let families = [IpFamily::V4, IpFamily::V6].into_iter();
        for port in families.flat_map(|family| ports_of(service, slices, family)) {
            if port.affinity.is_some() {
                found.sticky.extend(&port.load_balancer_ips);
            }
            if !port.external_local {
                continue;
            }
            let nodes = port.endpoints.iter().filter(|endpoint| endpoint.ready);
            let nodes: BTreeSet<String> =
                nodes.filter_map(|endpoint| endpoint.node.clone()).collect();
            for ip in &port.load_balancer_ips {
                let known = found.local.entry(*ip).or_default();
                known.extend(nodes.iter().cloned());
            }
        }
        found
    }

    /// Adds those of another Service.
    pub(in crate::net) fn include(&mut self, others: &Self) {
        for (ip, nodes) in &others.local {
            let known = self.local.entry(*ip).or_default();
            known.extend(nodes.iter().cloned());
        }
        self.sticky.extend(&others.sticky);
    }
}
