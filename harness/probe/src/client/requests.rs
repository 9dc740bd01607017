//! `requests`: many HTTP requests that differ, over a few connections.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use futures::future::try_join_all;
use strata_probe::{BriefReply, Reply, RequestsSpec};

use super::http::Plan;
use super::resolve::Resolver;
use super::{at_least_one, write};
use crate::Trouble;

/// Sends what is asked for; writes each reply when it is there.
pub(crate) async fn run(spec: RequestsSpec) -> Result<(), Trouble> {
    at_least_one("requests", spec.requests.len() as u64)?;
    at_least_one("concurrency", spec.concurrency)?;
    at_least_one("timeoutMs", spec.timeout_ms)?;
    let resolver = Arc::new(Resolver::from_system());
    let plans = spec
        .each()
        .map(|request| Plan::new(request, Arc::clone(&resolver)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Trouble::CommandLine)?;
    let start = Instant::now();
    let next = Cell::new(0);
    let workers = spec.concurrency.min(plans.len() as u64);
    try_join_all((0..workers).map(|_| work(&plans, &next, start))).await?;
    Ok(())
}

async fn work(plans: &[Plan], next: &Cell<usize>, start: Instant) -> Result<(), Trouble> {
    let mut kept = None;
    while let Some(plan) = plans.get(next.get()) {
        let sequence = next.replace(next.get() + 1);
        let (reply, _) = plan.fetch(sequence as u64, start, &mut kept).await;
        write(&brief(reply))?;
    }
    Ok(())
}

fn brief(reply: Reply) -> BriefReply {
    BriefReply {
        sequence: reply.sequence,
        status: reply.status,
        pod: reply.pod().map(str::to_owned),
        error: reply.error,
    }
}
