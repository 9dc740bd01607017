//! A container instance's log, kept in memory.
//!
//! Start from [`Log`]. Lines come from the container's pipes, or one by one from a task of the lab,
//! and go to any number of readers. Rule: a log that grows too large loses its oldest lines.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

use crate::api::kubelet::LogOptions;

/// The most octets that are kept, as kubelets rotate at by default.
const LIMIT: usize = 10 << 20;

/// One instance's log.
#[derive(Default)]
pub(super) struct Log {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    /// The number of the first line still kept.
    first: usize,
    size: usize,
    closed: bool,
}

struct Line {
    time: Timestamp,
    text: Bytes,
}

impl Log {
    /// Adds a line.
    pub(super) fn line(&self, text: &str) {
        self.push(Bytes::from(format!("{text}\n")));
    }

    /// Adds what a pipe brings, until it closes.
    pub(super) async fn copy(&self, pipe: impl AsyncRead + Unpin) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while let Ok(1..) = pipe.read_until(b'\n', &mut line).await {
            self.push(Bytes::from(std::mem::take(&mut line)));
        }
    }

    /// Ends the log: readers that follow it end with it.
    pub(super) fn close(&self) {
        self.locked().closed = true;
        self.changed.send_replace(());
    }

    /// What an instance that ended says last, for its termination message.
    pub(super) fn tail(&self, lines: usize) -> String {
        let state = self.locked();
        let skip = state.lines.len().saturating_sub(lines);
        let mut text = String::new();
        for line in state.lines.iter().skip(skip) {
            text.push_str(&String::from_utf8_lossy(&line.text));
        }
        text
    }

    /// The log as a stream.
    pub(super) fn read(
        self: &Arc<Self>,
        options: &LogOptions,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let (follow, timestamps) = (options.follow, options.timestamps);
        let state = self.locked();
        let skip = options
            .tail_lines
            .map_or(0, |tail| state.lines.len().saturating_sub(tail));
        let next = state.first + skip;
        drop(state);
        let changed = self.changed.subscribe();
        stream::unfold(
            (self.clone(), next, changed),
            move |(log, next, mut changed)| async move {
                loop {
                    changed.borrow_and_update();
                    let (chunk, end, closed) = log.from(next, timestamps);
                    if !chunk.is_empty() {
                        return Some((Ok(chunk), (log, end, changed)));
                    }
                    if closed || !follow || changed.changed().await.is_err() {
                        return None;
                    }
                }
            },
        )
        .boxed()
    }

    /// The lines from one number on, the number after them, and whether none will follow.
    fn from(&self, next: usize, timestamps: bool) -> (Bytes, usize, bool) {
        let state = self.locked();
        let mut chunk = BytesMut::new();
        for line in state.lines.iter().skip(next.saturating_sub(state.first)) {
            if timestamps {
                chunk.put_slice(format!("{} ", line.time).as_bytes());
            }
            chunk.put_slice(&line.text);
        }
        (
            chunk.freeze(),
            state.first + state.lines.len(),
            state.closed,
        )
    }

    fn push(&self, text: Bytes) {
        let mut state = self.locked();
        state.size += text.len();
        state.lines.push_back(Line {
            time: Timestamp::now(),
            text,
        });
        while state.size > LIMIT {
            let Some(line) = state.lines.pop_front() else {
                break;
            };
            state.size -= line.text.len();
            state.first += 1;
        }
        drop(state);
        self.changed.send_replace(());
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn text(log: &Arc<Log>, options: LogOptions) -> String {
        let chunks: Vec<Bytes> = log.read(&options).try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    #[tokio::test]
    async fn reads_all_or_the_tail_and_follows_to_the_end() {
        let log = Arc::new(Log::default());
        log.copy(&b"one\ntwo\nno newline"[..]).await;
        assert_eq!(
            text(&log, LogOptions::default()).await,
            "one\ntwo\nno newline"
        );
        let tail = LogOptions {
            tail_lines: Some(1),
            ..LogOptions::default()
        };
        assert_eq!(text(&log, tail).await, "no newline");
        let follow = LogOptions {
            follow: true,
            tail_lines: Some(0),
            ..LogOptions::default()
        };
        let following = tokio::spawn({
            let log = log.clone();
            async move { text(&log, follow).await }
        });
        tokio::task::yield_now().await;
        log.line("three");
        log.close();
        assert!(following.await.unwrap().ends_with("three\n"));
    }

    #[test]
    fn the_oldest_lines_go_first() {
        let log = Log::default();
        let line = "x".repeat(LIMIT / 2);
        for _ in 0..3 {
            log.line(&line);
        }
        assert_eq!(log.locked().first, 2);
    }
}
