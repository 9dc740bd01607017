//! The scripts of [`Ruleset`] again, for more rules than the kernel takes at once.
//!
//! Start from [`Ruleset::steps`]. `nft` sends a transaction as one message, which has to fit into its
//! socket's buffer, and only the machine's own root may make that larger: in a user namespace the rules of
//! some eighty Services are too many. Rule: each step is a transaction that leaves every chain whole, but
//! for those whose clients' time-out changes, and goes to nothing that is not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ruleset::{Chain, Ruleset, Script};
use crate::topology::IpFamily;

/// The longest script that is applied as one transaction, in bytes. The message that `nft` makes of it is
/// at most four times as long, and the kernel takes 208 KiB (`net.core.wmem_default`).
pub const LONGEST: usize = 40 * 1024;

impl Ruleset {
    /// Scripts that, one after the other, make `before`, the table last applied, this one; `all` says
    /// again what has not changed, too. Without `before`, they replace whatever is there.
    #[must_use]
    pub fn steps(&self, before: Option<&Self>, all: bool) -> Vec<String> {
        let mut steps = Steps::of(self.family, self.table);
        match before {
            Some(_) => steps.script.add_table(),
            None => steps.script.replace_table(),
        }
        let (nothing, is_nothing) = (Self::of(self.family, self.table), before.is_none());
        let before = before.unwrap_or(&nothing);
        for (kind, name, definition) in self.definitions() {
            steps.script.define(kind, name, definition);
        }
        steps.end();
        let retimed: BTreeSet<String> = before
            .stale_dynamic(self)
            .filter(|(name, _)| self.dynamic.contains_key(*name))
            .map(|(name, _)| format!("@{name} "))
            .collect();
        let interrupted = |name: &String| {
            let chain = before.chains.get(name);
            chain.is_some_and(|chain| names_any(chain, &retimed))
        };
        let is_new = |name: &String| !before.chains.contains_key(name);
        let changed = |name: &String, chain: &Arc<Chain>| {
            all || before.chains.get(name) != Some(chain) || interrupted(name)
        };
        let mut changed: Vec<_> = (self.chains.iter())
            .filter(|(name, chain)| changed(name, chain))
            .collect();
        for (name, chain) in &changed {
            steps.script.add_chain(name, chain);
            steps.end();
        }
        self.dynamic_sets(before, all, &retimed, &mut steps);
        // What others go to before those that go there.
        changed.sort_by_key(|(name, _)| !is_new(name));
        for (name, chain) in changed {
            steps.script.flush("chain", name);
            steps.script.rules(name, chain);
            steps.end();
        }
        self.all_elements(before, all && !is_nothing, &mut steps);
        self.take_away(before, &mut steps);
        steps.done
    }

    /// The sets that rules fill. One whose time-out changes is another, so its chains let go of it.
    fn dynamic_sets(
        &self,
        before: &Self,
        all: bool,
        retimed: &BTreeSet<String>,
        steps: &mut Steps,
    ) {
        for (name, chain) in &before.chains {
            if names_any(chain, retimed) {
                steps.script.flush("chain", name);
                steps.end();
            }
        }
        for (name, timeout) in &self.dynamic {
            match before.dynamic.get(name) {
                Some(known) if known == timeout && !all => continue,
                Some(known) if known == timeout => {}
                Some(_) => steps.script.delete("set", name),
                None => {}
            }
            steps.script.add_dynamic(name, *timeout);
            steps.end();
        }
    }

    fn all_elements(&self, before: &Self, all: bool, steps: &mut Steps) {
        for (kind, name, _) in self.definitions() {
            let old = before.elements(kind, name);
            let new = self.elements(kind, name);
            if all {
                steps.script.flush(kind, name);
            }
            for (key, element) in old.into_iter().flatten().filter(|_| !all) {
                let wanted = new.and_then(|new| new.get(key));
                if wanted == Some(element) {
                    continue;
                }
                steps.script.element("delete", name, key, element);
                if let Some(wanted) = wanted {
                    steps.script.element("add", name, key, wanted);
                }
                steps.end();
            }
            for (key, element) in new.into_iter().flatten() {
                if all {
                    steps.script.element("add", name, key, element);
                } else if old.is_none_or(|old| !old.contains_key(key)) {
                    steps.script.element("add", name, key, element);
                    steps.end();
                }
            }
            steps.end();
        }
    }

    /// What nothing goes to any longer.
    fn take_away(&self, before: &Self, steps: &mut Steps) {
        let gone = || {
            let all = before.chains.iter();
            all.filter(|(name, _)| !self.chains.contains_key(*name))
        };
        for (name, chain) in gone() {
            // Somebody else may have been quicker.
            steps.script.add_chain(name, chain);
            steps.script.flush("chain", name);
            steps.end();
        }
        for (name, _) in gone() {
            steps.script.delete("chain", name);
            steps.end();
        }
        for (name, timeout) in before.stale_dynamic(self) {
            if !self.dynamic.contains_key(name) {
                steps.script.add_dynamic(name, timeout);
                steps.script.delete("set", name);
                steps.end();
            }
        }
    }
}

fn names_any(chain: &Chain, sets: &BTreeSet<String>) -> bool {
    let mut rules = chain.rules.iter();
    rules.any(|rule| sets.iter().any(|set| rule.contains(set)))
}

/// Scripts as long as they may be, of parts that belong together.
struct Steps {
    family: IpFamily,
    table: &'static str,
    done: Vec<String>,
    /// The part under way.
    script: Script,
}

impl Steps {
    fn of(family: IpFamily, table: &'static str) -> Self {
        Self {
            family,
            table,
            done: Vec::new(),
            script: Script::of(family, table),
        }
    }

    /// Ends a part.
    fn end(&mut self) {
        let empty = Script::of(self.family, self.table);
        let part = std::mem::replace(&mut self.script, empty).text;
        match self.done.last_mut() {
            Some(last) if last.len() + part.len() <= LONGEST => last.push_str(&part),
            _ if part.is_empty() => {}
            _ => self.done.push(part),
        }
    }
}
