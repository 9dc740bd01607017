//! Samples of what chance decides: drawn, logged, and judged.
//!
//! Start from [`Scope::sample`]; [`Scope::split`] is the usual form of it. What may be concluded is
//! `verdict::chance`'s. Rule: whoever calls has seen before that the configuration under test is in
//! force, so that every request of a sample was drawn under it, and here it is seen that all arms are known;
//! and every sample is on disk, request by request in the order of sending, whatever comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::PoisonError;

use serde_json::json;
use strata_probe::{Connections, Reply, RequestSpec};

use super::Scope;
use crate::budget::{Budget, CONVERGE};
use crate::probe::{Vantage, failure};
use crate::verdict::bound::ErrorBound;
use crate::verdict::chance::Test;
use crate::verdict::chance::dependence::{Dependence, Unit, regular, sticky, unlike};
use crate::verdict::split::{BETA, Decision, SplitTest, TOLERANCE, burst};
use crate::verdict::{NoVerdict, NoVerdictKind, Outcome};
use crate::wait::{self, Progress};

/// The file of a sample in its check's evidence.
pub(super) const LOG: &str = "sample.jsonl";

/// What a reply counts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sorted {
    /// An answer of this arm's.
    Arm(String),
    /// A failure, of this kind: judged apart from shares.
    Failed(String),
}

/// A sample, and what is expected of it.
pub struct Sampling<'a> {
    /// What is looked at.
    pub what: &'a str,
    /// Where requests start, in turn by burst. Of several it is asked whether they are treated alike.
    pub from: &'a [&'a Vantage],
    /// Each request; how many are sent is the test's to say.
    pub spec: &'a RequestSpec,
    /// Arms with their weights, in any unit.
    pub arms: &'a [(&'a str, f64)],
    /// A deviation of so much, or more, is missed with probability β at most.
    pub tolerance: f64,
    /// What a reply counts as.
    pub sort: &'a dyn Fn(&Reply) -> Sorted,
    /// A cause to look at.
    pub likely: &'a str,
}

impl Scope {
    /// Sends requests until it is decided whether the arms receive their shares (any unit; `arm_of`
    /// names the arm of a reply), five points apart. Failed requests are judged apart.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub async fn split(
        &self,
        from: &Vantage,
        spec: &RequestSpec,
        arms: &[(&str, f64)],
        arm_of: impl Fn(&Reply) -> String,
        likely: &str,
    ) -> Outcome {
        self.sample(Sampling {
            what: &format!("who answers {}", spec.url),
            from: &[from],
            spec,
            arms,
            tolerance: TOLERANCE,
            sort: &|reply| match failure(reply) {
                Some(kind) => Sorted::Failed(kind),
                None => Sorted::Arm(arm_of(reply)),
            },
            likely,
        })
        .await
    }

    /// Sends requests until it is decided whether the arms receive their shares, and asks whether the
    /// requests were drawn one by one. Counts, error rates and the unit that was drawn by are recorded.
    ///
    /// # Errors
    /// `Failed` if requests fail, depend on each other, or an arm does not receive its share.
    pub async fn sample(&self, sampling: Sampling<'_>) -> Outcome {
        let alpha = self.draw(Test::Split)?;
        let asked = self.asked(&sampling)?;
        let arms = sampling.arms.iter().copied();
        let test = SplitTest::with_rates(arms, alpha, BETA, sampling.tolerance)?;
        let mut sampled = Sampled::new(test);
        let send = async |client: usize, count| {
            let from = sampling.from.get(client).copied();
            let from = from.ok_or_else(|| NoVerdict::new("there is nobody to send requests"))?;
            let spec = RequestSpec {
                count,
                duration_ms: None,
                ..sampling.spec.clone()
            };
            Ok(from.request(&spec).await?.0)
        };
        let clients: Vec<_> = sampling.from.iter().map(|from| from.name()).collect();
        known(&sampling, clients.len(), CONVERGE, send).await?;
        let drawn = sampled.draw(&clients, sampling.sort, send).await;
        self.log_sample(&sampled)?;
        let observed = sampled.test.observed_shares().into_iter();
        *self.shares.lock().unwrap_or_else(PoisonError::into_inner) = observed
            .map(|(arm, share)| (arm.to_owned(), share))
            .collect();
        for (key, value) in sampled.records(&asked)? {
            self.record(key, value);
        }
        drawn?;
        sampled.judge(&asked, sampling.what, sampling.likely)
    }

    /// What requests may depend on, each drawn from the budget. Where all go to one arm there is
    /// nothing to ask.
    fn asked(&self, sampling: &Sampling<'_>) -> Result<Vec<Test>, NoVerdict> {
        let reused = sampling.spec.connections == Connections::Reuse;
        let possible = sampling.arms.iter().filter(|(_, weight)| *weight > 0.0);
        let asked = match possible.count() > 1 {
            true => vec![
                reused.then_some(Test::Connection),
                (sampling.from.len() > 1).then_some(Test::Address),
                // Last: what shows in the order of sending may be the doing of one of the others.
                Some(Test::Time),
            ],
            false => Vec::new(),
        };
        let asked: Vec<_> = asked.into_iter().flatten().collect();
        for test in &asked {
            self.draw(*test)?;
        }
        Ok(asked)
    }

    fn log_sample(&self, sampled: &Sampled) -> Result<(), NoVerdict> {
        std::fs::create_dir_all(&self.evidence)?;
        std::fs::write(self.evidence.join(LOG), sampled.log())?;
        self.record("split.log", LOG);
        Ok(())
    }

    /// Each arm's share, 0 to 1, as the latest [`Self::sample`] of this check observed it; empty
    /// before that.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<String, f64> {
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.clone()
    }
}

