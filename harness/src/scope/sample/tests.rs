//! Samples of proxies that draw as they should, and of some that do not.

use std::time::Duration;

use super::*;
use crate::verdict::NotPassed;
use crate::verdict::split::FIRST;

const ASKED: &[Test] = &[Test::Connection, Test::Address, Test::Time];

fn reply(pod: &str, status: u16, from: (u8, u16)) -> Reply {
    Reply {
        status: Some(status),
        headers: [("x-strata-pod".to_owned(), vec![pod.to_owned()])].into(),
        local: Some(SocketAddr::from(([10, 0, 0, from.0], from.1))),
        ..Reply::default()
    }
}

/// A sample of 90/10, by two clients over eight connections each, of a proxy that tells for the number
/// of a request, of a burst and of a client whether it goes to the canary, and its status.
async fn sampled(proxy: impl Fn(usize, usize, usize) -> (bool, u16)) -> (Outcome, Sampled) {
    let mut sampled = Sampled::new(SplitTest::new([("v1", 90.0), ("v2", 10.0)]).unwrap());
    let (mut sent, mut bursts) = (0, 0);
    let send = async |client: usize, count: u64| {
        bursts += 1;
        let replies = (0..count).map(|n| {
            sent += 1;
            let (canary, status) = proxy(sent, bursts, client);
            let from = (u8::try_from(client).unwrap(), u16::try_from(n % 8).unwrap());
            reply(if canary { "v2" } else { "v1" }, status, from)
        });
        Ok(replies.collect())
    };
    let sort = |reply: &Reply| match failure(reply) {
        Some(kind) => Sorted::Failed(kind),
        None => Sorted::Arm(reply.pod().unwrap_or_default().to_owned()),
    };
    let clients = ["inside".to_owned(), "outside".to_owned()];
    sampled.draw(&clients, &sort, send).await.unwrap();
    let outcome = sampled.judge(ASKED, "who answers", "the weights");
    (outcome, sampled)
}

