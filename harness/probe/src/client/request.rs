//! `request`: one HTTP request, or a burst.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use strata_probe::{Connections, RequestSpec};

use super::http::Plan;
use super::pace::Pace;
use super::resolve::Resolver;
use super::{at_least_one, write};
use crate::Trouble;

/// Sends what is asked for; writes each reply when it is there.
pub(crate) async fn run(spec: RequestSpec) -> Result<(), Trouble> {
    check(&spec)?;
    let duration = spec.duration_ms.map(Duration::from_millis);
    let pace = Pace::new(spec.count, duration, spec.rate);
    let workers = match spec.duration_ms {
        Some(_) => spec.concurrency,
        None => spec.concurrency.min(spec.count),
    };
    let plan = Plan::new(spec, Arc::new(Resolver::from_system())).map_err(Trouble::CommandLine)?;
    let start = Instant::now();
    try_join_all((0..workers).map(|_| work(&plan, &pace, start))).await?;
    Ok(())
}

fn check(spec: &RequestSpec) -> Result<(), Trouble> {
    at_least_one("count", spec.count)?;
    at_least_one("concurrency", spec.concurrency)?;
    at_least_one("timeoutMs", spec.timeout_ms)?;
    at_least_one("durationMs", spec.duration_ms.unwrap_or(1))?;
    at_least_one("rate", spec.rate.unwrap_or(1).into())
}

async fn work(plan: &Plan, pace: &Pace, start: Instant) -> Result<(), Trouble> {
    let mut kept = None;
    while let Some(sequence) = pace.next().await {
        let (reply, _) = plan.fetch(sequence, start, &mut kept).await;
        if plan.spec.connections == Connections::New {
            kept = None;
        }
        write(&reply)?;
    }
    Ok(())
}
