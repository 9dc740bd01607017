//! A change under load: requests that go on while an object is changed, none of which may fail.
//!
//! Start from [`under_load`], or [`load_until`] where the change takes its time. What the change brings about is the caller's to await, between the load
//! and [`none_failed`].

use std::cell::Cell;
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

/// Makes a change while a request is repeated a hundred times a second, until the change has come about
/// and for half a second more.
pub(crate) async fn load_until<T>(
    from: &Vantage,
    request: RequestSpec,
    change: impl Future<Output = Result<T, NoVerdict>>,
) -> Result<Answers, NoVerdict> {
    let burst = RequestSpec {
        duration_ms: Some(500),
        rate: Some(100),
        concurrency: 4,
        ..request
    };
    let changed = Cell::new(false);
    let change = async {
        let made = change.await;
        changed.set(true);
        made
    };
    let load = async {
        let mut answers = Answers::default();
        loop {
            let last = changed.get();
            answers.0.extend(from.request(&burst).await?.0);
            if last {
                return Ok::<_, NoVerdict>(answers);
            }
        }
    };
    let (answers, _) = try_join(load, change).await?;
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
