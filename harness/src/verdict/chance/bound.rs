//! How often requests fail, and whether answers are spread evenly; both with stated error rates.
//!
//! Start from [`ErrorBound::judge`] and [`uneven`]. Shares of a weighted split are
//! [`super::split`]'s. Rule: failed requests are judged by a bound of their own, and every figure
//! comes with the confidence it has.

use statrs::distribution::{Beta, Binomial, ContinuousCDF as _, DiscreteCDF as _};

use super::count;
use crate::verdict::{Expect, NoVerdict, Outcome, expect};

/// The most requests that may fail, as a probability, and how sure we want to be before we say that
/// more do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorBound {
    /// The probability of failing that is still allowed; 0 allows no failed request at all.
    pub allowed: f64,
    /// The probability of complaining about a cluster that keeps the bound.
    pub alpha: f64,
}

impl Default for ErrorBound {
    fn default() -> Self {
        Self {
            allowed: 0.0,
            alpha: super::split::ALPHA,
        }
    }
}

impl ErrorBound {
    /// Judges `failed` requests of `n`; `kinds` says how they failed, for the person who reads it.
    ///
    /// # Errors
    /// `Failed` if more fail than allowed; `NoVerdict` if there was no request.
    pub fn judge(&self, n: u64, failed: u64, kinds: &str, likely: &str) -> Outcome {
        if n == 0 || failed > n {
            return Err(NoVerdict::new(format!("{failed} of {n} requests failed")).into());
        }
        let least = lower(n, failed, self.alpha);
        let holds = if self.allowed <= 0.0 {
            failed == 0
        } else {
            least <= self.allowed
        };
        expect(holds, || Expect {
            what: "requests that fail".to_owned(),
            expected: format!("at most {:.3} % fail", self.allowed * 100.0),
            observed: format!(
                "{failed} of {n} failed, so at least {:.3} % do (α = {:e}): {kinds}",
                least * 100.0,
                self.alpha
            ),
            likely: likely.to_owned(),
        })
    }

    /// What belongs into the reports: the sample, and the most that may fail unseen.
    #[must_use]
    pub fn records(&self, n: u64, failed: u64) -> Vec<(&'static str, String)> {
        let most = upper(n, failed, super::split::BETA);
        vec![
            ("errors.requests", n.to_string()),
            ("errors.failed", failed.to_string()),
            ("errors.allowed", self.allowed.to_string()),
            ("errors.alpha", format!("{:e}", self.alpha)),
            (
                "errors.at_most",
                format!("{most:.6} (β = {:e})", super::split::BETA),
            ),
        ]
    }
}

/// The greatest lower bound of the probability of failing, at confidence 1 − `alpha` (Clopper and
/// Pearson, Biometrika 26, 1934).
#[must_use]
pub fn lower(n: u64, failed: u64, alpha: f64) -> f64 {
    if failed == 0 || n == 0 {
        return 0.0;
    }
    quantile(failed, n - failed.min(n) + 1, alpha).unwrap_or(0.0)
}

/// The least upper bound of the probability of failing, at confidence 1 − `beta`.
#[must_use]
pub fn upper(n: u64, failed: u64, beta: f64) -> f64 {
    if failed >= n {
        return 1.0;
    }
    quantile(failed + 1, n - failed, 1.0 - beta).unwrap_or(1.0)
}

fn quantile(a: u64, b: u64, at: f64) -> Option<f64> {
    let beta = Beta::new(count(a), count(b)).ok()?;
    // The library's inverse is an approximation; bisecting its distribution function is exact to
    // the last digits, and fast enough for one figure a check.
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..200 {
        let x = f64::midpoint(low, high);
        if beta.cdf(x) < at { low = x } else { high = x }
    }
    Some(f64::midpoint(low, high))
}

/// The probability of a count at least as far out, on either side, if `share` is the true share.
///
/// # Errors
/// When the share is none.
pub fn two_sided(n: u64, hits: u64, share: f64) -> Result<f64, NoVerdict> {
    let chance = Binomial::new(share, n)?;
    let at_least = match hits {
        0 => 1.0,
        hits => chance.sf(hits - 1),
    };
    Ok((2.0 * chance.cdf(hits).min(at_least)).min(1.0))
}

/// The probability of counts at least as uneven as these, at most, if each answer is equally likely
/// to be any endpoint's: each count is then binomial, and the least of their p-values counts as often
/// as there are endpoints (Boole's inequality). Unlike Pearson's statistic, of which only the limit's
/// tail is tabled, this holds at any sample; what is taken in turn is more even and passes all the
/// more.
///
/// # Errors
/// When there are fewer than two endpoints, or no answer.
pub fn uneven(counts: &[u64]) -> Result<f64, NoVerdict> {
    let n: u64 = counts.iter().sum();
    if counts.len() < 2 || n == 0 {
        return Err(NoVerdict::new(format!(
            "whether {counts:?} are spread evenly cannot be told: there are no answers, or there is nothing to choose"
        )));
    }
    let endpoints = count(counts.len() as u64);
    let mut least = 1.0_f64;
    for hits in counts {
        least = least.min(two_sided(n, *hits, 1.0 / endpoints)?);
    }
    Ok((least * endpoints).min(1.0))
}

