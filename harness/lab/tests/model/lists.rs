//! Lists, whole and by pages: of one moment, whatever happens between the pages.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::driver::Run;
use crate::kinds::Kind;
use crate::op::Select;
use crate::wire::ask;
use crate::world::revision;

/// A list of which one page was read.
pub(crate) struct Page {
    kind: Kind,
    token: String,
    version: Option<u64>,
    rest: Vec<Value>,
    /// Where in the history it was made.
    position: usize,
}

impl Run<'_> {
    pub(crate) async fn list(&self, kind: Kind, select: Select) -> Result<()> {
        let answer = ask(&self.client, &self.model.listing(kind, select, "")).await?;
        let found = answer.body["items"]
            .as_array()
            .with_context(|| format!("no list: {}", answer.body))?;
        let wanted = self.whole(kind, select);
        let found: Vec<Value> = found.iter().map(|item| typed(kind, item)).collect();
        ensure!(
            found == wanted,
            "a list of {kind:?} {select:?} has {found:?}, not {wanted:?}"
        );
        let newest = wanted.iter().filter_map(revision).max();
        ensure!(
            revision(&answer.body) >= newest,
            "a list is older than what is in it"
        );
        Ok(())
    }

    fn whole(&self, kind: Kind, select: Select) -> Vec<Value> {
        self.model
            .selected(kind, select)
            .map(|(_, object)| object.value.clone())
            .collect()
    }

    pub(crate) async fn page(&mut self, kind: Kind) -> Result<()> {
        let answer = ask(
            &self.client,
            &self.model.listing(kind, Select::All, "limit=1"),
        )
        .await?;
        let mut rest = self.whole(kind, Select::All);
        let first: Vec<Value> = rest.drain(..rest.len().min(1)).collect();
        let found = answer.body["items"].as_array().context("no items")?;
        ensure!(
            found.iter().map(|item| typed(kind, item)).eq(first),
            "a first page is {}",
            answer.body
        );
        let token = answer.body["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        ensure!(
            token.is_empty() == rest.is_empty(),
            "{} are left, and the token is {token:?}",
            rest.len()
        );
        let (version, position) = (revision(&answer.body), self.model.history.len());
        self.page = (!rest.is_empty()).then_some(Page {
            kind,
            token,
            version,
            rest,
            position,
        });
        Ok(())
    }

    /// The pages after the first are of the same moment, whatever has happened since.
    pub(crate) async fn rest(&mut self) -> Result<()> {
        let Some(mut page) = self.page.take() else {
            return Ok(());
        };
        while !page.rest.is_empty() {
            let more = format!("limit=1&continue={}", page.token);
            let answer = ask(
                &self.client,
                &self.model.listing(page.kind, Select::All, &more),
            )
            .await?;
            if answer.code == 410 && page.position < self.model.forgotten {
                return Ok(());
            }
            let found = answer.body["items"]
                .as_array()
                .with_context(|| format!("no page: {}", answer.body))?;
            let next = page.rest.remove(0);
            let found: Vec<Value> = found.iter().map(|item| typed(page.kind, item)).collect();
            ensure!(
                found == [next.clone()],
                "a further page has {found:?}, not {next}"
            );
            ensure!(
                revision(&answer.body) == page.version,
                "a further page is of another version"
            );
            page.token = answer.body["metadata"]["continue"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        ensure!(page.token.is_empty(), "the last page names another");
        Ok(())
    }
}

/// An item of a list as it is served alone: typed lists leave out what the list tells.
fn typed(kind: Kind, item: &Value) -> Value {
    let mut item = item.clone();
    item["apiVersion"] = kind.api_version().into();
    item["kind"] = kind.name().into();
    item
}
