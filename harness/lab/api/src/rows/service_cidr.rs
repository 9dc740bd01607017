//! ServiceCIDRs (networking.k8s.io/v1, KEP-1880): the networks that ClusterIPs are taken from.
//!
//! Start from [`ranges`]. The first, `kubernetes`, is of the cluster's owner, and says which address
//! families Services may have; more may be added to it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::family::IpFamily;
use crate::meta::{fill, items, map_at, now, text};
use crate::status::Cause;
use crate::store::State;

type Columns = &'static [(&'static str, i64, fn(&Value) -> Value)];

const TABLE: &str = "servicecidrs.networking.k8s.io";
/// The cluster's own (`DefaultServiceCIDRName`).
pub(crate) const DEFAULT: &str = "kubernetes";

/// The networks of one family.
pub(in crate::rows) struct Range {
    pub(super) family: IpFamily,
    pub(super) networks: Vec<IpNet>,
}

/// The networks of all families that Services may have, the cluster's first choice first.
pub(super) fn ranges(state: &State) -> Vec<Range> {
    let networks = |object: &Value| {
        let texts = items(object, "/spec/cidrs").filter_map(Value::as_str);
        let parsed = texts.filter_map(|text| text.parse::<IpNet>().ok());
        parsed.collect::<Vec<_>>()
    };
    let mut ranges: Vec<Range> = Vec::new();
    let own = state.get(TABLE, "", DEFAULT).into_iter();
    let others = state
        .all(TABLE)
        .filter(|one| text(one, "/metadata/name") != DEFAULT);
    for network in own.chain(others).flat_map(|object| networks(object)) {
        let family = IpFamily::of(network.addr());
        match ranges.iter_mut().find(|range| range.family == family) {
            Some(range) => range.networks.push(network),
            None => ranges.push(Range {
                family,
                networks: vec![network],
            }),
        }
    }
    ranges
}

impl Range {
    /// Whether an address is inside.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// It can be used at once: allocator and API server are one.
pub(super) fn default(object: &mut Value) {
    map_at(object, "status");
    let ready = json!([{
        "type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes Service CIDR is ready", "lastTransitionTime": now(),
    }]);
    fill(&mut object["status"], "conditions", ready);
}

/// `ValidateServiceCIDR` and `ValidateServiceCIDRUpdate`.
pub(super) fn validate(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let cidrs: Vec<&Value> = items(new, "/spec/cidrs").collect();
    if let Some(old) = old {
        if old["spec"]["cidrs"] != new["spec"]["cidrs"] {
            let value = &new["spec"]["cidrs"];
            causes.push(Cause::invalid("spec.cidrs", value, "field is immutable"));
        }
        return;
    }
    if cidrs.is_empty() {
        causes.push(Cause::required("spec.cidrs", "at least one CIDR required"));
    }
    if cidrs.len() > 2 {
        let all = &new["spec"]["cidrs"];
        causes.push(Cause::invalid("spec", all, "may only hold up to 2 values"));
    }
    let mut families = Vec::new();
    for (at, cidr) in cidrs.iter().enumerate() {
        let field = format!("spec.cidrs[{at}]");
        match cidr.as_str().and_then(|cidr| cidr.parse::<IpNet>().ok()) {
            Some(network) if network.trunc() != network => {
                let why = format!(
                    "must not have bits set beyond the prefix length ({})",
                    network.trunc()
                );
                causes.push(Cause::invalid(field, cidr, &why));
            }
            Some(network) => families.push(IpFamily::of(network.addr())),
            None => causes.push(Cause::invalid(
                field,
                cidr,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            )),
        }
    }
    if families.len() == 2 && families[0] == families[1] {
        causes.push(Cause::invalid(
            "spec.cidrs",
            &new["spec"]["cidrs"],
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ));
    }
}

pub(super) const COLUMNS: Columns = &[
    ("CIDRs", 0, |object| {
        let cidrs = items(object, "/spec/cidrs").filter_map(Value::as_str);
        cidrs.collect::<Vec<_>>().join(",").into()
    }),
    ("Age", 0, crate::table::age),
];
