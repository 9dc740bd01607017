//! A change under load: requests that go on while an object is changed, none of which may fail.
//!
//! Start from [`under_load`]. What the change brings about is the caller's to await, between the load
//! and [`none_failed`].

use std::future::Future;

use futures::future::try_join;
use strata::verdict::bound::ErrorBound;
use strata::wire::RequestSpec;
use strata::{Answers, NoVerdict, Outcome, Scope, Vantage};

/// Makes a change while a request is repeated for two seconds, a hundred times a second.
pub(crate) async fn under_load<T>(
    from: &Vantage,
    request: RequestSpec,
    change: impl Future<Output = Result<T, NoVerdict>>,
) -> Result<Answers, NoVerdict> {
    let load = RequestSpec {
        duration_ms: Some(2000),
        rate: Some(100),
        concurrency: 4,
        ..request
    };
    let (answers, _) = try_join(from.request(&load), change).await?;
    Ok(answers)
}

/// Judges that no request failed: the first that did is the proof.
pub(crate) fn none_failed(scope: &Scope, answers: &Answers, likely: &str) -> Outcome {
    let failures = answers.failures();
    let failed = failures.values().sum();
    let n = answers.0.len() as u64;
    let bound = ErrorBound::default();
    for (key, value) in bound.records(n, failed) {
        scope.record(key, value);
    }
    bound.judge(n, failed, &format!("{failures:?}"), likely)
}
