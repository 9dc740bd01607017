//! What deleting an object comes to.
//!
//! Start from [`Model::deletion`], which foresees it, and [`Model::delete`], which takes it over.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::accept::check_managers;
use crate::kinds::Kind;
use crate::op::{At, Guard, Propagation};
use crate::world::{Change, Model, Object, Refusal, finalizers, is_deleting, plain, revision};

/// What a deletion comes to, step by step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletion {
    /// The object that is stored on the way.
    pub(crate) marked: Option<Value>,
    pub(crate) removed: bool,
}

impl Model {
    /// What deleting an object comes to.
    pub(crate) fn deletion(
        &self,
        at: At,
        propagation: Option<Propagation>,
        guard: Guard,
        grace: Option<u8>,
    ) -> Result<Deletion, Refusal> {
        let old = &self.objects.get(&at).ok_or_else(Refusal::not_found)?.value;
        let matches = match guard {
            Guard::None | Guard::Uid => true,
            Guard::OtherUid => false,
            Guard::Version(version) => self.version(at, version).1,
        };
        if !matches {
            return Err(Refusal::conflict());
        }
        let mut new = old.clone();
        let given = old["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        let graceful = at.kind.is_graceful() && (!is_deleting(old) || given > 0);
        if graceful && is_deleting(old) {
            // Time that was given can only be made shorter.
            match grace.map(i64::from).filter(|grace| *grace < given) {
                None => return Ok(Deletion::default()),
                Some(grace) => new["metadata"]["deletionGracePeriodSeconds"] = grace.into(),
            }
        } else if graceful {
            let bound = !old["spec"]["nodeName"].is_null();
            let grace = if bound {
                grace.map_or(30, i64::from)
            } else {
                0
            };
            self.mark(at.kind, &mut new, grace);
        }
        let known = finalizers(old);
        let wanted = self.wait_for(old, propagation);
        let mut left: Vec<String> = known
            .iter()
            .filter(|one| !is_collectors(one))
            .cloned()
            .collect();
        left.extend(wanted.map(str::to_owned));
        let moved = {
            let (mut a, mut b) = (known.clone(), left.clone());
            a.sort();
            b.sort();
            a != b
        };
        if moved {
            new["metadata"]["finalizers"] = json!(left);
            at.kind.tidy(&mut new);
        }
        let pending = if moved {
            !left.is_empty()
        } else {
            !known.is_empty()
        };
        if !graceful && pending {
            self.mark(at.kind, &mut new, 0);
        }
        let time = new["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        let stays = pending || (graceful && time > 0);
        Ok(Deletion {
            marked: (graceful || stays).then_some(new),
            removed: !stays,
        })
    }

    fn mark(&self, kind: Kind, object: &mut Value, grace: i64) {
        if !is_deleting(object) && self.has_generation(kind) {
            object["metadata"]["generation"] =
                (object["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
        }
        object["metadata"]["deletionTimestamp"] = "set".into();
        object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    }

    /// The garbage collector's finalizer that a deletion leaves behind.
    fn wait_for(&self, old: &Value, propagation: Option<Propagation>) -> Option<&'static str> {
        match propagation {
            Some(Propagation::Background) => None,
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            Some(Propagation::Orphan) => Some("orphan"),
            None => {
                let found = finalizers(old).into_iter().find(|one| is_collectors(one))?;
                Some(if found == "orphan" {
                    "orphan"
                } else {
                    "foregroundDeletion"
                })
            }
        }
    }

    /// Takes a deletion over; `kept` is the object that is served now, where one is left.
    pub(crate) fn delete(
        &mut self,
        at: At,
        deletion: Deletion,
        kept: Option<&Value>,
    ) -> Result<()> {
        let Some(old) = self.objects.get(&at).cloned() else {
            return Ok(());
        };
        let Some(marked) = deletion.marked else {
            if deletion.removed {
                self.forget(at, plain(&old.value));
            }
            return Ok(());
        };
        let now = plain(&marked);
        if deletion.removed {
            self.record(
                at,
                Change::Modified,
                None,
                Some(plain(&old.value)),
                now.clone(),
            );
            self.forget(at, now);
            return Ok(());
        }
        let kept = kept.context("the object is gone")?;
        ensure!(
            plain(kept) == now,
            "being deleted it is {}, not {now}",
            plain(kept)
        );
        check_managers(&old.managers, kept)?;
        let version = revision(kept).context("no resourceVersion")?;
        if now == plain(&old.value) {
            ensure!(
                revision(&old.value) == Some(version),
                "nothing changed, but its resourceVersion"
            );
            return Ok(());
        }
        self.advance(version)?;
        self.record(
            at,
            Change::Modified,
            Some(version),
            Some(plain(&old.value)),
            now,
        );
        let stale = revision(&old.value);
        self.objects.insert(
            at,
            Object {
                value: kept.clone(),
                managers: old.managers,
                stale,
            },
        );
        Ok(())
    }
}

fn is_collectors(finalizer: &str) -> bool {
    matches!(finalizer, "orphan" | "foregroundDeletion")
}
