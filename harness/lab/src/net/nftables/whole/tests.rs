//! What is said of a part alone is what would be said of the whole.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::net::nftables::Elements;
use crate::topology::IpFamily;

fn empty() -> Ruleset {
    let mut table = Ruleset::of(IpFamily::V4, "t");
    table.sets.insert("set", Elements::new("type ipv4_addr ;"));
    let verdicts = Elements::new("type ipv4_addr : verdict ;");
    table.maps.insert("map", verdicts);
    table
}

/// A part in one of its states; in one of them it wants an element that others want, too.
fn part(name: usize, state: u8) -> Ruleset {
    let mut part = empty();
    let title = format!("{name}");
    let chain = format!("chain-{name}");
    let rules = [
        format!("{state}"),
        format!("update @dynamic-{name} {{ ip saddr }}"),
    ];
    part.chain(&chain, Some(&title), rules);
    part.chain(&format!("chain-{name}-{state}"), None, []);
    // The time-out is another in each second state.
    let timeout = 60 + u32::from(state / 2);
    part.dynamic.insert(format!("dynamic-{name}"), timeout);
    part.set("set", format!("10.96.0.{name}"), &title);
    let own = format!("10.96.1.{name}");
    let key = if state == 3 {
        "192.0.2.1".to_owned()
    } else {
        own
    };
    part.map("map", key, format!("goto {chain}"), &title);
    part
}

fn base() -> Ruleset {
    let mut base = empty();
    base.chain("base", None, ["ip daddr vmap @map".to_owned()]);
    base
}

/// Of each part the state in which it is there, if it is, at each change.
fn states() -> impl Strategy<Value = Vec<Vec<Option<u8>>>> {
    let part = prop_oneof![2 => Just(None), 6 => (0_u8..3).prop_map(Some), 1 => Just(Some(3))];
    prop::collection::vec(prop::collection::vec(part, 5), 1..8)
}

proptest! {
    #[test]
    fn a_difference_says_what_the_whole_tables_would(states in states()) {
        let base = Arc::new(base());
        let mut made = HashMap::new();
        let mut parts = |states: Vec<Option<u8>>| {
            let there = states.into_iter().enumerate();
            let there = there.filter_map(|(name, state)| Some((name, state?)));
            let others = there.map(|(name, state)| {
                let known = made.entry((name, state)).or_insert_with(|| Arc::new(part(name, state)));
                known.clone()
            });
            Parts { base: base.clone(), others: others.collect() }
        };
        let anew = |parts: &Parts| {
            let mut table = (*parts.base).clone();
            for part in &parts.others {
                let _ = table.include(part);
            }
            table
        };
        let first = parts(vec![]);
        let mut before = anew(&first);
        let mut whole = Whole::of(first);
        for states in states {
            let wanted = parts(states);
            let now = anew(&wanted);
            let difference = whole.become_of(wanted);
            prop_assert_eq!(whole.table(), &now);
            let told = difference.as_ref().and_then(|of| of.came.change(&of.gone));
            prop_assert_eq!(told, now.change(&before));
            if let Some(difference) = difference {
                let steps = difference.came.steps(Some(&difference.gone), false);
                prop_assert_eq!(steps, now.steps(Some(&before), false));
                prop_assert_eq!(&*difference.before(), &before);
            }
            before = now;
        }
    }

    /// As of a component that makes its table in one piece.
    #[test]
    fn a_table_of_one_part_is_told_apart_by_what_is_in_it(states in prop::collection::vec(0_u8..3, 1..6)) {
        let mut before = base();
        let mut whole = Whole::of(before.clone().into());
        for state in states {
            let now = part(0, state);
            let difference = whole.become_of(now.clone().into());
            let told = difference.and_then(|of| of.came.change(&of.gone));
            prop_assert_eq!(told, now.change(&before));
            prop_assert_eq!(whole.table(), &now);
            before = now;
        }
    }
}
