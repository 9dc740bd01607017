//! Are requests drawn one by one? Looked for, not assumed: a proxy may draw once a connection, once a
//! client, or in turn, and shares alone do not tell.
//!
//! Start from [`sticky`] and [`unlike`]. Both are exact: given how many requests each arm received,
//! every order of them is equally likely if they are drawn one by one from whatever shares, so the
//! shares need not be known and need not be right. Rule: they are asked of a sample whose size was set
//! beforehand ([`super::split::FIRST`]); one that ended because of what was seen is not exchangeable.

use std::collections::{BTreeMap, BTreeSet};

use statrs::distribution::{Discrete as _, DiscreteCDF as _, Hypergeometric};
use statrs::function::factorial::ln_binomial;

use super::{Test, count};
use crate::verdict::{Cause, CauseKind, Expect, NoVerdict, Outcome, expect};

/// What a test of dependence says.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependence {
    /// What it may depend on.
    pub on: Test,
    /// The probability of at least as much of it if there is none.
    pub p_value: f64,
    /// What was seen, in words.
    pub seen: String,
    /// Whether each of the groups that have several requests stayed with one arm.
    pub constant: bool,
}

impl Dependence {
    /// Whether there is some, at the α of its kind.
    #[must_use]
    pub fn found(&self) -> bool {
        self.p_value < self.on.alpha()
    }

    /// Judges that there is none.
    ///
    /// # Errors
    /// `Failed` if there is.
    pub fn judge(&self) -> Outcome {
        let one = match self.on {
            Test::Connection => "the connection that it comes over",
            Test::Address => "the client that it comes from",
            _ => "the one before it",
        };
        let cause = self.cause();
        let outcome = expect(!self.found(), || Expect {
            what: format!("whether the arm of a request depends on {one}"),
            expected: format!("it does not (p ≥ {:e})", self.on.alpha()),
            observed: format!("{} (p = {:.1e})", self.seen, self.p_value),
            likely: cause.wrong.clone(),
        });
        outcome.map_err(|not_passed| not_passed.caused_by(cause))
    }

    /// What is wrong if there is some: the numbers are the evidence, no object is.
    pub(crate) fn cause(&self) -> Cause {
        let wrong = match self.on {
            Test::Connection => "the proxy draws once for a connection, not for each request",
            Test::Address => "the proxy draws otherwise for one client than for another",
            _ => "the proxy stays with an arm for a while",
        };
        Cause {
            kind: CauseKind::NotDrawnOneByOne,
            wrong: wrong.to_owned(),
            change: "nothing in the weights: see that the proxy speaks HTTP to this port rather than \
                     forwarding TCP, and keeps no sessions; sample.jsonl has every request"
                .to_owned(),
            see: "kubectl get services -A -o custom-columns=NAME:.metadata.name,AFFINITY:.spec.sessionAffinity,PORTS:.spec.ports[*].name"
                .to_owned(),
        }
    }
}

/// The unit by which a proxy draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Each request is drawn for itself.
    Request,
    /// All requests of a connection go where its first one went.
    Connection,
    /// No connection carried two requests, so the two are one.
    Either,
    /// Requests of a connection depend on each other, and yet do not all go one way.
    Neither,
}

impl Unit {
    /// What a test of dependence on the connection says of it.
    #[must_use]
    pub fn of(by_connection: Option<&Dependence>) -> Self {
        match by_connection {
            None => Self::Either,
            Some(seen) if !seen.found() => Self::Request,
            Some(seen) if seen.constant => Self::Connection,
            Some(_) => Self::Neither,
        }
    }

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Connection => "connection",
            Self::Either => "request or connection: each carried one",
            Self::Neither => "neither request nor connection",
        }
    }
}

