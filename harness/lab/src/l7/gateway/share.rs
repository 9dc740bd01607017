//! The backends of a rule, and the ways that its requests take to them.
//!
//! Start from [`ways`]. Envoy changes headers and the host for a share of a route's requests; it
//! redirects, mirrors and rewrites paths for all of them. So where a backend asks for that, the rule
//! becomes a route for each backend: they match alike, and a number that Envoy draws once a request,
//! from 0 to a million, decides which of them takes it.

use gateway_api::experimental::httproutes::HttpRouteRules;

use super::backend::{Backends, Reference};
use super::filter::{self, Filters, Place};
use super::input::Problem;
use super::route::Route;
use super::rule::MISSING;
use crate::l7::envoy::route::{MILLION, WeightedCluster};

/// A backend and its part of a rule's requests.
pub(super) struct Share {
    cluster: String,
    weight: u32,
    pub(super) filters: Filters,
}

/// What is done with some of a rule's requests.
pub(super) struct Way {
    /// It takes those for which a smaller number than this was drawn, if no way before it does; all
    /// others without.
    pub(super) below: Option<u32>,
    /// The rule's filters, and those of the backend if the way is of only one.
    pub(super) filters: Filters,
    /// None where all that take this way are refused.
    pub(super) clusters: Vec<WeightedCluster>,
}

/// The backends of a rule that have a weight.
pub(super) fn shares(
    route: &Route,
    rule: &HttpRouteRules,
    place: Place,
    backends: &mut Backends<'_>,
    unresolved: &mut Option<Problem>,
) -> Result<Vec<Share>, Problem> {
    let mut shares = Vec::new();
    for backend in rule.backend_refs.iter().flatten() {
        let mut filters = filter::of_backend(backend)?;
        let mut cluster = backends
            .resolve(route, place, Reference::from(backend))
            .map_err(|problem| unresolved.get_or_insert(problem).clone());
        if let Some(problem) = filters.unknown.take() {
            cluster = Err(unresolved.get_or_insert(problem).clone());
        }
        shares.push(Share {
            cluster: cluster.unwrap_or_else(|_| MISSING.to_owned()),
            weight: u32::try_from(backend.weight.unwrap_or(1)).unwrap_or_default(),
            filters,
        });
    }
    shares.retain(|share| share.weight > 0);
    Ok(shares)
}

/// The ways of a rule's requests: one, or one for each backend.
pub(super) fn ways(filters: &Filters, shares: &[Share]) -> Vec<Way> {
    if !shares.iter().any(|share| share.filters.are_of_a_route()) {
        return vec![Way {
            below: None,
            filters: filters.clone(),
            clusters: weighted(shares),
        }];
    }
    let weight = |share: &Share| u64::from(share.weight);
    let total: u64 = shares.iter().map(weight).sum();
    let mut so_far = 0;
    let way = |share| {
        so_far += weight(share);
        let below = so_far * u64::from(MILLION) / total;
        Way {
            below: (so_far < total)
                .then(|| u32::try_from(below).ok())
                .flatten(),
            filters: filters.and(&share.filters),
            clusters: weighted(std::slice::from_ref(share)),
        }
    };
    shares.iter().map(way).collect()
}

/// The clusters of backends. Two shares of one cluster are one, unless their filters differ; none where
/// all are invalid.
fn weighted(shares: &[Share]) -> Vec<WeightedCluster> {
    let mut merged: Vec<WeightedCluster> = Vec::new();
    for share in shares {
        let (headers, host) = (&share.filters.changes, &share.filters.host_rewrite);
        let same = merged.iter_mut().find(|earlier| {
            earlier.name == share.cluster
                && earlier.headers == *headers
                && earlier.host_rewrite == *host
        });
        match same {
            Some(earlier) => earlier.weight = earlier.weight.saturating_add(share.weight),
            None => merged.push(WeightedCluster {
                name: share.cluster.clone(),
                weight: share.weight,
                headers: headers.clone(),
                host_rewrite: host.clone(),
            }),
        }
    }
    if merged.iter().all(|cluster| cluster.name == MISSING) {
        merged.clear();
    }
    merged
}
