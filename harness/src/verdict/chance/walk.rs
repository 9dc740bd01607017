//! The walk of one arm's count between its boundaries; [`super::split`] tells why they are where they
//! are.

use super::count;
use super::split::Decision;

/// The part of each error's budget that the cut-off may use.
const CUT_OFF: f64 = 0.01;

/// Which sides of an arm have not accepted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) more: bool,
    pub(super) less: bool,
}

impl Open {
    pub(super) const NEITHER: Self = Self {
        more: false,
        less: false,
    };
}

/// The two questions about one arm.
#[derive(Debug, Clone)]
pub(super) struct ArmTest {
    more: Option<Side>,
    less: Option<Side>,
    pub(super) cut_off: u64,
}

impl ArmTest {
    pub(super) fn new(share: f64, alpha: f64, beta: f64, tolerance: f64) -> Self {
        let side = |other: f64| {
            // At the end of the scale there is nothing beyond to tell from.
            let other = other.clamp(0.0, 1.0);
            ((other - share).abs() > f64::EPSILON).then(|| Side::new(share, other, alpha, beta))
        };
        let (more, less) = (side(share + tolerance), side(share - tolerance));
        let cut_off = [&more, &less]
            .into_iter()
            .flatten()
            .map(|side| side.cut_off)
            .max();
        Self {
            more,
            less,
            cut_off: cut_off.unwrap_or_default(),
        }
    }

    pub(super) fn open(&self) -> Open {
        Open {
            more: self.more.is_some(),
            less: self.less.is_some(),
        }
    }

    /// What is open after `n` requests of which `hits` went to the arm; nothing if a side rejects.
    pub(super) fn step(&self, open: Open, n: u64, hits: u64) -> Option<Open> {
        let still = |side: &Option<Side>, open: bool| match side {
            Some(side) if open => match side.look(n, hits, self.cut_off) {
                Decision::Undecided => Some(true),
                Decision::Holds => Some(false),
                Decision::Broken => None,
            },
            _ => Some(false),
        };
        Some(Open {
            more: still(&self.more, open.more)?,
            less: still(&self.less, open.less)?,
        })
    }
}

/// Wald's test of one share against another.
#[derive(Debug, Clone)]
struct Side {
    share: f64,
    /// What a hit and a miss add to the logarithm of the likelihood ratio.
    hit: f64,
    miss: f64,
    reject: f64,
    accept: f64,
    cut_off: u64,
    /// At the cut-off: the share that divides the two.
    between: f64,
}

impl Side {
    fn new(share: f64, other: f64, alpha: f64, beta: f64) -> Self {
        // Half of α is this side's; see the module's words on the cut-off's hundredth.
        let (alpha, beta) = (alpha / 2.0, beta);
        let (cut_off, between) = cut_off(share, other, CUT_OFF * alpha, CUT_OFF * beta);
        Self {
            share,
            hit: (other / share).ln(),
            miss: ((1.0 - other) / (1.0 - share)).ln(),
            reject: -((1.0 - CUT_OFF) * alpha).ln(),
            accept: ((1.0 - CUT_OFF) * beta).ln(),
            cut_off,
            between,
        }
    }

    fn look(&self, n: u64, hits: u64, cut_off: u64) -> Decision {
        let ratio = times(hits, self.hit) + times(n - hits, self.miss);
        if ratio >= self.reject {
            Decision::Broken
        } else if ratio <= self.accept {
            Decision::Holds
        } else if n < cut_off {
            Decision::Undecided
        } else if (count(hits) / count(n) < self.between) == (self.share < self.between) {
            Decision::Holds
        } else {
            Decision::Broken
        }
    }
}

/// What never happened weighs nothing, even if its likelihood is 0 (and its logarithm infinite).
fn times(n: u64, logarithm: f64) -> f64 {
    if n == 0 { 0.0 } else { count(n) * logarithm }
}

/// The least sample at which a share between the two has both tails below their budgets by
/// Chernoff's bound, exp(−n·KL), and that share.
fn cut_off(share: f64, other: f64, alpha: f64, beta: f64) -> (u64, f64) {
    let needs = |x: f64| {
        let for_alpha = -alpha.ln() / divergence(x, share);
        let for_beta = -beta.ln() / divergence(x, other);
        (for_alpha, for_beta)
    };
    // The nearer to `other`, the fewer α needs and the more β; the best is where they meet.
    let (mut near, mut far) = (share, other);
    for _ in 0..60 {
        let x = f64::midpoint(near, far);
        let (for_alpha, for_beta) = needs(x);
        if for_alpha > for_beta {
            near = x
        } else {
            far = x
        }
    }
    let between = f64::midpoint(near, far);
    let (for_alpha, for_beta) = needs(between);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a sample size"
    )]
    let n = for_alpha.max(for_beta).ceil() as u64;
    (n, between)
}

/// Kullback and Leibler's divergence of a coin that falls `x` from one that falls `p`.
pub(super) fn divergence(x: f64, p: f64) -> f64 {
    let term = |x: f64, p: f64| if x <= 0.0 { 0.0 } else { x * (x / p).ln() };
    term(x, p) + term(1.0 - x, 1.0 - p)
}
