//! Writing a [`Ruleset`].

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::ruleset::{Chain, Element, Elements, Ruleset};
use crate::topology::IpFamily;

impl Elements {
    /// Those of a set or map that is told this, none yet.
    pub(in crate::net) fn new(definition: impl Into<String>) -> Self {
        Self {
            definition: definition.into(),
            elements: BTreeMap::new(),
        }
    }
}

impl Ruleset {
    /// A table of a family with nothing in it.
    pub(in crate::net) fn of(family: IpFamily, table: &'static str) -> Self {
        Self {
            family,
            table,
            chains: BTreeMap::new(),
            dynamic: BTreeMap::new(),
            sets: BTreeMap::new(),
            maps: BTreeMap::new(),
        }
    }

    /// Gives a chain these rules.
    pub(in crate::net) fn chain(
        &mut self,
        name: &str,
        title: Option<&str>,
        rules: impl IntoIterator<Item = String>,
    ) -> &mut Chain {
        let chain = Arc::make_mut(self.chains.entry(name.to_owned()).or_default());
        chain.comment = title.map(ToOwned::to_owned);
        chain.rules = rules.into_iter().collect();
        chain
    }

    /// Adds to a set.
    pub(in crate::net) fn set(&mut self, set: &'static str, key: String, title: &str) {
        if let Some(set) = self.sets.get_mut(set) {
            // One ClusterIP has many ports: the first speaks for all.
            set.elements.entry(key).or_insert_with(|| Element {
                comment: title.to_owned(),
                verdict: None,
            });
        }
    }

    /// Adds to a map. The first of two that want the same key keeps it, in order of their names.
    pub(in crate::net) fn map(
        &mut self,
        map: &'static str,
        key: String,
        verdict: impl Into<String>,
        title: &str,
    ) {
        if let Some(map) = self.maps.get_mut(map) {
            map.elements.entry(key).or_insert_with(|| Element {
                comment: title.to_owned(),
                verdict: Some(verdict.into()),
            });
        }
    }
}

/// A name behind a piece of its own hash: distinct to the eye where long names differ in one
/// letter. All of it is of letters that a chain's name may have, and shorter than that may be.
pub(in crate::net) fn hashed(name: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(name.as_bytes());
    let bits = digest
        .iter()
        .take(5)
        .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let letters = (0..8).rev().map(|place| {
        let letter = usize::try_from(bits >> (5 * place) & 31).unwrap_or_default();
        char::from(ALPHABET[letter])
    });
    format!("{}-{name}", letters.collect::<String>())
}
