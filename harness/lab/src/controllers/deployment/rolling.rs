//! How large each ReplicaSet of a Deployment is to be. Pure functions of what is there now.
//!
//! Start from [`grow_new`], [`shrink_old`] and [`scale`], which follow Kubernetes' `rolling.go` and
//! `sync.go`. Rule: never more than `replicas + maxSurge` pods are asked for, and never so few that
//! less than `replicas - maxUnavailable` would be available.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::Family;
use super::revision::{noted_max, noted_size};
use crate::controllers::pods::{by_age, scaled};

/// ReplicaSets and the sizes they are to have.
pub(super) type Plan = Vec<(Arc<ReplicaSet>, i32)>;

/// How a change is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rollout {
    /// New pods replace old ones little by little.
    Rolling(Limits),
    /// All old pods end before the first new one begins.
    Recreate,
}

/// By how many pods a Deployment may differ from what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

/// `spec.replicas`.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    let spec = deployment.spec.as_ref();
    spec.and_then(|spec| spec.replicas).unwrap_or(1)
}

/// What a ReplicaSet is asked for.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| spec.replicas).unwrap_or(0)
}

fn available(set: &ReplicaSet) -> i32 {
    let status = set.status.as_ref();
    status
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// The Deployment's strategy.
pub(super) fn strategy(deployment: &Deployment) -> Rollout {
    let spec = deployment.spec.as_ref();
    let strategy = spec.and_then(|spec| spec.strategy.as_ref());
    if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")) {
        return Rollout::Recreate;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let total = wanted(deployment);
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let mut limits = Limits {
        surge: scaled(surge, 0, total, true),
        unavailable: scaled(unavailable, 0, total, false),
    };
    if limits.surge == 0 && limits.unavailable == 0 {
        // Percentages may round to nothing; something has to move.
        limits.unavailable = 1;
    }
    Rollout::Rolling(limits)
}

/// The limits of any strategy: Recreate has none to spare.
pub(super) fn limits(deployment: &Deployment) -> Limits {
    match strategy(deployment) {
        Rollout::Rolling(limits) => Limits {
            unavailable: limits.unavailable.min(wanted(deployment)),
            ..limits
        },
        Rollout::Recreate => Limits {
            surge: 0,
            unavailable: 0,
        },
    }
}

fn total<'a>(sets: impl Iterator<Item = &'a Arc<ReplicaSet>>) -> i32 {
    sets.map(|set| size(set)).sum()
}

/// How large the current ReplicaSet, of a size now, may be.
fn new_size(family: &Family, now: i32) -> i32 {
    let wanted = family.wanted();
    match strategy(&family.deployment) {
        Rollout::Recreate => wanted,
        Rollout::Rolling(limits) => {
            let room = wanted + limits.surge - total(family.all());
            now + room.max(0).min((wanted - now).max(0))
        }
    }
}

/// How large the current ReplicaSet is to be when it is made.
pub(super) fn first_size(family: &Family) -> i32 {
    new_size(family, 0)
}

/// The current ReplicaSet's next size.
pub(super) fn grow_new(family: &Family) -> Plan {
    let Some(new) = &family.new else {
        return Vec::new();
    };
    let (now, wanted) = (size(new), family.wanted());
    let next = if now >= wanted {
        wanted
    } else {
        new_size(family, now)
    };
    vec![(new.clone(), next)]
}

/// The old ReplicaSets' next sizes, without those that stay.
pub(super) fn shrink_old(family: &Family) -> Plan {
    let Some(new) = &family.new else {
        return Vec::new();
    };
    let least = family.wanted() - limits(&family.deployment).unavailable;
    let new_unavailable = size(new) - available(new);
    let room = total(family.all()) - least - new_unavailable;
    if room <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = family.old.iter().map(|set| size(set)).collect();
    // Those that serve nobody go first, since that costs nothing.
    let mut left = room;
    for (set, size) in family.old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available(set)).max(0).min(left);
        *size -= unhealthy;
        left -= unhealthy;
    }
    let serving: i32 = family.all().map(|set| available(set)).sum();
    let mut left = (serving - least).max(0);
    for size in &mut sizes {
        let down = (*size).min(left);
        *size -= down;
        left -= down;
    }
    let plan = family.old.iter().cloned().zip(sizes);
    plan.filter(|(set, next)| size(set) != *next).collect()
}

/// All of them at nothing.
pub(super) fn to_nothing(sets: &[Arc<ReplicaSet>]) -> Plan {
    let active = sets.iter().filter(|set| size(set) > 0);
    active.map(|set| (set.clone(), 0)).collect()
}

/// Whether the Deployment was scaled since its ReplicaSets were.
pub(super) fn is_scaling(family: &Family) -> bool {
    let mut active = family.all().filter(|set| size(set) > 0);
    active.any(|set| noted_size(set).is_some_and(|noted| noted != family.wanted()))
}

/// The sizes that follow a change of `spec.replicas` alone: shared out in proportion while a
/// rollout is under way.
pub(super) fn scale(family: &Family) -> Plan {
    let wanted = family.wanted();
    let active: Vec<&Arc<ReplicaSet>> = family.all().filter(|set| size(set) > 0).collect();
    let latest = family.new.as_ref().or_else(|| family.old.last());
    match (active.as_slice(), latest) {
        ([], None) => return Vec::new(),
        ([], Some(only)) => return vec![(only.clone(), wanted)],
        ([only], _) => return vec![((*only).clone(), wanted)],
        _ => {}
    }
    let saturated = family.new.as_ref().is_some_and(|new| {
        noted_size(new) == Some(wanted) && size(new) == wanted && available(new) == wanted
    });
    if saturated {
        return to_nothing(&family.old);
    }
    let Rollout::Rolling(limits) = strategy(&family.deployment) else {
        return Vec::new();
    };
    let allowed = if wanted > 0 { wanted + limits.surge } else { 0 };
    let add = allowed - total(active.iter().copied());
    let mut sets: Vec<Arc<ReplicaSet>> = active.into_iter().cloned().collect();
    sets.sort_by(|one, two| {
        let age = by_age(&**one, &**two);
        let age = if add > 0 { age.reverse() } else { age };
        size(two).cmp(&size(one)).then(age)
    });
    let mut added = 0;
    let mut plan: Plan = Vec::new();
    for set in sets {
        let share = share(family, &set, allowed, add, added);
        added += share;
        let next = size(&set) + share;
        plan.push((set, next));
    }
    if let Some((_, first)) = plan.first_mut() {
        *first = (*first + add - added).max(0);
    }
    plan
}

/// A ReplicaSet's part of what is added to (or, negative, taken from) all of them.
fn share(family: &Family, set: &ReplicaSet, allowed: i32, add: i32, added: i32) -> i32 {
    let now = size(set);
    if now == 0 || add == 0 || add == added {
        return 0;
    }
    let part = if family.wanted() == 0 {
        -now
    } else {
        let status = family.deployment.status.as_ref();
        let before = noted_max(set)
            .or_else(|| status.and_then(|status| status.replicas))
            .filter(|before| *before > 0)
            .unwrap_or(allowed);
        let exact = f64::from(now) * f64::from(allowed) / f64::from(before);
        // Both are small counts of pods.
        #[expect(clippy::cast_possible_truncation, reason = "a count of pods fits")]
        let rounded = exact.round() as i32;
        rounded - now
    };
    if add > 0 {
        part.min(add - added)
    } else {
        part.max(add - added)
    }
}
