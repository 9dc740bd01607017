//! A cluster held against a model: routes are put in, requests are sent, answers are compared.
//!
//! Start from [`agrees`]. Each set of routes has hosts of its own, which no earlier set had, and each of its
//! objects a mark: a rule more that only a request of its own meets. Rule: no answer counts before the marks
//! of all objects are served, so none is that of another configuration; and a request that nobody answered
//! tells nothing of routing, so it is counted, and is no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use strata::wire::OneRequest;
use strata::{Eventually, Expect, NoVerdict, NotPassed, Outcome, Scope, expect};

use super::draw::{self, Dice};
use super::shrink::{Case, smaller};
use super::{Place, Request, Routes};
use crate::entrance::Entrance;
use crate::said;

/// Sets of routes that are in the cluster at a time.
const SETS: usize = 64;
/// Requests to each.
const REQUESTS: usize = 20;
/// At most one in so many may go without an answer; whether any may is another check's to judge.
const UNANSWERED: usize = 200;
/// Shrinking further than this is not worth a person's waiting, nor the check's deadline.
const SHRINKING: Duration = Duration::from_secs(30);

/// Sends as many random requests as are asked for, to sets that `drawn` makes.
pub(super) async fn agrees<R: Routes>(
    scope: &Scope,
    entrance: &Entrance,
    drawn: fn(&mut Dice) -> Vec<R>,
) -> Outcome {
    let mut dice = Dice::new(scope.seed());
    let mut bench = Bench::new(scope, entrance);
    let wanted = scope.random_cases();
    while bench.asked < wanted {
        let sets = (wanted - bench.asked).div_ceil(REQUESTS).min(SETS);
        let left = (wanted - bench.asked).min(sets * REQUESTS);
        let case = |set: usize| {
            let routes = drawn(&mut dice);
            let count = REQUESTS.min(left - set * REQUESTS);
            let requests = draw::requests(&mut dice, &routes, count);
            Case { routes, requests }
        };
        let cases: Vec<Case<R>> = (0..sets).map(case).collect();
        let differences = bench.differences(&cases).await?;
        let count = differences.len();
        if let Some(least) = least(differences) {
            bench.records();
            let asked = bench.asked;
            let shrunk = bench.shrunk(least).await;
            let again = bench.differences(std::slice::from_ref(&shrunk.case)).await;
            return report(scope, entrance, &shrunk, count, asked, again);
        }
    }
    bench.records();
    bench.enough()
}

/// A request that is answered otherwise than the model allows.
struct Difference<R> {
    case: Case<R>,
    /// The same where it was seen, without marks.
    placed: Case<R>,
    expected: BTreeSet<String>,
    observed: String,
}

fn least<R: Routes>(differences: Vec<Difference<R>>) -> Option<Difference<R>> {
    let size = |difference: &Difference<R>| difference.case.size();
    differences.into_iter().min_by_key(size)
}

/// Where cases are tried.
struct Bench<'a> {
    scope: &'a Scope,
    entrance: &'a Entrance,
    /// How many places there were.
    places: usize,
    /// What is in the cluster, by name.
    applied: BTreeSet<String>,
    asked: usize,
    /// How many of these the specification lets be answered in several ways.
    open: usize,
    /// How many of these nobody answered.
    unanswered: usize,
}

impl<'a> Bench<'a> {
    fn new(scope: &'a Scope, entrance: &'a Entrance) -> Self {
        Self {
            scope,
            entrance,
            places: 0,
            applied: BTreeSet::new(),
            asked: 0,
            open: 0,
            unanswered: 0,
        }
    }

    fn records(&self) {
        self.scope.record("random.requests", self.asked);
        self.scope.record("random.sets", self.places);
        self.scope.record("random.open", self.open);
        self.scope.record("random.unanswered", self.unanswered);
    }

    /// Whether so many were answered that the others cannot have been a kind of their own.
    fn enough(&self) -> Outcome {
        if self.unanswered * UNANSWERED <= self.asked {
            return Ok(());
        }
        let (asked, unanswered) = (self.asked, self.unanswered);
        Err(NoVerdict::new(format!(
            "{unanswered} of {asked} random requests were not answered"
        ))
        .into())
    }

    /// Puts cases into the cluster side by side and sends their requests.
    async fn differences<R: Routes>(
        &mut self,
        cases: &[Case<R>],
    ) -> Result<Vec<Difference<R>>, NotPassed> {
        let mut placed: Vec<Case<R>> = Vec::new();
        for (slot, case) in cases.iter().enumerate() {
            placed.push(self.placed(case, slot));
        }
        self.put_in(&placed).await?;
        let created = self.created::<R>().await?;
        for case in &mut placed {
            case.routes = std::mem::take(&mut case.routes)
                .into_iter()
                .map(|route| {
                    let at = created.get(route.name()).cloned().unwrap_or_default();
                    route.created(at)
                })
                .collect();
        }
        let requests: Vec<OneRequest> = placed
            .iter()
            .flat_map(|case| case.requests.iter().map(Request::wire))
            .collect();
        let mut replies = self.entrance.send_all(&requests).await?.into_iter();
        let mut differences = Vec::new();
        for (case, placed) in cases.iter().zip(placed) {
            for ((request, sent), reply) in
                case.requests.iter().zip(&placed.requests).zip(&mut replies)
            {
                self.asked += 1;
                if reply.status.is_none() {
                    self.unanswered += 1;
                    continue;
                }
                let expected = R::answers(&placed.routes, sent);
                let observed = said::brief(&reply);
                self.open += usize::from(expected.len() > 1);
                if !expected.contains(&observed) {
                    let of = |routes: &[R], request: &Request| Case {
                        routes: routes.to_vec(),
                        requests: vec![request.clone()],
                    };
                    differences.push(Difference {
                        case: of(&case.routes, request),
                        placed: of(&placed.routes, sent),
                        expected,
                        observed,
                    });
                }
            }
        }
        Ok(differences)
    }

