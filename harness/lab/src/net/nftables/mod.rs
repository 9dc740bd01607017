//! Tables of nftables, kept as a component wants them.
//!
//! Start from [`Table`], one component's in one node; what is in it is a [`Ruleset`]. A change is
//! applied within a tenth of a second, and only what changed: what somebody deletes on purpose is missing until its own
//! part changes, or everything is said again. Rule: a change is one transaction, unless it is longer
//! than `nft` can send; then it goes in [steps](self::steps) that each leave every chain whole.

mod build;
mod outline;
mod ruleset;
mod steps;
mod whole;

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

pub(super) use self::build::hashed;
pub use self::ruleset::Ruleset;
pub(super) use self::ruleset::{Elements, address_type, word};
pub use self::steps::LONGEST;
pub(super) use self::whole::Parts;
use self::whole::{Difference, Whole};
use crate::os::netns::NetNs;
use crate::os::nft::Nft;
use crate::world::World;

/// How much is said again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Say {
    /// What has changed.
    Changes,
    /// Everything.
    All,
}

/// What was done to the kernel's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// What has changed was said, of rules that were as they had been said before.
    Changed,
    /// All was said, in place of what an earlier process had left.
    TookOver,
    /// All was said for the first time.
    Wrote,
    /// All was said again.
    WroteAgain,
    /// All was said again, in place of what could not be changed.
    Replaced,
}

impl std::fmt::Display for Done {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        text.write_str(match self {
            Self::Changed => "changed rules",
            Self::TookOver => "took over all rules",
            Self::Wrote => "wrote all rules",
            Self::WroteAgain => "wrote all rules again",
            Self::Replaced => "replaced all rules",
        })
    }
}

/// When a component says how much: what has changed as it changes, and all again in between.
pub(super) struct Rhythm {
    again: Interval,
    /// When something was last to be said.
    last: Instant,
}

/// What has changed is said no sooner than this after the last time, together: kube-proxy's `minSyncPeriod`, which is a
/// second there, since what stands on these rules may not rely on less.
const PAUSE: Duration = Duration::from_millis(100);

impl Rhythm {
    /// Everything is said again after each such period.
    pub(super) fn of(period: Duration) -> Self {
        let mut again = tokio::time::interval_at(Instant::now() + period, period);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            again,
            last: Instant::now(),
        }
    }

    /// Waits until there is something to say.
    pub(super) async fn next(&mut self, world: &mut World) -> Say {
        let say = tokio::select! {
            () = world.changed_after(self.last + PAUSE) => Say::Changes,
            _ = self.again.tick() => Say::All,
        };
        self.last = Instant::now();
        say
    }
}

/// A component's table in one node, and what the kernel was last told of it.
pub(super) struct Table {
    netns: NetNs,
    nft: Nft,
    applied: Option<Whole>,
}

impl Table {
    /// The table in a node's namespace; whatever is there is replaced.
    pub(super) fn new(netns: NetNs, nft: Nft) -> Self {
        Self {
            netns,
            nft,
            applied: None,
        }
    }

    /// Makes the kernel's rules these; returns what was done, if anything was. After an error, what
    /// the kernel has stays in force, and the next call starts from nothing.
    pub(super) async fn sync(
        &mut self,
        wanted: impl Into<Parts>,
        say: Say,
    ) -> anyhow::Result<Option<Done>> {
        let wanted = wanted.into();
        let Some(mut whole) = self.applied.take() else {
            let whole = Whole::of(wanted);
            let done = self.begin(whole.table()).await?;
            self.applied = Some(whole);
            return Ok(Some(done));
        };
        let difference = whole.become_of(wanted);
        let done = match (difference, say) {
            (None, Say::Changes) => None,
            (None, Say::All) => Some(self.rewrite(whole.table(), whole.table()).await?),
            (Some(difference), say) => Some(self.update(whole.table(), &difference, say).await?),
        };
        self.applied = Some(whole);
        Ok(done)
    }

    /// Applies a script as one transaction, or, where it is too long for that, its steps.
    async fn apply(&self, script: &str, steps: impl Fn() -> Vec<String>) -> anyhow::Result<()> {
        if script.len() <= LONGEST {
            return self.nft.apply(&self.netns, script).await;
        }
        for step in steps() {
            self.nft.apply(&self.netns, &step).await?;
        }
        Ok(())
    }

    /// Says everything to a kernel of which nothing is known. What an earlier process left goes on serving until it is
    /// replaced, part by part where all is too long for one transaction.
    async fn begin(&self, wanted: &Ruleset) -> anyhow::Result<Done> {
        if let Some(left) = self.left(wanted).await {
            let steps = || wanted.steps(Some(&left), true);
            match self.apply(&wanted.rewrite(&left), steps).await {
                Ok(()) => return Ok(Done::TookOver),
                Err(error) => tracing::debug!("what was left cannot be taken over: {error:#}"),
            }
        }
        self.apply(&wanted.replace(), || wanted.steps(None, true))
            .await?;
        Ok(Done::Wrote)
    }

    /// What an earlier process left, as far as it has to be known to be taken over.
    async fn left(&self, wanted: &Ruleset) -> Option<Ruleset> {
        let list = [
            "--terse",
            "list",
            "table",
            word(wanted.family),
            wanted.table,
        ];
        let listed = self.nft.run(&self.netns, &list, "").await.ok()?;
        Ruleset::outline(wanted.family, wanted.table, &listed)
    }

    /// Says what is other in a table than before, and, where that cannot be, everything again.
    async fn update(
        &self,
        wanted: &Ruleset,
        difference: &Difference,
        say: Say,
    ) -> anyhow::Result<Done> {
        let Difference { gone, came, .. } = difference;
        if say == Say::Changes
            && let Some(change) = came.change(gone)
        {
            let steps = || came.steps(Some(gone), false);
            match self.apply(&change, steps).await {
                Ok(()) => return Ok(Done::Changed),
                // Somebody else has changed the very rules that are to change.
                Err(error) => tracing::debug!("rules are not as they were left: {error:#}"),
            }
        }
        self.rewrite(wanted, &difference.before()).await
    }

    /// Says everything again.
    async fn rewrite(&self, wanted: &Ruleset, before: &Ruleset) -> anyhow::Result<Done> {
        let steps = || wanted.steps(Some(before), true);
        if self.apply(&wanted.rewrite(before), steps).await.is_ok() {
            return Ok(Done::WroteAgain);
        }
        self.apply(&wanted.replace(), || wanted.steps(None, true))
            .await?;
        Ok(Done::Replaced)
    }
}
