//! Everything that was asked and answered, for the evidence of a check.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// JSON lines, shared by the vantages of a scope.
#[derive(Debug, Clone, Default)]
pub struct Transcript(Arc<Mutex<Vec<String>>>);

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

    /// Notes what came back, a line a reply.
    pub(super) fn answered(&self, vantage: &str, output: &str) {
        for line in output.lines() {
            let reply = serde_json::from_str(line).unwrap_or_else(|_| Value::from(line));
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
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().flat_map(|line| [line, "\n"]).collect()
    }

    fn push(&self, line: Value) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line.to_string());
    }
}
