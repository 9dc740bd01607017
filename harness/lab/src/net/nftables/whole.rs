//! A table put together from parts, so that a change of one costs no more than that one is large.
//!
//! Start from [`Whole::become_of`]. Parts are told apart by their addresses: whoever makes them keeps what has not
//! changed. Of two parts that want the same element the first has it. Rule: while there are such, and in every doubt,
//! all is put together anew.

use std::sync::Arc;

use super::ruleset::Ruleset;
use crate::net::kept::Seen;

/// What a table is put together from, in order.
pub(in crate::net) struct Parts {
    /// It has all the sets and maps.
    pub(in crate::net) base: Arc<Ruleset>,
    pub(in crate::net) others: Vec<Arc<Ruleset>>,
}

impl From<Ruleset> for Parts {
    fn from(only: Ruleset) -> Self {
        Self {
            base: Arc::new(only),
            others: Vec::new(),
        }
    }
}

impl Parts {
    fn all(&self) -> impl Iterator<Item = &Arc<Ruleset>> + Clone {
        std::iter::once(&self.base).chain(&self.others)
    }

    /// The table that they make, and whether two of them want the same.
    fn together(&self) -> (Arc<Ruleset>, bool) {
        let mut table = self.base.clone();
        let mut contested = false;
        for part in &self.others {
            contested |= Arc::make_mut(&mut table).include(part).is_err();
        }
        (table, contested)
    }
}

/// A table and its parts.
pub(super) struct Whole {
    parts: Parts,
    seen: Seen<Ruleset>,
    table: Arc<Ruleset>,
    /// Whether two parts want the same name or element.
    contested: bool,
}

/// What is other in a table than before: as tables, of which all that is the same is left out.
pub(super) struct Difference {
    pub(super) gone: Arc<Ruleset>,
    pub(super) came: Arc<Ruleset>,
    /// The parts of the table as it was.
    parts: Parts,
}

impl Difference {
    /// The table as it was.
    pub(super) fn before(&self) -> Arc<Ruleset> {
        self.parts.together().0
    }
}

impl Whole {
    /// The table that these parts make.
    pub(super) fn of(parts: Parts) -> Self {
        let (table, contested) = parts.together();
        let mut seen = Seen::default();
        seen.difference(parts.all());
        Self {
            parts,
            seen,
            table,
            contested,
        }
    }

    /// All of it.
    pub(super) fn table(&self) -> &Ruleset {
        &self.table
    }

    /// Makes it the table of these parts; says what is other, if anything is.
    pub(super) fn become_of(&mut self, parts: Parts) -> Option<Difference> {
        let (gone, came) = self.seen.difference(parts.all());
        let before = std::mem::replace(&mut self.parts, parts);
        if gone.is_empty() && came.is_empty() {
            return None;
        }
        let (gone, came) = match self.exchange(&gone, &came) {
            Ok(()) => (union(&self.table, &gone), union(&self.table, &came)),
            Err(Contested) => {
                let (table, contested) = self.parts.together();
                self.contested = contested;
                self.table = table.clone();
                (before.together().0, table)
            }
        };
        (gone != came).then_some(Difference {
            gone,
            came,
            parts: before,
        })
    }

    /// Takes parts out of the table and puts others in. When that fails, the table is to be put together anew.
    fn exchange(&mut self, gone: &[Arc<Ruleset>], came: &[Arc<Ruleset>]) -> Result<(), Contested> {
        if self.contested {
            return Err(Contested);
        }
        if self.parts.others.is_empty() {
            self.table = self.parts.base.clone();
            return Ok(());
        }
        let table = Arc::make_mut(&mut self.table);
        for part in gone {
            table.exclude(part);
        }
        for part in came {
            table.include(part)?;
        }
        Ok(())
    }
}

/// Two parts want the same, and only their order says which has it.
#[derive(Debug)]
pub(super) struct Contested;

/// What is in any of some parts of a table.
fn union(table: &Ruleset, parts: &[Arc<Ruleset>]) -> Arc<Ruleset> {
    if let [only] = parts {
        return only.clone();
    }
    let mut union = table.emptied();
    for part in parts {
        // None are contested.
        let _ = union.include(part);
    }
    Arc::new(union)
}

#[cfg(test)]
mod tests;
