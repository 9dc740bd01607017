//! What follows from where endpoints are: the near ones first, or each place its share.
//!
//! Start from [`spread`], which reads `localityLbSetting` of a DestinationRule. Who is nowhere has no near
//! and far.

use std::collections::BTreeMap;

use super::registry::Client;
use crate::istio::destination_rule::{Failover, LocalityLbSetting};
use crate::l7::envoy::cluster::{Endpoint, Place};
use crate::l7::locality::Locality;

/// Where endpoints are in the order in which they are asked, or by their shares; nothing where all are
/// alike. Failover is for clusters that eject endpoints alone, as in Istio.
pub(super) fn spread(
    setting: Option<&LocalityLbSetting>,
    ejects: bool,
    client: &Client,
    endpoints: &[Endpoint],
) -> Vec<Place> {
    let own = &client.locality;
    let on = setting.is_none_or(|setting| setting.enabled != Some(false));
    if !on || !own.is_known() {
        return Vec::new();
    }
    let mut groups: BTreeMap<&Locality, Vec<Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        let group = groups.entry(&endpoint.locality).or_default();
        group.push(endpoint.clone());
    }
    let distribute = setting.and_then(|setting| setting.distribute.as_ref());
    if let Some(distribute) = distribute {
        let mut rules = distribute.iter();
        return match rules.find(|rule| own.is_in(&rule.from)) {
            Some(rule) => by_share(&rule.to, groups),
            None => Vec::new(),
        };
    }
    if !ejects {
        return Vec::new();
    }
    let failover = setting.and_then(|setting| setting.failover.as_deref());
    by_distance(own, failover.unwrap_or_default(), groups)
}

/// A place's share is divided among the localities in it by how many endpoints they have. What is in
/// none gets nothing.
fn by_share(
    shares: &BTreeMap<String, u32>,
    groups: BTreeMap<&Locality, Vec<Endpoint>>,
) -> Vec<Place> {
    let share = |of: &Locality| {
        let (place, share) = shares.iter().find(|(place, _)| of.is_in(place))?;
        let inside = groups.iter().filter(|(other, _)| other.is_in(place));
        let all: usize = inside.map(|(_, endpoints)| endpoints.len()).sum();
        let own = groups.get(of).map_or(0, Vec::len);
        let own = u32::try_from(own).ok()? * share;
        Some(own.div_ceil(u32::try_from(all).ok()?.max(1)))
    };
    let weighed = groups.iter().filter_map(|(of, endpoints)| {
        Some(Place {
            priority: 0,
            weight: Some(share(of)?),
            endpoints: endpoints.clone(),
        })
    });
    weighed.collect()
}

fn by_distance(
    own: &Locality,
    failover: &[Failover],
    groups: BTreeMap<&Locality, Vec<Endpoint>>,
) -> Vec<Place> {
    let next = failover.iter().find(|rule| rule.from == own.region());
    let distance = |of: &Locality| match (own.distance(of), next) {
        // Of other regions the one that is named comes first.
        (3, Some(next)) if next.to != of.region() => 4,
        (distance, _) => distance,
    };
    let mut by_distance: BTreeMap<usize, Vec<Endpoint>> = BTreeMap::new();
    for (of, endpoints) in groups {
        by_distance
            .entry(distance(of))
            .or_default()
            .extend(endpoints);
    }
    // Envoy takes no gaps between priorities.
    let places = by_distance.into_values().zip(0..);
    places
        .map(|(endpoints, priority)| Place {
            priority,
            weight: None,
            endpoints,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    fn endpoint(address: &str, locality: &str) -> Endpoint {
        Endpoint {
            address: address.to_owned(),
            port: 80,
            mesh: false,
            locality: Locality::parse(locality),
        }
    }

    fn client(locality: &str) -> Client {
        Client {
            locality: Locality::parse(locality),
            ..Client::default()
        }
    }

    /// The addresses by priority and weight.
    fn spread_by(setting: serde_json::Value, ejects: bool) -> Vec<(u32, Option<u32>, Vec<String>)> {
        let setting: LocalityLbSetting = object(setting);
        let endpoints = [
            endpoint("near", "r1/z1/a"),
            endpoint("same-zone", "r1/z1/b"),
            endpoint("same-region", "r1/z2/a"),
            endpoint("far", "r2/z1/a"),
            endpoint("farther", "r3/z1/a"),
            endpoint("nowhere", ""),
        ];
        let places = spread(Some(&setting), ejects, &client("r1/z1/a"), &endpoints);
        places
            .into_iter()
            .map(|place| {
                let addresses = place.endpoints.into_iter().map(|it| it.address);
                (place.priority, place.weight, addresses.collect())
            })
            .collect()
    }

    #[test]
    fn the_near_come_first_and_of_the_far_the_region_that_is_named() {
        let of = |priority, addresses: &[&str]| {
            let addresses = addresses.iter().map(|it| (*it).to_owned()).collect();
            (priority, None, addresses)
        };
        let near = [
            of(0, &["near"]),
            of(1, &["same-zone"]),
            of(2, &["same-region"]),
        ];
        assert_eq!(
            spread_by(json!({}), true),
            [&near[..], &[of(3, &["nowhere", "far", "farther"])]].concat()
        );
        let named = json!({ "failover": [{ "from": "r1", "to": "r3" }] });
        assert_eq!(
            spread_by(named, true),
            [
                &near[..],
                &[of(3, &["farther"]), of(4, &["nowhere", "far"])]
            ]
            .concat()
        );
        assert_eq!(spread_by(json!({}), false), []);
        assert_eq!(spread_by(json!({ "enabled": false }), true), []);
    }

    #[test]
    fn shares_are_divided_within_a_place() {
        let setting = json!({ "distribute": [
            { "from": "r9/*", "to": { "r9": 100 } },
            { "from": "r1/z1/*", "to": { "r1/*": 60, "r3/z1/*": 40 } },
        ] });
        let of = |weight, address: &str| (0, Some(weight), vec![address.to_owned()]);
        assert_eq!(
            spread_by(setting, false),
            [
                of(20, "near"),
                of(20, "same-zone"),
                of(20, "same-region"),
                of(40, "farther"),
            ]
        );
    }
}
