use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::thread::JoinHandle;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use strata_probe::{DnsReply, DnsSpec, FailureKind, Rcode, RequestSpec, Stage, TcpSpec, UdpSpec};

use crate::support::{Server, ask_with, nobody};

/// What the server has under a name: records, or a code.
#[derive(Clone)]
enum Held {
    Records(Vec<RData>),
    Code(ResponseCode),
    /// Over UDP only the TC bit.
    TooLong(Vec<RData>),
    Silence,
    Nonsense,
    /// An answer to another question first.
    AfterAStray(Vec<RData>),
}

/// A name server on loopback, over UDP and TCP on the same port.
struct NameServer {
    at: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    fn with(zone: &[(&str, Held)]) -> Self {
        let zone: BTreeMap<String, Held> = zone
            .iter()
            .map(|(name, held)| ((*name).to_owned(), held.clone()))
            .collect();
        // A port that is free over UDP may be taken over TCP.
        let (udp, tcp) = std::iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0").unwrap())
            .find_map(|udp| {
                let tcp = TcpListener::bind(udp.local_addr().unwrap()).ok()?;
                Some((udp, tcp))
            })
            .unwrap();
        let at = udp.local_addr().unwrap();
        let of_tcp = zone.clone();
        let threads = vec![
            std::thread::spawn(move || over_udp(&udp, &zone)),
            std::thread::spawn(move || over_tcp(&tcp, &of_tcp)),
        ];
        Self { at, threads }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // Nothing is what tells them to end.
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&[], self.at).unwrap();
        drop(TcpStream::connect(self.at));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn over_udp(socket: &UdpSocket, zone: &BTreeMap<String, Held>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        if length == 0 {
            return;
        }
        for answer in answers(&buffer[..length], zone, false) {
            socket.send_to(&answer, from).unwrap();
        }
    }
}

fn over_tcp(listener: &TcpListener, zone: &BTreeMap<String, Held>) {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            return;
        }
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut question).unwrap();
        for answer in answers(&question, zone, true) {
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length, &answer[..]].concat()).unwrap();
        }
    }
}

fn answers(question: &[u8], zone: &BTreeMap<String, Held>, tcp: bool) -> Vec<Vec<u8>> {
    let mut message = Message::from_vec(question).unwrap();
    assert!(message.metadata.recursion_desired);
    message.metadata.message_type = MessageType::Response;
    message.metadata.authoritative = true;
    let query = message.queries[0].clone();
    let mut before = Vec::new();
    match zone.get(&query.name().to_ascii()) {
        None => message.metadata.response_code = ResponseCode::NXDomain,
        Some(Held::Code(code)) => message.metadata.response_code = *code,
        Some(Held::Silence) => return Vec::new(),
        Some(Held::Nonsense) => return vec![[&question[..2], &[0xff; 30]].concat()],
        Some(Held::TooLong(_)) if !tcp => message.metadata.truncation = true,
        Some(Held::Records(data) | Held::TooLong(data)) => {
            fill(&mut message, query.name(), query.query_type(), data);
        }
        Some(Held::AfterAStray(data)) => {
            let mut stray = message.clone();
            stray.metadata.id ^= 1;
            stray.metadata.response_code = ResponseCode::ServFail;
            before.push(stray.to_vec().unwrap());
            fill(&mut message, query.name(), query.query_type(), data);
        }
    }
    before.push(message.to_vec().unwrap());
    before
}