/// Sends requests that are not counted, until nothing fails and each arm that has a weight has answered, or that takes longer
/// than a change may: a proxy learns where an arm's endpoints are apart from the weights, and how soon is not judged here.
/// The share of an arm that it does not know fails; where so many in a row do not that this would come by chance once in a
/// million samples, an arm that nobody has seen is not looked for any longer.
async fn known(
    sampling: &Sampling<'_>,
    clients: usize,
    budget: Budget,
    send: impl AsyncFn(usize, u64) -> Result<Vec<Reply>, NoVerdict>,
) -> Result<(), NoVerdict> {
    const AT_A_TIME: u64 = 20;
    let arms = || sampling.arms.iter().filter(|(_, weight)| *weight > 0.0);
    let mut unseen: BTreeSet<_> = arms().map(|(arm, _)| (*arm).to_owned()).collect();
    let all: f64 = arms().map(|(_, weight)| weight).sum();
    let least = arms().map(|(_, weight)| weight / all).fold(1.0, f64::min);
    let mut missed = 1.0;
    let known = wait::until("every arm answers", budget, async || {
        let mut failed = None;
        for client in 0..clients {
            for reply in send(client, AT_A_TIME).await? {
                match (sampling.sort)(&reply) {
                    Sorted::Arm(arm) => drop(unseen.remove(&arm)),
                    Sorted::Failed(kind) => failed = Some(kind),
                }
                missed *= 1.0 - least;
            }
        }
        if failed.is_some() {
            missed = 1.0;
        }
        Ok(
            match failed.is_none() && (unseen.is_empty() || missed < 1e-6) {
                true => Progress::Ready(()),
                false => Progress::NotYet(format!("not yet by {unseen:?}; {failed:?}")),
            },
        )
    });
    match known.await {
        // What is not known by then is what the sample is about.
        Err(no_verdict) if no_verdict.kind() == NoVerdictKind::NotReached => Ok(()),
        known => known,
    }
}

/// One request of a sample, and what a proxy could have gone by when it drew its arm.
#[derive(Debug)]
struct Request {
    sorted: Sorted,
    burst: usize,
    from: String,
    sequence: u64,
    local: Option<SocketAddr>,
    started_us: u64,
}

impl Request {
    /// Bursts share no connection, though a port may come again.
    fn connection(&self) -> (usize, Option<SocketAddr>) {
        (self.burst, self.local)
    }
}

/// A split and the requests it was judged by.
struct Sampled {
    test: SplitTest,
    bound: ErrorBound,
    drawn: Vec<Request>,
    failed: BTreeMap<String, u64>,
}