/// Whether requests of one group (of one connection, say; or all, in the order of time) stay with an
/// arm: too few runs where groups stand one after the other, each in the order of sending (Wald and
/// Wolfowitz, "On a test whether two samples are from the same population", Ann. Math. Stat. 11,
/// 1940). For more than two arms each is asked against the rest, and the least p-value counts as often
/// as there are arms. Nothing is said where no group has two requests, or one arm has all.
#[must_use]
pub fn sticky<K: PartialEq>(on: Test, draws: &[(K, &str)]) -> Option<Dependence> {
    let mut groups: Vec<(&K, Vec<&str>)> = Vec::new();
    for (key, arm) in draws {
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, arms)) => arms.push(arm),
            None => groups.push((key, vec![arm])),
        }
    }
    let several = || groups.iter().filter(|(_, arms)| arms.len() > 1);
    let one_arm = |arms: &[&str]| arms.windows(2).all(|two| two[0] == two[1]);
    let row: Vec<&str> = groups.iter().flat_map(|(_, arms)| arms).copied().collect();
    several().next()?;
    let tested = tested(&row)?;
    let of_arm = |arm: &&&str| {
        let hits: Vec<bool> = row.iter().map(|seen| seen == *arm).collect();
        few_runs(&hits)
    };
    let times = count(tested.len() as u64);
    let p_value = tested.iter().map(|arm| of_arm(&arm)).fold(1.0, f64::min);
    let runs = 1 + row.windows(2).filter(|two| two[0] != two[1]).count();
    Some(Dependence {
        on,
        p_value: (p_value * times).min(1.0),
        seen: format!(
            "{} requests in {} {} make {runs} runs of an arm, where {:.0} are expected",
            row.len(),
            groups.len(),
            if groups.len() == 1 { "row" } else { "groups" },
            expected_runs(&row),
        ),
        constant: several().all(|(_, arms)| one_arm(arms)),
    })
}

/// Whether groups of requests (of one client, say) receive other shares than all together: for each
/// group and arm the count is hypergeometric (Fisher, "The Design of Experiments", 1935), and the
/// least p-value counts as often as was asked. Nothing is said where there is one group, or one arm.
///
/// # Errors
/// Never: the counts are of one table.
pub fn unlike<K: Ord>(on: Test, draws: &[(K, &str)]) -> Result<Option<Dependence>, NoVerdict> {
    let row: Vec<&str> = draws.iter().map(|(_, arm)| *arm).collect();
    let mut groups: BTreeMap<&K, Vec<&str>> = BTreeMap::new();
    for (key, arm) in draws {
        groups.entry(key).or_default().push(arm);
    }
    let Some(tested) = tested(&row).filter(|_| groups.len() > 1) else {
        return Ok(None);
    };
    let of = |arms: &[&str], arm: &str| arms.iter().filter(|seen| **seen == arm).count() as u64;
    let mut p_value = 1.0_f64;
    for arm in &tested {
        for arms in groups.values() {
            let hits = of(arms, arm);
            let chance = Hypergeometric::new(row.len() as u64, of(&row, arm), arms.len() as u64)?;
            let at_least = if hits == 0 { 1.0 } else { chance.sf(hits - 1) };
            p_value = p_value.min(2.0 * chance.cdf(hits).min(at_least));
        }
    }
    let asked = count((tested.len() * groups.len()) as u64);
    let told = groups.values().map(|arms| {
        let shares = tested.iter().map(|arm| format!("{arm} {}", of(arms, arm)));
        format!(
            "{} of {}",
            shares.collect::<Vec<_>>().join(", "),
            arms.len()
        )
    });
    Ok(Some(Dependence {
        on,
        p_value: (p_value * asked).min(1.0),
        seen: told.collect::<Vec<_>>().join("; "),
        constant: groups
            .values()
            .all(|arms| arms.windows(2).all(|two| two[0] == two[1])),
    }))
}

