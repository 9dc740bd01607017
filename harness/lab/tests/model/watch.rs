//! Watchers that lose their connection at any event, and resume from what they saw last.
//!
//! Start from [`Watcher::read`]. Rule: what a watcher gets is the history of its selection, each event
//! once and in order; 410 instead, only where the server was told to forget.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;
use serde_json::Value;

use crate::kinds::Kind;
use crate::op::{Select, Start};
use crate::wire::{Watch, ask};
use crate::world::{Change, Model, plain, revision};

pub(crate) struct Watcher {
    kind: Kind,
    select: Select,
    stream: Watch,
    /// What was there when it began and it was not told yet.
    initial: VecDeque<Value>,
    /// The next of the model's events that it may be told.
    position: usize,
    /// The version that it saw last; none before the first event of a watch from nowhere.
    version: Option<u64>,
    /// It was told to list anew at the end.
    over: bool,
}

impl Watcher {
    pub(crate) async fn begin(
        client: &Client,
        model: &Model,
        kind: Kind,
        select: Select,
        from: Start,
    ) -> Result<Self> {
        let past = |back: u8| {
            let known = model.history.iter().enumerate().rev();
            known
                .filter_map(|(at, event)| Some((at + 1, event.revision?)))
                .nth(usize::from(back))
        };
        let (position, version) = match from {
            // What comes first from nowhere may be of a moment ago where controllers keep a server busy.
            Start::Zero if !model.rules.controllers => (model.history.len(), None),
            Start::Zero | Start::Now => Self::listed(client, model, kind, select).await?,
            Start::Past(back) => match past(back) {
                Some((at, revision)) => (at, Some(revision)),
                None => Self::listed(client, model, kind, select).await?,
            },
        };
        Self::open(client, model, kind, select, position, version).await
    }

    async fn open(
        client: &Client,
        model: &Model,
        kind: Kind,
        select: Select,
        position: usize,
        version: Option<u64>,
    ) -> Result<Self> {
        let from = version
            .map(|version| format!("&resourceVersion={version}"))
            .unwrap_or_default();
        let request = model.listing(
            kind,
            select,
            &format!("watch=true&allowWatchBookmarks=true{from}"),
        );
        let initial = match version {
            None => model
                .selected(kind, select)
                .map(|(_, object)| plain(&object.value))
                .collect(),
            Some(_) => VecDeque::new(),
        };
        let stream = Watch::open(client, &request).await?;
        Ok(Self {
            kind,
            select,
            stream,
            initial,
            position,
            version,
            over: false,
        })
    }

    /// Lists anew: the state has to be the model's, and the watch goes on from it.
    async fn listed(
        client: &Client,
        model: &Model,
        kind: Kind,
        select: Select,
    ) -> Result<(usize, Option<u64>)> {
        let answer = ask(client, &model.listing(kind, select, "")).await?;
        let names = |items: Vec<&Value>| {
            items
                .into_iter()
                .map(|item| item["metadata"]["name"].clone())
                .collect::<Vec<_>>()
        };
        let found = names(
            answer.body["items"]
                .as_array()
                .context("no items")?
                .iter()
                .collect(),
        );
        let wanted = names(
            model
                .selected(kind, select)
                .map(|(_, object)| &object.value)
                .collect(),
        );
        ensure!(found == wanted, "a list has {found:?}, not {wanted:?}");
        Ok((model.history.len(), revision(&answer.body)))
    }

    /// Reads so many events, as far as there are any.
    pub(crate) async fn read(&mut self, client: &Client, model: &Model, most: usize) -> Result<()> {
        for _ in 0..most {
            if !self.initial.is_empty() {
                let (change, object) = self.event().await?;
                let at = self.initial.iter().position(|one| *one == plain(&object));
                let at = at.with_context(|| {
                    format!("{change} {object} is not what was there at the beginning")
                })?;
                ensure!(change == "ADDED", "what is there comes as {change}");
                self.initial.remove(at);
                self.version = self.version.max(revision(&object));
                continue;
            }
            let left = model.history.iter().enumerate().skip(self.position);
            let mut left = left.filter(|(_, event)| event.at.kind == self.kind);
            let next = left.find_map(|(at, event)| Some((at, event, self.select.sees(event)?)));
            let Some((at, event, (change, wanted))) = next else {
                return Ok(());
            };
            let (found, object) = self
                .event()
                .await
                .with_context(|| format!("waiting for {change:?} {wanted}"))?;
            if found == "ERROR" && object["code"] == 410 && self.position < model.forgotten {
                let (position, version) =
                    Self::listed(client, model, self.kind, self.select).await?;
                *self =
                    Self::open(client, model, self.kind, self.select, position, version).await?;
                continue;
            }
            let name = match change {
                Change::Added => "ADDED",
                Change::Modified => "MODIFIED",
                Change::Deleted => "DELETED",
            };
            if found != name || plain(&object) != *wanted {
                bail!(
                    "a watch of {:?} {:?} is told {found} {object}, not {name} {wanted}",
                    self.kind,
                    self.select
                );
            }
            let seen = revision(&object).context("an event without a version")?;
            ensure!(
                self.version < Some(seen),
                "an event's version {seen} is not after {:?}",
                self.version
            );
            if let Some(known) = event.revision {
                ensure!(seen == known, "an event's version is {seen}, not {known}");
            }
            self.version = Some(seen);
            self.position = at + 1;
        }
        Ok(())
    }

    async fn event(&mut self) -> Result<(String, Value)> {
        loop {
            let (name, object) = self.stream.next().await?;
            if name != "BOOKMARK" {
                return Ok((name, object));
            }
            let mark = revision(&object).context("a bookmark without a version")?;
            ensure!(self.version <= Some(mark), "a bookmark goes back to {mark}");
            self.version = Some(mark);
        }
    }

    /// Loses the connection, and opens another where the last one ended.
    pub(crate) async fn reconnect(&mut self, client: &Client, model: &Model) -> Result<()> {
        let (mut position, mut version) = (self.position, self.version);
        if !self.initial.is_empty() || version.is_none() {
            // It does not know where it is: it begins again.
            (position, version) = (model.history.len(), None);
        } else if let Some(known) = model
            .history
            .iter()
            .position(|event| event.revision == version)
        {
            // After what was there, a watch tells what followed the newest of it.
            position = known + 1;
        }
        *self = Self::open(client, model, self.kind, self.select, position, version).await?;
        Ok(())
    }

    /// The next event is the coming of this object, and nothing before it.
    pub(crate) async fn ends_with(
        &mut self,
        model: &Model,
        kind: Kind,
        name: &str,
        content: &Value,
    ) -> Result<()> {
        if self.over || kind != self.kind || !self.select.takes(content) {
            return Ok(());
        }
        let (change, object) = self.event().await?;
        if change == "ERROR" && object["code"] == 410 && self.position < model.forgotten {
            // What it did not read, though nothing of it was its own, was forgotten meanwhile.
            self.over = true;
            return Ok(());
        }
        let found = &object["metadata"]["name"];
        ensure!(
            change == "ADDED" && found == name,
            "told {change} {object} beyond the history, before {name}"
        );
        Ok(())
    }
}
