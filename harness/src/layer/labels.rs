//! Which labels a selector misses, and which it probably meant.
//!
//! Start from [`miss`]. Whether a selector matches is `kube`'s work ([`selects`] only converts);
//! what follows from a miss is said by whoever asked.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use crate::settings::nearest;

/// Labels, or the terms of an equality selector.
pub(super) type Labels = BTreeMap<String, String>;

/// Whether the labels satisfy the selector. One that cannot be read selects nothing.
pub(super) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// Whether the labels hold every term.
pub(super) fn holds(terms: &Labels, labels: &Labels) -> bool {
    terms
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// The pods that hold every term.
pub(super) fn selected<'a>(terms: &Labels, pods: &'a [Pod]) -> Vec<&'a Pod> {
    pods.iter()
        .filter(|pod| holds(terms, pod.labels()))
        .collect()
}

/// The equality terms of a selector as it is typed: `app=web,tier=front`.
pub(super) fn terms(selector: &str) -> Labels {
    selector
        .split(',')
        .filter_map(|term| term.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim_start_matches('=').trim()))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A selector as it is typed.
pub(super) fn typed(terms: &Labels) -> String {
    let terms: Vec<_> = terms
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    terms.join(",")
}

/// The term that no label satisfies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Miss {
    /// Its key.
    pub(super) key: String,
    /// Its value.
    pub(super) value: String,
    /// The key that was probably meant.
    pub(super) near_key: Option<String>,
    /// The value that was probably meant.
    pub(super) near_value: Option<String>,
    /// The values that there are under the key.
    pub(super) values: Vec<String>,
}

impl Miss {
    /// What was probably meant, as a term.
    pub(super) fn meant(&self) -> Option<String> {
        match (&self.near_key, &self.near_value) {
            (Some(key), _) => Some(format!("{key}: {}", self.value)),
            (None, Some(value)) => Some(format!("{}: {value}", self.key)),
            (None, None) => None,
        }
    }

    /// What there is instead, in words.
    pub(super) fn instead(&self) -> String {
        if self.values.is_empty() {
            format!("no pod has a label {}", self.key)
        } else {
            format!("pods have {} {}", self.key, self.values.join(", "))
        }
    }
}

/// Why nothing satisfies all the terms; `name` breaks ties, since a Service is mostly called as its
/// pods are labelled. Nothing if there are no labels to compare with, or some do satisfy them.
pub(super) fn miss(terms: &Labels, name: &str, all: &[&Labels]) -> Option<Miss> {
    if all.is_empty() || all.iter().any(|labels| holds(terms, labels)) {
        return None;
    }
    let values = |key: &str| -> BTreeSet<&str> {
        let values = all.iter().filter_map(|labels| labels.get(key));
        values.map(String::as_str).collect()
    };
    // A term that nobody has is wrong by itself. Where each is had by somebody, the wrong one is
    // what the labels closest to the selector lack, and only they tell what there is instead.
    let alone = terms
        .iter()
        .find(|(key, value)| !values(key).contains(value.as_str()));
    let ((key, value), known) = match alone {
        Some((key, value)) => ((key, value), values(key)),
        None => {
            let lacks = |labels: &&&Labels| {
                let lacks = terms
                    .iter()
                    .filter(|(key, value)| labels.get(*key) != Some(value));
                lacks.count()
            };
            let closest = all.iter().min_by_key(lacks)?;
            let mut lacking = terms
                .iter()
                .filter(|(key, value)| closest.get(*key) != Some(value));
            let (key, value) = lacking.next()?;
            let known = closest.get(key).map(String::as_str);
            ((key, value), known.into_iter().collect::<BTreeSet<_>>())
        }
    };
    let near_value =
        nearest(value, known.iter().copied().filter(|known| known != value)).or_else(|| {
            known
                .contains(name)
                .then_some(name)
                .filter(|name| name != value)
        });
    let carriers = all
        .iter()
        .flat_map(|labels| labels.iter())
        .filter(|(_, has)| *has == value)
        .map(|(key, _)| key.as_str());
    let near_key = known
        .is_empty()
        .then(|| nearest(key, carriers.clone()).or_else(|| only(carriers)))
        .flatten();
    Some(Miss {
        key: key.clone(),
        value: value.clone(),
        near_key: near_key.map(ToOwned::to_owned),
        near_value: near_value.map(ToOwned::to_owned),
        values: known.into_iter().map(ToOwned::to_owned).collect(),
    })
}

/// The one candidate, if all are the same.
fn only<'a>(candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let candidates: BTreeSet<_> = candidates.collect();
    (candidates.len() == 1)
        .then(|| candidates.first().copied())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Selector, labels of the pods, what was meant.
    #[test]
    fn the_term_that_was_meant() {
        let cases = [
            (
                "app=backedn",
                &["app=backend", "app=client"][..],
                Some("app: backend"),
            ),
            (
                "app=nothing",
                &["app=backend", "app=client"],
                Some("app: backend"),
            ),
            ("app=nothing", &["app=client"], None),
            ("ap=backend", &["app=backend"], Some("app: backend")),
            ("name=backend", &["app=backend"], Some("app: backend")),
            ("name=zzz", &["app=backend"], None),
            (
                "app=backend,tier=bakc",
                &["app=backend,tier=back"],
                Some("tier: back"),
            ),
            (
                "app=backend,tier=front",
                &["app=backend,tier=frnt", "app=client,tier=front"],
                Some("tier: frnt"),
            ),
        ];
        for (selector, pods, meant) in cases {
            let pods: Vec<_> = pods.iter().map(|labels| terms(labels)).collect();
            let pods: Vec<_> = pods.iter().collect();
            let miss = miss(&terms(selector), "backend", &pods).unwrap();
            assert_eq!(miss.meant().as_deref(), meant, "{selector}");
        }
    }

    #[test]
    fn a_selector_that_is_satisfied_misses_nothing() {
        let labels = terms("app=backend,tier=back");
        assert_eq!(miss(&terms("app=backend"), "backend", &[&labels]), None);
        assert_eq!(miss(&terms("app=backend"), "backend", &[]), None);
    }
}
