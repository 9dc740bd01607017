//! The checks, layer by layer: what should be true of Kubernetes networking.
//!
//! Start from [`SUITES`]. A check is a row in its suite's table, the private function that the row
//! names, and, if it changes anything, the manifest of the same name; everything else of a layer
//! stands in `manifests/<layer>/fixture.yaml`. How pods are asked and clusters are made is the
//! harness'. Rule: a check that passes has seen something that a broken cluster does not show.

mod chance;
mod cni;
mod entrance;
mod gateway;
mod ingress;
mod load;
mod longest;
mod mesh;
mod reference;
mod refusal;
mod said;
mod services;
mod shares;
#[cfg(test)]
mod tests;

pub use chance::CHANCE;
pub use longest::LONGEST;

use strata::Suite;

/// All suites, in the order of their layers.
pub const SUITES: &[Suite] = &[
    cni::SUITE,
    cni::life::SUITE,
    cni::traffic::SUITE,
    cni::policies::SUITE,
    cni::policy_ingress::SUITE,
    cni::policy_egress::SUITE,
    cni::policy_changes::SUITE,
    cni::dual_stack::SUITE,
    cni::outside::SUITE,
    services::SUITE,
    services::come_and_go::SUITE,
    services::balancer::SUITE,
    services::proxied::SUITE,
    services::affinity::SUITE,
    services::endpoints::SUITE,
    services::outside::SUITE,
    services::cluster_ip::SUITE,
    services::dns::SUITE,
    services::families::SUITE,
    services::dual_stack::SUITE,
    services::both_families::SUITE,
    services::datagrams::SUITE,
    services::changes::SUITE,
    services::conditions::SUITE,
    services::resolver::SUITE,
    services::policies::SUITE,
    services::restarts::SUITE,
    ingress::SUITE,
    ingress::changes::SUITE,
    ingress::routing::SUITE,
    ingress::passing::SUITE,
    ingress::protocols::SUITE,
    ingress::default_backend::SUITE,
    ingress::admission::SUITE,
    ingress::classes::SUITE,
    ingress::agreement::SUITE,
    mesh::SUITE,
    mesh::probes::SUITE,
    mesh::tokens::SUITE,
    mesh::authorization::SUITE,
    mesh::localities::SUITE,
    mesh::egress::SUITE,
    mesh::percentages::SUITE,
    mesh::routing::SUITE,
    mesh::security::SUITE,
    mesh::split::SUITE,
    mesh::resilience::SUITE,
    mesh::destinations::SUITE,
    mesh::transport::SUITE,
    mesh::ports::SUITE,
    mesh::matching::SUITE,
    mesh::remaking::SUITE,
    mesh::accounts::SUITE,
    mesh::claims::SUITE,
    mesh::outside::SUITE,
    mesh::names::SUITE,
    mesh::admission::SUITE,
    gateway::SUITE,
    gateway::gamma::SUITE,
    gateway::attachment::SUITE,
    gateway::grants::SUITE,
    gateway::backend_tls::SUITE,
    gateway::retries::SUITE,
    gateway::tls::SUITE,
    gateway::tcp::SUITE,
    gateway::udp::SUITE,
    gateway::sets::SUITE,
    gateway::lending::SUITE,
    gateway::client_certificates::SUITE,
    gateway::addresses::SUITE,
    gateway::calls::SUITE,
    gateway::weights::SUITE,
    gateway::mirrors::SUITE,
    gateway::listeners::SUITE,
    gateway::matching::SUITE,
    gateway::parents::SUITE,
    gateway::filters::SUITE,
    gateway::redirects::SUITE,
    gateway::cors::SUITE,
    gateway::backends::SUITE,
    gateway::conditions::SUITE,
    gateway::agreement::SUITE,
];
