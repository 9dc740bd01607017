//! Every object, and what happened to them.
//!
//! Start from [`Store::transact`]: one lock, held for the length of a read or a write, makes every
//! write atomic. Revisions count over all kinds, as etcd's do. Each kind keeps the last
//! [`LOG_LENGTH`] events, from which watches resume.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

/// How many of a kind's last events keep what they were written as for the next watch.
const FRESH: usize = 64;
/// How many events of a kind a watch can be behind before it is told that it is too old.
const LOG_LENGTH: usize = 8192;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One step in the life of an object.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) change: Change,
    /// The object after the step; its last state where it was deleted.
    pub(crate) object: Arc<Value>,
    /// The object before the step.
    pub(crate) before: Option<Arc<Value>>,
    text: Mutex<Text>,
}

/// The object as JSON: many watches tell the same events, and at about the same time.
#[derive(Debug)]
enum Text {
    Unwritten,
    Written(Bytes),
    /// Whoever is so far behind writes for itself.
    Forgotten,
}

impl Event {
    /// The object after the step, as JSON.
    pub(crate) fn text(&self) -> Bytes {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if let Text::Written(bytes) = &*text {
            return bytes.clone();
        }
        let bytes = Bytes::from(self.object.to_string());
        if matches!(*text, Text::Unwritten) {
            *text = Text::Written(bytes.clone());
        }
        bytes
    }

    fn forget_text(&self) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = Text::Forgotten;
    }
}

/// Namespace (empty where there is none) and name.
pub(crate) type Key = (String, String);

/// The objects of one kind.
pub(crate) struct Table {
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Arc<Event>>,
    /// The revision of the newest event that is no longer in the log.
    forgotten: u64,
    news: watch::Sender<u64>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            forgotten: 0,
            news: watch::Sender::new(0),
        }
    }
}

/// All tables, by `plural.group`.
#[derive(Default)]
pub(crate) struct State {
    revision: u64,
    tables: HashMap<String, Table>,
}

/// The store. Clones are the same store.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<State>>);

impl Store {
    /// Does something with the whole store, atomically.
    pub(crate) fn transact<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// The revision of the last write.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// One object.
    pub(crate) fn get(&self, table: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.tables
            .get(table)?
            .objects
            .get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The objects of a kind after a key, of one namespace or of all, in order.
    pub(crate) fn range<'a>(
        &'a self,
        table: &str,
        namespace: Option<&'a str>,
        after: Option<Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match (after, namespace) {
            (Some(key), _) => Excluded(key),
            (None, Some(namespace)) => Included((namespace.to_owned(), String::new())),
            (None, None) => Unbounded,
        };
        self.tables
            .get(table)
            .into_iter()
            .flat_map(move |table| table.objects.range((from.clone(), Unbounded)))
            .take_while(move |((found, _), _)| namespace.is_none_or(|namespace| found == namespace))
    }

    /// The objects of a kind as they were at a revision.
    ///
    /// # Errors
    /// The oldest revision that is known, where this one is older.
    pub(crate) fn at(&self, table: &str, revision: u64) -> Result<BTreeMap<Key, Arc<Value>>, u64> {
        let Some(table) = self.tables.get(table) else {
            return Ok(BTreeMap::new());
        };
        if revision < table.forgotten {
            return Err(table.forgotten);
        }
        let mut objects = table.objects.clone();
        let later = table
            .log
            .iter()
            .rev()
            .take_while(|event| event.revision > revision);
        for event in later {
            let key = (
                super::meta::namespace(&event.object).to_owned(),
                super::meta::name(&event.object).to_owned(),
            );
            match &event.before {
                Some(before) => objects.insert(key, before.clone()),
                None => objects.remove(&key),
            };
        }
        Ok(objects)
    }

    /// All objects of a kind.
    pub(crate) fn all<'a>(&'a self, table: &str) -> impl Iterator<Item = &'a Arc<Value>> {
        self.range(table, None, None).map(|(_, object)| object)
    }

    /// Writes an object and gives it its revision.
    pub(crate) fn put(&mut self, table: &str, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = Value::String(self.revision.to_string());
        let object = Arc::new(object);
        let revision = self.revision;
        let table = self.table(table);
        let before = table.objects.insert(key, object.clone());
        let change = if before.is_some() {
            Change::Modified
        } else {
            Change::Added
        };
        table.record(Event {
            revision,
            change,
            object: object.clone(),
            before,
            text: Mutex::new(Text::Unwritten),
        });
        object
    }

    /// Removes an object; its last state carries the revision of the removal.
    pub(crate) fn remove(&mut self, table: &str, key: &Key) -> Option<Arc<Value>> {
        self.revision += 1;
        let revision = self.revision;
        let table = self.table(table);
        let before = table.objects.remove(key)?;
        let mut object = (*before).clone();
        object["metadata"]["resourceVersion"] = Value::String(revision.to_string());
        let object = Arc::new(object);
        table.record(Event {
            revision,
            change: Change::Deleted,
            object: object.clone(),
            before: Some(before),
            text: Mutex::new(Text::Unwritten),
        });
        Some(object)
    }

    /// Removes all objects of a kind that is no longer served, and ends its watches.
    pub(crate) fn drop_table(&mut self, table: &str) {
        self.tables.remove(table);
    }

    /// Forgets every event; what watches have read already does not concern them.
    pub(crate) fn compact(&mut self) {
        for table in self.tables.values_mut() {
            if let Some(newest) = table.log.back() {
                table.forgotten = newest.revision;
            }
            table.log.clear();
        }
    }

    /// The events of a kind after a revision.
    ///
    /// # Errors
    /// The oldest revision that can be resumed from, where this one is older.
    pub(crate) fn since(&mut self, table: &str, revision: u64) -> Result<Vec<Arc<Event>>, u64> {
        let table = self.table(table);
        if revision < table.forgotten {
            return Err(table.forgotten);
        }
        let start = table
            .log
            .partition_point(|event| event.revision <= revision);
        Ok(table.log.range(start..).cloned().collect())
    }

    /// Tells of every write to a kind.
    pub(crate) fn news(&mut self, table: &str) -> watch::Receiver<u64> {
        self.table(table).news.subscribe()
    }

    fn table(&mut self, name: &str) -> &mut Table {
        if !self.tables.contains_key(name) {
            self.tables.insert(name.to_owned(), Table::default());
        }
        self.tables.entry(name.to_owned()).or_default()
    }
}

impl Table {
    fn record(&mut self, event: Event) {
        let revision = event.revision;
        self.log.push_back(Arc::new(event));
        if let Some(stale) = self.log.len().checked_sub(FRESH + 1) {
            self.log[stale].forget_text();
        }
        if self.log.len() > LOG_LENGTH
            && let Some(oldest) = self.log.pop_front()
        {
            self.forgotten = oldest.revision;
        }
        self.news.send_replace(revision);
    }
}
