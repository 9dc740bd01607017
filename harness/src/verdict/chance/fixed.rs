//! A share of which only the total is told: copies of mirrored requests, requests that were delayed.
//!
//! Start from [`FixedShare::new`], which says how many requests to send. Where the outcome of each
//! request is told as it comes, [`super::split`] decides with fewer. Rule: both error rates are sums of
//! binomial probabilities, and the sample is as small as bisection finds one that keeps them.

use std::ops::RangeInclusive;

use statrs::distribution::{Binomial, DiscreteCDF as _};

use super::bound::two_sided;
use super::count;
use crate::verdict::{Expect, NoVerdict, Outcome, expect};

/// No sample is larger: a tolerance that asks for more is a mistake.
const MOST: u64 = 1 << 20;

/// A test of one share at a sample of a fixed size.
#[derive(Debug, Clone, PartialEq)]
pub struct FixedShare {
    share: f64,
    tolerance: f64,
    alpha: f64,
    beta: f64,
    requests: u64,
    accepted: RangeInclusive<u64>,
}

impl FixedShare {
    /// A sample, no larger than need be, that is judged wrongly with probability `alpha` at most where `share` is
    /// true, and with `beta` where the true share is off by the tolerance or more.
    ///
    /// # Errors
    /// When one of them is not between 0 and 1, or the sample would be larger than is sensible.
    pub fn new(share: f64, tolerance: f64, alpha: f64, beta: f64) -> Result<Self, NoVerdict> {
        if [share, tolerance, alpha, beta]
            .iter()
            .any(|rate| !(*rate > 0.0 && *rate < 1.0))
        {
            return Err(NoVerdict::new(format!(
                "share {share}, tolerance {tolerance}, α = {alpha}, β = {beta}: each must be between 0 and 1"
            )));
        }
        let of = |requests| {
            Ok::<_, NoVerdict>(Self {
                share,
                tolerance,
                alpha,
                beta,
                requests,
                accepted: accepted(requests, share, alpha)?,
            })
        };
        let mut enough = 2;
        while !of(enough)?.sees()? {
            enough *= 2;
            if enough > MOST {
                return Err(NoVerdict::new(format!(
                    "a tolerance of {tolerance} asks for more than {MOST} requests"
                )));
            }
        }
        let mut few = enough / 2;
        while enough - few > 1 {
            let between = u64::midpoint(few, enough);
            if of(between)?.sees()? {
                enough = between;
            } else {
                few = between;
            }
        }
        of(enough)
    }

    /// How many requests to send.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether β is kept on both sides. What is further off than the tolerance is seen all the more.
    fn sees(&self) -> Result<bool, NoVerdict> {
        let (fewest, most) = (*self.accepted.start(), *self.accepted.end());
        let (more, less) = (self.share + self.tolerance, self.share - self.tolerance);
        let missed_more = match more < 1.0 {
            true => Binomial::new(more, self.requests)?.cdf(most),
            // Every request is a hit.
            false => f64::from(most >= self.requests),
        };
        let missed_less = match (less > 0.0, fewest) {
            (_, 0) => 1.0,
            (true, fewest) => Binomial::new(less, self.requests)?.sf(fewest - 1),
            (false, _) => 0.0,
        };
        Ok(missed_more.max(missed_less) <= self.beta)
    }

    /// Judges a sample by its hits.
    ///
    /// # Errors
    /// `Failed` if the share is another.
    pub fn judge(&self, what: &str, hits: u64, likely: &str) -> Outcome {
        expect(self.accepted.contains(&hits), || Expect {
            what: what.to_owned(),
            expected: format!(
                "{:.1} %   ({} to {} of {} requests)",
                self.share * 100.0,
                self.accepted.start(),
                self.accepted.end(),
                self.requests
            ),
            observed: format!(
                "{:.1} %   ({hits} of {} requests)",
                100.0 * count(hits) / count(self.requests),
                self.requests
            ),
            likely: likely.to_owned(),
        })
    }

    /// What belongs into the reports.
    #[must_use]
    pub fn records(&self, hits: u64) -> Vec<(&'static str, String)> {
        vec![
            ("share.requests", self.requests.to_string()),
            ("share.hits", hits.to_string()),
            ("share.expected", self.share.to_string()),
            ("share.tolerance", self.tolerance.to_string()),
            ("share.alpha", format!("{:e}", self.alpha)),
            ("share.beta", format!("{:e}", self.beta)),
        ]
    }
}

/// The hits that are not too improbable: both ends by bisection, since the p-value falls on either
/// side of the share.
fn accepted(n: u64, share: f64, alpha: f64) -> Result<RangeInclusive<u64>, NoVerdict> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a sample"
    )]
    let centre = (share * count(n)).round() as u64;
    let passes = |hits| Ok::<_, NoVerdict>(two_sided(n, hits, share)? >= alpha);
    let (mut low, mut high) = (0, centre);
    while low < high {
        let between = u64::midpoint(low, high);
        if passes(between)? {
            high = between;
        } else {
            low = between + 1;
        }
    }
    let fewest = low;
    let (mut low, mut high) = (centre, n);
    while low < high {
        let between = low + (high - low).div_ceil(2);
        if passes(between)? {
            low = between;
        } else {
            high = between - 1;
        }
    }
    Ok(fewest..=low)
}

#[cfg(test)]
mod tests {
    use statrs::distribution::Discrete as _;

    use super::*;

    #[test]
    fn both_error_rates_hold_exactly() {
        for (share, tolerance) in [(0.25, 0.1), (0.3, 0.2), (0.1, 0.05), (0.5, 0.1), (0.9, 0.2)] {
            let (alpha, beta) = (1e-6, 1e-3);
            let test = FixedShare::new(share, tolerance, alpha, beta).unwrap();
            let n = test.requests();
            let within = |p: f64| -> f64 {
                let hits = Binomial::new(p.clamp(0.0, 1.0), n).unwrap();
                test.accepted.clone().map(|seen| hits.pmf(seen)).sum()
            };
            assert!(1.0 - within(share) <= alpha, "α of {share} at {n}");
            for wrong in [share - tolerance, share + tolerance] {
                assert!(
                    within(wrong) <= beta,
                    "β of {share} at {n}: {}",
                    within(wrong)
                );
            }
        }
        // For 90/10 at five points: what a sample of a fixed size needs.
        let n = FixedShare::new(0.1, 0.05, 1e-6, 1e-3).unwrap().requests();
        assert_eq!(n, 2728);
    }

    #[test]
    fn all_and_none_are_seen_and_a_sample_tells_what_it_was_judged_by() {
        let test = FixedShare::new(0.3, 0.2, 1e-6, 1e-3).unwrap();
        let n = test.requests();
        let hits = n * 3 / 10;
        test.judge("copies", hits, "").unwrap();
        for wrong in [0, n / 2, n] {
            let Err(crate::verdict::NotPassed::Failed(finding)) =
                test.judge("copies", wrong, "all")
            else {
                panic!("{wrong} of {n}")
            };
            assert!(finding.observed().contains(&format!("{wrong} of {n}")));
        }
        assert!(
            test.records(hits)
                .contains(&("share.hits", hits.to_string()))
        );
        assert!(FixedShare::new(0.3, 0.0, 1e-6, 1e-3).is_err());
        assert!(FixedShare::new(0.5, 1e-5, 1e-6, 1e-3).is_err());
    }
}
