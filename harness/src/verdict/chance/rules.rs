//! What two other suites' rules for a 90/10 split come to, exactly, beside ours.
//!
//! Start from [`table`]. Both rules send a fixed number of requests, compare a count with margins, and
//! try again if it is outside: so one attempt passes with a sum of binomial probabilities *q*, of *k*
//! attempts one does with 1 − (1 − *q*)ᵏ, and a geometric number of them is made.

use std::fmt::Write as _;

use statrs::distribution::{Binomial, Discrete as _};

use super::exact::{Characteristics, least_sample};
use super::split::{ALPHA, BETA, SplitTest, TOLERANCE};
use super::{BUDGET, Test, count};
use crate::verdict::NoVerdict;

/// A rule that tries until it is content.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Requests of one attempt.
    pub requests: u64,
    /// How often it tries, at most.
    pub attempts: i32,
    /// Whether an attempt passes at a share of 10 %, by the hits of that arm.
    pub passes: fn(u64) -> bool,
}

/// Gateway API's: `conformance/tests/httproute-weight.go`, at weights of 90 and 10. In its arithmetic,
/// which is done here as it is there, a share of exactly 85 % is outside of ±5 points; and each arm
/// has to be seen.
pub const GATEWAY_API: Rule = Rule {
    requests: 500,
    attempts: 10,
    passes: |hits| {
        let outside = |hits: u64, share: f64| (count(hits) / 500.0 - share).abs() > 0.05;
        hits > 0 && hits < 500 && !outside(hits, 0.1) && !outside(500 - hits, 0.9)
    },
};

/// Istio's: `AlmostEquals(…, 10)` in `tests/integration/pilot`, retried for 30 s. How many attempts
/// these are depends on the cluster; we take one a second, and more only pass more.
pub const ISTIO: Rule = Rule {
    requests: 100,
    attempts: 30,
    passes: |hits| hits <= 20,
};

impl Rule {
    /// The probability that it passes where the arm's true share is `p`.
    #[must_use]
    pub fn passes(&self, p: f64) -> f64 {
        1.0 - (1.0 - self.one(p)).powi(self.attempts)
    }

    /// The requests it is expected to send.
    #[must_use]
    pub fn sends(&self, p: f64) -> f64 {
        let missed = 1.0 - self.one(p);
        let attempts: f64 = (0..self.attempts).map(|made| missed.powi(made)).sum();
        count(self.requests) * attempts
    }

    fn one(&self, p: f64) -> f64 {
        let Ok(hits) = Binomial::new(p, self.requests) else {
            return 0.0;
        };
        let passing = (0..=self.requests).filter(|hits_seen| (self.passes)(*hits_seen));
        passing.map(|seen| hits.pmf(seen)).sum::<f64>().min(1.0)
    }
}

/// The true shares of the second arm that the table looks at.
const TRUTHS: [f64; 7] = [0.20, 0.15, 0.12, 0.10, 0.08, 0.05, 0.0];

/// What the three come to for a split of 90/10, as Markdown.
///
/// # Errors
/// Never: the weights are a split.
pub fn table() -> Result<String, NoVerdict> {
    let test = SplitTest::new([("first", 90.0), ("second", 10.0)])?;
    let mut table = "\
| true split | passes | decided by | sends | any test needs | Gateway API passes | sends | Istio passes | sends |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"
    .to_owned();
    for p in TRUTHS {
        let ours = test.characteristics(&[1.0 - p, p]);
        let _ = writeln!(
            table,
            "| {:.0}/{:.0} | {} | {:.0} | {:.0} | {} | {} | {:.0} | {} | {:.0} |",
            100.0 * (1.0 - p),
            100.0 * p,
            passes(&ours),
            ours.decided_by,
            ours.sent,
            needed(p),
            probability(GATEWAY_API.passes(p)),
            GATEWAY_API.sends(p),
            probability(ISTIO.passes(p)),
            ISTIO.sends(p),
        );
    }
    Ok(table)
}

/// What a kind of test may take of the budget, as Markdown.
#[must_use]
pub fn tests() -> String {
    let mut table = "| test | asks, and how | α |\n| --- | --- | ---: |\n".to_owned();
    for test in Test::ALL {
        let _ = writeln!(table, "| {test} | {} | {:e} |", test.what(), test.alpha());
    }
    let _ = writeln!(table, "| all of a run |  | {BUDGET:e} |");
    table
}

/// The bound that we state: the greater one where it should fail, the smaller where it should hold.
fn passes(ours: &Characteristics) -> String {
    match ours.holds_at_most < 0.5 {
        true => probability(ours.holds_at_most),
        false => probability(ours.holds_at_least),
    }
}

/// What any test needs, as sure as ours: where the split is right, or off by the tolerance.
fn needed(p: f64) -> String {
    let bound = |other: f64| least_sample(0.1, other, ALPHA, BETA);
    let (more, less) = (bound(0.1 + TOLERANCE), bound(0.1 - TOLERANCE));
    let known = [
        (0.1, more.0.max(less.0)),
        (0.1 + TOLERANCE, more.1),
        (0.1 - TOLERANCE, less.1),
    ];
    let found = known.iter().find(|(truth, _)| (p - truth).abs() < 1e-9);
    found.map_or_else(String::new, |(_, bound)| format!("{bound:.0}"))
}

/// Near 1 it is told by what is missing, near 0 by its size.
fn probability(p: f64) -> String {
    match p {
        p if p <= 0.0 => "0".to_owned(),
        p if p < 0.01 => format!("{p:.1e}"),
        p if p > 0.99 && 1.0 - p > 1e-12 => format!("1 − {:.1e}", 1.0 - p),
        p if p > 0.99 => "1".to_owned(),
        p => format!("{p:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures that are known of both rules, from their authors' arithmetic redone by others.
    #[test]
    fn both_rules_pass_what_they_should_not() {
        let gateway = |p| GATEWAY_API.passes(p);
        assert!((gateway(0.15) - 0.9986).abs() < 1e-4, "{}", gateway(0.15));
        assert!((gateway(0.2) - 0.016).abs() < 5e-4, "{}", gateway(0.2));
        assert!(gateway(0.0) <= 0.0 && gateway(0.1) > 0.999_999);
        assert!(ISTIO.passes(0.2) > 1.0 - 1e-9 && ISTIO.passes(0.0) >= 1.0);
        assert!((ISTIO.sends(0.0) - 100.0).abs() < 1e-9);
        assert!((GATEWAY_API.sends(0.0) - 5000.0).abs() < 1e-9);
    }

    #[test]
    fn ours_does_not() {
        let test = SplitTest::new([("first", 90.0), ("second", 10.0)]).unwrap();
        for p in [0.2, 0.15, 0.05, 0.0] {
            let wrong = test.characteristics(&[1.0 - p, p]);
            assert!(wrong.holds_at_most <= BETA, "{p}: {wrong:?}");
        }
        let right = test.characteristics(&[0.9, 0.1]);
        assert!(right.holds_at_least >= 1.0 - ALPHA, "{right:?}");
    }
}
