//! What is forgotten, and when the kernel is asked at all.

use proptest::prelude::*;

use super::*;

/// What of a Service is the same in all its states.
const CLUSTER_IP: [u8; 4] = [10, 96, 0, 10];

fn endpoint(last: u8) -> (IpAddr, u16) {
    (IpAddr::from([10, 244, 1, last]), 5353)
}

fn front(address: Option<[u8; 4]>, port: u16) -> Front {
    Front {
        family: IpFamily::V4,
        address: address.map(IpAddr::from),
        port,
    }
}

fn services(of: &[(Front, &[u8])]) -> UdpServices {
    let ends = |ends: &[u8]| ends.iter().copied().map(endpoint).collect();
    of.iter().map(|(front, of)| (*front, ends(of))).collect()
}

fn memory() -> Memory {
    Memory::of("10.96.0.0/16".parse::<IpNet>())
}

fn flow(to: (IpAddr, u16), answered_by: (IpAddr, u16)) -> Flow {
    Flow {
        tuple: Vec::new(),
        protocol: UDP,
        to,
        answered_by,
    }
}

#[test]
fn a_flow_is_stale_when_it_leads_to_no_endpoint_of_the_service_it_was_for() {
    let cluster_ip = IpAddr::from(CLUSTER_IP);
    let v6 = IpAddr::from([0xfd00, 0x172, 0x30, 0, 0, 0, 0, 3]);
    let of = services(&[
        (front(Some(CLUSTER_IP), 53), &[2, 3]),
        (front(None, 30053), &[2]),
    ]);
    let (suspects, all) = (Suspects::all(of.clone()), memory().suspects(&of));
    for (what, to, by, stale, stale_of_all) in [
        (
            "to an endpoint",
            (cluster_ip, 53),
            endpoint(2),
            false,
            false,
        ),
        (
            "to one that is gone",
            (cluster_ip, 53),
            endpoint(4),
            true,
            true,
        ),
        (
            "not translated",
            (cluster_ip, 53),
            (cluster_ip, 53),
            true,
            true,
        ),
        (
            "to another port",
            (cluster_ip, 54),
            (cluster_ip, 54),
            false,
            true,
        ),
        (
            "to a node port",
            (IpAddr::from([172, 30, 0, 3]), 30053),
            endpoint(3),
            true,
            true,
        ),
        ("of the other family", (v6, 30053), (v6, 5353), false, false),
        ("pod to pod", endpoint(9), endpoint(9), false, false),
    ] {
        let flow = flow(to, by);
        assert_eq!(suspects.is_stale(&flow), stale, "{what}");
        assert_eq!(all.is_stale(&flow), stale_of_all, "{what}, of all");
    }
}

#[test]
fn flows_are_looked_at_where_one_can_be_stale() {
    let refused = front(Some(CLUSTER_IP), 53);
    let open = front(None, 30053);
    let nothing = || services(&[]);
    let of = |front, ends: &[u8]| services(&[(front, ends)]);
    for (what, states, looked_at) in [
        ("new", vec![nothing(), of(refused, &[2])], false),
        ("new elsewhere", vec![nothing(), of(open, &[])], true),
        ("as before", vec![of(open, &[2]), of(open, &[2])], false),
        ("one more", vec![of(open, &[2]), of(open, &[2, 3])], false),
        ("the first", vec![of(open, &[]), of(open, &[2])], false),
        (
            "one less",
            vec![of(refused, &[2, 3]), of(refused, &[2])],
            true,
        ),
        ("another", vec![of(refused, &[2]), of(refused, &[3])], true),
        ("gone", vec![of(refused, &[2]), nothing()], false),
        (
            "back, with another",
            vec![of(refused, &[2]), nothing(), nothing(), of(refused, &[3])],
            true,
        ),
        (
            "back, with the same",
            vec![of(refused, &[2]), nothing(), of(refused, &[2])],
            false,
        ),
        (
            "back elsewhere",
            vec![of(open, &[2]), nothing(), of(open, &[2])],
            true,
        ),
    ] {
        let mut memory = memory();
        let last = states.iter().fold(None, |_, state| {
            let suspects = memory.suspects(state);
            memory.learn(state.clone());
            Some(suspects)
        });
        let families = last.map(|suspects| suspects.families()).unwrap_or_default();
        assert_eq!(!families.is_empty(), looked_at, "{what}");
    }
}

/// What happens to a node.
#[derive(Debug, Clone)]
enum Event {
    /// A Service is one with these endpoints, or gone.
    Service(Front, Option<BTreeSet<(IpAddr, u16)>>),
    /// Somebody sends, and goes on sending; the number chooses among endpoints.
    Sends((IpAddr, u16), usize),
    /// The rules are away while somebody sends, and said anew.
    Unruled((IpAddr, u16)),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let fronts = [
        front(Some([10, 96, 0, 1]), 53),
        front(Some([10, 96, 0, 2]), 53),
        front(Some([192, 0, 2, 1]), 53),
        front(None, 30053),
    ];
    let to = prop::sample::select(vec![[10, 96, 0, 1], [10, 96, 0, 2], [192, 0, 2, 1]]);
    let to = prop_oneof![
        to.prop_map(|ip| (IpAddr::from(ip), 53)),
        Just((IpAddr::from([172, 30, 0, 3]), 30053)),
    ];
    let ends = prop::collection::btree_set((1_u8..4).prop_map(endpoint), 0..3);
    let service = (
        prop::sample::select(fronts.to_vec()),
        prop::option::of(ends),
    );
    let event = prop_oneof![
        3 => service.prop_map(|(front, ends)| Event::Service(front, ends)),
        3 => (to.clone(), 0_usize..3).prop_map(|(to, which)| Event::Sends(to, which)),
        1 => to.prop_map(Event::Unruled),
    ];
    prop::collection::vec(event, 0..40)
}

proptest! {
    /// As if the kernel were asked at every change.
    #[test]
    fn no_stale_flow_is_left(events in events()) {
        let (mut memory, mut now, mut flows) = (memory(), UdpServices::new(), Vec::<Flow>::new());
        memory.learn(now.clone());
        for event in events {
            match event {
                Event::Service(front, None) => drop(now.remove(&front)),
                Event::Service(front, Some(ends)) => drop(now.insert(front, ends)),
                Event::Sends(to, which) => {
                    let meant = now.iter().find(|(front, _)| front.takes(to));
                    let by = match meant {
                        Some((_, ends)) => ends.iter().cycle().nth(which).copied(),
                        // The rules let nothing pass to what looks like a Service's.
                        None => Some(to).filter(|(ip, _)| !ip.to_string().starts_with("10.96.")),
                    };
                    if !flows.iter().any(|flow| flow.to == to) {
                        flows.extend(by.map(|by| flow(to, by)));
                    }
                    continue;
                }
                Event::Unruled(to) => {
                    if !flows.iter().any(|flow| flow.to == to) {
                        flows.push(flow(to, to));
                    }
                    memory.distrust();
                }
            }
            let suspects = memory.suspects(&now);
            flows.retain(|flow| !suspects.is_stale(flow));
            memory.learn(now.clone());
            let all = Suspects::all(now.clone());
            let stale = flows.iter().find(|flow| all.is_stale(flow));
            prop_assert!(stale.is_none(), "{stale:?} of {now:?}");
        }
    }
}
