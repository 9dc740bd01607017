//! Do the arms of a weighted split receive their shares? A sequential test with stated error rates.
//!
//! Start from [`SplitTest::new`]; feed it who answered each request until it decides. Failed
//! requests are not its business: [`super::bound`] judges those, so that a retry or a lost request
//! never passes as a share. Whether requests are drawn one by one is [`super::dependence`]'s. Rule: α
//! and β are bounds that are proven, and hold at any burst size, since the first decision is final.
//!
//! # How it decides
//!
//! For an arm of share *p₀* and a tolerance *δ* there are two questions: is the true share *p₀*, or
//! at least *p₀ + δ*? Is it *p₀*, or at most *p₀ − δ*? What lies between is the indifference zone,
//! of which nothing is claimed. Each is Wald's sequential probability ratio test of *p₀* against
//! *p₁ = p₀ ± δ* (Wald, "Sequential Tests of Statistical Hypotheses", Ann. Math. Stat. 16, 1945);
//! running both on the same requests and accepting when both have accepted is Sobel and Wald's choice
//! among three hypotheses (Ann. Math. Stat. 20, 1949). With Λₙ the likelihood ratio of *p₁* to *p₀*
//! after *n* requests:
//!
//! - Under *p₀*, Λₙ is a non-negative martingale of mean 1, so it ever reaches *A* with probability
//!   at most 1/*A* (Ville, 1939). A side rejects at *A* = 2/α.
//! - Under *p₁*, 1/Λₙ is one, so Λₙ ever falls to *B* with probability at most *B*. A side accepts at
//!   *B* = β. Further from *p₀* than *p₁*, each path can be coupled to one whose ratio is nowhere
//!   lower, so β bounds those as well.
//!
//! Between *p₀* and *p₁* such a test may go on for long, so it is cut off (Lorden's "2-SPRT's and
//! the modified Kiefer–Weiss problem", Ann. Stat. 4, 1976, is about that region). At the cut-off,
//! a side still undecided compares the observed share with a point between *p₀* and *p₁*, at a
//! sample so large that by Chernoff's bound either error has less than a hundredth of its budget;
//! *A* and *B* are set for the other ninety-nine.
//!
//! Of two arms one is tested, since the other's count says the same. Of more, each is tested against
//! all others and they share α evenly: by Boole's inequality that is at most α together. β is not
//! shared: whoever's share deviates by the tolerance, that arm's own test sees it.
//!
//! An arm of share 0 or 1 falls out of the same arithmetic: one request to the wrong place has
//! likelihood 0 under *p₀* and rejects at once.
//!
//! [`super::exact`] computes what it comes to. For 90/10 at five points α is 9.1·10⁻⁷ and β 9.6·10⁻⁴:
//! boundaries that were calibrated to spend all of both could be nearer by ln(1/0.91), one hundredth of
//! the way, so Wald's are kept, which need no calibration for any weights.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Test;
use super::count;
use super::walk::{ArmTest, Open};
use crate::verdict::{Expect, NoVerdict, Outcome, expect};

/// The probability of complaining about a correct split.
pub const ALPHA: f64 = Test::Split.alpha();
/// The probability of not seeing a deviation of the tolerance or more.
pub const BETA: f64 = 1e-3;
/// Five points.
pub const TOLERANCE: f64 = 0.05;

/// How many requests are sent at first: a size that does not depend on what is seen, so that what
/// [`super::dependence`] says of them holds exactly.
pub const FIRST: u64 = 300;

/// How many requests to send when so many have been sent. The decision does not depend on it; larger
/// bursts send more in vain, smaller ones start the probe more often: fifty, or a twentieth of what was
/// sent if that is more.
#[must_use]
pub fn burst(sent: u64) -> u64 {
    match sent {
        0 => FIRST,
        sent => 50.max(sent / 20),
    }
}

/// What the test says so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Not enough requests yet.
    Undecided,
    /// Every arm receives its share.
    Holds,
    /// Some arm does not.
    Broken,
}

/// A test of one split.
#[derive(Debug, Clone)]
pub struct SplitTest {
    names: Vec<String>,
    shares: Vec<f64>,
    counts: Vec<u64>,
    strangers: BTreeMap<String, u64>,
    arms: Vec<ArmTest>,
    open: Vec<Open>,
    decision: Decision,
    decided_at: u64,
    alpha: f64,
    beta: f64,
    tolerance: f64,
}

