//! A table of nftables as a value, and the scripts that make the kernel's the same.
//!
//! Start from [`Ruleset`]. From the table last applied to the one wanted there are three ways, each
//! one transaction: [`Ruleset::change`] touches only what differs, so that what somebody broke on
//! purpose stays broken while other Services come and go; [`Ruleset::rewrite`] says everything again
//! but keeps clients with their endpoints; [`Ruleset::replace`] needs nothing to be there. What is too long
//! for that goes in several, [`Ruleset::steps`].

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::whole::Contested;

use crate::topology::IpFamily;

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::net) struct Chain {
    /// Of a base chain: its type, hook and priority.
    pub(in crate::net) hook: Option<&'static str>,
    pub(in crate::net) comment: Option<String>,
    pub(in crate::net) rules: Vec<String>,
}

/// A set, or a map to verdicts, and its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::net) struct Elements {
    /// What `add set` or `add map` is told.
    pub(in crate::net) definition: String,
    /// By key; with a comment, and in a map the verdict.
    pub(in crate::net) elements: BTreeMap<String, Element>,
}

/// What an element has beside its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::net) struct Element {
    pub(in crate::net) comment: String,
    pub(in crate::net) verdict: Option<String>,
}

/// The family of a table, and what begins its packets' fields.
pub(in crate::net) const fn word(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ip",
        IpFamily::V6 => "ip6",
    }
}

/// The type of an address in a set or map.
pub(in crate::net) const fn address_type(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ipv4_addr",
        IpFamily::V6 => "ipv6_addr",
    }
}

/// One component's table of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub(super) family: IpFamily,
    /// Its name.
    pub(super) table: &'static str,
    pub(in crate::net) chains: BTreeMap<String, Arc<Chain>>,
    /// Sets that rules fill, by name, with their time-out in seconds.
    pub(in crate::net) dynamic: BTreeMap<String, u32>,
    /// Sets that the component fills.
    pub(in crate::net) sets: BTreeMap<&'static str, Elements>,
    /// Maps that the component fills.
    pub(in crate::net) maps: BTreeMap<&'static str, Elements>,
}

impl Ruleset {
    /// Adds what is in another part of the table. An element that is there stays as it is.
    ///
    /// # Errors
    /// When both have something in common; all is added nevertheless.
    pub(super) fn include(&mut self, part: &Self) -> Result<(), Contested> {
        let mut contested = false;
        for (name, chain) in &part.chains {
            let known = self.chains.insert(name.clone(), chain.clone());
            contested |= known.is_some();
        }
        for (name, timeout) in &part.dynamic {
            let known = self.dynamic.insert(name.clone(), *timeout);
            contested |= known.is_some();
        }
        for (ours, theirs) in [(&mut self.sets, &part.sets), (&mut self.maps, &part.maps)] {
            for (name, theirs) in theirs {
                let Some(ours) = ours.get_mut(name) else {
                    ours.insert(name, theirs.clone());
                    continue;
                };
                for (key, element) in &theirs.elements {
                    match ours.elements.entry(key.clone()) {
                        Entry::Vacant(place) => drop(place.insert(element.clone())),
                        Entry::Occupied(_) => contested = true,
                    }
                }
            }
        }
        if contested { Err(Contested) } else { Ok(()) }
    }

    /// Takes away what is in a part of the table that has nothing in common with another; its sets and maps stay.
    pub(super) fn exclude(&mut self, part: &Self) {
        for name in part.chains.keys() {
            self.chains.remove(name);
        }
        for name in part.dynamic.keys() {
            self.dynamic.remove(name);
        }
        for (ours, theirs) in [(&mut self.sets, &part.sets), (&mut self.maps, &part.maps)] {
            for (name, theirs) in theirs {
                if let Some(ours) = ours.get_mut(name) {
                    for key in theirs.elements.keys() {
                        ours.elements.remove(key);
                    }
                }
            }
        }
    }

