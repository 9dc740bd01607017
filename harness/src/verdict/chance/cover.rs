//! How many requests it takes to meet everybody.

use super::count;

/// The least number of requests of which each of `endpoints`, chosen at random, answers at least one,
/// but for a probability of `alpha`: each is missed by *n* requests with probability (1 − 1/*k*)ⁿ, and
/// any of them with at most *k* times that (Boole's inequality; the exact value, by inclusion and
/// exclusion, is below it by less than its square). What takes endpoints in turn misses nobody sooner.
#[must_use]
pub fn covering(endpoints: u64, alpha: f64) -> u64 {
    let k = count(endpoints);
    if endpoints < 2 {
        return 1;
    }
    let n = (alpha / k).ln() / (1.0 - 1.0 / k).ln();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a sample size"
    )]
    let n = n.ceil() as u64;
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_needed_and_no_more() {
        for (k, alpha) in [(2, 1e-9), (3, 1e-9), (5, 1e-6)] {
            let missed = |n: u64| count(k) * (1.0 - 1.0 / count(k)).powi(i32::try_from(n).unwrap());
            let n = covering(k, alpha);
            assert!(
                missed(n) <= alpha * 1.000_001 && missed(n - 1) > alpha,
                "{k}: {n}"
            );
        }
        assert_eq!(covering(1, 1e-9), 1);
    }
}