/// The arms that are asked about: of two one is enough. Nothing if there is but one.
fn tested<'a>(row: &[&'a str]) -> Option<Vec<&'a str>> {
    let arms: BTreeSet<&str> = row.iter().copied().collect();
    match arms.len() {
        0 | 1 => None,
        2 => Some(arms.into_iter().take(1).collect()),
        _ => Some(arms.into_iter().collect()),
    }
}

/// The expected number of runs: one, and one for each neighbour that differs.
fn expected_runs(row: &[&str]) -> f64 {
    let n = count(row.len() as u64);
    let arms: BTreeSet<&str> = row.iter().copied().collect();
    let alike: f64 = arms
        .into_iter()
        .map(|arm| {
            let hits = count(row.iter().filter(|seen| **seen == arm).count() as u64);
            hits * (hits - 1.0) / n
        })
        .sum();
    n - alike
}

/// The probability of so few runs or fewer, if every order is equally likely.
fn few_runs(row: &[bool]) -> f64 {
    let hits = row.iter().filter(|hit| **hit).count() as u64;
    let misses = row.len() as u64 - hits;
    if hits == 0 || misses == 0 {
        return 1.0;
    }
    let runs = 1 + row.windows(2).filter(|two| two[0] != two[1]).count() as u64;
    let all = ln_binomial(hits + misses, hits);
    // So many runs of each: their ends are chosen among all places but the last.
    let ways = |of_hits: u64, of_misses: u64| match of_hits <= hits && of_misses <= misses {
        true => (ln_binomial(hits - 1, of_hits - 1) + ln_binomial(misses - 1, of_misses - 1) - all)
            .exp(),
        false => 0.0,
    };
    let exactly = |runs: u64| match (runs / 2, runs % 2) {
        (half, 0) => 2.0 * ways(half, half),
        (half, _) => ways(half, half + 1) + ways(half + 1, half),
    };
    (2..=runs).map(exactly).sum::<f64>().min(1.0)
}

/// Of how many requests in a row [`regular`] counts an arm's.
const BLOCK: u64 = 20;

/// The probability that chance spreads an arm's requests at least as evenly over time: small where a
/// proxy takes arms in turn, which is as good as chance and better, and no finding. Requests are cut
/// into blocks; given the total, the blocks' counts are multivariate hypergeometric, and the
/// probability that they scatter so little is summed up over all of them.
///
/// # Errors
/// Never: the counts are of one table.
pub fn regular(row: &[bool]) -> Result<f64, NoVerdict> {
    let blocks = row.len() as u64 / BLOCK;
    let counts: Vec<u64> = row
        .chunks_exact(BLOCK as usize)
        .map(|block| block.iter().filter(|hit| **hit).count() as u64)
        .collect();
    let total: u64 = counts.iter().sum();
    let centre = total / blocks.max(1);
    let scatter: u64 = counts.iter().map(|hits| hits.abs_diff(centre).pow(2)).sum();
    let share = count(total) / count((blocks * BLOCK).max(1));
    if blocks < 2 || count(scatter) >= count(blocks * BLOCK) * share * (1.0 - share) {
        // It scatters as chance does, or more.
        return Ok(1.0);
    }
    // The probability of what was seen of the blocks so far: hits, and how they scatter.
    let mut states = BTreeMap::from([((0, 0), 1.0)]);
    for done in 0..blocks {
        let mut next = BTreeMap::new();
        for ((hits, scattered), mass) in states {
            let left = (blocks - done) * BLOCK;
            let chance = Hypergeometric::new(left, total - hits, BLOCK)?;
            for more in 0..=BLOCK.min(total - hits) {
                let scattered = scattered + more.abs_diff(centre).pow(2);
                let p = chance.pmf(more);
                // So few that the rest could not be placed have no probability.
                if scattered <= scatter && p > 0.0 {
                    *next.entry((hits + more, scattered)).or_insert(0.0) += mass * p;
                }
            }
        }
        states = next;
    }
    Ok(states.values().sum())
}

#[cfg(test)]
mod tests;
