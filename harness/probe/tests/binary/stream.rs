use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, UdpSocket};

use strata_probe::{Failure, FailureKind, Protocol, Stage, TcpSpec, UdpSpec};

use crate::support::{Rude, Server, ask, ask_one, nobody, reset};

fn kind(error: Option<Failure>) -> (FailureKind, Stage) {
    let error = error.unwrap();
    (error.kind, error.stage)
}

#[test]
fn an_echo_is_compared_and_the_server_says_who_it_is() {
    let server = Server::start(&["--tcp", "0"]);
    for bytes in [0, 1, 100_000] {
        let reply = ask_one(&TcpSpec {
            bytes,
            ..TcpSpec::new(server.tcp())
        });
        assert_eq!(reply.error, None);
        assert_eq!((reply.sent, reply.received), (bytes, bytes));
        let answer = reply.answer.unwrap();
        assert_eq!(
            (answer.protocol, answer.body_length),
            (Protocol::Tcp, bytes)
        );
        assert_eq!(
            (answer.pod.as_str(), Some(answer.client)),
            ("web-0", reply.local)
        );
        assert_eq!(Some(answer.local), reply.remote);
    }
}

#[test]
fn connections_are_counted_and_distinct() {
    let server = Server::start(&["--tcp", "0"]);
    let replies = ask(&TcpSpec {
        bytes: 10,
        count: 20,
        concurrency: 4,
        ..TcpSpec::new(server.tcp())
    });
    let ports: std::collections::BTreeSet<_> = replies.iter().map(|r| r.local).collect();
    let sent: std::collections::BTreeSet<_> = replies.iter().map(|r| &r.sha256).collect();
    assert_eq!((ports.len(), sent.len()), (20, 20));
    assert!(replies.iter().all(|reply| reply.error.is_none()));
}

#[test]
fn tcp_fails_in_its_own_ways() {
    let to = |at: &dyn ToString| TcpSpec {
        bytes: 10,
        timeout_ms: 1000,
        ..TcpSpec::new(at.to_string())
    };
    let refused = ask_one(&to(&nobody()));
    assert_eq!(kind(refused.error), (FailureKind::Refused, Stage::Connect));

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let late = ask_one(&TcpSpec {
        timeout_ms: 150,
        ..to(&silent.local_addr().unwrap())
    });
    assert_eq!(kind(late.error), (FailureKind::TimedOut, Stage::Exchange));

    let rude = Rude::resets(b"");
    assert_eq!(
        kind(ask_one(&to(&rude.at)).error),
        (FailureKind::Reset, Stage::Exchange)
    );
    let rude = Rude::says(b"");
    assert_eq!(
        kind(ask_one(&to(&rude.at)).error),
        (FailureKind::Closed, Stage::Exchange)
    );
    let rude = Rude::says(b"0123456789");
    let corrupted = ask_one(&to(&rude.at));
    assert_eq!(kind(corrupted.error), (FailureKind::Corrupted, Stage::Body));
    assert_eq!(corrupted.received, 10);

    for (said, expected) in [
        (&b"hello\n"[..], FailureKind::Protocol),
        (b"", FailureKind::Closed),
    ] {
        let rude = Rude::to_one(move |mut stream| {
            stream.read_to_end(&mut Vec::new()).unwrap();
            stream.write_all(said).unwrap();
        });
        let reply = ask_one(&TcpSpec::new(rude.at.to_string()));
        assert_eq!(kind(reply.error), (expected, Stage::Body));
    }
}