fn finding(outcome: Outcome) -> crate::verdict::Finding {
    match outcome {
        Err(NotPassed::Failed(finding)) => *finding,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bursts_go_on_until_the_split_is_decided() {
    let (outcome, sampled) = sampled(|sent, _, _| (sent % 10 == 0, 200)).await;
    outcome.unwrap();
    assert!(sampled.sent() > FIRST && sampled.sent() <= sampled.test.at_most());
    let records: BTreeMap<_, _> = sampled.records(ASKED).unwrap().into_iter().collect();
    assert_eq!(records["split.requests"], sampled.sent().to_string());
    assert!(records["split.counts"].starts_with("v1 "), "{records:?}");
    assert!(records.contains_key("split.alpha") && records.contains_key("errors.at_most"));
    assert_eq!(records["split.unit"], "request");
    assert!(
        records["split.order"].starts_with("in turn"),
        "{}",
        records["split.order"]
    );
    for every in [usize::MAX, 5, 1] {
        let (outcome, _) = super::tests::sampled(|sent, _, _| (sent % every == 0, 200)).await;
        assert_eq!(finding(outcome).what(), "who answers", "{every}");
    }
}

#[tokio::test]
async fn requests_that_fail_are_the_finding_and_end_the_sampling() {
    let (outcome, sampled) = sampled(|sent, _, _| {
        let status = if sent % 100 == 1 { 503 } else { 200 };
        (sent % 10 == 0, status)
    })
    .await;
    let finding = finding(outcome);
    assert_eq!(finding.what(), "requests that fail");
    assert!(
        finding.observed().contains("3 503"),
        "{}",
        finding.observed()
    );
    assert_eq!(sampled.sent(), FIRST);
}

/// Every eighth request is of the same connection.
#[tokio::test]
async fn who_sticks_to_connections_is_named_though_shares_are_right() {
    let (outcome, sampled) = sampled(|sent, burst, _| ((sent + burst) % 8 == 0, 200)).await;
    let finding = finding(outcome);
    assert!(
        finding.what().contains("the connection"),
        "{}",
        finding.what()
    );
    let records: BTreeMap<_, _> = sampled.records(ASKED).unwrap().into_iter().collect();
    assert_eq!(records["split.unit"], "connection");
    let log = sampled.log();
    assert_eq!(log.lines().count() as u64, sampled.sent());
    assert!(
        log.starts_with(r#"{"arm":"v1","burst":0,"from":"inside""#),
        "{log}"
    );
}

#[tokio::test]
async fn who_treats_clients_otherwise_is_named() {
    let (outcome, _) = sampled(|sent, _, client| {
        let every = if client == 0 { usize::MAX } else { 5 };
        (sent % every == 0, 200)
    })
    .await;
    let finding = finding(outcome);
    assert!(finding.what().contains("the client"), "{}", finding.what());
}

#[tokio::test]
async fn who_stays_with_an_arm_for_a_while_is_named() {
    let (outcome, _) = sampled(|sent, _, _| (sent % 100 < 10, 200)).await;
    let finding = finding(outcome);
    assert!(
        finding.what().contains("the one before"),
        "{}",
        finding.what()
    );
}

/// What is no arm comes in a row, as a silent name server's time-outs do.
#[tokio::test]
async fn who_is_no_arm_is_named_and_not_the_drawing() {
    let mut sampled = Sampled::new(SplitTest::new([("v1", 90.0), ("v2", 10.0)]).unwrap());
    for sent in 0..usize::try_from(FIRST).unwrap() {
        let arm = match sent {
            280..290 => "timed out",
            _ if sent % 10 == 0 => "v2",
            _ => "v1",
        };
        let reply = reply(arm, 200, (1, 80));
        sampled.take_in(&reply, Sorted::Arm(arm.to_owned()), 0, "inside".to_owned());
    }
    let outcome = sampled.judge(&[Test::Time], "who answers", "the weights");
    let finding = finding(outcome);
    assert_eq!(finding.what(), "who answers");
    assert!(
        finding.observed().contains("timed out 3.3 %"),
        "{}",
        finding.observed()
    );
}

/// How many rounds of requests go by before a sample begins, of a proxy that tells for the number of a round who answers each
/// of its requests, and with which status.
async fn rounds(within: Duration, proxy: impl Fn(usize, u64) -> (&'static str, u16)) -> usize {
    let rounds = std::cell::Cell::new(0);
    let send = async |_: usize, count: u64| {
        rounds.set(rounds.get() + 1);
        let answer = |n| {
            let (pod, status) = proxy(rounds.get(), n);
            reply(pod, status, (0, 0))
        };
        Ok((0..count).map(answer).collect())
    };
    let sampling = Sampling {
        what: "",
        from: &[],
        spec: &RequestSpec::get("http://web/"),
        arms: &[("v1", 90.0), ("v2", 10.0), ("v3", 0.0)],
        tolerance: TOLERANCE,
        sort: &|reply| match failure(reply) {
            Some(kind) => Sorted::Failed(kind),
            None => Sorted::Arm(reply.pod().unwrap_or_default().to_owned()),
        },
        likely: "",
    };
    let budget = Budget {
        within,
        every: Duration::from_millis(1),
        ..CONVERGE
    };
    known(&sampling, 1, budget, send).await.unwrap();
    rounds.get()
}

/// Longer than any of these takes, wherever it runs.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_sample_begins_when_every_arm_is_known() {
    let split = |n| if n == 7 { "v2" } else { "v1" };
    assert_eq!(rounds(LONG, |_, n| (split(n), 200)).await, 1);
    // The second arm's endpoints come with the third round.
    let late = |round, n| (split(n), if n == 7 && round < 3 { 503 } else { 200 });
    assert_eq!(rounds(LONG, late).await, 3);
    // It is not chosen before the fourth.
    let seldom = |round, n| (if round < 4 { "v1" } else { split(n) }, 200);
    assert_eq!(rounds(LONG, seldom).await, 4);
    // It never is: of 132 requests one would have failed, were it chosen and not known.
    assert_eq!(rounds(LONG, |_, _| ("v1", 200)).await, 7);
}

#[tokio::test]
async fn an_arm_that_is_never_known_is_left_to_the_sample() {
    let brief = Duration::from_millis(20);
    assert!(rounds(brief, |_, _| ("v1", 503)).await >= 1);
}
