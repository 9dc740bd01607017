//! The tests of dependence against every order that there is, and against proxies that stick.

use super::*;

/// Every order of so many hits among so many requests.
fn orders(n: usize, hits: u32) -> Vec<Vec<bool>> {
    (0..1_u32 << n)
        .filter(|bits| bits.count_ones() == hits)
        .map(|bits| (0..n).map(|at| bits >> at & 1 == 1).collect())
        .collect()
}

/// A p-value that is at most x with a probability of at most x is what an exact test is.
fn is_exact(p_values: &[f64]) {
    for x in p_values {
        let as_small = p_values.iter().filter(|p| **p <= x * 1.000_001).count();
        let share = count(as_small as u64) / count(p_values.len() as u64);
        assert!(share <= x * 1.000_001, "{x} comes up with {share}");
    }
}

#[test]
fn the_runs_test_is_exact() {
    for hits in [1, 4, 6, 11] {
        let orders = orders(12, hits);
        let p_values: Vec<_> = orders.iter().map(|row| few_runs(row)).collect();
        is_exact(&p_values);
        // And wastes nothing: all orders together have as many runs or fewer.
        let most = p_values.iter().copied().fold(0.0, f64::max);
        assert!((most - 1.0).abs() < 1e-9, "{most}");
    }
}

#[test]
fn groups_are_put_one_after_the_other() {
    let interleaved: Vec<(u32, &str)> = (0..40)
        .map(|n| (n % 2, if n % 2 == 0 { "a" } else { "b" }))
        .collect();
    let seen = sticky(Test::Connection, &interleaved).unwrap();
    assert!(
        seen.found() && seen.constant && seen.p_value < 1e-10,
        "{seen:?}"
    );
    assert_eq!(Unit::of(Some(&seen)), Unit::Connection);
    let in_time: Vec<((), &str)> = interleaved.iter().map(|(_, arm)| ((), *arm)).collect();
    let seen = sticky(Test::Time, &in_time).unwrap();
    assert!((seen.p_value - 1.0).abs() < 1e-9, "{seen:?}");
    assert!(
        seen.seen.contains("40 runs") && seen.seen.contains("21 are"),
        "{seen:?}"
    );
}

#[test]
fn nothing_is_said_where_nothing_can_be_told() {
    let once_each: Vec<(usize, &str)> = (0..40)
        .map(|n| (n, if n % 3 == 0 { "a" } else { "b" }))
        .collect();
    assert_eq!(sticky(Test::Connection, &once_each), None);
    assert_eq!(Unit::of(None), Unit::Either);
    let one_arm: Vec<(usize, &str)> = (0..40).map(|n| (n % 4, "a")).collect();
    assert_eq!(sticky(Test::Connection, &one_arm), None);
    assert_eq!(unlike(Test::Address, &one_arm).unwrap(), None);
}

/// 300 requests over eight connections, drawn by a seeded generator as proxies do it.
fn proxy(drawn_once: impl Fn(usize) -> usize) -> Vec<(usize, &'static str)> {
    let mut state = 7_u64;
    let draws: Vec<u64> = (0..300)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % 10
        })
        .collect();
    (0..300)
        .map(|n| {
            let arm = if draws[drawn_once(n)] < 3 {
                "canary"
            } else {
                "stable"
            };
            (n % 8, arm)
        })
        .collect()
}

#[test]
fn a_proxy_that_draws_each_request_is_told_from_one_that_draws_each_connection() {
    let each = sticky(Test::Connection, &proxy(|n| n)).unwrap();
    assert!(!each.found(), "{each:?}");
    each.judge().unwrap();
    assert_eq!(Unit::of(Some(&each)), Unit::Request);
    let once = sticky(Test::Connection, &proxy(|n| n % 8)).unwrap();
    assert!(once.found() && once.constant, "{once:?}");
    let Err(crate::verdict::NotPassed::Failed(finding)) = once.judge() else {
        panic!("{once:?}")
    };
    assert!(finding.likely().contains("once for a connection"));
    // One that changes its mind every 50 requests sticks as well, but to no connection.
    let by_fifties = sticky(Test::Connection, &proxy(|n| n / 50)).unwrap();
    assert!(!by_fifties.constant, "{by_fifties:?}");
    let draws = proxy(|n| n / 50);
    let in_time: Vec<((), &str)> = draws.iter().map(|(_, arm)| ((), *arm)).collect();
    assert!(sticky(Test::Time, &in_time).unwrap().found());
}

#[test]
fn clients_that_are_treated_otherwise_are_unlike() {
    let draws = |other: usize| -> Vec<(usize, &str)> {
        (0..300)
            .map(|n| {
                let (client, turn) = (n % 2, n / 2);
                let every = if client == 0 { 10 } else { other };
                (
                    client,
                    if turn % every == 0 {
                        "canary"
                    } else {
                        "stable"
                    },
                )
            })
            .collect()
    };
    let alike = unlike(Test::Address, &draws(10)).unwrap().unwrap();
    assert!(!alike.found(), "{alike:?}");
    let apart = unlike(Test::Address, &draws(2)).unwrap().unwrap();
    assert!(apart.found(), "{apart:?}");
    assert!(apart.seen.contains("canary 15 of 150; canary 75 of 150"));
}

#[test]
fn the_hypergeometric_test_is_exact() {
    let p_values: Vec<f64> = orders(12, 4)
        .iter()
        .map(|row| {
            let draws: Vec<(usize, &str)> = row
                .iter()
                .enumerate()
                .map(|(n, hit)| (n / 6, if *hit { "a" } else { "b" }))
                .collect();
            unlike(Test::Address, &draws).unwrap().unwrap().p_value
        })
        .collect();
    is_exact(&p_values);
}

#[test]
fn what_goes_in_turn_is_regular_and_chance_is_not() {
    let in_turn: Vec<bool> = (0..300).map(|n| n % 10 == 0).collect();
    assert!(regular(&in_turn).unwrap() < 1e-7);
    let half: Vec<bool> = (0..300).map(|n| n % 2 == 0).collect();
    assert!(regular(&half).unwrap() < 1e-9);
    let chance: Vec<bool> = proxy(|n| n)
        .iter()
        .map(|(_, arm)| *arm == "canary")
        .collect();
    assert!(regular(&chance).unwrap() > 1e-3);
    // Whatever the share is, it can be told.
    for share in 2..19 {
        let row: Vec<bool> = (0..300).map(|n| n * 7 % 20 < share).collect();
        assert!(regular(&row).unwrap() < 1e-6, "{share}");
    }
    // Never sticky, though.
    let turns: Vec<((), &str)> = in_turn
        .iter()
        .map(|hit| ((), if *hit { "a" } else { "b" }))
        .collect();
    assert!(!sticky(Test::Time, &turns).unwrap().found());
}

/// Two blocks, so that every order can be counted.
#[test]
fn the_probability_of_regularity_is_exact() {
    let row = |first: usize, second: usize| -> Vec<bool> {
        let block = |hits: usize| (0..20).map(move |n| n < hits);
        block(first).chain(block(second)).collect()
    };
    let p = |first, second| regular(&row(first, second)).unwrap();
    // Of four hits, two in each of two blocks of twenty.
    let even = (2.0 * ln_binomial(20, 2) - ln_binomial(40, 4)).exp();
    assert!((p(2, 2) - even).abs() < 1e-9, "{} {even}", p(2, 2));
    assert!((p(0, 4) - 1.0).abs() < 1e-9);
}
