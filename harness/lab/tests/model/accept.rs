//! Holding an answer to what was foreseen.
//!
//! Start from [`Model::accept`]. What a server fills in by itself (uids, versions, defaults, addresses)
//! is taken over from its answer; all else has to be as foreseen, and what was filled in may not change.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::fields::Managers;
use crate::kinds::{Filled, Kind, List};
use crate::op::At;
use crate::world::{
    Change, Managed, Model, Object, Written, finalizers, is_deleting, plain, revision,
};

const BOOKKEEPING: [&str; 8] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

impl Model {
    /// Takes the answer to a write over, if it is as foreseen.
    pub(crate) fn accept(
        &mut self,
        at: At,
        written: Written,
        answer: &Value,
        dry: bool,
    ) -> Result<()> {
        let old = self.objects.get(&at).cloned();
        let mut foreseen = written.object;
        at.kind.tidy(&mut foreseen);
        let mut seen = self.agree(at, &foreseen, answer)?;
        let bare = matches!(written.managed, Managed::Bare(_));
        let managers = match written.managed {
            Managed::As(managers) => managers,
            Managed::By(who) | Managed::Bare(who) => {
                if bare && self.rules.minor < 22 {
                    seen["status"] = at.kind.blank()["status"].clone();
                    if seen["status"].is_null() {
                        seen.as_object_mut().map(|seen| seen.remove("status"));
                    }
                }
                let known = old.as_ref().map(|old| old.managers.clone());
                let before = old.as_ref().map(|old| &old.value);
                let known = known.unwrap_or_default();
                known.update(at.kind, before, &seen, &who, self.rules.minor)
            }
        };
        let Some(old) = old else {
            return self.accept_new(at, answer, managers, dry);
        };
        let metadata = &answer["metadata"];
        for name in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            let before = &old.value["metadata"][name];
            ensure!(
                metadata[name] == *before,
                "{name} was {before}, and became {}",
                metadata[name]
            );
        }
        let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        let gone = is_deleting(&old.value) && grace == 0 && finalizers(answer).is_empty();
        if gone {
            if !dry {
                self.forget(at, plain(&old.value));
            }
            return Ok(());
        }
        if self.has_generation(at.kind) {
            let changed = Self::asked_for(at.kind, &old.value) != Self::asked_for(at.kind, answer);
            let expected =
                old.value["metadata"]["generation"].as_i64().unwrap_or(0) + i64::from(changed);
            ensure!(
                metadata["generation"] == expected,
                "generation is {}, not {expected}",
                metadata["generation"]
            );
        }
        check_managers(&managers, answer)?;
        let changed = plain(answer) != plain(&old.value) || managers != old.managers;
        let (before, now) = (
            revision(&old.value),
            revision(answer).context("no resourceVersion")?,
        );
        if dry || !changed {
            ensure!(
                Some(now) == before,
                "nothing was written, but resourceVersion {before:?} became {now}"
            );
            return Ok(());
        }
        self.advance(now)?;
        self.record(
            at,
            Change::Modified,
            Some(now),
            Some(plain(&old.value)),
            plain(answer),
        );
        self.objects.insert(
            at,
            Object {
                value: answer.clone(),
                managers,
                stale: before,
            },
        );
        Ok(())
    }

    fn accept_new(&mut self, at: At, answer: &Value, managers: Managers, dry: bool) -> Result<()> {
        let metadata = &answer["metadata"];
        ensure!(
            metadata["uid"].is_string() && metadata["creationTimestamp"].is_string(),
            "no uid or creation time"
        );
        ensure!(
            metadata["deletionTimestamp"].is_null(),
            "it is being deleted from the start"
        );
        let generation = if self.has_generation(at.kind) {
            json!(1)
        } else {
            Value::Null
        };
        ensure!(
            metadata["generation"] == generation,
            "generation is {}, not {generation}",
            metadata["generation"]
        );
        check_managers(&managers, answer)?;
        if dry {
            ensure!(
                revision(answer).is_none(),
                "a dry run gave a resourceVersion"
            );
            return Ok(());
        }
        let now = revision(answer).context("no resourceVersion")?;
        self.advance(now)?;
        self.record(at, Change::Added, Some(now), None, plain(answer));
        self.objects.insert(
            at,
            Object {
                value: answer.clone(),
                managers,
                stale: None,
            },
        );
        Ok(())
    }

    /// Checks an answer against what was foreseen; gives it without what was allocated, which nobody manages.
    fn agree(&self, at: At, foreseen: &Value, answer: &Value) -> Result<Value> {
        let strip = |object: &Value| {
            let mut object = plain(object);
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.retain(|name, _| !BOOKKEEPING.contains(&name.as_str()));
                metadata.insert("namespace".to_owned(), self.namespace.clone().into());
            }
            object
        };
        ensure!(
            answer["metadata"]["namespace"] == self.namespace,
            "it is in another namespace"
        );
        fill(at.kind, "", &strip(foreseen), &strip(answer))
    }
}