impl Sampled {
    fn new(test: SplitTest) -> Self {
        Self {
            test,
            bound: ErrorBound::default(),
            drawn: Vec::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Sends bursts until the split is decided, or a request has failed; the first is sent whole, by
    /// all clients alike, and all others by one client after the other.
    async fn draw(
        &mut self,
        clients: &[String],
        sort: &dyn Fn(&Reply) -> Sorted,
        mut send: impl AsyncFnMut(usize, u64) -> Result<Vec<Reply>, NoVerdict>,
    ) -> Result<(), NoVerdict> {
        let all = clients.len().max(1);
        for number in 0.. {
            if self.test.decision() != Decision::Undecided || self.errors("").is_err() {
                break;
            }
            let turn = if number == 0 {
                0..all
            } else {
                number % all..number % all + 1
            };
            let count = burst(self.sent()).div_ceil(turn.len() as u64);
            for client in turn {
                let replies = send(client, count).await?;
                if replies.is_empty() {
                    return Err(NoVerdict::new("no request of a burst came back"));
                }
                for reply in replies {
                    let from = clients.get(client).cloned().unwrap_or_default();
                    self.take_in(&reply, sort(&reply), number, from);
                }
            }
        }
        Ok(())
    }

    fn take_in(&mut self, reply: &Reply, sorted: Sorted, burst: usize, from: String) {
        match &sorted {
            Sorted::Failed(kind) => *self.failed.entry(kind.clone()).or_default() += 1,
            Sorted::Arm(arm) => drop(self.test.observe(arm)),
        }
        self.drawn.push(Request {
            sorted,
            burst,
            from,
            sequence: reply.sequence,
            local: reply.local,
            started_us: reply.started_us,
        });
    }

    fn sent(&self) -> u64 {
        self.drawn.len() as u64
    }

    /// The requests of the first burst, whose number was set beforehand, with their arms.
    fn first(&self) -> Vec<(&Request, &str)> {
        let first = self.drawn.iter().filter(|drawn| drawn.burst == 0);
        let arms = first.filter_map(|drawn| match &drawn.sorted {
            Sorted::Arm(arm) => Some((drawn, arm.as_str())),
            Sorted::Failed(_) => None,
        });
        arms.collect()
    }

    /// What requests were asked to depend on, where it can be told.
    fn dependences(&self, asked: &[Test]) -> Result<Vec<Dependence>, NoVerdict> {
        let first = self.first();
        let by = |on: Test| {
            Ok(match on {
                Test::Connection => {
                    let keyed = first.iter().map(|(drawn, arm)| (drawn.connection(), *arm));
                    sticky(on, &keyed.collect::<Vec<_>>())
                }
                Test::Address => {
                    let keyed = first.iter().map(|(drawn, arm)| (&drawn.from, *arm));
                    unlike(on, &keyed.collect::<Vec<_>>())?
                }
                _ => {
                    let keyed = first.iter().map(|(_, arm)| ((), *arm));
                    sticky(on, &keyed.collect::<Vec<_>>())
                }
            })
        };
        let found: Result<Vec<_>, NoVerdict> = asked.iter().map(|on| by(*on)).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Requests that fail are a finding of their own and come first: the share of those that are
    /// left says little. Then who is no arm: a name server that is silent for a while is silent to several
    /// requests in a row, which says nothing of how arms are drawn. Nor do shares say much of requests that
    /// were not drawn one by one.
    fn judge(&self, asked: &[Test], what: &str, likely: &str) -> Outcome {
        self.errors(likely)?;
        if self.test.has_strangers() {
            return self.test.judge(what, likely);
        }
        for dependence in self.dependences(asked)? {
            dependence.judge()?;
        }
        self.test.judge(what, likely)
    }

    fn errors(&self, likely: &str) -> Outcome {
        if self.sent() == 0 {
            return Ok(());
        }
        let kinds: Vec<_> = self
            .failed
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        let failed = self.failed.values().sum();
        self.bound
            .judge(self.sent(), failed, &kinds.join(", "), likely)
    }

    fn records(&self, asked: &[Test]) -> Result<Vec<(&'static str, String)>, NoVerdict> {
        let mut records = self.test.records();
        records.extend(self.bound.records(self.sent(), self.failed.values().sum()));
        if asked.is_empty() {
            return Ok(records);
        }
        let dependences = self.dependences(asked)?;
        for seen in &dependences {
            let key = match seen.on {
                Test::Connection => "depends.connection",
                Test::Address => "depends.address",
                _ => "depends.time",
            };
            records.push((key, format!("p = {:.1e}: {}", seen.p_value, seen.seen)));
        }
        let by_connection = dependences.iter().find(|seen| seen.on == Test::Connection);
        records.push(("split.unit", Unit::of(by_connection).name().to_owned()));
        records.push(("split.order", self.order()?));
        Ok(records)
    }

    /// Whether arms are taken in turn or by chance, by the arm of the first answer.
    fn order(&self) -> Result<String, NoVerdict> {
        let first = self.first();
        let of = first.first().map(|(_, arm)| *arm);
        let row: Vec<bool> = first.iter().map(|(_, arm)| Some(*arm) == of).collect();
        let p_value = regular(&row)?;
        Ok(match p_value < Test::Time.alpha() {
            true => format!("in turn (p = {p_value:.1e})"),
            false => "by chance".to_owned(),
        })
    }

    /// A line a request, in the order of sending.
    fn log(&self) -> String {
        let lines = self.drawn.iter().enumerate().map(|(n, drawn)| {
            let (key, value) = match &drawn.sorted {
                Sorted::Arm(arm) => ("arm", arm),
                Sorted::Failed(kind) => ("failed", kind),
            };
            let line = json!({
                "n": n,
                "burst": drawn.burst,
                "sequence": drawn.sequence,
                "from": drawn.from,
                "local": drawn.local,
                "startedUs": drawn.started_us,
                key: value,
            });
            format!("{line}\n")
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests;
