//! Which tests of chance each check makes: the suites' declared share of a run's budget of false alarms.
//!
//! Start from [`CHANCE`]. A check that draws what is not here has no verdict, so a row that is missing
//! shows in the first run; that the sum over all trials stays within the budget is tested, and looked
//! at again before every run.

use strata::verdict::chance::Ledger;
use strata::verdict::chance::Test::{
    self, Address, Connection, Coverage, Even, Share, Split, Time,
};

/// A composition of several arms, over new connections.
const SHARES: &[Test] = &[Split, Time];
/// The same over connections that are kept.
const KEPT: &[Test] = &[Split, Time, Connection];

/// The tests of chance of every check that makes some.
pub const CHANCE: Ledger = Ledger(&[
    ("services::reaches_every_ready_endpoint", &[Coverage]),
    ("services::spreads_connections_evenly", &[Even, Coverage]),
    ("services::two_services_share_pods", &[Coverage, Coverage]),
    ("services::named_target_port_differs_per_pod", &[Coverage]),
    ("services::udp_reaches_every_endpoint", &[Coverage]),
    ("services::client_ip_affinity", &[Coverage]),
    ("services::host_network_endpoints", &[Coverage]),
    ("services::load_balancer", &[Coverage]),
    ("services::unready_pod_gets_nothing", &[Coverage, Coverage]),
    ("services::scales_to_zero_and_back", &[Coverage]),
    ("services::affinity_is_switched_off", &[Coverage]),
    ("services::affinity_times_out", &[Coverage]),
    ("services::affinity_at_a_node_port_times_out", &[Coverage]),
    ("services::affinity_of_datagrams", &[Coverage]),
    ("services::affinity_at_a_node_port", &[Coverage]),
    ("services::affinity_at_a_load_balancer", &[Coverage]),
    (
        "services::local_load_balancer_affinity_is_switched_off",
        &[Coverage],
    ),
    ("services::node_port_reaches_every_endpoint", &[Coverage]),
    ("services::nodes_send_datagrams_to_cluster_ips", &[Coverage]),
    (
        "services::endpoints_send_datagrams_to_their_service",
        &[Coverage],
    ),
    (
        "services::host_network_endpoints_take_datagrams",
        &[Coverage],
    ),
    ("services::selector_is_changed", &[Coverage]),
    ("services::pods_are_relabelled", &[Coverage, Coverage]),
    ("services::internal_traffic_policy_is_changed", &[Coverage]),
    (
        "services::traffic_distribution_prefers_the_node",
        &[Coverage],
    ),
    ("services::external_ips", &[Coverage]),
    ("services::absent_conditions_mean_ready", &[Coverage]),
    (
        "services::terminating_endpoints_get_nothing_beside_a_ready_one",
        &[Coverage],
    ),
    (
        "services::endpoints_of_several_slices",
        &[Coverage, Coverage],
    ),
    ("services::outlive_their_proxies", &[Coverage]),
    // Twice with both of two pods.
    ("services::udp_endpoints_come_and_go", &[Coverage, Coverage]),
    (
        "services::dual_stack_endpoints_come_and_go",
        &[Coverage, Coverage],
    ),
    (
        "services::dual_stack_udp_endpoints_come_and_go",
        &[Coverage, Coverage],
    ),
    ("services::dual_stack_nodes_send_datagrams", &[Coverage]),
    ("services::dual_stack_endpoints_send_datagrams", &[Coverage]),
    // Of either family.
    (
        "services::dual_stack_affinity_of_datagrams",
        &[Coverage, Coverage],
    ),
    ("services::dual_stack_serves_by_both", &[Coverage, Coverage]),
    ("services::dual_stack_udp", &[Coverage, Coverage]),
    ("services::dual_stack_affinity", &[Coverage, Coverage]),
    ("ingress::follows_endpoints", &[Coverage]),
    ("ingress::reaches_every_endpoint", &[Coverage]),
    ("ingress::rolling_update", &[Coverage]),
    ("mesh::splits_by_weight", SHARES),
    ("mesh::outsiders_ignore_the_split", &[Split, Time, Coverage]),
    ("mesh::splits_each_request_of_a_connection", KEPT),
    ("mesh::splits_in_half", KEPT),
    ("mesh::splits_in_thirds", KEPT),
    ("mesh::weight_zero_receives_nothing", &[Split]),
    ("mesh::weights_change_without_loss", &[Coverage]),
    ("mesh::aborts_by_percentage", SHARES),
    ("mesh::delays_by_percentage", &[Share]),
    ("mesh::mirrors_by_percentage", &[Share]),
    ("mesh::changes_headers_by_destination", &[Coverage]),
    ("mesh::hashes_by_header", &[Coverage]),
    ("mesh::hashes_by_query", &[Coverage]),
    ("mesh::hashes_by_cookie", &[Coverage]),
    ("mesh::sets_hosts_by_several_destinations", &[Coverage]),
    ("mesh::ejects_failing_endpoints", &[Coverage]),
    ("mesh::near_endpoints_come_first", &[Coverage]),
    ("mesh::shares_by_locality", SHARES),
    (
        "gateway::splits_by_weight",
        &[Split, Time, Connection, Address],
    ),
    ("gateway::share_of_an_invalid_backend_is_500", SHARES),
    ("gateway::udp_splits_by_weight", &[Share]),
    ("gateway::meshed_requests_split_by_weight", SHARES),
    ("gateway::meshed_calls_split_by_weight", SHARES),
    ("gateway::mirrors_a_percentage", &[Share]),
    ("gateway::mirrors_a_fraction", &[Share]),
    ("gateway::each_share_has_headers_of_its_own", &[Coverage]),
    ("gateway::each_share_has_a_path_of_its_own", SHARES),
    ("gateway::calls_split_by_weight", SHARES),
    ("gateway::tcp_splits_by_weight", &[Share]),
]);
