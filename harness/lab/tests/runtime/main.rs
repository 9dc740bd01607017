//! `kube`'s runtime against the lab's API server: what people write controllers with.
//!
//! The API server runs in this process with nobody beside it; a [`api::Line`] breaks the connections,
//! and takes the server away for a while. Watchers and reflectors by themselves are in the tests of
//! the model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod controller;
mod lease;
#[path = "../support/line.rs"]
mod line;
mod metadata;
mod wait;

/// How long anything may take. Nothing is measured by it: it only ends what would hang.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// What a future comes to, unless it hangs.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: not after {PATIENCE:?}"))
}

fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}
