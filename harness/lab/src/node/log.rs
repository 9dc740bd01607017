//! A container instance's log, kept in memory.
//!
//! Start from [`Log`]. Lines come in pieces from the container's pipes, or one by one from a task of
//! the lab, and go to any number of readers. Rule: a log that grows too large loses its oldest
//! lines, and a line that is too long is several.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use crate::api::kubelet::LogOptions;

/// The most octets that are kept, as kubelets rotate at by default.
const LIMIT: usize = 10 << 20;
/// The most octets of a line that are kept until it ends, as containerd has it.
const LONGEST: usize = 16 << 10;

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

    /// Adds what one pipe brings, in whatever pieces.
    pub(super) fn lines(&self) -> Lines<'_> {
        Lines {
            log: self,
            begun: Vec::new(),
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
        let LogOptions {
            follow,
            timestamps,
            since,
            ..
        } = *options;
        let state = self.locked();
        let skip = options
            .tail_lines
            .map_or(0, |tail| state.lines.len().saturating_sub(tail));
        let next = state.first + skip;
        drop(state);
        let changed = self.changed.subscribe();
        stream::unfold(
            (self.clone(), next, changed),
            move |(log, mut next, mut changed)| async move {
                loop {
                    changed.borrow_and_update();
                    let (chunk, end, closed) = log.from(next, since, timestamps);
                    if !chunk.is_empty() {
                        return Some((Ok(chunk), (log, end, changed)));
                    }
                    next = end;
                    if closed || !follow || changed.changed().await.is_err() {
                        return None;
                    }
                }
            },
        )
        .boxed()
    }

    /// The lines from one number on, the number after them, and whether none will follow.
    fn from(
        &self,
        next: usize,
        since: Option<Timestamp>,
        timestamps: bool,
    ) -> (Bytes, usize, bool) {
        let state = self.locked();
        let mut chunk = BytesMut::new();
        let lines = state.lines.iter().skip(next.saturating_sub(state.first));
        for line in lines.filter(|line| since.is_none_or(|since| line.time >= since)) {
            // What continues a line is not told again when it was written.
            if timestamps && (chunk.is_empty() || chunk.ends_with(b"\n")) {
                chunk.put_slice(format!("{:.9} ", line.time).as_bytes());
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

/// The lines of one pipe, put together from pieces.
pub(super) struct Lines<'a> {
    log: &'a Log,
    begun: Vec<u8>,
}

impl Lines<'_> {
    /// Adds a piece.
    pub(super) fn put(&mut self, data: &[u8]) {
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.begun.len() >= LONGEST {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.log.push(Bytes::from(std::mem::take(&mut self.begun)));
    }
}

/// A pipe may close in the midst of a line.
impl Drop for Lines<'_> {
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            self.end();
        }
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
        let mut lines = log.lines();
        for piece in ["on", "e\ntwo\nno ", "newline"] {
            lines.put(piece.as_bytes());
        }
        drop(lines);
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

    #[tokio::test]
    async fn lines_are_read_since_a_time_and_with_it() {
        let log = Arc::new(Log::default());
        let time = |second| Timestamp::from_second(second).unwrap();
        for second in [1, 2, 3] {
            log.locked().lines.push_back(Line {
                time: time(second),
                text: format!("{second}\n").into(),
            });
        }
        log.close();
        let since = |second| LogOptions {
            since: Some(time(second)),
            timestamps: true,
            // Those before it are not waited for.
            follow: true,
            ..LogOptions::default()
        };
        assert_eq!(
            text(&log, since(2)).await,
            "1970-01-01T00:00:02.000000000Z 2\n1970-01-01T00:00:03.000000000Z 3\n"
        );
        assert_eq!(text(&log, since(4)).await, "");
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_kept_back_for_ever() {
        let log = Arc::new(Log::default());
        let mut lines = log.lines();
        lines.put(&vec![b'x'; LONGEST]);
        lines.put(b"y\n");
        assert_eq!(log.locked().lines.len(), 2);
        drop(lines);
        log.close();
        let timestamps = LogOptions {
            timestamps: true,
            ..LogOptions::default()
        };
        let text = text(&log, timestamps).await;
        assert_eq!(text.matches("Z ").count(), 1, "one line, one time");
        assert!(text.ends_with("xy\n"));
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