fn fill(message: &mut Message, name: &Name, wanted: RecordType, data: &[RData]) {
    let mut owner = name.clone();
    for data in data {
        let kind = data.record_type();
        if kind == wanted || kind == RecordType::CNAME {
            message.add_answer(Record::from_rdata(owner.clone(), 30, data.clone()));
        }
        if let RData::CNAME(canonical) = data {
            owner = canonical.0.clone();
        }
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn address(text: &str) -> RData {
    match text.parse().unwrap() {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// As in a pod of the namespace `ns`.
const POD: &str =
    "search ns.svc.cluster.local svc.cluster.local\noptions ndots:5\nnameserver 127.0.0.1\n";

fn look(server: &NameServer, spec: DnsSpec) -> DnsReply {
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, POD).unwrap();
    let at = server.at.to_string();
    let environment: [(&str, &dyn AsRef<std::ffi::OsStr>); 2] = [
        ("PROBE_RESOLV_CONF", &resolv_conf),
        ("PROBE_NAME_SERVER", &at),
    ];
    let mut replies = ask_with(&spec, &environment);
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

fn questions(reply: &DnsReply) -> Vec<&str> {
    let exchanges = reply.exchanges.iter();
    exchanges
        .map(|exchange| exchange.question.as_str())
        .collect()
}

#[test]
fn the_search_path_is_walked_and_told() {
    let server = NameServer::with(&[(
        "web.svc.cluster.local.",
        Held::Records(vec![address("10.96.0.7"), address("10.96.0.8")]),
    )]);
    let reply = look(&server, DnsSpec::new("web", "A"));
    assert_eq!(reply.error, None);
    assert_eq!(
        questions(&reply),
        ["web.ns.svc.cluster.local.", "web.svc.cluster.local."]
    );
    assert_eq!(reply.question, "web.svc.cluster.local.");
    assert_eq!(
        reply.addresses,
        ["10.96.0.7", "10.96.0.8"].map(|a| a.parse::<IpAddr>().unwrap())
    );
    assert_eq!(reply.answers[0].ttl, 30);
    assert_eq!(reply.exchanges[0].rcode, Some(Rcode::NxDomain));
    assert!(reply.exchanges[1].authoritative);
    assert_eq!(reply.exchanges[1].server, server.at);

    let reply = look(&server, DnsSpec::new("web.", "A"));
    assert_eq!(
        (questions(&reply), reply.rcode.as_ref()),
        (vec!["web."], Some(&Rcode::NxDomain))
    );
    assert_eq!(reply.error, None, "NXDOMAIN settles the question");
    let as_it_stands = DnsSpec {
        no_search: true,
        ..DnsSpec::new("web", "A")
    };
    assert_eq!(questions(&look(&server, as_it_stands)), ["web."]);
    let many = look(&server, DnsSpec::new("a.b.c.d.e.f", "A"));
    assert_eq!(questions(&many)[0], "a.b.c.d.e.f.");
    assert_eq!(many.exchanges.len(), 3);
}

#[test]
fn a_name_without_the_record_is_not_a_name_that_does_not_exist() {
    let server = NameServer::with(&[(
        "web.ns.svc.cluster.local.",
        Held::Records(vec![address("10.96.0.7")]),
    )]);
    let reply = look(&server, DnsSpec::new("web", "AAAA"));
    assert_eq!(
        (reply.rcode, reply.question.as_str()),
        (Some(Rcode::NoError), "web.ns.svc.cluster.local.")
    );
    assert_eq!((reply.error, reply.answers.len()), (None, 0));
}

#[test]
fn records_are_told_as_in_a_zone_file() {
    let server = NameServer::with(&[
        (
            "alias.",
            Held::Records(vec![
                RData::CNAME(CNAME(name("middle."))),
                RData::CNAME(CNAME(name("web."))),
                address("10.0.0.1"),
            ]),
        ),
        (
            "_http._tcp.web.",
            Held::Records(vec![RData::SRV(SRV::new(0, 100, 80, name("web-0.web.")))]),
        ),
        (
            "5.1.244.10.in-addr.arpa.",
            Held::Records(vec![RData::PTR(PTR(name("web-0.web.")))]),
        ),
        (
            "dns-version.",
            Held::Records(vec![RData::TXT(TXT::new(vec!["1.1.0".into()]))]),
        ),
    ]);
    let alias = look(&server, DnsSpec::new("alias.", "a"));
    assert_eq!(alias.cname_chain, ["alias.", "middle.", "web."]);
    assert_eq!(alias.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(alias.record_type, "A");
    for (name, kind, data) in [
        ("_http._tcp.web.", "SRV", "0 100 80 web-0.web."),
        ("10.244.1.5", "PTR", "web-0.web."),
        ("dns-version.", "TXT", "1.1.0"),
    ] {
        let reply = look(&server, DnsSpec::new(name, kind));
        assert_eq!(reply.data(kind).collect::<Vec<_>>(), [data], "{kind}");
    }
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let long: Vec<RData> = (0..60).map(|i| address(&format!("10.0.0.{i}"))).collect();
    let server = NameServer::with(&[("web.", Held::TooLong(long))]);
    let reply = look(&server, DnsSpec::new("web.", "A"));
    assert_eq!((reply.addresses.len(), reply.truncated), (60, false));
    let told: Vec<_> = reply
        .exchanges
        .iter()
        .map(|e| (e.tcp, e.truncated))
        .collect();
    assert_eq!(told, [(false, true), (true, false)]);
    let kept = look(
        &server,
        DnsSpec {
            keep_truncated: true,
            ..DnsSpec::new("web.", "A")
        },
    );
    assert_eq!((kept.addresses.len(), kept.truncated), (0, true));
    let tcp = look(
        &server,
        DnsSpec {
            tcp: true,
            ..DnsSpec::new("web.", "A")
        },
    );
    assert_eq!((tcp.addresses.len(), tcp.exchanges.len()), (60, 1));
}

#[test]
fn name_servers_fail_in_their_own_ways() {
    let server = NameServer::with(&[
        ("broken.", Held::Code(ResponseCode::ServFail)),
        ("private.", Held::Code(ResponseCode::Refused)),
        ("odd.", Held::Code(ResponseCode::NotImp)),
        ("silent.", Held::Silence),
        ("noise.", Held::Nonsense),
        ("stray.", Held::AfterAStray(vec![address("10.0.0.1")])),
    ]);
    let impatient = |name: &str| DnsSpec {
        timeout_ms: 150,
        attempts: 1,
        ..DnsSpec::new(name, "A")
    };
    for (name, kind, rcode) in [
        (
            "broken.",
            FailureKind::NameServerFailed,
            Some(Rcode::ServFail),
        ),
        (
            "private.",
            FailureKind::NameServerFailed,
            Some(Rcode::Refused),
        ),
        (
            "odd.",
            FailureKind::NameServerFailed,
            Some(Rcode::Other("NOTIMP".into())),
        ),
        ("silent.", FailureKind::NameServerTimedOut, None),
        ("noise.", FailureKind::Protocol, None),
    ] {
        let reply = look(&server, impatient(name));
        let failure = reply.error.unwrap();
        assert_eq!(
            (failure.kind, failure.stage),
            (kind, Stage::Resolve),
            "{name}"
        );
        assert_eq!(reply.rcode, rcode, "{name}");
    }
    assert_eq!(look(&server, impatient("stray.")).addresses.len(), 1);
    assert_eq!(
        look(&server, DnsSpec::new("broken.", "A")).exchanges.len(),
        2
    );
    let nobody = DnsSpec {
        server: Some(nobody().to_string()),
        ..impatient("web.")
    };
    let failure = look(&server, nobody).error.unwrap();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::Refused, Stage::Resolve)
    );
}

#[test]
fn without_a_name_server_nobody_is_asked() {
    let reply = ask_with(&DnsSpec::new("web", "A"), &[]).remove(0);
    let failure = reply.error.unwrap();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::Other, Stage::Local)
    );
    assert!(failure.text.contains("/dev/null"), "{}", failure.text);
}

#[test]
fn clients_resolve_by_the_search_path() {
    let pods = Server::start(&["--http", "0", "--tcp", "0", "--udp", "0"]);
    let names = NameServer::with(&[
        (
            "web.ns.svc.cluster.local.",
            Held::Records(vec![address("127.0.0.1")]),
        ),
        (
            "broken.ns.svc.cluster.local.",
            Held::Code(ResponseCode::ServFail),
        ),
        ("silent.ns.svc.cluster.local.", Held::Silence),
        ("empty.ns.svc.cluster.local.", Held::Records(Vec::new())),
    ]);
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, POD).unwrap();
    let at = names.at.to_string();
    let environment: [(&str, &dyn AsRef<std::ffi::OsStr>); 2] = [
        ("PROBE_RESOLV_CONF", &resolv_conf),
        ("PROBE_NAME_SERVER", &at),
    ];
    let get = |host: &str| {
        let spec = RequestSpec {
            timeout_ms: 1000,
            ..RequestSpec::get(format!("http://{host}:{}/", pods.at.http[0].port()))
        };
        ask_with(&spec, &environment).remove(0)
    };
    let reply = get("web");
    assert_eq!(reply.error, None);
    assert_eq!(reply.resolved, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    for (host, kind) in [
        ("nobody", FailureKind::NoSuchHost),
        ("empty", FailureKind::NoSuchHost),
        ("broken", FailureKind::NameServerFailed),
        ("silent", FailureKind::NameServerTimedOut),
    ] {
        let failure = get(host).error.unwrap();
        assert_eq!(
            (failure.kind, failure.stage),
            (kind, Stage::Resolve),
            "{host}"
        );
    }
    let tcp = TcpSpec::new(format!("web:{}", pods.at.tcp[0].port()));
    assert_eq!(ask_with(&tcp, &environment)[0].error, None);
    let udp = UdpSpec::new(format!("web:{}", pods.at.udp[0].port()));
    assert_eq!(ask_with(&udp, &environment)[0].error, None);
}
