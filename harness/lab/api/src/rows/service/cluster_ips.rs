//! A Service's address families and ClusterIPs (KEP-563).
//!
//! Start from [`admit`]. It follows `initIPFamilyFields` and `allocClusterIPs` of Kubernetes'
//! `pkg/registry/core/service/storage/alloc.go`, step by step and with their messages: what was not
//! said is inferred, what contradicts itself or the cluster is refused, and what is missing then is
//! allocated.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::family::IpFamily;
use crate::meta::{items, map_at, text};
use crate::registry::Admit;
use crate::rows::service_cidr::{self, Range};
use crate::status::{Cause, Status};

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";
/// The ClusterIP of a Service that is to have none.
const NONE: &str = "None";

type Causes = Vec<Cause>;

/// What a Service says of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Addresses {
    policy: Option<String>,
    families: Vec<String>,
    ips: Vec<String>,
}

fn strings(spec: &Value, pointer: &str) -> Vec<String> {
    let texts = items(spec, pointer).filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Whether a type of Service has ClusterIPs.
fn needs(spec: &Value) -> bool {
    text(spec, "/type") != "ExternalName"
}

impl Addresses {
    fn of(spec: &Value) -> Self {
        let policy = text(spec, "/ipFamilyPolicy");
        Self {
            policy: (!policy.is_empty()).then(|| policy.to_owned()),
            families: strings(spec, "/ipFamilies"),
            ips: strings(spec, "/clusterIPs"),
        }
    }

    /// With `clusterIP` and `clusterIPs` in step, and what an update leaves out taken over
    /// (`NormalizeClusterIPs`, `PatchAllocatedValues`).
    fn normalized(spec: &Value, old: Option<&Value>) -> Self {
        let mut new = Self::of(spec);
        let ip = text(spec, "/clusterIP");
        let Some(old) = old else {
            if new.ips.is_empty() && !ip.is_empty() {
                new.ips.push(ip.to_owned());
            }
            return new;
        };
        let before = Self::of(old);
        let ip_before = text(old, "/clusterIP");
        if ip != ip_before && (new.ips == before.ips || new.ips.is_empty()) {
            new.ips = Some(ip)
                .filter(|ip| !ip.is_empty())
                .map(str::to_owned)
                .into_iter()
                .collect();
        }
        if new.ips.is_empty() && needs(old) && (ip.is_empty() || ip == ip_before) {
            new.ips = before.ips;
        }
        new
    }

    fn is_headless(&self) -> bool {
        self.ips.first().is_some_and(|ip| ip == NONE)
    }

    fn policy(&self) -> &str {
        self.policy.as_deref().unwrap_or_default()
    }

    fn families_field(&self) -> Value {
        json!(self.families)
    }

    fn policy_refused(&self, why: &str) -> Cause {
        Cause::invalid("spec.ipFamilyPolicy", &json!(self.policy), why)
    }

    fn ips_refused(&self, field: &str, why: &str) -> Cause {
        Cause::invalid(field, &json!(self.ips), why)
    }

    /// What is wrong with the fields by themselves (`ValidateServiceClusterIPsRelatedFields`); `ip` is
    /// `clusterIP`, as it was said.
    fn check(&self, ip: &str) -> Causes {
        let mut causes = Vec::new();
        match self.ips.first() {
            Some(_) if ip.is_empty() => {
                let why = "must be empty when `clusterIP` is not specified";
                causes.push(self.ips_refused("spec.clusterIPs", why));
            }
            Some(first) if first != ip => {
                let why = "first value must match `clusterIP`";
                causes.push(self.ips_refused("spec.clusterIPs", why));
            }
            _ => {}
        }
        for (at, family) in self.families.iter().enumerate() {
            let field = format!("spec.ipFamilies[{at}]");
            if !FAMILIES.contains(&family.as_str()) {
                causes.push(Cause::unsupported(field.clone(), &json!(family), FAMILIES));
            }
            if self.families.iter().take(at).any(|one| one == family) {
                causes.push(Cause::duplicate(field, &json!(family)));
            }
        }
        if self.policy.is_some() && !POLICIES.contains(&self.policy()) {
            let policy = json!(self.policy);
            causes.push(Cause::unsupported("spec.ipFamilyPolicy", &policy, POLICIES));
        }
        let mut parsed = Vec::new();
        for (at, ip) in self.ips.iter().enumerate() {
            match ip.parse::<IpAddr>() {
                Ok(address) => parsed.push(IpFamily::of(address)),
                Err(_) if at == 0 && ip == NONE && self.ips.len() == 1 => {}
                Err(_) if at == 0 && ip == NONE => causes.push(
                    self.ips_refused("spec.clusterIPs", "'None' must be the first and only value"),
                ),
                Err(_) => causes.push(Cause::invalid(
                    format!("spec.clusterIPs[{at}]"),
                    &json!(ip),
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                )),
            }
        }
        if self.ips.len() > 2 {
            causes.push(self.ips_refused("spec.clusterIPs", "may only hold up to 2 values"));
        }
        if parsed.len() != self.ips.len() {
            return causes;
        }
        if let [one, two] = parsed[..]
            && one == two
        {
            let why = "may specify no more than one IP for each IP family";
            causes.push(self.ips_refused("spec.clusterIPs", why));
        }
        for (at, (family, wanted)) in parsed.iter().zip(&self.families).enumerate() {
            if wanted
                .parse()
                .is_ok_and(|wanted: IpFamily| wanted != *family)
            {
                let why = format!("expected an {wanted} value as indicated by `ipFamilies[{at}]`");
                let field = format!("spec.clusterIPs[{at}]");
                causes.push(Cause::invalid(field, &json!(self.ips[at]), &why));
            }
        }
        causes
    }

    /// Fills in the policy that was not said. There is no constant default: an update must not change
    /// between one family and two without being told to.
    fn infer_policy(&mut self, old: Option<&Self>, selectorless: bool) {
        if self.policy.is_some() {
            return;
        }
        let inferred = match old.and_then(|old| old.policy.clone()) {
            Some(before) => before,
            None if self.is_headless() && selectorless => REQUIRE.to_owned(),
            None => SINGLE.to_owned(),
        };
        self.policy = Some(inferred);
    }

    /// What going from one family to two, or back, asks for (of an update).
    fn change_from(&mut self, old: &Self) -> Causes {
        let mut causes = Vec::new();
        if self.policy() == SINGLE {
            // With nothing else changed, the policy alone is clear intent.
            if self.ips == old.ips {
                self.ips.truncate(1);
            }
            if self.families == old.families {
                self.families.truncate(1);
            }
            return causes;
        }
        let reduced = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
        if reduced(&self.ips, &old.ips) {
            let why = "must be 'SingleStack' to release the secondary cluster IP";
            causes.push(self.policy_refused(why));
        }
        if reduced(&self.families, &old.families) {
            let why = "must be 'SingleStack' to release the secondary IP family";
            causes.push(self.policy_refused(why));
        }
        causes
    }

    /// Whether the policy goes with the other fields; families are inferred from given addresses.
    fn infer_families(&mut self, ranges: &[Range]) -> Causes {
        let mut causes = Vec::new();
        if self.policy() == SINGLE {
            for (count, what) in [
                (self.ips.len(), "cluster IPs"),
                (self.families.len(), "IP families"),
            ] {
                if count == 2 {
                    causes.push(self.policy_refused(&format!(
                        "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                    )));
                }
            }
        }
        let known = self.families.len();
        for (at, ip) in self.ips.clone().iter().enumerate().skip(known) {
            let Ok(address) = ip.parse() else { break };
            let family = IpFamily::of(address);
            if ranges.iter().any(|range| range.family == family) {
                self.families.push(family.to_string());
            } else {
                let why = format!("{family} is not configured on this cluster");
                causes.push(self.ips_refused(&format!("spec.clusterIPs[{at}]"), &why));
            }
        }
        causes
    }

    /// Refuses what the cluster has not, and adds the families that are still missing.
    fn complete(&mut self, ranges: &[Range], selectorless: bool) -> Causes {
        let mut causes = Vec::new();
        // Nobody takes an address for it, so it may have families that the cluster has not.
        let free = self.is_headless() && selectorless;
        if !free {
            if self.policy() == REQUIRE && ranges.len() < 2 {
                let why = "this cluster is not configured for dual-stack services";
                causes.push(self.policy_refused(why));
            }
            for (at, family) in self.families.iter().enumerate() {
                if !ranges.iter().any(|range| range.family.name() == family) {
                    let field = format!("spec.ipFamilies[{at}]");
                    let why = "not configured on this cluster";
                    causes.push(Cause::invalid(field, &json!(family), why));
                }
            }
        }
        if !causes.is_empty() {
            return causes;
        }
        if self.families.is_empty() {
            let first = ranges.first().map(|range| range.family.to_string());
            self.families.extend(first);
        }
        if self.policy() != SINGLE
            && (free || ranges.len() == 2)
            && let [only] = &self.families[..]
            && let Ok(only) = only.parse::<IpFamily>()
        {
            self.families.push(only.other().to_string());
        }
        causes
    }

    /// An update may add or give back the second address and family, and nothing else
    /// (`validateUpgradeDowngradeClusterIPs`, `validateUpgradeDowngradeIPFamilies`).
    fn compare(&self, old: &Self) -> Causes {
        let mut causes = Vec::new();
        if self.is_headless() && old.is_headless() {
            return causes;
        }
        let kept = self.ips.iter().zip(&old.ips);
        for (at, _) in kept.enumerate().filter(|(_, (new, old))| new != old) {
            let field = format!("spec.clusterIPs[{at}]");
            causes.push(self.ips_refused(&field, "may not change once set"));
        }
        if self.is_headless() == old.is_headless() {
            let mut kept = self.families.iter().zip(&old.families);
            if kept.any(|(new, old)| new != old) {
                let families = self.families_field();
                let why = "may not change once set";
                causes.push(Cause::invalid("spec.ipFamilies[0]", &families, why));
            }
        }
        causes
    }

    /// Takes an address of each family that has none yet.
    fn allocate(&mut self, ranges: &[Range], taken: &BTreeSet<String>) -> Causes {
        let mut causes = Vec::new();
        if self.is_headless() {
            return causes;
        }
        for (at, family) in self.families.clone().iter().enumerate() {
            let Some(range) = ranges.iter().find(|range| range.family.name() == family) else {
                continue;
            };
            match self.ips.get(at) {
                Some(given) => {
                    if let Some(why) = unusable(given, range, taken) {
                        let why = format!("failed to allocate IP {given}: {why}");
                        causes.push(self.ips_refused("spec.clusterIPs", &why));
                    }
                }
                None => match range.networks.iter().find_map(|one| free(*one, taken)) {
                    Some(address) => self.ips.push(address),
                    None => {
                        let why = "failed to allocate a serviceIP: range is full";
                        causes.push(self.ips_refused("spec.clusterIPs", why));
                        break;
                    }
                },
            }
        }
        causes
    }
}

/// Why a given address cannot be had.
fn unusable(given: &str, range: &Range, taken: &BTreeSet<String>) -> Option<String> {
    let inside = given.parse().is_ok_and(|address| range.contains(address));
    if !inside {
        let networks: Vec<_> = range.networks.iter().map(ToString::to_string).collect();
        return Some(format!(
            "the provided IP ({given}) is not in the valid range. The range of valid IPs is {}",
            networks.join(",")
        ));
    }
    taken
        .contains(given)
        .then(|| "provided IP is already allocated".to_owned())
}

/// A free address by chance, outside the lowest of the network, which are for those who ask for one
/// (KEP-3070: a sixteenth of it, but 16 at least and 256 at most).
fn free(network: IpNet, taken: &BTreeSet<String>) -> Option<String> {
    use rand::RngExt as _;
    let (first, bits) = match network.network() {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32 - network.prefix_len()),
        // More than 65536 are never used (`ipallocator.go`).
        IpAddr::V6(address) => (u128::from(address), (128 - network.prefix_len()).min(16)),
    };
    let size = 1_u128 << bits;
    let reserved = (size / 16).clamp(16, 256);
    let (low, high) = (reserved.min(size - 1), size - 2);
    let start = rand::rng().random_range(low..=high.max(low));
    let address = |offset: u128| match network {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(first + offset).unwrap_or_default().into()),
        IpNet::V6(_) => IpAddr::V6((first + offset).into()),
    };
    (start..=high)
        .chain(1..start)
        .map(|offset| address(offset).to_string())
        .find(|address| !taken.contains(address))
}

/// The addresses of the Services that are not meant.
fn taken(admit: &Admit<'_>) -> BTreeSet<String> {
    let others = super::others(admit);
    others
        .flat_map(|service| strings(service, "/spec/clusterIPs"))
        .collect()
}

/// Refuses addresses and families of a Service that has none.
pub(super) fn forbid(spec: &Value, causes: &mut Causes) {
    let why = "may not be set for ExternalName services";
    let Addresses {
        policy, families, ..
    } = Addresses::of(spec);
    let fields = [
        ("spec.clusterIPs[0]", !text(spec, "/clusterIP").is_empty()),
        ("spec.ipFamilies", !families.is_empty()),
        ("spec.ipFamilyPolicy", policy.is_some()),
    ];
    let said = fields.into_iter().filter(|(_, said)| *said);
    causes.extend(said.map(|(field, _)| Cause::forbidden(field, why)));
}

/// Gives a Service its families and addresses, or says why it cannot have them.
pub(super) fn admit(admit: &mut Admit<'_>) -> Result<(), Status> {
    let spec = &admit.new["spec"];
    let old = admit.old.map(|old| &old["spec"]);
    let ranges = service_cidr::ranges(admit.state);
    let selectorless = super::selects_nothing(spec);
    let mut addresses = Addresses::normalized(spec, old);
    let before = old.filter(|old| needs(old)).map(Addresses::of);
    // Who leaves it out of an update leaves it as it is.
    let own = || {
        before
            .as_ref()
            .and_then(|before| before.ips.first().cloned())
    };
    let ip = Some(text(spec, "/clusterIP").to_owned()).filter(|ip| !ip.is_empty());
    let ip = ip.or_else(own).unwrap_or_default();
    let same_type = old.is_some_and(|old| old["type"] == spec["type"]);
    let refused = |causes: Causes| match causes.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(admit.kind, admit.name, &causes)),
    };
    // A cluster that has become one of two families must not change the Services it has.
    let unchanged = same_type
        && addresses.policy() == PREFER
        && before.as_ref().is_some_and(|old| *old == addresses);
    if !unchanged {
        addresses.infer_policy(before.as_ref(), selectorless);
        refused(addresses.check(&ip))?;
        let mut causes = Vec::new();
        if let Some(before) = &before {
            causes.extend(addresses.change_from(before));
        }
        causes.extend(addresses.infer_families(&ranges));
        refused(causes)?;
        refused(addresses.complete(&ranges, selectorless))?;
    }
    if let Some(before) = &before {
        refused(addresses.compare(before))?;
    }
    refused(addresses.allocate(&ranges, &taken(admit)))?;
    let spec = map_at(admit.new, "spec");
    let first = addresses.ips.first().cloned().unwrap_or_default();
    spec.insert("clusterIP".to_owned(), first.into());
    spec.insert("clusterIPs".to_owned(), json!(addresses.ips));
    spec.insert("ipFamilies".to_owned(), json!(addresses.families));
    spec.insert("ipFamilyPolicy".to_owned(), json!(addresses.policy));
    Ok(())
}