    /// The sets and maps of this table alone, with nothing in them.
    pub(super) fn emptied(&self) -> Self {
        let emptied = |all: &BTreeMap<&'static str, Elements>| {
            let each = all.iter();
            each.map(|(name, of)| (*name, Elements::new(of.definition.clone())))
                .collect()
        };
        Self {
            sets: emptied(&self.sets),
            maps: emptied(&self.maps),
            ..Self::of(self.family, self.table)
        }
    }

    /// A script that puts this table in place of whatever is there.
    #[must_use]
    pub fn replace(&self) -> String {
        let mut script = Script::of(self.family, self.table);
        script.replace_table();
        self.fill(&mut script);
        script.text
    }

    /// A script that says all of this table again, where `before` was the last that was applied.
    /// Whatever was deleted from it is put back; which endpoint a client is bound to is kept.
    #[must_use]
    pub fn rewrite(&self, before: &Self) -> String {
        let mut script = Script::of(self.family, self.table);
        script.add_table();
        for (kind, name, definition) in before.definitions().chain(self.definitions()) {
            script.define(kind, name, definition);
            script.flush(kind, name);
        }
        for (name, chain) in before.chains.iter().chain(&self.chains) {
            script.add_chain(name, chain);
            script.flush("chain", name);
        }
        for name in before
            .chains
            .keys()
            .filter(|name| !self.chains.contains_key(*name))
        {
            script.delete("chain", name);
        }
        for (name, timeout) in before.stale_dynamic(self) {
            script.add_dynamic(name, timeout);
            script.delete("set", name);
        }
        self.fill(&mut script);
        script.text
    }

    /// A script from the table last applied to this one; nothing when they are the same.
    #[must_use]
    pub fn change(&self, before: &Self) -> Option<String> {
        if self == before {
            return None;
        }
        let mut script = Script::of(self.family, self.table);
        for (kind, name, _) in self.definitions() {
            let wanted = self.elements(kind, name);
            for (key, element) in before.elements(kind, name).into_iter().flatten() {
                if wanted.and_then(|wanted| wanted.get(key)) != Some(element) {
                    script.element("delete", name, key, element);
                }
            }
        }
        let changed: Vec<_> = self
            .chains
            .iter()
            .filter(|(name, chain)| before.chains.get(*name) != Some(chain))
            .collect();
        let gone: BTreeSet<_> = before
            .chains
            .keys()
            .filter(|name| !self.chains.contains_key(*name))
            .collect();
        for (name, chain) in &changed {
            script.add_chain(name, chain);
        }
        for name in changed
            .iter()
            .map(|(name, _)| *name)
            .chain(gone.iter().copied())
        {
            script.flush("chain", name);
        }
        for name in gone {
            script.delete("chain", name);
        }
        for (name, _) in before.stale_dynamic(self) {
            script.delete("set", name);
        }
        for (name, timeout) in &self.dynamic {
            if before.dynamic.get(name) != Some(timeout) {
                script.add_dynamic(name, *timeout);
            }
        }
        for (name, chain) in changed {
            script.rules(name, chain);
        }
        for (kind, name, _) in self.definitions() {
            let old = before.elements(kind, name);
            for (key, element) in self.elements(kind, name).into_iter().flatten() {
                if old.and_then(|old| old.get(key)) != Some(element) {
                    script.element("add", name, key, element);
                }
            }
        }
        Some(script.text)
    }

    fn fill(&self, script: &mut Script) {
        for (name, chain) in &self.chains {
            script.add_chain(name, chain);
        }
        for (kind, name, definition) in self.definitions() {
            script.define(kind, name, definition);
        }
        for (name, timeout) in &self.dynamic {
            script.add_dynamic(name, *timeout);
        }
        for (name, chain) in &self.chains {
            script.rules(name, chain);
        }
        for (kind, name, _) in self.definitions() {
            for (key, element) in self.elements(kind, name).into_iter().flatten() {
                script.element("add", name, key, element);
            }
        }
    }

    pub(super) fn definitions(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let sets = self.sets.iter().map(|(name, set)| ("set", name, set));
        let maps = self.maps.iter().map(|(name, map)| ("map", name, map));
        let both = sets.chain(maps);
        both.map(|(kind, name, of)| (kind, *name, of.definition.as_str()))
    }

    pub(super) fn elements(&self, kind: &str, name: &str) -> Option<&BTreeMap<String, Element>> {
        let of = if kind == "set" {
            &self.sets
        } else {
            &self.maps
        };
        of.get(name).map(|of| &of.elements)
    }

    /// The dynamic sets that are not in another table, or with another time-out.
    pub(super) fn stale_dynamic<'a>(
        &'a self,
        wanted: &'a Self,
    ) -> impl Iterator<Item = (&'a str, u32)> {
        self.dynamic
            .iter()
            .filter(|(name, timeout)| wanted.dynamic.get(*name) != Some(timeout))
            .map(|(name, timeout)| (name.as_str(), *timeout))
    }
}

