//! How often requests fail, and whether answers are spread evenly; both with stated error rates.
//!
//! Start from [`ErrorBound::judge`] and [`uniform`]. Shares of a weighted split are
//! [`super::split`]'s. Rule: failed requests are judged by a bound of their own, and every figure
//! comes with the confidence it has.

use statrs::distribution::{Beta, ChiSquared, ContinuousCDF as _};

use super::{Expect, NoVerdict, expect};
use crate::verdict::Outcome;

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

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^52"
)]
fn quantile(a: u64, b: u64, at: f64) -> Option<f64> {
    let beta = Beta::new(a as f64, b as f64).ok()?;
    // The library's inverse is an approximation; bisecting its distribution function is exact to
    // the last digits, and fast enough for one figure a check.
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..200 {
        let x = f64::midpoint(low, high);
        if beta.cdf(x) < at { low = x } else { high = x }
    }
    Some(f64::midpoint(low, high))
}

/// What a chi-square test of even spread says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uniformity {
    /// Pearson's statistic.
    pub statistic: f64,
    /// The probability of one at least as large if the spread is even.
    pub p_value: f64,
}

/// Pearson's chi-square test that counts are spread evenly over their cells.
///
/// # Errors
/// When there are fewer than two cells, or fewer than twenty answers a cell: below that the
/// statistic does not follow its distribution far enough into the tail.
pub fn uniform(counts: &[u64]) -> Result<Uniformity, NoVerdict> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of requests are far below 2^52"
    )]
    let cells: Vec<f64> = counts.iter().map(|count| *count as f64).collect();
    #[expect(clippy::cast_precision_loss, reason = "a count of endpoints")]
    let k = cells.len() as f64;
    let expected = cells.iter().sum::<f64>() / k.max(1.0);
    if cells.len() < 2 || expected < 20.0 {
        return Err(NoVerdict::new(format!(
            "{counts:?} are too few answers to tell whether they are spread evenly; 20 for each \
             endpoint are needed"
        )));
    }
    let statistic = cells
        .iter()
        .map(|cell| (cell - expected).powi(2) / expected)
        .sum();
    let distribution = ChiSquared::new(k - 1.0)?;
    Ok(Uniformity {
        statistic,
        p_value: distribution.sf(statistic),
    })
}

/// Judges whether answers are spread evenly over endpoints, at the probability `alpha` of
/// complaining about an even spread.
///
/// # Errors
/// `Failed` if they are not; `NoVerdict` if there are too few.
pub fn judge_uniform(counts: &[(String, u64)], alpha: f64, likely: &str) -> Outcome {
    let Uniformity { statistic, p_value } =
        uniform(&counts.iter().map(|(_, count)| *count).collect::<Vec<_>>())?;
    expect(p_value >= alpha, || Expect {
        what: "how answers are spread over endpoints".to_owned(),
        expected: format!("evenly over {} endpoints", counts.len()),
        observed: format!(
            "{} (χ² = {statistic:.1}, p = {p_value:.1e}, α = {alpha:e})",
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
    use statrs::distribution::{Binomial, DiscreteCDF as _};

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
        assert!(uniform(&[100, 101, 99]).unwrap().p_value > 0.9);
        assert!(uniform(&[150, 150, 0]).unwrap().p_value < 1e-6);
        assert!(uniform(&[10, 10]).is_err());
        assert!(uniform(&[100]).is_err());
        let spread = [("web-0".to_owned(), 300), ("web-1".to_owned(), 0)];
        assert!(matches!(
            judge_uniform(&spread, 1e-6, ""),
            Err(NotPassed::Failed(_))
        ));
    }
}
