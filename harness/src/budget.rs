//! How long anything may take: a few budgets, each with a sentence.
//!
//! Rule: whoever waits names one of these. The check's own deadline lies far above all of them.

use std::time::Duration;

/// How long to wait for a condition, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Its name in messages.
    pub name: &'static str,
    /// The whole of it. Every probe is bounded by what is left of it.
    pub within: Duration,
    /// How long to pause between two probes; nothing where a watch tells of changes.
    pub every: Duration,
    /// How many observations in a row must agree before they count.
    pub settled: u32,
}

/// An object that was just made becomes ready: pods are scheduled, images unpacked, containers
/// started and probed.
pub const CREATE: Budget = Budget {
    name: "create",
    within: Duration::from_secs(60),
    every: Duration::from_millis(200),
    settled: 1,
};

/// What another project publishes becomes ready: besides, its images are pulled from registries on the internet.
pub const INSTALL: Budget = Budget {
    name: "install",
    within: Duration::from_secs(180),
    every: Duration::from_millis(500),
    settled: 1,
};

/// A change that the API has taken reaches the data path of every node. Two observations in a row,
/// since nodes and proxies follow one after the other.
pub const CONVERGE: Budget = Budget {
    name: "converge",
    within: Duration::from_secs(20),
    every: Duration::from_millis(200),
    settled: 2,
};

/// A controller makes what an object asks for and says in its status where that is: a proxy, whose image is pulled. Retired
/// ingress-nginx looks once a minute whether there is something to say (`--status-update-interval`).
pub const PROVISION: Budget = Budget {
    name: "provision",
    within: Duration::from_secs(65),
    every: Duration::from_millis(200),
    settled: 2,
};

/// One exchange with the API or through the data path.
pub const REQUEST: Budget = Budget {
    name: "request",
    within: Duration::from_secs(5),
    every: Duration::from_millis(100),
    settled: 1,
};

/// An object that was deleted is gone, with everything that it owns.
pub const GONE: Budget = Budget {
    name: "gone",
    within: Duration::from_secs(60),
    every: Duration::from_millis(200),
    settled: 1,
};