    fn placed<R: Routes>(&mut self, case: &Case<R>, slot: usize) -> Case<R> {
        self.places += 1;
        let place = Place {
            namespace: self.scope.namespace().to_owned(),
            slot,
            domain: format!("s{}.reference.example", self.places),
        };
        let (routes, requests) = (case.routes.iter(), case.requests.iter());
        Case {
            routes: routes.map(|route| route.placed(&place)).collect(),
            requests: requests.map(|request| request.placed(&place)).collect(),
        }
    }

    /// Applies what is there now with its marks, takes away what is not, and waits until all marks are
    /// served. The connections of a look are new ones, sixteen in all, since there may be several proxies.
    async fn put_in<R: Routes>(&mut self, placed: &[Case<R>]) -> Outcome {
        let (mut manifests, mut marks, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
        for case in placed {
            let mut documents = Vec::new();
            for (marked, mark) in case.routes.iter().map(Routes::marked) {
                names.insert(marked.name().to_owned());
                documents.push(marked.yaml());
                marks.push(mark);
            }
            manifests.push(documents.join("---\n"));
        }
        let scope = self.scope;
        try_join_all(manifests.iter().map(|manifest| scope.apply(manifest))).await?;
        let gone = self.applied.difference(&names);
        let delete = |name| scope.delete_kind(R::API_VERSION, R::KIND, name);
        try_join_all(gone.map(|name| delete(name))).await?;
        self.applied = names;
        let requests: Vec<OneRequest> = marks.iter().map(Request::wire).collect();
        scope
            .eventually(Eventually {
                what: &format!("which of {} objects, just applied, are not served yet", marks.len()),
                expected: Vec::new(),
                observe: async || {
                    let replies = self.entrance.send_all(&requests).await?;
                    let unserved = marks.iter().zip(&replies);
                    let unserved = unserved.filter(|(_, reply)| reply.status != Some(200));
                    let said = unserved.map(|(mark, reply)| (mark.hostname(), said::brief(reply)));
                    Ok(said.take(3).collect())
                },
                likely: "the controller does not hear of what is applied, or refuses it: see the objects' statuses",
            })
            .await
    }

    /// When each object was created.
    async fn created<R: Routes>(&self) -> Result<BTreeMap<String, String>, NoVerdict> {
        let scope = self.scope;
        let objects = scope.list_kind(scope.namespace(), R::API_VERSION, R::KIND);
        let created = objects.await?.into_iter().filter_map(|object| {
            let at = object.metadata.creation_timestamp?;
            Some((object.metadata.name?, at.0.to_string()))
        });
        Ok(created.collect())
    }

    /// The least that still differs. Trouble on the way ends it: what was found until then is told.
    async fn shrunk<R: Routes>(&mut self, found: Difference<R>) -> Difference<R> {
        let until = Instant::now() + SHRINKING;
        let mut shrunk = found;
        while Instant::now() < until {
            let mut differences = Vec::new();
            for candidates in smaller(&shrunk.case).chunks(SETS) {
                match self.differences(candidates).await {
                    Ok(found) => differences.extend(found),
                    Err(_) => return shrunk,
                }
            }
            match least(differences) {
                Some(next) => shrunk = next,
                None => return shrunk,
            }
        }
        shrunk
    }
}

fn report<R: Routes>(
    scope: &Scope,
    entrance: &Entrance,
    shrunk: &Difference<R>,
    count: usize,
    asked: usize,
    again: Result<Vec<Difference<R>>, NotPassed>,
) -> Outcome {
    let kind = R::KIND;
    let seed = scope.run_seed();
    let yaml: Vec<_> = shrunk.placed.routes.iter().map(Routes::yaml).collect();
    let url = entrance.url();
    let curl: Vec<_> = shrunk
        .placed
        .requests
        .iter()
        .map(|request| request.curl(&url))
        .collect();
    let expected: Vec<_> = shrunk.expected.iter().map(String::as_str).collect();
    let again = match again {
        Ok(differences) if differences.is_empty() => {
            ", and when it was asked once more, as expected".to_owned()
        }
        Ok(_) => String::new(),
        Err(_) => ", and it could not be asked once more".to_owned(),
    };
    expect(false, || {
        Expect {
        what: format!(
            "{count} of {asked} random requests are answered otherwise than {kind}'s specification says \
             (STRATA_SEED={seed}). The least of it is\n{}{}",
            yaml.join("---\n"),
            curl.join("\n")
        ),
        expected: expected.join(" or "),
        observed: format!("{}{again}", shrunk.observed),
        likely: "the controller orders or compares routes in a way of its own; docs/reference.md tells how to read this".to_owned(),
    }
    })
}
