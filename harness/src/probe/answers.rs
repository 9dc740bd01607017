//! What came of a burst of requests.

use std::collections::{BTreeMap, BTreeSet};

use strata_probe::Reply;

/// Replies in the order of sending.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers(pub Vec<Reply>);

impl Answers {
    /// The pods that answered, with whatever status.
    #[must_use]
    pub fn served_by(&self) -> BTreeSet<String> {
        self.counts().into_keys().collect()
    }

    /// How many answers each pod gave.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        tally(self.0.iter().filter_map(Reply::pod).map(ToOwned::to_owned))
    }

    /// What did not end in a status of 200 to 299: kinds of errors and other statuses, with counts.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, u64> {
        tally(self.0.iter().filter_map(failure))
    }

    /// The statuses, with counts. An answer that broke off after its head counts too.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<u16, u64> {
        tally(self.0.iter().filter_map(|reply| reply.status))
    }
}

/// How a request failed; nothing if it ended in a status of 200 to 299.
pub(crate) fn failure(reply: &Reply) -> Option<String> {
    match (&reply.error, reply.status) {
        (Some(error), _) => Some(error.kind.to_string()),
        (None, Some(200..=299)) => None,
        (None, Some(status)) => Some(status.to_string()),
        (None, None) => Some("no answer".to_owned()),
    }
}

fn tally<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, u64> {
    keys.fold(BTreeMap::new(), |mut counts, key| {
        *counts.entry(key).or_default() += 1;
        counts
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(json: &str) -> Reply {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn answers_are_counted_by_pod_and_failures_by_kind() {
        let answers = Answers(vec![
            reply(r#"{"status":200,"latencyUs":1,"sequence":0,"headers":{"x-strata-pod":["a"]}}"#),
            reply(r#"{"status":204,"latencyUs":1,"sequence":1,"headers":{"x-strata-pod":["b"]}}"#),
            reply(r#"{"status":503,"latencyUs":1,"sequence":2,"headers":{"x-strata-pod":["b"]}}"#),
            reply(r#"{"status":404,"latencyUs":1,"sequence":3}"#),
            reply(
                r#"{"latencyUs":1,"sequence":4,
                    "error":{"kind":"refused","stage":"connect","text":""}}"#,
            ),
            reply(
                r#"{"status":200,"latencyUs":1,"sequence":5,
                    "error":{"kind":"closed","stage":"body","text":""}}"#,
            ),
        ]);
        assert_eq!(answers.served_by(), ["a".into(), "b".into()].into());
        assert_eq!(answers.counts(), [("a".into(), 1), ("b".into(), 2)].into());
        let failures = [("404", 1), ("503", 1), ("closed early", 1), ("refused", 1)];
        assert_eq!(
            answers.failures(),
            failures
                .map(|(kind, count)| (kind.to_owned(), count))
                .into()
        );
        assert_eq!(
            answers.statuses(),
            [(200, 2), (204, 1), (404, 1), (503, 1)].into()
        );
    }
}
