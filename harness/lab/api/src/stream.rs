//! Watches: what happens to the objects of a selection, from a revision on.
//!
//! Start from [`watch`]. A watch reads the store's log at its own pace; the log is bounded, and a
//! watch that fell behind it ends with 410, from which clients list anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{StatusCode, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::registry::Kind;
use super::router::Call;
use super::selector::Selection;
use super::shape::Shape;
use super::status::Status;
use super::store::{Change, Event, Store};
use super::{meta, write};

/// How long a watch lives when the client does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(1800);
/// How often a quiet watch tells where it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

struct Watch {
    store: Store,
    kind: Arc<Kind>,
    selection: Selection,
    revision: u64,
    news: tokio::sync::watch::Receiver<u64>,
    bookmarks: bool,
    until: Instant,
    lag: Duration,
    pending: VecDeque<Bytes>,
    shape: Shape,
    done: bool,
}

/// `GET` of a collection with `watch=true`.
pub(crate) fn watch(call: &Call) -> Result<Response, Status> {
    let asked = &call.asked;
    let selection = asked.selection()?;
    let from = match asked.query.get("resourceVersion") {
        None | Some("0") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| {
            Status::bad_request(format!(
                "resourceVersion: Invalid value: {text:?}: it must be one that the server gave"
            ))
        })?),
    };
    let initial = asked.query.is("sendInitialEvents");
    let bookmarks = asked.query.is("allowWatchBookmarks");
    let life = asked
        .query
        .number("timeoutSeconds")
        .filter(|seconds| *seconds > 0)
        .map_or(DEFAULT_LIFE, Duration::from_secs);
    let (existing, revision, news) = call.shared.store.transact(|state| {
        let news = state.news(&asked.kind.table);
        let namespace = asked
            .kind
            .namespaced
            .then_some(asked.namespace.as_deref())
            .flatten();
        let mut existing: Vec<Arc<Value>> = Vec::new();
        if from.is_none() || initial {
            existing.extend(
                state
                    .range(&asked.kind.table, namespace, None)
                    .map(|(_, object)| object.clone()),
            );
            return (existing, state.revision(), news);
        }
        (existing, from.unwrap_or_default(), news)
    });
    let mut watch = Watch {
        store: call.shared.store.clone(),
        kind: asked.kind.clone(),
        selection,
        revision,
        news,
        bookmarks,
        until: Instant::now() + life,
        lag: call.watch_lag(),
        pending: VecDeque::new(),
        shape: call.shape(),
        done: false,
    };
    for object in existing
        .iter()
        .filter(|object| watch.selection.matches(object))
    {
        let line = watch.line("ADDED", object);
        watch.pending.push_back(line);
    }
    if initial {
        let mark = watch.bookmark(json!({"k8s.io/initial-events-end": "true"}));
        watch.pending.push_back(mark);
    }
    let lines = futures::stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), watch))
    });
    let mut response = Response::new(Body::from_stream(lines.fuse()));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.pending.pop_front() {
                return Some(line);
            }
            if self.done {
                return None;
            }
            self.news.mark_unchanged();
            self.news.borrow_and_update();
            let revision = self.revision;
            let found = self.store.transact(|state| {
                state
                    .since(&self.kind.table, revision)
                    .map(|events| (events, state.revision()))
            });
            match found {
                Err(oldest) => {
                    self.done = true;
                    let status = Status::expired(revision, oldest).object();
                    return Some(line_of("ERROR", &status.to_string()));
                }
                Ok((events, now)) if events.is_empty() => {
                    self.revision = self.revision.max(now);
                    self.wait().await?;
                }
                Ok((events, _)) => {
                    for event in events {
                        self.revision = event.revision;
                        if let Some(line) = self.show(&event) {
                            self.pending.push_back(line);
                        }
                    }
                }
            }
        }
    }

    /// Waits for news; says where the watch is when there are none for long. Ends at its deadline.
    async fn wait(&mut self) -> Option<()> {
        let bookmark_at = Instant::now() + BOOKMARK_EVERY;
        let deadline = self.until.min(bookmark_at);
        match tokio::time::timeout_at(deadline, self.news.changed()).await {
            Ok(Ok(())) => {
                if !self.lag.is_zero() {
                    tokio::time::sleep(self.lag).await;
                }
                Some(())
            }
            Ok(Err(_)) => None,
            Err(_) if Instant::now() >= self.until => {
                if self.bookmarks {
                    let mark = self.bookmark(json!({}));
                    self.pending.push_back(mark);
                    self.done = true;
                    return Some(());
                }
                None
            }
            Err(_) => {
                if self.bookmarks {
                    let mark = self.bookmark(json!({}));
                    self.pending.push_back(mark);
                }
                Some(())
            }
        }
    }

    /// What an event is to this selection: an object that is no longer selected is gone for it.
    fn show(&self, event: &Event) -> Option<Bytes> {
        let now = event.change != Change::Deleted && self.selection.matches(&event.object);
        let before = event
            .before
            .as_ref()
            .is_some_and(|before| self.selection.matches(before));
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(self.line_after("ADDED", event)),
            (true, true) => Some(self.line_after("MODIFIED", event)),
            (true, false) if event.change == Change::Deleted => {
                Some(self.line_after("DELETED", event))
            }
            (true, false) => {
                // The last selected state, with the revision at which it ceased to be.
                let mut last = event.before.as_deref().cloned().unwrap_or_default();
                last["metadata"]["resourceVersion"] = event.revision.to_string().into();
                Some(self.line("DELETED", &Arc::new(last)))
            }
        }
    }

    /// The object after an event: where it is told as it is stored, as all such watches tell it.
    fn line_after(&self, change: &str, event: &Event) -> Bytes {
        let as_stored = event.object["apiVersion"] == self.kind.api_version();
        if as_stored && matches!(self.shape, Shape::Whole) {
            return line_with(change, &event.text());
        }
        self.line(change, &event.object)
    }

    fn line(&self, change: &str, object: &Arc<Value>) -> Bytes {
        let object = write::seen_as(&self.kind, object);
        line_of(change, &self.shape.json(&self.kind, &object))
    }

    fn bookmark(&self, annotations: Value) -> Bytes {
        let mut object = json!({
            "apiVersion": self.kind.api_version(), "kind": self.kind.kind,
            "metadata": {"resourceVersion": self.revision.to_string(), "creationTimestamp": null},
        });
        if annotations.as_object().is_some_and(|map| !map.is_empty()) {
            meta::map_at(&mut object, "metadata").insert("annotations".to_owned(), annotations);
        }
        // Typed clients read bookmarks as whole objects.
        if let Some(typed) = &self.kind.typed {
            let mut whole = object.clone();
            if typed.read(&mut whole, &mut Vec::new()).is_ok() {
                object = whole;
            }
        }
        match self.shape {
            Shape::Metadata => line_of("BOOKMARK", &self.shape.json(&self.kind, &object)),
            _ => line_of("BOOKMARK", &object.to_string()),
        }
    }
}

fn line_of(change: &str, object: &str) -> Bytes {
    line_with(change, object.as_bytes())
}

fn line_with(change: &str, object: &[u8]) -> Bytes {
    let begin = format!("{{\"type\":\"{change}\",\"object\":");
    Bytes::from([begin.as_bytes(), object, b"}\n"].concat())
}
