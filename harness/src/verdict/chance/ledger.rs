//! The run's budget of false alarms: what each test of chance may take, and who takes it.
//!
//! Start from [`Ledger`]. By Boole's inequality a run in which the cluster is right complains by
//! chance with at most the sum of what its tests drew, however they depend on each other. So the sum
//! is what is kept: declared per check, added up before a run begins, and drawn from by name.

use std::fmt;

/// The most probability with which a whole run may complain of a cluster that is right.
pub const BUDGET: f64 = 1e-4;

/// A kind of test of chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// Whether each arm of a composition receives its share.
    Split,
    /// Whether who answers a request depends on who answered the one before.
    Time,
    /// Whether it depends on the connection that it came over.
    Connection,
    /// Whether it depends on the address that it came from.
    Address,
    /// Whether a share is right of which only the total is told.
    Share,
    /// Whether answers are spread evenly over endpoints.
    Even,
    /// Whether everybody who should answer does.
    Coverage,
}

impl Test {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Split,
        Self::Time,
        Self::Connection,
        Self::Address,
        Self::Share,
        Self::Even,
        Self::Coverage,
    ];

    /// The probability with which one such test complains of a cluster that is right, at most.
    #[must_use]
    pub const fn alpha(self) -> f64 {
        match self {
            Self::Split | Self::Share | Self::Even => 1e-6,
            Self::Time | Self::Connection | Self::Address => 1e-7,
            Self::Coverage => 1e-9,
        }
    }

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Time => "time",
            Self::Connection => "connection",
            Self::Address => "address",
            Self::Share => "share",
            Self::Even => "even",
            Self::Coverage => "coverage",
        }
    }

    /// What it asks, and how.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Split => "each arm receives its share: sequential, truncated, Wald's boundaries",
            Self::Time => "one request's arm tells nothing of the next one's: exact runs test",
            Self::Connection => {
                "requests over one connection are drawn one by one: exact runs test, connection by connection"
            }
            Self::Address => {
                "clients of several addresses are treated alike: exact hypergeometric test"
            }
            Self::Share => {
                "a share is right of which only the total is told: exact binomial test, fixed sample"
            }
            Self::Even => "answers are spread evenly over endpoints: exact binomial test of each",
            Self::Coverage => {
                "everybody who should answer does: as many requests as miss nobody, by Boole's inequality"
            }
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which tests of chance each check draws, by the check's id; a check that is not in it draws none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ledger(pub &'static [(&'static str, &'static [Test])]);

impl Ledger {
    /// What a check may draw.
    #[must_use]
    pub fn of(&self, check: &str) -> &'static [Test] {
        let found = self.0.iter().find(|(id, _)| *id == check);
        found.map(|(_, tests)| *tests).unwrap_or_default()
    }

    /// The most that checks, each as often as it is named, draw together.
    #[must_use]
    pub fn bound<'a>(&self, checks: impl IntoIterator<Item = &'a str>) -> f64 {
        let tests = checks.into_iter().flat_map(|check| self.of(check));
        tests.map(|test| test.alpha()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: Ledger = Ledger(&[
        ("mesh::splits", &[Test::Split, Test::Time]),
        ("cni::spreads", &[Test::Coverage]),
    ]);

    #[test]
    fn the_bound_is_the_sum_of_what_each_may_draw() {
        assert_eq!(LEDGER.of("mesh::splits"), [Test::Split, Test::Time]);
        assert_eq!(LEDGER.of("mesh::other"), []);
        let bound = LEDGER.bound(["mesh::splits", "cni::spreads", "cni::spreads", "x"]);
        assert!((bound - (1e-6 + 1e-7 + 2e-9)).abs() < 1e-18, "{bound}");
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Test::ALL.map(Test::name).into();
        assert_eq!(names.len(), Test::ALL.len());
    }
}