#[test]
fn only_connecting_asks_nothing_of_the_server() {
    let stranger = Rude::to_one(|mut stream| {
        stream.write_all(b"a banner").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let reply = ask_one(&TcpSpec {
        connect_only: true,
        hold_ms: 20,
        ..TcpSpec::new(stranger.at.to_string())
    });
    assert_eq!((reply.error, reply.answer), (None, None));
    assert!(reply.connected_us.is_some());
}

#[test]
fn an_idle_connection_that_is_lost_is_noticed() {
    let holding = |at: &dyn ToString| TcpSpec {
        hold_ms: 60_000,
        ..TcpSpec::new(at.to_string())
    };
    let closes = Rude::to_one(|stream| stream.shutdown(Shutdown::Write).unwrap());
    let closed = ask_one(&holding(&closes.at));
    assert_eq!(kind(closed.error), (FailureKind::Closed, Stage::Exchange));
    let cuts = Rude::to_one(reset);
    let cut = ask_one(&holding(&cuts.at));
    assert_eq!(kind(cut.error), (FailureKind::Reset, Stage::Exchange));
}

#[test]
fn datagrams_are_answered_from_the_address_they_were_sent_to() {
    let server = Server::start(&["--udp", "0"]);
    let port = server.at.udp[0].port();
    for host in ["127.0.0.1", "127.0.0.77"] {
        let reply = ask_one(&UdpSpec {
            bytes: 1000,
            source: Some(Ipv4Addr::new(127, 0, 0, 5).into()),
            ..UdpSpec::new(format!("{host}:{port}"))
        });
        assert_eq!(reply.error, None);
        let answer = reply.answer.unwrap();
        assert_eq!((answer.protocol, answer.body_length), (Protocol::Udp, 1000));
        assert_eq!(answer.local.to_string(), format!("{host}:{port}"));
        assert_eq!(answer.client.ip(), Ipv4Addr::new(127, 0, 0, 5));
    }
}

#[test]
fn datagrams_share_a_socket_or_do_not() {
    let server = Server::start(&["--udp", "0"]);
    for (new_socket, flows) in [(false, 1), (true, 5)] {
        let replies = ask(&UdpSpec {
            count: 5,
            new_socket,
            ..UdpSpec::new(server.udp())
        });
        let sequence: Vec<_> = replies.iter().map(|reply| reply.sequence).collect();
        assert_eq!(sequence, [0, 1, 2, 3, 4]);
        let seen = replies.iter().map(|r| r.answer.as_ref().unwrap().client);
        let seen: std::collections::BTreeSet<_> = seen.collect();
        assert_eq!(seen.len(), flows);
    }
}

#[test]
fn datagrams_of_one_source_port_are_of_one_flow() {
    let server = Server::start(&["--udp", "0"]);
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    for _ in 0..2 {
        let reply = ask_one(&UdpSpec {
            source_port: Some(port),
            ..UdpSpec::new(server.udp())
        });
        assert_eq!(reply.answer.unwrap().client.port(), port);
    }
}

#[test]
fn what_does_not_fit_is_too_long_only_with_dont_fragment() {
    let server = Server::start(&["--udp", "0"]);
    let spec = |bytes, df| UdpSpec {
        bytes,
        df,
        ..UdpSpec::new(server.udp())
    };
    let lo = ask_one(&spec(16, true));
    assert_eq!(lo.error, None);
    let mtu = lo.path_mtu.unwrap();
    let fits = mtu.min(65_535) - 28;
    assert_eq!(ask_one(&spec(fits, true)).error, None);
    // Loopback's usual MTU is larger than any datagram: then only what no packet holds is too long.
    let too_long = ask_one(&spec(fits + 1, true));
    assert_eq!(
        kind(too_long.error),
        (FailureKind::MessageTooLong, Stage::Exchange)
    );
    assert_eq!(too_long.sent, 0);
}

#[test]
fn udp_fails_in_its_own_ways() {
    let refused = ask_one(&UdpSpec::new(nobody().to_string()));
    assert_eq!(kind(refused.error), (FailureKind::Refused, Stage::Exchange));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let late = ask(&UdpSpec {
        timeout_ms: 100,
        count: 2,
        ..UdpSpec::new(silent.local_addr().unwrap().to_string())
    });
    for reply in &late {
        assert_eq!(
            kind(reply.error.clone()),
            (FailureKind::TimedOut, Stage::Exchange)
        );
        assert_eq!(reply.sent, 16);
    }
    assert_ne!(
        late[0].local, late[1].local,
        "a late answer must find nobody"
    );
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = stranger.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (_, from) = stranger.recv_from(&mut [0; 100]).unwrap();
        stranger.send_to(b"hello", from).unwrap();
    });
    let reply = ask_one(&UdpSpec::new(at.to_string()));
    thread.join().unwrap();
    assert_eq!(kind(reply.error), (FailureKind::Protocol, Stage::Exchange));
}