impl SplitTest {
    /// A test of arms with their weights (any unit), at [`ALPHA`], [`BETA`] and [`TOLERANCE`].
    ///
    /// # Errors
    /// When the weights make no split: fewer than two arms, a negative one, or nothing at all.
    pub fn new<'a>(arms: impl IntoIterator<Item = (&'a str, f64)>) -> Result<Self, NoVerdict> {
        Self::with_rates(arms, ALPHA, BETA, TOLERANCE)
    }

    /// The same with error rates and tolerance of the caller's.
    ///
    /// # Errors
    /// As [`Self::new`], and when a rate or the tolerance is not between 0 and 1.
    pub fn with_rates<'a>(
        arms: impl IntoIterator<Item = (&'a str, f64)>,
        alpha: f64,
        beta: f64,
        tolerance: f64,
    ) -> Result<Self, NoVerdict> {
        let (names, weights): (Vec<_>, Vec<_>) = arms
            .into_iter()
            .map(|(name, weight)| (name.to_owned(), weight))
            .unzip();
        let total: f64 = weights.iter().sum();
        let usable = weights
            .iter()
            .all(|weight| weight.is_finite() && *weight >= 0.0);
        if names.len() < 2 || !usable || total <= 0.0 {
            return Err(NoVerdict::new(format!(
                "{weights:?} are not the weights of a split"
            )));
        }
        if [alpha, beta, tolerance]
            .iter()
            .any(|rate| !(*rate > 0.0 && *rate < 1.0))
        {
            return Err(NoVerdict::new(format!(
                "α = {alpha}, β = {beta}, tolerance = {tolerance}: each must be between 0 and 1"
            )));
        }
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let tested = if shares.len() == 2 { 1 } else { shares.len() };
        let each = alpha / count(tested as u64);
        let arms: Vec<_> = shares
            .iter()
            .take(tested)
            .map(|share| ArmTest::new(*share, each, beta, tolerance))
            .collect();
        let open = arms.iter().map(ArmTest::open).collect();
        Ok(Self {
            counts: vec![0; names.len()],
            names,
            shares,
            strangers: BTreeMap::new(),
            arms,
            open,
            decision: Decision::Undecided,
            decided_at: 0,
            alpha,
            beta,
            tolerance,
        })
    }

    /// Takes in who answered the next request. Answers beyond a decision are counted, and change
    /// nothing. An answer from somebody who is no arm breaks the split at once.
    pub fn observe(&mut self, who: &str) -> Decision {
        if let Some(arm) = self.names.iter().position(|name| name == who) {
            if let Some(count) = self.counts.get_mut(arm) {
                *count += 1;
            }
        } else {
            *self.strangers.entry(who.to_owned()).or_default() += 1;
        }
        if self.decision == Decision::Undecided {
            self.decision = self.decide();
            self.decided_at = self.requests();
        }
        self.decision
    }

    fn decide(&mut self) -> Decision {
        if !self.strangers.is_empty() {
            return Decision::Broken;
        }
        let n = self.requests();
        for ((arm, open), hits) in self.arms.iter().zip(&mut self.open).zip(&self.counts) {
            match arm.step(*open, n, *hits) {
                Some(next) => *open = next,
                None => return Decision::Broken,
            }
        }
        if self.open.iter().all(|open| *open == Open::NEITHER) {
            Decision::Holds
        } else {
            Decision::Undecided
        }
    }

    /// The tests of the arms that are tested.
    pub(super) fn arms(&self) -> &[ArmTest] {
        &self.arms
    }

    /// The requests taken in so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.counts.iter().chain(self.strangers.values()).sum()
    }

    /// Whether somebody has answered who is no arm.
    #[must_use]
    pub fn has_strangers(&self) -> bool {
        !self.strangers.is_empty()
    }

    /// No split needs more requests than this.
    #[must_use]
    pub fn at_most(&self) -> u64 {
        self.arms
            .iter()
            .map(|arm| arm.cut_off)
            .max()
            .unwrap_or_default()
    }

    /// The decision so far.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// What belongs into the reports: sample size and error rates.
    #[must_use]
    pub fn records(&self) -> Vec<(&'static str, String)> {
        vec![
            ("split.requests", self.requests().to_string()),
            ("split.decided_at", self.decided_at.to_string()),
            ("split.expected", self.expected()),
            ("split.counts", self.counts()),
            ("split.alpha", format!("{:e}", self.alpha)),
            ("split.beta", format!("{:e}", self.beta)),
            ("split.tolerance", self.tolerance.to_string()),
        ]
    }

    /// Judges the split.
    ///
    /// # Errors
    /// `Failed` if some arm does not receive its share; `NoVerdict` if the test is undecided.
    pub fn judge(&self, what: &str, likely: &str) -> Outcome {
        if self.decision == Decision::Undecided {
            return Err(NoVerdict::new(format!(
                "{} requests do not decide the split; it takes {} at most",
                self.requests(),
                self.at_most()
            ))
            .into());
        }
        expect(self.decision == Decision::Holds, || Expect {
            what: what.to_owned(),
            expected: self.expected(),
            observed: self.observed(),
            likely: likely.to_owned(),
        })
    }

    /// Each arm's observed share, by name.
    #[must_use]
    pub fn observed_shares(&self) -> BTreeMap<&str, f64> {
        let n = count(self.requests().max(1));
        let counts = self.names.iter().zip(&self.counts);
        let strangers = self.strangers.iter();
        counts
            .chain(strangers)
            .map(|(name, hits)| (name.as_str(), count(*hits) / n))
            .collect()
    }

    /// How many requests each arm received, by name.
    fn counts(&self) -> String {
        let counts = self.names.iter().zip(&self.counts).chain(&self.strangers);
        let counts = counts.map(|(name, hits)| format!("{name} {hits}"));
        counts.collect::<Vec<_>>().join(", ")
    }

    fn expected(&self) -> String {
        let arms = self.names.iter().zip(&self.shares);
        let arms = arms.map(|(name, share)| format!("{name} {:.1} %", share * 100.0));
        let mut text = arms.collect::<Vec<_>>().join(", ");
        let _ = write!(text, "   (within {} points)", self.tolerance * 100.0);
        text
    }

    fn observed(&self) -> String {
        let shares = self.observed_shares();
        let names = self.names.iter().chain(self.strangers.keys());
        let arms = names.map(|name| {
            format!(
                "{name} {:.1} %",
                shares.get(name.as_str()).unwrap_or(&0.0) * 100.0
            )
        });
        let mut text = arms.collect::<Vec<_>>().join(", ");
        let _ = write!(text, "   (of {} requests)", self.requests());
        text
    }
}

#[cfg(test)]
mod tests;