pub(crate) fn check_managers(foreseen: &Managers, answer: &Value) -> Result<()> {
    // Whether a selector is one value or a map of them depends on the version; no step changes one.
    let plain = |managers: &Managers| {
        let mut managers = managers.clone();
        for set in managers.0.values_mut() {
            set.retain(|path| path.get(1).is_none_or(|field| field != "f:selector"));
        }
        managers.0.retain(|_, set| !set.is_empty());
        managers
    };
    let (foreseen, found) = (plain(foreseen), plain(&Managers::of(answer)));
    if foreseen == found {
        return Ok(());
    }
    let list = |managers: &Managers, other: &Managers| {
        let all = managers
            .0
            .iter()
            .flat_map(|(who, set)| set.iter().map(move |path| (who, path)));
        let only =
            all.filter(|(who, path)| !other.0.get(*who).is_some_and(|set| set.contains(*path)));
        only.map(|(who, path)| format!("\n    {who:?}: {}", path.join(" ")))
            .collect::<String>()
    };
    bail!(
        "managedFields\n  lack: {}\n  have besides: {}",
        list(&foreseen, &found),
        list(&found, &foreseen)
    )
}

/// Checks that an answer is what was foreseen but for what the server may fill in; gives what was
/// foreseen with the defaults.
fn fill(kind: Kind, path: &str, foreseen: &Value, answer: &Value) -> Result<Value> {
    let step = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match (foreseen, answer) {
        (Value::Object(wanted), Value::Object(found)) => {
            let mut seen = serde_json::Map::new();
            for (name, value) in wanted {
                let inner = step(name);
                let found = found
                    .get(name)
                    .with_context(|| format!("{inner} is missing: it should be {value}"))?;
                seen.insert(name.clone(), fill(kind, &inner, value, found)?);
            }
            for (name, value) in found.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
                let inner = step(name);
                match kind.filled_in(&inner) {
                    Some(Filled::Default) => {
                        seen.insert(name.clone(), value.clone());
                    }
                    Some(Filled::Allocated) => {}
                    None => bail!("{inner} should not be there; it is {value}"),
                }
            }
            Ok(Value::Object(seen))
        }
        (Value::Array(wanted), Value::Array(found)) if kind.list(path) != List::Atomic => {
            ensure!(
                wanted.len() == found.len(),
                "{path} is {answer}, not {foreseen}"
            );
            let same = |one: &Value, other: &Value| match kind.list(path) {
                List::Keyed(keys) => keys.iter().all(|key| one[*key] == other[*key]),
                _ => one == other,
            };
            let items = wanted.iter().map(|item| {
                let found = found.iter().find(|found| same(item, found));
                fill(
                    kind,
                    &format!("{path}.*"),
                    item,
                    found.with_context(|| format!("{path} lacks {item}"))?,
                )
            });
            Ok(Value::Array(items.collect::<Result<_>>()?))
        }
        _ => {
            ensure!(foreseen == answer, "{path} is {answer}, not {foreseen}");
            Ok(foreseen.clone())
        }
    }
}
