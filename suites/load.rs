//! A change under load: requests that go on while an object is changed, none of which may fail. And datagrams, of
//! which some may.
//!
//! Start from [`under_load`], or [`load_until`] where the change takes its time. What the change brings about is the caller's to await, between the load
//! and [`none_failed`]. For datagrams: [`datagrams`].

use std::cell::Cell;
use std::future::Future;

use futures::future::try_join;
use strata::verdict::bound::ErrorBound;
use strata::wire::{FailureKind, RequestSpec, UdpReply, UdpSpec};
use strata::{Answers, NoVerdict, Outcome, Scope, Vantage};

/// Datagrams, each of a sender of its own. One in a hundred may be lost, or two, which is nobody's fault: others are sent
/// in place of those. More are as they are: an endpoint that is gone, or not served, loses its whole share. The question
/// for the name that they go to is a datagram, too, and a second one comes too late for the first.
pub(crate) async fn datagrams(from: &Vantage, spec: &UdpSpec) -> Result<Vec<UdpReply>, NoVerdict> {
    let is_lost = |reply: &UdpReply| {
        let error = reply.error.as_ref();
        let lost = [FailureKind::TimedOut, FailureKind::NameServerTimedOut];
        error.is_some_and(|error| lost.contains(&error.kind))
    };
    let mut replies = from.udp(spec).await?;
    let lost = replies.iter().filter(|reply| is_lost(reply)).count() as u64;
    if lost > 0 && excused(lost, spec.count) {
        replies.retain(|reply| !is_lost(reply));
        let others = UdpSpec {
            count: lost,
            ..spec.clone()
        };
        replies.extend(from.udp(&others).await?);
    }
    Ok(replies)
}

/// Whether so many may be lost of so many.
fn excused(lost: u64, sent: u64) -> bool {
    lost <= (sent / 100).max(2)
}

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

#[cfg(test)]
mod tests {
    #[test]
    fn what_an_endpoint_loses_that_is_gone_is_no_excuse() {
        for (lost, sent, excused) in [
            (2, 12, true),
            (3, 12, false),
            (2, 60, true),
            // The share of one of twenty endpoints.
            (3, 60, false),
            (6, 612, true),
            (30, 612, false),
        ] {
            assert_eq!(super::excused(lost, sent), excused, "{lost} of {sent}");
        }
    }
}