/// Judges whether answers are spread evenly over endpoints, at the probability `alpha` of
/// complaining about an even spread.
///
/// # Errors
/// `Failed` if they are not; `NoVerdict` if nothing can be told.
pub fn judge_even(counts: &[(String, u64)], alpha: f64, likely: &str) -> Outcome {
    let p_value = uneven(&counts.iter().map(|(_, count)| *count).collect::<Vec<_>>())?;
    expect(p_value >= alpha, || Expect {
        what: "how answers are spread over endpoints".to_owned(),
        expected: format!("evenly over {} endpoints", counts.len()),
        observed: format!(
            "{} (p = {p_value:.1e}, α = {alpha:e})",
            counts
                .iter()
                .map(|(who, n)| format!("{who} {n}"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        likely: likely.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::NotPassed;

    #[test]
    fn the_bounds_are_the_binomials_own() {
        for (n, failed) in [(700, 1), (700, 5), (50, 50), (1000, 999), (2000, 37)] {
            let least = lower(n, failed, 1e-6);
            let tail = Binomial::new(least, n).unwrap().sf(failed - 1);
            assert!((tail / 1e-6 - 1.0).abs() < 1e-3, "{n} {failed}: {tail}");
        }
        let most = upper(700, 3, 1e-3);
        let tail = Binomial::new(most, 700).unwrap().cdf(3);
        assert!((tail / 1e-3 - 1.0).abs() < 1e-3, "{tail}");
        // The rule of three's exact form: nothing failed of n.
        assert!((upper(700, 0, 1e-3) - (1.0 - 1e-3_f64.powf(1.0 / 700.0))).abs() < 1e-9);
        assert_eq!((lower(10, 0, 0.1), upper(10, 10, 0.1)), (0.0, 1.0));
    }

    #[test]
    fn none_allowed_means_none() {
        let strict = ErrorBound::default();
        strict.judge(700, 0, "", "").unwrap();
        assert!(matches!(
            strict.judge(700, 1, "reset", ""),
            Err(NotPassed::Failed(_))
        ));
        assert!(matches!(
            strict.judge(0, 0, "", ""),
            Err(NotPassed::NoVerdict(_))
        ));
        let lenient = ErrorBound {
            allowed: 0.01,
            alpha: 1e-6,
        };
        lenient.judge(700, 12, "", "").unwrap();
        assert!(matches!(
            lenient.judge(700, 50, "503", ""),
            Err(NotPassed::Failed(_))
        ));
    }

    #[test]
    fn an_even_spread_passes_and_a_lost_endpoint_does_not() {
        assert!(uneven(&[100, 101, 99]).unwrap() > 0.9);
        assert!(uneven(&[150, 150, 0]).unwrap() < 1e-6);
        assert!(uneven(&[0, 0]).is_err());
        assert!(uneven(&[100]).is_err());
        let spread = [("web-0".to_owned(), 300), ("web-1".to_owned(), 0)];
        assert!(matches!(
            judge_even(&spread, 1e-6, ""),
            Err(NotPassed::Failed(_))
        ));
    }

    /// Every outcome of twelve answers by three endpoints, with its probability.
    #[test]
    fn the_test_of_an_even_spread_keeps_its_alpha() {
        let ways = |n: u64, k: u64| statrs::function::factorial::ln_binomial(n, k);
        let mut outcomes = Vec::new();
        for a in 0..=12 {
            for b in 0..=12 - a {
                let p = (ways(12, a) + ways(12 - a, b) - 12.0 * 3.0_f64.ln()).exp();
                outcomes.push((uneven(&[a, b, 12 - a - b]).unwrap(), p));
            }
        }
        for alpha in [1e-4, 1e-3, 0.01, 0.1, 0.5] {
            let complains: f64 = outcomes
                .iter()
                .filter(|(p_value, _)| *p_value < alpha)
                .map(|(_, p)| p)
                .sum();
            assert!(complains <= alpha, "{alpha}: {complains}");
        }
    }

    /// What `services::spreads_connections_evenly` says of its sample: a pod that gets 20 % instead of
    /// a third of 1200 connections passes with a probability of 10⁻³ at most.
    #[test]
    fn a_sample_of_twelve_hundred_sees_a_fifth_instead_of_a_third() {
        let alpha = crate::verdict::chance::Test::Even.alpha();
        let passes = |hits: u64| 3.0 * two_sided(1200, hits, 1.0 / 3.0).unwrap() >= alpha;
        let fewest = (0..400).find(|hits| passes(*hits)).unwrap();
        let missed = Binomial::new(0.2, 1200).unwrap().sf(fewest - 1);
        assert!(missed < 1e-3, "{fewest}: {missed}");
    }
}
