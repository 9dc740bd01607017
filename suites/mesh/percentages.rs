//! What a rule does to a share of its requests only.
//!
//! Start from [`SUITE`]. Samples are judged by the exact binomial test of
//! [`strata::verdict::chance::fixed`].

use std::collections::BTreeMap;

use strata::wire::{FailureKind, RequestSpec};
use strata::{Check, Layer, Outcome, Scope, Suite, expect_eq};

use super::{by_address, client, explain_host};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[Check {
    id: "mesh::delays_by_percentage",
    claim: "A delay of 30 % holds back 30 % of the requests, and no other.",
    source: "Istio: HTTPFaultInjection.Delay percentage",
    needs: &[],
    manifest: None,
    run: |scope| Box::pin(delays_by_percentage(scope)),
}];

async fn delays_by_percentage(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    // Ignored, or of everything, or rounded to a half: twenty points tell these from 30 %.
    let share = scope.fixed_share(0.3, 0.2)?;
    // Who is held back for a minute is given up long before that, and long after all others.
    let spec = RequestSpec {
        count: share.requests(),
        concurrency: 200,
        timeout_ms: 4000,
        ..by_address(scope, "faulty", "/seldom").await?
    };
    let mut seen = BTreeMap::<String, u64>::new();
    for reply in client.request(&spec).await?.0 {
        *seen.entry(said::said(&reply)).or_default() += 1;
    }
    let delayed = seen
        .remove(&FailureKind::TimedOut.to_string())
        .unwrap_or_default();
    let served = seen.remove("200 by backend-v1").unwrap_or_default();
    for (key, value) in share.records(delayed) {
        scope.record(key, value);
    }
    let outcome = expect_eq(
        "what else than the answer and a delay comes of a rule that delays 30 % of its requests",
        &(BTreeMap::new(), share.requests()),
        &(seen, delayed + served),
        "the rule's route does not lead to backend-v1",
    );
    explain_host(scope, outcome, "faulty").await?;
    let outcome = share.judge(
        "the requests that a rule holds back, which delays 30 %",
        delayed,
        "the fault's percentage is ignored or rounded",
    );
    explain_host(scope, outcome, "faulty").await
}
