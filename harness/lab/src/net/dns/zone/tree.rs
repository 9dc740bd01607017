//! Names with their records.
//!
//! Start from [`Tree::set`]. Every name above one with records is there too, without any, so that "no such name" and
//! "no such record" are told apart by looking the name up.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Entry, REVERSE};
use crate::topology::CLUSTER_DOMAIN;

/// Names, in small letters and without the final dot.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tree(HashMap<Arc<str>, Node>);

/// What there is of a name.
#[derive(Debug, Default, PartialEq)]
struct Node {
    entries: Vec<Entry>,
    /// How many names are directly below it.
    below: usize,
    /// Whether it is there for itself.
    held: bool,
}

/// The name above another, up to the domains that the server answers for.
fn above(name: &str) -> Option<&str> {
    let (_, parent) = name.split_once('.')?;
    (name != CLUSTER_DOMAIN && !REVERSE.contains(&name)).then_some(parent)
}

impl Tree {
    /// The records of a name; none where there is no such name.
    pub(super) fn get(&self, name: &str) -> Option<&[Entry]> {
        self.0.get(name).map(|node| node.entries.as_slice())
    }

    /// Has a name be there, with records or without.
    pub(super) fn hold(&mut self, name: &str) {
        self.node(&name.into()).held = true;
    }

    /// Has it be there no longer than there are records at or below it.
    pub(super) fn release(&mut self, name: &str) {
        if let Some(node) = self.0.get_mut(name) {
            node.held = false;
            self.drop_unused(name);
        }
    }

    /// Gives a name these records.
    pub(super) fn set(&mut self, name: &Arc<str>, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.node(name).entries = entries;
        } else if let Some(node) = self.0.get_mut(name) {
            node.entries = entries;
            self.drop_unused(name);
        }
    }

    /// A name, which from now on is there, and so are those above it.
    fn node(&mut self, name: &Arc<str>) -> &mut Node {
        if !self.0.contains_key(name)
            && let Some(parent) = above(name)
        {
            self.node(&parent.into()).below += 1;
        }
        self.0.entry(name.clone()).or_default()
    }

    /// Drops a name without anything at or below it, and those above it that were there for it alone.
    fn drop_unused(&mut self, name: &str) {
        let unused = |node: &Node| node.entries.is_empty() && node.below == 0 && !node.held;
        if !self.0.get(name).is_some_and(unused) {
            return;
        }
        self.0.remove(name);
        if let Some(parent) = above(name)
            && let Some(node) = self.0.get_mut(parent)
        {
            node.below -= 1;
            self.drop_unused(parent);
        }
    }
}