/// What `nft` is told of one table.
pub(super) struct Script {
    family: IpFamily,
    /// Its name alone.
    name: &'static str,
    /// Its family and name.
    table: String,
    pub(super) text: String,
}

impl Script {
    pub(super) fn of(family: IpFamily, name: &'static str) -> Self {
        Self {
            family,
            name,
            table: format!("{} {name}", word(family)),
            text: String::new(),
        }
    }

    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    pub(super) fn add_table(&mut self) {
        let Self { table, name, .. } = &self;
        self.line(format!(
            "add table {table} {{ comment \"rules for {name}\" ; }}"
        ));
    }

    /// An empty table, whatever was there; nothing needs to be.
    pub(super) fn replace_table(&mut self) {
        self.line(format!("add table {}", self.table));
        self.line(format!("delete table {}", self.table));
        self.add_table();
    }

    pub(super) fn flush(&mut self, kind: &str, name: &str) {
        self.line(format!("flush {kind} {} {name}", self.table));
    }

    pub(super) fn delete(&mut self, kind: &str, name: &str) {
        self.line(format!("delete {kind} {} {name}", self.table));
    }

    pub(super) fn add_chain(&mut self, name: &str, chain: &Chain) {
        let table = &self.table;
        let mut inside = String::new();
        if let Some(hook) = chain.hook {
            let _ = write!(inside, " {hook} ;");
        }
        if let Some(comment) = &chain.comment {
            let _ = write!(inside, " comment \"{}\" ;", short(comment));
        }
        if inside.is_empty() {
            self.line(format!("add chain {table} {name}"));
        } else {
            self.line(format!("add chain {table} {name} {{{inside} }}"));
        }
    }

    pub(super) fn define(&mut self, kind: &str, name: &str, definition: &str) {
        let table = &self.table;
        self.line(format!("add {kind} {table} {name} {{ {definition} }}"));
    }

    pub(super) fn add_dynamic(&mut self, name: &str, timeout: u32) {
        self.define(
            "set",
            name,
            &format!(
                "type {} ; flags dynamic,timeout ; timeout {timeout}s ;",
                address_type(self.family)
            ),
        );
    }

    pub(super) fn rules(&mut self, name: &str, chain: &Chain) {
        for rule in &chain.rules {
            self.line(format!("add rule {} {name} {rule}", self.table));
        }
    }

    pub(super) fn element(&mut self, verb: &str, name: &str, key: &str, element: &Element) {
        let verdict = element
            .verdict
            .iter()
            .map(|verdict| format!(" : {verdict}"));
        let verdict: String = verdict.collect();
        // Deleting goes by the key; a comment would be looked at by nobody.
        let comment = if verb == "add" {
            format!(" comment \"{}\"", short(&element.comment))
        } else {
            String::new()
        };
        self.line(format!(
            "{verb} element {} {name} {{ {key}{comment}{verdict} }}",
            self.table
        ));
    }
}

/// A comment as long as nftables takes it (`NFTNL_UDATA_COMMENT_MAXLEN` is 128 with the end).
fn short(comment: &str) -> &str {
    comment.get(..127).unwrap_or(comment)
}
