//! Everything that was asked and answered, for the evidence of a check.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::verdict::Late;

/// JSON lines, shared by the vantages of a scope.
#[derive(Debug, Clone, Default)]
pub struct Transcript(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    late: Late,
}

impl Transcript {
    /// Notes a question.
    pub(super) fn asked(&self, vantage: &str, command: &[String]) {
        // The specification is the last argument: as JSON it reads better than as a quoted string.
        let (last, rest) = command
            .split_last()
            .map_or(("", command), |(l, r)| (l.as_str(), r));
        let spec = serde_json::from_str(last).unwrap_or_else(|_| Value::from(last));
        self.push(json!({
            "at": jiff::Timestamp::now().to_string(),
            "from": vantage,
            "command": rest,
            "spec": spec,
        }));
    }

    /// Notes what came back, a line a reply, of a command that took so long.
    pub(super) fn answered(&self, vantage: &str, output: &str, took: Duration) {
        let replies = output.lines();
        let replies: Vec<Value> = replies
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| Value::from(line)))
            .collect();
        let late = late(&replies, took);
        tracing::trace!(vantage, ?took, begun = ?late.begun, noticed = ?late.noticed, "a command");
        {
            let mut lines = self.lines();
            lines.late = lines.late.max(late);
        }
        for reply in replies {
            self.push(json!({"from": vantage, "reply": reply}));
        }
    }

    /// Notes that nothing came back, and why.
    pub(super) fn failed(&self, vantage: &str, why: &str) {
        let at = jiff::Timestamp::now().to_string();
        self.push(json!({"at": at, "from": vantage, "noReply": why}));
    }

    /// All of it, ending with a newline; empty if nothing was asked.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.lines();
        lines.lines.iter().flat_map(|line| [line, "\n"]).collect()
    }

    /// The latest of all of it.
    pub(crate) fn late(&self) -> Late {
        self.lines().late
    }

    fn push(&self, line: Value) {
        self.lines().lines.push(line.to_string());
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What replies tell of how late a command was that took so long.
fn late(replies: &[Value], took: Duration) -> Late {
    let micros = |reply: &Value, field| reply.get(field).and_then(Value::as_u64);
    let noticed = replies
        .iter()
        .filter_map(|reply| reply.pointer("/error/lateMs")?.as_u64());
    let noticed = noticed.max().unwrap_or(0);
    // Requests tell when they began, and overlap; of what does not, no more than the sum is explained.
    let ends = replies
        .iter()
        .filter_map(|reply| Some(micros(reply, "startedUs")? + micros(reply, "latencyUs")?));
    let explained = match ends.max() {
        Some(end) => Some(end),
        None => replies
            .iter()
            .filter_map(|reply| micros(reply, "latencyUs"))
            .reduce(u64::saturating_add),
    };
    let begun = explained.map(|explained| took.saturating_sub(Duration::from_micros(explained)));
    Late {
        noticed: Duration::from_millis(noticed),
        begun: begun.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_secs(6);

    fn seconds(noticed: f64, begun: f64) -> Late {
        Late {
            noticed: Duration::from_secs_f64(noticed),
            begun: Duration::from_secs_f64(begun),
        }
    }

    #[test]
    fn what_a_command_measured_is_not_late() {
        let overlapping = [
            json!({"startedUs": 0, "latencyUs": 4_000_000}),
            json!({"startedUs": 1_000_000, "latencyUs": 4_500_000}),
        ];
        assert_eq!(late(&overlapping, TOOK), seconds(0.0, 0.5));
        let one_by_one = [
            json!({"latencyUs": 2_000_000}),
            json!({"latencyUs": 3_000_000}),
        ];
        assert_eq!(late(&one_by_one, TOOK), seconds(0.0, 1.0));
        let more_than_it_took = [
            json!({"latencyUs": 5_000_000}),
            json!({"latencyUs": 5_000_000}),
        ];
        assert_eq!(late(&more_than_it_took, TOOK), Late::default());
    }

    #[test]
    fn what_does_not_tell_its_time_is_not_late() {
        assert_eq!(late(&[], TOOK), Late::default());
        assert_eq!(
            late(&[json!({"status": 200}), json!("no JSON")], TOOK),
            Late::default()
        );
    }

    #[test]
    fn the_latest_that_time_was_noticed_to_be_up_counts() {
        let transcript = Transcript::default();
        let reply =
            |late| json!({"latencyUs": 5_836_000, "error": {"kind": "timed_out", "lateMs": late}});
        transcript.answered("web-0", &format!("{}\n{}", reply(12), reply(836)), TOOK);
        transcript.answered(
            "web-0",
            &json!({"latencyUs": 1}).to_string(),
            Duration::from_micros(1),
        );
        assert_eq!(transcript.late().noticed, Duration::from_millis(836));
        assert_eq!(transcript.text().lines().count(), 3);
    }
}
