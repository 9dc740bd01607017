//! What the sequential test comes to, exactly: every path of requests is followed with its
//! probability.
//!
//! Start from [`SplitTest::characteristics`]. Where the count of one arm stands after *n* requests,
//! and which of its sides are open, is all that the test knows; so from the probabilities of these
//! states after *n* requests those after *n* + 1 follow, up to the cut-off, after which nothing is
//! open (Aroian, "Sequential analysis, direct method", Technometrics 10, 1968). For two arms that is
//! the whole test. More arms are not followed jointly, since the states are too many: each arm against
//! the rest is followed by itself, and what all together come to lies between the bounds that Boole's
//! inequality gives.

use super::count;
use super::split::{SplitTest, burst};
use super::walk::{ArmTest, Open, divergence};

/// A path less probable than this is followed no further; what was left is added to every bound.
const LEAST: f64 = 1e-18;

/// What a test comes to where the true shares are given.
#[derive(Debug, Clone, PartialEq)]
pub struct Characteristics {
    /// The probability that it holds, at least.
    pub holds_at_least: f64,
    /// The probability that it holds, at most: the same for two arms, but for the last digits.
    pub holds_at_most: f64,
    /// How many requests are expected to decide it; for more than two arms, at most.
    pub decided_by: f64,
    /// How many are expected to be sent, since they are sent in bursts; for more than two arms, at
    /// most.
    pub sent: f64,
}

impl SplitTest {
    /// What the test comes to where its arms' true shares are `truth`, in the order of its arms.
    #[must_use]
    pub fn characteristics(&self, truth: &[f64]) -> Characteristics {
        let followed: Vec<_> = self
            .arms()
            .iter()
            .zip(truth)
            .map(|(arm, p)| Followed::new(arm, *p))
            .collect();
        let sum = |of: fn(&Followed) -> f64| followed.iter().map(of).sum::<f64>();
        let at_most = followed.iter().map(|one| one.accepts + one.left);
        let most = count(self.at_most());
        Characteristics {
            holds_at_least: 1.0 - sum(|one| one.rejects + one.left),
            holds_at_most: at_most.fold(1.0, f64::min),
            decided_by: sum(Followed::requests).min(most),
            sent: sum(Followed::sent).min(most),
        }
    }
}

/// What the test of one arm comes to.
#[derive(Debug, Default)]
pub(super) struct Followed {
    pub(super) rejects: f64,
    pub(super) accepts: f64,
    /// Paths too improbable to follow.
    pub(super) left: f64,
    /// The probability that it is still undecided after 0, 1, 2, … requests.
    undecided: Vec<f64>,
}

impl Followed {
    pub(super) fn new(arm: &ArmTest, p: f64) -> Self {
        let mut followed = Self::default();
        let mut states = States::begin(arm);
        for n in 1..=arm.cut_off {
            if states.masses.is_empty() {
                break;
            }
            followed.undecided.push(states.total());
            states = states.after(arm, n, p, &mut followed);
        }
        followed
    }

    /// The expected number of requests: the sum of the probabilities that there is a next one.
    pub(super) fn requests(&self) -> f64 {
        self.undecided.iter().sum()
    }

    /// The same where each burst is sent as a whole.
    pub(super) fn sent(&self) -> f64 {
        let (mut expected, mut begun) = (0.0, 0);
        while let Some(undecided) = self.undecided.get(begun) {
            let next = burst(begun as u64);
            expected += undecided * count(next);
            begun += usize::try_from(next).unwrap_or(usize::MAX);
        }
        expected
    }
}

/// For each number of hits, from `fewest` up, the mass of every combination of open sides.
struct States {
    fewest: u64,
    masses: Vec<[f64; 4]>,
}

impl States {
    fn begin(arm: &ArmTest) -> Self {
        let mut masses = [0.0; 4];
        masses[pack(arm.open())] = 1.0;
        Self {
            fewest: 0,
            masses: vec![masses],
        }
    }

    fn total(&self) -> f64 {
        self.masses.iter().flatten().sum()
    }

    fn after(&self, arm: &ArmTest, n: u64, p: f64, followed: &mut Followed) -> Self {
        let mut next = vec![[0.0; 4]; self.masses.len() + 1];
        for (more, masses) in self.masses.iter().enumerate() {
            for (hit, p) in [(0, 1.0 - p), (1, p)] {
                let hits = self.fewest + (more + hit) as u64;
                for (open, mass) in masses.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
                    let mass = mass * p;
                    if mass < LEAST {
                        followed.left += mass;
                        continue;
                    }
                    match arm.step(unpack(open), n, hits) {
                        None => followed.rejects += mass,
                        Some(Open::NEITHER) => followed.accepts += mass,
                        Some(open) => next[more + hit][pack(open)] += mass,
                    }
                }
            }
        }
        let alive = |masses: &[f64; 4]| masses.iter().any(|mass| *mass > 0.0);
        let first = next.iter().position(alive).unwrap_or(next.len());
        let last = next.iter().rposition(alive).map_or(first, |last| last + 1);
        Self {
            fewest: self.fewest + first as u64,
            masses: next.get(first..last).unwrap_or_default().to_vec(),
        }
    }
}

fn pack(open: Open) -> usize {
    usize::from(open.more) | usize::from(open.less) << 1
}

fn unpack(open: usize) -> Open {
    Open {
        more: open & 1 != 0,
        less: open & 2 != 0,
    }
}

/// Wald's lower bounds of the expected sample, where `share` is true and where `other` is, of any
/// test that tells the two apart with α and β (Wald, "Sequential Analysis", 1947, A:1; for a test
/// that has to tell more apart they hold all the more).
#[must_use]
pub fn least_sample(share: f64, other: f64, alpha: f64, beta: f64) -> (f64, f64) {
    let (hit, miss) = (alpha, 1.0 - beta);
    (
        divergence(hit, miss) / divergence(share, other),
        divergence(miss, hit) / divergence(other, share),
    )
}
